"""Training curves as they are drawn, thinned out, with the steps at which a guard would speak."""

from typing import Literal

import pandas as pd

from regdpo.config.training import Guards
from regdpo.report.gather import Inputs, Run
from regdpo.report.parts import part
from regdpo.train.guards import Watch

POINTS = 300
"""Most points of a drawn line."""


@part
class Line:
    """One training's values of a quantity."""

    arm: str
    """The arm."""
    base: str
    """The base model that it was trained on."""
    seed: int
    """Of the training."""
    steps: list[int]
    """Optimiser steps, counted from 1."""
    values: list[float]
    """At these steps."""
    smooth: list[float]
    """Running mean over a twentieth of the steps; empty where values are few, as of evaluations."""


@part
class Curve:
    """A panel of training curves."""

    key: str
    """As in metrics.jsonl and eval.jsonl (docs/reference/metrics.md)."""
    title: str
    """What it is."""
    unit: str
    """What it is measured in, or how to read it."""
    table: Literal["metrics", "eval"] = "metrics"
    """The log it is from: of training steps or of evaluations."""
    log: bool = False
    """Whether it is drawn on a log scale."""
    zero: bool = False
    """Whether zero is marked."""
    lines: tuple[Line, ...] = ()
    """One a training that logs it."""


CURVES = (
    Curve("loss", "Loss", "of each objective; log scale", log=True),
    Curve("win_gap", "Win gap", "winner's MSE minus the reference's; below 0 is better", zero=True),
    Curve("lose_gap", "Lose gap", "loser's MSE minus the reference's", zero=True),
    Curve("accuracy", "Implicit accuracy", "share of pairs with win gap below lose gap"),
    Curve("dgr", "DGR", "DPO gradient ratio: weight of the DPO term"),
    Curve("reference_point", "Reference point", "gain over the reference that KTO measures samples by", zero=True),
    Curve("error", "Validation error", "denoising MSE on the validation split", table="eval"),
)


@part
class Marks:
    """Where the guards of a training spoke, or would have (``train.settings.guards``)."""

    arm: str
    """The arm."""
    base: str
    """The base model that it was trained on."""
    seed: int
    """Of the training."""
    drift: list[int]
    """Steps from which on losers and winners got worse together, over ``drift_steps`` steps."""
    skipped: list[int]
    """Steps that were left out because they were not finite."""
    over: int
    """Steps over which drift is looked at (``guards.drift_steps``)."""


def curves(inputs: Inputs) -> list[Curve]:
    """Those of ``CURVES`` that any training has logged."""
    found = []
    for curve in CURVES:
        lines = [line for runs in inputs.arms.values() for run in runs if (line := _line(curve, run))]
        if lines:
            found.append(Curve(curve.key, curve.title, curve.unit, curve.table, curve.log, curve.zero, tuple(lines)))
    return found


def marks(inputs: Inputs) -> list[Marks]:
    """One a training."""
    return [
        Marks(
            run.model.arm,
            run.base,
            run.model.seed,
            _drift(run.metrics, inputs.config.train.arm_settings(arm).guards),
            _skipped(run.metrics),
            inputs.config.train.arm_settings(arm).guards.drift_steps,
        )
        for arm, runs in inputs.arms.items()
        for run in runs
    ]


def _drift(metrics: pd.DataFrame, guards: Guards) -> list[int]:
    """The steps at which the guard that watches a training warns."""
    if not {"accuracy", "win_gap"} <= set(metrics.columns):
        return []
    watch = Watch(guards.model_copy(update={"drift": "warn"}))
    rows = metrics[["step", "accuracy", "win_gap"]].dropna().to_dict("records")
    return [int(row["step"]) for row in rows if watch.look(row)]


def _skipped(metrics: pd.DataFrame) -> list[int]:
    if "skipped" not in metrics.columns:
        return []
    return [int(step) for step in metrics.loc[metrics["skipped"].notna(), "step"]]


def _line(curve: Curve, run: Run) -> Line | None:
    table = run.metrics if curve.table == "metrics" else run.evals
    if curve.key not in table:
        return None
    rows = table[["step", curve.key]].replace([float("inf"), -float("inf")], None).astype(float).dropna()
    if rows.empty:
        return None
    stride = 1 if curve.table == "eval" else max(1, -(-len(rows) // POINTS))
    smooth = rows[curve.key].rolling(max(1, len(rows) // 20), center=True, min_periods=1).mean()
    return Line(
        run.model.arm,
        run.base,
        run.model.seed,
        [int(step) for step in rows["step"][::stride]],
        _six(rows[curve.key][::stride]),
        [] if curve.table == "eval" else _six(smooth[::stride]),
    )


def _six(values: pd.Series) -> list[float]:
    """To six digits, which is more than is drawn."""
    return [float(f"{value:.6g}") for value in values]
