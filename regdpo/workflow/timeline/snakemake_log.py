"""What a run of Snakemake did, read from the log that it keeps of itself (``.snakemake/log``).

This log alone tells which job of Slurm was which rule: accounting keeps a job's comment only at some sites, and only
once the job has ended, and all jobs of an array share one. Its times are local and whole seconds.
"""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from regdpo.runs.events import read as read_events
from regdpo.workflow.naming import events_of

HOST = re.compile(r"^ *Host: (\S+)$", re.MULTILINE)
SLURM_RUN = re.compile(r"^SLURM run ID: (\S+)$", re.MULTILINE)
STAMP = re.compile(r"^( *)\[(\w{3} \w{3} [ \d]\d [\d:]{8} \d{4})\](?: (Group) job .*)?\n", re.MULTILINE)
BLOCK = re.compile(r"(local)?(?:rule|checkpoint) (\S+):")
ITEM = re.compile(r"(jobid|benchmark|wildcards|threads|output|log|resources): (.*)")
FINISHED = re.compile(r"Finished jobid: (\d+) \(Rule: .*\)")
FAILED = re.compile(r"Error in rule \S+:")
SUBMITTED = re.compile(r"Job (\S+) has been submitted with SLURM jobid (\d+) \(log: .*\)\.")
ARRAY = re.compile(
    r"Submitted array job with Snakemake IDs ([\d,]+) and SLURM job ID (\d+)\. .* task IDs are (\d+)-\d+\."
)
ANY_SUBMITTED = re.compile(r"^(?:Job \S+ has been submitted with SLURM|Submitted array job) ", re.MULTILINE)
GROUPS = uuid.uuid5(uuid.NAMESPACE_URL, "https://snakemake.readthedocs.io")
"""Space of the names that Snakemake gives to jobs of groups."""


@dataclass
class Attempt:
    """A job that Snakemake started or submitted, once. Rules that are submitted as a group are one."""

    rule: str
    wildcards: str
    began: datetime
    local: bool
    benchmark: str = ""
    threads: int = 1
    resources: dict[str, str] = field(default_factory=dict)
    slurm: str = ""  # job id; JOB_TASK in an array
    log: str = ""
    launched: tuple[str, ...] = ()  # ids of jobs that the rule itself submitted, in any attempt
    ended: datetime | None = None
    succeeded: bool | None = None  # None: the log tells no end
    group: int = 0  # number of the group that it is a member of

    @property
    def named(self) -> str:
        """Its wildcards, but for empty ones."""
        return ", ".join(pair for pair in self.wildcards.split(", ") if not pair.endswith("="))


@dataclass
class Run:
    """A run of Snakemake. Its log file, and so the run, is named by the moment it began."""

    name: str
    host: str = ""
    slurm: str = ""  # name of its jobs in Slurm, if it submitted any
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def began(self) -> datetime:
        return datetime.strptime(self.name[:17], "%Y-%m-%dT%H%M%S").astimezone(UTC)


def read_all(project: Path) -> list[Run]:
    """The runs that started a job, oldest first."""
    runs = [read(path) for path in sorted(project.glob(".snakemake/log/*.snakemake.log"))]
    for attempt in (attempt for run in runs for attempt in run.attempts):
        if attempt.local and attempt.log:
            events = read_events(events_of(str(project / attempt.log)))
            attempt.launched = tuple(dict.fromkeys(event.slurm_job for event in events))
    return [run for run in runs if run.attempts or run.slurm]


def read(path: Path) -> Run:
    """One log, of a run that ended, lives or was killed."""
    text = path.read_text(errors="replace")
    run = Run(path.name.removesuffix(".snakemake.log"), _first(HOST, text))
    if ANY_SUBMITTED.search(text):
        run.slurm = _first(SLURM_RUN, text)
    latest: dict[str, Attempt] = {}  # by Snakemake's job id
    groups: dict[str, list[Attempt]] = {}  # by Slurm's job id
    for moment, group, lines in _paragraphs(text):
        if found := BLOCK.fullmatch(lines[0]):
            items = _items(lines)
            if "output" in items:  # else it is a mere target
                attempt = _attempt(found[2], items, moment, bool(found[1]), group)
                latest[items["jobid"]] = attempt
                run.attempts.append(attempt)
        elif found := FINISHED.fullmatch(lines[0]):
            _end(latest.get(found[1]), moment, succeeded=True)
        elif FAILED.fullmatch(lines[0]):
            _end(latest.get(_items(lines).get("jobid", "")), moment, succeeded=False)
        for line in lines[1:]:
            if found := SUBMITTED.fullmatch(line):
                if found[1] in latest:
                    latest[found[1]].slurm = found[2]
                else:
                    groups[found[2]] = _group(run.attempts, found[1])
            elif found := ARRAY.fullmatch(line):
                for task, job in enumerate(found[1].split(","), start=int(found[3])):
                    if job in latest:
                        latest[job].slurm = f"{found[2]}_{task}"
    for slurm, members in groups.items():
        if members:
            run.attempts[run.attempts.index(members[0])] = _merged(slurm, members)
            run.attempts = [attempt for attempt in run.attempts if attempt not in members]
    return run


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def _paragraphs(text: str) -> Iterator[tuple[datetime, int, list[str]]]:
    """What follows each time stamp: the time, the number of the group whose members it tells of, the lines."""
    _, *parts = STAMP.split(text)
    group = 0
    for indent, stamp, heading, body in zip(*(parts[part::4] for part in range(4)), strict=True):
        group += bool(heading)
        moment = datetime.strptime(stamp, "%a %b %d %H:%M:%S %Y").astimezone(UTC)
        yield moment, group if indent else 0, [line.strip() for line in body.splitlines()] or [""]


def _items(lines: list[str]) -> dict[str, str]:
    """Named lines; a name counts where it stands first, since shell commands come after."""
    items: dict[str, str] = {}
    for line in lines:
        if found := ITEM.fullmatch(line):
            items.setdefault(found[1], found[2])
    return items


def _attempt(rule: str, items: dict[str, str], began: datetime, local: bool, group: int) -> Attempt:
    pairs = (item.partition("=") for item in items.get("resources", "").split(", "))
    return Attempt(
        rule, items.get("wildcards", ""), began, local,
        benchmark=items.get("benchmark", ""),
        log=items.get("log", ""),
        threads=int(items.get("threads", 1)),
        resources={name: value for name, _, value in pairs},
        group=group,
    )  # fmt: skip


def _end(attempt: Attempt | None, moment: datetime, succeeded: bool) -> None:
    if attempt:
        attempt.ended, attempt.succeeded = moment, succeeded


def _group(attempts: list[Attempt], name: str) -> list[Attempt]:
    """The members of the group that is submitted under a name: that of one of them."""
    named = [attempt.group for attempt in attempts if attempt.group and _name(attempt) == name]
    return [attempt for attempt in attempts if named and attempt.group == named[-1]]


def _name(attempt: Attempt) -> str:
    wildcards = sorted(pair.replace("=", ":", 1) for pair in attempt.wildcards.split(", ") if pair)
    return str(uuid.uuid5(GROUPS, f"{attempt.rule}:{','.join(wildcards)}"))


def _merged(slurm: str, members: list[Attempt]) -> Attempt:
    """A group as the one job that it is for Slurm. Its rules may have run side by side, so it has no benchmark."""
    outcomes = [member.succeeded for member in members]
    ends = [member.ended for member in members if member.ended]
    return Attempt(
        rule="+".join(sorted({member.rule for member in members})),
        wildcards="; ".join(dict.fromkeys(member.named for member in members if member.named)),
        began=min(member.began for member in members),
        local=False,
        threads=max(member.threads for member in members),
        resources={},
        slurm=slurm,
        ended=max(ends) if len(ends) == len(members) else None,
        succeeded=False if False in outcomes else None if None in outcomes else True,
    )
