"""The measures of samples, each declared once: what computes it, what it reads and needs, and how each figure is read.

The rule of scores, the report and the tests derive from ``MEASURES``. A new measure is a function that returns rows of
scores, and an entry here.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from regdpo.config.evaluation import Scores
from regdpo.core.errors import UserError
from regdpo.core.rows import AnswerRow, LatentRow, PairRow, SampleRow, ScoreRow
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
    on: str = ""
    """Key of the section of ``scores`` that turns it on, and that it reads unless it has a ``stage``; empty: it is
    always on."""
    captions: bool = False
    """Whether it reads what the samples were to show."""
    packages: tuple[str, ...] = ()
    """Locked packages that shape it."""
    lock: str = "regdpo"
    """The lock that has its packages beside those of all."""
    environment: Literal["", "captioning"] = ""
    """Where it runs, if that is another than the workflow's own."""
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
    pairs: Mapping[str, PairRow] = field(default_factory=dict)  # of a clip: its caption and rate, where `captions` asks


def named(path: str) -> Any:
    """What ``module:name`` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


COMPARED = "compared with base only where rating.comparisons says so"
VBENCH = "vbench_"
"""How the metrics of VBench's dimensions begin."""
DIRECTIONS: dict[str, Literal[1]] = dict.fromkeys(("aesthetic_quality", "imaging_quality", "overall_consistency"), 1)
"""Dimensions of VBench of which more is better by itself; of the others a still, or a storm, is highest."""
OMNISCORE = "omniscore"
ITSELF = "measured against the real footage itself"

TRANSFORMERS = ("torch", "transformers", "tokenizers", "numpy", "av")

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
    "frechet": Measure(
        "regdpo.evaluate.frechet:measure",
        (
            Metric("frechet", "Fréchet distance", "squared", -1, 3, "of all samples to all real clips", ITSELF),
            Metric("frechet_bias", "its bias", "squared", 0, 3, "that so few clips would add; it is taken out", ITSELF),
        ),
        on="frechet",
        packages=("torch", "transformers", "numpy", "av"),
        gpu=True,
        memory=(3000, 8000),
    ),
    "clip_score": Measure(
        "regdpo.evaluate.text_image:clip_score",
        (Metric("clip_score", "CLIP score", "0..100", 1, 2, "of frames and their prompt; a proxy"),),
        on="clip_score",
        captions=True,
        packages=TRANSFORMERS,
        gpu=True,
        memory=(4000, 8000),
    ),
    "pick_score": Measure(
        "regdpo.evaluate.text_image:pick_score",
        (Metric("pick_score", "PickScore", "", 1, 2, "mean over frames; a proxy of what people prefer"),),
        on="pick_score",
        captions=True,
        packages=TRANSFORMERS,
        gpu=True,
        memory=(8000, 12000),
    ),
    "hps": Measure(
        "regdpo.evaluate.text_image:hps",
        (Metric("hps", "HPS v2", "0..100", 1, 2, "mean over frames; a proxy of what people prefer"),),
        on="hps",
        captions=True,
        packages=TRANSFORMERS,
        gpu=True,
        memory=(8000, 12000),
    ),
    "hps3": Measure(
        "regdpo.evaluate.rewards:hps3",
        (Metric("hps3", "HPS v3", "", 1, 2, "mean over frames; a proxy of what people prefer"),),
        on="hps3",
        captions=True,
        packages=TRANSFORMERS,
        environment="captioning",
        gpu=True,
        memory=(40000, 40000),
        runtime=240,
    ),
    "video_score2": Measure(
        "regdpo.evaluate.video_score:measure",
        (
            Metric("video_score2_visual", "VideoScore2, visual", "1..5", 1, 2, "a proxy of people's VQ"),
            Metric("video_score2_text", "VideoScore2, text", "1..5", 1, 2, "a proxy of people's PF"),
            Metric("video_score2_physical", "VideoScore2, physical", "1..5", 1, 2, "common sense; a proxy"),
        ),
        on="video_score2",
        captions=True,
        packages=TRANSFORMERS,
        environment="captioning",
        gpu=True,
        memory=(40000, 40000),
        runtime=480,
    ),
    "video_reward": Measure(
        "regdpo.evaluate.rewards:video_reward",
        (
            Metric("video_reward_vq", "VideoReward VQ", "", 1, 2, "a proxy of people's VQ"),
            Metric("video_reward_mq", "VideoReward MQ", "", 1, 2, "motion quality; a proxy"),
            Metric("video_reward_ta", "VideoReward TA", "", 1, 2, "text alignment: a proxy of people's PF"),
        ),
        on="video_reward",
        captions=True,
        packages=TRANSFORMERS,
        environment="captioning",
        gpu=True,
        memory=(16000, 16000),
        runtime=240,
    ),
    "vbench": Measure(
        "regdpo.evaluate.vbench_run:measure",
        (
            *(
                Metric(f"{VBENCH}{name}", it.label, "VBench", DIRECTIONS.get(name, 0), 4, it.note)
                for name, it in DIMENSIONS.items()
                if it.custom
            ),
            Metric(OMNISCORE, "OmniScore", "%", 1, 2, "VBench's quality and overall consistency in one, ours"),
        ),
        on="vbench",
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


def asked(on: Collection[str]) -> dict[str, Measure]:
    """The measures that are made.

    Args:
        on: keys of the sections of ``scores`` that turn one on (``Scores.on``).
    """
    return {name: it for name, it in MEASURES.items() if not it.on or it.on in on}


def measures_of(key: str, wanted: Collection[str], on: Collection[str], task: str) -> list[str]:
    """The measures that make metrics by which videos are chosen.

    Args:
        key: of the configuration, for the message. wanted: metrics. on: as of ``asked``. task: of the base.

    Raises:
        UserError: one is none, is not of single videos, or its measure is off.
    """
    there = {
        metric.key: name
        for name, it in asked(on).items()
        for metric in it.metrics
        if it.reads == "samples" and it.on != "frechet" and not (metric.continuation and task == "t2v")
    }
    for name in wanted:
        if name not in there:
            raise UserError(
                f"{key}: {name} is no metric of single videos that is measured; there are {', '.join(sorted(there))}"
                " (others are turned on by their sections of `scores`)"
            )
    return list(dict.fromkeys(there[name] for name in wanted))


def metrics(task: str = "") -> dict[str, Metric]:
    """The metrics of all measures, by key; of a task (``base.task``) those that say something of it."""
    every = (metric for measure in MEASURES.values() for metric in measure.metrics)
    return {metric.key: metric for metric in every if not (metric.continuation and task == "t2v")}


def columns(scores: Scores, task: str) -> dict[str, Metric]:
    """The metrics that are measured, the primary one (``scores.primary``) first.

    Args:
        vbench: those of VBench's dimensions that are asked for.

    Raises:
        UserError: it is none of them, or has no direction, so that nothing could be better by it.
    """
    here = {metric.key for measure in asked(scores.on).values() for metric in measure.metrics}
    here -= {f"{VBENCH}{name}" for name in DIMENSIONS} - {f"{VBENCH}{name}" for name in scores.vbench.measured}
    here -= set() if scores.omniscore else {OMNISCORE}
    found = {key: it for key, it in metrics(task).items() if key in here}
    possible = [key for key, metric in found.items() if metric.better]
    primary = scores.primary
    if primary not in possible:
        measure = next((it for it in MEASURES.values() if primary in {metric.key for metric in it.metrics}), None)
        off = (
            f"; it is measured where scores.{measure.on} is given"
            if measure and measure.on and primary not in here
            else ""
        )
        there = f"{', '.join(possible)}, the metrics of {task} that have a direction"
        raise UserError(f"scores.primary: {primary} is none of {there}{off}")
    return {primary: found.pop(primary), **found}
