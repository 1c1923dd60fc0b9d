"""A linear block-PCA video codec with the interface of diffusers' video autoencoders.

It stands in for the VAE of the embedded default: a convolutional autoencoder cannot be trained in the minutes that
run has, while the principal components of small blocks are found in seconds. Blocks are (temporal, spatial, spatial)
pixels; the first frame is repeated to fill a block of its own, as Wan's autoencoder gives it a latent of its own.
"""

import math
from collections.abc import Sequence
from itertools import permutations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn


class _Point:
    """A distribution that is one point: the codec is deterministic."""

    def __init__(self, mean: Tensor):
        self.mean = mean

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.mean


class BlockPCACodec(ModelMixin, ConfigMixin):
    """Pixels (B, 3, 1+kT, H, W) in [-1, 1] <-> latents (B, z_dim, 1+k, H/S, W/S)."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        z_dim: int = 16,
        scale_factor_spatial: int = 8,
        scale_factor_temporal: int = 4,
        latents_mean: tuple[float, ...] = (0.0,) * 16,
        latents_std: tuple[float, ...] = (1.0,) * 16,
    ):
        super().__init__()
        width = 3 * scale_factor_temporal * scale_factor_spatial**2
        self.center = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.basis = nn.Parameter(torch.zeros(z_dim, width), requires_grad=False)

    @classmethod
    def fit(cls, videos: Sequence[Tensor], z_dim: int, spatial: int, temporal: int) -> "BlockPCACodec":
        """The codec of least squared error on some videos in all six orders of their colour channels.

        Args:
            videos: (B, 3, F, H, W) in [-1, 1], of each size.

        The orders of the channels keep the codec from knowing only the colours of that footage. The latents are divided
        by the square root of their standard deviations, which keeps the leading components larger than the others
        without letting them drown those.
        """
        blank = cls(z_dim, spatial, temporal, (0.0,) * z_dim, (1.0,) * z_dim)
        blocks = torch.cat([blank._blocks(alike.double()).flatten(0, -2) for alike in videos])
        orders = list(permutations(range(3)))
        means = blocks.mean(0).view(3, -1)
        center = torch.stack([means[list(order)].flatten() for order in orders]).mean(0)
        moments = (blocks.T @ blocks / len(blocks)).view(3, means.shape[1], 3, means.shape[1])
        moment = torch.stack(
            [moments[list(order)][:, :, list(order)].flatten(2).flatten(0, 1) for order in orders]
        ).mean(0)
        covariance = moment - torch.outer(center, center)
        _, vectors = torch.linalg.eigh(covariance)
        basis = vectors.flip(1)[:, :z_dim].T
        basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()  # eigh leaves the sign open
        variances = (basis @ covariance @ basis.T).diagonal().tolist()
        scale = [math.sqrt(max(math.sqrt(max(variance, 0.0)), 1e-6)) for variance in variances]
        codec = cls(z_dim, spatial, temporal, (0.0,) * z_dim, tuple(scale))
        codec.center.copy_(center.float())
        codec.basis.copy_(basis.float())
        return codec

    def enable_tiling(self) -> None:
        """Nothing: its blocks are tiles already."""

    def disable_tiling(self) -> None:
        """Nothing, either."""

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[_Point]:
        point = _Point(((self._blocks(x) - self.center) @ self.basis.T).movedim(-1, 1))
        return AutoencoderKLOutput(latent_dist=point) if return_dict else (point,)

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        s, t = self.config["scale_factor_spatial"], self.config["scale_factor_temporal"]
        blocks = z.movedim(1, -1) @ self.basis + self.center
        x = blocks.unflatten(-1, (3, t, s, s)).permute(0, 4, 1, 5, 2, 6, 3, 7)
        x = x.flatten(6, 7).flatten(4, 5).flatten(2, 3)[:, :, t - 1 :]
        return DecoderOutput(sample=x) if return_dict else (x,)

    def _blocks(self, x: Tensor) -> Tensor:
        """(B, 3, 1+kT, H, W) -> (B, 1+k, H/S, W/S, 3*T*S*S)."""
        s, t = self.config["scale_factor_spatial"], self.config["scale_factor_temporal"]
        x = torch.cat([x[:, :, :1].expand(-1, -1, t - 1, -1, -1), x], dim=2)
        x = x.unflatten(4, (-1, s)).unflatten(3, (-1, s)).unflatten(2, (-1, t))
        return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
