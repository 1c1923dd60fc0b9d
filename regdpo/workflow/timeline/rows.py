"""The table behind the page: a row each time that a job was queued or, outside Slurm, started."""

import csv
import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from regdpo.core.rows import Row
from regdpo.runtime.sacct import Allocation, Unavailable, ask
from regdpo.workflow.naming import read_comment
from regdpo.workflow.timeline.snakemake_log import Attempt, Run

DONE, FAILED, REQUEUED = "COMPLETED", "FAILED", "REQUEUED"
OPEN = ("", "PENDING", "RUNNING", "SUSPENDED")
MARGIN, SLACK = timedelta(days=1), timedelta(seconds=30)
"""How much earlier than a run accounting is asked for its jobs, and what clocks of machines may differ by."""


class JobRow(Row):
    """A job, once. Times are ISO 8601 in UTC. What is not known is blank."""

    row_id: str  # RUN/JOB/TIME
    run: str  # name of Snakemake's log
    rule: str
    wildcards: str
    job: str  # Slurm's id; blank outside Slurm
    source: Literal["sacct", "snakemake"]  # which of the two told its times
    state: str  # in Slurm's words; blank: no end is known
    nodes: str
    submitted: str
    started: str
    ended: str
    waiting_s: float | None  # from submitted to started, or to ended if it never started
    running_s: float | None  # from started to ended, or until it was looked at
    working_s: float | None  # of these the rule itself, by its benchmark
    cpus: int | None
    cpu_s: float | None  # of the rule, by its benchmark
    gpus: int | None
    limit_s: float | None
    gpu_hours_asked: float | None  # gpus times limit
    gpu_hours_held: float | None  # gpus times running
    gpu_hours_used: float | None  # gpus times working
    mem_asked_mb: float | None  # of 2^20 bytes
    mem_peak_mb: float | None  # the larger of what Slurm and the benchmark saw
    benchmark: str  # its file

    @property
    def outcome(self) -> Literal["done", "requeued", "open", "failed"]:
        """How it ended: well, back into the queue, not yet or not known how, or any other way."""
        if self.state in OPEN or not self.ended:
            return "open"
        return "done" if self.state == DONE else "requeued" if self.state in (REQUEUED, "PREEMPTED") else "failed"


Ask = Callable[[Collection[str], Collection[str], datetime], list[Allocation]]


def gather(runs: list[Run], known: list[JobRow], root: Path, ask: Ask = ask) -> tuple[list[JobRow], str]:
    """All rows, and why accounting has no answer (blank: it has, or was not asked).

    Args:
        runs: what Snakemake's logs tell.
        known: rows of an earlier call. They stay where accounting and logs have forgotten; runs whose jobs had all
            ended are not asked about again.
        root: folder that the benchmark files are relative to.
    """
    rows = {row.row_id: row for row in known}
    ended = {_id(row.job) for row in known if row.ended and row.source == "sacct" and row.state != REQUEUED}
    names = {run.slurm for run in runs if run.slurm and not _settled(run, known)}
    jobs = {job for run in runs for attempt in run.attempts for job in attempt.launched} - ended
    allocations: list[Allocation] = []
    reason = ""
    if names or jobs:
        concerned = [
            run.began for run in runs if run.slurm in names or any(jobs.intersection(a.launched) for a in run.attempts)
        ]
        try:
            allocations = ask(names, jobs, min(concerned) - MARGIN)
        except Unavailable as error:
            reason = str(error)
    launched = _launched(runs, [allocation for allocation in allocations if allocation.name not in names])
    for run in runs:
        told = [allocation for allocation in allocations if allocation.name == run.slurm]
        before = {_id(row.job) for row in rows.values() if row.run == run.name}
        fresh = {row.row_id: row for row in _rows(run, told, launched, before)}
        for key, row in list(rows.items()):
            if row.run == run.name and key not in fresh and (not row.job or (told and not row.ended)):
                del rows[key]
        for key, row in fresh.items():
            old = rows.get(key)
            if old is None or not old.ended or row.source == "sacct" or old.source != "sacct":
                rows[key] = _remembering(row, old)
    return _with_benchmarks(rows, root), reason


def _settled(run: Run, known: list[JobRow]) -> bool:
    """Whether all its jobs are known to have ended. A requeued job that waits is not always told of."""
    rows = [row for row in known if row.run == run.name]
    last = {row.job: row for row in sorted(rows, key=lambda row: row.submitted) if row.job}
    ended = {job for job, row in last.items() if row.ended and row.source == "sacct" and row.state != REQUEUED}
    return bool(rows) and {attempt.slurm for attempt in run.attempts if attempt.slurm} | set(last) <= ended


def _id(job: str) -> str:
    """Of a job that asks for nodes of several kinds, or each by itself: without the part."""
    return job.partition("+")[0]


def _launched(runs: list[Run], allocations: list[Allocation]) -> list[tuple[Attempt, Allocation]]:
    """Jobs that rules submitted themselves, each with the attempt in which its rule did."""
    found = []
    for told in allocations:
        attempts = [attempt for run in runs for attempt in run.attempts if _id(told.job) in attempt.launched]
        if not told.submitted:
            continue
        began = [attempt for attempt in attempts if attempt.began <= told.submitted + SLACK]
        if began:
            surely = [attempt for attempt in began if attempt.began <= told.submitted]
            found.append(((surely or began[:1])[-1], told))
    return found


def _rows(
    run: Run, told: list[Allocation], launched: list[tuple[Attempt, Allocation]], before: set[str]
) -> Iterator[JobRow]:
    """Of one run.

    Args:
        told: what accounting has under its name. before: jobs of the run that are known from an earlier call.
    """
    jobs: dict[str, list[Allocation]] = {}
    for allocation in told:
        jobs.setdefault(allocation.job, []).append(allocation)
    times: Counter[str] = Counter()
    for attempt in run.attempts:
        if found := jobs.pop(attempt.slurm, []):
            for time, allocation in enumerate(found, start=1):
                yield _accounted(run, allocation, time, attempt, last=time == len(found))
        elif own := [allocation for owner, allocation in launched if owner is attempt]:
            for allocation in own:  # in the place of the launcher that waits for them
                times[allocation.job] += 1
                yield _accounted(run, allocation, times[allocation.job], attempt, last=False)
        elif attempt.local and before.intersection(attempt.launched):
            continue
        elif attempt.slurm or attempt.local or attempt.ended:  # else it may never have been submitted
            job = attempt.slurm or f"{attempt.rule} {attempt.named}".strip()
            times[job] += 1
            yield _logged(run, attempt, f"{run.name}/{job}/{times[job]}")
    for found in jobs.values():  # submitted at the moment in which Snakemake was killed
        for time, allocation in enumerate(found, start=1):
            yield _accounted(run, allocation, time, None, last=False)


def _accounted(run: Run, told: Allocation, time: int, attempt: Attempt | None, last: bool) -> JobRow:
    """A job of Slurm. Snakemake's log tells the rule, and the end that accounting does not know yet."""
    rule, wildcards = (attempt.rule, attempt.named) if attempt else read_comment(told.comment)[:2]
    state, ended, source, running = told.state, told.ended, "sacct", told.seconds
    if attempt and last and attempt.ended:
        if not ended:
            state, ended, source = DONE if attempt.succeeded else FAILED, attempt.ended, "snakemake"
            running = _between(told.started, ended)
        elif state == DONE and not attempt.succeeded:  # its output was missing
            state = FAILED
    gpus = told.gpus if told.gpus is not None else _gpus(attempt) if attempt else None
    return JobRow(
        row_id=f"{run.name}/{told.job}/{time}", run=run.name, rule=rule, wildcards=wildcards, job=told.job,
        source=source, state=state, nodes=told.nodes,
        submitted=_iso(told.submitted), started=_iso(told.started), ended=_iso(ended),
        waiting_s=_between(told.submitted, told.started or ended), running_s=running, working_s=None,
        cpus=told.cpus, cpu_s=None, gpus=gpus, limit_s=told.limit_s,
        gpu_hours_asked=_hours(gpus, told.limit_s), gpu_hours_held=_hours(gpus, running), gpu_hours_used=None,
        mem_asked_mb=told.mem_asked_mb, mem_peak_mb=told.mem_peak_mb,
        benchmark=attempt.benchmark if attempt and last else "",
    )  # fmt: skip


def _logged(run: Run, attempt: Attempt, row_id: str) -> JobRow:
    """A job on Snakemake's own machine; or elsewhere, with no accounting, when it started is not known."""
    gpus = None if attempt.local else _gpus(attempt)
    limit = None if attempt.local else _number(attempt.resources.get("runtime"), 60)
    return JobRow(
        row_id=row_id, run=run.name, rule=attempt.rule, wildcards=attempt.named, job=attempt.slurm,
        source="snakemake",
        state="" if attempt.succeeded is None else DONE if attempt.succeeded else FAILED,
        nodes=run.host if attempt.local else "",
        submitted="" if attempt.local else _iso(attempt.began),
        started=_iso(attempt.began) if attempt.local else "",
        ended=_iso(attempt.ended),
        waiting_s=None, running_s=_between(attempt.began, attempt.ended) if attempt.local else None, working_s=None,
        cpus=attempt.threads, cpu_s=None, gpus=gpus, limit_s=limit,
        gpu_hours_asked=_hours(gpus, limit), gpu_hours_held=None, gpu_hours_used=None,
        mem_asked_mb=_number(attempt.resources.get("mem_mb")), mem_peak_mb=None, benchmark=attempt.benchmark,
    )  # fmt: skip


def _remembering(row: JobRow, old: JobRow | None) -> JobRow:
    """With what an earlier call read from a benchmark that may have been written over since."""
    return _measured(row, old.working_s, old.cpu_s, old.mem_peak_mb) if old and old.working_s is not None else row


def _with_benchmarks(rows: dict[str, JobRow], root: Path) -> list[JobRow]:
    """A benchmark file is of the last job that completed with it."""
    owners: dict[str, JobRow] = {}
    for row in sorted(rows.values(), key=lambda row: row.ended):
        if row.benchmark and row.state == DONE:
            owners[row.benchmark] = row
    for name, row in owners.items():
        if row.working_s is None and (values := _benchmark(root / name)):
            rows[row.row_id] = _measured(row, *values)
    return sorted(rows.values(), key=lambda row: row.row_id)


def _measured(row: JobRow, working: float | None, cpu: float | None, peak: float | None) -> JobRow:
    changes: dict[str, Any] = {"working_s": working, "cpu_s": cpu, "gpu_hours_used": _hours(row.gpus, working)}
    changes["mem_peak_mb"] = max(filter(None, (peak, row.mem_peak_mb)), default=None)
    if working is not None and row.ended and not row.started:
        began = _iso(datetime.fromisoformat(row.ended) - timedelta(seconds=working))
        changes |= {"started": max(began, row.submitted), "running_s": working}
    return row.model_copy(update=changes)


def _benchmark(path: Path) -> tuple[float | None, float | None, float | None] | None:
    """Seconds, CPU seconds and peak memory of a benchmark of one repetition; none where there is no such file."""
    try:
        with path.open(newline="", errors="replace") as handle:
            lines = list(itertools.islice(csv.DictReader(handle, delimiter="\t"), 2))
    except OSError:
        return None
    if len(lines) != 1:
        return None
    return _number(lines[0].get("s")), _number(lines[0].get("cpu_time")), _number(lines[0].get("max_rss"))


def _gpus(attempt: Attempt) -> int | None:
    """What the rule asked for; Slurm gives that or nothing. `gres` is of each machine."""
    if not attempt.resources:  # a group
        return None
    kinds = [item.split(":")[-1] for item in attempt.resources.get("gres", "").split(";") if item.startswith("gpu")]
    each = sum(int(kind) if kind.isdecimal() else 1 for kind in kinds)
    return int(_number(attempt.resources.get("gpu")) or each * (_number(attempt.resources.get("nodes")) or 1))


def _number(text: str | None, unit: float = 1) -> float | None:
    """None for what is no number, such as Snakemake's NA."""
    try:
        value = float(text or "nan") * unit
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _hours(gpus: int | None, seconds: float | None) -> float | None:
    return None if gpus is None or seconds is None else gpus * seconds / 3600


def _between(first: datetime | None, second: datetime | None) -> float | None:
    return (second - first).total_seconds() if first and second else None


def _iso(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else ""
