"""Which shots show the same footage: trimmed, cut otherwise, smaller, encoded again, at any offset.

Two shots show the same where, at one offset, each picture and what changes from picture to picture agree
(``fingerprint.agreement``). Not all are held against all: only those of which steps look alike (``steps_index``).
"""

import itertools
from dataclasses import dataclass

import numpy as np

from regdpo.data.fingerprint import agreement
from regdpo.data.steps_index import Index, Meetings

LEAST = 4
"""Fewest steps that tell footage apart."""

ENOUGH = 8
"""Steps that have to agree: two seconds, or the whole of a shot that is shorter."""

PARTNERS = 16
"""Earlier shots that a shot is held against, those that it has the most steps in common with."""


@dataclass(frozen=True)
class Copy:
    """Steps [start, stop) of shot ``later`` show what shot ``earlier`` shows ``offset`` steps further on."""

    earlier: int
    later: int
    offset: float  # in halves
    start: int
    stop: int


def find(shots: list[np.ndarray], least: float) -> list[Copy]:
    """Pairs of shots that show the same footage, each with its best alignment.

    Args:
        shots: the steps of each, uint8 (steps, cells). Of two, ``Copy.earlier`` is the one that comes first here.
        least: correlation of each picture, and of what changes, from which on they show the same.
    """
    index, found = Index(shots), []
    for first, last in index.groups():
        asked = _likely(index.meetings(first, last, least - 0.3))
        run = np.clip(np.minimum(index.lengths[asked.earlier], index.lengths[asked.later]) - 1, LEAST - 1, ENOUGH)
        asked = asked[index.may_agree(asked, run, least)]
        each = zip(asked.later.tolist(), asked.earlier.tolist(), asked.offset.tolist(), strict=True)
        for (later, earlier), those in itertools.groupby(each, lambda one: one[:2]):
            near = [offset for *_, offset in those]
            spans = [(*span, offset) for offset in near if (span := _span(shots[earlier], shots[later], offset, least))]
            if spans:
                start, stop, _, offset = max(spans, key=lambda span: (span[1] - span[0], span[2]))
                found.append(Copy(earlier, later, offset / 2, start, stop))
    return found


def _likely(met: Meetings) -> Meetings:
    """What is worth to be looked at: of each later shot the earlier ones that it meets most often (of as many, the
    first), of each of them the two offsets at which most do (of as many, the one met first), and those beside them. In
    the order of the later shots, the earlier ones, and the offsets."""
    if not len(met.later):
        return met
    origin, lowest = int(met.later[0]), int(met.offset.min()) - 2
    shots, width = int(met.earlier.max()) + 1, int(met.offset.max()) + 3 - lowest
    codes = ((met.later - origin) * shots + met.earlier) * width + met.offset - lowest
    codes, met_first, votes = np.unique(codes, return_index=True, return_counts=True)
    pairs, begins, of = np.unique(codes // width, return_index=True, return_inverse=True)
    most = _first(PARTNERS, pairs // shots, -np.add.reduceat(votes, begins))
    best = _first(2, of, -votes, met_first) & most[of]
    near = np.unique(codes[best] + np.arange(-2, 3)[:, None])
    return Meetings(near // width % shots, near // width // shots + origin, near % width + lowest)


def _first(count: int, of: np.ndarray, *by: np.ndarray) -> np.ndarray:
    """Which are among the first of each group ``of``, ordered ``by``, then as they are: (N,)."""
    order = np.lexsort((*by[::-1], of))
    rank = np.empty(len(of), int)
    rank[order] = np.arange(len(of)) - np.searchsorted(of[order], of[order])
    return rank < count


def _span(one: np.ndarray, other: np.ndarray, halves: int, least: float) -> tuple[int, int, float] | None:
    """The longest run of steps of ``other`` that agree with ``one`` at an offset: its first, one past its last, and the
    correlation of what changes. None if that is no evidence."""
    whole = min(len(one), len(other)) - 1
    a, b = one.astype(np.float32), other.astype(np.float32)
    if halves % 2:
        a = (a[:-1] + a[1:]) / np.float32(2)
    low, high = max(0, -(halves // 2)), min(len(b), len(a) - halves // 2)
    if high - low < LEAST - 1:
        return None
    a, b = a[low + halves // 2 : high + halves // 2], b[low:high]
    pictures, _ = agreement(a, b)
    grouped = itertools.groupby(range(high - low), lambda step: not pictures[step] < least)  # flat ones pass
    run = max((list(run) for agrees, run in grouped if agrees), key=len, default=[])
    shown = np.isfinite(pictures[run]).sum() if run else 0
    if shown < (LEAST - 1 if len(run) >= whole else ENOUGH):
        return None
    change = agreement(a[run], b[run])[1]
    return (low + run[0], low + run[-1] + 1, change) if change >= least else None
