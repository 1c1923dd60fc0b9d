"""What a configuration costs in GPU-hours, stage by stage, as far as FLOPs tell; as Markdown."""

import math
from dataclasses import dataclass, replace

from regdpo.config import Config, Sampling
from regdpo.errors import UserError
from regdpo.plan import trace
from regdpo.plan.architecture import Architecture
from regdpo.plan.layouts import Estimate, Machine, estimate, estimates, impossible
from regdpo.plan.memory import GIB, Training
from regdpo.plan.table import assumptions
from regdpo.train.loop import EVAL_PAIRS
from regdpo.train.passes import EVAL_SIGMAS

HOUR = 3600.0
NOT_COUNTED = (
    "Not counted: captions, the VAE and text encoder (latents; the last step of every video), VBench, loading of models, "
    "checkpoints, talk between ranks, waiting in the queue, what a failure repeats."
)


@dataclass(frozen=True)
class Job:
    """A Slurm job of a training."""

    hours: float  # its time limit
    leave: float  # seconds before it at which a training saves and leaves

    @property
    def seconds(self) -> float:
        """In which it trains; loading is not known."""
        return HOUR * self.hours - min(self.leave, HOUR * self.hours / 2)


@dataclass(frozen=True)
class Count:
    """Clips by what becomes of them."""

    clips: int
    validation: int
    sampled: int  # of the split that samples are made of

    @classmethod
    def of(cls, settings: Config, pairs: int) -> "Count":
        """From so many training pairs and the shares of the splits."""
        shares = settings.pairs
        clips = math.ceil(pairs / settings.negatives.per_clip / (1 - shares.validation - shares.test))
        validation, test = round(clips * shares.validation), round(clips * shares.test)
        held_out = validation if settings.samples.split == "validation" else test
        return cls(clips, validation, min(held_out, settings.samples.limit or held_out))


def forward_flops(architecture: Architecture, size: tuple[int, int, int]) -> float:
    """Of one pass over one clip of that many frames, height and width, without adapters."""
    _, frames, height, width = architecture.latent_shape(*size)
    passes = trace.Pass(architecture, height, width, None, trace.torch.bfloat16)
    return trace.flops(passes, frames).forward


def chosen(training: Training, machine: Machine) -> tuple[Estimate, bool]:
    """The configured layout if that can be and fits, else the fastest that does; and whether it is the configured one.

    Raises:
        UserError: none fits.
    """
    own = training.settings.parallel
    if impossible(training, own) is None and (it := estimate(training, own, machine)).fits:
        return it, True
    best = next(iter(estimates(training, machine)), None)
    if best is None or not best.fits:
        raise UserError(f"--gpus: no layout of {training.ranks} ranks fits; `plan.py` without --cost shows by how much")
    return best, False


def seconds(settings: Config, key: str, it: Estimate, count: Count, forward: float, machine: Machine, ranks: int) -> float:
    """Of a whole training, evaluations included."""
    training, losers = settings.trainings()[key]
    pairs = min(count.validation, EVAL_PAIRS)
    times = math.ceil(training.steps / training.eval_every) + (1 if losers else 0)  # the reference once
    asked = times * pairs * EVAL_SIGMAS * (2 if losers else 1) * forward
    return training.steps * (it.seconds + it.seconds_before) + asked / (ranks * machine.peak_flops * machine.mfu)
