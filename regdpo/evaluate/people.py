"""People's answers as judgements, scores and shares: which of them count, and what they say of every arm.

Gold pairs and repeats check attention and are never counted; a rater who fails the gold pairs is left out whole.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from regdpo.config.schema import Bootstrap
from regdpo.core.model_names import BASE, ModelName
from regdpo.core.rows import REAL, AnswerRow, SampleRow, ScoreRow
from regdpo.evaluate import gsb
from regdpo.evaluate.gsb import Answer, Attention, ClipAnswer, Judgement
from regdpo.evaluate.measures import Given, Metric
from regdpo.evaluate.stats import Interval

AXES = {"VQ": "video quality", "PF": "prompt following"}
METRICS = {"VQ": "people_vq", "PF": "people_pf"}
"""Axis -> key of its metric."""
NOBODY = "no comparison with base has been answered yet (snakemake rate)"
INATTENTIVE = "all who answered comparisons with base failed the gold pairs"
QUESTIONS = ("generated", "product", "professional")
SAYS: dict[str, Answer] = {"a": "good", "same": "same", "b": "bad"}
WORTH: dict[str, int] = {"a": 1, "same": 0, "b": -1}


@dataclass(frozen=True)
class Counted:
    """Answers sorted by what they are for."""

    rows: list[AnswerRow]  # those that count
    raters: dict[str, Attention]
    again: dict[str, tuple[int, int]]  # rater -> repeats answered as the first time, and all of both answers


def counted(rows: Iterable[AnswerRow], least: float) -> Counted:
    """Leave out gold pairs, repeats, and raters who had less than ``least`` of their gold pairs right."""
    every = sorted(rows, key=lambda row: row.key)
    pairs = [row for row in every if row.form == "pair"]
    gold = {_item(row): SAYS[row.gold] for row in pairs if row.gold}
    _, raters = gsb.attentive([_judgement(row) for row in pairs], gold, least)
    first = {(row.rater, _item(row), row.axis): row.answer for row in every if not row.repeat}
    again: dict[str, tuple[int, int]] = {}
    for row in every:
        before = first.get((row.rater, _item(row), row.axis)) if row.repeat else None
        if before:
            same, of = again.get(row.rater, (0, 0))
            again[row.rater] = same + (before == row.answer), of + 1
    dropped = {name for name, found in raters.items() if found.dropped}
    kept = [row for row in every if not row.gold and not row.repeat and row.rater not in dropped]
    return Counted(
        kept, {name: raters.get(name, Attention(0, 0, False)) for name in sorted({r.rater for r in every})}, again
    )


def judgements(rows: Iterable[AnswerRow], axis: str) -> list[Judgement]:
    """Of rows that count, those of an axis."""
    return [_judgement(row) for row in rows if row.form == "pair" and row.axis == axis]


def units(rows: Iterable[AnswerRow], axis: str) -> list[dict[str, Answer]]:
    """For Krippendorff's alpha: a pair of videos -> rater -> answer."""
    found: dict[str, dict[str, Answer]] = defaultdict(dict)
    for one in judgements(rows, axis):
        found[one.item][one.rater] = one.answer
    return list(found.values())


def clip_answers(rows: Iterable[AnswerRow]) -> dict[str, list[ClipAnswer]]:
    """Arm -> the single clips of which a rater answered all three questions."""
    said: dict[tuple[str, str, str], dict[str, bool]] = defaultdict(dict)
    for row in rows:
        if row.form == "clip":
            said[row.arm_a, _item(row), row.rater][row.axis] = row.answer == "yes"
    found: dict[str, list[ClipAnswer]] = defaultdict(list)
    for (arm, clip, rater), answers in sorted(said.items()):
        if len(answers) == len(QUESTIONS):
            found[arm].append(ClipAnswer(clip, rater, *(answers[axis] for axis in QUESTIONS)))
    return dict(found)


def measure(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``: of every sample that was compared with base's the mean over raters of 1 (better), 0
    (the same) and -1 (worse); base's own are 0, to compare with."""
    kept = counted(given.answers, given.stage.attention).rows
    found = []
    for axis, metric in METRICS.items():
        worth: dict[tuple[str, str, int], list[int]] = defaultdict(list)
        for row in kept:
            if row.axis == axis and BASE in (row.arm_a, row.arm_b):
                turned = row.arm_a == BASE
                other, base = (row.model_b, row.model_a) if turned else (row.model_a, row.model_b)
                worth[other, row.prompt_id, row.seed].append(WORTH[row.answer] * (-1 if turned else 1))
                worth[base, row.prompt_id, row.seed].append(0)
        found += [_score(metric, *where, value=fmean(values)) for where, values in sorted(worth.items())]
        arms = {ModelName.parse(model).arm for model, _, _ in worth} | {REAL}
        found += [_none(metric, sample, given.answers, axis) for sample in given.samples if _arm(sample) not in arms]
    return found


@dataclass(frozen=True)
class Agreement:
    """How often a metric orders two videos as most raters do."""

    metric: Metric
    """How it is read."""
    axis: str
    """VQ or PF."""
    share: Interval | None
    """Over prompts, half is chance; null: no pair has both a value and a majority of raters."""
    pairs: int
    """Of videos."""


def agreement(
    rows: Iterable[AnswerRow],
    axis: str,
    metric: Metric,
    values: Mapping[tuple[str, str, int], float],
    bootstrap: Bootstrap,
) -> Agreement:
    """Over pairs of videos that most raters told apart and that both have a value; equal values agree by half.

    Args:
        rows: those that count.
        values: (model, prompt, sampling seed, -1 where there is none) -> value, the higher the better.
    """
    votes: Counter[tuple[str, str, str, int]] = Counter()
    for row in rows:
        if row.form == "pair" and row.axis == axis:
            votes[row.prompt_id, row.model_a, row.model_b, row.seed] += WORTH[row.answer]
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for (prompt, a, b, seed), vote in sorted(votes.items()):
        one, other = (values.get((model, prompt, seed), values.get((model, prompt, -1))) for model in (a, b))
        if vote and one is not None and other is not None:
            by_prompt[prompt].append((1 + float(np.sign(one - other) * np.sign(vote))) / 2)
    counts = np.array([[sum(shares), len(shares)] for _, shares in sorted(by_prompt.items())], np.float64).reshape(
        -1, 2
    )
    pairs = int(counts[:, 1].sum())
    return Agreement(metric, axis, gsb.share(counts, bootstrap) if pairs else None, pairs)


def _item(row: AnswerRow) -> str:
    """What was shown, the same for all raters and for repeats."""
    return "|".join([row.form, row.prompt_id, row.model_a, row.model_b, str(row.seed), row.sha256_a, row.sha256_b])


def _judgement(row: AnswerRow) -> Judgement:
    return Judgement(_item(row), row.prompt_id, row.rater, row.arm_a, row.arm_b, SAYS[row.answer])


def _arm(sample: SampleRow) -> str:
    return ModelName.parse(sample.model).arm


def _score(metric: str, model: str, clip: str, seed: int, value: float | None = None, missing: str = "") -> ScoreRow:
    return ScoreRow(
        score_id=f"{model}|{metric}|{clip}|{seed}", model=model, metric=metric, clip_id=clip, seed=seed, value=value,
        missing=missing,
    )  # fmt: skip


def _none(metric: str, sample: SampleRow, rows: Iterable[AnswerRow], axis: str) -> ScoreRow:
    both = {_arm(sample), BASE}
    asked = any(row.axis == axis and not row.gold and both <= {row.arm_a, row.arm_b} for row in rows)
    return _score(metric, sample.model, sample.clip_id, sample.seed, missing=INATTENTIVE if asked else NOBODY)
