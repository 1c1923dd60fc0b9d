"""Text files to fill in, one a video, beside a page that shows what is to be described."""

import base64
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from html import escape
from pathlib import Path

import cv2
import ffmpeg
import numpy as np

from regdpo.config import schema
from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.rows import ClipRow
from regdpo.core.store import Store
from regdpo.core.temporaries import atomic
from regdpo.data.decode import THREADS, Decoding
from regdpo.data.footage import refusal
from regdpo.data.names import shown
from regdpo.data.picture import normal, progressive
from regdpo.data.sidecars import Sidecars
from regdpo.data.video import LIMITS, BrokenVideo, Probe, even, probe, read_stored, reading

PAGE = "captions.html"
LARGEST = 480
"""Pixels of a picture's longer side."""
PICTURES = 3
"""Of a shot."""

HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Captions to write</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 1.5rem; }
  h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; overflow-wrap: anywhere; }
  p { margin: .3rem 0; } code { overflow-wrap: anywhere; }
  img { max-width: 100%; margin: .2rem .3rem .2rem 0; vertical-align: top; border-radius: 4px; }
</style>
<h1>Captions to write</h1>
<p>Each video has a text file beside this page. Write into it what is to be seen, in the words and at the length that
the base model was trained with: for Wan a paragraph that says the subject, what it does, the setting, the camera.</p>
"""


def write(
    folder: Path, clips: list[ClipRow], store: Store, footage: Path | None = None, limits: schema.Limits = LIMITS
) -> Iterator[str]:
    """Write the files and the page. A file that is there stays as it is.

    Args:
        folder: for ``captions.root``.
        clips: all accepted ones.
        store: where they are.
        footage: folder of the videos, whose pictures are larger than those of small clips; None: it is not there.
        limits: what reading a video may take.

    Yields:
        What was done, a line each.

    Raises:
        UserError: there are no clips, one is missing from the store, or the folder cannot be written to.
    """
    if not clips:
        raise UserError(
            "no clip was accepted, so there is nothing to caption; the reasons are in results/clips.parquet"
        )
    videos: dict[str, dict[int, list[ClipRow]]] = defaultdict(lambda: defaultdict(list))
    for clip in sorted(clips, key=lambda clip: (clip.source, clip.shot, clip.start, clip.clip_id)):
        videos[clip.source][clip.shot].append(clip)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = Sidecars(folder, videos)
        written, parts = 0, [HEAD]
        for source, shots in track(videos.items(), "videos", len(videos)):
            name = files.of(source, min(shots))
            if name is None:
                name, written = files.wanted(source), written + 1
                (files.root / name).parent.mkdir(parents=True, exist_ok=True)
                (files.root / name).touch()
            text = "" if files.is_empty(name) else files.read(name)
            pictures = Pictures(store, footage, source, limits)
            parts.append(_section(source, name, text, shots, pictures))
        with atomic(folder / PAGE) as temporary:
            temporary.write_text("".join(parts), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror})") from None
    yield f"{written} empty text files written, {len(videos) - written} videos had one"
    yield f"open {folder / PAGE} and fill the files in; they are for captions: {{source: sidecar, root: {folder}}}"


def _section(source: str, name: str, text: str, shots: dict[int, list[ClipRow]], pictures: "Pictures") -> str:
    lines = [f"<h2>{escape(shown(source))}</h2>\n<p><code>{escape(shown(name))}</code> "]
    lines.append(f"says: {escape(text)}</p>\n" if text else "is empty.</p>\n")
    if len(shots) > 1:
        one = f"{name.removesuffix('.txt')}.shot{max(shots):03}.txt"
        lines.append(f"<p>It has several shots; one alone is described in <code>{escape(shown(one))}</code>.</p>\n")
    for shot, clips in shots.items():
        if len(shots) > 1:
            lines.append(f"<p>shot {shot:03}</p>\n")
        step = max(1, len(clips) // PICTURES)
        shown_ones = (pictures.of(clip) for clip in clips[::step][:PICTURES])
        lines += [f'<img src="{_data(one)}" alt="shot {shot:03}">\n' for one in shown_ones]
    return "".join(lines)


class Pictures:
    """Of the clips of one video."""

    def __init__(self, store: Store, footage: Path | None, source: str, limits: schema.Limits):
        self.store, self.limits = store, limits
        self.path = footage / source if footage and not refusal(footage, source) else None

    @cached_property
    def source(self) -> Probe | None:
        """None if the video cannot be read any more."""
        with suppress(BrokenVideo):
            return probe(self.path, self.limits) if self.path else None
        return None

    def of(self, clip: ClipRow) -> np.ndarray:
        """The middle of a clip, uint8 (H, W, 3) in BGR: where the clip is small, its window of the video."""
        larger = min(LARGEST / max(clip.width, clip.height, 1), 1 / clip.scores.get("upscale", 1))
        if larger > 1 and self.source:
            with suppress(BrokenVideo):
                for planes in self._decoding(clip, self.source, larger).frames():
                    return _window(cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420), clip, larger)
        frames = read_stored(self.store, clip.path, clip.sha256)
        picture = cv2.cvtColor(frames[len(frames) // 2], cv2.COLOR_RGB2BGR)
        scale = min(1, LARGEST / max(picture.shape))
        return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)

    def _decoding(self, clip: ClipRow, source: Probe, larger: float) -> Decoding:
        """Of the video from the middle of a clip on, ``larger`` times as large as for clips."""
        middle = clip.start_s + clip.frames / clip.fps / 2
        options = {"max_pixels": self.limits.pixels, "threads": THREADS, **reading(source.number, source.picture)}
        stream = ffmpeg.input(str(self.path), ss=f"{middle:.3f}", **options)[f"v:{source.number}"]
        scale = clip.scores["upscale"] * larger
        size = even(source.width * scale), even(source.height * scale)
        stream = normal(progressive(stream, source.picture), source.picture, *size)
        return Decoding(stream, source.index, size, self.limits)


def _window(picture: np.ndarray, clip: ClipRow, larger: float) -> np.ndarray:
    """What a clip shows of a frame."""
    left, top, width, height = (round(it * larger) for it in (clip.crop_x, clip.crop_y, clip.width, clip.height))
    return picture[top : top + height, left : left + width]


def _data(picture: np.ndarray) -> str:
    """As a ``data:`` URI."""
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}"
