"""The table of scores: what was measured, with intervals, and why the rest was not."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from regdpo.config.schema import Bootstrap
from regdpo.core.errors import UserError
from regdpo.core.rows import REAL, ScoreRow
from regdpo.evaluate import stats
from regdpo.evaluate.measures import Metric, metrics
from regdpo.evaluate.stats import Interval

BASE = "base"


@dataclass(frozen=True)
class Cell:
    """One model and metric. ``mean`` is None where nothing was measured; then ``reasons`` says why."""

    metric: Metric
    mean: Interval | None
    delta: Interval | None = None  # to base, paired by clip
    distance: Interval | None = None  # metrics without direction: to real, against base's distance
    seeds: dict[int, float] = field(default_factory=dict)
    lost: int = 0  # values missing beside those that are there
    reasons: tuple[str, ...] = ()

    @property
    def reading(self) -> str:
        """``better``, ``worse``, ``no difference seen``, ``no verdict`` or ``not measured``, against base."""
        if self.metric.better:
            return word(self.metric, self.delta)
        return {"better": "closer to real", "worse": "further from real"}.get(found := _word(-1, self.distance), found)


class Scores:
    """Score rows by model and metric. ``real`` and ``base`` are models, an arm is the union of its trainings.

    Raises:
        UserError: a metric that no measure declares: the page would not know how to read it.
    """

    def __init__(self, rows: list[ScoreRow], bootstrap: Bootstrap):
        self.bootstrap = bootstrap
        self.values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.missing: dict[tuple[str, str], list[str]] = defaultdict(list)
        known = metrics()
        for row in rows:
            if row.metric not in known:
                raise UserError(f"score {row.score_id}: no measure declares {row.metric}; there are {', '.join(known)}")
            key = (row.model, row.metric)
            if row.value is None:
                self.missing[key].append(row.missing or "no reason was given")
            elif not math.isfinite(row.value):
                self.missing[key].append("not a finite number")
            else:
                self.values[key][row.clip_id].append(row.value)

    def of(self, models: list[str], metric: str) -> dict[str, list[float]]:
        """Clip -> all values of these models."""
        merged: dict[str, list[float]] = defaultdict(list)
        for model in models:
            for clip, values in self.values.get((model, metric), {}).items():
                merged[clip] += values
        return merged

    def delta(self, models: list[str], others: list[str], metric: str) -> Interval | None:
        """Difference of two sets of models paired by clip; None where they share no clip."""
        ours, theirs = self.of(models, metric), self.of(others, metric)
        return stats.delta(ours, theirs, self.bootstrap) if ours.keys() & theirs.keys() else None

    def cell(self, models: Mapping[int, str] | str, metric: Metric) -> Cell:
        """The cell of ``real``, ``base`` or of an arm, given as training seed -> model."""
        names = [models] if isinstance(models, str) else list(models.values())
        values = self.of(names, metric.key)
        reasons = [reason for name in names for reason in self.missing.get((name, metric.key), [])]
        if not values:
            if models == REAL and metric.footage:
                reasons = [metric.footage]
            return Cell(metric, None, reasons=tuple(dict.fromkeys(reasons)) or ("no row in the scores",))
        base, real = self.of([BASE], metric.key), self.of([REAL], metric.key)
        compared = models not in (REAL, BASE)
        towards = compared and not metric.better and values.keys() & base.keys() & real.keys()
        return Cell(
            metric,
            stats.interval(values, self.bootstrap),
            self.delta(names, [BASE], metric.key) if compared else None,
            stats.distance_delta(values, base, real, self.bootstrap) if towards else None,
            {} if isinstance(models, str) else self.seeds(models, metric.key),
            len(reasons),
            tuple(dict.fromkeys(reasons)),
        )

    def seeds(self, models: Mapping[int, str], metric: str) -> dict[int, float]:
        """Mean of each training."""
        return stats.seed_means({seed: self.of([model], metric) for seed, model in models.items()})

    def reasons(self, metric: str) -> list[str]:
        """Why values of this metric are missing, each reason once."""
        return sorted({reason for (_, name), every in self.missing.items() if name == metric for reason in every})

    def measured(self, prefix: str) -> list[str]:
        """Names, without the prefix, of the metrics that have a value of a model."""
        found = {metric for (model, metric), values in self.values.items() if values and model != REAL}
        return sorted(metric.removeprefix(prefix) for metric in found if metric.startswith(prefix))


def word(metric: Metric, delta: Interval | None) -> str:
    """What a difference to base says, by the side of zero that its whole interval lies on."""
    return _word(metric.better, delta)


def _word(better: int, delta: Interval | None) -> str:
    if delta is None:
        return "not measured"
    if delta.sign is None:
        return "no verdict"
    return {1: "better", -1: "worse", 0: "no difference seen"}[delta.sign * better]
