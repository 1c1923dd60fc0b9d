"""Adapters as part of the weights: each layer's weight becomes ``W + B A`` (arXiv 2106.09685, section 4.1).

The sum is made in float64 and rounded once, to fp32, whatever the weights were stored in. Tensors are read and written
one file after another, so that the model is never whole in memory.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from regdpo.core.errors import UserError
from regdpo.models.weights import Weights, save


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
    layers = {name.rpartition(".lora_")[0] for name in adapters}
    strange = sorted(layers - {name.removesuffix(".weight") for name in shapes})
    if strange:
        raise UserError(f"adapters of {strange[0]}: the denoiser has no such layer; they are of another model")

    def merged() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in weights.read(dict.fromkeys(shapes, ())):
            tensor = tensor.float() if tensor.is_floating_point() else tensor
            layer = name.removesuffix(".weight")
            yield name, _joined(layer, tensor, adapters) if name != layer and layer in layers else tensor

    save(merged(), folder)


def _joined(layer: str, weight: Tensor, adapters: Mapping[str, Tensor]) -> Tensor:
    try:
        added = adapters[f"{layer}.lora_B.weight"].double() @ adapters[f"{layer}.lora_A.weight"].double()
    except (KeyError, RuntimeError):
        raise UserError(f"adapters of {layer}: they are not a pair of matrices") from None
    if added.shape != weight.shape:
        raise UserError(f"adapters of {layer}: they give {tuple(added.shape)}, its weight is {tuple(weight.shape)}")
    return (weight.double() + added).to(torch.float32)
