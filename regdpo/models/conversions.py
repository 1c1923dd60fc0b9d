"""Published checkpoints that are not in diffusers' layout, and who writes them so: what scripts/convert.py knows."""

import importlib
import json
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regdpo.core.errors import UserError, first_line
from regdpo.core.temporaries import atomic, scratch
from regdpo.runtime.hub import BROKEN

if TYPE_CHECKING:
    from torch import Tensor

STORED = ("torch.float32", "torch.bfloat16", "torch.float16")
"""Types of weights that stand for themselves, unscaled."""
ORDER = "published.json"
"""In a converted folder: the names of each file's tensors, in their order."""
UNTOLD = (KeyError, IndexError, ValueError, RuntimeError, TypeError, ZeroDivisionError)
"""What reading a configuration off the shapes of other weights raises."""


@dataclass(frozen=True)
class Conversion:
    """Of one family."""

    files: Mapping[str, str]
    """What is given, in its order, and what it is."""
    forward: str
    """``module:function`` of the files, the folder to write, and the options by name."""
    back: str
    """``module:function`` of a folder that ``forward`` wrote, a folder of a tuned denoiser or None, and the file."""
    options: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Default and meaning."""


_TOKENIZER = {
    "tokenizer": (
        "openai/clip-vit-large-patch14",
        "CLIP's tokenizer, which the file lacks: a folder, or a name on the hub",
    )
}
_MODEL = "VideoCrafter2's model.ckpt"
CONVERSIONS = {
    "videocrafter2": Conversion(
        {"model": _MODEL},
        "regdpo.models.videocrafter_files:convert",
        "regdpo.models.videocrafter_files:back",
        _TOKENIZER,
    ),
    "t2v_turbo": Conversion(
        {"update": "T2V-Turbo's unet_lora.pt, or the denoiser of v2 (unet_mg.pt, unet_no_mg.pt)", "model": _MODEL},
        "regdpo.models.videocrafter_files:convert_turbo",
        "regdpo.models.videocrafter_files:back_turbo",
        _TOKENIZER,
    ),
    "mugv": Conversion(
        {"dit": "MUG-V's dit.pt", "vae": "MUG-V's vae.pt"},
        "regdpo.models.mugv_files:convert",
        "regdpo.models.mugv_files:back",
        {
            "text_encoder": (
                "DeepFloyd/t5-v1_1-xxl",
                "T5 v1.1 XXL, which the files lack: a folder, or a name on the hub",
            )
        },
    ),
}
"""By the name of the family."""


def converted(family: str) -> str:
    """How the published files of a family become a checkpoint, as the end of a refusal; empty where they are one."""
    if family not in CONVERSIONS:
        return ""
    files = " ".join(CONVERSIONS[family].files).upper()
    command = f"python scripts/convert.py {family} {files} OUT"
    return f". What is published of {family} is converted once: `{command}`, then name OUT (docs/reference/families.md)"


def run(family: str, files: list[Path], out: Path, options: Mapping[str, str]) -> None:
    """Write a folder in diffusers' layout.

    Raises:
        UserError: the folder is there already, or a file is not the published one.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; name a new folder")
    with atomic(out) as folder:
        folder.mkdir()
        _function(CONVERSIONS[family].forward)(*files, folder, **options)


def run_back(folder: Path, tuned: Path | None, out: Path) -> None:
    """Write the published layout again.

    Args:
        tuned: folder of a tuned denoiser that takes the place of the folder's own, or of adapters that are merged into
            it.

    Raises:
        UserError: ``out`` is there already, the folder was not converted here, or what was tuned is another model.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; name a new one")
    try:
        family = json.loads((folder / "model_index.json").read_text())["regdpo_family"]
        function = _function(CONVERSIONS[family].back)
        (folder / ORDER).stat()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: was not written by scripts/convert.py ({first_line(error)})") from None
    with atomic(out) as temporary, _whole(folder, tuned, out.parent) as denoiser:
        function(folder, denoiser, temporary)


@contextmanager
def _whole(folder: Path, tuned: Path | None, home: Path) -> Iterator[Path | None]:
    """The folder of a tuned denoiser; of adapters the weights that they are merged into, as long as they are read."""
    from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE

    from regdpo.models import adapters, merging
    from regdpo.models.weights import StoredWeights

    if tuned is None or not (tuned / LORA_WEIGHT_NAME_SAFE).exists():
        yield tuned
        return
    found = {name.removeprefix(adapters.PREFIX): it for name, it in adapters.load(tuned).items()}
    base = folder / "transformer"
    with scratch(home) as place:
        weights = StoredWeights(base)
        merging.merge(weights, weights.shapes, found, place)
        shutil.copyfile(base / "config.json", place / "config.json")
        yield place


def read(path: Path) -> Any:
    """What a file of torch's holds: tensors and what they lie in; no code of strangers is run.

    Raises:
        UserError: it cannot be read so.
    """
    import torch  # here, since it takes long to load

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (*BROKEN, pickle.UnpicklingError, EOFError) as error:
        # Of these two the library advises to run what the file holds.
        advised = isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error)
        reason = "it is damaged, or holds more than tensors" if advised else first_line(error)
        raise UserError(f"{path}: cannot be read as a file of tensors ({reason})") from None


def tensors(path: Path, given: Any, what: str) -> "dict[str, Tensor]":
    """What ``read`` gave, if it is tensors by name; those that share memory have copies of their own.

    Raises:
        UserError: it holds something else, or tensors without their numbers one after another.
    """
    import torch

    if not isinstance(given, dict):
        raise UserError(f"{path}: holds a {type(given).__name__} and not tensors by name; it is not {what}")
    found, seen = {}, set()
    for name, it in given.items():
        if not isinstance(name, str) or not isinstance(it, torch.Tensor):
            raise UserError(f"{path}: holds {type(it).__name__} as {name!r} and not tensors by name; it is not {what}")
        if it.layout != torch.strided or it.is_meta or it.is_quantized:
            kind = "meta" if it.is_meta else "quantised" if it.is_quantized else it.layout
            raise UserError(f"{path}: {name} is a {kind} tensor; it is not {what}")
        memory = it.untyped_storage().data_ptr()
        found[name] = it.clone() if memory in seen else it
        seen.add(memory)
    return found


def lacks(path: Path, error: Exception, given: "Mapping[str, Tensor]", what: str) -> UserError:
    """What to tell of weights by whose names and shapes no model can be made."""
    first = f"its first tensor is {min(given)}" if given else "it holds no tensors"
    reason = (
        f"lacks {error.args[0]}"
        if isinstance(error, KeyError)
        else f"is of other values or shapes: {first_line(error)}"
    )
    return UserError(f"{path}: {reason} ({first}); it is not {what}")


def _function(name: str) -> Callable[..., None]:
    module, _, attribute = name.partition(":")
    function: Callable[..., None] = getattr(importlib.import_module(module), attribute)
    return function
