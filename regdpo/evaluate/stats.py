"""Means with intervals that hold over all levels of chance of an experiment, and paired differences of arms.

Two things are drawn by chance, and each is a hierarchy: **models** (a base model, its trainings, their samples) and
**footage** (a video, stretches of it, clips). A hierarchical bootstrap draws the units of each hierarchy's uppermost
level that has several, every one with all that lies in it: what varies below shows in how much the units differ
(Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Models and footage are crossed, so
their variances add up (Owen, The pigeonhole bootstrap, 2007), which is too much rather than too little. Few units are
no reason for a narrow interval: of n units n - 1 are drawn, so that the variance is not too small by (n - 1) / n (Rao
and Wu, 1988), and the interval is Student's t with Satterthwaite's (1946) degrees of freedom. A level with one unit is
one that the interval cannot speak of; ``Levels`` says which.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from regdpo.config.schema import Bootstrap
from regdpo.core.rows import ClipRow


class Look(NamedTuple):
    """One finite value, and where it comes from."""

    base: Hashable
    training: int | None  # its seed; None: of a base model
    sampling: int
    clip: str
    value: float


class Place(NamedTuple):
    """Where a clip lies: its video, and the stretch of one of its shots that its overlapping clips make up together."""

    source: str
    stretch: int


Places = Mapping[str, Place]


def places(clips: Iterable[ClipRow]) -> dict[str, Place]:
    """Clip id -> place. Clips of one shot that overlap in time lie on one stretch, directly or through others."""
    found, stretch, last, end = {}, -1, ("", -1), 0
    for clip in sorted(clips, key=lambda clip: (clip.source, clip.shot, clip.start, clip.clip_id)):
        if (clip.source, clip.shot) != last or clip.start >= end:
            stretch, end = stretch + 1, 0
        last, end = (clip.source, clip.shot), max(end, clip.start + clip.frames)
        found[clip.clip_id] = Place(clip.source, stretch)
    return found


@dataclass(frozen=True)
class Interval:
    """A mean over clips with its interval."""

    mean: float
    """Of each clip's mean."""
    low: float | None
    """Null, as ``high`` and ``p``, where nothing shows the spread; ``why`` says it."""
    high: float | None
    """The other end."""
    n: int
    """Clips."""
    p: float | None = None
    """Two-sided, of a mean as far from zero if it were zero."""
    why: str = ""
    """Why there is no interval."""

    @property
    def sign(self) -> int | None:
        """-1 or 1 when the whole interval lies on that side of zero, 0 when it holds zero, None without an interval.

        Zero itself needs no interval: two models that agree on every clip do not differ.
        """
        if self.low is None or self.high is None:
            return 0 if self.n > 1 and self.mean == 0 else None
        return -1 if self.high < 0 else 1 if self.low > 0 else 0


def clip_means(looks: Iterable[Look]) -> dict[str, float]:
    """One number a clip, ordered by clip."""
    values: dict[str, list[float]] = defaultdict(list)
    for look in looks:
        values[look.clip].append(look.value)
    return {clip: float(np.mean(values[clip], dtype=np.float64)) for clip in sorted(values)}


def interval(looks: Sequence[Look], where: Places, bootstrap: Bootstrap) -> Interval:
    """The mean over clips (of each clip's mean), with its interval over models and footage.

    Args:
        looks: in any order.
        where: every clip's place.

    Raises:
        ValueError: there is none.
    """
    if not looks:
        raise ValueError("no clip has a value")
    ordered = sorted(looks, key=lambda look: (look.clip, str(look.base), str(look.training), look.sampling))
    clips = np.unique([look.clip for look in ordered], return_inverse=True)[1]
    n = int(clips.max()) + 1
    weights = 1 / (np.bincount(clips)[clips] * n)
    values = np.array([look.value for look in ordered], np.float64)
    mean = float(weights @ values)
    variances, freedom = [], []
    for number, level in enumerate(_varying(ordered, where)):
        units = np.unique([level(look) for look in ordered], return_inverse=True)[1]
        variances.append(_variance(units, weights, values, bootstrap, number))
        freedom.append(int(units.max()))
    error = float(np.sqrt(sum(variances)))
    if error <= 1e-12 * np.abs(values).max():
        return Interval(mean, None, None, n, why=_no_spread(n, bool(variances)))
    from scipy.special import stdtr, stdtrit  # here, since who makes no interval should not wait for it

    within = sum(variances) ** 2 / sum(v**2 / free for v, free in zip(variances, freedom, strict=True))
    reach = float(stdtrit(within, (1 + bootstrap.confidence) / 2)) * error
    return Interval(mean, mean - reach, mean + reach, n, float(2 * stdtr(within, -abs(mean) / error)))


def _varying(looks: Sequence[Look], where: Places) -> list[Callable[[Look], str]]:
    """Of models and of footage the uppermost level that has several units, as what names a look's unit."""
    models: list[Callable[[Look], str]] = [
        lambda look: str(look.base),
        lambda look: str(look.training),
        lambda look: str(look.sampling),
    ]
    footage: list[Callable[[Look], str]] = [
        lambda look: where[look.clip].source,
        lambda look: str(where[look.clip].stretch),
    ]
    found = []
    for hierarchy in (models, footage):
        several = [level for level in hierarchy if len({level(look) for look in looks}) > 1]
        found += several[:1]
    return found


def _variance(units: np.ndarray, weights: np.ndarray, values: np.ndarray, bootstrap: Bootstrap, number: int) -> float:
    """Of the weighted mean, as units are drawn anew with all that lies in them."""
    drawn = _drawn(int(units.max()) + 1, bootstrap.resamples, bootstrap.seed, number)
    means = (drawn @ np.bincount(units, weights * values)) / (drawn @ np.bincount(units, weights))
    return float(np.mean((means - weights @ values) ** 2))


@lru_cache(maxsize=4)  # the same for most cells of a table
def _drawn(n: int, resamples: int, *seed: int) -> np.ndarray:
    """(resamples, n): how often each of n units is among the n - 1 that are drawn."""
    return np.random.default_rng(seed).multinomial(n - 1, np.full(n, 1 / n), resamples)


def _no_spread(clips: int, varying: bool) -> str:
    if varying:
        return "all values agree"
    return "one clip" if clips == 1 else "one model on one stretch of footage"


def delta(ours: Iterable[Look], theirs: Iterable[Look], where: Places, bootstrap: Bootstrap) -> Interval:
    """Ours minus theirs, paired at every level that both have, over what both have.

    Raises:
        ValueError: they have nothing in common.
    """
    return interval(paired(ours, theirs), where, bootstrap)


def paired(ours: Iterable[Look], theirs: Iterable[Look]) -> list[Look]:
    """Differences of values of the same base, clip and sampling seed, and of the same training seed unless one side was
    not trained, as the base itself."""
    mine, others = list(ours), list(theirs)
    both = all(look.training is not None for look in (*mine, *others))

    def key(look: Look) -> tuple[Hashable, ...]:
        return look.base, look.sampling, look.clip, look.training if both else None

    known = defaultdict(list)
    for look in others:
        known[key(look)].append(look)
    return [
        look._replace(
            training=other.training if look.training is None else look.training, value=look.value - other.value
        )
        for look in mine
        for other in known.get(key(look), [])
    ]


def distances(looks: Iterable[Look], real: Iterable[Look]) -> list[Look]:
    """How far each value is from the real clip's, for metrics without a direction of their own, such as motion."""
    yardstick = clip_means(real)
    return [look._replace(value=abs(look.value - yardstick[look.clip])) for look in looks if look.clip in yardstick]


def holm(p: Sequence[float]) -> list[float]:
    """Each p corrected for how many there are (Holm, A simple sequentially rejective multiple test procedure, 1979)."""
    found, least = [1.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - place) * p[index]))
        found[index] = least
    return found


@dataclass(frozen=True)
class Levels:
    """How many units of each level of chance an experiment has."""

    bases: int
    """Base models."""
    trainings: int
    """Of each arm on a base model."""
    samples: int
    """Of each clip."""
    sources: int
    """Videos that held-out clips are of."""
    stretches: int
    """Of these videos, that held-out clips lie on."""

    @property
    def spoken(self) -> list[str]:
        """What the units are drawn from: of models and of footage the uppermost level that has several."""
        models = {
            "base models": self.bases,
            "trainings of each arm": self.trainings,
            "samples of each clip": self.samples,
        }
        footage = {"videos": self.sources, "stretches of one video": self.stretches}
        several = ([f"{n} {what}" for what, n in hierarchy.items() if n > 1] for hierarchy in (models, footage))
        return [upper[0] for upper in several if upper]

    @property
    def silent(self) -> list[str]:
        """The levels that an interval cannot speak of, since there is one of them."""
        alone = {
            "this base model": self.bases == 1,
            "this one training of each arm" if self.bases == 1 else "this one training seed": self.trainings == 1,
            "this one sample of each clip": self.samples == 1,
            "this one video": self.sources == 1,
            "this one stretch of overlapping clips": self.stretches == 1,
        }
        return [f"{what} alone" for what, one in alone.items() if one]

    @property
    def sentence(self) -> str:
        """Which levels intervals speak of, and which they cannot."""
        over = (
            f"Intervals are over {' and '.join(self.spoken)}."
            if self.spoken
            else "Nothing shows how wide intervals are."
        )
        if not self.silent:
            return over
        return f"{over} Of other levels they cannot speak: what the page says holds for {', '.join(self.silent)}."


def means(by_model: Mapping[str, Iterable[Look]]) -> dict[str, float]:
    """Mean over clips for each model, so that the spread over models can be seen beside the interval."""
    found = {model: list(clip_means(looks).values()) for model, looks in by_model.items()}
    return {model: float(np.mean(values)) for model, values in found.items() if values}


def standardised(winner: Iterable[float], loser: Iterable[float]) -> float:
    """Cohen's d: difference of means over the pooled standard deviation; infinite if constant halves differ."""
    first, second = np.array(list(winner), np.float64), np.array(list(loser), np.float64)
    pooled = float(np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)) if min(first.size, second.size) > 1 else 0.0
    difference = float(first.mean() - second.mean())
    return difference / pooled if pooled else float(np.copysign(np.inf, difference)) if difference else 0.0
