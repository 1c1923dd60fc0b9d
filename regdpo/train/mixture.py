"""Steps of several sources or sizes by their shares, which may change over a training: also by seed and step alone.

Whose turn a step is, is drawn by the shares. Each source then goes through its own pairs in its own order, as if it
were alone, so that a share changes how fast it is gone through and nothing else. Batches of sources are interleaved as
in MUG-V's preference training (arXiv 2510.17519).
"""

from collections.abc import Mapping

import torch

from regdpo.core.errors import UserError
from regdpo.core.rows import LatentRow
from regdpo.objectives.schedule import generator
from regdpo.train.dataset import Order

Shares = Mapping[str, tuple[float, float]]
"""Name -> its share at the first step and at the last, between which it changes in a straight line."""


def chosen(rows: list[LatentRow], sources: Shares, shapes: Shares) -> list[LatentRow]:
    """The rows that a training takes: those of its sources and shapes, or all where none are named.

    Raises:
        UserError: there are none to train on of one of them.
    """
    found = [row for row in rows if (not sources or row.source_in(sources)) and (not shapes or row.shape in shapes)]
    train = [row for row in found if row.split == "train"]
    for name in sorted(sources.keys() - {row.source_in(sources) for row in train}):
        raise UserError(f"train.arms: `sources` name {name}, of which there are no pairs to train on; leave it out")
    for name in sorted(shapes.keys() - {row.shape for row in train}):
        raise UserError(f"train.arms: `sizes` name one of which there are no pairs to train on (latents {name})")
    return found


class Mixture:
    """Which pairs an optimiser step takes, as ``Order``.

    Args:
        rows: the pairs, which ``chosen`` has found. batch: of a step. steps: of the training. sources, shapes: shares;
            where both are given, those of a source are shared out by shape.
    """

    def __init__(self, rows: list[LatentRow], batch: int, seed: int, steps: int, sources: Shares, shapes: Shares):
        self.seed, self.steps = seed, steps
        named = {(row.source_in(sources), row.shape if shapes else "") for row in rows}
        self.names = sorted(named)
        self.orders = [
            Order([row for row in rows if source == row.source_in(sources) and shape in ("", row.shape)], batch, seed)
            for source, shape in self.names
        ]
        even = (1.0, 1.0)
        self.shares = [(sources.get(source, even), shapes.get(shape, even)) for source, shape in self.names]
        for number in (0, steps - 1):
            if not any(self._weights(number)):
                what = "of the sources in the sizes that there are"
                raise UserError(f"train.arms: at the first or the last step all shares are 0 {what}")
        self.turns: list[int] = []
        """Of each step so far: whose it is."""
        self.before: list[int] = []
        """Of each step so far: how many were the same one's before it."""
        self.taken = [0] * len(self.names)

    def step(self, number: int) -> list[LatentRow]:
        """The pairs of an optimiser step, counted from 0."""
        while len(self.turns) <= number:
            turn = self._turn(len(self.turns))
            self.turns.append(turn)
            self.before.append(self.taken[turn])
            self.taken[turn] += 1
        return self.orders[self.turns[number]].step(self.before[number])

    def at(self, number: int) -> list[float]:
        """The shares at a step, of sum 1."""
        found = self._weights(number)
        return [share / sum(found) for share in found]

    def _weights(self, number: int) -> list[float]:
        progress = min(number / max(1, self.steps - 1), 1.0)
        return [
            ((1 - progress) * of_source[0] + progress * of_source[1])
            * ((1 - progress) * of_shape[0] + progress * of_shape[1])
            for of_source, of_shape in self.shares
        ]

    def _turn(self, number: int) -> int:
        drawn = torch.rand((), generator=generator("source", self.seed, number)).item()
        shares, below = self.at(number), 0.0
        for place, share in enumerate(shares):
            below += share
            if drawn < below:
                return place
        return max(place for place, share in enumerate(shares) if share)  # of a sum that was rounded down
