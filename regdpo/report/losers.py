"""Who made the losers, and what of it was rejected, shaped for the page."""

from collections import defaultdict

from regdpo.core.rows import NegativeRow
from regdpo.report.parts import part


@part
class Rejected:
    """What was rejected for one kind of reason."""

    kind: str
    """The word before the colon of the reason, such as ``black``."""
    videos: int
    """How many."""
    example: str
    """One reason in full."""


@part
class Generator:
    """One model that losers were made by."""

    name: str
    """Of ``negatives.generators``, or base."""
    how: str
    """Family, steps and guidance."""
    made: int
    """Videos, rejected ones too."""
    rejected: list[Rejected]
    """The most frequent first."""


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


def _rejected(rows: list[NegativeRow]) -> list[Rejected]:
    reasons = defaultdict(list)
    for row in rows:
        if row.status == "rejected":
            reasons[row.kind].append(row.reason)
    found = [Rejected(kind, len(those), min(those)) for kind, those in reasons.items()]
    return sorted(found, key=lambda it: (-it.videos, it.kind))
