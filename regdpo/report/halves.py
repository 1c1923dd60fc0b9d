"""What tells both halves of the pairs apart, shaped for the page from what the halves stage has measured."""

from dataclasses import dataclass

import numpy as np

from regdpo.core.rows import HalfRow
from regdpo.evaluate import stats

LARGE = 0.8
"""Standardised difference that counts as large (J. Cohen, Statistical Power Analysis, 1988)."""


@dataclass(frozen=True)
class Difference:
    """One statistic of winners and losers: means over the pairs, and how far apart they are."""

    name: str
    unit: str
    winner: float
    loser: float
    standardised: float | None  # none of too few pairs
    winner_higher: float  # pairs; one where both are equal counts half

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
                standardised=stats.standardised(winner, loser) if len(winners) >= least else None,
                winner_higher=float(((winner > loser) + 0.5 * (winner == loser)).sum()),
            )
        )
    return found
