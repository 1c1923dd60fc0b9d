"""One line an arm, by rule from the numbers: the words follow the intervals, whatever comes out."""

from collections import Counter
from statistics import fmean

import pandas as pd

from regdpo.core.model_names import BASE
from regdpo.evaluate.measures import metrics
from regdpo.evaluate.stats import Interval, holm
from regdpo.objectives.registry import OBJECTIVES
from regdpo.report.gather import Inputs, Run
from regdpo.report.parts import part
from regdpo.report.results import TOO_LITTLE, Cell, Scores, names, word

NEAR_ONE = 0.95
"""Accuracy from which an arm tells winner from loser nearly always."""


@part
class Drift:
    """Where an arm ended: means over those of its seeds that drift, or over all if none does."""

    drifting: int
    """Trainings that drift: they tell winner from loser, yet have become worse on the winners."""
    seeds: int
    """Trainings that were looked at."""
    accuracy: float
    """Share of pairs whose winner is told."""
    win_gap: float
    """Error on the winners less the reference's."""
    where: str
    """``validation`` or ``training``: the pairs that was measured on."""


@part
class AgainstSft:
    """An arm against SFT alone, an arm or a step on the way to one, on the primary metric, paired."""

    sft: str
    """Its name; empty where nothing was trained by SFT alone."""
    delta: Interval | None
    """The arm minus SFT; null where they share no clip."""
    says: str
    """What that says, in a sentence."""
    p: float | None = None
    """Of the difference, corrected for all comparisons with SFT (Holm)."""
    steps: tuple[int, int] = (0, 0)
    """Optimiser steps from the base on, of the arm and of SFT."""
    word: str = ""
    """What the difference is called, as ``Verdict.word``."""


@part
class Verdict:
    """What the numbers say about an arm. The word is the primary metric's; ``mixed`` where measures disagree."""

    arm: str
    """The arm."""
    word: str
    """``better``, ``worse``, ``mixed``, ``no difference seen``, ``too little to say``, ``no verdict``, ``not
    measured``."""
    primary: Cell
    """The arm's cell of the primary measure."""
    base: Cell
    """The base's."""
    drift: Drift | None
    """Where it ended; null of an objective without losers."""
    sft: list[AgainstSft]
    """Of an arm with a preference objective anywhere from the base on: against all that took as many optimiser steps of
    SFT alone, or, where nothing did, against all SFT."""


def verdicts(inputs: Inputs, scores: Scores, table: dict[str, dict[str, Cell]]) -> list[Verdict]:
    """One an arm, in the configuration's order.

    Args:
        table: as ``results.table`` makes it.
    """
    found = []
    primary = inputs.config.scores.primary
    sft = _against_sft(inputs, scores, table)
    for arm, runs in inputs.arms.items():
        if arm not in inputs.config.train.arms:  # a step on the way
            continue
        beside = dict(table[arm])
        cell = beside.pop(primary)
        others = list(beside.values())
        found.append(Verdict(arm, _all_told(cell, others), cell, table[BASE][primary], _drift(runs), sft.get(arm, [])))
    return found


def summary(found: list[Verdict]) -> str:
    """All verdicts in a sentence, by the primary metric, and another of what is better than SFT."""
    by = f", by {found[0].primary.metric.label}" if found else ""
    counts = Counter(verdict.word for verdict in found)
    says = {
        "better": "better than the base model",
        "worse": "worse than the base model",
        "mixed": "mixed, since measures disagree",
        "no difference seen": "not told apart from the base model",
        TOO_LITTLE: "about which there is too little to say",
        "no verdict": "without a verdict",
        "not measured": "not measured",
    }
    parts = [f"{counts[key]} {text}" for key, text in says.items() if counts[key]]
    beyond = [verdict.arm for verdict in found if any(map(_beats, verdict.sft))]
    after = f" Better than SFT of as many steps: {', '.join(beyond)}." if beyond else ""
    return f"Of {len(found)} {'arm' if len(found) == 1 else 'arms'}{by}: {', '.join(parts)}.{after}"


def _beats(against: AgainstSft) -> bool:
    return against.word == "better" and against.steps[0] == against.steps[1]


def _all_told(primary: Cell, others: list[Cell]) -> str:
    """The primary metric's word, unless some metric that has a direction says better and another says worse."""
    if primary.reading not in ("better", "worse", "no difference seen"):
        return primary.reading
    said = {cell.reading for cell in (primary, *others) if cell.metric.better}
    return "mixed" if {"better", "worse"} <= said else primary.reading


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


def _against_sft(inputs: Inputs, scores: Scores, table: dict[str, dict[str, Cell]]) -> dict[str, list[AgainstSft]]:
    """Every arm with a preference objective on its way against SFT; these comparisons are corrected together."""
    train, primary = inputs.config.train, inputs.config.scores.primary
    ways = {link: train.way(link) for link in inputs.arms}
    steps = {link: sum(part.settings.steps for part in way) for link, way in ways.items()}
    preferring = {link for link, way in ways.items() if any(OBJECTIVES[part.step.objective].paired for part in way)}
    arms = [arm for arm in ways if arm in preferring and arm in train.arms]
    every = [link for link in ways if link not in preferring]
    if not every:
        alone = AgainstSft("", None, "No SFT arm was trained: whether SFT alone explains this cannot be told.")
        return {arm: [alone] for arm in arms}
    yardsticks = {arm: [sft for sft in every if steps[sft] == steps[arm]] or every for arm in arms}
    models = {link: names(runs) for link, runs in inputs.arms.items()}
    pairs = [(arm, sft) for arm in arms for sft in yardsticks[arm]]
    deltas = {(arm, sft): scores.delta(models[arm], models[sft], primary) for arm, sft in pairs}
    known = {pair: delta.p for pair, delta in deltas.items() if delta and delta.p is not None}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    found: dict[str, list[AgainstSft]] = {arm: [] for arm in arms}
    for (arm, sft), delta in deltas.items():
        p = corrected.get((arm, sft))
        told = p is None or scores.told(p)
        against = word(metrics()[primary], delta, scores.short(models[arm], models[sft], primary), told)
        says = _explains(against, table[arm][primary].reading == "better")
        if steps[arm] != steps[sft]:
            says += f" Their steps differ: {steps[arm]:,} of this arm, {steps[sft]:,} of SFT."
        found[arm].append(AgainstSft(sft, delta, says, p, (steps[arm], steps[sft]), against))
    return found


def _explains(against: str, gains: bool) -> str:
    if against in ("not measured", "no verdict", TOO_LITTLE):
        return "Whether SFT alone explains this cannot be told."
    says = {
        "better": "Better than SFT alone",
        "worse": "Worse than SFT alone",
        "no difference seen": "Not told apart from SFT alone",
    }[against]
    if not gains and against == "better":
        return (
            f"{says}, though no gain over base is told: arms of one base may differ less by chance than each from it."
        )
    if not gains:
        return f"{says}; no gain over base is told."
    explains = {
        "better": "SFT does not explain all of the gain",
        "worse": "SFT explains the gain",
        "no difference seen": "SFT explains the gain as far as can be seen here",
    }
    return f"{says}: {explains[against]}."
