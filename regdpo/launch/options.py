"""How a training runs: what its rule passes to the launcher, none of which shapes the result."""

from dataclasses import dataclass

from pydantic import Field

from regdpo.config.training import Parallel
from regdpo.core.section import Positive, Section


@dataclass(frozen=True)
class Shape:
    """How many ranks, where, and what a machine of them asks a scheduler for."""

    nodes: int
    each: int  # ranks a machine
    cpus: int = 1
    gpus: int = 0
    mem_mb: int = 0
    runtime: int = 0  # minutes
    partition: str = ""
    constraint: str = ""


class LaunchOptions(Section):
    """How a training runs, as rules/train.smk passes it. None of it shapes the result."""

    scheduler: str = "auto"
    processes: int = 1
    nodes: int = 1
    device: str = "auto"
    parallel: Parallel = Parallel()
    micro_batch: int = 1
    checkpoint_every: int = 100
    eval_every: int = 100
    keep: int = 2
    deterministic: bool = False
    grace: Positive = 60
    """Seconds that ranks have to save and leave once they are asked to."""
    leave: Positive = 300
    """Seconds before the end of a Slurm job at which they are asked; at most half of the time that it has."""
    requeues: int = 20
    cpus: int = 1
    """With the five after it what a Slurm job of torchx asks for, of each machine."""
    gpus: int = 0
    mem_mb: int = 0
    runtime: int = 0
    """Minutes."""
    partition: str = ""
    constraint: str = ""
    sizes: list[tuple[int, int, int]] = Field([])
    """Frames, height and width of the clips, for the plan; none where they are not known."""
    comment: str = ""
    """Of a Slurm job of torchx."""
    events: str = ""
    """File that it is recorded in, for programs, which jobs were submitted; empty: in the run folder."""
    force: bool = False
    """Start even if the plan says that it does not fit."""

    @property
    def shape(self) -> Shape:
        each = self.processes // self.nodes
        asked = (self.cpus, self.gpus, self.mem_mb, self.runtime, self.partition, self.constraint)
        return Shape(self.nodes, each, *asked)
