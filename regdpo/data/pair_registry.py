"""Where pairs come from, each kind declared once: what it is, what it needs, and the function that lists its pairs.

Configuration, rules and documents derive from ``PAIR_SOURCES``. A new kind of list is a function that gives
``pair_lists.Listed`` rows and an entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

LISTS = "regdpo.data.pair_lists"


@dataclass(frozen=True)
class PairKind:
    """A kind of source of pairs."""

    description: str
    """What it is, for the list of the configuration's words."""
    function: str = ""
    """``module:name``, which takes a ``schema.PairSource`` and lists its pairs; empty: they are made by the workflow's
    own stages."""
    needs: tuple[str, ...] = ()
    """Keys of the source that have to be given."""
    takes: tuple[str, ...] = ()
    """Keys that may be given besides."""
    ranked: bool = False
    """Whether both halves are chosen by score from what a model makes of a prompt."""

    @property
    def imported(self) -> bool:
        """Whether others made the pairs."""
        return bool(self.function)

    def list(self) -> Callable[[Any], list[Any]]:
        """The function."""
        module, _, name = self.function.partition(":")
        found: Callable[[Any], list[Any]] = getattr(import_module(module), name)
        return found


PAIR_SOURCES: dict[str, PairKind] = {
    "gt": PairKind("the clips of `videos` against what the base makes of their captions (GT-Pair)"),
    "best_of_n": PairKind(
        "of several videos that the base makes of a prompt, by a score",
        needs=("candidates",),
        takes=("weights",),
        ranked=True,
    ),
    "labels": PairKind(
        "what people said: which of two videos is better, or whether one is good",
        f"{LISTS}:labels",
        ("path",),
        ("root", "axis", "threshold"),
    ),
    "folders": PairKind(
        "two folders whose videos have the same names", f"{LISTS}:folders", ("path", "losers"), ("captions",)
    ),
    "csv": PairKind("a table with the columns winner, loser and caption", f"{LISTS}:csv_table", ("path",), ("root",)),
    "videodpo": PairKind("VideoDPO's folder with metadata.json and pair.json", f"{LISTS}:videodpo", ("path",)),
    "fastvideo": PairKind(
        "FastVideo's folder with videos2caption.json, and losers of the same names",
        f"{LISTS}:fastvideo",
        ("path", "losers"),
    ),
    "cosmos": PairKind(
        "the clips that Cosmos-Curate wrote, and losers of the same names", f"{LISTS}:cosmos", ("path", "losers")
    ),
}
"""Word of a source's ``kind`` -> declaration."""
