"""What an autoencoder needs for one video without tiles, measured by shapes.

Tiles change values at their seams, so they are for what does not fit.
"""

import json
from functools import cache
from typing import Any, Literal

import torch
from torch import nn

from regdpo.models.live import Live

Direction = Literal["encode", "decode"]
SHARE = 0.85
"""Of a GPU's memory, that an autoencoder may fill; the rest is for cuDNN. An assumption, a rule of thumb."""


@cache
def whole(kind: Any, config: str, direction: Direction, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes at the peak, weights included.

    Args:
        kind: a class of diffusers. config: its configuration, as JSON. shape: pixels (3, F, H, W) to encode, or latents
            (C, F', H', W') to decode.
    """
    with torch.device("meta"):
        model: Any = nn.Module.to(kind.from_config(json.loads(config)).eval(), dtype)
        given = torch.empty(1, *shape, dtype=dtype)
        timestep = torch.zeros(1, dtype=dtype)
    weights = [*model.parameters(), *model.buffers()]
    with torch.no_grad(), Live([*weights, given, timestep]) as live:
        if direction == "encode":
            model.encode(given)
        elif model.config.get("timestep_conditioning"):
            model.decode(given, timestep)
        else:
            model.decode(given)
    return sum(tensor.nbytes for tensor in [*weights, given]) + live.peak
