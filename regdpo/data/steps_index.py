"""Which steps of shots look alike, among millions, in time that grows with their number.

The signs of the lowest cosine coefficients of a picture and of its change make a key of 28 bits; the smallest
coefficients, whose sign another encoding may turn, are looked up with both signs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from regdpo.data.fingerprint import CELLS, FLAT, agreement, unit

STILL = 0.03
"""Root mean square of the change over half a second, of pictures of unit variance, below which nothing moves."""

LOWEST = 4
"""Cosine coefficients (u, v) with 0 < u + v <= LOWEST make the key."""

DOUBTFUL = (2, 4)
"""Coefficients that are looked up with both signs: of the picture, and of its change."""

BUCKET = 64
"""Steps of one key that are looked at, the first in the order of the shots."""

BLOCK = 2048
"""Steps looked up at once."""

WHOLE, HALF = np.array([0.5, 0.5], np.float32), np.array([0.25, 0.5, 0.25], np.float32)
"""A picture over two steps, and the one half a step later."""

_K = np.arange(CELLS)
_COSINES = np.cos((2 * _K + 1) * _K[:, None] * np.pi / (2 * CELLS)).astype(np.float32)
BASIS = np.stack([np.outer(_COSINES[u], _COSINES[v]).ravel() for u in _K for v in _K if 0 < u + v <= LOWEST])
"""The lowest coefficients' cosines, (14, cells)."""
BITS = 2 * len(BASIS)
"""Of a key."""


@dataclass(frozen=True)
class Meetings:
    """Of N times that two shots are to be held against each other: which, and the offset in half steps."""

    earlier: np.ndarray
    later: np.ndarray
    offset: np.ndarray

    def __getitem__(self, which: np.ndarray) -> "Meetings":
        return Meetings(self.earlier[which], self.later[which], self.offset[which])


class Index:
    """The steps of all shots by their keys. In memory are the steps, 64 bytes each, some 16 bytes more of each, and
    48 MiB."""

    def __init__(self, shots: Sequence[np.ndarray]):
        lengths = np.array([len(shot) for shot in shots], int)
        self.steps = np.concatenate([*shots, np.zeros((0, CELLS**2), np.uint8)])
        self.shot_of = np.repeat(np.arange(len(shots), dtype=np.int32), lengths)
        self.lengths, self.starts = lengths, np.cumsum(lengths) - lengths
        blocks = [(at.astype(np.int32), _keys(seen)[0]) for at, seen in self._blocks(WHOLE, 0, len(self.steps))]
        keys = np.concatenate([np.zeros(0, np.uint32), *(keys for _, keys in blocks)])
        places = np.concatenate([np.zeros(0, np.int32), *(at for at, _ in blocks)])
        order = np.argsort(keys, kind="stable")
        self.places, self.keys = places[order], Keys(keys[order])

    def groups(self) -> Iterator[tuple[int, int]]:
        """First shot, and one past the last, of shots of together at most ``BLOCK`` steps, or of one that is longer."""
        first, ends = 0, self.starts + self.lengths
        while first < len(ends):
            last = max(first + 1, int(np.searchsorted(ends, self.starts[first] + BLOCK, "right")))
            yield first, last
            first = last

    def meetings(self, first: int, last: int, least: float) -> Meetings:
        """Of every step of the shots [first, last) and one of an earlier shot whose keys meet and that correlate, in
        their pictures and in what changes, by ``least``."""
        begin, end = self.starts[first], self.starts[last - 1] + self.lengths[last - 1]
        found = [np.zeros((3, 0), int)]
        for taps in (WHOLE, HALF):
            for at, seen in self._blocks(taps, begin, end):
                queries, places = self._meeting(at, *_keys(seen))
                for some in range(0, len(queries), 16 * BLOCK):
                    query, place = queries[some : some + 16 * BLOCK], places[some : some + 16 * BLOCK]
                    near = _correlation(seen.picture[query], self._pictures(place + 1, WHOLE)) >= least
                    query, place = query[near], place[near]
                    before, after = (unit(self._pictures(place + lead, WHOLE))[0] for lead in (0, 2))
                    near = _correlation(seen.change[query], after - before) >= least
                    place, own = place[near], at[query[near]]
                    earlier, later = self.shot_of[place], self.shot_of[own]
                    offset = 2 * (place - self.starts[earlier] - own + self.starts[later]) - (taps is HALF)
                    found.append(np.stack([earlier, later, offset]))
        return Meetings(*np.concatenate(found, axis=1))

    def may_agree(self, asked: Meetings, run: np.ndarray, least: float) -> np.ndarray:
        """Whether so many steps ``run`` in a row may agree at an offset, (N,): of those that lie so far apart that one
        is among them in any case, one does, or shows nothing."""
        shift, half = asked.offset // 2, asked.offset % 2
        low = np.maximum(0, -shift)
        high = np.minimum(self.lengths[asked.later], self.lengths[asked.earlier] - half - shift)
        counts = np.maximum(high - low, 0) // run
        agrees = np.zeros(len(counts), bool)
        ends = np.cumsum(counts)
        for begin in range(0, int(counts.sum()), 16 * BLOCK):
            number = np.arange(begin, min(begin + 16 * BLOCK, ends[-1]))
            of = np.searchsorted(ends, number, "right")
            step = low[of] + (number - ends[of] + counts[of] + 1) * run[of] - 1
            place = self.starts[asked.earlier[of]] + shift[of] + step
            one = self.steps[place].astype(np.float32)
            one[half[of] == 1] += self.steps[place[half[of] == 1] + 1]
            one[half[of] == 1] /= 2
            other = self.steps[self.starts[asked.later[of]] + step].astype(np.float32)
            agrees[of[~(agreement(one, other)[0] < least)]] = True
        return agrees

    def _meeting(self, at: np.ndarray, keys: np.ndarray, doubts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the steps ``at`` meet which places of earlier shots, in one of their keys."""
        there, first, last = self.keys.find(_turned(keys, doubts).ravel())
        counts = np.minimum(last - first, BUCKET)
        entry = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        query, place = np.repeat(there >> doubts.shape[1], counts), self.places[np.repeat(first, counts) + entry]
        before = self.shot_of[place] < self.shot_of[at[query]]
        return query[before], place[before]

    def _blocks(self, taps: np.ndarray, begin: int, end: int) -> Iterator[tuple[np.ndarray, "_Seen"]]:
        """Places of [begin, end) where something is told, and what is seen there."""
        span = len(taps) + 1
        for start in range(begin, end - span, BLOCK):
            stop = min(start + BLOCK, end - span)
            pictures, contrast = unit(self._pictures(np.arange(start, stop + 2), taps))
            change, moved = unit(pictures[2:] - pictures[:-2])
            told = self.shot_of[start:stop] == self.shot_of[start + span : stop + span]
            told &= np.minimum(np.minimum(contrast[:-2], contrast[1:-1]), contrast[2:]) >= FLAT
            told &= moved >= STILL
            yield start + np.flatnonzero(told), _Seen(pictures[1:-1][told], change[told])

    def _pictures(self, at: np.ndarray, taps: np.ndarray) -> np.ndarray:
        """Over the steps from each of N places on, float32 (N, cells)."""
        return sum(tap * self.steps[at + lead] for lead, tap in enumerate(taps))


class Keys:
    """Sorted keys, each found without a search: by a bit for each that there may be, and by how many distinct ones
    there are before each 64 of them.

    Args:
        keys: uint32 (N,), of ``BITS`` bits.
    """

    def __init__(self, keys: np.ndarray):
        begins = np.flatnonzero(np.diff(keys, prepend=keys[:1] ^ 1))
        distinct = keys[begins]
        self.begins = np.append(begins, len(keys))
        self.bits = np.zeros(1 << BITS - 3, np.uint8)
        np.bitwise_or.at(self.bits, distinct >> 3, np.uint8(1) << (distinct & 7).astype(np.uint8))
        self.words = self.bits.view("<u8")
        counts = np.bitwise_count(self.words)
        self.before = np.cumsum(counts, dtype=np.uint32) - counts

    def find(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which of the asked keys, uint32 (M,), there are; the first place of each, and one past the last."""
        bits = np.take(self.bits, asked >> 3, mode="clip")  # none is too large; to clip is the quickest
        bits >>= (asked & 7).astype(np.uint8)
        there = np.flatnonzero(bits & 1)
        found = asked[there]
        lower = (np.uint64(1) << (found & 63).astype(np.uint64)) - 1
        number = self.before[found >> 6] + np.bitwise_count(self.words[found >> 6] & lower)
        return there, self.begins[number], self.begins[number + 1]


@dataclass(frozen=True)
class _Seen:
    """Around each of N steps."""

    picture: np.ndarray  # (N, cells) of mean 0 and variance 1
    change: np.ndarray  # over half a second, the same


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of pictures (N, cells), the first of mean 0 and variance 1: (N,)."""
    return np.einsum("nc,nc->n", one, unit(other)[0]) / CELLS**2


def _keys(seen: _Seen) -> tuple[np.ndarray, np.ndarray]:
    """Keys (N,), and the bits of their doubtful coefficients (N, 6), uint32."""
    keys, doubts = np.zeros(len(seen.picture), np.uint32), []
    for values, doubtful, shift in zip((seen.picture, seen.change), DOUBTFUL, (len(BASIS), 0), strict=True):
        parts = np.array_split(values, len(values) // 256 + 1)  # each too small for BLAS to start threads for it
        coefficients = np.concatenate([part @ BASIS.T for part in parts])
        bits = np.uint32(1 << shift) << np.arange(len(BASIS), dtype=np.uint32)
        keys |= (coefficients > 0) @ bits
        doubts.append(bits[np.argpartition(abs(coefficients), doubtful, axis=1)[:, :doubtful]])
    return keys, np.concatenate(doubts, axis=1)


def _turned(keys: np.ndarray, doubts: np.ndarray) -> np.ndarray:
    """The keys with their doubtful bits in every combination, (N, 64)."""
    turned = np.empty((len(keys), 1 << doubts.shape[1]), np.uint32)
    turned[:, 0] = keys
    for number, bit in enumerate(doubts.T):
        turned[:, 1 << number : 2 << number] = turned[:, : 1 << number] ^ bit[:, None]
    return turned
