"""Wan 2.1: text-to-video and image-to-video, rectified flow in the latents of its video autoencoder."""

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor, nn

from regdpo.core.errors import UserError
from regdpo.models import adapters, encoders
from regdpo.models.codec import BlockPCACodec
from regdpo.models.diffusers_family import TRAIN_TIMESTEPS, DiffusersFamily, to_pixels
from regdpo.models.family import Draw
from regdpo.models.live import Need

IMAGE_TOKENS = 257
"""Of the image encoder that 2.1's image-to-video models are given: 16 x 16 patches and a class token."""


class Wan(DiffusersFamily):
    """A diffusers checkpoint with a ``WanTransformer3DModel``."""

    name = "Wan"
    text_length = 512
    decode_dtype = torch.float32  # as diffusers' documents recommend
    transformer_class = WanTransformer3DModel
    pipeline_class = WanPipeline
    text_width = "text_dim"
    autoencoders: ClassVar = {"AutoencoderKLWan": AutoencoderKLWan, "BlockPCACodec": BlockPCACodec}
    trained_autoencoders = (AutoencoderKLWan,)
    tensor: ClassVar = {
        **dict.fromkeys(("attn1", "attn2", "ffn"), "region"),
        **dict.fromkeys(("to_q", "to_k", "to_v", "add_k_proj", "add_v_proj", "ffn.net.0.proj"), "column"),
        **dict.fromkeys(("to_out.0", "ffn.net.2"), "row"),
        **dict.fromkeys(("norm_q", "norm_k", "norm_added_k"), "norm"),
        "proj_out": "exit",
        "": "timestep",
    }

    def check(self) -> None:
        if self._index.get("transformer_2", [None])[0] or self._index.get("expand_timesteps"):
            raise UserError(f"base.family: {self._location} is a Wan 2.2; take `wan22`")
        super().check()

    @property
    def in_channels(self) -> int:
        """For image-to-video the mask and the latents of the condition are stacked on the noised latents."""
        return 2 * self.channels + self.compression[0] if self.ref.task == "i2v" else self.channels

    def worded(self, caption: str) -> str:
        return prompt_clean(caption)

    @property
    def demanded_text_length(self) -> int | None:
        """512 where there are image tokens: the attention tells those from text by that number."""
        return 512 if self._transformer_config["image_dim"] else None

    @property
    def channels(self) -> int:
        return self._vae_config["z_dim"]

    def most_frames(self, height: int, width: int) -> int:
        reach, (temporal, spatial), (long, wide) = (
            self._transformer_config["rope_max_seq_len"],
            self.compression,
            self.patch,
        )
        return 0 if max(height, width) // spatial // wide > reach else (reach * long - 1) * temporal + 1

    def schedule(self, steps: int) -> np.ndarray:
        """One step short of a grid that ends at the first timestep, as UniPC spaces a flow."""
        return np.linspace(1, 1 / TRAIN_TIMESTEPS, steps + 1)[:-1]

    def blocks(self, transformer: nn.Module) -> list[nn.Module]:
        return list(transformer.blocks)  # type: ignore[arg-type]

    def save_lora(self, model: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
        """diffusers takes adapters without the image's keys and values for those of a text-to-video model, and adds
        zeros for these."""
        names = list(state)
        added = any("attn2.to_k." in name for name in names) and not any("attn2.add_" in name for name in names)
        idle = ("attn2.add_k_proj", "attn2.add_v_proj") if added and self._transformer_config["image_dim"] else ()
        adapters.save(self.pipeline_class, model, state, folder, idle)

    @torch.no_grad()
    def encode_first_frame(self, frame: Tensor, frames: int) -> dict[str, Tensor]:
        if self.ref.task == "t2v":
            return {}
        first = to_pixels(frame.unsqueeze(1))
        latents = self._encode(torch.cat([first, first.new_zeros(*first.shape[:2], frames - 1, *first.shape[3:])], 2))
        mask = latents.new_zeros(latents.shape[0], self.compression[0], *latents.shape[2:])
        mask[:, :, 0] = 1
        inputs = {"condition": torch.cat([mask, latents], dim=1)}
        if self._transformer_config["image_dim"]:
            self._bring(self._image)
            inputs["image"] = self._image.encode_image([image.numpy() for image in frame.cpu()], self.device)
        return inputs

    def encoder_needs(self, captions: int) -> dict[str, Need]:
        needs = super().encoder_needs(captions)
        if self.ref.task == "i2v" and self._transformer_config["image_dim"]:
            needs["image encoder"] = encoders.need(self._parts(["image_encoder"]), self.dtype, captions)
        return needs

    def example_inputs(self, latent_shape: tuple[int, ...]) -> dict[str, Tensor]:
        inputs = super().example_inputs(latent_shape)
        if width := self._transformer_config["image_dim"]:
            inputs["image"] = torch.empty(1, IMAGE_TOKENS, width, device="meta")
        return inputs

    def predict(self, transformer: nn.Module, x_t: Tensor, sigma: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        parts = [x_t, inputs["condition"].to(x_t.dtype)] if "condition" in inputs else [x_t]
        return self._forward(transformer, torch.cat(parts, dim=1), sigma.float() * TRAIN_TIMESTEPS, inputs)

    def _forward(self, transformer: nn.Module, x: Tensor, timestep: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        return transformer(
            hidden_states=x,
            timestep=timestep,
            encoder_hidden_states=inputs["text"].to(x.dtype),
            encoder_hidden_states_image=inputs["image"].to(x.dtype) if "image" in inputs else None,
            return_dict=False,
        )[0]

    @cached_property
    def _image(self) -> Any:
        """The CLIP image encoder that Wan 2.1's image-to-video models are given; later ones have none."""
        return self._pipeline(
            WanImageToVideoPipeline, ("transformer", "transformer_2", "vae", "text_encoder", "tokenizer")
        )

    def reconstruct(self, autoencoder: Any, pixels: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """What the decoder answers, latent by latent, since diffusers' ``decode`` clamps it, and a pixel beyond black
        or white would have no gradient back."""
        parts: list[Tensor] = []
        hook = autoencoder.decoder.register_forward_hook(lambda module, given, made: parts.append(made))
        try:
            _, mean, log_variance = super().reconstruct(autoencoder, pixels, draw)
        finally:
            hook.remove()
        made, patch = torch.cat(parts, 2), autoencoder.config.patch_size
        return made if patch is None else unpatchify(made, patch), mean, log_variance

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (
            like.new_tensor(self._vae_config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std")
        )
        return mean, std
