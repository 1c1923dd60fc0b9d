"""Which shots show the same footage: trimmed, cut otherwise, smaller, encoded again, at any offset.

Two shots show the same where, at one offset, each picture and what changes from picture to picture agree
(``fingerprint.agreement``). Not all are held against all: the signs of the lowest cosine coefficients of a picture and
of its change make a key of 28 bits, and the smallest coefficients, whose sign another encoding may turn, are looked
up with both signs.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from regdpo.data.fingerprint import CELLS, FLAT, agreement, unit

STILL = 0.03
"""Root mean square of the change over half a second, of pictures of unit variance, below which nothing moves."""

LEAST = 4
"""Fewest steps that tell footage apart."""

ENOUGH = 8
"""Steps that have to agree: two seconds, or the whole of a shot that is shorter."""

LOWEST = 4
"""Cosine coefficients (u, v) with 0 < u + v <= LOWEST make the key."""

DOUBTFUL = (2, 4)
"""Coefficients that are looked up with both signs: of the picture, and of its change."""

BUCKET = 64
"""Steps of one key that are looked at, the first in the order of the shots."""

PARTNERS = 16
"""Earlier shots that a shot is held against, those that it has the most steps in common with."""

BLOCK = 2048
"""Steps looked up at once."""

WHOLE, HALF = np.array([0.5, 0.5]), np.array([0.25, 0.5, 0.25])
"""A picture over two steps, and the one half a step later."""


_K = np.arange(CELLS)
_COSINES = np.cos((2 * _K + 1) * _K[:, None] * np.pi / (2 * CELLS))
BASIS = np.stack([np.outer(_COSINES[u], _COSINES[v]).ravel() for u in _K for v in _K if 0 < u + v <= LOWEST])
"""The lowest coefficients' cosines, (14, cells)."""


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
    votes: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for earlier, later, offset in _Index(shots).hits(least - 0.3):
        votes[earlier, later][offset] += 1
    partners: dict[int, list[int]] = defaultdict(list)
    for earlier, later in votes:
        partners[later].append(earlier)
    found = []
    for later, those in sorted(partners.items()):
        most = sorted(those, key=lambda earlier: (-votes[earlier, later].total(), earlier))[:PARTNERS]
        for earlier in sorted(most):
            likely = [offset for offset, _ in votes[earlier, later].most_common(2)]
            near = sorted({offset + more for offset in likely for more in (-2, -1, 0, 1, 2)})
            spans = [(*span, offset) for offset in near if (span := _span(shots[earlier], shots[later], offset, least))]
            if spans:
                start, stop, _, offset = max(spans, key=lambda span: (span[1] - span[0], span[2]))
                found.append(Copy(earlier, later, offset / 2, start, stop))
    return found


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


@dataclass(frozen=True)
class _Moments:
    """What is seen around each of N steps."""

    picture: np.ndarray  # (N, cells) of mean 0 and variance 1
    change: np.ndarray  # over half a second, the same
    told: np.ndarray  # (N,) whether the picture shows something and something moves

    def __getitem__(self, which: np.ndarray) -> "_Moments":
        return _Moments(self.picture[which], self.change[which], self.told[which])


class _Index:
    """The steps of all shots by their keys."""

    def __init__(self, shots: list[np.ndarray]):
        lengths = np.array([len(shot) for shot in shots], int)
        self.steps = np.concatenate([*shots, np.zeros((0, CELLS**2), np.uint8)])
        self.shot_of = np.repeat(np.arange(len(shots)), lengths)
        self.starts = np.cumsum(lengths) - lengths
        blocks = [(at, _keys(moments)[0]) for at, moments in self._blocks(WHOLE)]
        keys = np.concatenate([np.zeros(0, np.uint32), *(key for _, key in blocks)])
        order = np.argsort(keys, kind="stable")
        self.keys = keys[order]
        self.places = np.concatenate([np.zeros(0, int), *(at for at, _ in blocks)])[order]

    def hits(self, least: float) -> Iterator[tuple[int, int, int]]:
        """Earlier shot, later shot and offset in half steps, of every two steps whose keys meet and that correlate."""
        for taps in (WHOLE, HALF):
            for at, moments in self._blocks(taps):
                queries, places = self._meeting(at, *_keys(moments))
                for begin in range(0, len(queries), 16 * BLOCK):
                    query, place = queries[begin : begin + 16 * BLOCK], places[begin : begin + 16 * BLOCK]
                    mine, theirs = moments[query], self._moments(place, WHOLE)
                    near = (mine.picture * theirs.picture).mean(-1) >= least
                    near &= (mine.change * theirs.change).mean(-1) >= least
                    place, own = place[near], at[query[near]]
                    earlier, later = self.shot_of[place], self.shot_of[own]
                    offset = 2 * (place - self.starts[earlier] - own + self.starts[later]) - (taps is HALF)
                    yield from zip(earlier.tolist(), later.tolist(), offset.tolist(), strict=True)

    def _meeting(self, at: np.ndarray, keys: np.ndarray, doubts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the steps ``at`` meet which places of earlier shots, in one of their keys."""
        if not len(self.keys):
            return np.zeros(0, int), np.zeros(0, int)
        asked = (keys[:, None] ^ doubts).ravel()
        first = np.searchsorted(self.keys, asked, "left")
        there = np.flatnonzero(self.keys[np.minimum(first, len(self.keys) - 1)] == asked)
        first = first[there]
        counts = np.minimum(np.searchsorted(self.keys, asked[there], "right") - first, BUCKET)
        entry = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        query, place = np.repeat(there // doubts.shape[1], counts), self.places[np.repeat(first, counts) + entry]
        before = self.shot_of[place] < self.shot_of[at[query]]
        return query[before], place[before]

    def _blocks(self, taps: np.ndarray) -> Iterator[tuple[np.ndarray, _Moments]]:
        """Places where something is told, and their moments."""
        span = len(taps) + 1
        inside = np.flatnonzero(self.shot_of[:-span] == self.shot_of[span:])
        for begin in range(0, len(inside), BLOCK):
            at = inside[begin : begin + BLOCK]
            moments = self._moments(at, taps)
            yield at[moments.told], moments[moments.told]

    def _moments(self, at: np.ndarray, taps: np.ndarray) -> _Moments:
        shown = [sum(tap * self.steps[at + lead + k] for k, tap in enumerate(taps)) for lead in (0, 1, 2)]
        (before, a), (now, b), (after, c) = (unit(picture) for picture in shown)
        change = after - before
        told = (np.minimum(np.minimum(a, b), c) >= FLAT) & (np.square(change).mean(-1) >= STILL**2)
        return _Moments(now, unit(change)[0], told)


def _keys(moments: _Moments) -> tuple[np.ndarray, np.ndarray]:
    """Keys (N,), and what turns the signs of doubtful coefficients in every combination (N, 64), uint32."""
    keys, flips = np.zeros(len(moments.told), np.uint32), np.zeros((len(moments.told), 1), np.uint32)
    for values, doubtful in zip((moments.picture, moments.change), DOUBTFUL, strict=True):
        coefficients = values @ BASIS.T
        bits = np.uint32(1) << np.arange(len(BASIS), dtype=np.uint32)
        keys = (keys << np.uint32(len(BASIS))) | ((coefficients > 0) @ bits).astype(np.uint32)
        least = bits[np.argpartition(abs(coefficients), doubtful, axis=1)[:, :doubtful]]
        flips = flips << np.uint32(len(BASIS))
        for column in least.T:
            flips = np.concatenate([flips, flips ^ column[:, None]], axis=1)
    return keys, flips
