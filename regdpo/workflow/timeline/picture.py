"""Where things stand in the picture: runs along the axis, a lane a rule, a bar a job, below them the GPUs held."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from regdpo.workflow.timeline.rows import JobRow

WIDTH, LEFT, RIGHT, TOP = 960.0, 168.0, 14.0, 38.0
BREAK, TICKS = 8.0, 9
"""Width of what is left out between two runs; most marks on the axis."""
BAR, GAP, LANE = 11.0, 2.0, 116.0
"""Height of a bar, space below it, and most height of a lane: many jobs at once make bars thin."""
STRIP = 56.0
LEAST = 1.8
"""Least width of a bar."""
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)


Span = tuple[datetime, datetime | None, datetime | None]
"""When a job is first known of, when it started, when it ended."""


@dataclass(frozen=True)
class Bar:
    """A job: a light part until it started, a dark one until it ended; x are picture units. Equal x: no such part."""

    row: JobRow
    y: float
    height: float
    x: float
    started: float
    ended: float
    waited: bool  # the light part is time in the queue, known as such


@dataclass(frozen=True)
class Lane:
    rule: str
    y: float
    height: float
    bars: list[Bar]


@dataclass(frozen=True)
class Stretch:
    """Time in which a run went on, or several that overlap. Time between stretches is left out of the picture."""

    begin: datetime
    end: datetime
    x: float
    width: float
    ticks: list[tuple[float, int]]  # x, seconds since it began

    @property
    def seconds(self) -> float:
        return (self.end - self.begin).total_seconds()

    def at(self, moment: datetime) -> float:
        share = (moment - self.begin).total_seconds() / self.seconds if self.seconds else 0.0
        return self.x + self.width * min(max(share, 0.0), 1.0)


@dataclass(frozen=True)
class Picture:
    height: float
    stretches: list[Stretch]
    lanes: list[Lane]
    strip: float | None  # top of the GPUs' strip
    gpus: list[tuple[float, float, int]]  # from x, to x, held
    most: int  # GPUs at once


def draw(rows: Sequence[JobRow]) -> Picture | None:
    """The picture of some jobs, or none where no time of any is known."""
    spans = {row.row_id: span for row in rows if (span := _span(row))}
    if not spans:
        return None
    stretches = _stretches([(row.run, spans[row.row_id]) for row in rows if row.row_id in spans])

    def x(moment: datetime) -> float:
        return next((found for found in reversed(stretches) if found.begin <= moment), stretches[0]).at(moment)

    ends = {row.run: max(_last(spans[other.row_id]) for other in rows if other.run == row.run) for row in rows}
    lanes: list[Lane] = []
    y = TOP
    for rule, members in _by_rule(rows, spans).items():
        tracks = _tracks([(spans[row.row_id][0], spans[row.row_id][2] or ends[row.run]) for row in members])
        height = min(LANE, (max(tracks) + 1) * (BAR + GAP))
        pitch = height / (max(tracks) + 1)
        bars = []
        for row, track in zip(members, tracks, strict=True):
            first, started, last = spans[row.row_id]
            end = last or ends[row.run]
            edges = x(first), x(started or end), x(end)
            bars.append(Bar(row, y + track * pitch, pitch * BAR / (BAR + GAP), *edges, row.waiting_s is not None))
        lanes.append(Lane(rule, y, height, bars))
        y += height + 8
    held = _held(rows, ends)
    most = max((count for _, _, count in held), default=0)
    strip = y + 16 if most else None
    gpus = [(x(first), x(last), count) for first, last, count in held if count]
    return Picture(y + (STRIP + 22 if strip else 0), stretches, lanes, strip, gpus, most)


def _stretches(spans: list[tuple[str, Span]]) -> list[Stretch]:
    """The runs along the axis, those that overlap as one, in the same scale."""
    runs: dict[str, tuple[datetime, datetime]] = {}
    for run, span in spans:
        begin, end = runs.get(run, (span[0], span[0]))
        runs[run] = min(begin, span[0]), max(end, _last(span))
    merged: list[tuple[datetime, datetime]] = []
    for begin, end in sorted(runs.values()):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((begin, end))
    seconds = max(sum((end - begin).total_seconds() for begin, end in merged), 1.0)
    scale = (WIDTH - LEFT - RIGHT - BREAK * (len(merged) - 1)) / seconds
    step = next((step for step in STEPS if seconds / step <= TICKS), STEPS[-1])
    found, x = [], LEFT
    for begin, end in merged:
        length = (end - begin).total_seconds()
        ticks = [(x + scale * at, at) for at in range(step, int(length) + 1, step)]
        found.append(Stretch(begin, end, x, scale * length, ticks))
        x += scale * length + BREAK
    return found


def _last(span: Span) -> datetime:
    return max(moment for moment in span if moment)


def _span(row: JobRow) -> Span | None:
    texts = (row.submitted, row.started, row.ended)
    submitted, started, ended = (datetime.fromisoformat(text) if text else None for text in texts)
    first = submitted or started or ended
    return (first, started, ended) if first else None


def _by_rule(rows: Sequence[JobRow], spans: dict[str, Span]) -> dict[str, list[JobRow]]:
    """Rules in the order of their first job."""
    lanes: dict[str, list[JobRow]] = {}
    for row in sorted((row for row in rows if row.row_id in spans), key=lambda row: (spans[row.row_id][0], row.row_id)):
        lanes.setdefault(row.rule, []).append(row)
    return lanes


def _tracks(spans: list[tuple[datetime, datetime]]) -> list[int]:
    """The first track that is free for each, in order."""
    free: list[datetime] = []
    tracks = []
    for first, last in spans:
        track = next((index for index, until in enumerate(free) if until <= first), len(free))
        free[track : track + 1] = [last]
        tracks.append(track)
    return tracks


def _held(rows: Sequence[JobRow], ends: dict[str, datetime]) -> list[tuple[datetime, datetime, int]]:
    """GPUs that were held, in order of time."""
    changes: dict[datetime, int] = {}
    for row in rows:
        if row.gpus and row.gpu_hours_held is not None and row.started:
            last = datetime.fromisoformat(row.ended) if row.ended else ends[row.run]
            for moment, change in ((datetime.fromisoformat(row.started), row.gpus), (last, -row.gpus)):
                changes[moment] = changes.get(moment, 0) + change
    held, count = [], 0
    for first, last in pairwise(sorted(changes)):
        count += changes[first]
        held.append((first, last, count))
    return held
