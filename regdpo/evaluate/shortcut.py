"""How easily a shortcut wins: how often simple statistics alone tell the winner of a pair that they have not seen.

A logistic regression on what the logarithms of the statistics of winner and loser differ by, without a constant, as in
Bradley and Terry's model of paired comparisons (Biometrika 39, 1952): w maximises
``sum log sigmoid(w x) - |w|^2 / 2`` over the pairs' differences x, each statistic in units of its own root mean square.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regdpo.config.schema import Bootstrap

FOLDS = 5
"""Parts that the groups are divided into; of each all others tell the winners."""
STEPS, CLOSE = 100, 1e-10
"""Most steps of Newton's method, and how small the last is."""


@dataclass(frozen=True)
class Accuracy:
    """Share of held-out pairs whose winner is told."""

    mean: float
    """Over groups."""
    low: float | None
    """Of the interval; null, as ``high``, where all groups have the same."""
    high: float | None
    """The other end."""
    pairs: int
    """That were held out."""
    groups: int
    """That were held out in turn."""
    by: str
    """What a group is."""


def weights(differences: np.ndarray) -> np.ndarray:
    """Those of the regression (statistics,), from differences winner - loser (pairs, statistics)."""
    found = np.zeros(differences.shape[1])
    for _ in range(STEPS):
        lost = 1 / (1 + np.exp(np.clip(differences @ found, -500, 500)))  # sigmoid(-w x)
        slope = differences.T @ lost - found
        bend = differences.T @ (differences * (lost * (1 - lost))[:, None]) + np.eye(len(found))
        step = np.linalg.solve(bend, slope)
        while _value(differences, found + step) < _value(differences, found) and np.abs(step).max() > CLOSE:
            step = step / 2
        found = found + step
        if np.abs(step).max() <= CLOSE:
            break
    return found


def _value(differences: np.ndarray, of: np.ndarray) -> float:
    return float(-np.logaddexp(0, -(differences @ of)).sum() - of @ of / 2)


def held_out(
    winners: np.ndarray, losers: np.ndarray, groups: Sequence[str], by: str, bootstrap: Bootstrap
) -> Accuracy | None:
    """The accuracy on groups that the regression has not seen; None from a single group.

    Args:
        winners: statistics that are at least 0, (pairs, statistics).
        losers: of the same pairs.
        groups: of each pair: pairs of one group are in one fold, and are resampled together.
        by: what a group is, in words.
        bootstrap: of the interval.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        return None
    differences = np.log1p(winners) - np.log1p(losers)
    of = np.array([names.index(group) for group in groups])
    fold = np.arange(len(names)) * min(FOLDS, len(names)) // len(names)
    right = np.zeros(len(of))
    for number in range(fold.max() + 1):
        out = fold[of] == number
        scale = np.sqrt(np.square(differences[~out]).mean(axis=0))
        scale[scale == 0] = 1
        told = (differences[out] / scale) @ weights(differences[~out] / scale)
        right[out] = (told > 0) + 0.5 * (told == 0)
    counts, sums = np.bincount(of).astype(float), np.bincount(of, right)
    mean = float(right.mean())
    if np.ptp(sums / counts) == 0:
        return Accuracy(mean, None, None, len(of), len(names), by)
    drawn = np.random.default_rng(bootstrap.seed).integers(0, len(names), (bootstrap.resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - bootstrap.confidence) / 2, (1 + bootstrap.confidence) / 2])
    return Accuracy(mean, float(low), float(high), len(of), len(names), by)
