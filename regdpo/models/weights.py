"""Reading a checkpoint's tensors slice by slice, so that no rank ever holds a model whole.

torch's own reader of safetensors (``HuggingFaceStorageReader``) takes every file of a folder for a part of the
checkpoint, and folders of models also hold variants of the same tensors; so the index decides here, as in diffusers.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from regdpo.core.errors import UserError

FILE = "diffusion_pytorch_model.safetensors"  # of diffusers' layout
INDEX = FILE + ".index.json"
FILE_BYTES = 5 * 10**9
"""Of one file that is written here, at most, unless a tensor has more."""
Slices = tuple[slice, ...]


class Weights(Protocol):
    """Where a model's tensors come from."""

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise UserError unless there are just these tensors, of these shapes."""

    def read(self, wanted: Mapping[str, Slices]) -> Iterator[tuple[str, Tensor]]:
        """Parts of tensors, in any order and in the type they are stored in."""


class StoredWeights:
    """The safetensors files of a model's folder, one or many with an index.

    Args:
        unexpected: patterns of names of tensors that may be there without being wanted.

    Raises:
        UserError: the folder has no weights, or its index is none.
    """

    def __init__(self, folder: Path, unexpected: tuple[str, ...] = ()):
        self.folder, self.unexpected = folder, unexpected
        index = folder / INDEX
        names = _files_of(index) if index.exists() else {FILE}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.files: dict[str, list[str]] = {}
        for name in sorted(names):
            with self._open(name) as file:
                self.files[name] = list(file.keys())
                self.shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in self.files[name]}

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        extra = [
            name
            for name in sorted(self.shapes.keys() - shapes.keys())
            if not any(re.search(pattern, name) for pattern in self.unexpected)
        ]
        missing = sorted(shapes.keys() - self.shapes.keys())
        for what, names in (("lacks", missing), ("holds, unasked,", extra)):
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise UserError(f"{self.folder}: {what} {names[0]}{more}; it is not the checkpoint of its config.json")
        for name, shape in shapes.items():
            if self.shapes[name] != tuple(shape):
                raise UserError(
                    f"{self.folder}: {name} is {self.shapes[name]}, its config.json makes it {tuple(shape)}"
                )

    def read(self, wanted: Mapping[str, Slices]) -> Iterator[tuple[str, Tensor]]:
        for file_name, keys in self.files.items():
            with self._open(file_name) as file:  # one after another: what was mapped of a file is given back with it
                for key in keys:
                    if key in wanted:
                        part = file.get_slice(key)
                        yield key, part[wanted[key]] if wanted[key] else file.get_tensor(key)

    def _open(self, name: str) -> safe_open:
        try:
            return safe_open(self.folder / name, "pt")
        except (OSError, SafetensorError) as error:
            raise UserError(f"{self.folder / name}: cannot be read ({error})") from None


def save(tensors: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    """Write a denoiser's tensors as diffusers reads them, never with more of them in memory than a file holds.

    Args:
        tensors: by name, each taken when the ones before it are written. folder: that is there.
    """
    files: list[dict[str, int]] = []
    held: dict[str, Tensor] = {}

    def write() -> None:
        save_file(held, folder / f"{len(files)}.safetensors", metadata={"format": "pt"})
        files.append({name: it.nbytes for name, it in held.items()})
        held.clear()

    for name, tensor in tensors:
        if held and sum(it.nbytes for it in held.values()) + tensor.nbytes > FILE_BYTES:
            write()
        held[name] = tensor.contiguous()
    write()
    if len(files) == 1:
        (folder / "0.safetensors").rename(folder / FILE)
        return
    where: dict[str, str] = {}
    for number, names in enumerate(files):
        file = FILE.replace(".", f"-{number + 1:05d}-of-{len(files):05d}.", 1)
        (folder / f"{number}.safetensors").rename(folder / file)
        where |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": sum(sum(it.values()) for it in files)}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True))


def _files_of(index: Path) -> set[str]:
    """The files that an index names; they lie beside it."""
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("it has to name files beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: is not an index of weights ({error})") from None
    return names
