"""How the weights of the training pairs lie, shaped for the page."""

import numpy as np

from regdpo.core.rows import PairRow
from regdpo.report.parts import part

BINS = 10


@part
class Weights:
    """Of the training pairs of a source, as the manifest has them."""

    mean: float
    """Over its pairs."""
    edges: list[float]
    """Of the bins, of equal width from the least weight to the greatest."""
    counts: list[int]
    """Pairs in each bin."""


def histograms(pairs: list[PairRow]) -> dict[str, Weights]:
    """By source, of those whose pairs do not all weigh the same."""
    by_source: dict[str, list[float]] = {}
    for pair in pairs:
        if pair.split == "train":
            by_source.setdefault(pair.origin, []).append(pair.weight)
    found = {}
    for origin, weights in sorted(by_source.items()):
        if len({*weights}) > 1:
            counts, edges = np.histogram(weights, BINS)
            found[origin] = Weights(float(np.mean(weights)), edges.tolist(), counts.tolist())
    return found
