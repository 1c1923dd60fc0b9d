"""Forward and backward passes of micro-batches, the same training in every layout.

FSDP averages gradients over all ranks, and each rank of a pair or context group holds a part of the gradient of the
same pairs: so the mean over this rank's pairs is multiplied by the ranks of a group.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch
import torch.distributed as dist
from torch import Tensor, nn

from regdpo.config.stage_inputs import TrainStage
from regdpo.config.training import TrainSettings
from regdpo.core.rows import LatentRow
from regdpo.core.store import Store
from regdpo.models.device import DTYPES
from regdpo.models.errors import mean_squares, residuals
from regdpo.models.family import Family
from regdpo.objectives.registry import OBJECTIVES
from regdpo.objectives.schedule import EVAL_SIGMAS, fixed_sigmas
from regdpo.objectives.weights import weighted
from regdpo.parallel.mesh import Layout
from regdpo.parallel.pair import exchange, weigh
from regdpo.runs.metrics import terms
from regdpo.train import dataset
from regdpo.train.reference import Cache, without_adapters


def caption_dropout(settings: TrainSettings, family: Family) -> float:
    """The share of captions that are dropped: none where the denoiser is given the guidance scale, since it then has no
    answer without caption that guidance would ask for."""
    return 0.0 if family.embeds_guidance else settings.caption_dropout


@dataclass
class Answer:
    """What a model says to a batch."""

    e: Tensor  # (n,), with its graph
    residual: Tensor | None  # (n, C, F, H, W), detached; for objectives that ask for it


class Passes:
    """The passes of one rank.

    Args:
        copy: the reference as a model of its own, or None where it is the policy without adapters, or cached.
    """

    def __init__(
        self,
        stage: TrainStage,
        halves: str,
        family: Family,
        layout: Layout,
        store: Store,
        device: torch.device,
        policy: nn.Module,
        copy: nn.Module | None,
        cache: Cache | None,
    ):
        self.stage, self.family, self.layout, self.store, self.device = stage, family, layout, store, device
        self.policy, self.copy, self.cache = policy, copy, cache
        self.objective = OBJECTIVES[stage.objective]
        self.function = partial(self.objective.loss(), **stage.given())
        self.prefers = self.objective.paired
        self.mode = halves if self.prefers and layout.pair == 1 else "joint"
        both = dataset.HALVES if self.prefers else dataset.HALVES[:1]
        self.halves = both if layout.pair == 1 else (both[layout.pair_rank],)
        self.numbers = [dataset.HALVES.index(half) for half in self.halves]
        self.dtype = DTYPES[stage.settings.precision]
        self.dropout = caption_dropout(stage.settings, family)

    def load(self, rows: list[LatentRow], step: int | None) -> dataset.Batch:
        """This rank's halves of some pairs, as they are drawn at a step; None for the evaluation's draw."""
        what, dropout = ((self.stage.seed, step), self.dropout) if step is not None else (("evaluation",), None)
        settings, within = self.stage.settings, self.family.sigma_range
        return dataset.load(rows, self.store, self.device, self.halves, settings, within, *what, dropout=dropout)

    def answer(self, model: nn.Module, batch: dataset.Batch) -> Answer:
        residual = residuals(self.family, model, batch.x0, batch.noise, batch.sigma, batch.inputs, self.dtype)
        return Answer(mean_squares(residual), residual.detach() if "products" in self.objective.needs else None)

    def backward(
        self,
        rows: list[LatentRow],
        positions: list[int],
        rank_pairs: int,
        step: int,
        beforehand: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Forward and backward of one micro-batch.

        Args:
            rows, positions: pairs (B), and their positions in the step's batch. rank_pairs: of this rank in the step.
            beforehand: what ``before_step`` found.

        Returns:
            What is logged of each pair, detached, (B,); equal on all ranks of a group.
        """
        batch = self.load(rows, step)
        r_own = self.reference_errors(batch, step, positions) if self.prefers else None
        live, known = self._forward(batch)
        e_own = torch.cat([answer.e.detach() for answer in known])
        e, r = e_own, None
        if r_own is not None:
            e, r = exchange(torch.stack([e_own, r_own]), self.layout).unbind()
        given = self._needed(known, e, r, beforehand)
        loss, slope = weigh(lambda *errors: weighted(self.function(*errors, **given), batch.weight), e, r, batch.pairs)
        own = slope if self.layout.pair == 1 else slope.split(batch.pairs)[self.layout.pair_rank]
        own = own * (self.layout.group / rank_pairs)
        if self.mode == "sequential":
            winner, loser = own.split(batch.pairs)
            (live[0].e * winner).sum().backward()
            del live[0]
            (self.answer(self.policy, batch.halves()[1]).e * loser).sum().backward()
        else:
            (torch.cat([answer.e for answer in live]) * own).sum().backward()
        return terms(self.stage, loss, e, r, batch.pairs)

    def _forward(self, batch: dataset.Batch) -> tuple[list[Answer], list[Answer]]:
        """Answers that hold a graph, and answers to all of the batch."""
        if self.mode == "joint":
            live = [self.answer(self.policy, batch)]
            return live, live
        winner, loser = batch.halves()
        if self.mode == "separate":
            live = [self.answer(self.policy, winner), self.answer(self.policy, loser)]
            return live, live
        with torch.no_grad():
            after = self.answer(self.policy, loser)
        live = [self.answer(self.policy, winner)]
        return live, [*live, after]

    def _needed(
        self, known: list[Answer], e: Tensor, r: Tensor | None, beforehand: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What the objective needs beside four errors."""
        found = dict(beforehand)
        if "products" in self.objective.needs:
            residual = torch.cat([answer.residual for answer in known if answer.residual is not None])
            g_w, g_l = (2 * residual / residual[0].numel()).flatten(1).chunk(2)
            found |= {"dot": (g_w * g_l).sum(1), "norm2": (g_w**2).sum(1)}
        if "reference_point" in self.objective.needs and not beforehand and r is not None:
            found["reference_point"] = self.global_mean(r - e)
        return found

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """The reference as a model, without gradients."""
        with torch.no_grad():
            if self.copy is not None:
                yield self.copy
            else:
                with without_adapters(self.policy) as model:
                    yield model

    @torch.no_grad()
    def errors(self, model: nn.Module, batch: dataset.Batch) -> Tensor:
        """(n,), without graph; the halves one after another unless they are taken jointly."""
        parts = [batch] if self.mode == "joint" else batch.halves()
        return torch.cat([self.answer(model, part).e for part in parts])

    def reference_errors(self, batch: dataset.Batch, step: int, positions: list[int]) -> Tensor:
        """The reference's errors on this rank's halves of some pairs of a step, (n,)."""
        if self.cache is not None:
            known = self.cache.errors[step, positions][:, self.numbers]
            return known.T.flatten().to(self.device)
        with self.reference() as model:
            return self.errors(model, batch)

    @torch.no_grad()
    def before_step(self, chunks: list[tuple[list[LatentRow], list[int]]], step: int) -> dict[str, Tensor]:
        """What one micro-batch of several cannot tell. A reference point is of the whole step: it is measured by a pass
        over all its micro-batches."""
        if "reference_point" not in self.objective.needs or len(chunks) < 2:
            return {}
        gains = []
        for rows, positions in chunks:
            batch = self.load(rows, step)
            r = self.reference_errors(batch, step, positions)
            gains.append(r - self.errors(self.policy, batch))
        return {"reference_point": self.global_mean(torch.cat(gains))}

    def global_mean(self, values: Tensor) -> Tensor:
        """The mean over all ranks, each with as many values; clamped at 0, shape ()."""
        mean = values.mean()
        dist.all_reduce(mean)
        return (mean / dist.get_world_size()).clamp_min(0)

    @torch.no_grad()
    def validation_errors(self, model: nn.Module, rows: list[LatentRow], chunk: int) -> Tensor:
        """Errors with fixed noise and timesteps, averaged over the sigmas; equal on all ranks and layouts.

        Args:
            rows: P pairs. chunk: of one shape that a rank takes at once.

        Returns:
            (2P,) or (P,), winners first.
        """
        layout = self.layout
        errors = torch.zeros(2 if self.prefers else 1, len(rows), device=self.device)
        for together in _alike(rows, layout.data * chunk):
            span = together[layout.data_rank :: layout.data]
            positions = span or together[-1:]  # all ranks must take part in each forward
            batch = self.load([rows[position] for position in positions], None)
            for sigma in fixed_sigmas(EVAL_SIGMAS, within=self.family.sigma_range):
                e = self.errors(model, replace(batch, sigma=sigma.expand(len(batch.x0)).to(self.device)))
                if span:
                    mine = torch.tensor(self.numbers)[:, None]
                    errors[mine, positions] += e.view(len(self.numbers), -1) / EVAL_SIGMAS
        errors /= layout.context
        dist.all_reduce(errors)
        return errors.flatten()


def _alike(rows: list[LatentRow], count: int) -> list[list[int]]:
    """The places of all rows, at most ``count`` of one shape together."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.shape, []).append(place)
    return [those[first : first + count] for those in places.values() for first in range(0, len(those), count)]
