"""VideoCrafter2: text-to-video by a UNet that predicts noise, over latents of single frames.

``scripts/convert.py videocrafter2`` makes the checkpoint of the published file. What its weights need and a reader
would not expect is named in ``video_unet`` and ``discrete_noise``; beside that:

- the text encoder stops before its last layer, and normalises there; the denoiser is given all places of the padded
  caption, unmasked;
- the frames a second are an input. It is given the clips' own; VideoDPO trains with 16 whatever its clips have.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from diffusers.loaders import LTXVideoLoraLoaderMixin
from diffusers.models.modeling_utils import no_init_weights
from torch import Tensor, nn

from regdpo.config.schema import Solver
from regdpo.config.training import Lora
from regdpo.core.errors import UserError
from regdpo.models import adapters
from regdpo.models.checkpoint_json import read_json
from regdpo.models.diffusers_family import DiffusersFamily
from regdpo.models.discrete_noise import TIMESTEPS, ScaledDDIM, alphas, noised, scales
from regdpo.models.frame_autoencoder import FrameAutoencoder
from regdpo.models.video_unet import VideoUNet
from regdpo.models.video_unet_parts import VideoUNetParts


class VideoCrafter2(DiffusersFamily):
    """A checkpoint with a ``VideoUNet``.

    sigma belongs to the timestep ``t = floor(1000 sigma)``, and t has ``sigma = (t + 1/2) / 1000``.
    ``x_t = sqrt(ā) s x0 + sqrt(1 - ā) noise`` with s the scale of t; the target is the noise.
    """

    name = "VideoCrafter2"
    text_length = 77
    flash = False
    transformer_class = VideoUNet
    pipeline_class = LTXVideoLoraLoaderMixin  # that writes adapters of a transformer; there is no pipeline
    text_width = "context_dim"
    autoencoders: ClassVar = {"AutoencoderKL": FrameAutoencoder}
    sampler_name: ClassVar[str] = "ScaledDDIM"
    takes_guidance: ClassVar[bool] = False
    other: ClassVar[str] = "t2v_turbo"

    def check(self) -> None:
        if self.ref.task != "t2v":
            raise UserError(f"base.task: {self.name} is covered for t2v alone")
        if bool(self._transformer_config["time_cond_proj_dim"]) != self.takes_guidance:
            has = "does not take" if self.takes_guidance else "takes"
            raise UserError(
                f"base.family: the denoiser of {self._location} {has} the guidance scale; take `{self.other}`"
            )
        super().check()

    def check_scheduler(self) -> None:
        found = self._sampling.get("_class_name")
        if found != self.sampler_name:
            raise UserError(
                f"{self._location}: scheduler_config.json names {found}, {self.name} needs {self.sampler_name}"
            )

    @property
    def demanded_text_length(self) -> int | None:
        """The places of the text encoder: what pads a caption to them reaches the denoiser too."""
        path = Path(self._location, "text_encoder", "config.json")
        return int(read_json(path).get("max_position_embeddings", self.text_length))

    def empty_transformer(self, layers: tuple[int, ...] | None = None) -> nn.Module:
        if layers is None or set(layers) == {1}:
            return super().empty_transformer()
        with no_init_weights(), torch.device("meta"):
            model: Any = VideoUNetParts(layers, self._outline)
        return nn.Module.to(model, self.dtype)

    def add_lora(self, model: nn.Module, lora: Lora) -> None:
        if isinstance(model, VideoUNetParts) and not adapters.targets(model, lora):
            model.requires_grad_(False)  # of convolutions alone
        else:
            super().add_lora(model, lora)

    def blocks(self, transformer: nn.Module) -> list[nn.Module]:
        return list(transformer.stages())  # type: ignore[operator]

    @property
    def layers(self) -> tuple[int, ...]:
        """Each of its own kind: the convolution at the beginning and the attention after it, levels and what is between
        them, the middle, levels."""
        config = self._transformer_config
        levels, deep = len(config["channel_mult"]), config["num_res_blocks"]
        return (1,) * (2 + (levels * deep + levels - 1) + 1 + levels * (deep + 1))

    @property
    def heads(self) -> int:
        """Of the outermost level; others have more, of the same width."""
        return self.width // self._transformer_config["num_head_channels"]

    @property
    def width(self) -> int:
        return self._transformer_config["model_channels"]

    def tokens(self, latent_shape: tuple[int, ...]) -> int:
        """Those of the outermost level."""
        return math.prod(latent_shape[1:])

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> dict[str, Tensor]:
        self.turns.bring(self._text)
        tokens = self._tokenizer(
            captions, padding="max_length", max_length=self.ref.text_length, truncation=True, return_tensors="pt"
        )["input_ids"]
        return {"text": self._text(input_ids=tokens.to(self.device)).last_hidden_state}

    def encode_first_frame(self, frame: Tensor, frames: int) -> dict[str, Tensor]:
        return {}

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noised(x0, noise, self._timestep(sigma), alphas(), scales())

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise

    def predict(self, transformer: nn.Module, x_t: Tensor, sigma: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        fps = torch.full_like(sigma, self.ref.fps, dtype=torch.float32)
        answer: Tensor = transformer(x_t, self._timestep(sigma), inputs["text"].to(x_t.dtype), fps)
        return answer

    def sampler(
        self, steps: int, shift: float | None, latent_shape: tuple[int, ...], solver: Solver = "checkpoint"
    ) -> Any:
        """DDIM with the checkpoint's ``eta``, 1 as published. There is no shift, and no other solver."""
        assert solver == "checkpoint", "the configuration is refused that asks a family for a solver it lacks"
        return ScaledDDIM(steps, float(self._sampling.get("eta", 1.0)), self.device)

    def sigma_of(self, timestep: Tensor) -> Tensor:
        return (timestep + 0.5) / TIMESTEPS

    def text_tokens(self, captions: Sequence[str]) -> list[int]:
        return (
            [len(tokens) for tokens in self._tokenizer(list(captions), verbose=False)["input_ids"]] if captions else []
        )

    def _timestep(self, sigma: Tensor) -> Tensor:
        return (sigma.float() * TIMESTEPS).long()

    @cached_property
    def _outline(self) -> VideoUNet:
        """On the meta device, to copy stages from."""
        with no_init_weights(), torch.device("meta"):
            whole: VideoUNet = VideoUNet.from_config(self._transformer_config)
        return whole

    @cached_property
    def _sampling(self) -> dict[str, Any]:
        return read_json(Path(self._location, "scheduler", "scheduler_config.json"))

    @cached_property
    def _text(self) -> Any:
        return self._from_pretrained(
            transformers.CLIPTextModel, self._location, "its text encoder ", subfolder="text_encoder"
        ).eval()
