"""Cutting clips out of a video with ffmpeg.

Times are counted in frames at a normalised rate from the chosen stream's first frame: frame ``k`` is what is shown
``k / fps`` seconds after it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np

from regdpo import config
from regdpo.data import picture
from regdpo.data.video import Probe, encoding, even, frame_rate, reading, run

LEAD = 1.0
"""Seconds before the wanted frame at which decoding begins at the latest; indexes of containers are not exact."""


@dataclass(frozen=True)
class Window:
    """A crop window of the scaled frame, in pixels."""

    x: int
    y: int


def scaled_size(source: Probe, width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Even (width, height) of the frame after scaling: it covers width x height, its shorter side ``short_side``."""
    factor = max(width / source.width, height / source.height)
    if short_side:
        factor = max(factor, short_side / min(source.width, source.height))
    return max(width, even(source.width * factor)), max(height, even(source.height * factor))


def windows(scaled: tuple[int, int], width: int, height: int, crops: tuple[int, int]) -> list[Window]:
    """Crop windows in ``crops`` = (rows, columns), spread evenly from edge to edge; one of a kind is centred.

    Positions are even, as 4:2:0 wants them. Windows that would coincide are listed once.
    """

    def positions(room: int, count: int) -> list[int]:
        spread = np.linspace(0, room, count) if count > 1 else [room / 2]
        return sorted({2 * int(position / 2) for position in spread})

    rows, columns = positions(scaled[1] - height, crops[0]), positions(scaled[0] - width, crops[1])
    return [Window(x, y) for y in rows for x in columns]


def cut(
    path: str | Path,
    source: Probe,
    first: int,
    scaled: tuple[int, int],
    outputs: dict[Window, Path],
    clips: config.Clips,
) -> None:
    """Cut the same span through several crop windows in one pass, ``clips.frames`` frames each.

    Args:
        path: the source.
        source: its probe.
        first: the span's first frame at ``clips.fps``.
        scaled: width and height of the frame that is cropped.
        outputs: where the clip of each window goes.
        clips: size, rate and encoder settings.

    Raises:
        BrokenVideo: ffmpeg fails.
        OSError: ENOSPC, the disk is full.
    """
    stream = _normalised(path, source, first, scaled, clips.fps)
    parts = stream.filter_multi_output("split", len(outputs))
    run(
        ffmpeg.merge_outputs(
            *(
                parts[number]
                .filter("crop", clips.width, clips.height, window.x, window.y)
                .output(str(target), **encoding(clips.encode, clips.frames))
                for number, (window, target) in enumerate(outputs.items())
            )
        )
    )


def write_proxy(path: str | Path, source: Probe, target: str | Path, fps: float, short_side: int) -> None:
    """Write the chosen stream small and at the normalised rate, frame for frame as ``cut`` counts them.

    Raises:
        BrokenVideo: ffmpeg fails.
        OSError: ENOSPC, the disk is full.
    """
    scaled = scaled_size(source, 2, 2, short_side)
    options = {
        "format": "mp4",
        "vcodec": "libx264",
        "preset": "ultrafast",
        "crf": 10,
        "threads": 1,
        "g": 50,
        "map_metadata": -1,
    }
    run(_normalised(path, source, 0, scaled, fps).output(str(target), **options))


def _normalised(path: str | Path, source: Probe, first: int, scaled: tuple[int, int], fps: float) -> Any:
    """The chosen stream from frame ``first`` on, progressive, at the normalised rate, scaled, with normal colours.

    Timestamps stay those of the file (copyts) and decoding starts at a keyframe (noaccurate_seek), so the frame shown
    at a time is the same wherever decoding began.
    """
    rate = frame_rate(fps)
    begin = source.start + float(first / rate)
    seek = {"ss": f"{begin - LEAD:.6f}", "noaccurate_seek": None} if begin > LEAD else {}
    file = ffmpeg.input(str(path), copyts=None, start_at_zero=None, **reading(source.number, source.picture), **seek)
    stream = picture.progressive(file[f"v:{source.number}"], source.picture)
    stream = stream.filter("fps", fps=str(rate), start_time=f"{begin:.6f}").filter("setpts", "N")
    return picture.normal(stream, source.picture, *scaled)
