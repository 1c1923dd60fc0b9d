"""HunyuanVideo: text-to-video, rectified flow; text as tokens with a mask and as one pooled vector."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import Tensor, nn

from regdpo.core.errors import UserError
from regdpo.models.diffusers_family import TRAIN_TIMESTEPS, DiffusersFamily

UNGUIDED = 1.0
"""The guidance scale that a distilled denoiser is trained at: data, not what guidance makes of it, is the target."""

WORDED: dict[str, Any] = DEFAULT_PROMPT_TEMPLATE
"""What the pipeline puts a caption into, and how many tokens of that it drops at the beginning."""


class HunyuanVideo(DiffusersFamily):
    """A diffusers checkpoint with a ``HunyuanVideoTransformer3DModel`` and no image condition."""

    name = "HunyuanVideo"
    text_length = 256
    text_template = int(str(DEFAULT_PROMPT_TEMPLATE["crop_start"]))
    flash = False
    transformer_class = HunyuanVideoTransformer3DModel
    pipeline_class = HunyuanVideoPipeline
    depths = ("num_layers", "num_single_layers")
    text_width = "text_embed_dim"
    autoencoders: ClassVar = {"AutoencoderKLHunyuanVideo": AutoencoderKLHunyuanVideo}

    def check(self) -> None:
        if self.ref.task == "i2v" or self._transformer_config["image_condition_type"]:
            raise UserError("base.task: HunyuanVideo is covered for t2v alone, with its text-to-video checkpoint")
        super().check()

    def blocks(self, transformer: nn.Module) -> list[nn.Module]:
        return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]  # type: ignore[misc]

    def text_tokens(self, captions: Sequence[str]) -> list[int]:
        """Of the words that a caption is put into, those before it are not counted, as the pipeline cuts them off."""
        return [tokens - WORDED["crop_start"] for tokens in super().text_tokens(captions)]

    def worded(self, caption: str) -> str:
        return WORDED["template"].format(caption)

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> dict[str, Tensor]:
        self._bring(self._text)
        embeddings, pooled, mask = self._text.encode_prompt(
            captions, max_sequence_length=self.ref.text_length, device=self.device
        )
        return {"text": embeddings, "text_mask": mask, "pooled": pooled}

    def encode_first_frame(self, frame: Tensor, frames: int) -> dict[str, Tensor]:
        return {}

    def example_inputs(self, latent_shape: tuple[int, ...]) -> dict[str, Tensor]:
        inputs = super().example_inputs(latent_shape)
        inputs["text_mask"] = torch.empty(1, self.ref.text_length, device="meta")
        inputs["pooled"] = torch.empty(1, self._transformer_config["pooled_projection_dim"], device="meta")
        return inputs

    def predict(self, transformer: nn.Module, x_t: Tensor, sigma: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        guidance = inputs["guidance"] if "guidance" in inputs else torch.full_like(sigma, UNGUIDED)
        return transformer(
            hidden_states=x_t,
            timestep=sigma.float() * TRAIN_TIMESTEPS,
            encoder_hidden_states=inputs["text"].to(x_t.dtype),
            encoder_attention_mask=inputs["text_mask"].to(x_t.dtype),
            pooled_projections=inputs["pooled"].to(x_t.dtype),
            guidance=guidance.float() * 1000,
            return_dict=False,
        )[0]

    @property
    def embeds_guidance(self) -> bool:
        return bool(self._transformer_config["guidance_embeds"])
