"""What families have in common whose checkpoints lie in diffusers' layout: loading, latents, adapters, and the
rectified flow that all but one of them follow."""

import json
import math
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import accelerate
import diffusers
import numpy as np
import torch
import transformers
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.models.modeling_utils import no_init_weights
from peft import LoraConfig
from torch import Tensor, nn

from regdpo.config.schema import Solver
from regdpo.config.training import Lora
from regdpo.core.errors import UserError, first_line
from regdpo.models import adapters, encoders, flow_sampler, merging
from regdpo.models.checkpoint_json import completed, read_json
from regdpo.models.device import DTYPES
from regdpo.models.family import Draw, Family
from regdpo.models.live import Need
from regdpo.models.registry import FAMILIES
from regdpo.models.sizes import Cut, check_size
from regdpo.models.tiling import SHARE, Direction, need
from regdpo.models.weights import StoredWeights, Weights
from regdpo.runtime.hub import BROKEN

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()

TRAIN_TIMESTEPS = 1000
ENCODER = {"encoder", "quant_conv"}
"""Parts of the names of an encoder's parameters."""
"""The denoisers of all flow families are given ``1000 * sigma``."""


class DiffusersFamily(Family):
    """A checkpoint in diffusers' layout; a flow unless a family says otherwise: ``x_t = (1 - s) x0 + s noise``,
    target ``noise - x0``."""

    name: ClassVar[str]
    transformer_class: ClassVar[Any]
    pipeline_class: ClassVar[Any]
    """The text-to-video pipeline: it encodes text and writes adapters."""
    autoencoders: ClassVar[dict[str, Any]]
    """Those that ``model_index.json`` may name."""
    part = "transformer"
    """Folder of the trained denoiser."""
    depths: ClassVar[tuple[str, ...]] = ("num_layers",)
    """The entries of its configuration that count its blocks, one for each kind of them."""
    trained_autoencoders: ClassVar[tuple[Any, ...]] = ()
    """Those of them that can be trained."""
    text_template: ClassVar[int] = 0
    """Tokens that the pipeline puts around a caption."""
    text_width: ClassVar[str]
    """The entry that has the width of its text."""
    encode_dtype: ClassVar[torch.dtype] = torch.float32
    """Of the autoencoder while it encodes: what it makes is what is trained on."""
    decode_dtype: ClassVar[torch.dtype] = torch.bfloat16
    """Of the autoencoder while it decodes on a GPU."""

    def check(self) -> None:
        if self.ref.expert and not self._index.get("transformer_2", [None])[0]:
            raise UserError(f"base.expert: {self._location} has one transformer; leave it out")
        found, needed = self._transformer_config["in_channels"], self.in_channels
        if found != needed:
            raise UserError(
                f"base.task: the transformer of {self._location} takes {found} channels, {self.name} needs {needed} "
                f"for {self.ref.task}; take a checkpoint of that task"
            )
        if self.demanded_text_length not in (None, self.ref.text_length):
            raise UserError(
                f"base.text_length: {self._location} wants {self.demanded_text_length}, got {self.ref.text_length}"
            )
        self.check_scheduler()

    def check_scheduler(self) -> None:
        """Raise UserError for a checkpoint whose scheduler is not the family's."""
        flow_sampler.check(self._scheduler_config, self._location)

    def check_geometry(self, frames: int, height: int, width: int) -> None:
        check_size(self.name, (frames, height, width), self.compression, self.patch)

    @property
    def in_channels(self) -> int:
        """Channels that the transformer takes for this task."""
        return self.channels

    @property
    def demanded_text_length(self) -> int | None:
        """The one text length that this checkpoint can take, if there is but one."""
        return None

    @property
    def cut(self) -> Cut:
        """As it is declared."""
        declared = FAMILIES[self.ref.family].cut
        assert declared is not None
        return declared

    @property
    def compression(self) -> tuple[int, int]:
        return self.cut.compression(self._vae_config)

    @property
    def channels(self) -> int:
        """Of the latents."""
        return self._vae_config["latent_channels"]

    @property
    def patch(self) -> tuple[int, int]:
        """Latents a token, in time and each way in space."""
        return self.cut.patch(self._transformer_config)

    @property
    def context(self) -> bool:
        return "context" in FAMILIES[self.ref.family].shared

    def load_transformer(self) -> nn.Module:
        path = str(self.store.existing(self.ref.transformer)) if self.ref.transformer else self._location
        model = self._load(self.transformer_class, self.part, path)
        if self.ref.lora:
            model.load_lora_adapter(adapters.load(self.store.existing(self.ref.lora)))
        return model

    def empty_transformer(self, layers: tuple[int, ...] | None = None) -> nn.Module:
        changed = {} if layers is None else dict(zip(self.depths, layers, strict=True))
        config = {**self._transformer_config, **changed}
        with no_init_weights(), torch.device("meta"):
            model: nn.Module = self.transformer_class.from_config(config)
        return nn.Module.to(model, self.dtype)

    def weights(self) -> Weights:
        own = self.store.existing(self.ref.transformer) if self.ref.transformer else Path(self._location, self.part)
        return StoredWeights(own, tuple(self.transformer_class._keys_to_ignore_on_load_unexpected or ()))

    def buffers(self) -> dict[str, Tensor]:
        with no_init_weights(), accelerate.init_empty_weights(include_buffers=False):  # of parameters, nothing is made
            model = self.transformer_class.from_config(self._transformer_config)
        return dict(model.named_buffers())

    def save_transformer(self, state: dict[str, Tensor], folder: Path) -> None:
        model: Any = self.empty_transformer()
        model.load_state_dict(state, assign=True)
        model.save_pretrained(folder, safe_serialization=True)

    def add_lora(self, model: nn.Module, lora: Lora) -> None:
        targets, layers = adapters.targets(model, lora), adapters.linear_layers(model)
        for target in targets:
            if not any(name == target or name.endswith(f".{target}") for name in layers):
                known = next(filter(None, map(adapters.linear_layers, self.blocks(model))), [])
                raise UserError(
                    f"train.settings.lora.targets: {self.name} has no layer {target}; a block has {', '.join(known)}"
                )
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, init_lora_weights=True)
        model.add_adapter(config)  # type: ignore[operator]

    def save_lora(self, model: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
        adapters.save(self.pipeline_class, model, state, folder)

    def stored_adapters(self) -> dict[str, Tensor]:
        if not self.ref.lora:
            return {}
        found = adapters.load(self.store.existing(self.ref.lora))
        return {name.removeprefix(adapters.PREFIX): tensor for name, tensor in found.items()}

    def merge_adapters(self, folder: Path) -> None:
        model: Any = self.empty_transformer()
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        merging.merge(self.weights(), shapes, self.stored_adapters(), folder)
        model.save_config(folder)

    def blocks(self, transformer: nn.Module) -> list[nn.Module]:
        return list(transformer.transformer_blocks)  # type: ignore[arg-type]

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self._transformer_config[name] for name in self.depths)

    def text_tokens(self, captions: Sequence[str]) -> list[int]:
        texts = [self.worded(caption) for caption in captions]
        return [len(tokens) for tokens in self._tokenizer(texts, verbose=False)["input_ids"]] if texts else []

    def worded(self, caption: str) -> str:
        """A caption as the pipeline gives it to its tokenizer."""
        return caption

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> dict[str, Tensor]:
        self._bring(self._text)
        embeddings, _ = self._text.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=self.ref.text_length, device=self.device
        )
        return {"text": embeddings}

    @torch.no_grad()
    def encode_video(self, frames: Tensor) -> Tensor:
        return self._encode(to_pixels(frames))

    @torch.no_grad()
    def decode_pixels(self, latents: Tensor) -> Tensor:
        temporal, spatial = self.compression
        frames, height, width = (latents.shape[2] - 1) * temporal + 1, *(spatial * side for side in latents.shape[3:])
        dtype = self._vae_for("decode", frames, height, width)
        latents = latents.to(self.device)
        mean, std = self._statistics(latents)
        pixels: Tensor = self._decode((latents * std + mean).to(dtype)).float()
        return pixels

    def vae_dtype(self, direction: Direction) -> torch.dtype:
        """Of the autoencoder while it encodes or decodes; fp32 on a CPU unless the configuration says otherwise."""
        asked = self.autoencoding.encode if direction == "encode" else self.autoencoding.decode
        if asked != "auto":
            return DTYPES[asked]
        if self.device.type == "cpu":
            return torch.float32
        return self.encode_dtype if direction == "encode" else self.decode_dtype

    def tiled(self, direction: Direction, frames: int, height: int, width: int) -> bool:
        if self.autoencoding.tiling != "auto":
            return self.autoencoding.tiling == "on"
        if self.memory is None:
            return False
        return self.autoencoder_need(direction, frames, height, width, tiles=False).total > SHARE * self.memory

    def autoencoder_need(self, direction: Direction, frames: int, height: int, width: int, tiles: bool) -> Need:
        shape = (3, frames, height, width) if direction == "encode" else self.latent_shape(frames, height, width)
        config = json.dumps(self._vae_config, sort_keys=True, default=list)
        return need(self._autoencoder, config, direction, shape, self.vae_dtype(direction), tiles)

    def encoder_needs(self, captions: int) -> dict[str, Need]:
        names = [name for name in self._index if re.fullmatch(r"text_encoder(_\d+)?", name)]
        length = self.ref.text_length + self.text_template
        return {"text encoder": encoders.need(self._parts(names), self.dtype, captions, length)}

    def _parts(self, names: list[str]) -> tuple[tuple[str, str], ...]:
        """The classes that ``model_index.json`` names for models of transformers, and their folders; of those alone
        whose files are here."""
        folders = {name: Path(self._location, name) for name in names if self._index[name][0]}
        here = {name: folder for name, folder in folders.items() if (folder / encoders.CONFIG).exists()}
        return tuple((self._index[name][1], str(folder)) for name, folder in here.items())

    def autoencoder_to_train(self, fresh: bool, decoder: bool) -> nn.Module:
        kind = self._autoencoder
        if not issubclass(kind, self.trained_autoencoders):
            raise UserError(f"vae.train: {self._location} has a {kind.__name__}, which is not trained here")
        config = {name: value for name, value in self._vae_config.items() if not name.startswith("_")}
        model: nn.Module = kind.from_config(config)  # that says nothing of where it was loaded from
        if not fresh:
            model.load_state_dict(self._vae.state_dict())
        if decoder:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(not ENCODER.intersection(name.split(".")))
        return model.train()

    def window_frames(self, latents: int) -> int:
        return self.cut.window(latents, self.compression[0])

    def reconstruct(self, autoencoder: Any, pixels: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        posterior = autoencoder.encode(pixels).latent_dist
        latents = draw(posterior.mean, posterior.logvar)
        return autoencoder.decode(latents).sample, posterior.mean, posterior.logvar

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        temporal, spatial = self.compression
        return self.channels, (frames - 1) // temporal + 1, height // spatial, width // spatial

    @property
    def heads(self) -> int:
        return self._transformer_config["num_attention_heads"]

    @property
    def width(self) -> int:
        return self.heads * self._transformer_config["attention_head_dim"]

    def tokens(self, latent_shape: tuple[int, ...]) -> int:
        long, wide = self.patch
        return math.prod(latent_shape[1:]) // (long * wide**2)

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.view(-1, 1, 1, 1, 1).to(x0.dtype)
        return (1 - sigma) * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise - x0

    def example_inputs(self, latent_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Text alone; ``condition`` where the denoiser takes more channels than the latents have."""
        config, (_, *size) = self._transformer_config, latent_shape
        shapes = {"text": (self.ref.text_length, config[self.text_width])}
        if (stacked := config["in_channels"] - self.channels) > 0:
            shapes["condition"] = (stacked, *size)
        return {name: torch.empty(1, *shape, device="meta") for name, shape in shapes.items()}

    def sampler(
        self, steps: int, shift: float | None, latent_shape: tuple[int, ...], solver: Solver = "checkpoint"
    ) -> Any:
        tokens = self.tokens(latent_shape)
        return flow_sampler.make(self._scheduler_config, self.schedule(steps), shift, tokens, self.device, solver)

    def schedule(self, steps: int) -> np.ndarray:
        """The sigmas of the steps before the shift, as the family's pipeline spaces them."""
        return np.linspace(1, 1 / steps, steps)

    def sigma_of(self, timestep: Tensor) -> Tensor:
        return timestep / TRAIN_TIMESTEPS

    @cached_property
    def _location(self) -> str:
        return self.ref.location(self.store)

    @cached_property
    def _index(self) -> dict[str, Any]:
        return self._config(DiffusionPipeline)

    @cached_property
    def _transformer_config(self) -> dict[str, Any]:
        config = self._config(self.transformer_class, self.part)
        found, wanted = config.get("_class_name"), self.transformer_class.__name__
        if found != wanted:
            raise UserError(f"base.family: the denoiser of {self._location} is a {found}; {self.name} needs a {wanted}")
        return config

    @cached_property
    def _scheduler_config(self) -> dict[str, Any]:
        return self._config(FlowMatchEulerDiscreteScheduler, "scheduler", defaults=False)

    @cached_property
    def _vae_config(self) -> dict[str, Any]:
        return self._config(self._autoencoder, "vae")

    @property
    def _autoencoder(self) -> Any:
        name = self._index.get("vae", [None, None])[1]
        if name not in self.autoencoders:
            raise UserError(
                f"{self._location}: model_index.json names the autoencoder {name}, known are {list(self.autoencoders)}"
            )
        return self.autoencoders[name]

    @cached_property
    def _vae(self) -> Any:
        path = str(self.store.existing(self.ref.vae)) if self.ref.vae else self._location
        return self._load(self._autoencoder, "vae", path, torch.float32).eval()

    @cached_property
    def _tokenizer(self) -> Any:
        """Without the text encoder, which is large."""
        try:
            return transformers.AutoTokenizer.from_pretrained(
                self._location, subfolder="tokenizer", revision=self.ref.revision, trust_remote_code=False
            )
        except BROKEN as error:
            raise UserError(f"{self._location}: its tokenizer cannot be loaded ({first_line(error)})") from None

    @cached_property
    def _text(self) -> Any:
        return self._pipeline(self.pipeline_class, ("transformer", "transformer_2", "vae"))

    def _config(self, kind: Any, part: str | None = None, defaults: bool = True) -> dict[str, Any]:
        """A part's configuration, with the defaults of what an older checkpoint does not name."""
        path = Path(self._location, part or "", kind.config_name)
        config = read_json(path)
        return completed(path, config, kind) if defaults else config

    def _pipeline(self, kind: Any, without: tuple[str, ...]) -> Any:
        parts = {name: None for name in without if name in self._index}
        pipeline = self._from_pretrained(kind, self._location, "", **parts)
        for name, part in pipeline.components.items():
            if isinstance(part, transformers.PreTrainedTokenizerBase) and part.pad_token is None:
                raise UserError(f"{self._location}: its {name} has no token to pad with; name one in its pad_token")
        return pipeline

    def _bring(self, pipeline: Any) -> None:
        """Have a pipeline's encoders on the device, in the place of all else."""
        self.turns.bring(*(part for part in pipeline.components.values() if isinstance(part, nn.Module)))

    def _vae_for(self, direction: Direction, frames: int, height: int, width: int) -> torch.dtype:
        """Have the autoencoder on the device, in the place of all else, ready for such clips; its dtype."""
        dtype = self.vae_dtype(direction)
        self.turns.bring(self._vae, dtype=dtype)
        if self.tiled(direction, frames, height, width):
            self._vae.enable_tiling()
        else:
            self._vae.disable_tiling()
        return dtype

    def _load(self, kind: Any, part: str, location: str, dtype: torch.dtype | None = None) -> Any:
        folder = {} if location != self._location else {"subfolder": part}
        model = self._from_pretrained(kind, location, f"its {part} ", dtype or self.dtype, **folder)
        lacking = [name for name, parameter in model.named_parameters() if parameter.is_meta]
        if lacking:
            raise UserError(f"{location}: its {part} lacks {len(lacking)} weights, {lacking[0]} among them")
        return model

    def _from_pretrained(
        self, kind: Any, location: str, what: str, dtype: torch.dtype | None = None, **options: Any
    ) -> Any:
        try:
            return kind.from_pretrained(
                location, revision=self.ref.revision, dtype=dtype or self.dtype, use_safetensors=True, **options
            )
        except BROKEN as error:
            raise UserError(f"{location}: {what}cannot be loaded ({first_line(error)})") from None

    def _encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, F, H, W) in [-1, 1] -> normalised latents, fp32: the mode of the autoencoder's posterior."""
        dtype = self._vae_for("encode", *pixels.shape[2:])
        posteriors = [self._vae.encode(one.to(self.device, dtype)).latent_dist for one in pixels.split(1)]
        latents = torch.cat([posterior.mode().float() for posterior in posteriors])
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def _decode(self, latents: Tensor) -> Tensor:
        return self._vae.decode(latents, return_dict=False)[0]

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation that latents are normalised by; they broadcast over (B, C, F', H', W')."""
        return like.new_zeros(()), like.new_tensor(1 / self._vae_config["scaling_factor"])


def to_pixels(frames: Tensor) -> Tensor:
    """uint8 (B, F, H, W, 3) -> float (B, 3, F, H, W) in [-1, 1]."""
    return frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def keep_first(x_t: Tensor, timestep: Tensor, inputs: dict[str, Tensor], patch: int = 1) -> tuple[Tensor, Tensor]:
    """Put the clean first latent frame in its place, if there is one.

    Args:
        x_t: (B, C, F', H', W'). timestep: (B,). patch: latents a token, each way in space.

    Returns:
        The latents, and the timestep of every token, (B, tokens): 0 for those of the clean frame.
    """
    tokens = [x_t.shape[2], x_t.shape[3] // patch, x_t.shape[4] // patch]
    times = timestep.view(-1, 1, 1, 1).expand(-1, *tokens)
    if "first" in inputs:
        first = inputs["first"].to(x_t.dtype)
        given = first.shape[2]
        x_t = torch.cat([first, x_t[:, :, given:]], dim=2)
        times = torch.cat([torch.zeros_like(times[:, :given]), times[:, given:]], dim=1)
    return x_t, times.flatten(1)
