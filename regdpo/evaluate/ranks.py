"""Totals of ranks over arms. They say who is ahead of whom among these arms, and are no scores of VBench."""

import math
from collections.abc import Mapping

from regdpo.core.errors import UserError


def rank_total(table: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
    """The sum of an arm's points: in each dimension the best of n arms gets n and the worst 1, tied arms the higher.

    That is ``Total_Score`` of Reg-DPO's tables (arXiv 2511.01450). It depends on which arms are compared, and hides how
    far they are apart.

    Args:
        table: arm -> dimension -> score; higher is better.

    Raises:
        UserError: arms have other dimensions, or a score is no number.
    """
    dimensions = list(next(iter(table.values()), {}))
    for arm, scores in table.items():
        if odd := set(scores) ^ set(dimensions):
            raise UserError(
                f"rank total: {arm} and {next(iter(table))} differ in {', '.join(sorted(odd))}; give all the same"
            )
        if bad := [name for name, score in scores.items() if not math.isfinite(score)]:
            raise UserError(f"rank total: {arm} has no number for {', '.join(bad)}")
    return {
        arm: sum(sum(other[name] <= scores[name] for other in table.values()) for name in dimensions)
        for arm, scores in table.items()
    }
