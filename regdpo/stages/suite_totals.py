"""What the scores of a suite come to: dimensions, how many of them there are, and totals of those that have all."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from regdpo.config.stage_inputs import SuiteStage, SuiteTotalsStage
from regdpo.core.model_names import BASE, FOLDER
from regdpo.core.rows import SuiteScoreRow
from regdpo.core.temporaries import atomic
from regdpo.evaluate import suite_intervals
from regdpo.evaluate.suite_intervals import TotalInterval
from regdpo.evaluate.suites import SUITES
from regdpo.evaluate.vbench import Outcome, outcome


def totals(stage: SuiteStage, rows: Sequence[SuiteScoreRow], models: Sequence[str]) -> dict[str, Outcome]:
    """Model -> what its scores come to, in the order of the models."""
    return {model: outcome(stage, [row for row in rows if row.model == model]) for model in models}


def intervals(
    stage: SuiteTotalsStage, rows: Sequence[SuiteScoreRow], found: dict[str, Outcome]
) -> dict[str, dict[str, TotalInterval]]:
    """Model -> total -> interval, of the models that have totals."""
    whole = {model: [row for row in rows if row.model == model] for model, it in found.items() if it.totals}
    bases = {model: base for model in whole if (base := _base(model)) != model and base in whole}
    return suite_intervals.intervals(stage.suite, whole, bases, stage.bootstrap) if whole else {}


def _base(model: str) -> str:
    """The base that a model was trained from. Videos that were rendered elsewhere may have any name."""
    folder = model.partition("/")[0]
    return f"{folder}/{BASE}" if FOLDER.fullmatch(folder) else BASE


def write(
    stage: SuiteStage, found: dict[str, Outcome], spread: dict[str, dict[str, TotalInterval]], path: Path
) -> None:
    """As JSON (docs/reference/scores.md)."""
    values = {
        "suite": stage.suite,
        "title": SUITES[stage.suite].title,
        "prompts_a_dimension": stage.limit,
        "models": {
            model: {
                **it.values(),
                "intervals": {total: asdict(one) for total, one in spread.get(model, {}).items()},
            }
            for model, it in found.items()
        },
    }
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def text(stage: SuiteStage, found: dict[str, Outcome]) -> str:
    """A table for the log: dimensions in rows, models in columns."""
    rows = [["", *found]]
    for dimension in stage.dimensions:
        scores = [it.scores[dimension] for it in found.values()]
        rows.append([dimension, *(f"{100 * score:.2f} %" if score is not None else "missing" for score in scores)])
    for name in next((list(it.totals) for it in found.values() if it.totals), ["total"]):
        rows.append([name, *(f"{it.totals[name]:.2f} %" if it.totals else it.coverage for it in found.values())])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    partial = dict.fromkeys(it.partial for it in found.values() if it.partial)
    return "\n".join([SUITES[stage.suite].title, *lines, *partial])
