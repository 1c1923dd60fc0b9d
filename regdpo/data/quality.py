"""What is measured on a clip, and why one is rejected."""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from regdpo import config

FROZEN = 0.1
"""Mean absolute luma difference (0..255) below which a frame counts as equal to the one before it. An encoder writes
a repeated frame with differences far below this; the smallest real motion lies far above."""


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


def reject_reason(measures: Measures, filters: config.Filters) -> str:
    """Why a clip is rejected, with the numbers; empty if it is fine."""
    if measures.luma < filters.min_luma:
        return f"black: mean luma {measures.luma:.1f} is below {filters.min_luma:g}"
    if measures.frozen > filters.max_frozen:
        return f"frozen: {measures.frozen:.0%} of the frames equal the one before, more than {filters.max_frozen:.0%}"
    if measures.motion < filters.min_motion:
        return f"static: motion {measures.motion:.2f} is below {filters.min_motion:g}"
    return ""
