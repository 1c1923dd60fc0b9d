"""Which of several sizes and lengths a shot's clips are made in."""

import math
from collections.abc import Sequence

from regdpo.core.rows import Geometry

ALIKE = 0.05
"""Share of a picture. Shapes that lose no more of it beyond another to the crop count as the same, as 480 x 832 and
720 x 1280 do. A choice of ours."""


def open_to(geometries: Sequence[Geometry], width: int, height: int) -> list[Geometry]:
    """Those that a picture may go to: of the shape that loses least of it to the crop, and of shapes like that."""

    def lost(it: Geometry) -> float:
        ratio = it.width * height / (it.height * width)
        return 1 - min(ratio, 1 / ratio)

    least = min(map(lost, geometries))
    return [it for it in geometries if lost(it) <= least + ALIKE]


def choose(geometries: Sequence[Geometry], width: int, height: int, frames: float = math.inf) -> Geometry | None:
    """Where a shot goes: of those that its picture may go to the longest that it fills, in time and in space, and of
    these the one with the largest picture.

    Args:
        geometries: those that there are; of equals the first is taken.
        width: of the picture, as a player shows it.
        height: of the picture.
        frames: of the shot.

    Returns:
        None if the shot is too short for all. A picture that is too small for all goes where it is enlarged least.
    """
    fit = [it for it in open_to(geometries, width, height) if it.frames <= frames]
    if not fit:
        return None

    def enlarged(it: Geometry) -> float:
        return max(1.0, it.width / width, it.height / height)

    least = min(map(enlarged, fit))
    return max((it for it in fit if enlarged(it) == least), key=lambda it: (it.frames, it.width * it.height))
