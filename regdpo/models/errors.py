"""The number everything rests on: the denoising error of one sample."""

import torch
from torch import Tensor, nn

from regdpo.models.family import Family


def residuals(
    family: Family,
    transformer: nn.Module,
    x0: Tensor,
    noise: Tensor,
    sigma: Tensor,
    inputs: dict[str, Tensor],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The denoiser's answer less its target, but for frames that are given clean (``inputs["first"]``).

    Args:
        x0, noise: (B, C, F, H, W), fp32. sigma: (B,) in (0, 1), 1 = noise. inputs: text and condition, batch first.
        dtype: what the denoiser is fed; noised latents and target are made in fp32.

    Returns:
        (B, C, F, H, W), fp32, with the graph of ``transformer``.
    """
    prediction = family.predict(transformer, family.noised(x0, noise, sigma).to(dtype), sigma, inputs)
    return (prediction.float() - family.target(x0, noise, sigma))[:, :, given_frames(inputs) :]


def given_frames(inputs: dict[str, Tensor]) -> int:
    """Latent frames that are given clean, and have no error."""
    return inputs["first"].shape[2] if "first" in inputs else 0


def mean_squares(residual: Tensor) -> Tensor:
    """Element-mean squared error of each sample: (B, ...) -> (B,)."""
    return (residual**2).flatten(1).mean(1)


def frame_squares(residual: Tensor) -> Tensor:
    """Element-mean squared error of each latent frame: (B, C, F, H, W) -> (B, F)."""
    return (residual**2).mean((1, 3, 4))


def mean_products(residual: Tensor, other: Tensor) -> Tensor:
    """Element mean of two residuals' product, of each sample: (B, ...) -> (B,)."""
    return (residual * other).flatten(1).mean(1)
