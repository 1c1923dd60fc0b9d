"""The processes that control runs of the workflow in a folder, and what a killed one has left.

Each holds a lease of its own, ``.snakemake/regdpo/runs/RUN``: Snakemake lets several run in one folder as long as their
files differ, and its lock does not say whose it is.
"""

import atexit
import os
import shutil
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from regdpo.runtime import slurm
from regdpo.runtime.lease import Lease, heartbeat, living, patience
from regdpo.workflow.naming import read_comment

RUNS = Path(".snakemake/regdpo/runs")
SLURM = "slurm"
"""File beside the lease of a run that may have jobs in Slurm's queue."""


def hold(folder: Path, submits: bool) -> None:
    """Hold a lease until this process ends.

    Args:
        folder: the working directory. submits: whether the run may have jobs in Slurm's queue.
    """
    run = folder.resolve() / RUNS / uuid.uuid4().hex
    lease = Lease.acquire(run)
    if submits:
        (run / SLURM).touch()

    def leave() -> None:
        lease.release()
        shutil.rmtree(run, ignore_errors=True)

    atexit.register(leave)


def runs(folder: Path) -> list[Path]:
    """The runs that live, or were killed."""
    return sorted((folder / RUNS).iterdir()) if (folder / RUNS).is_dir() else []


def forget(dead: Iterable[Path]) -> None:
    """Once nothing of them is left."""
    for run in dead:
        shutil.rmtree(run, ignore_errors=True)


def controllers(folder: Path) -> list[str]:
    """Host, process and last heartbeat of those that live; half a minute for each that can only be watched."""
    found = []
    for run in runs(folder):
        if owner := living(run):
            found.append(f"{owner}{heartbeat(run)}{patience(owner)}")
    return found or [f"process {it.pid} on this machine" for it, mode in _here(folder) if not mode]


@dataclass(frozen=True)
class Queued:
    """A job in Slurm's queue."""

    job: str
    state: str
    rule: str

    def __str__(self) -> str:
        return f"{self.job} {self.state.lower()} {self.rule}"


def queued(folder: Path) -> list[Queued]:
    """This user's Slurm jobs of the folder's rules.

    Raises:
        UserError: Slurm does not answer.
    """
    lines = slurm.ask("squeue", "--me", "--noheader", "--format=%i\t%T\t%Z\t%k").splitlines()
    rows = [line.split("\t", 3) for line in lines]
    found = []
    for job, state, place, comment in rows:
        rule, wildcards, of = read_comment(comment)  # a launcher's job works elsewhere: where its logs are
        if rule and Path(of or place).resolve() == folder.resolve():
            found.append(Queued(job, state, f"{rule} {wildcards}".rstrip()))
    return found


@dataclass(frozen=True)
class Worker:
    """A process on this machine that does a rule's work."""

    process: psutil.Process
    what: str
    training: bool

    def __str__(self) -> str:
        return f"process {self.process.pid} {self.what}"


def workers(folder: Path, jobs: Iterable[Queued] = ()) -> list[Worker]:
    """What a killed run has left on this machine, but for what is in its Slurm ``jobs``."""
    ids, found = {job.job for job in jobs}, []
    for process, mode in _here(folder):
        with suppress(psutil.Error):
            if not mode or process.environ().get("SLURM_JOB_ID") in ids:
                continue
            words = process.cmdline()
            stage = Path(words[1]).stem
            name = words[words.index("--name") + 1] if "--name" in words else ""
            found.append(Worker(process, f"{stage} {name}".rstrip(), stage == "train"))
    return found


def end(left: list[Worker], patience: float) -> list[Worker]:
    """Ask them to save and leave; those that do not within ``patience`` seconds."""
    for worker in left:
        with suppress(psutil.NoSuchProcess):
            worker.process.terminate()
    deadline = time.monotonic() + patience
    while (left := [worker for worker in left if _lives(worker.process)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _here(folder: Path) -> list[tuple[psutil.Process, str]]:
    """Snakemake's processes of a folder and the scripts of its rules, with their `_mode`; not this one's own family."""
    here, mine = folder.resolve(), {os.getpid(), *(it.pid for it in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is another user's
            mode = _mode(process) if process.pid not in mine and Path(process.cwd()) == here else None
            if mode is not None:
                found.append((process, mode))
    return found


def _mode(process: psutil.Process) -> str | None:
    """Of Snakemake its `--mode`, empty for the one that controls; `script` of a rule's script; None of all else."""
    words = process.cmdline()
    if words[1:3] == ["-m", "snakemake"] or any(Path(word).name == "snakemake" for word in words[:2]):
        return words[words.index("--mode") + 1] if "--mode" in words else ""
    scripts = process.environ().get("REGDPO_SCRIPTS")
    return "script" if scripts and len(words) > 1 and Path(words[1]).parent == Path(scripts) else None
