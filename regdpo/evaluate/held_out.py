"""Held-out denoising error: the training error on clips never trained on, with fixed noise and timesteps."""

import torch

from regdpo.config.stage_inputs import ErrorsStage
from regdpo.core.progress import track
from regdpo.core.rows import LatentRow, ScoreRow
from regdpo.core.store import Store
from regdpo.data.latent_files import DRAWS, read_latents
from regdpo.evaluate.measures import Given
from regdpo.evaluate.proxies import row
from regdpo.models.device import compute_dtype, pick
from regdpo.models.errors import mean_squares, residuals
from regdpo.models.family import open_family
from regdpo.models.spec import ModelFile
from regdpo.objectives.schedule import fixed_sigmas, generator


def measure(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``."""
    assert given.model is not None
    return score(given.stage, given.model, list(given.latents), given.store, pick(given.device))


@torch.no_grad()
def score(
    stage: ErrorsStage, model: ModelFile, latents: list[LatentRow], store: Store, device: torch.device
) -> list[ScoreRow]:
    """One ``held_out_error`` a clip of the split: the mean over ``error.timesteps`` sigmas with the clip's noise.

    Samples that are labelled bad are left out. Of a model with two experts it is the error of the one that is trained,
    on its part of the sigmas.
    """
    family = open_family(model.ref, store, device, compute_dtype(device))
    transformer = family.load_transformer().eval()
    clips = {latent.clip_id: latent for latent in latents if latent.split == stage.split and latent.label != "bad"}
    rows = []
    for clip_id, latent in track(sorted(clips.items()), "held-out error", len(clips)):
        tensors = {name: value.float().to(device) for name, value in read_latents(latent, store).items()}
        x0 = tensors.pop("winner")[None]
        tensors.pop("loser", None)
        tensors = {name: value for name, value in tensors.items() if not name.endswith(DRAWS)}
        noise = torch.randn(x0.shape, generator=generator("held-out", stage.error.seed, clip_id)).to(device)
        low, high = family.sigma_range
        sigmas = (low + (high - low) * fixed_sigmas(stage.error.timesteps)).to(device)
        errors = []
        family.seat(transformer, sigmas)
        for chunk in sigmas.split(stage.error.batch):
            inputs = {name: value[None].expand(len(chunk), *value.shape) for name, value in tensors.items()}
            shape = (len(chunk), *x0.shape[1:])
            errors.append(
                mean_squares(
                    residuals(family, transformer, x0.expand(shape), noise.expand(shape), chunk, inputs, family.dtype)
                )
            )
        rows.append(row(model.name, "held_out_error", clip_id, -1, float(torch.cat(errors).mean())))
    return rows
