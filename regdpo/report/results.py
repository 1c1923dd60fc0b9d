"""The table of scores: what was measured, with intervals, and why the rest was not."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from regdpo.core.errors import UserError
from regdpo.core.rows import REAL
from regdpo.evaluate import stats
from regdpo.evaluate.measures import Metric, metrics
from regdpo.evaluate.stats import Interval
from regdpo.report.gather import Inputs

BASE = "base"
TOO_LITTLE = "too little to say"


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
    short: tuple[str, ...] = ()  # of what there is less than `report.minimum` asks

    @property
    def reading(self) -> str:
        """Against base: ``better``, ``worse``, ``no difference seen``, ``too little to say``, ``no verdict`` or ``not
        measured``; of a metric without direction ``closer to real`` or ``further from real``."""
        if self.metric.better:
            return word(self.metric, self.delta, self.short)
        found = _word(-1, self.distance, self.short)
        return {"better": "closer to real", "worse": "further from real"}.get(found, found)


class Scores:
    """Score rows by model and metric. ``real`` and ``base`` are models, an arm is the union of its trainings.

    Raises:
        UserError: a metric that no measure declares: the page would not know how to read it.
    """

    def __init__(self, inputs: Inputs):
        self.bootstrap = inputs.config.scores.bootstrap
        self.minimum = inputs.config.report.minimum
        self.sources = {clip_id: clip.source for clip_id, clip in inputs.clips.items()}
        self.values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.missing: dict[tuple[str, str], list[str]] = defaultdict(list)
        known = metrics()
        for row in inputs.scores:
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

    def short(self, models: list[str], others: list[str], metric: str) -> tuple[str, ...]:
        """Of what the comparison of two sets of models has less than ``report.minimum`` asks; empty: enough of all."""
        clips = self.of(models, metric).keys() & self.of(others, metric).keys()
        trained = [[name for name in side if name not in (REAL, BASE)] for side in (models, others)]
        seeds = min(sum((name, metric) in self.values for name in side) for side in trained if side)
        found = {
            "source": (len({self.sources[clip] for clip in clips}), self.minimum.sources),
            "clip": (len(clips), self.minimum.clips),
            "training seed": (seeds, self.minimum.seeds),
        }
        return tuple(
            f"{there} {what}{'' if there == 1 else 's'} where {asked} {'is' if asked == 1 else 'are'} asked for"
            for what, (there, asked) in found.items()
            if there < asked
        )

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
            self.short(names, [BASE], metric.key) if compared else (),
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


def word(metric: Metric, delta: Interval | None, short: tuple[str, ...] = ()) -> str:
    """What a difference says, by the side of zero that its whole interval lies on; ``short`` as ``Cell`` has it."""
    return _word(metric.better, delta, short)


def _word(better: int, delta: Interval | None, short: tuple[str, ...]) -> str:
    if delta is None:
        return "not measured"
    if short:
        return TOO_LITTLE
    if delta.sign is None:
        return "no verdict"
    return {1: "better", -1: "worse", 0: "no difference seen"}[delta.sign * better]
