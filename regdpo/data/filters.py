"""What is measured on a clip, and why one is rejected."""

from collections.abc import Mapping
from itertools import pairwise

import cv2
import numpy as np

from regdpo.config import schema
from regdpo.data.registry import FILTERS

FROZEN = 0.1
"""Mean absolute luma difference (0..255) below which a frame counts as equal to the one before it. An encoder writes
a repeated frame with differences far below this; the smallest real motion lies far above."""

SAME_LOOK = 6.0
"""Greatest difference of a cell's mean luma (0..255) between two sizes of the same frame, ..."""

FINE = 96
"""... of which the smaller has so many rows; fewer rows make more. In footage scaling makes 1, of moving hard edges
6. A frame in the place of another that differs by less shows no displacement."""


class Look:
    """What filters look at of one clip: its frames' luma, uint8 (H, W) each, how much each differs from the one
    before, mean absolute, 0..255, and how many times larger they are than in the source."""

    def __init__(self, frames: np.ndarray, enlarged: float):
        self.enlarged = enlarged
        self.lumas = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        self.steps = [float(cv2.absdiff(a, b).mean()) for a, b in pairwise(self.lumas)] or [0.0]


def luma(look: Look) -> float:
    """Mean luma, 0..255."""
    return float(np.mean([luma.mean() for luma in look.lumas]))


def motion(look: Look) -> float:
    """Mean absolute luma difference of neighbouring frames, 0..255."""
    return float(np.mean(look.steps))


def frozen(look: Look) -> float:
    """Share of frames equal to the one before."""
    return float(np.mean([step < FROZEN for step in look.steps]))


def upscale(look: Look) -> float:
    """How many times larger a frame is than in the source, before the crop."""
    return look.enlarged


def scores(frames: np.ndarray, enlarged: float = 1.0) -> dict[str, float]:
    """The score of every filter for uint8 RGB frames (F, H, W, 3), ``enlarged`` as ``Look`` has it."""
    look = Look(frames, enlarged)
    return {it.score: round(it.measure()(look), 4) for it in FILTERS.values()}


def reject_reason(scores: Mapping[str, float], filters: schema.Filters) -> str:
    """Why a clip is rejected, with the numbers; empty if it is fine."""
    for kind, it in FILTERS.items():
        score, limit = scores[it.score], getattr(filters, it.key)
        if it.rejects(score, limit):
            return f"{kind}: {it.says.format(score=score, limit=limit)}"
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
