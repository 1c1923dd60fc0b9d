"""What is measured on a clip, and why one is rejected."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
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


FULL = 255 / 219
"""A step of luma in the limited range, in steps of the full one."""


@dataclass(frozen=True)
class Look:
    """What filters look at of one clip, before it is encoded."""

    lumas: np.ndarray
    """Of its frames, uint8 (F, H, W) in the limited range, 16..235."""
    enlarged: float = 1.0
    """How many times larger they are than in the source."""

    @cached_property
    def steps(self) -> np.ndarray:
        """How much each frame differs from the one before: mean absolute, of luma 0..255; (F - 1,)."""
        size = self.lumas[0].size
        found = [cv2.norm(a, b, cv2.NORM_L1) * FULL / size for a, b in pairwise(self.lumas)]
        return np.array(found or [0.0])


def luma(look: Look) -> float:
    """Mean luma, 0..255."""
    return float((look.lumas.mean() - 16) * FULL)


def motion(look: Look) -> float:
    """Mean absolute luma difference of neighbouring frames, 0..255."""
    return float(look.steps.mean())


def frozen(look: Look) -> float:
    """Share of frames equal to the one before."""
    return float((look.steps < FROZEN).mean())


def upscale(look: Look) -> float:
    """How many times larger a frame is than in the source, before the crop."""
    return look.enlarged


def scores(look: Look) -> dict[str, float]:
    """The score of every filter."""
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
