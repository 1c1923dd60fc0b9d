"""The table of scores: what was measured, with intervals, and why the rest was not."""

import dataclasses
import math
from collections import defaultdict
from dataclasses import field

from pydantic import computed_field

from regdpo.core.errors import UserError
from regdpo.core.model_names import BASE, ModelName
from regdpo.core.rows import REAL
from regdpo.evaluate import stats
from regdpo.evaluate.measures import Metric, columns, metrics
from regdpo.evaluate.stats import Interval, Look
from regdpo.report.gather import Inputs, Run
from regdpo.report.parts import part

TOO_LITTLE = "too little to say"


@part
class Cell:
    """One model and metric."""

    metric: Metric
    """How it is read."""
    mean: Interval | None
    """Over clips; null where nothing was measured: then ``reasons`` says why."""
    delta: Interval | None = None
    """Difference to base, paired."""
    distance: Interval | None = None
    """Of a metric without direction: how much further from the real clips than base."""
    each: dict[str, float] = field(default_factory=dict)
    """Model -> its mean; of an arm's trainings, or of several base models."""
    lost: int = 0
    """Values that are missing."""
    reasons: tuple[str, ...] = ()
    """Why they are."""
    short: tuple[str, ...] = ()
    """Of what there is less than ``report.minimum`` asks."""
    p: float | None = None
    """Of the difference to base that the reading is about, corrected for all comparisons with base (Holm)."""
    told: bool = True
    """Whether that p is small enough for a word."""

    @property
    def against(self) -> Interval | None:
        """The difference to base that the reading is about."""
        return self.delta if self.metric.better else self.distance

    @computed_field  # type: ignore[prop-decorator]
    @property
    def reading(self) -> str:
        """Against base: ``better``, ``worse``, ``no difference seen``, ``too little to say``, ``no verdict`` or ``not
        measured``; of a metric without direction ``closer to real`` or ``further from real``."""
        if self.metric.better:
            return word(self.metric, self.delta, self.short, self.told)
        found = _word(-1, self.distance, self.short, self.told)
        return {"better": "closer to real", "worse": "further from real"}.get(found, found)

    @property
    def lone(self) -> bool:
        """Whether the difference would be told apart from zero if it were the only one, and is not among so many."""
        return bool(self.against and self.against.sign and not self.told and not self.short)


class Scores:
    """Score rows by model and metric. ``real`` is a model; ``base`` is the union of the base models, and an arm that of
    its trainings.

    Raises:
        UserError: a metric that no measure declares: the page would not know how to read it.
    """

    def __init__(self, inputs: Inputs):
        self.bases = list(inputs.bases)
        self.bootstrap = inputs.config.scores.bootstrap
        self.minimum = inputs.config.report.minimum
        self.places = stats.places(inputs.clips[clip] for clip in {row.clip_id for row in inputs.scores})
        self.values: dict[tuple[str, str], list[Look]] = defaultdict(list)
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
                model = ModelName.parse(row.model)
                self.values[key].append(Look(model.of, model.seed, row.seed, row.clip_id, row.value))

    def of(self, models: list[str], metric: str) -> list[Look]:
        """All values of these models."""
        return [look for model in models for look in self.values.get((model, metric), [])]

    def delta(self, models: list[str], others: list[str], metric: str) -> Interval | None:
        """Difference of two sets of models, paired at every level that they share; None where they share no clip."""
        return self._delta(self.of(models, metric), self.of(others, metric))

    def _delta(self, ours: list[Look], theirs: list[Look]) -> Interval | None:
        shared = stats.paired(ours, theirs)
        return stats.interval(shared, self.places, self.bootstrap) if shared else None

    def short(self, models: list[str], others: list[str], metric: str) -> tuple[str, ...]:
        """Of what the comparison of two sets of models has less than ``report.minimum`` asks; empty: enough of all."""
        ours, theirs = ({look.clip for look in self.of(side, metric)} for side in (models, others))
        clips = ours & theirs
        trained = [[name for name in side if name not in (REAL, *self.bases)] for side in (models, others)]
        seeds = min(sum((name, metric) in self.values for name in side) for side in trained if side)
        found = {
            ("source", "sources"): (len({self.places[clip].source for clip in clips}), self.minimum.sources),
            ("stretch", "stretches"): (len({self.places[clip] for clip in clips}), self.minimum.clips),
            ("training", "trainings"): (seeds, self.minimum.seeds),
        }
        return tuple(
            f"{there} {what[there != 1]} where {asked} {'is' if asked == 1 else 'are'} asked for"
            for what, (there, asked) in found.items()
            if there < asked
        )

    def cell(self, names: list[str], metric: Metric) -> Cell:
        """The cell of real footage, of the base models or of an arm's trainings."""
        values = self.of(names, metric.key)
        reasons = [reason for name in names for reason in self.missing.get((name, metric.key), [])]
        if not values:
            if names == [REAL] and metric.footage:
                reasons = [metric.footage]
            return Cell(metric, None, reasons=tuple(dict.fromkeys(reasons)) or ("no row in the scores",))
        base, real = self.of(self.bases, metric.key), self.of([REAL], metric.key)
        compared = names not in ([REAL], self.bases)
        towards = compared and not metric.better
        return Cell(
            metric,
            stats.interval(values, self.places, self.bootstrap),
            self.delta(names, self.bases, metric.key) if compared else None,
            self._delta(stats.distances(values, real), stats.distances(base, real)) if towards else None,
            self.means(names, metric.key) if compared or len(names) > 1 else {},
            len(reasons),
            tuple(dict.fromkeys(reasons)),
            self.short(names, self.bases, metric.key) if compared else (),
        )

    def told(self, p: float) -> bool:
        """Whether a corrected p is small enough for a word."""
        return p <= 1 - self.bootstrap.confidence

    def means(self, models: list[str], metric: str) -> dict[str, float]:
        """Mean of each."""
        return stats.means({model: self.of([model], metric) for model in models})

    def reasons(self, metric: str) -> list[str]:
        """Why values of this metric are missing, each reason once."""
        return sorted({reason for (_, name), every in self.missing.items() if name == metric for reason in every})

    def measured(self, prefix: str) -> list[str]:
        """Names, without the prefix, of the metrics that have a value of a model."""
        found = {metric for (model, metric), values in self.values.items() if values and model != REAL}
        return sorted(metric.removeprefix(prefix) for metric in found if metric.startswith(prefix))


def asked(inputs: Inputs) -> dict[str, Metric]:
    """The columns of the table, the primary measure first.

    Raises:
        UserError: ``scores.primary`` is no metric that could be better.
    """
    return columns(inputs.config.scores, inputs.config.base.task)


def names(runs: list[Run]) -> list[str]:
    """Of the models, as the scores have them."""
    return [run.model.name for run in runs]


def table(inputs: Inputs, scores: Scores) -> dict[str, dict[str, Cell]]:
    """Row (real, base, every arm) -> metric, the primary one first -> cell.

    Differences to base are corrected together, by Holm's method.

    Raises:
        UserError: ``scores.primary`` is no metric that could be better.
    """
    rows = {REAL: [REAL], BASE: list(inputs.bases)}
    rows |= {arm: names(runs) for arm, runs in inputs.arms.items()}
    shown = asked(inputs).items()
    found = {name: {key: scores.cell(models, metric) for key, metric in shown} for name, models in rows.items()}
    compared = {
        (name, key): cell.against.p
        for name, row in found.items()
        for key, cell in row.items()
        if cell.against and cell.against.p is not None
    }
    for (name, key), p in zip(compared, stats.holm(list(compared.values())), strict=True):
        found[name][key] = dataclasses.replace(found[name][key], p=p, told=scores.told(p))
    return found


def word(metric: Metric, delta: Interval | None, short: tuple[str, ...] = (), told: bool = True) -> str:
    """What a difference says, by the side of zero that its interval lies on; ``short`` and ``told`` as in ``Cell``."""
    return _word(metric.better, delta, short, told)


def _word(better: int, delta: Interval | None, short: tuple[str, ...], told: bool) -> str:
    if delta is None:
        return "not measured"
    if short:
        return TOO_LITTLE
    if delta.sign is None:
        return "no verdict"
    return {1: "better", -1: "worse", 0: "no difference seen"}[delta.sign * better * told]
