"""What Slurm's accounting (``sacct``) knows about the jobs of runs. Times are asked for and told in UTC."""

import os
import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

# Comment may hold anything, so it is the last.
FIELDS = (
    "JobID", "State", "Submit", "Start", "End", "ElapsedRaw", "TimelimitRaw", "NodeList", "AllocCPUS", "ReqTRES",
    "AllocTRES", "MaxRSS", "TRESUsageInTot", "JobName", "Comment",
)  # fmt: skip
TIME = "%Y-%m-%dT%H:%M:%S"
PATIENCE = 60
"""Seconds that sacct has to answer."""


@dataclass
class Allocation:
    """One time that a job was queued; a requeued job has several, oldest first. None: not known, or not yet."""

    job: str  # JOB_TASK in an array
    name: str
    comment: str  # RULE and wildcards, where the site keeps comments
    state: str
    submitted: datetime | None
    started: datetime | None
    ended: datetime | None
    seconds: float | None  # since it started
    limit_s: float | None
    nodes: str
    cpus: int | None
    gpus: int | None  # None: Slurm tells of none, which it also does where it does not account for them
    mem_asked_mb: float | None  # on all nodes
    mem_peak_mb: float | None = None  # of the step with most: all its tasks


class Unavailable(Exception):
    """Why accounting cannot be asked, as one line."""


def ask(names: Collection[str], jobs: Collection[str], since: datetime) -> list[Allocation]:
    """The allocations of all jobs that have one of these names, and of those with one of these ids.

    Raises:
        Unavailable: there is no sacct, or it has no answer.
    """
    wanted = [f"{option}={','.join(sorted(of))}" for option, of in (("--name", names), ("--jobs", jobs)) if of]
    return [allocation for option in wanted for allocation in parse(_sacct(option, since))]


def _sacct(wanted: str, since: datetime) -> str:
    command = ["sacct", "--duplicates", "--clusters=all", "--parsable2", "--noheader", f"--format={','.join(FIELDS)}"]
    command += [wanted, f"--starttime={since.astimezone(UTC):{TIME}}"]
    environment = os.environ | {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, timeout=PATIENCE, check=False
        )
    except OSError as error:
        raise Unavailable(f"sacct cannot be run ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"sacct did not answer within {PATIENCE} s") from None
    if done.returncode:
        raise Unavailable((done.stderr.strip() or f"sacct left with exit code {done.returncode}").splitlines()[0])
    return done.stdout


def parse(text: str) -> list[Allocation]:
    """The lines of an answer: each allocation, and under it its steps, which alone know their memory."""
    allocations: list[Allocation] = []
    for line in text.splitlines():
        values = dict(zip(FIELDS, line.split("|", len(FIELDS) - 1), strict=False))
        if len(values) < len(FIELDS):  # the second line of some comment
            continue
        if "." not in values["JobID"]:
            allocations.append(_allocation(values))
        elif allocations:
            used = _tres(values["TRESUsageInTot"]).get("mem") or values["MaxRSS"]
            peaks = [allocations[-1].mem_peak_mb, _megabytes(used)]
            allocations[-1].mem_peak_mb = max((peak for peak in peaks if peak), default=None)
    return allocations


def _allocation(values: dict[str, str]) -> Allocation:
    began = values["NodeList"] != "None assigned"  # a job that ended in the queue has its end as its start
    tres = _tres(values["AllocTRES"] or values["ReqTRES"])
    return Allocation(
        job=values["JobID"],
        name=values["JobName"],
        comment=values["Comment"],
        state=values["State"].partition(" ")[0],  # CANCELLED by UID
        submitted=_moment(values["Submit"]),
        started=_moment(values["Start"]) if began else None,
        ended=_moment(values["End"]),
        seconds=_number(values["ElapsedRaw"]) if began else None,
        limit_s=minutes * 60 if (minutes := _number(values["TimelimitRaw"])) else None,
        nodes=values["NodeList"] if began else "",
        cpus=int(cpus) if (cpus := _number(values["AllocCPUS"])) else None,
        gpus=_gpus(tres),
        mem_asked_mb=_megabytes(tres.get("mem", "")),
    )


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, TIME).replace(tzinfo=UTC)
    except ValueError:  # Unknown, None
        return None


def _number(text: str) -> float | None:
    return float(text) if text.isdecimal() else None


def _tres(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)


def _gpus(tres: dict[str, str]) -> int | None:
    """All GPUs, or the sum over kinds where only kinds are accounted for."""
    kinds = [int(count) for name, count in tres.items() if name.startswith("gres/gpu:")]
    return int(tres["gres/gpu"]) if "gres/gpu" in tres else sum(kinds) if kinds else None


def _megabytes(text: str) -> float | None:
    """Of 2^20 bytes; none for no text, and for nothing, which is a job too short to be looked at."""
    found = re.fullmatch(r"([\d.]+)([KMGTP]?)", text)
    return float(found[1]) * 1024.0 ** ("KMGTP".index(found[2]) - 1 if found[2] else -2) or None if found else None
