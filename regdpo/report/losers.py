"""Who made the losers, and what of it was rejected, shaped for the page."""

from collections import defaultdict
from collections.abc import Mapping

from regdpo.core.model_names import ModelName
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


def generators(rows: Mapping[str, list[NegativeRow]]) -> list[Generator]:
    """In the order of their names. What a generator of its own made is the same for all base models, and counts once.

    Args:
        rows: by base model.
    """
    made: dict[tuple[str, str], list[NegativeRow]] = {}
    named = {}
    for base, of_base in rows.items():
        for key in sorted({(row.generator, row.model) for row in of_base} - made.keys()):
            made[key] = [row for row in of_base if (row.generator, row.model) == key]
            named[key] = f"{ModelName.parse(base).of}{key[0]}"
    return [
        Generator(named[key], _how(made[key][0]), len(made[key]), _rejected(made[key]))
        for key in sorted(made, key=named.__getitem__)
    ]


def _how(row: NegativeRow) -> str:
    solver = "" if row.solver == "checkpoint" else f" of {row.solver}"
    low = "" if row.guidance_low is None else f" and {row.guidance_low:g}"
    cache = "" if row.cache == "off" else f", cache {row.cache}"
    begun = "" if row.strength is None else ", from the winner, noised"
    return f"{row.family} {row.task}, {row.steps} steps{solver}{cache}, guidance {row.guidance:g}{low}{begun}"


def _rejected(rows: list[NegativeRow]) -> list[Rejected]:
    reasons = defaultdict(list)
    for row in rows:
        if row.status == "rejected":
            reasons[row.kind].append(row.reason)
    found = [Rejected(kind, len(those), min(those)) for kind, those in reasons.items()]
    return sorted(found, key=lambda it: (-it.videos, it.kind))
