"""What people said, shaped for the page: comparisons of arms, single clips, raters, and which measures agree with them.

What was not answered is there too, with the reason.
"""

import math

from regdpo.core.model_names import BASE
from regdpo.core.rows import REAL, AnswerRow
from regdpo.evaluate import gsb, people
from regdpo.evaluate.measures import Metric, columns
from regdpo.evaluate.people import AXES, METRICS, Agreement
from regdpo.evaluate.stats import Interval
from regdpo.report.gather import Inputs
from regdpo.report.parts import part

NOBODY = "nobody has answered yet (snakemake rate)"
FAILED = "all who answered failed the gold pairs"
ALONE = "no pair of videos has answers of two raters"
ALIKE = "all answers are the same, so there is nothing to disagree about"
APART = "some arm was never compared with the others, or won or lost all"
PARTLY = "no clip has answers to all three questions by one rater"


@part
class Compared:
    """Two arms on an axis."""

    axis: str
    """VQ or PF."""
    arm: str
    """Good is better of this one."""
    other: str
    """Than this one."""
    found: gsb.Comparison | None
    """Null: there is none."""
    missing: str = ""
    """Why."""


@part
class Axis:
    """All comparisons of an axis together."""

    name: str
    """VQ or PF."""
    meaning: str
    """In words."""
    raters: int
    """Whose answers count."""
    alpha: float | None
    """Krippendorff's, of ordered answers: 1 if all agree, 0 as by chance."""
    no_alpha: str
    """Why there is none."""
    strengths: dict[str, Interval]
    """Bradley and Terry's, of every arm, the strongest first; a difference is the log of the odds to win."""
    no_strengths: str
    """Why there are none."""


@part
class Clips:
    """MUG-V's questions about the single clips of an arm."""

    arm: str
    """Or base, or real."""
    raters: int
    """Whose answers count."""
    passed: gsb.Share | None
    """Look not generated, and the product is kept; null: nothing was answered."""
    high_quality: gsb.Share | None
    """Pass, and look professional."""
    missing: str = ""
    """Why there is none."""


@part
class Rater:
    """One who answered; without a name."""

    name: str
    """A number, by who answered first."""
    answers: int
    """That count."""
    gold: tuple[int, int]
    """Answers about gold pairs that are right, and all of them."""
    again: tuple[int, int]
    """Repeats answered as the first time, and all of them."""
    dropped: bool
    """Left out, for the gold pairs."""


@part
class People:
    """Blind comparisons of two videos, and questions about single clips."""

    answers: int
    """That count."""
    axes: list[Axis]
    """VQ and PF."""
    comparisons: list[Compared]
    """Those that `rating.comparisons` asks for, then others that were answered; by axis."""
    clips: list[Clips]
    """MUG-V's questions, by arm."""
    raters: list[Rater]
    """All who answered."""
    agreements: list[Agreement]
    """How often each measure orders two videos as most raters do; of each metric all axes."""
    attention: float
    """Least share of the answers about gold pairs that have to be right (`rating.attention`)."""

    @property
    def missing(self) -> dict[str, str]:
        """What people were not asked -> why."""
        found = {}
        for axis in self.axes:
            reasons = {it.missing for it in self.comparisons if it.axis == axis.name}
            if "" not in reasons:
                found[f"people's {axis.name} ({axis.meaning})"] = "; ".join(sorted(reasons))
        if all(it.missing for it in self.clips):
            found["people's pass rate and high-quality rate"] = "; ".join(sorted({it.missing for it in self.clips}))
        return found


def shape(inputs: Inputs) -> People:
    """All of it."""
    rating = inputs.config.rating
    sorted_out = people.counted(inputs.answers, rating.attention)
    kept = sorted_out.rows
    measured = [
        it
        for it in columns(inputs.config.scores, inputs.config.base.task).values()
        if it.key not in METRICS.values() and (it.better or not it.footage)
    ]
    return People(
        answers=len(kept),
        axes=[_axis(inputs, kept, axis) for axis in AXES],
        comparisons=[_compared(inputs, kept, axis, *both) for axis in AXES for both in _both(inputs)],
        clips=_clips(inputs, kept),
        raters=[
            Rater(
                name,
                sum(row.rater == name for row in kept),
                (found.right, found.shown),
                sorted_out.again.get(name, (0, 0)),
                found.dropped,
            )
            for name, found in sorted(sorted_out.raters.items(), key=lambda it: (len(it[0]), it[0]))
        ],
        agreements=[_agreement(inputs, kept, axis, metric) for metric in measured for axis in AXES],
        attention=rating.attention,
    )


def _both(inputs: Inputs) -> list[tuple[str, str]]:
    """The comparisons that are asked for, then others that were answered."""
    answered = sorted({(row.arm_a, row.arm_b) for row in inputs.answers if row.form == "pair" and not row.gold})
    found: dict[frozenset[str], tuple[str, str]] = {}
    for both in (*inputs.config.rating.compared(inputs.config.train.arms), *answered):
        found.setdefault(frozenset(both), both)
    return list(found.values())


def _why(answered: bool) -> str:
    return FAILED if answered else NOBODY


def _compared(inputs: Inputs, kept: list[AnswerRow], axis: str, arm: str, other: str) -> Compared:
    def of(rows: list[AnswerRow]) -> list[AnswerRow]:
        return [it for it in rows if it.axis == axis and not it.gold and {it.arm_a, it.arm_b} == {arm, other}]

    mine = of(kept)
    if not mine:
        return Compared(axis, arm, other, None, _why(bool(of(inputs.answers))))
    found = gsb.compare(people.judgements(mine, axis), arm, other, inputs.config.scores.bootstrap)
    return Compared(axis, arm, other, found)


def _axis(inputs: Inputs, kept: list[AnswerRow], axis: str) -> Axis:
    given = people.judgements(kept, axis)
    together = people.units(kept, axis)
    alpha = gsb.krippendorff_alpha(together)
    found = gsb.bradley_terry(given, inputs.config.scores.bootstrap) or {}
    strengths = {arm: found[arm] for arm in sorted(found, key=lambda arm: -found[arm].mean)}
    nothing = _why(any(row.axis == axis for row in inputs.answers)) if not given else ""
    several = any(len(unit) > 1 for unit in together)
    return Axis(
        axis,
        AXES[axis],
        len({one.rater for one in given}),
        alpha,
        "" if alpha is not None else nothing or (ALIKE if several else ALONE),
        strengths,
        "" if strengths else nothing or APART,
    )


def _clips(inputs: Inputs, kept: list[AnswerRow]) -> list[Clips]:
    by_arm = people.clip_answers(kept)
    asked = {row.arm_a for row in inputs.answers if row.form == "clip"}
    confidence, found = inputs.config.scores.bootstrap.confidence, []
    for arm in (BASE, *inputs.config.train.arms, REAL):
        answers = by_arm.get(arm, [])
        if not answers:
            whole = {row.arm_a for row in kept if row.form == "clip"}
            found.append(Clips(arm, 0, None, None, PARTLY if arm in whole else _why(arm in asked)))
            continue
        rates = gsb.mugv_rates(answers, confidence)
        raters = len({answer.rater for answer in answers})
        found.append(Clips(arm, raters, rates["pass"], rates["high_quality"]))
    return found


def _agreement(inputs: Inputs, kept: list[AnswerRow], axis: str, metric: Metric) -> Agreement:
    """A metric without a direction is better the nearer it is to the real clip's."""
    known = {
        (row.model, row.clip_id, row.seed): row.value
        for row in inputs.scores
        if row.metric == metric.key and row.value is not None and math.isfinite(row.value)
    }
    real = {clip: value for (model, clip, _), value in known.items() if model == REAL}
    values = {
        where: metric.better * value if metric.better else -abs(value - real[where[1]])
        for where, value in known.items()
        if metric.better or where[1] in real
    }
    return people.agreement(kept, axis, metric, values, inputs.config.scores.bootstrap)
