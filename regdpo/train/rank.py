"""A rank's life: ``python -m regdpo.train.rank JOB.json``, started by torchx."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.elastic.multiprocessing.errors import record

from regdpo.core.environment import check_environment
from regdpo.core.errors import EXIT_USER_ERROR, UserError, disk_full, is_disk_full
from regdpo.core.processes import die_with_parent
from regdpo.models.device import cpu
from regdpo.runs import rendezvous
from regdpo.runs.job import ERROR, Work, read
from regdpo.runtime.gpus import gpus_work
from regdpo.runtime.lease import Lease
from regdpo.runtime.slurm import node_name

TIMEOUT = timedelta(hours=2)  # ranks wait for the first while it writes a whole model


@record
def main() -> None:
    """A rank's life. A user's mistake is left as one line in the run folder and exit code 2."""
    die_with_parent()
    job = read(sys.argv[1])
    start = starts(job)
    lease = None
    try:
        check_environment(job.environment)
        cuda = (job.device != "cpu" and gpus_work()) or job.device == "cuda"
    except UserError as error:
        _leave(job, None, str(error))
    if cuda and torch.cuda.device_count() <= (local := int(os.environ["LOCAL_RANK"])):
        _leave(
            job,
            None,
            f"launch.processes: {node_name()} has {torch.cuda.device_count()} GPUs and a rank {local}; one GPU a rank",
        )
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, store=rendezvous.store(), rank=rank, world_size=ranks, timeout=TIMEOUT)
    device = torch.device("cuda", dist.get_node_local_rank()) if cuda else cpu()
    if cuda:
        torch.cuda.set_device(device)
        if job.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")  # we add out of place
    # Of split blocks, whose gradients' norm is summed over both dimensions of the mesh, one after the other.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    try:
        if dist.get_rank() == 0:
            lease = _lease(Path(job.run))
        start(job, device).train(lease)
    except UserError as error:
        _leave(job, lease, str(error))
    except (Exception, CheckpointException) as error:
        if not is_disk_full(error):
            raise
        _leave(job, lease, disk_full(getattr(error, "filename", None) or job.run))
    if lease:
        lease.release()
    dist.destroy_process_group()


def _lease(run: Path) -> Lease:
    """The run folder's lease, or the end: nothing is written into a folder that is another's."""
    try:
        return Lease.acquire(run)
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(EXIT_USER_ERROR)


def starts(job: Work) -> Callable[[Any, torch.device], Any]:
    """What trains it: chosen here by name, so that no training is stale for the code of another kind."""
    module, _, name = job.starts.partition(":")
    function: Callable[[Any, torch.device], Any] = getattr(import_module(module), name)
    return function


def _leave(job: Work, lease: Lease | None, line: str) -> NoReturn:
    print(line, file=sys.stderr, flush=True)
    with suppress(OSError):  # of a full disk; the line was said
        Path(job.run, ERROR).write_text(line)
        if lease:
            lease.release()
    os._exit(EXIT_USER_ERROR)  # the other ranks may wait in a collective, which an orderly exit would join


if __name__ == "__main__":
    main()
