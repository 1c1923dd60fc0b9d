"""Devices: of a stage that runs in one process, and which of a machine's GPUs a process has.

Snakemake counts the GPUs that its jobs use at once on a machine; it tells no job which are its own.
"""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import torch
from filelock import FileLock, Timeout

from regdpo.errors import UserError, first_line

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""By their names in the configuration."""
NO_GPU = ("No CUDA GPUs are available", "Found no NVIDIA driver")
"""What torch says of a machine without any, or with none for this process."""
_TO_THE_END = ExitStack()
"""Of the process."""


def pick() -> torch.device:
    """A GPU of its own where there are any and ``launch.device`` allows it (the workflow says so by the environment),
    else the CPU with one thread, whose results do not depend on how many cores a machine has."""
    if os.environ.get("REGDPO_DEVICE", "auto") != "cpu" and gpus_work():
        (number,) = _TO_THE_END.enter_context(taken(1))
        torch.cuda.set_device(number)
        return torch.device("cuda", number)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    return torch.device("cpu")


def gpus_work() -> bool:
    """Whether there are GPUs for this process; not so with a torch without CUDA.

    Raises:
        UserError: there are, and they cannot be used, as with a driver that is older than torch's CUDA.
    """
    if torch.cuda.is_available():
        return True
    if torch.version.cuda is None:
        return False
    try:
        torch.cuda.init()
    except RuntimeError as error:
        reason = first_line(error)
        if any(none in reason for none in NO_GPU):
            return False
        raise UserError(
            f"the GPUs of {socket.gethostname()} cannot be used: {reason} (torch {torch.__version__} is built for CUDA "
            f"{torch.version.cuda}); mend that, or set launch.device: cpu"
        ) from None
    return True


def compute_dtype(device: torch.device) -> torch.dtype:
    """What models that are not trained run in: bf16 on a GPU, fp32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def visible() -> list[str]:
    """The GPUs that this process may use, by their names in CUDA_VISIBLE_DEVICES."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


@contextmanager
def taken(count: int) -> Iterator[list[int]]:
    """Their numbers among the visible ones. Until the context or the process ends, however it does, none of our user's
    others gets them so; where all are taken, wait.

    Raises:
        UserError: there are not that many; somebody else's folder is where the locks should be.
    """
    names = visible()
    if len(names) < count:
        raise UserError(f"{count} GPUs are wanted and {len(names)} are here")
    # Jobs of Slurm may call different GPUs by the same number, and share none.
    folder = Path(tempfile.gettempdir()) / f"regdpo-gpus-{os.getuid()}-{os.environ.get('SLURM_JOB_ID', '')}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise UserError(f"{folder}: belongs to somebody else; remove it, or set TMPDIR")
    said = False
    while True:
        with ExitStack() as stack:
            got: list[int] = []
            for number, name in enumerate(names):
                if len(got) == count:
                    break
                with suppress(Timeout):
                    stack.enter_context(FileLock(folder / quote(name, safe="")).acquire(blocking=False))
                    got.append(number)
            if len(got) == count:
                yield got
                return
        if not said:
            said = True
            print(f"waiting for {count} of {len(names)} GPUs: other jobs have them", file=sys.stderr, flush=True)
        time.sleep(1)
