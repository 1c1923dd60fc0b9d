"""What filters look at, and why a clip is rejected. What they measure is in regdpo/data/measures.py."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import cv2
import numpy as np

from regdpo.config import schema
from regdpo.data.fingerprint import look_of_luma
from regdpo.data.registry import FILTERS

SAME_LOOK = 6.0
"""Greatest difference of a cell's mean luma (0..255) between two sizes of the same frame, ..."""

FINE = 96
"""... of which the smaller has so many rows; fewer rows make more. In footage scaling makes 1, of moving hard edges
6. A frame in the place of another that differs by less shows no displacement."""


FULL = 255 / 219
"""A step of luma in the limited range, in steps of the full one."""


PROXY = 128
"""Rows or columns, whichever are fewer, of the small frames that motion and overlays are looked for in; ..."""

LEAST = 32
"""... at least so many."""


@dataclass(frozen=True)
class Look:
    """What filters look at of one clip, before it is encoded."""

    lumas: np.ndarray
    """Of its frames, uint8 (F, H, W) in the limited range, 16..235."""
    fps: float = 16.0
    enlarged: float = 1.0
    """How many times larger they are than in the source."""
    bits: float = 0.0
    """Of the source's file, for each pixel that it shows."""
    shot: np.ndarray | None = None
    """What the frames of its shot look like up to its own last, uint8 (N, 8, 8) (``fingerprint.look``); None: its own
    alone."""

    @cached_property
    def steps(self) -> np.ndarray:
        """How much each frame differs from the one before: mean absolute, of luma 0..255; (F - 1,)."""
        size = self.lumas[0].size
        found = [cv2.norm(a, b, cv2.NORM_L1) * FULL / size for a, b in pairwise(self.lumas)]
        return np.array(found or [0.0])

    @cached_property
    def looks(self) -> np.ndarray:
        """``shot`` as numbers, (N, cells)."""
        seen = np.stack([look_of_luma(luma) for luma in self.lumas]) if self.shot is None else self.shot
        return seen.reshape(len(seen), -1).astype(np.float32)

    @cached_property
    def small(self) -> list[np.ndarray]:
        """The frames, smaller, of luma in the limited range."""
        height, width = self.lumas.shape[1:]
        factor = max(1, min(height, width) // PROXY)
        size = width // factor, height // factor
        if min(size) < LEAST:
            more = math.ceil(LEAST / min(size))
            return [cv2.resize(luma, (more * size[0], more * size[1])) for luma in self.lumas]
        inside = self.lumas[:, : size[1] * factor, : size[0] * factor]
        return [cv2.resize(luma, size, interpolation=cv2.INTER_AREA) for luma in inside]

    def some(self, most: int) -> np.ndarray:
        """At most so many numbers of frames, spread evenly."""
        count = len(self.lumas)
        return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def scores(look: Look) -> dict[str, float]:
    """Every score that a filter looks at, but for those that need weights."""
    declared = {it.score: it for it in FILTERS.values() if not it.weights}
    return {name: round(it.measure()(look), 4) for name, it in declared.items()}


def reject_reason(scores: Mapping[str, float], filters: schema.Filters, image: bool = False) -> str:
    """Why a clip is rejected, with the numbers; empty if it is fine.

    Args:
        image: it has one frame.
    """
    for kind, it in FILTERS.items():
        limit = getattr(filters, it.key)
        if limit is None or (image and it.of_change) or (it.weights and it.score not in scores):
            continue
        score = scores[it.score]
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
