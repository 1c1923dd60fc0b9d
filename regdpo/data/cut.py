"""Cutting clips out of a video with ffmpeg.

Times are counted in frames at a normalised rate from the chosen stream's first frame: frame ``k`` is what is shown
``k / fps`` seconds after it, if its clock does not jump.
"""

import base64
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import cv2
import ffmpeg
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from regdpo.config import schema
from regdpo.data import picture
from regdpo.data.bars import NONE, Bars
from regdpo.data.decode import THREADS, Decoding, Kept
from regdpo.data.fingerprint import look
from regdpo.data.video import KEYLESS, BrokenVideo, Probe, encoding, even, frame_rate, keyframes, reading, run

THUMBNAIL = 160
"""Pixels of the longer side of a small picture."""


class EndsEarly(BrokenVideo):
    """The video has less frames than were asked for."""


@dataclass(frozen=True)
class Window:
    """A crop window of the scaled frame, in pixels."""

    x: int
    y: int


def scaled_size(source: Probe, width: int, height: int, short_side: int | None, bars: Bars = NONE) -> tuple[int, int]:
    """Even (width, height) of the frame after scaling: what lies between the bars covers width x height, its shorter
    side ``short_side``."""
    wide, high = bars.inside(source.width, source.height)
    factor = max(width / wide, height / high)
    if short_side:
        factor = max(factor, short_side / min(wide, high))
    return max(width, even(source.width * factor)), max(height, even(source.height * factor))


def windows(
    scaled: tuple[int, int], width: int, height: int, crops: tuple[int, int], bars: Bars = NONE
) -> list[Window]:
    """Crop windows in ``crops`` = (rows, columns), spread evenly from edge to edge; one of a kind is centred.

    Positions are even, as 4:2:0 wants them. Windows that would coincide are listed once.

    Args:
        scaled: width and height of the frame.
        width: of a window.
        height: of a window.
        crops: rows and columns of them.
        bars: of the scaled frame, between which they lie.
    """

    def positions(begin: int, room: int, count: int) -> list[int]:
        spread = np.linspace(0, room, count) if count > 1 else [room / 2]
        return sorted({max(0, 2 * int((begin + position) / 2)) for position in spread})

    wide, high = bars.inside(*scaled)
    rows, columns = positions(bars.top, high - height, crops[0]), positions(bars.left, wide - width, crops[1])
    return [Window(x, y) for y in rows for x in columns]


@dataclass(frozen=True)
class Taken:
    """What is kept of a span's scaled frames, which may be far larger than its clips."""

    looks: np.ndarray | None  # uint8 (F, 8, 8): ``fingerprint.look`` of each frame; of kept ones none
    cuts: list[np.ndarray]  # of each crop window: uint8 (F, 3 height / 2 * width), planes of yuv420p


def spans(
    path: str | Path,
    source: Probe,
    wanted: Mapping[int, int],
    scaled: tuple[int, int],
    windows: list[Window],
    clips: schema.Clips,
    kept: Kept | None = None,
) -> Iterator[tuple[int, Taken]]:
    """What several spans hold, in one pass over the video, or from the frames that another pass kept.

    Args:
        path: the source.
        source: its probe.
        wanted: the first frame of each span at ``clips.fps``, and how many it has. Of two spans that overlap the one
            that starts first ends first.
        scaled: width and height of the frames.
        windows: of each span.
        clips: rate, size and limits.
        kept: the frames, if they are.

    Yields:
        The first frame's number, and what is kept of the span.

    Raises:
        EndsEarly: the video ends before the spans do.
        BrokenVideo: ffmpeg fails or reaches a limit.
    """
    if kept is None:
        frames: Iterable[tuple[int, np.ndarray]] = enumerate(normalised(path, source, scaled, clips).frames())
    else:
        numbers = sorted({number for first, count in wanted.items() for number in range(first, first + count)})
        frames = ((number, kept.frame(number)) for number in numbers)
    recent: deque[tuple[np.ndarray | None, list[np.ndarray]]] = deque(maxlen=max(wanted.values()))
    left = deque(sorted(wanted.items()))
    for number, planes in frames:
        first, count = left[0]
        if number >= first:
            cuts = [cropped(planes, window, clips.width, clips.height) for window in windows]
            recent.append((None if kept else look(planes), cuts))
        if number == first + count - 1:
            looks, every = zip(*islice(recent, len(recent) - count, None), strict=True)
            yield first, Taken(None if kept else np.stack(looks), [np.stack(one) for one in zip(*every, strict=True)])
            left.popleft()
        if not left:
            return
    raise EndsEarly(f"ends before frame {sum(left[0])} when it is read again")


def write(target: Path, planes: np.ndarray, clips: schema.Clips) -> None:
    """Write the clip of one crop window.

    Args:
        target: the file.
        planes: one of ``Taken.cuts``.
        clips: size, rate, limits and encoder settings.

    Raises:
        BrokenVideo: ffmpeg fails.
        OSError: ENOSPC, the disk is full.
    """
    layout = {"format": "rawvideo", "pix_fmt": "yuv420p", "video_size": (clips.width, clips.height)}
    stream = picture.tagged(ffmpeg.input("pipe:", **layout, framerate=str(frame_rate(clips.fps))).video)
    run(stream.output(str(target), **encoding(clips.encode, clips.frames)), planes.tobytes(), clips.limits)


def pictures(planes: np.ndarray, width: int, height: int, size: tuple[int, int] | None = None) -> list[np.ndarray]:
    """Frames as one sees them.

    Args:
        planes: of frames of a clip, as in ``Taken.cuts``.
        width: of the clip, in pixels.
        height: likewise.
        size: width and height of what is wanted; None for the clip's.

    Returns:
        uint8 RGB (H, W, 3) each.
    """
    found = []
    for one in planes:
        frame = av.VideoFrame.from_ndarray(one.reshape(-1, width), format="yuv420p")
        frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
        wide, high = size or (width, height)
        found.append(frame.reformat(wide, high, "rgb24", interpolation="AREA").to_ndarray())
    return found


def thumbnail(planes: np.ndarray, width: int, height: int) -> str:
    """A small JPEG picture of a frame, as base64. The arguments are as for ``pictures``, of one frame."""
    shrink = THUMBNAIL / max(width, height, THUMBNAIL)
    size = even(width * shrink), even(height * shrink)
    (rgb,) = pictures(planes[None], width, height, size)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return base64.b64encode(data.tobytes()).decode()


def cropped(planes: np.ndarray, window: Window, width: int, height: int) -> np.ndarray:
    """A window of a frame's planes of yuv420p: uint8 (3 H / 2, W) gives (3 height / 2 * width,)."""
    rows, columns = len(planes) * 2 // 3, planes.shape[1]
    luma = planes[:rows]
    chroma = planes[rows:].reshape(2, rows // 2, columns // 2)
    x, y = window.x // 2, window.y // 2
    luma = luma[window.y : window.y + height, window.x : window.x + width]
    chroma = chroma[:, y : y + height // 2, x : x + width // 2]
    return np.concatenate([luma.ravel(), chroma.ravel()])


def normalised(
    path: str | Path,
    source: Probe,
    scaled: tuple[int, int],
    clips: schema.Clips,
    watched: bool = False,
    kept: Kept | None = None,
) -> Decoding:
    """A pass over the chosen stream at the normalised rate, from its first frame on, progressive, scaled, with
    normal colours; of ``kept`` the frames are put down as well.

    Where the video's clock jumps, back or by more than the gap, the next frame follows the one before it.

    Raises:
        BrokenVideo: the frames would be too large.
    """
    if scaled[0] * scaled[1] > clips.limits.pixels:
        raise BrokenVideo(
            f"scaled to {scaled[0]}x{scaled[1]}, more than {clips.limits.pixels} pixels (clips.limits.pixels)"
        )
    rate = frame_rate(clips.fps)
    bounds = {"max_pixels": clips.limits.pixels, "threads": THREADS}
    options = {**bounds, **reading(source.number, source.picture)}
    file = ffmpeg.input(str(path), copyts=None, start_at_zero=None, **options)
    step = "PTS-PREV_INPTS"
    steady = f"if(eq(N,0),0,PREV_OUTPTS+if(between({step},0,{longest_step(clips):.6f}/TB),{step},1/({rate}*TB)))"
    stream = picture.progressive(file[f"v:{source.number}"].filter("setpts", steady), source.picture)
    stream = stream.filter("fps", fps=str(rate)).filter("setpts", "N")
    beside = None
    if kept:
        both = stream.filter_multi_output("split")
        stream, beside = both[0], (picture.normal(both[1], source.picture, *kept.size), kept)
    stream = picture.normal(stream, source.picture, *scaled)
    keys = keyframes(path, source.index) if watched and source.picture.decoder in KEYLESS else ()
    return Decoding(stream, source.index, scaled, clips.limits, watched, keys, beside)


def longest_step(clips: schema.Clips) -> float:
    """Seconds from a frame to the next beyond which the clock has jumped."""
    return clips.shots.gap + 1 / clips.fps
