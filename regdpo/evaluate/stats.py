"""Means over clips with bootstrap intervals, and differences paired by clip.

What is resampled is the clip: values of one clip (over sampling seeds and training seeds) are averaged first, because
they are repeated looks at the same footage and not independent evidence. Everything is float64 and seeded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from regdpo.config.schema import Bootstrap

ByClip = Mapping[str, Iterable[float]]
"""Clip id -> its finite values, one a (training seed, sampling seed)."""


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` clips. ``low`` and ``high`` are None where the clips say nothing about the spread."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def sign(self) -> int | None:
        """-1 or 1 when the whole interval lies on that side of zero, 0 when it holds zero, None without an interval.

        Zero itself needs no interval: two models that agree on every clip do not differ.
        """
        if self.low is None or self.high is None:
            return 0 if self.n > 1 and self.mean == 0 else None
        return -1 if self.high < 0 else 1 if self.low > 0 else 0


def clip_means(values: ByClip) -> dict[str, float]:
    """One number a clip, ordered by clip; clips without values are left out."""
    lists = {clip: list(values[clip]) for clip in sorted(values)}
    return {clip: float(np.mean(items, dtype=np.float64)) for clip, items in lists.items() if items}


def interval(values: ByClip, bootstrap: Bootstrap) -> Interval:
    """Mean over clips and its percentile bootstrap interval.

    No interval is made up where there is none: a single clip has no spread, and neither have clips that all agree.

    Raises:
        ValueError: there is no clip with a value.
    """
    means = np.array(list(clip_means(values).values()), dtype=np.float64)
    if not means.size:
        raise ValueError("no clip has a value")
    mean = float(means.mean())
    if means.size == 1 or np.ptp(means) <= 1e-12 * np.abs(means).max():
        return Interval(mean, None, None, means.size)
    from scipy.stats import bootstrap as scipy_bootstrap  # here, since who makes no interval should not wait for it

    found = scipy_bootstrap(
        (means,),
        np.mean,
        n_resamples=bootstrap.resamples,
        confidence_level=bootstrap.confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(bootstrap.seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), means.size)


def delta(model: ByClip, base: ByClip, bootstrap: Bootstrap) -> Interval:
    """Model minus base, paired: the difference is taken clip by clip, over the clips that both have.

    Raises:
        ValueError: they share no clip.
    """
    ours, theirs = clip_means(model), clip_means(base)
    return interval({clip: [ours[clip] - theirs[clip]] for clip in ours if clip in theirs}, bootstrap)


def distance_delta(model: ByClip, base: ByClip, real: ByClip, bootstrap: Bootstrap) -> Interval:
    """How much further from the real clip the model is than the base, paired by clip; below 0 is closer.

    For metrics without a direction of their own, such as motion.

    Raises:
        ValueError: the three share no clip.
    """
    yardstick = clip_means(real)

    def distance(values: ByClip) -> dict[str, list[float]]:
        return {clip: [abs(value - yardstick[clip])] for clip, value in clip_means(values).items() if clip in yardstick}

    return delta(distance(model), distance(base), bootstrap)


def seed_means(by_seed: Mapping[int, ByClip]) -> dict[int, float]:
    """Mean over clips for each training seed, so that the spread over trainings can be seen beside the interval."""
    means = {seed: list(clip_means(by_seed[seed]).values()) for seed in sorted(by_seed)}
    return {seed: float(np.mean(values)) for seed, values in means.items() if values}


def standardised(winner: Iterable[float], loser: Iterable[float]) -> float:
    """Cohen's d: difference of means over the pooled standard deviation; infinite if constant halves differ."""
    first, second = np.array(list(winner), np.float64), np.array(list(loser), np.float64)
    pooled = float(np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)) if min(first.size, second.size) > 1 else 0.0
    difference = float(first.mean() - second.mean())
    return difference / pooled if pooled else float(np.copysign(np.inf, difference)) if difference else 0.0
