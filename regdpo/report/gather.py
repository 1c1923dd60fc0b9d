"""Everything the page stands on but for the videos, read once and checked against each other."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from regdpo.config import schema
from regdpo.core import frames, manifests
from regdpo.core.digests import file_digest
from regdpo.core.environment import locked
from regdpo.core.errors import UserError
from regdpo.core.model_names import BASE, ModelName
from regdpo.core.rows import (
    AnswerRow,
    CaptionRow,
    ClipRow,
    HalfRow,
    ImportedRow,
    NegativeRow,
    PairRow,
    R,
    SampleRow,
    ScoreRow,
)
from regdpo.core.store import Store
from regdpo.models.spec import ModelFile
from regdpo.report.suites import Suite
from regdpo.report.suites import read as read_suite
from regdpo.report.vae import Reconstruction
from regdpo.report.vae import read as read_vae
from regdpo.runs.job import RAN, Ran

SHAPING = (
    "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy", "scipy", "av", "imageio-ffmpeg",
    "opencv-python-headless", "scenedetect-headless", "scikit-image", "scikit-video", "torchx", "snakemake",
    "matplotlib",
)  # fmt: skip
"""Packages whose versions the page names."""

GIVEN = "the pairs of"
"""Before the name of a source whose captions came with its pairs."""
MANIFESTS = ("clips", "captions", "pairs", "halves", "scores", "answers")
"""Those there is one of, in the order in which the page names them."""


@dataclass(frozen=True)
class Run:
    """One training: an arm and a seed, with its curves.

    A row a step, NaN where an objective has no such term; ``skipped`` says of how many pairs it was not finite.
    """

    model: ModelFile
    base: str  # name of the base model that it is of
    metrics: pd.DataFrame
    evals: pd.DataFrame


@dataclass(frozen=True)
class Files:
    """The files the page is made from."""

    clips: Path | None  # none, and neither captions nor negatives, where all pairs are of others
    captions: Path | None
    pairs: Path  # of the first base model, as the halves
    halves: Path
    samples: Sequence[Path]
    scores: Path
    answers: Path
    models: Sequence[Path]
    lock: Path
    negatives: Sequence[Path] = ()  # of each base model
    imports: Sequence[Path] = ()  # pairs that others made
    suites: Sequence[Path] = ()  # totals of VBench's
    vae: Path | None = None  # what autoencoders gave back of clips


@dataclass(frozen=True)
class Inputs:
    """Their content. Arms come in the configuration's order, and below an arm its base models and training seeds."""

    config: schema.Config
    shown_config: dict[str, Any]
    store: Store
    cut: pd.DataFrame  # status and reason of what was cut of the footage
    clips: dict[str, ClipRow]  # these, and the winners that others chose
    captions: dict[str, CaptionRow]
    negatives: dict[str, list[NegativeRow]]  # by base model
    pairs: list[PairRow]  # of the first base model, as the halves
    halves: list[HalfRow]
    samples: list[SampleRow]
    scores: list[ScoreRow]
    answers: list[AnswerRow]  # of people, about these samples
    bases: dict[str, ModelFile]  # by name, in the configuration's order
    runs: list[Run]
    machines: dict[str, str]  # model -> processor or GPU that it was trained on, where that was kept
    digests: dict[str, tuple[str, int]]  # manifest -> SHA-256, and rows
    packages: dict[str, str]  # name -> locked version
    votes: list[tuple[str, str]] = field(default_factory=list)  # source of labels, and what raters said of a video
    suites: list[Suite] = field(default_factory=list)  # of VBench
    vae: Reconstruction | None = None  # of held-out clips

    @property
    def arms(self) -> dict[str, list[Run]]:
        """Arm, or ARM.N of an arm that is a chain -> its trainings."""
        of = {link: [run for run in self.runs if run.model.arm == link] for link in self.config.train.links}
        return {link: runs for link, runs in of.items() if runs}

    @property
    def base(self) -> ModelFile:
        """The first base model."""
        return next(iter(self.bases.values()))

    @property
    def held_out(self) -> list[str]:
        """Clips that a base was sampled on, in the order of the footage."""
        chosen = {row.clip_id for row in self.samples if row.model in self.bases}
        return sorted(chosen, key=lambda clip: position(self.clips[clip]))


def position(clip: ClipRow) -> tuple[str, int, int, int, int, str]:
    """Where a clip lies in the footage, to order by."""
    return clip.source, clip.shot, clip.start, clip.crop_y, clip.crop_x, clip.clip_id


def gather(values: dict[str, Any], store: Store, files: Files) -> Inputs:
    """Read and check all inputs.

    Raises:
        UserError: a file is missing or damaged, or the files are not of one configuration.
    """
    settings = schema.check(values, "--config")
    models = {path: ModelFile.read(path) for path in files.models}
    bases = {model.name: model for model in models.values() if not model.arm}
    wanted = [f"{of}{BASE}" for of in settings.base.folders]
    if sorted(bases) != sorted(wanted) or len(bases) < sum(not model.arm for model in models.values()):
        raise UserError(
            f"--models: {len(bases)} of the model files are a base model; give exactly {', '.join(wanted)}, "
            "and the arms"
        )
    for path, model in models.items():
        if model.arm and model.arm not in settings.train.links:
            raise UserError(f"{path}: arm {model.arm} is not in train.arms; make the report with its configuration")
        if model.arm and (base := base_of(model.name)) not in bases:
            raise UserError(f"{path}: was trained on {base}; make the report with its configuration (base.seeds)")
    if len(models) == len(bases):
        raise UserError("--models: no arm was trained; give the model files of the arms beside the base's")
    order = list(settings.train.links)
    trained = sorted(
        (m for m in models.values() if m.arm),
        key=lambda m: (order.index(m.arm), wanted.index(base_of(m.name)), m.seed),
    )
    cut = frames.read(files.clips, ClipRow, ["status", "reason"])
    cut["reason"] = cut["reason"].map({reason: without_folders(reason) for reason in cut["reason"].unique()})
    imported = [row for path in files.imports for row in manifests.read(path, ImportedRow)]
    clips = {row.clip_id: row for row in [*_read(files.clips, ClipRow), *(row.clip() for row in imported)]}
    captions = {row.clip_id: _relative(row, "captioner") for row in _read(files.captions, CaptionRow)}
    captions |= {
        row.pair_id: CaptionRow(clip_id=row.pair_id, caption=row.caption, captioner=f"{GIVEN} {row.origin}")
        for row in imported
    }
    samples = {path: manifests.read(path, SampleRow) for path in files.samples}
    for path, rows in samples.items():
        if not rows:
            raise UserError(f"{path}: holds no samples; is samples.split empty?")
    pairs = manifests.read(files.pairs, PairRow)
    chosen = [pair for pair in pairs if pair.origin in settings.pairs.ranked]
    clips |= {pair.clip_id: _winner(pair) for pair in chosen}
    captions |= {
        pair.clip_id: CaptionRow(
            clip_id=pair.clip_id,
            caption=pair.caption,
            captioner=f"prompts of {pair.origin}" if settings.pairs.ranked[pair.origin].prompts else "",
        )
        for pair in chosen
    }
    every_sample = [row for rows in samples.values() for row in rows]
    for what, used in (("pair", pairs), ("sample", every_sample)):
        for row in used:
            if row.clip_id not in clips:
                raise UserError(
                    f"{files.clips or 'the imports'}: lacks clip {row.clip_id} of {what} {row.key}; make them again"
                )
    named = {name: path for name in MANIFESTS if (path := getattr(files, name))}
    if len(files.negatives) not in (0, len(wanted)):
        raise UserError(
            f"--negatives: {len(files.negatives)} manifests for {len(wanted)} base models; give one of each"
        )
    negatives = dict(zip(wanted, files.negatives, strict=False))
    named |= {f"{ModelName.parse(base).of}negatives": path for base, path in negatives.items()}
    named |= {f"{path.parent.name}, part {path.stem}": path for path in files.imports}
    return Inputs(
        config=settings,
        shown_config=without_folders(values),
        store=store,
        cut=cut,
        clips=clips,
        captions=captions,
        negatives={base: manifests.read(path, NegativeRow) for base, path in negatives.items()},
        pairs=pairs,
        votes=[(row.origin, row.votes) for row in imported if row.votes],
        halves=_halves(files.halves, pairs),
        samples=every_sample,
        scores=[_relative(row, "missing") for row in manifests.read(files.scores, ScoreRow)],
        answers=manifests.read(files.answers, AnswerRow),
        bases={name: bases[name] for name in wanted},
        runs=[_run(model, store) for model in trained],
        machines={model.name: _machine(model, store) for model in models.values()},
        digests={name: _digest(path) for name, path in named.items()}
        | {f"samples of {rows[0].model}": _digest(path) for path, rows in samples.items()},
        packages=_pinned(files.lock),
        suites=[read_suite(path) for path in files.suites],
        vae=read_vae(files.vae) if files.vae else None,
    )


def _read(path: Path | None, model: type[R]) -> list[R]:
    return manifests.read(path, model) if path else []


def _halves(path: Path, pairs: list[PairRow]) -> list[HalfRow]:
    rows = manifests.read(path, HalfRow)
    measured = {(row.pair_id, row.half): row.sha256 for row in rows}
    by_id = {pair.pair_id: pair for pair in pairs}
    for name in sorted({row.pair_id for row in rows}):
        pair, found = by_id.get(name), (measured.get((name, "winner")), measured.get((name, "loser")))
        if pair is None or found != (pair.winner_sha256, pair.loser_sha256):
            raise UserError(f"{path}: holds other halves of pair {name} than the manifest of pairs; measure them again")
    return rows


def _digest(path: Path) -> tuple[str, int]:
    try:
        return file_digest(path), pq.read_metadata(path).num_rows
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _winner(pair: PairRow) -> ClipRow:
    """The winner of a pair that was chosen by score, which is no clip of the footage."""
    return ClipRow(
        clip_id=pair.clip_id,
        status="accepted",
        source=pair.source,
        source_digest="",
        shot=pair.shot,
        start=pair.start,
        frames=pair.frames,
        fps=pair.fps,
        width=pair.width,
        height=pair.height,
        path=pair.winner,
        sha256=pair.winner_sha256,
    )


def _relative(row: R, field: str) -> R:
    """The row with a text for people freed of absolute paths."""
    return row.model_copy(update={field: without_folders(getattr(row, field))})


def _run(model: ModelFile, store: Store) -> Run:
    folder = store.existing(model.run)
    return Run(model, base_of(model.name), _lines(folder / "metrics.jsonl"), _lines(folder / "eval.jsonl"))


def _machine(model: ModelFile, store: Store) -> str:
    ran = f"{model.run}/{RAN}"
    return Ran.model_validate_json(store.existing(ran).read_text()).machine if model.run and store.has(ran) else ""


def base_of(model: str) -> str:
    """Name of the base model that a model is, or was trained on."""
    return f"{ModelName.parse(model).of}{BASE}"


def _lines(path: Path) -> pd.DataFrame:
    rows = []
    try:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            try:
                row = json.loads(line)
                if "skipped" in row:  # the pairs that were not finite
                    row["skipped"] = len(row["skipped"])
                rows.append({key: float(value) for key, value in row.items() if value is not None})
            except (ValueError, TypeError, AttributeError):
                raise UserError(f"{path}, line {number}: is not an object of numbers; train this arm again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); train this arm again") from None
    return pd.DataFrame(rows)


def _pinned(lock: Path) -> dict[str, str]:
    """What shapes results, as the lock and the .in file beside it pin it (torch is not in the lock)."""
    versions = locked(lock.with_suffix(".in"), lock, here=True)
    return {name: versions[name] for name in SHAPING if versions.get(name)}


def without_folders(value: Any) -> Any:
    """The same values with absolute paths cut to their last part: where a machine keeps things is not the page's."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    return f"…/{Path(value).name}" if value.startswith(("/", "~")) else re.sub(r"(?<![\w.…])/([^\s/]+/)+", "…/", value)
