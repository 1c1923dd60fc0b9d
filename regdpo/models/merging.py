"""Adapters as part of the weights: each layer's weight becomes ``W + B A`` (arXiv 2106.09685, section 4.1).

The sum is made in float64 and rounded once, to fp32, whatever the weights were stored in. Tensors are read and written
one file after another, so that the model is never whole in memory.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from regdpo.core.errors import UserError
from regdpo.models.weights import FILE, INDEX, Weights

FILE_BYTES = 5e9
"""Of one file, at most, unless a tensor has more."""


def merge(
    weights: Weights, shapes: Mapping[str, tuple[int, ...]], adapters: Mapping[str, Tensor], folder: Path
) -> None:
    """Write a denoiser's tensors with its adapters merged in, as diffusers reads them.

    Args:
        weights: without adapters. shapes: of its tensors, by name. adapters: ``LAYER.lora_A.weight`` (rank, in) and
            ``LAYER.lora_B.weight`` (out, rank), of the right strength as they are. folder: that is there.

    Raises:
        UserError: an adapter is of no layer, or not of its size.
    """
    weights.check(shapes)
    pending = {name.rpartition(".lora_")[0] for name in adapters}
    files = _files(shapes)
    number, names, total = len(files), {}, 0
    for place, wanted in enumerate(files, start=1):
        file = FILE if number == 1 else FILE.replace(".", f"-{place:05d}-of-{number:05d}.", 1)
        tensors = {}
        for name, tensor in weights.read(dict.fromkeys(wanted, ())):
            layer = name.removesuffix(".weight")
            if tensor.is_floating_point():
                tensor = tensor.float()
            if layer in pending:
                tensor = _joined(layer, tensor, adapters)
                pending.discard(layer)
            tensors[name], names[name] = tensor.contiguous(), file
        total += sum(tensor.nbytes for tensor in tensors.values())
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if pending:
        raise UserError(f"adapters of {min(pending)}: the denoiser has no such layer; they are of another model")
    if number > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2))


def _joined(layer: str, weight: Tensor, adapters: Mapping[str, Tensor]) -> Tensor:
    try:
        added = adapters[f"{layer}.lora_B.weight"].double() @ adapters[f"{layer}.lora_A.weight"].double()
    except (KeyError, RuntimeError):
        raise UserError(f"adapters of {layer}: they are not a pair of matrices") from None
    if added.shape != weight.shape:
        raise UserError(f"adapters of {layer}: they give {tuple(added.shape)}, its weight is {tuple(weight.shape)}")
    return (weight.double() + added).to(torch.float32)


def _files(shapes: Mapping[str, tuple[int, ...]]) -> list[list[str]]:
    """The names of the tensors of each file."""
    found: list[list[str]] = [[]]
    size = 0.0
    for name, shape in shapes.items():
        own = 4.0 * torch.Size(shape).numel()
        if found[-1] and size + own > FILE_BYTES:
            found.append([])
            size = 0.0
        found[-1].append(name)
        size += own
    return found
