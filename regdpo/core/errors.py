"""A user's mistake is one line and exit code 2; a full disk, Ctrl-C and a stopped training get the same care."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_UNFINISHED = os.EX_TEMPFAIL  # 75: nothing is wrong, the same command goes on later


REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of a file system that may not be written to, or not be read."""


class UserError(Exception):
    """What is wrong, where, and what to do about it, as one line for the reader."""


class Unfinished(Exception):
    """A training left before its end because it was asked to, as one line for the reader."""


def run(main: Callable[[], int | None]) -> None:
    """Call a command's ``main`` and leave with its exit code; turn foreseeable failures into one line.

    Raises:
        SystemExit: always. 0 or what ``main`` returned; 2 for a user's mistake; 75 for a training that was asked
            to stop; 130 after Ctrl-C.
    """
    sys.unraisablehook = _unraisable
    try:
        code = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except Unfinished as left:
        print(left, file=sys.stderr)
        code = EXIT_UNFINISHED
    except KeyboardInterrupt:
        print("interrupted: finished items are kept, the same command goes on from there", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except Exception as error:
        if is_disk_full(error):
            line = disk_full(getattr(error, "filename", None))
        elif isinstance(error, OSError) and error.errno in REFUSED:
            line = refused(error)
        else:
            raise
        print(f"error: {line}", file=sys.stderr)
        code = EXIT_USER_ERROR
    sys.exit(code)


def _unraisable(what: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C that Python would pass over, since it came within a destructor or a callback of fork, comes once more."""
    if issubclass(what.exc_type, KeyboardInterrupt):
        again = threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(what)


def first_line(error: BaseException) -> str:
    """What an error of some library says, cut to one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def refused(error: OSError) -> str:
    """One line for a file or folder that may not be used."""
    return (
        f"{error.filename or 'a file'}: may not be read or written ({error.strerror}); change its rights, or point "
        "`paths` elsewhere, then give the same command again"
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk or quota is full. safetensors and torch's checkpoints tell it in their text alone."""
    known = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return known or os.strerror(errno.ENOSPC) in str(error)


def disk_full(path: str | None = None) -> str:
    """One line for a disk or quota that is full."""
    where = f" while writing {path}" if path else ""
    return (
        f"no space left on the device{where}: free some or point `paths` elsewhere, "
        "then give the same command again (nothing half-written is kept, finished items are)"
    )
