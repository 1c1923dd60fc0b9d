"""Intervals against formulas and against a bootstrap of our own."""

import math

import numpy as np
import pytest

from regdpo.config.schema import Bootstrap
from regdpo.evaluate import stats

SETTINGS = Bootstrap(resamples=4000, confidence=0.95, seed=3)


def clips(values):
    return {f"clip{index:03d}": [value] for index, value in enumerate(values)}


def test_agrees_with_own_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, size=37)
    found = stats.interval(clips(values), SETTINGS)
    draws = np.random.default_rng(SETTINGS.seed).integers(0, 37, (4000, 37))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    assert found.mean == pytest.approx(values.mean(), rel=1e-14)
    assert (found.low, found.high, found.n) == (pytest.approx(low), pytest.approx(high), 37)


def test_agrees_with_closed_form():
    # Resampling n coins that show heads k times gives Binomial(n, k/n) / n: its quantiles are the interval.
    n, heads = 40, 10
    cumulative = np.cumsum([math.comb(n, i) * 0.25**i * 0.75 ** (n - i) for i in range(n + 1)])
    low, high = (int(np.searchsorted(cumulative, q)) / n for q in (0.025, 0.975))
    found = stats.interval(clips([1.0] * heads + [0.0] * (n - heads)), Bootstrap(resamples=20000))
    assert (found.low, found.high) == (low, high)


def test_covers_a_normal_mean():
    rng, hits = np.random.default_rng(1), 0
    for trial in range(300):
        found = stats.interval(clips(rng.normal(5, 2, size=40)), Bootstrap(resamples=400, seed=trial))
        hits += found.low <= 5 <= found.high
    assert 0.89 <= hits / 300 <= 0.98


def test_seeds_of_one_clip_are_one_observation():
    once, often = clips([1.0, 2.0, 4.0]), {f"clip{i:03d}": [v - 1, v + 1] * 10 for i, v in enumerate([1.0, 2.0, 4.0])}
    assert stats.interval(often, SETTINGS) == stats.interval(once, SETTINGS)


def test_same_seed_same_interval_in_any_order():
    values = clips(np.random.default_rng(2).normal(size=20))
    backwards = dict(reversed(values.items()))
    assert stats.interval(values, SETTINGS) == stats.interval(backwards, SETTINGS)
    assert stats.interval(values, SETTINGS) != stats.interval(values, Bootstrap(resamples=4000, seed=4))


@pytest.mark.parametrize("values", [[0.3], [0.1, 0.1, 0.1], [0.1 + 0.2, 0.3]])
def test_no_interval_without_spread(values):
    found = stats.interval(clips(values), SETTINGS)
    assert (found.low, found.high, found.n, found.sign) == (None, None, len(values), None)


def test_nothing_measured_is_refused():
    with pytest.raises(ValueError, match="no clip"):
        stats.interval({"clip": []}, SETTINGS)


def test_pairing_cancels_what_a_clip_brings_along():
    rng = np.random.default_rng(4)
    offsets, noise = rng.normal(0, 100, 30), rng.normal(-0.5, 0.1, 30)
    found = stats.delta(clips(offsets + noise), clips(offsets), SETTINGS)
    plain = stats.interval(clips(noise), SETTINGS)
    assert (found.mean, found.low, found.high) == pytest.approx((plain.mean, plain.low, plain.high), abs=1e-9)
    assert found.sign == -1
    unpaired = stats.interval(clips(offsets), SETTINGS)
    assert unpaired.high - unpaired.low > 100 * (found.high - found.low)


def test_pairing_takes_shared_clips_only():
    found = stats.delta({"a": [1.0], "b": [2.0], "c": [900.0]}, {"a": [0.5], "b": [0.0], "d": [-900.0]}, SETTINGS)
    assert (found.mean, found.n) == (1.25, 2)


def test_signs():
    assert stats.delta(clips([1, 2, 3]), clips([1, 2, 3]), SETTINGS).sign == 0
    assert stats.delta(clips([2, 3, 5]), clips([1, 1, 1]), SETTINGS).sign == 1
    assert stats.delta(clips([0, 3, 0, 3]), clips([1, 1, 2, 2]), SETTINGS).sign == 0


def test_distance_knows_no_direction():
    real, base = clips([10.0, 10.0, 10.0]), clips([7.0, 8.0, 6.0])
    above = stats.distance_delta(clips([11.0, 11.5, 10.5]), base, real, SETTINGS)
    below = stats.distance_delta(clips([9.0, 8.5, 9.5]), base, real, SETTINGS)
    assert above == below
    assert above.mean == -2.0
    assert above.sign == -1


def test_seed_means_keep_trainings_apart():
    assert stats.seed_means({1: clips([1.0, 3.0]), 0: clips([5.0, 7.0]), 2: {}}) == {0: 6.0, 1: 2.0}


def test_standardised_difference():
    assert stats.standardised([2, 4, 6], [1, 3, 5]) == pytest.approx(0.5)
    assert stats.standardised([1, 1], [1, 1]) == 0
    assert stats.standardised([1, 1], [2, 2]) == -math.inf
