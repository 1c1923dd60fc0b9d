"""Two runs side by side: what differs in configuration, data, code and hardware, and whether their verdicts agree."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jinja2

from regdpo.core.errors import UserError
from regdpo.core.temporaries import atomic
from regdpo.evaluate.measures import Metric
from regdpo.evaluate.stats import Interval
from regdpo.report import page
from regdpo.report.contents import Contents
from regdpo.report.parts import part
from regdpo.report.results import Cell

Outcome = Literal["agree", "turned over", "undecided in one", "undecided in both"]

SAYS = {"better": 1, "closer to real": 1, "worse": -1, "further from real": -1}
"""Readings that say which side is better."""
NONE = "none"
"""What stands for what only the other run has."""
LONGEST = 60
"""Characters of a value that are shown."""


@part
class Difference:
    """Something that is not the same in both runs."""

    what: str
    """A key, or a name."""
    first: str
    """In the first run."""
    second: str
    """In the second."""


@part
class Row:
    """What both runs say of an arm."""

    arm: str
    """The arm."""
    measure: str
    """Of a metric its label; ``verdict`` for the arm's word."""
    first: str
    """What the first run says."""
    second: str
    """What the second says."""
    first_interval: str
    """The difference to base that it is about, with its interval and n; empty of the arm's word."""
    second_interval: str
    """The same of the second."""
    outcome: Outcome
    """``turned over``: one says better and the other worse."""
    apart: bool
    """Whether the two intervals have nothing in common."""


@part
class Comparison:
    """Of two runs."""

    names: tuple[str, str]
    """Where they are."""
    titles: tuple[str, str]
    """Of their pages."""
    differences: dict[str, list[Difference]]
    """Configuration, data, models, code, hardware -> what differs."""
    same: dict[str, int]
    """The same -> how much of it does not."""
    rows: list[Row]
    """Of every arm that both have its word, and its metrics that both have."""
    alone: list[str]
    """Arms that one run has alone."""
    neither: list[str]
    """What neither run has a verdict of: those are no agreement."""

    @property
    def counts(self) -> dict[str, int]:
        """Outcome -> rows; the worst first."""
        counted = Counter(row.outcome for row in self.rows)
        return {
            outcome: counted[outcome] for outcome in ("turned over", "undecided in one", "undecided in both", "agree")
        }

    @property
    def turned_over(self) -> bool:
        return self.counts["turned over"] > 0

    @property
    def summary(self) -> str:
        """In a sentence."""
        told = ", ".join(f"{number} {outcome}" for outcome, number in self.counts.items() if number)
        return f"Of {len(self.rows)} verdicts: {told}."


def compare(first: Contents, second: Contents, names: tuple[str, str]) -> Comparison:
    """All of it.

    Raises:
        UserError: they have no arm in common.
    """
    both = [verdict.arm for verdict in first.verdicts if verdict.arm in second.table]
    if not both:
        arms = "; ".join(
            f"{name}: {', '.join(it.arm for it in run.verdicts)}"
            for name, run in zip(names, (first, second), strict=True)
        )
        raise UserError(f"the runs have no arm in common, so there is no verdict to compare ({arms})")
    sides = {
        "configuration": (dict(_flat(first.configuration)), dict(_flat(second.configuration))),
        "data": tuple(
            {name: _manifest(it.rows, it.sha256) for name, it in run.manifests.items()} for run in (first, second)
        ),
        "models": tuple({it.name: it.digest for it in run.models} for run in (first, second)),
        "code": tuple({"regdpo": run.regdpo, **run.packages, **_stages(run.code)} for run in (first, second)),
        "hardware": (_hardware(first), _hardware(second)),
    }
    found = {what: _differences(*pair) for what, pair in sides.items()}
    rows = [row for arm in both for row in _rows(arm, first, second)]
    return Comparison(
        names=names,
        titles=(_title(first), _title(second)),
        differences=found,
        same={what: len({*pair[0], *pair[1]}) - len(found[what]) for what, pair in sides.items()},
        rows=[row for row in rows if not _unmeasured(row)],
        neither=[f"{row.measure} of {row.arm}" for row in rows if _unmeasured(row)],
        alone=[
            f"{arm} (in {name})"
            for name, run, other in ((names[0], first, second), (names[1], second, first))
            for arm in (verdict.arm for verdict in run.verdicts)
            if arm not in other.table
        ],
    )


def outcome(first: str, second: str) -> Outcome:
    """How two readings stand to each other."""
    one, other = SAYS.get(first, 0), SAYS.get(second, 0)
    if one and other:
        return "agree" if one == other else "turned over"
    if one or other:
        return "undecided in one"
    return "agree" if first == second else "undecided in both"


def text(found: Comparison) -> str:
    """For a terminal."""
    lines = [f"A  {found.names[0]}: {found.titles[0]}", f"B  {found.names[1]}: {found.titles[1]}", ""]
    for what, differences in found.differences.items():
        lines.append(f"{what.capitalize()}: {len(differences)} differ, {found.same[what]} the same")
        width = max((len(it.what) for it in differences), default=0)
        lines += [f"  {it.what:{width}}  {it.first} -> {it.second}" for it in differences]
    lines += ["", "Verdicts"]
    cells = [
        (
            row.arm,
            row.measure,
            " ".join(filter(None, (row.first, row.first_interval))),
            " ".join(filter(None, (row.second, row.second_interval))),
            row.outcome.upper() if row.outcome == "turned over" else row.outcome,
            "intervals apart" if row.apart else "",
        )
        for row in found.rows
    ]
    heads = ("arm", "measure", "A", "B", "", "")
    widths = [max(len(cell) for cell in column) for column in zip(heads, *cells, strict=True)]
    for cells_of in (heads, *cells):
        lines.append("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(cells_of, widths, strict=True)).rstrip())
    lines += [f"  in one run alone: {arm}" for arm in found.alone]
    if found.neither:
        lines.append(f"  measured in neither: {', '.join(found.neither)}")
    return "\n".join([*lines, "", found.summary])


def write(found: Comparison, path: Path) -> None:
    """Write the page: one file that loads nothing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    with atomic(path) as temporary:
        temporary.write_text(environment.get_template("compare.html").render(found=found), encoding="utf-8")


def _rows(arm: str, first: Contents, second: Contents) -> Iterator[Row]:
    word, other_word = (next(it.word for it in run.verdicts if it.arm == arm) for run in (first, second))
    yield Row(arm, "verdict", word, other_word, "", "", outcome(word, other_word), apart=False)
    for key, metric in first.metrics.items():
        if key in second.metrics:
            one, other = first.table[arm][key], second.table[arm][key]
            readings = one.reading, other.reading
            told = _interval(one, metric), _interval(other, metric)
            yield Row(arm, metric.label, *readings, *told, outcome(*readings), _apart(one.against, other.against))


def _unmeasured(row: Row) -> bool:
    return row.first == row.second == "not measured"


def _interval(cell: Cell, metric: Metric) -> str:
    against = cell.against
    if against is None:
        return f"({'; '.join(cell.reasons)})" if cell.reasons else ""
    return f"{page.change(against, metric.decimals)}, n {against.n}".replace(page.SPACE, " ")


def _apart(*both: Interval | None) -> bool:
    ends = [(it.low, it.high) for it in both if it and it.low is not None and it.high is not None]
    return len(ends) == 2 and max(low for low, _ in ends) > min(high for _, high in ends)


def _differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[Difference]:
    names = dict.fromkeys([*first, *second])
    sides = ((name, first.get(name, NONE), second.get(name, NONE)) for name in names)
    return [Difference(name, _short(one), _short(other)) for name, one, other in sides if one != other]


def _short(value: str) -> str:
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"


def _manifest(rows: int, sha256: str) -> str:
    return f"{rows:,} rows {sha256[:12]}"


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        here = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict) and value:
            yield from _flat(value, here)
        else:
            yield here, json.dumps(value, ensure_ascii=False)


def _stages(code: Mapping[str, str]) -> dict[str, str]:
    return {f"code of {entry}": digest for entry, digest in code.items()}


def _hardware(run: Contents) -> dict[str, str]:
    return {
        it.name: f"{it.processes} on {it.machine or it.hardware or it.device}, attention {it.attention}"
        for it in run.models
        if it.processes
    }


def _title(run: Contents) -> str:
    return str(run.configuration["report"]["title"])
