"""What the page says, shaped once from its inputs; page.py only draws it."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

import regdpo
from regdpo.data.captioner_registry import CAPTIONERS
from regdpo.evaluate import vbench
from regdpo.evaluate.measures import Metric, metrics
from regdpo.evaluate.shortcut import Accuracy
from regdpo.evaluate.stats import Levels
from regdpo.models.loading import lines
from regdpo.models.spec import ModelFile
from regdpo.report import (
    agreement,
    curves,
    examples,
    footage,
    funnel,
    halves,
    losers,
    pair_weights,
    people,
    results,
    suites,
    totals,
    verdicts,
    words,
)
from regdpo.report.curves import Curve, Marks
from regdpo.report.gather import Inputs, without_folders
from regdpo.report.parts import part
from regdpo.report.results import Cell, Scores
from regdpo.report.vae import Reconstruction

VBENCH = "vbench_"
"""How the metrics of VBench's dimensions begin."""


VERSION: Literal[1] = 1
"""Of the schema. Who takes a field away, renames it or gives it another meaning raises it; a new field does not, and
has a default, so that reports of before can still be compared."""


@part
class Model:
    """A model that is compared."""

    name: str
    """``base``, or ARM/seedN; of another base model than the first with its folder before it, as ``base1/base``."""
    digest: str
    """Of all that shapes it."""
    base_digest: str
    """Of the base that an arm was trained from; empty: it is the base."""
    arm: str
    """Empty: it is the base."""
    seed: int
    """Of the training, or of a base that was made here."""
    objective: str
    """Of the arm."""
    processes: int
    """That trained it; 0: it came as it is."""
    device: str
    """That it was trained on."""
    hardware: str
    """Processor or GPU that its numbers hold for; empty: all with AVX2, or it was not trained here."""
    attention: str
    """The backend of attention."""
    codec_psnr: float | None
    """dB, of real clips through encode and decode; of codecs that are fitted here."""
    machine: str = ""
    """Processor or GPU that it was trained on; empty: not here, or that was not kept."""

    @classmethod
    def of(cls, file: ModelFile, machine: str) -> "Model":
        return cls(
            **{name: getattr(file, name) for name in cls.__dataclass_fields__ if name != "machine"}, machine=machine
        )


@part
class Manifest:
    """A table that the report was made from."""

    sha256: str
    """Of the file."""
    rows: int
    """Its length."""


@part
class Contents:
    """The report of a comparison of arms with their base model."""

    schema_version: Literal[1]
    """Of this schema; what takes a field away or changes its meaning raises it."""
    regdpo: str
    """Version."""
    summary: str
    """All verdicts in a sentence."""
    verdicts: list[verdicts.Verdict]
    """One an arm, in the configuration's order."""
    metrics: dict[str, Metric]
    """The table's columns, the primary measure (``scores.primary``) first."""
    table: dict[str, dict[str, Cell]]
    """Row (real, base, every arm; of one that is a chain first its steps, ARM.N) -> metric -> cell."""
    totals: totals.Totals
    """All measures at a glance: normalised, and as a total of ranks."""
    reasons: dict[str, int]
    """Why something is missing -> its number in the page's footnotes."""
    suites: list[suites.Suite]
    """Of VBench, with prompts of its own; those that the configuration asks for."""
    people: people.People
    """What people said."""
    levels: Levels
    """What the intervals are over."""
    comparisons: int
    """With base, that were corrected together."""
    measured: list[str]
    """Dimensions of VBench."""
    not_measured: dict[str, str]
    """Dimension of VBench -> why."""
    dimensions: int
    """That VBench has."""
    left_out: list[Metric]
    """That say nothing of the base's task."""
    split: footage.Split
    """How train, validation and test lie in the footage."""
    funnel: list[funnel.Step]
    """What was rejected of the clips, in the order in which footage meets the filters."""
    candidates: int
    """Rows of the clips' manifest."""
    accepted: int
    """Of them."""
    captioners: list[str]
    """Who wrote the captions, or whose pairs they came with."""
    generators: list[losers.Generator]
    """Who made the losers."""
    differences: list[halves.Difference]
    """What tells winners and losers apart."""
    shortcut: Accuracy | None
    """How often these statistics alone tell the winner; null of too few pairs."""
    compared: int
    """Pairs whose halves were compared."""
    held_out: list[examples.Example]
    """Held-out clips that are shown."""
    pairs: list[examples.Example]
    """Pairs that are shown."""
    curves: list[Curve]
    """Of the trainings, thinned out to what is drawn."""
    marks: list[Marks]
    """Where the guards of the trainings spoke, or would have."""
    words: dict[str, str]
    """What the page's own words mean."""
    loading: dict[str, str]
    """Arm -> lines that load its first training."""
    models: list[Model]
    """The bases first."""
    numbers: str
    """Which machines make the same numbers."""
    manifests: dict[str, Manifest]
    """What the report was made from, by name."""
    packages: dict[str, str]
    """Name -> version, of those that shape results."""
    code: dict[str, str]
    """What a stage is made of -> digest of that code; empty where the report was made by hand."""
    configuration: dict[str, Any]
    """Every key, but for where things lie and who runs them."""
    vae: Reconstruction | None = None
    """What autoencoders gave back of held-out clips, where ``vae.report`` asks for it."""
    shortcuts: dict[str, Accuracy | None] = field(default_factory=dict)
    """As ``shortcut``, by source (and generator of the losers); empty of one alone."""
    weights: dict[str, pair_weights.Weights] = field(default_factory=dict)
    """Source of pairs -> how their weights lie; empty where all pairs weigh the same."""
    raters: dict[str, agreement.Raters] = field(default_factory=dict)
    """Source of labels -> how many were judged, and how far raters agree."""


def shape(inputs: Inputs, codes: Mapping[str, str] | None = None) -> Contents:
    """All of it.

    Args:
        codes: digests of the stages' code.

    Raises:
        UserError: a score that no measure declares.
    """
    scores = Scores(inputs)
    table = results.table(inputs, scores)
    split = footage.split(inputs)
    measured = scores.measured(VBENCH)
    coverage = vbench.coverage(measured)
    return Contents(
        schema_version=VERSION,
        regdpo=regdpo.__version__,
        metrics=results.asked(inputs),
        table=table,
        totals=totals.totals(table),
        reasons=_reasons(table),
        verdicts=(found := verdicts.verdicts(inputs, scores, table)),
        summary=verdicts.summary(found),
        suites=inputs.suites,
        vae=inputs.vae,
        people=people.shape(inputs),
        levels=_levels(inputs, split),
        comparisons=sum(cell.p is not None for row in table.values() for cell in row.values()),
        measured=measured,
        not_measured={name: "; ".join(scores.reasons(f"{VBENCH}{name}")) or why for name, why in coverage if why},
        dimensions=len(coverage),
        split=split,
        funnel=funnel.steps(inputs.cut["reason"], inputs.config.clips.filters),
        candidates=len(inputs.cut),
        accepted=int((inputs.cut["status"] == "accepted").sum()),
        captioners=sorted({_captioner(row.captioner) for row in inputs.captions.values()} - {""}),
        generators=losers.generators(inputs.negatives),
        weights=pair_weights.histograms(inputs.pairs),
        raters=agreement.by_source(inputs.votes),
        differences=halves.differences(inputs.halves, inputs.config.report.minimum.pairs),
        shortcut=halves.shortcut_accuracy(
            inputs.halves, inputs.pairs, inputs.config.report.minimum.pairs, inputs.config.scores.bootstrap
        ),
        shortcuts=halves.shortcuts_by_kind(
            inputs.halves, inputs.pairs, inputs.config.report.minimum.pairs, inputs.config.scores.bootstrap
        ),
        compared=len({row.pair_id for row in inputs.halves}),
        words=words.used(inputs),
        left_out=[metric for key, metric in metrics().items() if key not in metrics(inputs.config.base.task)],
        held_out=examples.held_out(inputs, scores),
        pairs=examples.pairs(inputs),
        curves=curves.curves(inputs),
        marks=curves.marks(inputs),
        loading={arm: _loading(runs[0].model) for arm, runs in inputs.arms.items()},
        models=(
            models := [
                Model.of(it, inputs.machines.get(it.name, ""))
                for it in (*inputs.bases.values(), *(run.model for run in inputs.runs))
            ]
        ),
        numbers=_numbers(models),
        manifests={name: Manifest(digest, rows) for name, (digest, rows) in inputs.digests.items()},
        packages=inputs.packages,
        code=dict(codes or {}),
        configuration=inputs.shown_config,
    )


def _levels(inputs: Inputs, split: footage.Split) -> Levels:
    return Levels(
        bases=len(inputs.bases),
        trainings=len(inputs.config.train.seeds),
        samples=len(inputs.config.samples.seeds),
        sources=len(split.held_out_sources),
        stretches=split.stretches,
    )


def _numbers(models: list[Model]) -> str:
    """Where the same bits come out, by what trained the models."""
    hardware = sorted({model.hardware for model in models} - {""})
    if not hardware:
        return "Numbers are portable: made so that every x86-64 machine with AVX2 gives the same bits."
    made = " and ".join([", ".join(hardware[:-1]), hardware[-1]] if hardware[1:] else hardware)
    return f"Numbers are not portable: they hold for {made}; others round differently, and verdicts may turn over."


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
