"""What people said of the videos of a source of labels, and how far they agree, shaped for the page."""

from collections.abc import Iterable

from regdpo.evaluate.gsb import ordinal_alpha
from regdpo.report.parts import part

SIGNS = {"+": 1, "-": -1, "0": 0}


@part
class Raters:
    """Of a source of labels."""

    judged: int
    """Videos, or pairs of them."""
    ties: int
    """Of these, whose votes cancel each other."""
    agreement: float | None
    """Krippendorff's alpha, ordinal; null where no two raters judged the same, or all always said the same."""


def by_source(votes: Iterable[tuple[str, str]]) -> dict[str, Raters]:
    """By source of pairs.

    Args:
        votes: a source and the signs of its manifest's column ``votes``, for each video or pair.
    """
    found: dict[str, list[list[int]]] = {}
    for origin, said in votes:
        found.setdefault(origin, []).append([SIGNS[sign] for sign in said])
    return {
        origin: Raters(len(units), sum(not sum(unit) for unit in units), ordinal_alpha(units))
        for origin, units in sorted(found.items())
    }
