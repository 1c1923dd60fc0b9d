"""Who trains into a run folder, or controls a run of the workflow: at most one living process holds its lease.

Leases are numbered files, ``RUN/lease/0000001.json``. The highest number counts. It can be made only once, since a hard
link fails where a file is, and the highest is never removed: of all that find number n dead, one alone gets n + 1.

Whether a holder lives is certain where it can be looked at: its host has not been booted since, and its process is
there and was started when the lease says. Elsewhere its heartbeat tells, the file's time of change. That time is
compared with the time of a file just made beside it, not with a clock of ours; and before a lease is called
dead it is watched for a while, so that clocks that disagree (some shared file systems stamp by the writer's) cannot
end a living one.

filelock's ``SoftFileLease`` (4.2.11) is not taken in its place: it hands the lease of a living process over as soon as
that process was suspended for the lease's duration, on this machine too, where one could look; it waits for a file that
is no lease, and does not tell who holds one without competing for it.
"""

import os
import re
import socket
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from regdpo.core.errors import UserError
from regdpo.core.processes import place, started
from regdpo.core.section import Section
from regdpo.core.temporaries import sweep, temporary_of

FOLDER = "lease"
BEAT = 10.0
"""Seconds between heartbeats."""
STALE = 120.0
"""Seconds without a heartbeat after which a holder on another machine is suspected dead; file systems cache times."""
WATCH = 3 * BEAT
"""Seconds that a suspect is watched before it is called dead."""
SHOWN = 10.0
"""Seconds that a network file system may name a file that is gone."""
NO_LEASE = "{}: is no lease; remove it if no training runs there"
_NAME = re.compile(r"([0-9]{7}|[1-9][0-9]{7,15})\.json")


class Owner(Section):
    """The process that holds, or held, a lease."""

    host: str
    place: str  # boot and PID namespace: where `pid` means something
    pid: int
    start: int | None  # of the process, in clock ticks since boot
    token: str  # differs between any two leases
    released: bool = False

    @classmethod
    def me(cls) -> "Owner":
        return cls(
            host=socket.gethostname(),
            place=place(),
            pid=os.getpid(),
            start=started(os.getpid()),
            token=uuid.uuid4().hex,
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """A lease that this process holds; a daemon thread keeps it alive."""

    def __init__(self, folder: Path, number: int, owner: Owner):
        self.folder, self.number, self.owner = folder, number, owner
        self.path = _path(folder, number)
        self._over = threading.Event()
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    @classmethod
    def acquire(cls, run: Path) -> "Lease":
        """Take the lease of a run folder, at once or, from a dead holder on another machine, after ``WATCH`` seconds.

        Raises:
            UserError: a living process holds it, or what is there is no lease.
        """
        folder = run / FOLDER
        if folder.exists() and not folder.is_dir():
            raise UserError(NO_LEASE.format(folder))
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        owner = Owner.me()
        while True:
            number, holder = _holder(folder)
            if holder:
                raise UserError(refusal(run, holder))
            if not _NAME.fullmatch(_path(folder, number + 1).name):  # nobody ever comes so far
                raise UserError(NO_LEASE.format(_path(folder, number)))
            if _claim(folder, number + 1, owner):
                return cls(folder, number + 1, owner)

    def mine(self) -> bool:
        """Whether this process still holds it. Not so if it was suspended for long and another machine took over."""
        with suppress(FileNotFoundError):
            return _last(self.folder) == self.number and _read(self.path).token == self.owner.token
        return False

    def release(self) -> None:
        """Let the next one in without a look whether this process lives. Safe to call twice."""
        self._over.set()
        if self.mine():
            temporary = _write(self.folder, self.owner.model_copy(update={"released": True}))
            os.replace(temporary, self.path)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):  # it may pass; if the lease is lost, `mine` tells
                os.utime(self.path)


def living(run: Path) -> Owner | None:
    """The living process that trains into a run folder.

    At once if there is none, or its process or a heartbeat can be seen; else after ``WATCH`` seconds.
    """
    folder = run / FOLDER
    return _holder(folder)[1] if folder.is_dir() else None


def refusal(run: Path, owner: Owner) -> str:
    """One line for who finds a run folder's living owner."""
    advice = f"wait for it, or stop it with `touch {run / 'stop'}`"
    return f"{run}: {owner} is training there{heartbeat(run)}; {advice}{patience(owner)}"


def heartbeat(run: Path) -> str:
    """When a holder's heart last beat, after a comma."""
    with suppress(FileNotFoundError):
        return f", last heartbeat {max(0.0, _age(_path(run / FOLDER, _last(run / FOLDER)))):.0f} s ago"
    return ""


def patience(owner: Owner) -> str:
    """After a semicolon, when the death of a holder is found out that cannot be looked at from here."""
    return "" if owner.place == place() else f"; a dead one is found out {STALE:.0f} s after its last heartbeat"


def _holder(folder: Path) -> tuple[int, Owner | None]:
    """The highest number, and its owner if that lives."""
    end = time.monotonic() + SHOWN
    while True:
        number = _last(folder)
        try:
            return number, _alive(_path(folder, number)) if number else None
        except FileNotFoundError:  # a higher one was made meanwhile
            if time.monotonic() > end:
                raise UserError(NO_LEASE.format(_path(folder, number))) from None
            time.sleep(0.01)


def _alive(path: Path) -> Owner | None:
    owner = _read(path)
    if owner.released:
        return None
    if owner.place == place():
        return owner if owner.start is not None and started(owner.pid) == owner.start else None
    if -STALE < _age(path) < STALE:  # a heartbeat in the future tells nothing: clocks were set back
        return owner
    before = path.stat().st_mtime_ns
    end = time.monotonic() + WATCH
    while time.monotonic() < end:
        time.sleep(WATCH / 10)
        if _read(path).released:
            return None
        if path.stat().st_mtime_ns != before:
            return owner
    return None


def _claim(folder: Path, number: int, owner: Owner) -> bool:
    """Make a number. Whoever comes so late that higher ones were made, and this one removed, withdraws."""
    temporary = _write(folder, owner)
    try:
        os.link(temporary, _path(folder, number))
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    if _last(folder) != number:
        _path(folder, number).unlink(missing_ok=True)
        return False
    for lower in set(_numbers(folder)) - {number}:
        _path(folder, lower).unlink(missing_ok=True)
    return True


def _numbers(folder: Path) -> list[int]:
    """Of what bears a name that a lease of ours has."""
    return [int(name[:-5]) for name in os.listdir(folder) if _NAME.fullmatch(name)]


def _last(folder: Path) -> int:
    return max(_numbers(folder), default=0)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:07d}.json"


def _read(path: Path) -> Owner:
    """Opening a file makes a network file system ask for its present state."""
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise IsADirectoryError
        return Owner.model_validate_json(path.read_bytes())
    except (ValidationError, IsADirectoryError):
        raise UserError(NO_LEASE.format(path)) from None


def _write(folder: Path, owner: Owner) -> Path:
    """Under a name that is no number, and on the disk before it gets one."""
    path = temporary_of(folder / "lease")
    with path.open("w") as handle:
        handle.write(owner.model_dump_json())
        handle.flush()
        os.fsync(handle.fileno())
    return path


def _age(path: Path) -> float:
    """Seconds since the last heartbeat, by the clock that stamps files made here."""
    with tempfile.TemporaryFile(dir=path.parent) as now:
        return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime
