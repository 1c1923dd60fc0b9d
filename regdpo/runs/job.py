"""What a training is asked to do, as the launcher writes it for the ranks."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, TypeAdapter

from regdpo.config.stage_inputs import TrainStage, TrainVaeStage
from regdpo.config.training import Parallel
from regdpo.core.section import Section
from regdpo.models.spec import ModelFile


class Work(Section):
    """What ``job.json`` of a run folder says of every training."""

    starts: ClassVar[str]
    """``module:function`` that a rank starts it by; what that returns has ``train(lease)``."""
    stage: TrainStage | TrainVaeStage
    model: ModelFile
    store: str
    store_identity: str = ""  # of the store that the workflow uses
    run: str  # folder of checkpoints, logs and, when finished, `export`
    device: str
    checkpoint_every: int
    eval_every: int
    keep: int
    deterministic: bool = False
    but_for_steps: str = ""  # digest of all that shapes it but the number of its steps
    environment: str = ""  # that the launcher sees, and every rank has to


class Job(Work):
    """Of a denoiser."""

    starts: ClassVar = "regdpo.train.trainer:start"
    stage: TrainStage
    latents: str  # the manifest
    parallel: Parallel
    micro_batch: int
    step_flops: dict[str, float] = Field({})  # shape of latents, C,F,H,W -> that a step needs, recomputation left out
    peak_flops: float | None = None  # a second, of one rank's device

    @classmethod
    def read(cls, path: str | Path) -> "Job":
        return cls.model_validate_json(Path(path).read_text())


class VaeJob(Work):
    """Of an autoencoder."""

    starts: ClassVar = "regdpo.train.autoencoder:start"
    stage: TrainVaeStage
    clips: str  # the manifest
    places: str  # the manifest of their splits


def read(path: str | Path) -> Job | VaeJob:
    """A training's work, of either kind."""
    either: TypeAdapter[Job | VaeJob] = TypeAdapter(Job | VaeJob)
    return either.validate_json(Path(path).read_bytes())


class Ran(Section):
    """``ran.json`` of a run folder, of the last start."""

    device: str
    hardware: str = ""  # processor or GPU that the numbers hold for; empty: they are portable
    machine: str = ""  # processor or GPU of the first rank, whether the numbers hold for others too or not
    attention: str
    places: list[str]  # of each rank: machine, GPU, layout


EXPORT = "export"
"""Folder of the trained weights inside a run folder; it is there exactly when the training is finished."""

ERROR = "error.txt"
"""File that a rank leaves its one line in when it stops over a user's mistake."""

RAN = "ran.json"
"""File that says how a training ran, as ``Ran``."""
