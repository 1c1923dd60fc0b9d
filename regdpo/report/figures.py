"""Figures as inline SVG. Colours are CSS variables of the page, so that light and dark follow the reader's choice."""

import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regdpo.report.gather import Run
from regdpo.report.results import Cell

PALETTE = 8
"""Colours of arms in style.css (Okabe and Ito's, safe for colour-blind eyes); further arms begin again."""
DASHES = ["-", (0, (4, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5))]
POINTS = 300
"""Most points of a drawn line."""

INK, FAINT, LINE = "#010101", "#010102", "#010103"
VARIABLES = {INK: "var(--ink)", FAINT: "var(--muted)", LINE: "var(--line)"} | {
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


@dataclass(frozen=True)
class Curve:
    """A panel of training curves."""

    key: str
    title: str
    unit: str
    table: str = "metrics"
    log: bool = False
    zero: bool = False


CURVES = (
    Curve("loss", "Loss", "of each objective; log scale", log=True),
    Curve("win_gap", "Win gap", "winner's MSE minus the reference's; below 0 is better", zero=True),
    Curve("lose_gap", "Lose gap", "loser's MSE minus the reference's", zero=True),
    Curve("accuracy", "Implicit accuracy", "share of pairs with win gap below lose gap"),
    Curve("dgr", "DGR", "DPO gradient ratio: weight of the DPO term"),
    Curve("error", "Validation error", "denoising MSE on the validation split", table="eval"),
)


def colour(index: int) -> str:
    """Sentinel of an arm's colour."""
    return f"#0202{index % PALETTE:02x}"


def forest(cells: dict[str, Cell], name: str) -> str:
    """Differences to base of one metric: a row an arm, a dot with its interval, zero marked."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.1, 0.75 + 0.4 * len(cells)), layout="constrained")
        axes = figure.subplots()
        for row, (arm, cell) in enumerate(cells.items()):
            axes.text(0, row - 0.3, arm, transform=axes.get_yaxis_transform(), va="center")
            if cell.delta is None:
                axes.annotate("missing", (0, row), color=FAINT, va="center", ha="left", xytext=(4, 0),
                              textcoords="offset points")  # fmt: skip
                continue
            if cell.delta.low is not None and cell.delta.high is not None:
                axes.plot([cell.delta.low, cell.delta.high], [row, row], color=colour(row), lw=2.2,
                          solid_capstyle="round")  # fmt: skip
            axes.plot(cell.delta.mean, row, "o", color=colour(row), ms=5.5)
        metric = next(iter(cells.values())).metric
        axes.axvline(0, color=FAINT, lw=0.9)
        axes.margins(x=0.12)
        axes.set_yticks([])
        axes.set_ylim(len(cells) - 0.6, -0.7)
        axes.locator_params(axis="x", nbins=4)
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.spines["left"].set_visible(False)
        axes.set_title(f"{metric.label}{f' ({metric.unit})' if metric.unit else ''}")
        axes.set_xlabel("arm minus base; " + ("left of 0 is better" if metric.better < 0 else "right of 0 is better"))
        return svg(figure, name, f"{metric.label}: difference of each arm to base with its interval")


def curves(arms: dict[str, list[Run]]) -> list[tuple[Curve, str]]:
    """A panel a quantity that any run has: arms by colour, seeds by line style, raw values faint behind smooth ones."""
    panels = []
    for curve in CURVES:
        drawn = False
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(4.1, 2.65), layout="constrained")
            axes = figure.subplots()
            for index, runs in enumerate(arms.values()):
                for dash, run in enumerate(runs):
                    table = run.metrics if curve.table == "metrics" else run.evals
                    if curve.key in table:
                        rows = table[["step", curve.key]].dropna()
                        _line(axes, rows, curve, colour(index), DASHES[dash % len(DASHES)])
                        drawn = drawn or not rows.empty
            if curve.zero:
                axes.axhline(0, color=FAINT, lw=0.9)
            if curve.log:
                axes.set_yscale("log")
            if curve.key == "accuracy":
                axes.set_ylim(-0.03, 1.03)
            if not curve.log:
                axes.ticklabel_format(axis="y", useOffset=False)
            axes.set_title(curve.title)
            axes.set_xlabel("optimiser step")
            if drawn:
                panels.append((curve, svg(figure, curve.key, f"{curve.title} over steps: {curve.unit}")))
    return panels


def _line(axes: Axes, rows: pd.DataFrame, curve: Curve, color: str, dash: object) -> None:
    if curve.table == "eval":
        axes.plot(rows["step"], rows[curve.key], color=color, ls=dash, lw=1.5, marker="o", ms=3)
        return
    smooth = rows[curve.key].rolling(max(1, len(rows) // 20), center=True, min_periods=1).mean()
    stride = max(1, -(-len(rows) // POINTS))
    axes.plot(rows["step"][::stride], rows[curve.key][::stride], color=color, lw=0.6, alpha=0.22)
    axes.plot(rows["step"][::stride], smooth[::stride], color=color, ls=dash, lw=1.5)


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
