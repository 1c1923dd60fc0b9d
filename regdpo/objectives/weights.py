"""Weights of pairs and samples: a loss counts as much as its weight."""

import math
from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from regdpo.core.errors import UserError

SHOWN = 5


def normalised(weights: Mapping[str, float], scale: bool = True) -> dict[str, float]:
    """Weights by pair id, scaled to mean 1 over the dataset, so that they do not change the step's size on average.

    Args:
        scale: False: they are checked alone.

    Raises:
        UserError: naming the pairs whose weight is negative or not finite; or if all are 0, or there are none.
    """
    bad = [pair for pair, weight in weights.items() if not (math.isfinite(weight) and weight >= 0)]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        named = ", ".join(f"{pair} ({weights[pair]})" for pair in bad[:SHOWN])
        raise UserError(f"pair weights: pair {named}{more}: a weight is a number of 0 or more")
    greatest = max(weights.values(), default=0.0)
    if greatest == 0:
        named = ", ".join(list(weights)[:SHOWN]) or "there are no pairs"
        raise UserError(f"pair weights: all {len(weights)} are 0 ({named}): give at least one pair a weight above 0")
    if not scale:
        return dict(weights)
    shares = {pair: weight / greatest for pair, weight in weights.items()}  # sums of huge or tiny weights stay finite
    mean = math.fsum(shares.values()) / len(shares)
    return {pair: share / mean for pair, share in shares.items()}


def balanced(labels: Mapping[str, str]) -> dict[str, float]:
    """Factors by id with which all labels weigh alike in sum, of mean 1: ``n / (k n_label)`` of n samples, k labels."""
    counts = Counter(labels.values())
    return {sample: len(labels) / (len(counts) * counts[label]) for sample, label in labels.items()}


def weighted(loss: Tensor, weight: Tensor) -> Tensor:
    """The loss of each pair times its weight, which takes no gradient; both of shape (B,)."""
    assert loss.shape == weight.shape, (loss.shape, weight.shape)
    return loss * weight.detach().to(loss)
