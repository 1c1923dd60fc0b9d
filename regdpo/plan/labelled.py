"""How many samples of a step have a label of their own, and so no loser: they take half the passes of a pair."""

from collections import Counter
from collections.abc import Iterable, Mapping

from regdpo.config.schema import Config, PairSource
from regdpo.config.training import Annealed, annealed
from regdpo.core.errors import UserError
from regdpo.core.rows import LatentRow
from regdpo.data import labels
from regdpo.objectives.registry import OBJECTIVES

ARMS = "train.arms."
Counts = Mapping[str, tuple[int, int]]
"""Source -> its samples with a label, and all."""


def share(counts: Counts, shares: Mapping[str, Annealed]) -> float:
    """Of the samples of a training, 0 to 1: by the shares of the sources, or where none are named by their sizes."""
    if shares:
        ends = [sum(each) for each in zip(*annealed(shares).values(), strict=True)]
        weights = {name: sum(a / b for a, b in zip(it, ends, strict=True)) for name, it in annealed(shares).items()}
    else:
        weights = {name: float(every) for name, (_, every) in counts.items()}
    among = {name: labelled / every for name, (labelled, every) in counts.items() if every}
    return sum(weight * among.get(name, 0.0) for name, weight in weights.items()) / (sum(weights.values()) or 1.0)


def in_files(settings: Config, key: str) -> float:
    """Of the samples that a training will take, by what the files of its sources hold.

    Files that are not there yet count as pairs, which take the most; so does a training without shares beside whose
    labels are pairs whose number is not known.

    Args:
        key: of the training, as in ``Config.trainings``.
    """
    link = settings.train.links.get(key.removeprefix(ARMS))
    if link is None or not OBJECTIVES[link.step.objective].labelled:
        return 0.0
    shares, there = link.step.sources, settings.pairs.sources
    counts = {name: _counted(there[name]) for name in shares or there if name in there}
    known = shares or all(every for _, every in counts.values())
    return share(counts, shares) if known else 0.0


def in_rows(rows: Iterable[LatentRow], objective: str, shares: Mapping[str, Annealed]) -> float:
    """Of the samples that a training takes of its latents."""
    if not OBJECTIVES[objective].labelled:
        return 0.0
    every: Counter[str] = Counter()
    labelled: Counter[str] = Counter()
    for row in rows:
        name = row.source_in(shares) if shares else row.origin
        if row.split == "train" and name:
            every[name] += 1
            labelled[name] += bool(row.label)
    return share({name: (labelled[name], many) for name, many in every.items()}, shares)


def _counted(source: PairSource) -> tuple[int, int]:
    """Samples with a label, and all, of a source; none where that is not known."""
    if source.kind != "labels":
        return 0, 0
    try:
        told = [verdict for verdict in labels.verdicts(source) if verdict.sign]
    except UserError:
        return 0, 0
    return sum(bool(verdict.label) for verdict in told), len(told)
