"""Copies are found by an index as they are where every step is held against every other."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.fft import dctn

from regdpo.data import copies, steps_index
from regdpo.data.copies import Copy

BUCKET, PARTNERS = 3, 4
SEEDS = (2, 3)  # of whose steps none has two coefficients of one size, of which either may be the doubtful one


def shots_of(seed: int) -> list[np.ndarray]:
    """Steps of noise or of smooth pictures that change; and parts of them, half a step on, brighter or not, noisy."""
    noise = np.random.default_rng(seed)
    smooth = np.add.outer(np.arange(8), np.arange(8)) + 1 if seed % 3 else np.ones((8, 8))
    shots = []
    for length in noise.integers(0, 40, 9):
        moving = noise.normal(size=(length, 8, 8)).cumsum(0) + 2 * noise.normal(size=(8, 8))
        shots.append((120 + dctn(moving / smooth, axes=(1, 2), norm="ortho", type=3).reshape(-1, 64) * 30).clip(0, 255))
    long = [shot for shot in shots if len(shot) > 12]
    for _ in range(9):
        part = long[noise.integers(len(long))][noise.integers(6) :]
        part = (part[:-1] + part[1:]) / 2 if noise.random() < 0.5 else part
        shots.append(part * noise.uniform(0.8, 1.1) + noise.uniform(0, 6) * noise.normal(size=part.shape))
    shots += [long[0]] * 6 + [np.full((20, 64), 9.0), np.repeat(long[0][:1], 20, axis=0)]
    return [shots[place].clip(0, 255).round().astype(np.uint8) for place in noise.permutation(len(shots))]


def seen(shot: np.ndarray, taps: tuple[float, ...]) -> Iterator[tuple[int, np.ndarray, np.ndarray, tuple, set]]:
    """Step, picture, change, signs of the lowest coefficients, and which of them are doubtful."""
    shown = [np.tensordot(taps, shot[at : at + len(taps)], 1) for at in range(len(shot) - len(taps) + 1)]
    shown = np.reshape(shown, (-1, 64))
    contrast = shown.std(1, keepdims=True)
    shown = (shown - shown.mean(1, keepdims=True)) / np.maximum(contrast, 1)
    for step in range(len(shown) - 2):
        before, now, after = shown[step : step + 3]
        change = after - before
        if contrast[step : step + 3].min() < 3 or change.std() < 0.03:
            continue
        signs, doubtful = [], set()
        for kind, (values, count) in enumerate(((now, 2), (change, 4))):
            spectrum = dctn(values.reshape(8, 8))
            low = [spectrum[u, v] for u in range(8) for v in range(8) if 0 < u + v <= 4]
            signs += [value > 0 for value in low]
            doubtful |= {kind * len(low) + int(place) for place in np.argsort(np.abs(low))[:count]}
        yield step, now, change / change.std(), tuple(signs), doubtful


def met(shots: list[np.ndarray], least: float) -> list[tuple[int, int, int]]:
    """Earlier shot, later shot, and offset in half steps, of every two steps that are alike."""
    there = defaultdict(list)
    for number, shot in enumerate(shots):
        for step, picture, change, signs, _ in seen(shot, (0.5, 0.5)):
            there[signs].append((number, step, picture, change))
    keys, hits = np.array(list(there)), []
    for half, taps in enumerate(((0.5, 0.5), (0.25, 0.5, 0.25))):
        for later, shot in enumerate(shots):
            for own, picture, change, signs, doubtful in seen(shot, taps):
                sure = [place for place in range(len(signs)) if place not in doubtful]
                for place in np.flatnonzero((keys[:, sure] == np.array(signs)[sure]).all(1)):
                    for earlier, step, *its in there[tuple(keys[place].tolist())][:BUCKET]:
                        alike = min((picture * its[0]).mean(), (change * its[1]).mean()) >= least
                        if earlier < later and alike:
                            hits.append((earlier, later, 2 * (step - own) - half))
    return hits


@pytest.mark.parametrize("seed", SEEDS)
def test_the_index_finds_what_holding_every_step_against_every_other_finds(seed, monkeypatch):
    monkeypatch.setattr(steps_index, "BUCKET", BUCKET)
    monkeypatch.setattr(steps_index, "BLOCK", 64)
    monkeypatch.setattr(copies, "PARTNERS", PARTNERS)
    shots, least = shots_of(seed), (0.85, 0.6)[seed % 2]
    index, hits = steps_index.Index(shots), met(shots, least - 0.3)
    groups = [index.meetings(first, last, least - 0.3) for first, last in index.groups()]
    assert Counter(hits) == Counter(
        hit for of in groups for hit in zip(*(x.tolist() for x in (of.earlier, of.later, of.offset)), strict=True)
    )
    votes = defaultdict(Counter)
    for earlier, later, offset in hits:
        votes[later, earlier][offset] += 1
    expected = []
    for later in range(len(shots)):
        partners = [earlier for earlier in range(later) if (later, earlier) in votes]
        for earlier in sorted(sorted(partners, key=lambda one: -votes[later, one].total())[:PARTNERS]):
            likely = [offset for offset, _ in votes[later, earlier].most_common(2)]
            near = sorted({offset + more for offset in likely for more in (-2, -1, 0, 1, 2)})
            spans = [
                (*span, offset)
                for offset in near
                if (span := copies._span(shots[earlier], shots[later], offset, least))
            ]
            if spans:
                start, stop, _, offset = max(spans, key=lambda one: (one[1] - one[0], one[2]))
                expected.append(Copy(earlier, later, offset / 2, start, stop))
    assert len(expected) > 9
    assert copies.find(shots, least) == expected


def test_keys_are_found_as_a_search_finds_them():
    noise = np.random.default_rng(0)
    keys = noise.integers(0, 1 << steps_index.BITS, 500)
    keys = np.sort(np.concatenate([keys, keys[:99], keys ^ 1, [0, (1 << steps_index.BITS) - 1]]).astype(np.uint32))
    asked = np.concatenate([keys ^ np.uint32(1 << bit) for bit in range(8)] + [keys])
    for those in (keys, keys[3:-3], keys[:0]):
        there, first, last = steps_index.Keys(those).find(asked)
        assert there.tolist() == np.flatnonzero(np.isin(asked, those)).tolist()
        assert first.tolist() == np.searchsorted(those, asked[there]).tolist()
        assert last.tolist() == np.searchsorted(those, asked[there], "right").tolist()


@pytest.mark.parametrize("run", [3, 8])
def test_a_run_that_agrees_is_seen_wherever_it_lies(run):
    noise = np.random.default_rng(0)
    one, other = noise.integers(0, 255, (2, 23, 64), dtype=np.uint8)
    shots = [one]
    for first in range(23 - run + 1):
        shots.append(other.copy())
        shots[-1][first : first + run] = one[first : first + run]
    later = np.arange(1, len(shots) + 1)
    asked = steps_index.Meetings(0 * later, later, 0 * later)
    agrees = steps_index.Index([*shots, other]).may_agree(asked, 0 * later + run, 0.9)
    assert agrees.tolist() == [True] * (len(shots) - 1) + [False]
