"""What is measured on a clip, and why one is rejected."""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from regdpo.config import schema

FROZEN = 0.1
"""Mean absolute luma difference (0..255) below which a frame counts as equal to the one before it. An encoder writes
a repeated frame with differences far below this; the smallest real motion lies far above."""

SAME_LOOK = 6.0
"""Greatest difference of a cell's mean luma (0..255) between two sizes of the same frame, ..."""

FINE = 96
"""... of which the smaller has so many rows; fewer rows make more. In footage scaling makes 1, of moving hard edges
6. A frame in the place of another that differs by less shows no displacement."""


@dataclass(frozen=True)
class Measures:
    """Of one clip."""

    luma: float  # mean, 0..255
    motion: float  # mean absolute luma difference of neighbouring frames, 0..255
    frozen: float  # share of frames equal to the one before


def measure(frames: np.ndarray) -> Measures:
    """Measure uint8 RGB frames (F, H, W, 3)."""
    lumas = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    steps = [float(cv2.absdiff(a, b).mean()) for a, b in pairwise(lumas)] or [0.0]
    return Measures(
        luma=round(float(np.mean([luma.mean() for luma in lumas])), 4),
        motion=round(float(np.mean(steps)), 4),
        frozen=round(float(np.mean([step < FROZEN for step in steps])), 4),
    )


def reject_reason(measures: Measures, filters: schema.Filters) -> str:
    """Why a clip is rejected, with the numbers; empty if it is fine."""
    if measures.luma < filters.min_luma:
        return f"black: mean luma {measures.luma:.1f} is below {filters.min_luma:g}"
    if measures.frozen > filters.max_frozen:
        return f"frozen: {measures.frozen:.0%} of the frames equal the one before, more than {filters.max_frozen:.0%}"
    if measures.motion < filters.min_motion:
        return f"static: motion {measures.motion:.2f} is below {filters.min_motion:g}"
    return ""


def repeated(shown: np.ndarray, times: np.ndarray, pictures: int, fps: float, filters: schema.Filters) -> str:
    """Why a clip is rejected whose frames repeat the source's, with the numbers; empty if it is fine.

    Args:
        shown: of each frame of the clip the number of the source's frame that it shows.
        times: of those, in seconds.
        pictures: that a frame of the source makes: two of interlaced fields.
        fps: frames a second of the clip.
        filters: the greatest share.
    """
    runs = np.diff(np.flatnonzero(np.diff(shown, prepend=-1, append=-1)))
    again = float(np.maximum(runs - pictures, 0).sum()) / max(1, len(shown) - 1)
    if again <= filters.max_repeated:
        return ""
    if shown[0] == shown[-1]:
        source = "the source shows a single frame here"
    else:
        own = pictures * (shown[-1] - shown[0]) / max(float(times[-1] - times[0]), 1e-3)
        source = f"the source has {own:.3g} frames a second here, a clip has {fps:g}"
    return f"repeated: {again:.0%} of the frames repeat the one before, more than {filters.max_repeated:.0%}; {source}"


def first_other(looks: np.ndarray, others: np.ndarray, rows: int) -> int | None:
    """The first frame that is another one than in the other pass; None if there is none.

    Args:
        looks: of the frames, uint8 (F, 8, 8) (``fingerprint.look``).
        others: of the same frames in another size.
        rows: of the smaller.
    """
    apart = cv2.absdiff(looks, others).reshape(len(looks), -1).max(axis=1) > SAME_LOOK * max(1.0, FINE / rows)
    return int(np.argmax(apart)) if apart.any() else None
