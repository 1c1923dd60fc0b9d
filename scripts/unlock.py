"""After `kill -9` of Snakemake, a lost terminal or a dead machine: free the folder, so that the same command goes on.

Refuses while a process that controls a run here lives, on whatever machine. Lists what a dead one has left in Slurm's
queue and on this machine. The next run waits for trainings that still run and takes their results; other Slurm jobs it
submits again, and what else works on this machine has to end first. With --cancel all of it is asked to end; a training
saves and leaves (in Slurm it has KillWait seconds for that).

    python scripts/unlock.py
    python scripts/unlock.py --cancel
"""

import argparse
import subprocess
import sys
from pathlib import Path

from regdpo.core import errors
from regdpo.core.errors import UserError
from regdpo.runtime import slurm
from regdpo.workflow import controllers
from regdpo.workflow.controllers import Queued, Worker

PATIENCE = 120
"""Seconds that ended processes have to save and leave."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(), help="where Snakemake ran; default: here")
    parser.add_argument("--cancel", action="store_true", help="end the jobs and processes that the dead run has left")
    args = parser.parse_args()
    folder = args.directory
    if not (folder / ".snakemake").is_dir():
        raise UserError(f"{folder.resolve()}: no run of the workflow was here (no .snakemake)")
    locked = any((folder / ".snakemake/locks").glob("*"))
    if alive := controllers.controllers(folder):
        raise UserError(f"{folder.resolve()}: a run lives, nothing was unlocked: {'; '.join(alive)}")
    dead = controllers.runs(folder)
    if locked and not dead:
        raise UserError(
            f"{folder.resolve()}: who took the lock is not known (it ended before its first job, or ran with "
            "--no-hooks); none runs on this machine: if none does on another, `snakemake --unlock`"
        )
    jobs = controllers.queued(folder) if any((run / controllers.SLURM).exists() for run in dead) else []
    left = controllers.workers(folder, jobs)
    if args.cancel:
        _end(jobs, left)
    elif others := [it for it in left if not it.training]:
        raise UserError(
            f"{folder.resolve()}: of the dead run still works here: {', '.join(map(str, others))}; wait for it, or end "
            "it with --cancel"
        )
    elif going := [*(f"Slurm job {it}" for it in jobs), *left]:
        print("of the dead run, and goes on (--cancel ends it):", *going, sep="\n  ")
        print("The next run waits for trainings and takes their results; other jobs it submits again.")
    if locked:
        # no rule is needed for it, so the configuration may have changed or be wrong
        command = [sys.executable, "-m", "snakemake", "--unlock", "--snakefile", "/dev/null"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"snakemake --unlock: {done.stderr.strip()}")
    controllers.forget(dead)
    print("unlocked: the same command goes on" if locked else "nothing was locked")


def _end(jobs: list[Queued], left: list[Worker]) -> None:
    if jobs:
        slurm.ask("scancel", *{it.job.partition("+")[0] for it in jobs})  # of a job in parts all
    if deaf := controllers.end(left, PATIENCE):
        raise UserError(f"does not end: {', '.join(map(str, deaf))}; nothing was unlocked")
    if jobs or left:
        print("ended:", *(f"Slurm job {it}" for it in jobs), *left, sep="\n  ")


if __name__ == "__main__":
    errors.run(main)
