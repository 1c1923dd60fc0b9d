"""How often statistics alone tell the winner: the regression by its own equations, and what is held out."""

import numpy as np
import pytest
from scipy.optimize import minimize

from regdpo.config.schema import Bootstrap
from regdpo.evaluate.shortcut import held_out, weights

BOOTSTRAP = Bootstrap(resamples=500)


def test_the_regression_is_the_maximum_that_an_optimiser_finds():
    x = np.random.default_rng(0).normal([0.5, -1, 0], 1, (60, 3))
    best = minimize(lambda w: np.logaddexp(0, -(x @ w)).sum() + w @ w / 2, np.zeros(3), method="BFGS", tol=1e-10)
    assert weights(x) == pytest.approx(best.x, abs=1e-5)
    assert np.isfinite(weights(np.full((5, 2), 1e4))).all()  # halves that lie far apart


def test_a_statistic_that_differs_always_tells_all_and_noise_tells_half():
    rng = np.random.default_rng(1)
    losers = rng.uniform(10, 100, (400, 2))
    groups = [f"video{number % 40}" for number in range(400)]
    brighter = losers * [1.5, 1] * rng.uniform(0.95, 1.05, (400, 2))
    found = held_out(brighter, losers, groups, "videos", BOOTSTRAP)
    assert (found.mean, found.low, found.pairs, found.groups) == (1, None, 400, 40)
    noise = held_out(rng.uniform(10, 100, (400, 2)), losers, groups, "videos", BOOTSTRAP)
    assert noise.low < 0.5 < noise.high
    assert noise.high - noise.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.35)  # 400 pairs, as if independent


def test_what_holds_in_one_video_alone_is_not_told_in_others():
    """In each video another statistic tells; on pairs that were seen all would be told."""
    losers = np.full((40, 4), 50.0)
    winners = losers.copy()
    for number in range(40):
        winners[number, number // 10] = 80
    groups = [str(number // 10) for number in range(40)]
    assert held_out(winners, losers, groups, "videos", BOOTSTRAP).mean == 0.5  # the held-out one says nothing
    assert held_out(winners, losers, [str(number % 10) for number in range(40)], "", BOOTSTRAP).mean == 1
    assert held_out(winners, losers, ["one"] * 40, "videos", BOOTSTRAP) is None
