"""How the scores of clips lie about their thresholds, as inline SVG."""

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from regdpo.config import schema
from regdpo.core.frames import kinds
from regdpo.data.registry import FILTERS
from regdpo.report.figures import FAINT, INK, STYLE, colour, svg

KEPT, REJECTED = colour(0), colour(3)
BINS = 40
SHOWN = 0.5
"""Percent of the values at each end that a histogram leaves out where they lie far off."""

WIDTH = 0.2
"""Of a histogram at least, as a share of the values: narrower ones would show differences that are none."""


@dataclass(frozen=True)
class Score:
    """One score, and what was decided by it."""

    name: str
    what: str
    limits: list[tuple[str, float | None, int]]  # key, threshold (None: off), clips that it took


def all_scores(rows: pd.DataFrame, filters: schema.Filters) -> list[tuple[Score, str]]:
    """Every declared score that some clip has, with its histogram."""
    found = []
    for name in dict.fromkeys(it.score for it in FILTERS.values()):
        having = rows[rows[f"scores.{name}"].notna()] if f"scores.{name}" in rows else rows[:0]
        if having.empty:
            continue
        kept, of = (having["status"] == "accepted").to_numpy(), kinds(having["reason"])
        mine = {kind: it for kind, it in FILTERS.items() if it.score == name}
        limits = [(it.key, getattr(filters, it.key), int(((of == kind) & ~kept).sum())) for kind, it in mine.items()]
        score = Score(name, next(iter(mine.values())).measures, limits)
        found.append((score, _histogram(score, having[f"scores.{name}"].to_numpy(), kept)))
    return found


def _histogram(score: Score, values: np.ndarray, kept: np.ndarray) -> str:
    limits = [limit for _, limit, _ in score.limits if limit is not None]
    low, high = np.percentile(values, [SHOWN, 100 - SHOWN])
    reach = max(high - low, WIDTH * max(abs(low), abs(high))) or 0.1
    beside = (reach - (high - low)) / 2
    low, high = max(low - beside, min(low, 0)), high + beside
    near = [limit for limit in limits if low - reach <= limit <= high + reach]
    low, high = min([low, *near]) - 0.02 * reach, max([high, *near]) + 0.02 * reach
    edges = np.linspace(low, high, BINS + 1)
    inside = values.clip(low, high)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.1, 2.1), layout="constrained")
        axes = figure.subplots()
        axes.hist([inside[kept], inside[~kept]], bins=edges.tolist(), stacked=True, color=[KEPT, REJECTED])
        for limit in limits:
            if limit in near:
                axes.axvline(limit, color=INK, lw=1.1, ls=(0, (4, 2)))
            else:
                side, place = ("left", 0) if limit < low else ("right", 1)
                text = f"threshold {limit:g}, further {side}"
                axes.text(place, 1, text, transform=axes.transAxes, ha=side, va="bottom", color=FAINT)
        axes.set_xlim(low, high)
        axes.grid(visible=False, axis="x")
        axes.locator_params(axis="y", nbins=4, integer=True)
        axes.locator_params(axis="x", nbins=6)
        return svg(figure, f"score-{score.name}", f"How many clips have which {score.name.replace('_', ' ')}")
