"""An autoencoder of pictures that takes a video frame by frame."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor


class FrameAutoencoder(AutoencoderKL):
    """diffusers' ``AutoencoderKL``, between videos (B, 3, F, H, W) and latents (B, C, F, H', W')."""

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """The posterior of all frames, one frame at a time."""
        moments = [AutoencoderKL.encode(self, frame).latent_dist.parameters for frame in x.unbind(2)]
        posterior = DiagonalGaussianDistribution(torch.stack(moments, dim=2))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True, generator: Any = None) -> Any:
        """Pixels, one frame at a time."""
        frames = [AutoencoderKL.decode(self, frame).sample for frame in z.unbind(2)]
        video = torch.stack(frames, dim=2)
        return DecoderOutput(sample=video) if return_dict else (video,)
