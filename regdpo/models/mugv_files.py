"""The published files of MUG-V <-> a folder in diffusers' layout. Tensors keep their names and their values.

Sizes are told by the tensors' shapes, so that a smaller model is converted too; group norms have 32 groups, and every
eight latents of it come from the same stretch of frames, as published.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from regdpo.core.errors import UserError, first_line
from regdpo.models.conversions import ORDER, STORED, UNTOLD, lacks, read, tensors
from regdpo.models.mugv_autoencoder import AutoencoderMugV
from regdpo.models.mugv_transformer import MugVTransformer3DModel
from regdpo.models.weights import StoredWeights
from regdpo.runtime.hub import BROKEN

Tensors = dict[str, Tensor]
FILES = {"transformer": "dit.pt", "vae": "vae.pt"}
"""Part of the folder -> the published file."""


def convert(dit: Path, vae: Path, out: Path, text_encoder: str) -> None:
    """Write the folder.

    Args:
        text_encoder: folder or name on the hub of T5 v1.1 XXL, which the files lack.

    Raises:
        UserError: a file cannot be read or is another one; the text encoder cannot be had, or is of another width.
    """
    denoiser = _model(dit, "transformer", MugVTransformer3DModel, transformer_config)
    autoencoder = _model(vae, "vae", AutoencoderMugV, autoencoder_config)
    _save_text(text_encoder, denoiser.config.text_dim, out)  # what can fail comes first, what takes long last
    order = {}
    for part, model in (("transformer", denoiser), ("vae", autoencoder)):
        model.save_pretrained(out / part, safe_serialization=True)
        order[part] = model.published
    write_index(out)
    (out / ORDER).write_text(json.dumps(order))


def _model(path: Path, part: str, kind: Any, config: Callable[[Tensors], dict[str, Any]]) -> Any:
    """The model of a file, whose weights stay mapped from it; ``published`` has their names in the file's order."""
    what = f"MUG-V's {FILES[part]}"
    weights = tensors(path, read(path), what)
    try:
        with torch.device("meta"):
            model: Any = kind(**config(weights))
    except UNTOLD as error:
        raise lacks(path, error, weights, what) from None
    check(path, {name: it.shape for name, it in model.state_dict().items()}, weights, what)
    nn.Module.load_state_dict(model, weights, assign=True)
    model.published = list(weights)
    return model


def back(folder: Path, tuned: Path | None, out: Path) -> None:
    """Write a folder with ``dit.pt`` and ``vae.pt``: the same tensors under the same names in the same order.

    Args:
        tuned: folder of a denoiser that was tuned in full, in the place of the folder's own.

    Raises:
        UserError: the tuned denoiser is another one.
    """
    order = json.loads((folder / ORDER).read_text())
    out.mkdir()
    for part, file in FILES.items():
        own = StoredWeights(folder / part)
        taken = StoredWeights(tuned) if tuned and part == "transformer" else own
        taken.check(own.shapes)
        weights = dict(taken.read(dict.fromkeys(own.shapes, ())))
        torch.save({name: weights[name] for name in order[part]}, out / file)


def transformer_config(weights: Tensors) -> dict[str, Any]:
    """By the shapes of ``dit.pt``."""
    width, channels, *patch = weights["x_embedder.proj.weight"].shape
    head = len(weights["blocks.0.attn.q_norm.weight"])
    return {
        "in_channels": channels,
        "patch_size": tuple(patch),
        "num_attention_heads": width // head,
        "attention_head_dim": head,
        "num_layers": len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
        "mlp_ratio": len(weights["blocks.0.mlp.fc1.weight"]) / width,
        "text_dim": weights["y_embedder.y_proj.fc1.weight"].shape[1],
    }


def autoencoder_config(weights: Tensors) -> dict[str, Any]:
    """By the shapes of ``vae.pt``; its normalisation by its values."""
    encoder, time = "spatial_vae.module.encoder.", "temporal_vae.encoder."

    def count(start: str, end: str) -> int:
        number = 0
        while f"{start}{number}{end}" in weights:
            number += 1
        return number

    if not (weights["scale"] > 0).all() or not all(weights[name].isfinite().all() for name in ("scale", "shift")):
        raise ValueError("scale is not above zero, or scale or shift is not finite")
    levels = count(f"{encoder}down_blocks.", ".resnets.0.conv2.weight")
    blocks = [len(weights[f"{encoder}down_blocks.{i}.resnets.0.conv2.weight"]) for i in range(levels)]
    stages = count(f"{time}block_res_blocks.", ".0.conv2.conv.weight")
    filters = len(weights[f"{time}conv_in.conv.weight"])
    widths = [len(weights[f"{time}block_res_blocks.{i}.0.conv2.conv.weight"]) for i in range(stages)]
    return {
        "latent_channels": weights["shift"].numel(),
        "block_out_channels": tuple(blocks),
        "layers_per_block": count(f"{encoder}down_blocks.0.resnets.", ".conv2.weight"),
        "spatial_latent_channels": weights["spatial_vae.module.decoder.conv_in.weight"].shape[1],
        "temporal_filters": filters,
        "temporal_multipliers": tuple(width // filters for width in widths),
        "temporal_layers": count(f"{time}block_res_blocks.0.", ".conv2.conv.weight"),
        "latents_mean": tuple(weights["shift"].flatten().tolist()),
        "latents_std": tuple(weights["scale"].flatten().tolist()),
    }


def check(path: Path, wanted: dict[str, torch.Size], weights: Tensors, what: str) -> None:
    """Raise UserError unless there are just these tensors, of these shapes, in floating point that is not scaled."""
    for lack, names in (("lacks", wanted.keys() - weights.keys()), ("holds, unasked,", weights.keys() - wanted.keys())):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{path}: {lack} {min(names)}{more}; it is not {what}")
    for name, shape in wanted.items():
        if weights[name].shape != shape:
            raise UserError(f"{path}: {name} is {tuple(weights[name].shape)}, it would be {tuple(shape)} in {what}")
        if str(weights[name].dtype) not in STORED:
            raise UserError(f"{path}: {name} is stored as {weights[name].dtype}; it is not {what}")


def write_index(out: Path) -> None:
    """The folder's ``model_index.json``, and the configuration of its sampler."""
    index = {
        "_class_name": "MugV",
        "regdpo_family": "mugv",
        "transformer": ["regdpo", MugVTransformer3DModel.__name__],
        "vae": ["regdpo", AutoencoderMugV.__name__],
        "text_encoder": ["transformers", transformers.T5EncoderModel.__name__],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    (out / "scheduler").mkdir(parents=True, exist_ok=True)
    for path, values in (("model_index.json", index), ("scheduler/scheduler_config.json", scheduler)):
        (out / path).write_text(json.dumps(values, indent=2))


def _save_text(name: str, width: int, out: Path) -> None:
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        encoder: Any = transformers.T5EncoderModel.from_pretrained(name, dtype="auto")
    except BROKEN as error:
        raise UserError(f"--text-encoder: {name} cannot be loaded ({first_line(error)})") from None
    if encoder.config.d_model != width:
        raise UserError(f"--text-encoder: {name} is {encoder.config.d_model} wide, the denoiser takes {width}")
    tokenizer.save_pretrained(out / "tokenizer")
    encoder.save_pretrained(out / "text_encoder", safe_serialization=True)
