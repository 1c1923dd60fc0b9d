"""LTX-Video: text-to-video and image-to-video, rectified flow over packed latents.

One model does both: for image-to-video the first latent frame is given clean, at timestep 0. Rotary positions are in
seconds, so the clips' frame rate counts.
"""

from typing import ClassVar

import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel
from torch import Tensor, nn

from regdpo.models.diffusers_family import TRAIN_TIMESTEPS, DiffusersFamily, keep_first, to_pixels


class LTXVideo(DiffusersFamily):
    """A diffusers checkpoint with a ``LTXVideoTransformer3DModel``."""

    name = "LTX-Video"
    text_length = 128
    flash = False
    transformer_class = LTXVideoTransformer3DModel
    pipeline_class = LTXPipeline
    text_width = "caption_channels"
    autoencoders: ClassVar = {"AutoencoderKLLTXVideo": AutoencoderKLLTXVideo}

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> dict[str, Tensor]:
        self._bring(self._text)
        embeddings, mask, _, _ = self._text.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=self.ref.text_length, device=self.device
        )
        return {"text": embeddings, "text_mask": mask}

    @torch.no_grad()
    def encode_first_frame(self, frame: Tensor, frames: int) -> dict[str, Tensor]:
        return {"first": self._encode(to_pixels(frame.unsqueeze(1)))} if self.ref.task == "i2v" else {}

    def example_inputs(self, latent_shape: tuple[int, ...]) -> dict[str, Tensor]:
        inputs = super().example_inputs(latent_shape)
        inputs["text_mask"] = torch.empty(1, self.ref.text_length, device="meta")
        if self.ref.task == "i2v":
            channels, _, *size = latent_shape
            inputs["first"] = torch.empty(1, channels, 1, *size, device="meta")
        return inputs

    def predict(self, transformer: nn.Module, x_t: Tensor, sigma: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        frames, height, width = size = x_t.shape[2:]
        x, timestep = keep_first(x_t, sigma.float() * TRAIN_TIMESTEPS, inputs)
        temporal, spatial = self.compression
        answer = transformer(
            hidden_states=x.flatten(2).transpose(1, 2),  # (B, F' H' W', C)
            encoder_hidden_states=inputs["text"].to(x.dtype),
            timestep=timestep if "first" in inputs else timestep[:, 0],
            encoder_attention_mask=inputs["text_mask"].to(x.dtype),
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(temporal / self.ref.fps, spatial, spatial),
            return_dict=False,
        )[0]
        return answer.transpose(1, 2).unflatten(2, size)

    def _decode(self, latents: Tensor) -> Tensor:
        """Without noise of its own, as the pipeline's defaults have it."""
        conditioned = self._vae_config["timestep_conditioning"]
        timestep = latents.new_zeros(len(latents)) if conditioned else None
        return self._vae.decode(latents, timestep, return_dict=False)[0]

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (value.to(like).view(1, -1, 1, 1, 1) for value in (self._vae.latents_mean, self._vae.latents_std))
        return mean, std / self._vae_config["scaling_factor"]
