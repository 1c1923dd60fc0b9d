"""Processes: which of them live, and the programs that the package starts, which end with it and are bounded in what
they may take of the machine."""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone, however that ended."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def bounded(memory_mb: int | None = None) -> Callable[[], None]:
    """For ``preexec_fn`` of subprocess: the program dies with the thread that starts it, writes no core file, and gets
    no more main memory than said.

    Args:
        memory_mb: of data that the program alone holds (RLIMIT_DATA), in MB; None: no bound.
    """
    parent = os.getpid()

    def prepare() -> None:
        die_with_parent()
        if os.getppid() != parent:  # gone before the kernel was asked
            os._exit(1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_mb is not None:
            soft, hard = memory_mb * 10**6, resource.getrlimit(resource.RLIMIT_DATA)[1]
            if hard == resource.RLIM_INFINITY or soft < hard:
                resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

    return prepare


def place() -> str:
    """Boot and PID namespace: where the number of a process means something."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def started(process: int) -> int | None:
    """When a process was started, in clock ticks since boot; nothing if it is not there or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()  # from the state, field 3, on
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
