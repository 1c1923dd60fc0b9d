"""MUG-V 10B (arXiv 2510.17519): image-to-video and text-to-video, rectified flow in the latents of its autoencoder.

``scripts/convert.py mugv`` makes the checkpoint of the published files. One model does both tasks: for image-to-video
the first latent frame is given clean, and its tokens take the modulation of t = 0. What the published code does and a
reader would not expect, beside what its two modules say:

- the denoiser answers ``x0 - noise``, in the first half of its channels; the other half means nothing. Here the sign is
  turned, so that target and sampler are those of the other flows;
- a caption is followed by a score of its aesthetics, always the same;
- guidance leads away from a fixed text, which has no such score; ``sampling.negative_prompt`` replaces it;
- sigmas are shifted by ``sqrt(H W / 512^2) sqrt(F')``, of pixels and latent frames. The published pipeline computes
  that in bf16, 7 in the place of 7.016 for 105 frames of 1280 x 720; here it is exact;
- the text encoder runs in fp32.
"""

import math
from functools import cached_property
from typing import Any, ClassVar

import torch
import transformers
from diffusers.loaders import LTXVideoLoraLoaderMixin
from torch import Tensor, nn

from regdpo.config.schema import Solver
from regdpo.core.errors import UserError
from regdpo.models import encoders
from regdpo.models.diffusers_family import TRAIN_TIMESTEPS, DiffusersFamily, to_pixels
from regdpo.models.family import Draw
from regdpo.models.live import Need
from regdpo.models.mugv_autoencoder import AutoencoderMugV
from regdpo.models.mugv_transformer import POSITIONS, MugVTransformer3DModel
from regdpo.models.tiling import Direction

NEGATIVE = (
    "ugly, blurry, lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, "
    "worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry"
)
SCORE = " aesthetic score: 6.0."
UNSHIFTED = 512
"""Side in pixels of the square picture whose sigmas are not shifted."""


class MugV(DiffusersFamily):
    """A checkpoint with a ``MugVTransformer3DModel``."""

    name = "MUG-V"
    text_length = 300
    transformer_class = MugVTransformer3DModel
    pipeline_class = LTXVideoLoraLoaderMixin  # that writes adapters of a transformer; there is no pipeline
    text_width = "text_dim"
    autoencoders: ClassVar = {"AutoencoderMugV": AutoencoderMugV}
    trained_autoencoders = (AutoencoderMugV,)
    fills_up = True
    tensor: ClassVar = {
        **dict.fromkeys(("t_embedder.mlp", "fps_embedder.mlp"), "whole"),
        **dict.fromkeys(("attn", "cross_attn", "mlp"), "region"),
        "attn.qkv": "fused 3",
        "cross_attn.kv_linear": "fused 2",
        **dict.fromkeys(("cross_attn.q_linear", "mlp.fc1"), "column"),
        **dict.fromkeys(("attn.proj", "cross_attn.proj", "mlp.fc2"), "row"),
        "sequence": "filling",
        "noisy": "entry",
        "final_layer": "exit",
    }

    def blocks(self, transformer: nn.Module) -> list[nn.Module]:
        return list(transformer.blocks)  # type: ignore[arg-type]

    def tokens(self, latent_shape: tuple[int, ...]) -> int:
        """With those that stand before and after the video's."""
        return super().tokens(latent_shape) + 2

    def most_frames(self, height: int, width: int) -> int:
        """Those whose places the denoiser was made for, a place before them and one after them included."""
        (temporal, spatial), (_, wide) = self.compression, self.patch
        space, time = POSITIONS
        return 0 if max(height, width) > space * spatial * wide else (time - 3) * temporal + 1

    def tiled(self, direction: Direction, frames: int, height: int, width: int) -> bool:
        if self.autoencoding.tiling == "on":
            raise UserError(
                f"latents.tiling, sampling.tiling: the autoencoder of {self.name} has no tiles, it works in short "
                "stretches of time as it is; take `auto`"
            )
        return False

    def worded(self, caption: str) -> str:
        return caption + SCORE

    def encode_text(self, captions: list[str]) -> dict[str, Tensor]:
        return self._encode_text([self.worded(caption) for caption in captions])

    def encode_negative(self, prompts: list[str]) -> dict[str, Tensor]:
        return self._encode_text([prompt or NEGATIVE for prompt in prompts])

    @torch.no_grad()
    def _encode_text(self, texts: list[str]) -> dict[str, Tensor]:
        self.turns.bring(self._text)
        tokens = self._tokenizer(
            texts, padding="max_length", max_length=self.ref.text_length, truncation=True, return_tensors="pt"
        ).to(self.device)
        states = self._text(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        return {"text": states, "text_mask": tokens["attention_mask"]}

    def encoder_needs(self, captions: int) -> dict[str, Need]:
        parts = self._parts(["text_encoder"])
        return {"text encoder": encoders.need(parts, torch.float32, captions, self.ref.text_length)}

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
        noisy = torch.ones(len(x_t), x_t.shape[2], dtype=torch.bool, device=x_t.device)
        if "first" in inputs:
            first = inputs["first"].to(x_t.dtype)
            x_t = torch.cat([first, x_t[:, :, first.shape[2] :]], dim=2)
            noisy[:, : first.shape[2]] = False
        answer: Tensor = transformer(
            hidden_states=x_t,
            timestep=sigma.float() * TRAIN_TIMESTEPS,
            frame_rate=torch.full((1,), self.ref.fps, device=x_t.device),
            encoder_hidden_states=inputs["text"].to(x_t.dtype),
            encoder_attention_mask=inputs["text_mask"],
            noisy_frames=noisy,
            return_dict=False,
        )[0]
        return -answer[:, : self.channels]

    def shift_of(self, latent_shape: tuple[int, ...]) -> float:
        _, frames, high, wide = latent_shape
        return math.sqrt(high * wide * frames) * self.compression[1] / UNSHIFTED

    def sampler(
        self, steps: int, shift: float | None, latent_shape: tuple[int, ...], solver: Solver = "checkpoint"
    ) -> Any:
        return super().sampler(steps, shift or self.shift_of(latent_shape), latent_shape, solver)

    def reconstruct(self, autoencoder: Any, pixels: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """The window is decoded as one, however many latents the autoencoder decodes together."""
        posterior = autoencoder.encode(pixels).latent_dist
        frames = pixels.shape[2]
        made = autoencoder.decode_frames(draw(posterior.mean, posterior.logvar), frames, frames)
        return made, posterior.mean, posterior.logvar

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self._vae.shift.to(like), self._vae.scale.to(like)

    @cached_property
    def _text(self) -> Any:
        if self._tokenizer.pad_token is None:
            raise UserError(f"{self._location}: its tokenizer has no token to pad with; name one in its pad_token")
        return self._load(transformers.T5EncoderModel, "text_encoder", self._location, torch.float32).eval()
