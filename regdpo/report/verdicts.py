"""One line an arm, by rule from the numbers: the words follow the intervals, whatever comes out."""

from collections import Counter
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from regdpo.evaluate.measures import PRIMARY, metrics
from regdpo.evaluate.stats import Interval
from regdpo.report.gather import Inputs, Run
from regdpo.report.results import Cell, Scores, word

NEAR_ONE = 0.95
"""Accuracy from which an arm tells winner from loser nearly always."""


@dataclass(frozen=True)
class Drift:
    """Where an arm ended: means over those of its seeds that drift, or over all if none does."""

    drifting: int
    seeds: int
    accuracy: float
    win_gap: float
    where: str


@dataclass(frozen=True)
class AgainstSft:
    """An arm against an SFT arm on the primary metric, paired by clip."""

    sft: str
    delta: Interval | None
    says: str


@dataclass(frozen=True)
class Verdict:
    """What the numbers say about an arm."""

    arm: str
    word: str
    primary: Cell
    base: Cell
    others: list[Cell]
    drift: Drift | None
    sft: list[AgainstSft]


def names(runs: list[Run]) -> dict[int, str]:
    """Training seed -> model name in the scores."""
    return {run.model.seed: run.model.name for run in runs}


def verdicts(inputs: Inputs, scores: Scores) -> list[Verdict]:
    """One an arm, in the configuration's order."""
    found = []
    base = scores.cell("base", metrics()[PRIMARY])
    for arm, runs in inputs.arms.items():
        cell = scores.cell(names(runs), metrics()[PRIMARY])
        others = [scores.cell(names(runs), metrics()[key]) for key in ("psnr", "ssim")]
        sft = _against_sft(inputs, scores, arm) if runs[0].model.objective == "reg_dpo" else []
        found.append(Verdict(arm, cell.reading, cell, base, others, _drift(runs), sft))
    return found


def summary(found: list[Verdict]) -> str:
    """All verdicts in a sentence."""
    counts = Counter(verdict.word for verdict in found)
    says = {
        "better": "better than the base model",
        "worse": "worse",
        "no difference seen": "not told apart from it",
        "no verdict": "without a verdict",
        "not measured": "not measured",
    }
    parts = [f"{counts[key]} {text}" for key, text in says.items() if counts[key]]
    return f"On held-out error, of {len(found)} {'arm' if len(found) == 1 else 'arms'}: {', '.join(parts)}."


def _drift(runs: list[Run]) -> Drift | None:
    ends = [end for run in runs if (end := _end(run)) is not None]
    if not ends:
        return None
    drifting = [(accuracy, gap) for accuracy, gap, _ in ends if accuracy >= NEAR_ONE and gap > 0]
    accuracies, gaps = zip(*(drifting or [(accuracy, gap) for accuracy, gap, _ in ends]), strict=True)
    return Drift(len(drifting), len(ends), fmean(accuracies), fmean(gaps), ends[0][2])


def _end(run: Run) -> tuple[float, float, str] | None:
    """(accuracy, win gap, where from): the last evaluation, or else the last tenth of the training."""
    columns = ["accuracy", "win_gap"]
    for table, where in (
        (run.evals.tail(1), "validation"),
        (run.metrics.tail(len(run.metrics) // 10 or 1), "training"),
    ):
        if set(columns) <= set(table.columns) and not table[columns].dropna().empty:
            mean: pd.Series = table[columns].dropna().mean()
            return float(mean["accuracy"]), float(mean["win_gap"]), where
    return None


def _against_sft(inputs: Inputs, scores: Scores, arm: str) -> list[AgainstSft]:
    ours = list(names(inputs.arms[arm]).values())
    gains = word(metrics()[PRIMARY], scores.delta(ours, ["base"], PRIMARY)) == "better"
    found = []
    for other, runs in inputs.arms.items():
        if runs[0].model.objective == "sft":
            delta = scores.delta(ours, list(names(runs).values()), PRIMARY)
            found.append(AgainstSft(other, delta, _explains(word(metrics()[PRIMARY], delta), gains)))
    return found or [AgainstSft("", None, "No SFT arm was trained: whether SFT alone explains this cannot be told.")]


def _explains(against: str, gains: bool) -> str:
    if against in ("not measured", "no verdict"):
        return "Whether SFT alone explains this cannot be told."
    says = {"better": "Better than SFT alone", "worse": "Worse than SFT alone", "no difference seen": "As SFT alone"}
    if not gains:
        return f"{says[against]}; there is no gain over base to explain."
    return {
        "better": "Better than SFT alone: SFT does not explain all of the gain.",
        "worse": "Worse than SFT alone: SFT explains the gain.",
        "no difference seen": "Not told apart from SFT alone: SFT explains the gain as far as these clips show.",
    }[against]
