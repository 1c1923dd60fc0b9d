"""The filters of clips, each declared once: the score that it looks at, the key of its threshold, and what it says.

Configuration, manifests and tests derive from ``FILTERS``. A new filter is a function in ``filters`` and an entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from regdpo.core.section import Fraction, NonNegative, Positive

LOOK = "regdpo.data.filters"


@dataclass(frozen=True)
class Filter:
    """A score of a clip and the threshold beyond which the clip is rejected."""

    score: str
    """Its name in ``ClipRow.scores``."""
    function: str
    """``module:name``, which takes a ``filters.Look`` and gives the score."""
    key: str
    """Of the threshold, in ``clips.filters``."""
    bound: Literal["least", "greatest"]
    """What the threshold is to the score."""
    default: float
    kind: Any
    """Type of the threshold with its bounds, as pydantic reads it."""
    description: str
    says: str
    """Why a clip is rejected; ``score`` and ``limit`` are filled in."""
    measures: str = ""
    """What the score is, with its unit."""

    @property
    def module(self) -> str:
        """Its code."""
        return self.function.partition(":")[0]

    def measure(self) -> Callable[[Any], float]:
        """The function."""
        module, _, name = self.function.partition(":")
        found: Callable[[Any], float] = getattr(import_module(module), name)
        return found

    def rejects(self, score: float, limit: float) -> bool:
        """Whether the score lies beyond the threshold."""
        return score < limit if self.bound == "least" else score > limit


FILTERS: dict[str, Filter] = {
    "enlarged": Filter(
        score="upscale",
        function=f"{LOOK}:upscale",
        key="max_upscale",
        bound="greatest",
        default=1.5,
        kind=Positive,
        description="Greatest factor by which frames are enlarged to the clip's size; above: enlarged. From 480 to 720 "
        "rows it is 1.5.",
        says="frames are enlarged {score:.3g} times, more than {limit:g}; clips.width and clips.height, or "
        "clips.buckets, ask for it",
        measures="how many times frames are enlarged",
    ),
    "black": Filter(
        score="luma",
        function=f"{LOOK}:luma",
        key="min_luma",
        bound="least",
        default=8.0,
        kind=NonNegative,
        description="Least mean luma (0..255); below: black.",
        says="mean luma {score:.1f} is below {limit:g}",
        measures="mean luma, 0..255",
    ),
    "frozen": Filter(
        score="frozen",
        function=f"{LOOK}:frozen",
        key="max_frozen",
        bound="greatest",
        default=0.5,
        kind=Fraction,
        description="Greatest share of frames equal to the one before; above: frozen.",
        says="{score:.0%} of the frames equal the one before, more than {limit:.0%}",
        measures="share of frames equal to the one before",
    ),
    "static": Filter(
        score="motion",
        function=f"{LOOK}:motion",
        key="min_motion",
        bound="least",
        default=0.5,
        kind=NonNegative,
        description="Least mean absolute difference of neighbouring frames (luma, 0..255); below: static.",
        says="motion {score:.2f} is below {limit:g}",
        measures="mean difference of neighbouring frames, luma 0..255",
    ),
}
"""First word of the reason -> declaration; of several that reject a clip the first is told."""
