"""Encoded pairs as batches, in an order that depends on nothing but seed and step."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from regdpo.config.training import TrainSettings
from regdpo.core.errors import UserError
from regdpo.core.rows import LatentRow
from regdpo.core.store import Store
from regdpo.data.latent_files import DRAWS, latent_shapes, read_empty_caption, read_latents
from regdpo.objectives.schedule import draw, generator

HALVES = ("winner", "loser")


@dataclass(frozen=True)
class Batch:
    """Pairs (B) with their noise. Halves lie along the batch axis: winners first, then losers if there are any."""

    x0: Tensor  # (n, C, F, H, W) for n samples, fp32
    noise: Tensor
    sigma: Tensor  # (n,)
    inputs: dict[str, Tensor]  # text and condition, batch first
    weight: Tensor  # of each pair's loss, (B,)

    @property
    def pairs(self) -> int:
        return len(self.weight)

    def halves(self) -> list["Batch"]:
        """Each half as a batch of its own."""
        parts = range(0, len(self.x0), self.pairs)
        return [
            Batch(
                self.x0[first : first + self.pairs],
                self.noise[first : first + self.pairs],
                self.sigma[first : first + self.pairs],
                {name: tensor[first : first + self.pairs] for name, tensor in self.inputs.items()},
                self.weight,
            )
            for first in parts
        ]


@cache
def order(seed: int, epoch: int, count: int) -> list[int]:
    """The order of ``count`` pairs in an epoch."""
    return torch.randperm(count, generator=generator("order", seed, epoch)).tolist()


def rows_of_step(rows: list[LatentRow], step: int, batch: int, seed: int) -> list[LatentRow]:
    """The ``batch`` pairs of an optimiser step (counted from 0), over all ranks; epochs follow without a seam."""
    indices = range(step * batch, (step + 1) * batch)
    return [rows[order(seed, index // len(rows), len(rows))[index % len(rows)]] for index in indices]


def check(rows: list[LatentRow], encoder: str, loser: bool, store: Store, dropout: float = 0.0) -> None:
    """Refuse latents that cannot be trained on, before the first step. Only the files' headers are read.

    Raises:
        UserError: naming the first pair that is missing, damaged, of another shape, has no loser, or was encoded by
            another model.
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
        if loser and not row.has_loser:
            raise UserError(f"pair {row.pair_id}: has no loser, which this objective needs")
        shapes = latent_shapes(row, store)
        for half in HALVES if row.has_loser else HALVES[:1]:
            if shapes.get(half) != tuple(map(int, row.shape.split(","))):
                raise UserError(
                    f"pair {row.pair_id}: {row.path} holds a {half} of shape {shapes.get(half)}, the manifest says "
                    f"({row.shape}); delete it and run the latents stage again"
                )
        if row.shape != rows[0].shape:
            raise UserError(
                f"pair {row.pair_id}: its latents are ({row.shape}), those of pair {rows[0].pair_id} are "
                f"({rows[0].shape}); one training takes one shape"
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
    """Read pairs and draw their noise; ``what`` (seed, step) and the pair's id determine every draw.

    Both halves are given the same text and condition, and so are policy and reference.

    Args:
        halves: which of ``HALVES`` are wanted.
        within: the sigmas that the model is trained on.
        dropout: share of pairs that get the empty caption; None for an evaluation, where no caption is dropped and the
            condition is the one that sampling is given.
    """
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
    )
