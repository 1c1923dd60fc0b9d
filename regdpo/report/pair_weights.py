"""How the weights of the training pairs lie, shaped for the page."""

import math

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
    """Of the bins, of equal width from the least weight to the greatest; of one bin where all weigh the same."""
    counts: list[int]
    """Pairs in each bin."""
    share: float = 1.0
    """Of the weight of all training pairs: what the source has in the loss of a training on all of them."""


def histograms(pairs: list[PairRow]) -> dict[str, Weights]:
    """By source; nothing where all pairs of all sources weigh the same."""
    by_source: dict[str, list[float]] = {}
    for pair in pairs:
        if pair.split == "train":
            by_source.setdefault(pair.origin, []).append(pair.weight)
    every = [weight for weights in by_source.values() for weight in weights]
    if len({*every}) < 2:
        return {}
    return {origin: _of(weights, math.fsum(every)) for origin, weights in sorted(by_source.items())}


def _of(weights: list[float], every: float) -> Weights:
    least, most = min(weights), max(weights)
    counts, edges = ([len(weights)], [least, most]) if least == most else np.histogram(weights, BINS)
    share = math.fsum(weights) / every
    return Weights(float(np.mean(weights)), [*map(float, edges)], [*map(int, counts)], share)
