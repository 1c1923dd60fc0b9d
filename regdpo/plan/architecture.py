"""The denoiser that a configuration trains, as an empty model, from its own config.json or from config/architectures.

Nothing is downloaded and no weight is read.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from regdpo.config.schema import Base
from regdpo.core.errors import UserError
from regdpo.models.checkpoint_json import completed, read_json
from regdpo.models.family import family_class

KNOWN = Path(__file__).resolve().parents[2] / "config" / "architectures"
"""Our own minimal configs, in diffusers' keys."""
CLIP_TOKENS = 257
"""Of the image encoder that Wan 2.1's image-to-video models are given: 16 x 16 patches and a class token."""


@dataclass(frozen=True)
class Architecture:
    """A denoiser and the latents it works on."""

    name: str
    source: str  # where the figures are from
    transformer: dict[str, Any]  # diffusers' config, with `_class_name`
    channels: int  # of the latents
    temporal: int  # frames a latent, after the first
    spatial: int  # pixels a latent, each way
    text_length: int
    per_token: bool = False  # a timestep for every token (Wan 2.2 TI2V)

    @property
    def kind(self) -> "Kind":
        """How its class of diffusers is to be asked."""
        return KINDS[self.transformer["_class_name"]]

    @property
    def heads(self) -> int:
        return self.transformer["num_attention_heads"]

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.heads * self.transformer["attention_head_dim"]

    @property
    def depth(self) -> int:
        """Blocks."""
        return self.transformer["num_layers"]

    @property
    def splittable(self) -> bool:
        """Whether context parallelism can split its sequence."""
        return (
            self.kind.splittable
            and getattr(getattr(diffusers, self.transformer["_class_name"]), "_cp_plan", None) is not None
        )

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F', H', W') of a clip."""
        return self.channels, (frames - 1) // self.temporal + 1, height // self.spatial, width // self.spatial

    def tokens(self, latent: tuple[int, ...]) -> int:
        """Length of the sequence for latents (C, F', H', W')."""
        return math.prod(
            size // patch for size, patch in zip(latent[1:], self.kind.patch(self.transformer), strict=True)
        )

    def most_frames(self, height: int, width: int) -> int:
        """The longest clip that its position table reaches; 0 if the frame itself is too large for it."""
        reach = self.transformer.get("rope_max_seq_len", 10**6)
        patch = self.kind.patch(self.transformer)
        if max(height // self.spatial // patch[1], width // self.spatial // patch[2]) > reach:
            return 0
        return (reach * patch[0] - 1) * self.temporal + 1

    def empty(self, depth: int | None = None) -> nn.Module:
        """The model on the meta device, fp32; ``depth`` in the place of its own."""
        config = dict(self.transformer)
        kind = getattr(diffusers, config.pop("_class_name"))
        if depth is not None:
            config["num_layers"] = depth
        with torch.device("meta"):
            model: nn.Module = kind.from_config(config)
        return model

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """The units of sharding and recomputation."""
        return list(getattr(model, self.kind.blocks))

    def inputs(self, batch: int, latent: tuple[int, ...], dtype: torch.dtype) -> dict[str, Any]:
        """What the model is given for ``batch`` latents (C, F', H', W'), on the meta device."""
        with torch.device("meta"):
            return self.kind.inputs(self, batch, latent, dtype)


@dataclass(frozen=True)
class Kind:
    """What must be known of a class of diffusers."""

    blocks: str
    patch: Callable[[dict[str, Any]], tuple[int, int, int]]
    inputs: Callable[[Architecture, int, tuple[int, ...], torch.dtype], dict[str, Any]]
    splittable: bool = True
    compression: tuple[int, int] = (4, 8)  # frames and pixels a latent, of a checkpoint that does not say


def _wan(it: Architecture, batch: int, latent: tuple[int, ...], dtype: torch.dtype) -> dict[str, Any]:
    config = it.transformer
    tokens = (it.tokens(latent),) if it.per_token else ()
    inputs: dict[str, Tensor] = {
        "hidden_states": torch.empty(batch, config["in_channels"], *latent[1:], dtype=dtype),
        "timestep": torch.empty(batch, *tokens),
        "encoder_hidden_states": torch.empty(batch, it.text_length, config["text_dim"], dtype=dtype),
    }
    if config.get("image_dim"):
        inputs["encoder_hidden_states_image"] = torch.empty(batch, CLIP_TOKENS, config["image_dim"], dtype=dtype)
    return inputs


def _ltx(it: Architecture, batch: int, latent: tuple[int, ...], dtype: torch.dtype) -> dict[str, Any]:
    config, (_, frames, height, width) = it.transformer, latent
    return {
        "hidden_states": torch.empty(batch, frames * height * width, config["in_channels"], dtype=dtype),
        "encoder_hidden_states": torch.empty(batch, it.text_length, config["caption_channels"], dtype=dtype),
        "timestep": torch.empty(batch),
        "encoder_attention_mask": torch.empty(batch, it.text_length, dtype=dtype),
        "num_frames": frames,
        "height": height,
        "width": width,
        "rope_interpolation_scale": (1.0, 1.0, 1.0),
    }


def _cogvideox(it: Architecture, batch: int, latent: tuple[int, ...], dtype: torch.dtype) -> dict[str, Any]:
    config, (_, frames, height, width) = it.transformer, latent
    rotary = None
    if config.get("use_rotary_positional_embeddings"):
        table = torch.empty(it.tokens(latent), config["attention_head_dim"])
        rotary = (table, table.clone())
    return {
        "hidden_states": torch.empty(batch, frames, config["in_channels"], height, width, dtype=dtype),
        "encoder_hidden_states": torch.empty(batch, it.text_length, config["text_embed_dim"], dtype=dtype),
        "timestep": torch.empty(batch, dtype=torch.int64),
        "image_rotary_emb": rotary,
    }


KINDS = {
    "WanTransformer3DModel": Kind("blocks", lambda config: tuple(config["patch_size"]), _wan),
    "LTXVideoTransformer3DModel": Kind(
        "transformer_blocks",
        lambda config: (config["patch_size_t"], config["patch_size"], config["patch_size"]),
        _ltx,
        compression=(8, 32),
        splittable=False,  # the mask of its text has a place for every head, which diffusers' plan does not split
    ),
    "CogVideoXTransformer3DModel": Kind(
        "transformer_blocks",
        lambda config: (config.get("patch_size_t") or 1, config["patch_size"], config["patch_size"]),
        _cogvideox,
    ),
}
"""Classes of diffusers that can be planned for."""


def find(base: Base) -> Architecture:
    """The architecture of a configuration's base model.

    Raises:
        UserError: it is known neither here nor on this machine, or is of a class that cannot be planned for.
    """
    if base.pretrain is not None:
        return _tiny(base)
    assert base.model is not None
    return of_checkpoint(base.model, base.revision, _text_length(base))


def of_checkpoint(model: str, revision: str | None, text_length: int) -> Architecture:
    """The architecture of a checkpoint in diffusers' layout: a folder, or the name of one in the hub's cache.

    Raises:
        UserError: as ``find``.
    """
    transformer = _config(model, revision, "transformer/config.json")
    if transformer is None:
        return known(model, text_length)
    vae, index = (_config(model, revision, file) or {} for file in ("vae/config.json", "model_index.json"))
    name = transformer.get("_class_name")
    if name not in KINDS:
        raise UserError(f"base.model: {model} is a {name}; plans are made for {', '.join(KINDS)}")
    if transformer.get("ofs_embed_dim"):
        raise UserError(f"base.model: {model} embeds the offset of its first frame; no plan is made for that")
    kind = getattr(diffusers, name)
    values = completed(f"{model}: transformer/config.json", transformer, kind)
    return Architecture(
        name=model,
        source="its config.json",
        transformer=values,
        channels=vae.get("z_dim") or vae.get("latent_channels") or transformer["out_channels"],
        temporal=_first(vae, "scale_factor_temporal", "temporal_compression_ratio") or KINDS[name].compression[0],
        spatial=_first(vae, "scale_factor_spatial", "spatial_compression_ratio") or KINDS[name].compression[1],
        text_length=text_length,
        per_token=bool(index.get("expand_timesteps")),
    )


def known(model: str, text_length: int | None = None) -> Architecture:
    """An architecture of config/architectures by the name of a model that has it.

    Raises:
        UserError: there is none.
    """
    names = []
    for path in sorted(KNOWN.glob("*.json")):
        values = json.loads(path.read_text())
        names += values["models"]
        if model in values["models"]:
            return Architecture(
                name=model,
                source=f"config/architectures/{path.name}",
                transformer=values["transformer"],
                text_length=text_length or values["text_length"],
                per_token=values.get("per_token", False),
                **values["latents"],
            )
    raise UserError(
        f"base.model: the architecture of {model} is not known: it is no local folder, the hub's cache has no "
        f"transformer/config.json of it, and config/architectures has {', '.join(names)}"
    )


def _tiny(base: Base) -> Architecture:
    """What models/wan_scratch.py makes."""
    assert base.pretrain is not None
    spec, codec = base.pretrain.transformer, base.pretrain.codec
    condition = codec.channels + codec.temporal if base.task == "i2v" else 0
    return Architecture(
        name="base.pretrain",
        source="the configuration",
        transformer={
            "_class_name": "WanTransformer3DModel",
            "patch_size": [1, 2, 2],
            "num_attention_heads": spec.heads,
            "attention_head_dim": spec.head_dim,
            "in_channels": codec.channels + condition,
            "out_channels": codec.channels,
            "text_dim": spec.text_dim,
            "freq_dim": spec.freq_dim,
            "ffn_dim": spec.ffn_dim,
            "num_layers": spec.layers,
            "rope_max_seq_len": 1024,
        },
        channels=codec.channels,
        temporal=codec.temporal,
        spatial=codec.spatial,
        text_length=_text_length(base),
    )


def _text_length(base: Base) -> int:
    return base.text_length or family_class(base.family).text_length


def _config(model: str, revision: str | None, file: str) -> dict[str, Any] | None:
    folder = Path(model)
    path: Any = folder / file if folder.exists() else try_to_load_from_cache(model, file, revision=revision)
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return None
    return read_json(path)


def _first(values: dict[str, Any], *keys: str) -> Any:
    return next((values[key] for key in keys if values.get(key)), None)
