"""Black bars beside the picture (letterbox, pillarbox), which are no part of it: found for each shot, so that its clips
are cut from the picture alone.

A bar is black and even, ends abruptly along most of its length, has one of nearly its width on the opposite side, and
stays for the whole shot. A dark scene has no such pair: it becomes light gradually, or on one side, or not all along.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import ceil

import numpy as np

BLACK = 30
"""Greatest luma (16..235) of a bar, noise and ringing included, ..."""

EVEN = 2.0
"""... the greatest standard deviation over it, ..."""

LIT = 24
"""... how much brighter the second row or column behind it is on average, at least, ..."""

ALONG = 0.5
"""... and in what share of its length that is not black."""

LEAST = 2
"""Rows or columns that are a bar, of a picture whose shorter side has 144, and by how many two bars, or two shots' of
one video, differ that count as the same."""

OFTEN = 0.5
"""Least share of a shot's frames in which its bars can be told; in the others the picture may be as dark as they."""

PICTURE = 0.15
"""Least share of the width and of the height that is picture: an upright one of 9 to 20 in 16 to 9 has .25."""

MOST = 4
"""Kinds of bars that are cut away of one video, those that most of it has: each costs a pass."""


@dataclass(frozen=True)
class Bars:
    """Pixels at the four edges."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def __bool__(self) -> bool:
        return any(astuple(self))

    def inside(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the picture between them."""
        return width - self.left - self.right, height - self.top - self.bottom

    def cover(self, other: "Bars") -> "Bars":
        """What one or the other takes."""
        return Bars(*map(max, astuple(self), astuple(other)))

    def near(self, other: "Bars") -> bool:
        """Whether they count as the same."""
        return all(abs(a - b) <= LEAST for a, b in zip(astuple(self), astuple(other), strict=True))

    def lie_in(self, other: "Bars") -> bool:
        """Whether the other takes all that they take."""
        return self.cover(other) == other

    def scaled(self, across: float, down: float) -> "Bars":
        """In pixels of the same picture after scaling."""
        return Bars(*(round(it * by) for it, by in zip(astuple(self), (across, down) * 2, strict=True)))

    def in_source(self, size: tuple[int, int], width: int, height: int) -> "Bars":
        """Found in a small picture of a size, in pixels of the source. One row or column more than is black: scaling
        mixes bar and picture there."""

        def pixels(lines: int, small: int, large: int) -> int:
            return ceil((lines + 1) * large / small) if lines else 0

        (w, h), (left, top, right, bottom) = size, astuple(self)
        return Bars(pixels(left, w, width), pixels(top, h, height), pixels(right, w, width), pixels(bottom, h, height))


NONE = Bars()


ALL = 2**31 - 1
"""More than any picture has."""

SEEN = 7
"""Numbers that are kept of a frame: black columns and rows at the left, top, right and bottom; whether left and right
are a pair of bars, and top and bottom; whether anything is not black."""


def see(luma: np.ndarray) -> tuple[int, ...]:
    """``SEEN`` of a frame, uint8 (H, W) in the limited range."""
    height, width = luma.shape
    rows = np.flatnonzero(luma.max(axis=1) > BLACK)
    columns = np.flatnonzero(luma.max(axis=0) > BLACK)
    if not rows.size:
        return width, height, width, height, False, False, False
    left, right = int(columns[0]), width - 1 - int(columns[-1])
    top, bottom = int(rows[0]), height - 1 - int(rows[-1])
    across = _pair(luma[top : height - bottom].T, left, right)
    down = _pair(luma[:, left : width - right], top, bottom)
    return left, top, right, bottom, across, down, True


def _pair(lines: np.ndarray, first: int, last: int) -> bool:
    """Whether so many first and last rows are a pair of bars."""
    if min(first, last) < LEAST or len(lines) - first - last < PICTURE * len(lines):
        return False
    if abs(first - last) > max(LEAST, max(first, last) // 4):
        return False
    for way, count in ((lines, first), (lines[::-1], last)):
        bar, behind = way[:count], way[min(count + 1, len(way) - 1)]
        if bar.std() > EVEN or behind.mean() - bar.mean() < LIT or (behind > BLACK).mean() < ALONG:
            return False
    return True


def _of_shot(seen: np.ndarray) -> tuple[Bars, Bars]:
    """The bars of a shot, and what of it is always black."""
    always = Bars(*seen[:, :4].min(axis=0, initial=ALL).tolist())
    lit = seen[seen[:, 6] > 0]
    if not len(lit):
        return NONE, always
    stays = np.abs(lit[:, :4] - astuple(always)) <= 1
    across = bool((stays[:, 0] & stays[:, 2] & (lit[:, 4] > 0)).mean() >= OFTEN)
    down = bool((stays[:, 1] & stays[:, 3] & (lit[:, 5] > 0)).mean() >= OFTEN)
    return Bars(always.left * across, always.top * down, always.right * across, always.bottom * down), always


def find(seen: np.ndarray, shots: Sequence[tuple[int, int]]) -> list[Bars]:
    """The bars of each shot of a video.

    Those of several shots that are nearly the same become the same, and of many kinds the rare ones are left alone.
    Where all shots of a video have one kind, or are black there, those too dark to tell have it too.

    Args:
        seen: of each frame, integers (N, SEEN).
        shots: frames [start, end) of each; one may have none.
    """
    found = [_of_shot(seen[start:end]) for start, end in shots]
    first: list[Bars] = []  # of each kind
    kinds: list[Bars] = []
    lengths = Counter[int]()
    of: list[int | None] = []
    for (own, _), (start, end) in zip(found, shots, strict=True):
        kind = next((n for n, it in enumerate(first) if it.near(own)), len(first)) if own else None
        of.append(kind)
        if kind is None:
            continue
        if kind == len(first):
            first.append(own)
            kinds.append(own)
        kinds[kind] = kinds[kind].cover(own)
        lengths[kind] += end - start
    if len(kinds) == 1 and all(own or kinds[0].lie_in(black) for own, black in found):
        return kinds * len(shots)
    used = {kind for kind, _ in lengths.most_common(MOST)}
    return [NONE if kind is None or kind not in used else kinds[kind] for kind in of]
