"""The section of the configuration for how ranks are started."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from regdpo.core.section import Count, Positive, Section
from regdpo.runtime.gpu_specs import GPUS, gpu_named


class Launch(Section):
    """How torchx starts the ranks. It shapes no result."""

    scheduler: Literal["auto", "local_cwd", "slurm"] = Field(
        "auto",
        description="How torchx starts the ranks. `auto`: where the job is, on one machine or on all machines of its "
        "Slurm allocation. `local_cwd`: on this machine. `slurm`: torchx's own Slurm scheduler, from a local rule.",
    )
    processes: Count = Field(1, description="Ranks of a training: one per GPU, or processes on gloo without GPUs.")
    nodes: Count = Field(1, description="Machines that the ranks of a training are spread over, evenly.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto`: cuda where there is one.")
    grace: Positive = Field(60, description="Seconds that ranks have to save and leave once they are asked to.")
    leave: Positive = Field(
        300, description="Seconds before the time limit of its Slurm job at which a training saves and leaves."
    )
    requeues: int = Field(
        20, ge=0, description="Times that a Slurm job whose time limit came goes back into the queue, to go on."
    )
    gpu: str | None = Field(
        None,
        description="Name of the GPUs that train, render and encode (table in regdpo/runtime/gpu_specs.py), so that "
        "the plan is asked before the first job; empty: it is not.",
    )
    force: bool = Field(False, description="Start even if the plan says that it does not fit.")

    @field_validator("gpu")
    @classmethod
    def _gpu_is_known(cls, name: str | None) -> str | None:
        if name is not None and gpu_named(name) is None:
            raise ValueError(f"there is no such GPU in regdpo/runtime/gpu_specs.py; there are {', '.join(GPUS)}")
        return name

    @model_validator(mode="after")
    def _ranks_spread_evenly(self) -> Self:
        if self.processes % self.nodes:
            raise ValueError(f"`nodes` {self.nodes} does not divide `processes` {self.processes}")
        return self
