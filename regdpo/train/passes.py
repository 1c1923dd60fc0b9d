"""Forward and backward passes of micro-batches, the same training in every layout.

FSDP averages gradients over all ranks, and each rank of a pair or context group holds a part of the gradient of the
same pairs: so the mean over this rank's pairs is multiplied by the ranks of a group.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from regdpo.models.errors import frame_squares, given_frames, mean_products, mean_squares, residuals
from regdpo.models.family import Family
from regdpo.objectives.losses import regularised
from regdpo.objectives.registry import OBJECTIVES
from regdpo.objectives.schedule import EVAL_SIGMAS, fixed_sigmas
from regdpo.objectives.weights import weighted
from regdpo.parallel.mesh import Layout
from regdpo.parallel.pair import exchange, weigh
from regdpo.runs.metrics import terms
from regdpo.train import dataset, segments
from regdpo.train.reference import Cache, without_adapters


def caption_dropout(settings: TrainSettings, family: Family) -> float:
    """The share of captions that are dropped: none where the denoiser is given the guidance scale, since it then has no
    answer without caption that guidance would ask for."""
    return 0.0 if family.embeds_guidance else settings.caption_dropout


@dataclass
class Answer:
    """What a model says to a batch."""

    e: Tensor  # (n,), or (n, F) for objectives that ask for each latent frame's; with its graph
    m: Tensor | None = None  # (n,), with its graph; as the next, for objectives that ask for it
    residual: Tensor | None = None  # (n, C, F, H, W), detached

    @property
    def numbers(self) -> list[Tensor]:
        """Those by which a loss has a gradient, with their graphs."""
        return [self.e] if self.m is None else [self.e, self.m]

    def halves(self, pairs: int) -> list["Answer"]:
        """Of a reference's answer, which has no m: that to each half."""
        residuals = [None, None] if self.residual is None else self.residual.split(pairs)
        return [Answer(e, residual=residual) for e, residual in zip(self.e.split(pairs), residuals, strict=False)]


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
        self.point: Tensor | None = None
        """The running mean of the gain over the reference, (), where the objective is given one."""
        if stage.point_decay is not None:
            self.point = torch.zeros((), device=device)
        self.of_pairs = partial(self.objective.loss(), **stage.of_loss())
        self.of_samples = (
            partial(self.objective.loss(labelled=True), **stage.of_loss()) if self.objective.labelled else None
        )
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
        if settings.timesteps.shift == "by_size":  # a batch is of one
            shift = self.family.shift_of(tuple(map(int, rows[0].shape.split(","))))
            law = settings.timesteps.model_copy(update={"shift": shift})
            settings = settings.model_copy(update={"timesteps": law})
        return dataset.load(rows, self.store, self.device, self.halves, settings, within, *what, dropout=dropout)

    def answer(self, model: nn.Module, batch: dataset.Batch, reference: Answer | None = None) -> Answer:
        """What a model says to a batch.

        Args:
            reference: its answer, where the objective asks what both have in common.
        """
        needs = self.objective.needs
        residual = residuals(self.family, model, batch.x0, batch.noise, batch.sigma, batch.inputs, self.dtype)
        known = residual.detach() if needs & {"products", "m"} else None
        m = None
        if "m" in needs and reference is not None:
            assert reference.residual is not None, "errors of the reference alone do not do"
            m = mean_products(residual, reference.residual)
        return Answer((frame_squares if "frames" in needs else mean_squares)(residual), m, known)

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
        reference = self.reference_answer(batch, step, positions) if self.prefers else None
        live, known = self._forward(batch, reference)
        own = [torch.cat(numbers).detach() for numbers in zip(*(answer.numbers for answer in known), strict=True)]
        r = None
        if reference is not None:  # frames' errors and a number of each sample are never asked for together
            r, *own = exchange(torch.stack([reference.e, *own]), self.layout)
        given = self._needed(rows, known, own[0], r, beforehand)
        loss, slopes = weigh(lambda *numbers: self._loss(batch, r, given, *numbers), *own)
        weight = torch.zeros_like(loss)
        if self.stage.sft is not None:
            loss, slopes, weight = self._regularised(batch, loss, slopes, own[0])
        if self.layout.pair == 2:
            slopes = tuple(slope.split(batch.pairs)[self.layout.pair_rank] for slope in slopes)
        slopes = tuple(slope * (self.layout.share / rank_pairs) for slope in slopes)
        if len(live) < len(known):
            winner, loser = zip(*(slope.split(batch.pairs) for slope in slopes), strict=True)
            _dot(live.pop(), winner).backward()
            after = None if reference is None else reference.halves(batch.pairs)[1]
            _dot(self.answer(self.policy, batch.halves()[1], after), loser).backward()
        else:
            parts = zip(*(slope.split([len(answer.e) for answer in live]) for slope in slopes), strict=True)
            torch.stack([_dot(answer, part) for answer, part in zip(live, parts, strict=True)]).sum().backward()
        e = own[0].reshape(len(own[0]), -1).mean(1)
        r = None if r is None else r.reshape(len(r), -1).mean(1)
        return terms(self.stage, loss, e, r, batch.pairs, batch.good, weight, given.get("reference_point"))

    def _forward(self, batch: dataset.Batch, reference: Answer | None) -> tuple[list[Answer], list[Answer]]:
        """Answers that hold a graph, and answers to all of the batch."""
        if self.mode == "joint" or batch.good is not None:
            live = [self.answer(self.policy, batch, reference)]
            return live, live
        parts = list(zip(batch.halves(), reference.halves(batch.pairs) if reference else (None, None), strict=True))
        if self.mode == "separate":
            live = [self.answer(self.policy, *part) for part in parts]
            return live, live
        with torch.no_grad():
            after = self.answer(self.policy, *parts[1])
        live = [self.answer(self.policy, *parts[0])]
        return live, [*live, after]

    def _loss(
        self, batch: dataset.Batch, r: Tensor | None, given: dict[str, Tensor], e: Tensor, m: Tensor | None = None
    ) -> Tensor:
        """The loss of each pair or sample, with its weight, (B,)."""
        if batch.good is not None and r is not None:
            assert self.of_samples is not None
            common = {} if m is None else {"m": m}
            return weighted(self.of_samples(e, r, batch.good, **common, **given), batch.weight)
        errors = [e] if r is None else [*e.split(batch.pairs), *r.split(batch.pairs)]
        common = {} if m is None else dict(zip(("m_w", "m_l"), m.split(batch.pairs), strict=True))
        return weighted(self.of_pairs(*errors, **common, **given), batch.weight)

    def _regularised(
        self, batch: dataset.Batch, loss: Tensor, slopes: tuple[Tensor, ...], e: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """The loss with the SFT term, its slopes, and the term's weight, (B,)."""
        chosen, count = self.stage.sft.r, batch.pairs
        r = None if chosen == "dgr" else chosen * batch.weight.to(e)
        if batch.good is not None:  # bad samples have none, also where the loss would rise with their error
            r = (slopes[0].clamp_min(0) if r is None else r) * batch.good
        loss, slope, weight = regularised(loss, slopes[0][:count], e[:count], r)
        return loss, (torch.cat([slope, slopes[0][count:]]), *slopes[1:]), weight

    def _needed(
        self,
        rows: list[LatentRow],
        known: list[Answer],
        e: Tensor,
        r: Tensor | None,
        beforehand: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """What the objective needs beside errors and what has a gradient."""
        found, needs = dict(beforehand), self.objective.needs
        if "products" in needs:
            residual = torch.cat([answer.residual for answer in known if answer.residual is not None])
            g_w, g_l = (2 * residual / residual[0].numel()).flatten(1).chunk(2)
            found |= {"dot": (g_w * g_l).sum(1), "norm2": (g_w**2).sum(1)}
        if "frames" in needs:
            found |= self._segments(rows, e.shape[1])
        if self.point is not None:
            found["reference_point"] = self.point.clamp_min(0)
        elif "reference_point" in needs and not beforehand and r is not None:
            found["reference_point"] = self.global_mean(r - e)
        return found

    def _segments(self, rows: list[LatentRow], frames: int) -> dict[str, Tensor]:
        """Of each latent frame with an error the number of its segment, and which half is better there, (B, F)."""
        preferred, segment = [], []
        for row in rows:
            labels, whole = segments.labels_of(row), int(row.shape.split(",")[1])
            numbers = segments.of_frames(len(labels), whole, self.family.compression[0])[whole - frames :]
            segment.append(numbers)
            preferred.append([labels[number] for number in numbers])
        return {
            "preferred": torch.tensor(preferred, device=self.device),
            "segment": torch.tensor(segment, device=self.device),
        }

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
    def without_graph(self, model: nn.Module, batch: dataset.Batch) -> Answer:
        """The answer to a batch; the halves one after another unless they are taken jointly."""
        if self.mode == "joint" or batch.good is not None:
            return self.answer(model, batch)
        parts = [self.answer(model, part) for part in batch.halves()]
        residuals = [part.residual for part in parts if part.residual is not None]
        return Answer(torch.cat([part.e for part in parts]), residual=torch.cat(residuals) if residuals else None)

    def reference_answer(self, batch: dataset.Batch, step: int, positions: list[int]) -> Answer:
        """What the reference says to this rank's halves of some pairs of a step."""
        if self.cache is not None:
            known = self.cache.errors[step, positions][:, self.numbers].transpose(0, 1).flatten(0, 1)
            frames = batch.x0.shape[2] - given_frames(batch.inputs)
            return Answer((known[:, :frames] if known.dim() > 1 else known)[: len(batch.x0)].to(self.device))
        with self.reference() as model:
            return self.without_graph(model, batch)

    @torch.no_grad()
    def before_step(self, chunks: list[tuple[list[LatentRow], list[int]]], step: int) -> dict[str, Tensor]:
        """What one micro-batch of several cannot tell. A reference point is of the whole step: it is measured by a pass
        over all its micro-batches."""
        if "reference_point" not in self.objective.needs or self.point is not None or len(chunks) < 2:
            return {}
        gains = []
        for rows, positions in chunks:
            batch = self.load(rows, step)
            r = self.reference_answer(batch, step, positions).e
            gains.append(r - self.without_graph(self.policy, batch).e)
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
            (2P,) or (P,), winners first; 0 for the losers that labelled samples lack.
        """
        layout = self.layout
        errors = torch.zeros(2 if self.prefers else 1, len(rows), device=self.device)
        for together in _alike(rows, layout.data * chunk):
            span = together[layout.data_rank :: layout.data]
            positions = span or together[-1:]  # all ranks must take part in each forward
            batch = self.load([rows[position] for position in positions], None)
            for sigma in fixed_sigmas(EVAL_SIGMAS, within=self.family.sigma_range):
                e = self.without_graph(model, replace(batch, sigma=sigma.expand(len(batch.x0)).to(self.device))).e
                if span:
                    found = e.reshape(len(e) // len(positions), len(positions), -1).mean(2)
                    mine = torch.tensor(self.numbers[: len(found)])[:, None]
                    errors[mine, positions] += found / EVAL_SIGMAS
        errors /= layout.context * layout.tensor
        dist.all_reduce(errors)
        return errors.flatten()


def _alike(rows: list[LatentRow], count: int) -> list[list[int]]:
    """The places of all rows, at most ``count`` that are alike together."""
    places: dict[dataset.Alike, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(dataset.alike(row), []).append(place)
    return [those[first : first + count] for those in places.values() for first in range(0, len(those), count)]


def _dot(answer: Answer, slopes: Sequence[Tensor]) -> Tensor:
    """An answer's numbers, weighed."""
    dots = [(number * slope).sum() for number, slope in zip(answer.numbers, slopes, strict=True)]
    return torch.stack(dots).sum()
