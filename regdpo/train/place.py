"""Where the ranks of a training are, and whether its run folder is still theirs."""

import os
import resource
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from regdpo.core.errors import UserError
from regdpo.core.temporaries import atomic
from regdpo.models.device import hardware, machine
from regdpo.runs.job import RAN, Ran
from regdpo.runtime.lease import Lease
from regdpo.runtime.slurm import node_name


def note(run: Path, device: torch.device, attention: str = "", part: str = "") -> None:
    """Every rank says where it is; the first keeps it.

    Args:
        part: of the work that is this rank's.
    """
    ranks, rank = dist.get_world_size(), dist.get_rank()
    place = f"rank {rank} of {ranks} on {node_name()}, {_gpu(device)}{part and f', {part}'}"
    print(place, file=sys.stderr, flush=True)
    placements = [""] * ranks
    dist.all_gather_object(placements, place)
    if rank == 0:
        with atomic(run / RAN) as temporary:
            ran = Ran(
                device=device.type,
                hardware=hardware(device),
                machine=machine(device),
                attention=attention,
                places=placements,
            )
            temporary.write_text(ran.model_dump_json(indent=2))


def _gpu(device: torch.device) -> str:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    of = f" (of {given})" if given else ""
    return (
        f"GPU {device.index}{of} {torch.cuda.get_device_name(device)}"
        if device.type == "cuda"
        else f"CPU{of and f' (GPUs {given} not used)'}"
    )


def peak_memory(device: torch.device) -> int:
    """The most bytes of all ranks: of the device since its count began, or of the process without one."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    most = torch.tensor(peak, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def still_mine(lease: Lease | None) -> None:
    """Before anything is written that another training would read.

    Raises:
        UserError: this process was suspended, and another one took over.
    """
    if lease and not lease.mine():
        raise UserError(f"{lease.path.parents[1]}: another process took over while this one was suspended; it leaves")
