"""What tells both halves of the pairs apart, shaped for the page from what the halves stage has measured."""

from collections import Counter

import numpy as np

from regdpo.config.schema import Bootstrap
from regdpo.core.rows import HalfRow, PairRow
from regdpo.evaluate import shortcut, stats
from regdpo.report.parts import part

LARGE = 0.8
"""Standardised difference that counts as large (J. Cohen, Statistical Power Analysis, 1988)."""

FURTHEST = 1000.0
"""Standard deviations at which a difference is cut off: of halves that do not vary it has no end."""

STRETCHES = 10
"""Stretches of time that footage of one shot is divided into."""


@part
class Difference:
    """One statistic of winners and losers: means over the pairs, and how far apart they are."""

    name: str
    """What is measured."""
    unit: str
    """What it is."""
    winner: float
    """Mean of the winners."""
    loser: float
    """Mean of the losers."""
    standardised: float | None
    """Difference of the means in standard deviations, cut off at 1000; null of too few pairs."""
    winner_higher: float
    """Pairs whose winner has more of it; one where both are equal counts half."""

    @property
    def large(self) -> bool:
        return self.standardised is not None and abs(self.standardised) >= LARGE


def differences(rows: list[HalfRow], least: int) -> list[Difference]:
    """One for each statistic; none without pairs. From fewer than ``least`` pairs a standard deviation says nothing."""
    winners = [row for row in rows if row.half == "winner"]
    losers = {row.pair_id: row for row in rows if row.half == "loser"}
    found = []
    for name, unit in HalfRow.statistics().items() if rows else ():
        winner = np.array([getattr(row, name) for row in winners], np.float64)
        loser = np.array([getattr(losers[row.pair_id], name) for row in winners], np.float64)
        found.append(
            Difference(
                name=name.replace("_", " "),
                unit=unit,
                winner=float(winner.mean()),
                loser=float(loser.mean()),
                standardised=_apart(winner, loser) if len(winners) >= least else None,
                winner_higher=float(((winner > loser) + 0.5 * (winner == loser)).sum()),
            )
        )
    return found


def _apart(winner: np.ndarray, loser: np.ndarray) -> float:
    return min(max(stats.standardised(winner, loser), -FURTHEST), FURTHEST)


def shortcut_accuracy(
    rows: list[HalfRow], pairs: list[PairRow], least: int, bootstrap: Bootstrap
) -> shortcut.Accuracy | None:
    """How often the statistics alone tell the winner of pairs of videos (of one video: of shots or stretches of time)
    that were held out; None from fewer than ``least`` pairs."""
    of = {pair.pair_id: pair for pair in pairs}
    winners = sorted((row for row in rows if row.half == "winner"), key=lambda row: row.pair_id)
    if len(winners) < least:
        return None
    losers = {row.pair_id: row for row in rows if row.half == "loser"}
    mine = [of[row.pair_id] for row in winners]
    if len({pair.source for pair in mine}) > 1:
        by, groups = "videos", [pair.source for pair in mine]
    elif len({pair.shot for pair in mine}) > 1:
        by, groups = "shots of one video", [f"{pair.shot:06}" for pair in mine]
    else:
        places = sorted({pair.start for pair in mine})
        part = {start: number * STRETCHES // len(places) for number, start in enumerate(places)}
        by, groups = "stretches of one shot", [f"{part[pair.start]:06}" for pair in mine]
    first, second = _values(winners), _values([losers[row.pair_id] for row in winners])
    return shortcut.held_out(first, second, groups, by, bootstrap)


def shortcuts_by_kind(
    rows: list[HalfRow], pairs: list[PairRow], least: int, bootstrap: Bootstrap
) -> dict[str, shortcut.Accuracy | None]:
    """The same of the pairs of each source by its name, of one whose losers several generators made also by theirs;
    empty where all pairs are of one kind."""
    kinds = sorted({(pair.origin, pair.generator) for pair in pairs if pair.loser})
    several = Counter(origin for origin, _ in kinds)
    found = {}
    for origin, generator in kinds if len(kinds) > 1 else ():
        mine = [pair for pair in pairs if (pair.origin, pair.generator) == (origin, generator)]
        ids = {pair.pair_id for pair in mine}
        name = f"{origin}, losers by {generator}" if several[origin] > 1 else origin
        found[name] = shortcut_accuracy([row for row in rows if row.pair_id in ids], mine, least, bootstrap)
    return found


def _values(rows: list[HalfRow]) -> np.ndarray:
    return np.array([[getattr(row, name) for name in HalfRow.statistics()] for row in rows], np.float64)
