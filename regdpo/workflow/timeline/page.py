"""The timeline's page: one HTML file that loads nothing. Equal rows give equal bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median

import jinja2

from regdpo.core.temporaries import atomic
from regdpo.workflow.timeline import picture
from regdpo.workflow.timeline.rows import JobRow

TEMPLATES = (Path(__file__).parent, Path(__file__).parents[2] / "report")  # the report's style is this page's
PICTURED = 12
"""Most runs that are drawn; the tables have all."""
LISTED = 500
"""Most jobs that are listed one by one."""
SPACE = "\N{NO-BREAK SPACE}"
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True)
class Jobs:
    """Some jobs, such as those of a rule or of a run, and what is said of them together."""

    name: str
    rows: Sequence[JobRow]

    def known(self, column: str) -> list[float]:
        return [value for row in self.rows if (value := getattr(row, column)) is not None]

    def sum(self, column: str) -> float | None:
        known = self.known(column)
        return sum(known) if known else None

    def median(self, column: str) -> float | None:
        known = self.known(column)
        return median(known) if known else None

    def most(self, column: str) -> float | None:
        return max(self.known(column), default=None)

    def count(self, *outcomes: str) -> int:
        return sum(row.outcome in outcomes for row in self.rows)

    @property
    def submitted(self) -> list[JobRow]:
        """Those that went through Slurm."""
        return [row for row in self.rows if row.job]

    @property
    def unaccounted(self) -> int:
        return sum(row.source != "sacct" for row in self.submitted)

    @property
    def cores(self) -> float | None:
        """Cores that were busy, on the mean while the rules worked."""
        pairs = [(row.cpu_s, row.working_s) for row in self.rows if row.cpu_s is not None and row.working_s]
        return sum(cpu for cpu, _ in pairs) / sum(seconds for _, seconds in pairs) if pairs else None

    @cached_property
    def picture(self) -> picture.Picture | None:
        return picture.draw(self.rows)

    @property
    def began(self) -> str:
        return min(row.submitted or row.started or row.ended for row in self.rows)

    @property
    def seconds(self) -> float:
        """From the first to the last that is known of a job, without the time between runs."""
        return sum(stretch.seconds for stretch in self.picture.stretches) if self.picture else 0.0

    @property
    def rules(self) -> list["Jobs"]:
        """Its jobs by rule, those that took longest in all first."""
        found = [Jobs(name, rows) for name, rows in _grouped(self.rows, "rule").items()]
        return sorted(found, key=lambda jobs: (-(jobs.sum("running_s") or 0), jobs.name))

    @property
    def listed(self) -> list[JobRow]:
        """One by one in the order of time: all of them, or those that ran longest."""
        longest = sorted(self.rows, key=lambda row: (-(row.running_s or 0), row.row_id))[:LISTED]
        return sorted(longest, key=lambda row: (row.submitted or row.started or row.ended, row.row_id))


def write(rows: Sequence[JobRow], path: str | Path) -> None:
    """Render the page to a file, atomically."""
    html = render(rows)
    with atomic(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render(rows: Sequence[JobRow]) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "hours": hours, "size": size, "date": date}
    runs = [Jobs(name, rows) for name, rows in sorted(_grouped(rows, "run").items(), reverse=True)]
    drawn = Jobs("", [row for run in runs[:PICTURED] for row in run.rows])
    return environment.get_template("timeline.html").render(
        runs=runs, every=Jobs("", rows), drawn=drawn, pictured=PICTURED, sizes=picture
    )


def _grouped(rows: Iterable[JobRow], column: str) -> dict[str, list[JobRow]]:
    groups: dict[str, list[JobRow]] = {}
    for row in rows:
        groups.setdefault(getattr(row, column), []).append(row)
    return groups


def duration(seconds: float | None) -> str:
    """Two units at most: `7 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`; blank for none."""
    if seconds is None:
        return ""
    whole = round(seconds)
    for (unit, size), (smaller, part) in pairwise(UNITS):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size}{SPACE}{unit}" + (f"{SPACE}{rest}{SPACE}{smaller}" if rest else "")
    return f"{seconds:.1f}{SPACE}s" if seconds % 1 and seconds < 9.95 else f"{whole}{SPACE}s"


def hours(value: float | None) -> str:
    """GPU-hours to three digits; blank for none."""
    if value is None:
        return ""
    if 0 < value < 0.001:
        return f"<{SPACE}0.001"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def size(megabytes: float | None) -> str:
    """Blank for none."""
    if megabytes is None:
        return ""
    return f"{megabytes:.0f}{SPACE}MiB" if megabytes < 1024 else f"{megabytes / 1024:.1f}{SPACE}GiB"


def date(moment: str) -> str:
    """To the minute, in UTC as all times."""
    return f"{datetime.fromisoformat(moment):%-d %b %Y, %H:%M}".replace(" ", SPACE) if moment else ""
