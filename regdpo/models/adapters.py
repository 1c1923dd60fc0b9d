"""Adapters as files that mean the same wherever they are loaded.

An adapter adds ``alpha / rank * B A`` to a layer. Readers disagree on where alpha stands: current diffusers takes it
from the header, older ones and musubi's converter take alpha = rank, ComfyUI reads a tensor and else takes alpha =
rank. So the factor is multiplied into B, and every place that can hold an alpha says alpha = rank.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from peft import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from regdpo.config.training import Lora
from regdpo.core.errors import UserError
from regdpo.core.temporaries import atomic
from regdpo.models.original_names import original
from regdpo.models.registry import FAMILIES

PREFIX = "transformer."
ATTENTION = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("attn.qkv", "attn.proj", "cross_attn.q_linear", "cross_attn.kv_linear", "cross_attn.proj"),  # MUG-V
)
FEED_FORWARD = (
    *("ffn.net.0.proj", "ffn.net.2"),  # Wan
    *("ff.net.0.proj", "ff.net.2"),  # CogVideoX, LTX-Video and HunyuanVideo's double blocks, whose text has its own
    *("ff_context.net.0.proj", "ff_context.net.2"),
    *("mlp.fc1", "mlp.fc2"),  # MUG-V
    "proj_mlp",  # HunyuanVideo's single blocks, whose other layer is the attention's output too
)


def targets(model: nn.Module, lora: Lora) -> list[str]:
    """The layers that get an adapter, as ends of their names; words of the configuration are looked up in the model's
    blocks, since the embedding of Wan's image condition has a feed-forward of its own by another family's name."""
    if not isinstance(lora.targets, str):
        return lora.targets
    layers = [layer for layer in linear_layers(model) if re.search(r"blocks\.\d+\.", layer)]
    wanted = ATTENTION if lora.targets == "attention" else ATTENTION + FEED_FORWARD
    return [name for name in wanted if any(layer.endswith(f".{name}") for layer in layers)]


def linear_layers(model: nn.Module) -> list[str]:
    """Names of what an adapter can be put on."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def save(
    pipeline_class: Any, model: nn.Module, state: dict[str, Tensor], folder: Path, idle: tuple[str, ...] = ()
) -> None:
    """Write adapters as diffusers' pipelines load them, with the same bytes in every process.

    Args:
        state: the model's state dict, or the adapters' part of it.
        idle: ends of names of layers that the pipeline gives an adapter of zeros beside ours; the header names them
            too, else peft warns that the file is not what its header says.
    """
    from diffusers.training_utils import _collate_lora_metadata  # here, since it loads far more than is used

    metadata = _collate_lora_metadata({"transformer": model})
    (config,) = metadata.values()
    config.update({key: sorted(value) for key, value in config.items() if isinstance(value, set | list)})  # of sets
    config["target_modules"] = sorted([*config["target_modules"], *idle])
    scale = config["lora_alpha"] / config["r"]
    config["lora_alpha"] = config["r"]
    layers = {
        name: tensor * scale if ".lora_B." in name else tensor
        for name, tensor in get_peft_model_state_dict(model, state_dict=state).items()
    }
    pipeline_class.save_lora_weights(str(folder), transformer_lora_layers=layers, **metadata)
    _sort_header(folder / LORA_WEIGHT_NAME_SAFE)


def load(folder: Path) -> dict[str, Tensor]:
    """The tensors that ``save`` wrote. They say all of themselves: of the right strength, alpha is their rank.

    Raises:
        UserError: they cannot be read.
    """
    source = folder / LORA_WEIGHT_NAME_SAFE
    try:
        return load_file(source)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{source}: cannot be read ({error})") from None


def save_for_comfyui(folder: Path, family: str, path: Path) -> None:
    """Write what ``save`` wrote in ComfyUI's names: ``lora_down`` (A), ``lora_up`` (B) and ``alpha`` of each layer.

    Raises:
        UserError: the adapters cannot be read, or are not as ``save`` writes them.
    """
    names = FAMILIES[family].original_names
    assert names is not None, f"{family} has no names there"
    written = {}
    for name, tensor in load(folder).items():
        layer, _, half = name.removeprefix(PREFIX).rpartition(".lora_")
        if not name.startswith(PREFIX) or half not in ("A.weight", "B.weight"):
            raise UserError(f"{folder / LORA_WEIGHT_NAME_SAFE}: {name} is no adapter of a denoiser")
        there = f"diffusion_model.{original(names, layer)}"
        written[f"{there}.lora_{'down' if half == 'A.weight' else 'up'}.weight"] = tensor.contiguous()
        if half == "A.weight":
            written[f"{there}.alpha"] = torch.tensor(float(len(tensor)))
    with atomic(path) as temporary:
        save_file(written, temporary)


def _sort_header(path: Path) -> None:
    """Order the metadata of a safetensors file, which its writer leaves in the order of a hash table."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
