"""Figures as inline SVG. Colours are CSS variables of the page, so that light and dark follow the reader's choice."""

import io
import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regdpo.report.curves import Curve, Line, Marks
from regdpo.report.results import Cell

PALETTE = 8
"""Colours of arms in style.css (Okabe and Ito's, safe for colour-blind eyes); further arms begin again."""
FEW = 10
"""Axes of a radar whose names have room around it."""
DASHES = ["-", (0, (4, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5))]

INK, FAINT, LINE, BASE, WARN = "#010101", "#010102", "#010103", "#010104", "#010105"
NAMES = {INK: "ink", FAINT: "muted", LINE: "line", BASE: "base", WARN: "warn"}
VARIABLES = {sentinel: f"var(--{name})" for sentinel, name in NAMES.items()} | {
    f"#0202{i:02x}": f"var(--arm{i})" for i in range(PALETTE)
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "regdpo",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
}


def colour(index: int) -> str:
    """Sentinel of an arm's colour."""
    return f"#0202{index % PALETTE:02x}"


def forest(cells: dict[str, Cell], name: str) -> str:
    """Differences to base of one metric: a row an arm, a dot with its interval, zero marked. Of a metric without
    direction, those of the distance to real footage."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.1, 0.75 + 0.48 * len(cells)), layout="constrained")
        axes = figure.subplots()
        for row, (arm, cell) in enumerate(cells.items()):
            axes.text(0, row - 0.38, arm, transform=axes.get_yaxis_transform(), va="center")
            against = cell.against
            if against is None:
                axes.annotate("missing", (0, row), color=FAINT, va="center", ha="left", xytext=(4, 0),
                              textcoords="offset points")  # fmt: skip
                continue
            if against.low is not None and against.high is not None:
                axes.plot([against.low, against.high], [row, row], color=colour(row), lw=2.2,
                          solid_capstyle="round")  # fmt: skip
            axes.plot(against.mean, row, "o", color=colour(row), ms=5.5)
        metric = next(iter(cells.values())).metric
        axes.axvline(0, color=FAINT, lw=0.9)
        axes.margins(x=0.12)
        axes.set_yticks([])
        axes.set_ylim(len(cells) - 0.6, -0.7)
        axes.locator_params(axis="x", nbins=4)
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.spines["left"].set_visible(False)
        axes.set_title(f"{metric.label}{f' ({metric.unit})' if metric.unit else ''}")
        says = {-1: "left of 0 is better", 1: "right of 0 is better", 0: "of the distance to real; left of 0 is closer"}
        axes.set_xlabel(f"arm minus base{' ' if not metric.better else '; '}{says[metric.better]}")
        return svg(figure, name, f"{metric.label}: difference of each arm to base with its interval")


def curve(shown: Curve, arms: list[str], trainings: list[tuple[str, int]], marks: list[Marks]) -> str:
    """A panel: arms by colour, trainings by line style, raw values faint behind smooth ones. Where guards spoke is
    marked on the win gap: a triangle for drift, a cross for a step that was skipped.

    Args:
        trainings: of each arm, by base model and seed.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.1, 2.65), layout="constrained")
        axes = figure.subplots()
        for line in shown.lines:
            dash = DASHES[trainings.index((line.base, line.seed)) % len(DASHES)]
            _line(axes, line, colour(arms.index(line.arm)), dash)
        if shown.key == "win_gap":
            _mark(axes, shown.lines, marks)
        if shown.zero:
            axes.axhline(0, color=FAINT, lw=0.9)
        if shown.log:
            axes.set_yscale("log")
        else:
            axes.ticklabel_format(axis="y", useOffset=False)
        if shown.key == "accuracy":
            axes.set_ylim(-0.03, 1.03)
        axes.set_title(shown.title)
        axes.set_xlabel("optimiser step")
        return svg(figure, shown.key, f"{shown.title} over steps: {shown.unit}")


def _mark(axes: Axes, lines: Sequence[Line], marks: list[Marks]) -> None:
    """On the smooth line; a step that was skipped has no value, so it is marked where the line was before it."""
    of = {(line.arm, line.base, line.seed): line for line in lines}
    for mark in marks:
        line = of.get((mark.arm, mark.base, mark.seed))
        if line is None:
            continue
        for steps, symbol in ((mark.drift, "^"), (mark.skipped, "x")):
            heights = [line.smooth[max(0, bisect_right(line.steps, step) - 1)] for step in steps]
            axes.plot(steps, heights, symbol, color=WARN, ms=6.5, mew=1.4, zorder=5)


def radar(names: list[str], lines: dict[str, list[float]]) -> str:
    """An axis a measure, from 0 in the middle to 1.

    Args:
        names: of the axes. lines: colour -> value on each.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.1), layout="constrained")
        axes: Any = figure.add_subplot(projection="polar")
        angles = [2 * math.pi * number / len(names) for number in range(len(names))]
        for number, (color, values) in enumerate(lines.items()):
            dash = "--" if color == BASE else "-"
            axes.plot([*angles, angles[0]], [*values, values[0]], color=color, lw=1.8, ls=dash, marker="o", ms=3.5,
                      alpha=0.9, zorder=3 + number)  # fmt: skip
        axes.set(ylim=(min(0, *map(min, lines.values())), 1.04), theta_zero_location="N", theta_direction=-1)
        axes.set_thetagrids([math.degrees(angle) for angle in angles], [fill(name, 16) for name in names], color=INK)
        for label, angle in zip(axes.get_xticklabels(), angles, strict=True):
            label.set_horizontalalignment({0: "center", 1: "left", -1: "right"}[round(math.sin(angle))])
        axes.tick_params(axis="x", pad=3)
        axes.set_rgrids([0.25, 0.5, 0.75, 1], [""] * 4)
        axes.spines["polar"].set_visible(False)
        return svg(figure, "radar", "Normalised scores of base and arms; the table has the same numbers")


def _line(axes: Axes, line: Line, color: str, dash: object) -> None:
    if not line.smooth:
        axes.plot(line.steps, line.values, color=color, ls=dash, lw=1.5, marker="o", ms=3)
        return
    axes.plot(line.steps, line.values, color=color, lw=0.6, alpha=0.22)
    axes.plot(line.steps, line.smooth, color=color, ls=dash, lw=1.5)


def svg(figure: Figure, name: str, label: str) -> str:
    """The figure's SVG element alone: page colours, ids of its own, no date, no fixed size."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True,
                   metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # fmt: skip
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    head, _, body = text.partition(">")
    box = re.search(r'viewBox="[^"]+"', head)
    assert box is not None
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    for sentinel, variable in VARIABLES.items():
        body = body.replace(sentinel, variable)
    return f'<svg {box.group()} role="img" aria-label="{label}">{body.strip()}'
