"""What encoders of text and of pictures need, models of transformers, measured by shapes."""

from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from regdpo.core.errors import UserError, first_line
from regdpo.models.checkpoint_json import read_json
from regdpo.models.live import Live, Need

CONFIG = "config.json"
ATTENTION = "torch.nn.functional.scaled_dot_product_attention"
BAD = (TypeError, ValueError, AttributeError, RuntimeError, ZeroDivisionError)
"""What a configuration that makes no sense is answered with."""


@cache
def need(parts: tuple[tuple[str, str], ...], dtype: torch.dtype, batch: int, length: int = 0) -> Need:
    """Models that are on the device together and work one after another.

    Args:
        parts: class and folder of each, of which the ``config.json`` is read. batch: captions or pictures at once.
        length: tokens of a caption; models that take pictures know their size.

    Raises:
        UserError: a configuration cannot be read, or is not of that class.
    """
    needs = [_need(*part, dtype, batch, length) for part in parts]
    return Need(sum(it.weights for it in needs), max((it.work for it in needs), default=0))


def _need(kind: str, folder: str, dtype: torch.dtype, batch: int, length: int) -> Need:
    model = empty(kind, folder, dtype)
    config = model.config
    with torch.device("meta"):
        if length:
            limit = getattr(config, "max_position_embeddings", length)
            given = torch.empty(batch, min(length, limit), dtype=torch.long)
        else:
            given = torch.empty(batch, config.num_channels, config.image_size, config.image_size, dtype=dtype)
    weights = [*model.parameters(), *model.buffers()]
    with torch.no_grad(), patch(ATTENTION, _attention), Live([*weights, given]) as live:
        model(given)
    return Need(sum(tensor.nbytes for tensor in weights), given.nbytes + live.peak)


def _attention(query: Tensor, *others: Any, **options: Any) -> Tensor:
    """By its shape: on the meta device torch would write down the scores, which on a GPU it does not."""
    return torch.empty_like(query)


def empty(kind: str, folder: str, dtype: torch.dtype) -> Any:
    """The model on the meta device, by its ``config.json``."""
    path = Path(folder, CONFIG)
    found: Any = getattr(transformers, kind, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise UserError(f"{path}: model_index.json says {kind}, which is no model of transformers")
    model: Any = found
    values = read_json(path)
    try:
        with torch.device("meta"):
            return nn.Module.to(model(model.config_class(**values)).eval(), dtype)
    except (*BAD, StrictDataclassError) as error:
        raise UserError(f"{path}: no {kind} can be made of it ({first_line(error)})") from None
