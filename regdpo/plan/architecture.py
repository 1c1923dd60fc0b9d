"""The denoiser that a configuration trains, as its family describes it from the JSON files of a checkpoint: one that is
here, or one of config/architectures.

Nothing is downloaded and no weight is read.
"""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from regdpo.config.schema import Base
from regdpo.core.digests import canonical, text_digest
from regdpo.core.errors import UserError
from regdpo.core.store import Store
from regdpo.models import checkpoint_json
from regdpo.models.family import Family, family_class, open_family
from regdpo.models.spec import ModelRef

Given = tuple[tuple[Any, ...], dict[str, Any]]
"""What a module is called with: by place and by name."""


@dataclass(frozen=True)
class Architecture:
    """A denoiser and the latents it works on."""

    name: str
    source: str  # where the figures are from
    ref: ModelRef  # of a folder that holds a checkpoint's JSON files; weights are not asked for

    @cached_property
    def family(self) -> Family:
        """Who knows."""
        return open_family(self.ref, Store(self.ref.path), torch.device("cpu"))

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Blocks of each kind, in their order."""
        return self.family.layers

    @property
    def depth(self) -> int:
        """Blocks."""
        return sum(self.layers)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F', H', W') of a clip."""
        return self.family.latent_shape(frames, height, width)

    def beside(self, latent: tuple[int, ...]) -> int:
        """Numbers that one clip of latents (C, F', H', W') is given beside them: text, condition, and so on."""
        return sum(math.prod(it.shape[1:]) for it in self.family.example_inputs(latent).values())

    def empty(self, layers: tuple[int, ...] | None = None) -> nn.Module:
        """The model on the meta device, fp32; ``layers`` in the place of its own."""
        return self.family.empty_transformer(layers)

    def inputs(self, batch: int, latent: tuple[int, ...], dtype: torch.dtype) -> Given:
        """What the family calls the model with for ``batch`` latents (C, F', H', W'), on the meta device."""

        def made(*shape: int, kind: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=kind, device="meta")

        asked = _Asked()
        inputs = {name: made(batch, *one.shape[1:]) for name, one in self.family.example_inputs(latent).items()}
        with suppress(_Enough):
            self.family.predict(asked, made(batch, *latent, kind=dtype), made(batch), inputs)
        given: Given = tree_map_only(Tensor, lambda it: made(*it.shape, kind=it.dtype), asked.given)
        return given


class _Enough(Exception):
    """The model was called; what it would answer does not matter."""


class _Asked(nn.Module):
    """A model that notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: Given = (), {}

    def forward(self, *args: Any, **kwargs: Any) -> None:
        self.given = args, kwargs
        raise _Enough


def find(base: Base) -> Architecture:
    """The architecture of a configuration's base model.

    Raises:
        UserError: it is known neither here nor on this machine, or is not of the family.
    """
    text_length = base.text_length or family_class(base.family).text_length
    if base.pretrain is not None:
        from regdpo.models import wan_scratch  # here, since it loads diffusers

        files = wan_scratch.outline(base)
        return described("base.pretrain", "the configuration", files, base.family, base.task, text_length)
    assert base.model is not None
    folder = Path(base.model)
    if not folder.exists():
        found = try_to_load_from_cache(base.model, "transformer/config.json", revision=base.revision)
        if not isinstance(found, str):
            return known(base.model, text_length)
        folder = Path(found).parents[1]
    return of_folder(base.model, folder, _ref(folder, base.family, base.task, text_length, base.expert))


def of_folder(name: str, folder: str | Path, ref: ModelRef) -> Architecture:
    """The architecture of a checkpoint that is here.

    Args:
        ref: how it is used; where it is and what weights it has does not matter.

    Raises:
        UserError: its files cannot be read, or are not of the family.
    """
    here = {"where": "folder", "path": str(folder), "transformer": "", "lora": ""}
    it = Architecture(name, "its config.json", ref.model_copy(update=here))
    it.layers  # noqa: B018 - whoever asks for a plan is told now
    return it


def known(model: str, text_length: int | None = None) -> Architecture:
    """An architecture of config/architectures by the name of a model that has it, or by that of its file.

    Raises:
        UserError: there is none.
    """
    names = []
    for path in sorted(checkpoint_json.KNOWN.glob("*.json")):
        values = json.loads(path.read_text())
        names += [f"{name} ({path.stem})" for name in values["models"]]
        if model in (*values["models"], path.stem):
            family = values["family"]
            length = text_length or family_class(family).text_length
            source = f"config/architectures/{path.name}"
            return described(model, source, values["files"], family, values["task"], length)
    raise UserError(
        f"base.model: the architecture of {model} is not known: it is no local folder, the hub's cache has no "
        f"transformer/config.json of it, and config/architectures has {', '.join(names)}"
    )


def described(
    name: str, source: str, files: Mapping[str, dict[str, Any]], family: str, task: str, text_length: int
) -> Architecture:
    """An architecture by what the JSON files of its checkpoint would say.

    Args:
        files: by their names in the checkpoint's folder.
    """
    content = canonical(files)
    folder = Path(_folder().name, text_digest(content))
    for path, values in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(values))
    return Architecture(name, source, _ref(folder, family, task, text_length))


@cache
def _folder() -> "TemporaryDirectory[str]":
    """For this process."""
    return TemporaryDirectory(prefix="regdpo-plan-")


def _ref(
    folder: Path, family: str, task: str, text_length: int, expert: Literal["high", "low"] | None = None
) -> ModelRef:
    return ModelRef(
        family=family, task=task, where="folder", path=str(folder), text_length=text_length, expert=expert, digest=""
    )
