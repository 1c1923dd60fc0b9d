"""One training, on every rank.

Wherever the paper of Reg-DPO (arXiv 2511.01450) is silent, docs/concepts/methods.md says what is done here. The loop
knows no model (the family does), no layout but the mesh, and no objective but by name. Ranks share the batch; gradients
are those of the mean over all pairs of a step on every layout.
"""

import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.nn.functional import pad

from regdpo.config.run_file import heeding
from regdpo.config.training import TrainSettings, reference_kind, unfit
from regdpo.core import manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import LatentRow
from regdpo.core.store import Store
from regdpo.core.temporaries import atomic
from regdpo.models.family import open_family
from regdpo.objectives.registry import OBJECTIVES
from regdpo.objectives.schedule import EVAL_PAIRS, generator
from regdpo.objectives.weights import balanced, normalised
from regdpo.parallel.mesh import Layout, layout
from regdpo.parallel.sharing import check_context, check_tensor
from regdpo.runs.job import EXPORT, Job
from regdpo.runs.metrics import LINE_EVERY, Log, logged, of_samples
from regdpo.runs.stop import Stop
from regdpo.runtime.lease import Lease
from regdpo.train import dataset, mixture
from regdpo.train.build import build, trained_parameters
from regdpo.train.checkpoint import Checkpoints
from regdpo.train.ema import Average, Ema
from regdpo.train.guards import Watch
from regdpo.train.passes import Passes, caption_dropout
from regdpo.train.place import note, peak_memory, still_mine
from regdpo.train.reference import Cache, follow

ASKED_AT_ONCE = 10  # steps whose reference errors are asked before they are kept
Chunk = tuple[list[LatentRow], list[int]]  # pairs of a micro-batch, and their positions in the step's batch


def start(job: Job, device: torch.device) -> "Trainer":
    """What a rank does, once all are there."""
    return Trainer(job, device, layout(device, job.parallel, OBJECTIVES[job.stage.objective].paired))


class Trainer:
    """The state of a training on one rank."""

    def __init__(self, job: Job, device: torch.device, layout: Layout):
        self.job, self.device, self.layout = job, device, layout
        self.stage, self.settings = job.stage, job.stage.settings
        self.run, self.store = Path(job.run), heeding(Store(job.store, job.store_identity))
        self.objective = OBJECTIVES[self.stage.objective]
        self.prefers = self.objective.paired
        self._check()

        self.family = open_family(job.model.ref, self.store, torch.device("cpu"))
        shapes = {self._shape_of(size): shares for size, shares in self.stage.sizes.items()}
        rows = mixture.chosen(manifests.read(job.latents, LatentRow), self.stage.sources, shapes)
        if not self.prefers:  # it learns from what is good
            rows = [row for row in rows if row.label != "bad"]
        self._check_rows(rows)
        train = [row for row in rows if row.split == "train"]
        shares = balanced({row.pair_id: row.label for row in train if row.label}) if self.prefers else {}
        given = {row.pair_id: row.weight * shares.get(row.pair_id, 1) for row in train}
        weights = normalised(given, self.settings.pair_weights != "as_given")
        self.rows = [row.model_copy(update={"weight": weights[row.pair_id]}) for row in train]
        validation = [row for row in rows if row.split == "validation"]
        if all(row.label == "bad" for row in validation):
            validation = []  # none has an error that should be small
        self.validation = validation[:: max(1, len(validation) // EVAL_PAIRS)][:EVAL_PAIRS]

        drawn = (self.rows, self.settings.batch, self.stage.seed)
        self.order: dataset.Order | mixture.Mixture = dataset.Order(*drawn)
        if self.stage.sources or shapes:
            self.order = mixture.Mixture(*drawn, self.settings.steps, self.stage.sources, shapes)
        self.tokens = {}  # of each shape
        for shape in dict.fromkeys(row.shape for row in rows):
            self.tokens[shape] = tokens = self.family.tokens(tuple(map(int, shape.split(","))))
            divided = None if self.family.fills_up else tokens
            check_context(layout.context, self.family.heads, divided, self.family.context, job.model.ref.family)
            shared = (layout.tensor, layout.context, self.family.heads, divided)
            check_tensor(*shared, bool(self.family.tensor), job.model.ref.family)

        goes_on = bool(job.model.ref.lora)
        kind = reference_kind(self.settings, job.parallel, self.prefers, goes_on)
        if kind == "adapters" and goes_on:
            raise UserError(
                "train.settings.parallel.reference: without its adapters the model is not what it started from; take "
                "`copy`, `offload` or `cached`"
            )
        how = (layout, device, self.stage.seed, job.deterministic)
        self.policy, self.attention = build("policy", self.family, self.settings, job.parallel, *how)
        self.copy = None
        if kind in ("copy", "offload"):  # with the policy's attention: two measurements may differ
            alike = job.parallel.model_copy(update={"attention": self.attention})
            self.copy, _ = build("copy", self.family, self.settings, alike, *how)
        self.frames = max(int(shape.split(",")[1]) for shape in self.tokens)  # latent ones, of the longest clip
        self.cache = Cache(self.run, self.settings.steps) if kind == "cached" else None
        self.parameters = trained_parameters(self.policy)
        self.optimizer = _optimizer(self.settings, list(self.parameters.values()))
        self.ema = Ema(self.parameters, self.settings.ema) if self.settings.ema else None
        averages: dict[str, dict[str, Tensor]] = {"ema": self.ema.average} if self.ema else {}
        self.average = None
        if asked := self.settings.average:
            self.average = Average(self.parameters, asked.decay, asked.every)
            averages["average"] = self.average.average
        if self.copy is not None and self.settings.reference_ema:
            follow(self.copy, self.policy, 0.0)  # adapters too: an average of other ones would follow nothing
            copied = dict(self.copy.named_parameters())
            averages["reference"] = {name: copied[name] for name in self.parameters}
        self.checkpoints = Checkpoints(self.run, self.policy, self.optimizer, averages, job.keep)
        self.passes = Passes(
            self.stage, job.parallel.halves, self.family, layout, self.store, device, self.policy, self.copy, self.cache
        )
        if self.passes.point is not None:
            averages["reference_point"] = {"mean": self.passes.point}
        self.watch = Watch(self.settings.guards)
        self.reference_errors: Tensor | None = None  # on the validation pairs, once measured

    def _shape_of(self, size: str) -> str:
        """The shape of latents of FRAMESxHEIGHTxWIDTH, as their rows have it."""
        frames, height, width = map(int, size.split("x"))
        return ",".join(map(str, self.family.latent_shape(frames, height, width)))

    def _check(self) -> None:
        if reason := self.job.parallel.misfit(dist.get_world_size(), self.prefers, self.settings.batch):
            raise UserError(f"train.settings: {reason}")
        if self.job.model.ref.lora and self.settings.tuning == "full":
            raise UserError(
                f"model {self.job.model.name}: has adapters, which tuning `full` would lose; have them merged first "
                "(scripts/merged.py), or take tuning `lora`"
            )
        if reason := unfit(self.stage.objective, self.job.parallel):
            raise UserError(f"train.settings.{reason}")

    def _check_rows(self, rows: list[LatentRow]) -> None:
        """Refuse latents that cannot be trained on so."""
        dropout = caption_dropout(self.settings, self.family)
        labelled = not self.prefers or bool(self.objective.labelled)
        temporal = self.family.compression[0] if "frames" in self.objective.needs else None
        dataset.check(rows, self.job.model.encoder, self.prefers, self.store, dropout, labelled, temporal)
        if self.layout.pair == 2 and (row := next((row for row in rows if row.label), None)):
            raise UserError(
                f"train.settings.parallel.pair: 2 has winners and losers on different ranks, and {row.pair_id} is a "
                "sample with a label, which has no loser; take pair 1"
            )

    def train(self, lease: Lease | None = None) -> None:
        """All steps that are not done yet, then the export; or, if asked to stop, a checkpoint of what is done.

        Args:
            lease: of the run folder, on the first rank.
        """
        stop = Stop(self.run)
        if not self.ask_reference(stop):
            return
        start = saved = self.checkpoints.load()
        log = Log(self.run, start, self.settings.steps) if self.layout.first else None
        best = self._remember()
        note(self.run, self.device, self.attention, self.layout.place)
        if self.settings.caption_dropout and self.family.embeds_guidance:
            self._say("no caption is dropped: the model is given the guidance scale")
        self._say(f"training {self.job.model.name} -> {self.run.name[:12]}, from step {start}")
        for step in range(start, self.settings.steps):
            if stop.agreed(self.device):
                if step > saved:
                    still_mine(lease)
                    self.checkpoints.save(step)
                self.checkpoints.finish()
                if log:
                    log.close()
                    stop.leave(step, self.settings.steps)
                return
            row = self.step(step)
            done = step + 1
            if log:
                log.step(row)
            line = self.watch.look(row)
            if log and line:
                log.say(line)
            last = done == self.settings.steps
            if self.validation and (done % self.job.eval_every == 0 or last):
                with self.ema.swapped() if self.ema else nullcontext():
                    evaluation = self.evaluate(done)
                    if evaluation["error"] < best:
                        best = evaluation["error"]
                        still_mine(lease)
                        self.checkpoints.save_best(done)
                if log:
                    log.evaluation(evaluation)
            if done % self.job.checkpoint_every == 0 or last:
                still_mine(lease)
                self.checkpoints.save(done)
                saved = done
        self.checkpoints.finish()
        if log:
            log.close()
        still_mine(lease)
        self.export()

    def _remember(self) -> float:
        """Take in an earlier start's steps from the logs, as the first rank reads them; the least error so far."""
        shared: list[Any] = [None]
        if self.layout.first:
            errors = [row["error"] for row in logged(self.run, "eval")]
            least = min((error for error in errors if error is not None), default=math.inf)
            shared = [(logged(self.run, "metrics")[-self.settings.guards.drift_steps :], least)]
        dist.broadcast_object_list(shared, 0)
        past, least = shared[0]
        for row in past:
            self.watch.remember(row)
        return least

    def step(self, step: int) -> dict[str, Any]:
        """One optimiser step (counted from 0); its row of metrics, equal on all ranks."""
        begun = time.monotonic()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        torch.manual_seed(generator("step", self.stage.seed, step, dist.get_rank()).initial_seed())
        lr = self.settings.lr * rate(self.settings, step)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # of optimisers that compile their step
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        chunks, count = self.chunks(step)
        first = chunks[0][0][0]
        shape, halves = first.shape, 2 if self.prefers and not first.label else 1
        beforehand = self.passes.before_step(chunks, step)
        totals: dict[str, Tensor] = {}
        not_finite: list[str] = []
        for rows, positions in chunks:
            found = self.passes.backward(rows, positions, count, step, beforehand)
            finite_losses = found["loss"].isfinite().tolist()
            not_finite += [row.pair_id for row, fine in zip(rows, finite_losses, strict=True) if not fine]
            for name, value in found.items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value.sum()
        clipped: Any = nn.utils.clip_grad_norm_(list(self.parameters.values()), self.settings.clip_norm)
        norm = float(clipped.full_tensor() if hasattr(clipped, "full_tensor") else clipped)
        finite = math.isfinite(norm)
        if finite:
            self.optimizer.step()
            self._follow(step + 1)
        if self.average:  # after a step that was skipped too
            self.average.update(step + 1)
        self.optimizer.zero_grad()
        means = self._mean(totals)
        gain = means.pop("gain", None)
        if self.passes.point is not None and finite:
            self.passes.point.lerp_(torch.tensor(gain, device=self.device), 1 - self.stage.point_decay)
        means = of_samples(means)
        seconds = time.monotonic() - begun
        row: dict[str, Any] = {
            "step": step + 1,
            **means,
            "grad_norm": norm,
            "lr": lr,
            "tokens_per_s": self.tokens[shape] * self.settings.batch * halves / seconds,
            "seconds": seconds,
            "peak_memory_bytes": peak_memory(self.device),
            "mfu": self._mfu(shape, halves, seconds),
        }
        if finite:
            return row
        everywhere: list[list[str]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(everywhere, not_finite)
        row["skipped"] = sorted({pair for pairs in everywhere for pair in pairs})
        return row

    def chunks(self, step: int) -> tuple[list[Chunk], int]:
        """This rank's pairs of a step as micro-batches, and their number."""
        rows = self.order.step(step)
        positions = list(range(self.layout.data_rank, len(rows), self.layout.data))
        size = self.job.micro_batch
        spans = [positions[first : first + size] for first in range(0, len(positions), size)]
        return [([rows[position] for position in span], span) for span in spans], len(positions)

    def _follow(self, done: int) -> None:
        if self.ema:
            self.ema.update(done)
        moving = self.settings.reference_ema
        if moving and self.copy is not None and done % moving.every == 0:
            follow(self.copy, self.policy, moving.decay)
            self.reference_errors = None

    def ask_reference(self, stop: Stop) -> bool:
        """Have all errors of a cached reference; False if asked to stop before they were there."""
        if self.cache is None or self.cache.complete:
            return True
        steps, said = self.settings.steps, 0.0
        validation = None if len(self.cache.errors) else self._validate(self.policy)
        while not self.cache.complete:
            first = len(self.cache.errors)
            if stop.agreed(self.device):
                if self.layout.first:
                    stop.leave(0, steps)
                return False
            if time.monotonic() > said + LINE_EVERY:
                self._say(f"asking the reference for its errors: {first}/{steps} steps")
                said = time.monotonic()
            measured = [self._reference_errors_of(step) for step in range(first, min(first + ASKED_AT_ONCE, steps))]
            self.cache.extend(measured, self.settings.batch, validation)
            validation = None
        return True

    def _reference_errors_of(self, step: int) -> tuple[list[int], list[int], Tensor]:
        positions: list[int] = []
        found = []
        for rows, span in self.chunks(step)[0]:
            e = self.passes.without_graph(self.policy, self.passes.load(rows, step)).e
            if e.dim() > 1:  # frames are as many as a clip is long
                e = pad(e, (0, self.frames - e.shape[1]))
            positions += span
            found.append(e.reshape(-1, len(rows), *e.shape[1:]).transpose(0, 1))
        return positions, self.passes.numbers[: found[0].shape[1]], torch.cat(found)

    def evaluate(self, step: int) -> dict[str, Any]:
        """Errors on validation pairs with fixed noise and timesteps, equal on all ranks and layouts."""
        e = self._validate(self.policy)
        good = torch.tensor([row.label != "bad" for row in self.validation], device=self.device)  # winners too
        pairs = len(self.validation)
        result: dict[str, Any] = {"step": step, "error": float(e[:pairs][good].mean())}
        if not self.prefers:
            return result
        if self.reference_errors is None:
            if self.cache:
                self.reference_errors = self.cache.validation.to(self.device)
            else:
                with self.passes.reference() as model:
                    self.reference_errors = self._validate(model)
        first, second = (e - self.reference_errors).split(pairs)  # a sample's own gap lies first
        paired = torch.tensor([not row.label for row in self.validation], device=self.device)
        lost = torch.cat([second[paired], first[~good]])
        result["win_gap"] = float(first[good].mean())
        if len(lost):
            result["lose_gap"] = float(lost.mean())
        right = torch.where(paired, first < second, torch.where(good, first < 0, first > 0))
        return result | {"accuracy": float(right.float().mean())}

    def _validate(self, model: nn.Module) -> Tensor:
        return self.passes.validation_errors(model, self.validation, self.job.micro_batch)

    def _mean(self, totals: dict[str, Tensor]) -> dict[str, float]:
        values = torch.stack([value.float() for value in totals.values()]) / (self.settings.batch * self.layout.group)
        dist.all_reduce(values)
        return dict(zip(totals, values.tolist(), strict=True))

    def _mfu(self, shape: str, halves: int, seconds: float) -> float | None:
        """Model FLOPs utilisation (arXiv 2204.02311, appendix B); None where needs or hardware are not known."""
        needed = self.job.step_flops.get(shape)
        if not needed or not self.job.peak_flops:
            return None
        share = halves / 2 if self.prefers else 1  # of what a pair needs
        return needed * share / (seconds * dist.get_world_size() * self.job.peak_flops)

    def export(self) -> None:
        """Write the trained weights on the first rank; the folder appears when it is complete."""
        best = self.checkpoints.load_best() if self.settings.export == "best" else 0
        assert best or self.settings.export != "best" or not self.validation, "the best evaluation was not kept"
        average = self.average or self.ema
        with average.swapped() if average and not best else nullcontext():
            lora = self.settings.tuning == "lora"
            options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=lora)
            state: dict[str, Any] = get_model_state_dict(self.policy, options=options)
            if self.layout.first:
                with atomic(self.run / EXPORT) as folder:
                    folder.mkdir()
                    if lora:
                        self.family.save_lora(self.policy, state, folder)
                    else:
                        self.family.save_transformer(state, folder)
            dist.barrier()

    def _say(self, text: str) -> None:
        if self.layout.first:
            where = f"{dist.get_world_size()} ranks on {self.device.type} ({self.layout}), attention {self.attention}"
            print(f"{text}; {where}", file=sys.stderr)


def _optimizer(settings: TrainSettings, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    kind: Any = torch.optim.AdamW
    options: dict[str, Any] = {"fused": True}  # on a CPU too: its square roots are those of IEEE 754
    if settings.optimizer == "adamw_8bit":
        try:
            from torchao.optim import AdamW8bit
        except ImportError:
            raise UserError(
                "train.settings.optimizer: adamw_8bit needs the package torchao; install it or take adamw"
            ) from None
        kind, options = AdamW8bit, {}
    return kind(parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, **options)


def rate(settings: TrainSettings, step: int) -> float:
    """The factor on the learning rate at a step (counted from 0)."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return 1.0
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))
