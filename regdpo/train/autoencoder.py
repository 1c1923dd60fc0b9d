"""The training of a video autoencoder, on every rank (docs/concepts/methods.md has its loss).

A step draws how many latent frames its windows have, and for each clip of its batch where the window lies; one window
after another goes through the autoencoder. Every rank holds the whole model, which is small beside what it computes,
and takes its part of the batch; gradients are those of the mean over the batch. The critic, once it begins, is moved in
the same steps, from the same windows. All draws derive from (seed, step, place in the batch): so a resumed training
ends with the bytes of an undisturbed one, and any number of ranks sees the same windows.
"""

import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from regdpo.config.run_file import heeding
from regdpo.core import manifests
from regdpo.core.errors import UserError
from regdpo.core.packaged import weights_file
from regdpo.core.rows import ClipRow, PlaceRow
from regdpo.core.store import Store
from regdpo.core.temporaries import atomic
from regdpo.data.video import read_stored
from regdpo.data.weight_files import tensors
from regdpo.models.critic import PatchCritic
from regdpo.models.device import DTYPES
from regdpo.models.family import open_family
from regdpo.models.lpips import KEY, Distance
from regdpo.models.windows import check_windows, window_sides
from regdpo.objectives import autoencoder as losses
from regdpo.objectives.schedule import EVAL_PAIRS, generator
from regdpo.runs.job import EXPORT, VaeJob
from regdpo.runs.metrics import Log
from regdpo.runs.stop import Stop
from regdpo.runtime.lease import Lease
from regdpo.train.checkpoint import Checkpoints
from regdpo.train.ema import Ema
from regdpo.train.place import note, peak_memory, still_mine

NONFINITE = 5
"""Steps in a row that were skipped as not finite, after which the training stops."""


def start(job: VaeJob, device: torch.device) -> "Trainer":
    """What a rank does, once all are there."""
    return Trainer(job, device)


class Trainer:
    """The state of a training on one rank."""

    def __init__(self, job: VaeJob, device: torch.device):
        self.job, self.device, self.settings = job, device, job.stage.settings
        self.run, self.store = Path(job.run), heeding(Store(job.store, job.store_identity))
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        if self.settings.batch % self.ranks:
            raise UserError(f"vae.train.batch: {self.settings.batch} does not divide over {self.ranks} ranks")
        self.family = open_family(job.model.ref, self.store, torch.device("cpu"))
        self.clips, self.validation = self._clips()

        seed, loss = self.settings.seed, self.settings.loss
        torch.manual_seed(generator("autoencoder", seed).initial_seed())
        fresh, decoder = self.settings.start == "random", self.settings.part == "decoder"
        self.autoencoder: Any = self.family.autoencoder_to_train(fresh, decoder).to(device)
        torch.manual_seed(generator("critic", seed).initial_seed())
        self.critic = PatchCritic().to(device) if loss.gan else None
        self.perceptual = self._perceptual() if loss.perceptual else None

        named = {name: it for name, it in self.autoencoder.named_parameters() if it.requires_grad}
        self.parameters = list(named.values())
        groups: list[dict[str, Any]] = [{"params": self.parameters}]
        if self.critic:
            groups.append({"params": list(self.critic.parameters())})
        self.optimizer = torch.optim.AdamW(groups, betas=self.settings.betas, weight_decay=0, fused=True)
        _prime(self.optimizer)
        self.ema = Ema(named, self.settings.ema) if self.settings.ema else None
        parts = {"autoencoder": self.autoencoder, **({"critic": self.critic} if self.critic else {})}
        averages = {"ema": self.ema.average} if self.ema else {}
        self.checkpoints = Checkpoints(self.run, nn.ModuleDict(parts), self.optimizer, averages, job.keep)
        self.skipped = 0  # steps in a row

    def _clips(self) -> tuple[list[ClipRow], list[ClipRow]]:
        """Those of the training split, and some of the validation split, that the longest window fits into.

        Raises:
            UserError: there is none to train on, or windows are too small.
        """
        split = {row.clip_id: row.split for row in manifests.read(self.job.places, PlaceRow)}
        every = sorted(manifests.read(self.job.clips, ClipRow, ids=set(split)), key=lambda clip: clip.clip_id)
        frames = self.family.window_frames(max(self.settings.windows))
        if not any(split[clip.clip_id] == "train" for clip in every):
            raise UserError("vae.train: no clip is in the training split, so there is none to train on")
        to_train = [clip for clip in every if split[clip.clip_id] == "train"]
        sizes = ((clip.frames, clip.height, clip.width) for clip in to_train)
        check_windows(self.settings, self.job.model.name, frames, self.family.compression[1], sizes)
        clips, validation = (
            [clip for clip in every if split[clip.clip_id] == part and clip.frames >= frames]
            for part in ("train", "validation")
        )
        return clips, validation[:: max(1, len(validation) // EVAL_PAIRS)][:EVAL_PAIRS]

    def _perceptual(self) -> Distance:
        lpips = self.job.stage.lpips
        assert lpips is not None, "the configuration asks for them"
        files = {name: tensors(f"{KEY}.{name}", weights_file(f"{KEY}.{name}", it)) for name, it in lpips.named.items()}
        return Distance(**files).to(self.device)

    def train(self, lease: Lease | None = None) -> None:
        """All steps that are not done yet, then the export; or, if asked to stop, a checkpoint of what is done.

        Args:
            lease: of the run folder, on the first rank.
        """
        stop, steps = Stop(self.run), self.settings.steps
        begin = saved = self.checkpoints.load()
        log = Log(self.run, begin, steps) if self.rank == 0 else None
        note(self.run, self.device)
        if log:
            log.say(f"training the autoencoder of {self.job.model.name}, {len(self.clips)} clips, from step {begin}")
        for step in range(begin, steps):
            if asked := stop.agreed(self.device):
                break
            row, done = self.step(step), step + 1
            if log:
                log.step(row)
            if self.validation and (done % self.job.eval_every == 0 or done == steps):
                with self.ema.swapped() if self.ema else nullcontext():
                    evaluation = self.evaluate(done)
                if log:
                    log.evaluation(evaluation)
            if done % self.job.checkpoint_every == 0 or done == steps:
                still_mine(lease)
                self.checkpoints.save(done)
                saved = done
        else:
            asked, step = False, steps
        if asked and step > saved:
            still_mine(lease)
            self.checkpoints.save(step)
        self.checkpoints.finish()
        if log:
            log.close()
            if asked:
                stop.leave(step, steps)
        if not asked:
            still_mine(lease)
            self.export()

    def step(self, step: int) -> dict[str, Any]:
        """One optimiser step (counted from 0); its row of metrics, equal on all ranks.

        Raises:
            UserError: too many steps in a row were not finite.
        """
        begun, seed = time.monotonic(), self.settings.seed
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        pace = min(1.0, (step + 1) / max(1, self.settings.warmup))
        rates = (self.settings.lr, self.settings.critic_lr)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=False):
            group["lr"] = rate * pace
        which = torch.randint(len(self.settings.windows), (), generator=generator("window", seed, step))
        latents = self.settings.windows[int(which)]
        clips = batch(self.clips, self.settings.batch, seed, step)
        totals: dict[str, Tensor] = {}
        for place in range(self.rank, len(clips), self.ranks):
            for name, value in self._backward(clips[place], latents, step, place).items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value.detach().float()
        norms = [self._clipped(group["params"]) for group in self.optimizer.param_groups]
        finite = all(map(math.isfinite, norms))
        if finite:
            self.optimizer.step()
            if self.ema:
                self.ema.update(step + 1)
        self.optimizer.zero_grad()
        self.skipped = 0 if finite else self.skipped + 1
        if self.skipped == NONFINITE:
            raise UserError(
                f"step {step + 1}: not finite {NONFINITE} times in a row; lower vae.train.lr, or take precision fp32; "
                "the last checkpoint is intact"
            )
        values = torch.stack(list(totals.values())) / self.settings.batch
        dist.all_reduce(values)
        seconds = time.monotonic() - begun
        return {
            "step": step + 1,
            **dict(zip(totals, values.tolist(), strict=True)),
            "grad_norm": norms[0],
            **({"critic_norm": norms[1]} if "critic" in totals else {}),
            "lr": self.settings.lr * pace,
            "latents": latents,
            "frames_per_s": self.family.window_frames(latents) * self.settings.batch / seconds,
            "seconds": seconds,
            "peak_memory_bytes": peak_memory(self.device),
            **({} if finite else {"skipped": True}),
        }

    def _backward(self, clip: ClipRow, latents: int, step: int, place: int) -> dict[str, Tensor]:
        """Forward and backward of one window; its terms, ().

        Args:
            place: in the batch of all ranks, in which a small training split has a clip more than once.
        """
        loss, count = self.settings.loss, self.settings.batch
        drawn = generator("place", self.settings.seed, step, place)
        torch.manual_seed(drawn.initial_seed())  # of dropout, where a checkpoint asks for it
        real = self._window(clip, latents, drawn)

        def sample(mean: Tensor, log_variance: Tensor) -> Tensor:
            noise = torch.randn(mean.shape, generator=drawn).to(self.device)
            return mean.float() + (log_variance.float() / 2).exp() * noise

        with self._precision():
            made, mean, log_variance = (it.float() for it in self.family.reconstruct(self.autoencoder, real, sample))
        terms = losses.terms(made, real, mean, log_variance, loss, self.perceptual)
        total = losses.total(terms, loss)
        weight = losses.adversarial_weight(step, self.settings.critic_begins, loss.gan)
        if self.critic and weight:
            self.critic.requires_grad_(False)  # it learns from its own loss alone
            with self._precision():
                terms["adversarial"] = losses.adversarial(self.critic(made).float()).mean()
            self.critic.requires_grad_(True)
            total = total + weight * terms["adversarial"]
        (total / count).backward()
        if self.critic and weight:
            with self._precision():
                answers = (self.critic(it).float() for it in (real, made.detach()))
                terms["critic"] = losses.critic(*answers).mean()
            (terms["critic"] / count).backward()
        return {"loss": total, **terms}

    def _precision(self) -> torch.autocast:
        dtype = DTYPES[self.settings.precision]
        return torch.autocast(self.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)

    def _clipped(self, parameters: list[nn.Parameter]) -> float:
        """Have the sum of all ranks' gradients, of no more than the greatest norm; the norm that it had."""
        gradients = [it.grad for it in parameters if it.grad is not None]
        if not gradients:
            return 0.0  # of a critic that has not begun
        if self.ranks > 1:
            flat = torch.cat([it.flatten() for it in gradients])
            dist.all_reduce(flat)
            for gradient, whole in zip(gradients, flat.split([it.numel() for it in gradients]), strict=True):
                gradient.copy_(whole.view_as(gradient))
        return float(nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm))

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, Any]:
        """Mean squared error in [-1, 1] and PSNR of validation clips, of the longest window from their first frame on;
        means over clips, from the posterior's mean, equal on all ranks."""
        found = torch.zeros(2, device=self.device)
        for clip in self.validation[self.rank :: self.ranks]:
            real = self._window(clip, max(self.settings.windows), None)
            with self._precision():
                made, *_ = self.family.reconstruct(self.autoencoder, real, lambda mean, log_variance: mean)
            error = F.mse_loss(made.float().clamp(-1, 1), real)
            found += torch.stack([error, 10 * torch.log10(4 / error)])
        dist.all_reduce(found)
        error, psnr = (found / len(self.validation)).tolist()
        return {"step": step, "error": error, "psnr": psnr}

    def _window(self, clip: ClipRow, latents: int, drawn: torch.Generator | None) -> Tensor:
        """Pixels (1, 3, F, H, W) in [-1, 1] of a clip: where it is drawn, or its first frames about the middle."""
        frames, sides = self.family.window_frames(latents), self._size(clip)
        room = [clip.frames - frames, clip.height - sides[0], clip.width - sides[1]]
        if drawn is None:
            first, top, left = 0, room[1] // 2, room[2] // 2
        else:
            first, top, left = (int(torch.randint(most + 1, (), generator=drawn)) for most in room)
        pixels = read_stored(self.store, clip.path, clip.sha256)
        pixels = pixels[first : first + frames, top : top + sides[0], left : left + sides[1]]
        return torch.from_numpy(pixels.copy()).to(self.device).permute(3, 0, 1, 2)[None].float() / 127.5 - 1

    def _size(self, clip: ClipRow) -> tuple[int, int]:
        """Height and width of a clip's windows."""
        return window_sides(clip.height, clip.width, self.settings.crop, self.family.compression[1])

    def export(self) -> None:
        """Write the autoencoder in diffusers' layout on the first rank; the folder appears when it is complete."""
        with self.ema.swapped() if self.ema else nullcontext():
            if self.rank == 0:
                with atomic(self.run / EXPORT) as folder:
                    self.autoencoder.save_pretrained(folder, safe_serialization=True)
                    print(f"the autoencoder is in {self.run / EXPORT}", file=sys.stderr)
            dist.barrier()


def batch(clips: list[ClipRow], size: int, seed: int, step: int) -> list[ClipRow]:
    """The clips of a step over all ranks: epoch follows epoch without a seam, each in an order of its own."""
    places = [divmod(place, len(clips)) for place in range(step * size, (step + 1) * size)]
    orders = {
        epoch: torch.randperm(len(clips), generator=generator("order", seed, epoch)).tolist()
        for epoch in {epoch for epoch, _ in places}
    }
    return [clips[orders[epoch][index]] for epoch, index in places]


def _prime(optimizer: torch.optim.Optimizer) -> None:
    """Have its state from the beginning, as AdamW would make it, so that checkpoints hold the same before and after a
    critic begins."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
