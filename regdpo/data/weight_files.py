"""Files of tensors from strangers: of safetensors, and of torch's files tensors alone; no code of theirs is run."""

from pathlib import Path
from typing import TYPE_CHECKING

from regdpo.core.errors import UserError, first_line
from regdpo.runtime.hub import BROKEN

if TYPE_CHECKING:
    import torch


def tensors(key: str, path: Path) -> "dict[str, torch.Tensor]":
    """Of a file by their names, float32, on the CPU; without those that count.

    Args:
        key: of the configuration, for the reader.

    Raises:
        UserError: it cannot be read.
    """
    import pickle

    import torch
    from safetensors.torch import load_file

    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (*BROKEN, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"{key}: {path} cannot be read ({first_line(error)})") from None
    named = found.items() if isinstance(found, dict) else ()
    return {name: it.float() for name, it in named if isinstance(it, torch.Tensor)}
