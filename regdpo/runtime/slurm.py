"""What a job knows of the Slurm that runs it, asked with Slurm's own commands."""

import os
import re
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass

from regdpo.core.errors import UserError


@dataclass(frozen=True)
class Allocation:
    """The Slurm job that this process is in."""

    job: str
    nodes: tuple[str, ...]
    restarts: int  # times that it was put back into the queue, for whatever reason
    requeue: bool  # whether it may be

    @classmethod
    def here(cls) -> "Allocation | None":
        """None outside of Slurm, and where its commands are not (in a container).

        Snakemake's executor leaves jobs little more than SLURM_JOB_ID: the rest is asked.

        Raises:
            UserError: Slurm does not answer.
        """
        job = os.environ.get("SLURM_JOB_ID")
        if not job or not shutil.which("scontrol"):
            return None
        for patience in (1, 5, 25, 0):
            try:
                said = ask("scontrol", "show", "job", "--oneliner", job)
                break
            except UserError:
                if not patience:
                    raise
                time.sleep(patience)
        fields = dict(re.findall(r"(\w+)=(\S*)", said))
        return cls(
            job=job,
            nodes=tuple(ask("scontrol", "show", "hostnames", fields.get("NodeList", "")).split()),
            restarts=int(fields.get("Restarts", 0)),
            requeue=fields.get("Requeue") == "1" and fields.get("BatchFlag") == "1",
        )


def ask(*command: str) -> str:
    """What one of Slurm's commands prints.

    Raises:
        UserError: it is not there, or fails; with its own words.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise UserError(f"{command[0]}: no such command here; is this a node of the cluster?") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise UserError(f"{' '.join(command)}: {said[-1] if said else f'exit code {error.returncode}'}") from None


def seconds_left(job: str) -> float | None:
    """Until the job's time limit, which may be moved; None without one, or while Slurm does not answer."""
    try:
        left = ask("squeue", "--noheader", "--jobs", job, "--format=%L").split("\n")[0].strip()
    except UserError:
        return None
    if not (found := re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", left)):
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def node_name() -> str:
    """This machine by the name that Slurm has for it, else its own."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
