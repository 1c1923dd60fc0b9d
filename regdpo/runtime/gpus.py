"""The GPUs of this machine, and which of them a process has.

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

from filelock import FileLock, Timeout

from regdpo.core.errors import UserError, first_line

NO_GPU = ("No CUDA GPUs are available", "Found no NVIDIA driver")
"""What torch says of a machine without any, or with none for this process."""


def gpus_work() -> bool:
    """Whether there are GPUs for this process; not so with a torch without CUDA.

    Raises:
        UserError: there are, and they cannot be used, as with a driver that is older than torch's CUDA.
    """
    import torch  # here, since who does not ask for GPUs should not wait for it

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


def visible() -> list[str]:
    """The GPUs that this process may use, by their names in CUDA_VISIBLE_DEVICES."""
    import torch

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
