"""The measures of samples, each declared once: what computes it, what it reads and needs, and how each figure is read.

The rule of scores, the report and the tests derive from ``MEASURES``. A new measure is a function that returns rows of
scores, and an entry here.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from regdpo.core.errors import UserError
from regdpo.core.rows import AnswerRow, LatentRow, SampleRow, ScoreRow
from regdpo.core.store import Store
from regdpo.evaluate.suites import DIMENSIONS
from regdpo.models.spec import ModelFile

HELD_OUT_ERROR = "held_out_error"
"""What training itself minimises; it stands beside the primary measure."""


@dataclass(frozen=True)
class Metric:
    """How a metric is read."""

    key: str
    """Its name in results/scores.parquet."""
    label: str
    """Its name for people."""
    unit: str
    """Empty: none."""
    better: Literal[-1, 0, 1]
    """-1 (lower), 1 (higher) or 0: no direction, closer to real footage."""
    decimals: int
    """That are shown of a value."""
    note: str
    """What it is, in short."""
    footage: str = ""
    """Why real footage has no such score; empty where it has."""
    continuation: bool = False
    """Compares with the rest of a real clip, which only a model that is given its first frame was asked for."""


@dataclass(frozen=True)
class Measure:
    """What computes some metrics at once."""

    function: str
    """``module:name``, which takes a ``Given`` and returns rows of scores."""
    metrics: tuple[Metric, ...]
    reads: Literal["samples", "model", "answers"] = "samples"
    """``samples``: the rendered videos of a model, or real footage; ``model``: its weights, and the pairs' latents;
    ``answers``: what people said about the samples of all models, of which the stage `answers` makes it."""
    stage: str = ""
    """The part of the configuration that it reads, a class of ``stage_inputs``; empty: none."""
    packages: tuple[str, ...] = ()
    """Locked packages that shape it."""
    lock: str = "regdpo"
    """The environment that it runs in."""
    gpu: bool = False
    memory: tuple[int, int | None] = (2000, None)
    """MB beside a small base, and beside a checkpoint where that needs more."""
    runtime: int = 60
    """Minutes."""
    there: str = ""
    """``module:name`` of a function that says what of dimensions, an interpreter and a folder of weights is there to be
    run: where that changes, what was measured is stale."""

    @property
    def module(self) -> str:
        """Its code."""
        return self.function.partition(":")[0]

    def call(self) -> Callable[["Given"], list[ScoreRow]]:
        """The function."""
        found: Callable[[Given], list[ScoreRow]] = named(self.function)
        return found


@dataclass(frozen=True)
class Given:
    """What a measure may read; ``Measure.reads`` says which of it is there."""

    store: Store
    device: str  # as `launch.device`
    stage: Any = None  # of the configuration, as `Measure.stage` says
    samples: tuple[SampleRow, ...] = ()
    model: ModelFile | None = None
    latents: tuple[LatentRow, ...] = ()
    answers: tuple[AnswerRow, ...] = ()
    python: str = ""  # interpreter of the environment of a measure that has one of its own
    weights: str = ""  # folder of what such a measure needs


def named(path: str) -> Any:
    """What ``module:name`` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


COMPARED = "compared with base only where rating.comparisons says so"
VBENCH = "vbench_"
"""How the metrics of VBench's dimensions begin."""
DIRECTIONS: dict[str, Literal[1]] = dict.fromkeys(("aesthetic_quality", "imaging_quality", "overall_consistency"), 1)
"""Dimensions of VBench of which more is better by itself; of the others a still, or a storm, is highest."""
ITSELF = "measured against the real footage itself"

MEASURES: dict[str, Measure] = {
    "held_out": Measure(
        "regdpo.evaluate.held_out:measure",
        (
            Metric(
                HELD_OUT_ERROR,
                "Held-out error",
                "MSE",
                -1,
                3,
                "denoising error on fixed noise and timesteps",
                "an error of a model; footage has none",
            ),
        ),
        reads="model",
        stage="ErrorsStage",
        packages=("torch", "diffusers", "peft"),
        gpu=True,
        memory=(3000, 64000),
        runtime=240,
    ),
    "proxies": Measure(
        "regdpo.evaluate.proxies:measure",
        (
            Metric("spectrum", "Spectral distance", "dB", -1, 2, "of detail and motion to the real clip's", ITSELF),
            Metric("psnr", "PSNR", "dB", 1, 2, "to the real continuation", ITSELF, continuation=True),
            Metric("ssim", "SSIM", "", 1, 3, "to the real continuation", ITSELF, continuation=True),
            Metric("motion", "Motion", "0..255", 0, 2, "mean absolute difference of neighbouring frames"),
            Metric("sharpness", "Sharpness", "variance", 0, 0, "of the Laplacian; noise raises it too"),
        ),
        packages=("scikit-image", "opencv-python-headless", "av", "scipy", "numpy"),
    ),
    "vbench": Measure(
        "regdpo.evaluate.vbench_run:measure",
        tuple(
            Metric(f"{VBENCH}{name}", it.label, "VBench", DIRECTIONS.get(name, 0), 4, it.note)
            for name, it in DIMENSIONS.items()
            if it.custom
        ),
        stage="VBenchStage",
        packages=("vbench", "decord", "numpy"),
        lock="vbench",
        gpu=True,
        memory=(3000, 16000),
        runtime=240,
        there="regdpo.evaluate.vbench_run:ready",
    ),
    "people": Measure(
        "regdpo.evaluate.people:measure",
        (
            Metric(
                "people_vq", "People's VQ", "-1..1", 1, 2, "video quality against base: better less worse", COMPARED
            ),
            Metric(
                "people_pf", "People's PF", "-1..1", 1, 2, "prompt following against base: better less worse", COMPARED
            ),
        ),
        reads="answers",
        stage="AnswersStage",
    ),
}
"""Name -> declaration, in the order of the report's columns."""


def metrics(task: str = "") -> dict[str, Metric]:
    """The metrics of all measures, by key; of a task (``base.task``) those that say something of it."""
    every = (metric for measure in MEASURES.values() for metric in measure.metrics)
    return {metric.key: metric for metric in every if not (metric.continuation and task == "t2v")}


def columns(primary: str, task: str, vbench: Collection[str]) -> dict[str, Metric]:
    """``metrics(task)`` with the primary measure (``scores.primary``) first.

    Args:
        vbench: those of VBench's dimensions that are asked for.

    Raises:
        UserError: it is none of them, or has no direction, so that nothing could be better by it.
    """
    asked = {f"{VBENCH}{name}" for name in vbench}
    found = {key: it for key, it in metrics(task).items() if key in asked or not key.startswith(VBENCH)}
    possible = [key for key, metric in found.items() if metric.better]
    if primary not in possible:
        there = f"{', '.join(possible)}, the metrics of {task} that have a direction"
        raise UserError(f"scores.primary: {primary} is none of {there}")
    return {primary: found.pop(primary), **found}
