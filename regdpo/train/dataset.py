"""Encoded pairs as batches, in an order that depends on nothing but seed and step."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from regdpo.config.training import TrainSettings
from regdpo.core.errors import UserError
from regdpo.core.rows import LatentRow
from regdpo.core.store import Store
from regdpo.data.latent_files import DRAWS, latent_shapes, read_empty_caption, read_latents
from regdpo.objectives.schedule import draw, generator
from regdpo.train import segments

HALVES = ("winner", "loser")
KEPT = 8
"""Epochs whose order is kept: a step may reach into several where a shape has few pairs."""


@dataclass(frozen=True)
class Batch:
    """Pairs (B) of one shape with their noise. Halves lie along the batch axis: winners first, then losers, if any.
    Or samples (B) with a label each, which lie where winners do."""

    x0: Tensor  # (n, C, F, H, W) for n samples, fp32
    noise: Tensor
    sigma: Tensor  # (n,)
    inputs: dict[str, Tensor]  # text and condition, batch first
    weight: Tensor  # of each pair's loss, (B,)
    good: Tensor | None = None  # the labels of samples, (B,), bool; none: they are pairs

    @property
    def pairs(self) -> int:
        return len(self.weight)

    def halves(self) -> list["Batch"]:
        """Each half as a batch of its own."""
        parts = [slice(first, first + self.pairs) for first in range(0, len(self.x0), self.pairs)]
        return [
            replace(
                self,
                x0=self.x0[part],
                noise=self.noise[part],
                sigma=self.sigma[part],
                inputs={name: tensor[part] for name, tensor in self.inputs.items()},
            )
            for part in parts
        ]


Alike = tuple[str, str, bool]


def alike(row: LatentRow) -> Alike:
    """What the rows of a batch have in common: their shape, their source, and whether they are pairs or samples with
    labels."""
    return row.shape, row.origin, bool(row.label)


class Order:
    """Which pairs an optimiser step takes, over all ranks: by the seed and the step's number alone.

    Epoch after epoch, each in an order of its own, pairs queue up by the shape of their latents and by their source,
    and samples with labels apart from them; when ``batch`` of one queue are there, they are the next step. So a step
    has one shape and source, these take turns by chance in proportion to their pairs, and every pair is seen as often
    as any other, but for those that wait: fewer than ``batch`` of each queue. With one queue epochs follow without a
    seam.

    Args:
        rows: the pairs. batch: of a step.
    """

    def __init__(self, rows: list[LatentRow], batch: int, seed: int):
        self.rows, self.batch, self.seed = rows, batch, seed
        self.shapes = [alike(row) for row in rows]
        self.counts = Counter(self.shapes)
        self._order = lru_cache(KEPT)(self._order_of)
        self._steps = lru_cache(KEPT)(self._steps_of)

    def step(self, number: int) -> list[LatentRow]:
        """The pairs of an optimiser step, counted from 0."""
        epoch = number * self.batch // len(self.rows)  # or a later one, as pairs wait
        while self._steps_before(epoch + 1) <= number:
            epoch += 1
        shape, first = self._steps(epoch)[number - self._steps_before(epoch)]
        count = self.counts[shape]
        places = (divmod(place, count) for place in range(first, first + self.batch))
        return [self.rows[self._order(epoch)[shape][index]] for epoch, index in places]

    def _steps_before(self, epoch: int) -> int:
        """How many steps are taken before an epoch begins."""
        return sum(epoch * count // self.batch for count in self.counts.values())

    def _order_of(self, epoch: int) -> dict[Alike, list[int]]:
        """Shape -> its pairs in the order of an epoch, by their place among all."""
        found: dict[Alike, list[int]] = {shape: [] for shape in self.counts}
        for index in self._drawn(epoch):
            found[self.shapes[index]].append(index)
        return found

    def _steps_of(self, epoch: int) -> list[tuple[Alike, int]]:
        """Of each step of an epoch its shape, and how many pairs of that shape were taken before, since the start."""
        seen = {shape: epoch * count for shape, count in self.counts.items()}
        found = []
        for index in self._drawn(epoch):
            shape = self.shapes[index]
            seen[shape] += 1
            if seen[shape] % self.batch == 0:
                found.append((shape, seen[shape] - self.batch))
        return found

    def _drawn(self, epoch: int) -> list[int]:
        drawn: list[int] = torch.randperm(len(self.rows), generator=generator("order", self.seed, epoch)).tolist()
        return drawn


def check(
    rows: list[LatentRow],
    encoder: str,
    loser: bool,
    store: Store,
    dropout: float = 0.0,
    labelled: bool = False,
    temporal: int | None = None,
) -> None:
    """Refuse latents that cannot be trained on, before the first step. Only the files' headers are read.

    Args:
        loser: whether the objective needs losers. labelled: whether it does without where a sample has a label.
        temporal: frames a latent one, for an objective that compares halves by segments of time.

    Raises:
        UserError: naming the first pair that is missing, damaged, of another shape than the manifest says, has no
            loser, was encoded by another model, or has a label or segments that the objective cannot be given.
    """
    for row in rows:
        if row.encoder != encoder:
            raise UserError(
                f"pair {row.pair_id}: encoded by another model ({row.encoder[:12]}); run the latents stage again"
            )
        if dropout and not row.empty:
            raise UserError(
                f"pair {row.pair_id}: has no empty caption to drop its own for; run the latents stage again, or set "
                "train.settings.caption_dropout to 0"
            )
        if row.label and row.has_loser:
            raise UserError(f"pair {row.pair_id}: has a loser and the label `{row.label}`; a labelled sample has none")
        if loser and row.label and not labelled:
            raise UserError(
                f"pair {row.pair_id}: is a sample with the label `{row.label}`, and this objective compares winner and "
                "loser; take kto, ddo or nft, or leave such samples out"
            )
        if loser and not row.has_loser and not row.label:
            raise UserError(f"pair {row.pair_id}: has no loser, which this objective needs")
        shapes = latent_shapes(row, store)
        if (given := shapes.get("first")) and given[1] == int(row.shape.split(",")[1]):
            raise UserError(
                f"pair {row.pair_id}: its clip has the first latent frame alone, which the model is given clean, "
                "and nothing to learn; take base.task t2v, or longer clips (train.arms.NAME.sizes, clips.buckets)"
            )
        if temporal:
            segments.check(row, temporal, "first" in shapes)
        for half in HALVES if row.has_loser else HALVES[:1]:
            if shapes.get(half) != tuple(map(int, row.shape.split(","))):
                raise UserError(
                    f"pair {row.pair_id}: {row.path} holds a {half} of shape {shapes.get(half)}, the manifest says "
                    f"({row.shape}); delete it and run the latents stage again"
                )


def _drawn(
    tensors: dict[str, Tensor], row: LatentRow, store: Store, dropout: float | None, *what: object
) -> dict[str, Tensor]:
    """A pair's tensors with what is drawn of text and condition in place."""
    draws = {name: tensors.pop(name) for name in list(tensors) if name.endswith(DRAWS)}
    if dropout is None:
        return tensors
    for name, choices in draws.items():
        choice = torch.randint(len(choices), (), generator=generator(name, *what, row.pair_id))
        tensors[name.removesuffix(DRAWS)] = choices[choice]
    if torch.rand((), generator=generator("caption", *what, row.pair_id)) < dropout:
        tensors |= read_empty_caption(row, store)
    return tensors


def load(
    rows: list[LatentRow],
    store: Store,
    device: torch.device,
    halves: tuple[str, ...],
    settings: TrainSettings,
    within: tuple[float, float],
    *what: object,
    dropout: float | None = None,
) -> Batch:
    """Read pairs of one shape and draw their noise; ``what`` (seed, step) and the pair's id determine every draw.

    Both halves are given the same text and condition, and so are policy and reference.

    Args:
        halves: which of ``HALVES`` are wanted; samples with labels have the first alone.
        within: the sigmas that the model is trained on.
        dropout: share of pairs that get the empty caption; None for an evaluation, where no caption is dropped and the
            condition is the one that sampling is given.
    """
    if rows[0].label:
        halves = HALVES[:1]
    tensors = [_drawn(read_latents(row, store), row, store, dropout, *what) for row in rows]
    x0, sigma, noise = [], [], []
    for half in halves:
        for row, tensor in zip(rows, tensors, strict=True):
            own = () if settings.shared_noise or half == "winner" else (half,)
            shape = tuple(tensor[half].shape)
            s, n = draw(settings.timesteps, shape, *what, row.pair_id, *own, within=within)
            x0.append(tensor[half].float())
            sigma.append(s)
            noise.append(n)
    names = [name for name in tensors[0] if name not in HALVES]
    inputs = {name: torch.stack([tensor[name].float() for tensor in tensors] * len(halves)) for name in names}
    return Batch(
        x0=torch.stack(x0).to(device),
        noise=torch.stack(noise).to(device),
        sigma=torch.stack(sigma).to(device),
        inputs={name: tensor.to(device) for name, tensor in inputs.items()},
        weight=torch.tensor([row.weight for row in rows], device=device),
        good=torch.tensor([row.label == "good" for row in rows], device=device) if rows[0].label else None,
    )
