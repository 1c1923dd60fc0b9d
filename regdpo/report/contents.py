"""What the page says, shaped once from its inputs; page.py only draws it."""

from dataclasses import dataclass

from regdpo.data.captioner_registry import CAPTIONERS
from regdpo.evaluate import shortcut, vbench
from regdpo.evaluate.measures import Metric, metrics
from regdpo.evaluate.stats import Levels
from regdpo.models.loading import lines
from regdpo.models.spec import ModelFile
from regdpo.report import examples, footage, funnel, halves, losers, results, verdicts, words
from regdpo.report.gather import Inputs, without_folders
from regdpo.report.results import Cell, Scores

VBENCH = "vbench_"
"""How the metrics of VBench's dimensions begin."""


@dataclass(frozen=True)
class Contents:
    """The names are the template's."""

    table: dict[str, dict[str, Cell]]  # row (real, base, arm) -> metric -> cell
    reasons: dict[str, int]  # why something is missing -> its number in the footnotes
    verdicts: list[verdicts.Verdict]
    summary: str
    levels: Levels
    comparisons: int  # with base, that were corrected together
    measured: list[str]  # dimensions of VBench
    not_measured: list[tuple[str, str]]  # dimension, why
    dimensions: int
    split: footage.Split
    funnel: list[funnel.Step]
    candidates: int  # rows of the clips' manifest
    accepted: int
    captioners: list[str]
    generators: list[losers.Generator]
    differences: list[halves.Difference]
    shortcut: shortcut.Accuracy | None
    compared: int  # pairs
    words: dict[str, str]  # what the page's own words mean
    left_out: list[Metric]  # that say nothing of the base's task
    held_out: list[examples.Example]
    pairs: list[examples.Example]
    loading: dict[str, str]  # arm -> lines that load its first training


def shape(inputs: Inputs) -> Contents:
    """All of it.

    Raises:
        UserError: a score that no measure declares.
    """
    scores = Scores(inputs)
    table = results.table(inputs, scores)
    split = footage.split(inputs)
    measured = scores.measured(VBENCH)
    coverage = vbench.coverage(measured)
    return Contents(
        table=table,
        reasons=_reasons(table),
        verdicts=(found := verdicts.verdicts(inputs, scores, table)),
        summary=verdicts.summary(found),
        levels=_levels(inputs, split),
        comparisons=sum(cell.p is not None for row in table.values() for cell in row.values()),
        measured=measured,
        not_measured=[(name, "; ".join(scores.reasons(f"{VBENCH}{name}")) or why) for name, why in coverage if why],
        dimensions=len(coverage),
        split=split,
        funnel=funnel.steps(inputs.cut["reason"], inputs.config.clips.filters),
        candidates=len(inputs.cut),
        accepted=int((inputs.cut["status"] == "accepted").sum()),
        captioners=sorted({_captioner(row.captioner) for row in inputs.captions.values()}),
        generators=losers.generators(inputs.negatives),
        differences=halves.differences(inputs.halves, inputs.config.report.minimum.pairs),
        shortcut=halves.shortcut_accuracy(
            inputs.halves, inputs.pairs, inputs.config.report.minimum.pairs, inputs.config.scores.bootstrap
        ),
        compared=len({row.pair_id for row in inputs.halves}),
        words=words.used(inputs),
        left_out=[metric for key, metric in metrics().items() if key not in metrics(inputs.config.base.task)],
        held_out=examples.held_out(inputs, scores),
        pairs=examples.pairs(inputs),
        loading={arm: _loading(runs[0].model) for arm, runs in inputs.arms.items()},
    )


def _levels(inputs: Inputs, split: footage.Split) -> Levels:
    return Levels(
        bases=1,
        trainings=len(inputs.config.train.seeds),
        samples=len(inputs.config.samples.seeds),
        sources=len(split.held_out_sources),
        stretches=split.stretches,
    )


def _captioner(name: str) -> str:
    """Who wrote a caption: a model as it is named; of captions that are read, where they stand."""
    first = name.partition(":")[0]
    return CAPTIONERS[first].description if first in CAPTIONERS else first


def _reasons(table: dict[str, dict[str, Cell]]) -> dict[str, int]:
    """In the order of the table."""
    every = dict.fromkeys(reason for row in table.values() for cell in row.values() for reason in cell.reasons)
    return {reason: index for index, reason in enumerate(every, start=1)}


def _loading(model: ModelFile) -> str:
    """As in the README beside the weights, but for where this machine keeps its models."""
    ref = model.ref
    checkpoint = _cut(ref.path) if ref.where == "store" else without_folders(ref.path)
    return lines(ref, f"weights/{model.name}", checkpoint, _cut(ref.transformer) if ref.lora else "")


def _cut(path: str) -> str:
    """A place in the store without its long name."""
    return f"…/{path.partition('/')[0]}/…" if path else ""
