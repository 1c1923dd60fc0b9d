"""Who made the losers, and what of it was rejected, shaped for the page."""

from collections import defaultdict
from dataclasses import dataclass

from regdpo.core.rows import NegativeRow


@dataclass(frozen=True)
class Generator:
    """One model that losers were made by."""

    name: str
    how: str  # family, steps and guidance
    made: int  # videos, rejected ones too
    rejected: list[tuple[str, int, str]]  # kind of reason, videos, one reason in full; most frequent first


def generators(rows: list[NegativeRow]) -> list[Generator]:
    """In the order of their names."""
    by_name: dict[str, list[NegativeRow]] = defaultdict(list)
    for row in rows:
        by_name[row.generator].append(row)
    return [Generator(name, _how(made[0]), len(made), _rejected(made)) for name, made in sorted(by_name.items())]


def _how(row: NegativeRow) -> str:
    solver = "" if row.solver == "checkpoint" else f" of {row.solver}"
    low = "" if row.guidance_low is None else f" and {row.guidance_low:g}"
    cache = "" if row.cache == "off" else f", cache {row.cache}"
    return f"{row.family} {row.task}, {row.steps} steps{solver}{cache}, guidance {row.guidance:g}{low}"


def _rejected(rows: list[NegativeRow]) -> list[tuple[str, int, str]]:
    reasons = defaultdict(list)
    for row in rows:
        if row.status == "rejected":
            reasons[row.kind].append(row.reason)
    return sorted(((kind, len(all_), min(all_)) for kind, all_ in reasons.items()), key=lambda it: (-it[1], it[0]))
