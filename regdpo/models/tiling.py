"""What an autoencoder needs for one video, whole or in tiles, measured by shapes.

Tiles change values at their seams, so they are for what does not fit.
"""

import json
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regdpo.models.live import Live, Need

Direction = Literal["encode", "decode"]
SHARE = 0.85
"""Of a GPU's memory, that an autoencoder may fill; the rest is for cuDNN. An assumption, a rule of thumb."""


def to_bytes(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] -> uint8."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


@cache
def need(
    kind: Any, config: str, direction: Direction, shape: tuple[int, ...], dtype: torch.dtype, tiles: bool = False
) -> Need:
    """Its weights and what it computes.

    Args:
        kind: a class of diffusers. config: its configuration, as JSON. shape: pixels (3, F, H, W) to encode, or latents
            (C, F', H', W') to decode. tiles: it works in tiles.
    """
    from diffusers.models.modeling_utils import no_init_weights  # here, since not all that import this load diffusers

    with no_init_weights(), torch.device("meta"):
        model: Any = nn.Module.to(kind.from_config(json.loads(config)).eval(), dtype)
        given = torch.empty(1, *shape, dtype=dtype)
        timestep = torch.zeros(1, dtype=dtype)
    if tiles:
        model.enable_tiling()
    weights = [*model.parameters(), *model.buffers()]
    with torch.no_grad(), Live([*weights, given, timestep]) as live:
        _remember(model, live)
        if direction == "encode":
            model.encode(given)
        else:
            conditioned = [timestep] if model.config.get("timestep_conditioning") else []
            to_bytes(model.decode(given, *conditioned, return_dict=False)[0])
    return Need(sum(tensor.nbytes for tensor in weights), given.nbytes + live.peak)


def _remember(model: nn.Module, live: Live) -> None:
    """Of chunks and tiles of one shape only the first is run, and of the seams between them."""
    for module in list(model.modules())[1:]:
        if any(True for _ in module.children()):
            module.forward = live.remembered(module.forward)
    for name in dir(model):
        if name.startswith("blend_"):
            setattr(model, name, live.remembered(getattr(model, name)))
