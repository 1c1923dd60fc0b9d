"""Denoising: the steps of the family's sampler, with guidance in all of them or in an interval.

For one video it is the pipeline's own loop, which tests/unit/test_families.py holds it to.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regdpo.config.schema import Sampling
from regdpo.core.errors import UserError
from regdpo.models.family import Family
from regdpo.sampling.caching import cached, transformers


def check(family: Family, sampling: Sampling) -> None:
    """Refuse what this checkpoint cannot do.

    Raises:
        UserError: with the key.
    """
    if family.embeds_guidance and sampling.guidance_interval != (0, 1):
        raise UserError(
            "sampling.guidance_interval: the model is given the guidance scale and asked once a step; leave it out"
        )
    if sampling.cache.kind == "pyramid_attention" and sampling.guided and not family.embeds_guidance:
        raise UserError(
            "sampling.cache.kind: diffusers' pyramid_attention keeps one state for both passes of guidance and "
            "would mix them up; take taylorseer, or guidance: 1"
        )


def prepared(denoiser: nn.Module, sampling: Sampling) -> nn.Module:
    """The denoiser, or both experts, for evaluation; with compiled blocks if that is wanted."""
    for part in transformers(denoiser) if sampling.compile else ():
        part.compile_repeated_blocks()
    return denoiser.eval()


@torch.no_grad()
def denoise(
    family: Family,
    denoiser: nn.Module,
    inputs: dict[str, Tensor],
    noise: Tensor,
    sampling: Sampling,
    negative: dict[str, Tensor] | None = None,
    video: Tensor | None = None,
    first: int = 0,
    seeds: Sequence[torch.Generator] = (),
) -> Tensor:
    """Latents (B, C, F, H, W) from noise of that shape, or from a video that is noised.

    Args:
        inputs: text and condition, batch first. negative: what ``negatives_of`` encodes, if it was encoded before.
        video: latents to begin with, noised to the level of the step ``first``, from which on steps are made
            (SDEdit, arXiv 2108.01073).
        seeds: of each sample, what a sampler whose steps draw noise draws it from.
    """
    if negative is None:
        negative = negatives_of(family, sampling, len(noise))
    inputs, noise = {name: value.to(family.device) for name, value in inputs.items()}, noise.to(family.device)
    scheduler = family.sampler(sampling.steps, sampling.shift, tuple(noise.shape[1:]), sampling.solver)
    if family.embeds_guidance:
        inputs = {**inputs, "guidance": noise.new_full((len(noise),), sampling.scale(None))}
    unconditional = {**inputs, **{name: value.to(family.device) for name, value in negative.items()}}
    latents = noise
    if video is not None:
        start = levels(family, scheduler)[first].to(noise).expand(len(noise))
        latents = family.noised(video.to(noise), noise, start)
        if hasattr(scheduler, "set_begin_index"):  # timesteps that are alike tell no place
            scheduler.set_begin_index(first)
    with cached(denoiser, sampling.cache) as during:
        for step, t in enumerate(scheduler.timesteps[first:], start=first):
            sigma = family.sigma_of(t).expand(len(latents))
            family.seat(denoiser, sigma)
            with during("guided", 1000 * sigma[0]):
                prediction = family.predict(denoiser, latents.to(family.dtype), sigma, inputs).float()
            scale = sampling.scale(family.expert(sigma))
            if negative and scale > 1 and sampling.guides(step):
                with during("plain", 1000 * sigma[0]):
                    plain = family.predict(denoiser, latents.to(family.dtype), sigma, unconditional).float()
                prediction = plain + scale * (prediction - plain)
            drawn = {"noise": _drawn(latents, seeds)} if getattr(scheduler, "draws", False) else {}
            latents = scheduler.step(prediction, t, latents, return_dict=False, **drawn)[0]
    if "first" in inputs:
        latents[:, :, : inputs["first"].shape[2]] = inputs["first"]
    return latents


def _drawn(like: Tensor, seeds: Sequence[torch.Generator]) -> Tensor:
    """Noise of each sample by its own generator, so that it does not depend on its company."""
    noise = [torch.randn(one.shape, generator=seed) for one, seed in zip(like, seeds, strict=True)]
    return torch.stack(noise).to(like)


def levels(family: Family, scheduler: Any) -> Tensor:
    """The sigma that each step of a sampler begins at: a flow's as it is stepped from, which the timesteps that the
    denoiser is told round."""
    if hasattr(scheduler, "sigmas"):
        return torch.as_tensor(scheduler.sigmas)[: len(scheduler.timesteps)]
    return family.sigma_of(torch.as_tensor(scheduler.timesteps))


NOISE = 0.999
"""The sigma from which on a step begins with noise alone."""


def nearest_step(family: Family, sampling: Sampling, latent_shape: tuple[int, ...], sigma: float) -> tuple[int, float]:
    """The step that begins nearest to a sigma, and where it begins; where there is a choice not with noise alone, in
    which nothing is left of a clip."""
    scheduler = family.sampler(sampling.steps, sampling.shift, latent_shape, sampling.solver)
    found = levels(family, scheduler)
    far, some = (found - sigma).abs(), found < NOISE
    step = int((far.where(some, torch.inf) if sigma < NOISE and some.any() else far).argmin())
    return step, float(found[step])


def negatives_of(family: Family, sampling: Sampling, count: int) -> dict[str, Tensor]:
    """The text that guidance leads ``count`` videos away from; empty if there is no such guidance."""
    if not sampling.guided or family.embeds_guidance:
        return {}
    return family.encode_negative([sampling.negative_prompt] * count)
