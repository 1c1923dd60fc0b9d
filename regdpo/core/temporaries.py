"""What is written under a name of its own and renamed when it is whole.

A temporary's name tells which process writes it, so that what a killed one has left is known for that and removed by
whoever writes there next: at once on the same machine, else when nothing has changed in it for a day.
"""

import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from regdpo.core.errors import UserError, is_disk_full
from regdpo.core.processes import place, started

ABANDONED = 24 * 3600.0
"""Seconds after which no process of another machine writes to a temporary any more."""
_NAME = re.compile(r"\.([0-9a-f]{8})-([0-9]+)-([0-9]+)-[0-9a-f]{8}(\.\w+)?")
_swept: set[Path] = set()


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path of the same suffix beside ``path`` for a file or folder; rename it into place afterwards.

    On any error, and on Ctrl-C, the temporary is removed and nothing appears under the final name. A folder that
    another process has put there meanwhile stays.

    Raises:
        OSError: ENOSPC with the final name, where a library tells less of a full disk.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    sweep(final.parent)
    temporary = temporary_of(final)
    try:
        yield temporary
        if not (temporary.is_dir() and final.exists()):
            os.replace(temporary, final)
    except Exception as error:
        if is_disk_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(final)) from error
        raise
    finally:
        _remove(temporary)


@contextmanager
def scratch(home: Path | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards, of this machine or where it is told."""
    home = home or Path(tempfile.gettempdir())
    sweep(home)
    folder = temporary_of(home / "scratch")
    folder.mkdir(0o700)
    try:
        yield folder
    finally:
        _remove(folder)


def check_writable(folder: Path) -> None:
    """Whether a file could be made in a folder, or in the next above it if it is not there. Nothing is left.

    Raises:
        UserError: it could not.
    """
    there = next(it for it in (folder, *folder.absolute().parents) if it.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}); mend that, or set `paths`") from None


def link_or_copy(source: Path, path: Path) -> None:
    """Give a file a second name, where nothing is yet; a copy where the file system has no such links."""
    try:
        os.link(source, path)
    except OSError:
        with atomic(path) as temporary:
            shutil.copyfile(source, temporary)


def temporary_of(final: Path) -> Path:
    """A new name beside it, with its suffix."""
    return final.with_name(f".{_here()}-{os.getpid()}-{started(os.getpid())}-{uuid.uuid4().hex[:8]}{final.suffix}")


def sweep(folder: Path) -> None:
    """Remove what processes have left in a folder that are gone; once per process."""
    if folder in _swept:
        return
    _swept.add(folder)
    with suppress(OSError):  # others sweep too, and may own what they left
        for path in folder.iterdir():
            if (found := _NAME.fullmatch(path.name)) and _is_left(path, *found.groups()[:3]):
                _remove(path)


def _is_left(path: Path, where: str, process: str, start: str) -> bool:
    if where == _here():
        return started(int(process)) != int(start)
    with tempfile.TemporaryFile(dir=path.parent) as now:  # dated by the same clock
        return os.fstat(now.fileno()).st_mtime - path.lstat().st_mtime > ABANDONED


def _here() -> str:
    return sha256(place().encode()).hexdigest()[:8]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
