"""The sections of the configuration for the model that is to get better."""

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from regdpo.config.training import TrainSettings
from regdpo.core.section import Count, InputPath, Section
from regdpo.models.registry import FAMILIES

if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal[tuple(FAMILIES)]


def _is_there(model: str) -> str:
    """Refuse what can only be a folder, and is none."""
    if Path(model).exists() or (re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) and not model.startswith(".")):
        return model
    beside = Path(model).parent
    there = sorted(str(path) for path in beside.iterdir() if path.is_dir()) if beside.is_dir() else []
    alike = difflib.get_close_matches(model, there, n=1)
    meant = f"; did you mean {alike[0]}?" if alike else ""
    raise ValueError(f"there is no such folder{meant} (a hub name has the form OWNER/NAME)")


ModelName = Annotated[str, InputPath(always=False), AfterValidator(_is_there)]
"""Of a checkpoint: a hub name or a local folder."""


class TinyWan(Section):
    """The transformer that is trained from scratch: diffusers' WanTransformer3DModel."""

    layers: Annotated[int, Field(ge=1, le=1000)] = 4
    heads: Count = 4
    head_dim: Count = 32
    ffn_dim: Count = 384
    text_dim: Count = 32
    freq_dim: Count = 64


class TinyCodec(Section):
    """The linear block-PCA video codec that stands in for the VAE."""

    channels: Count = Field(16, description="Latent channels.")
    spatial: Count = Field(8, description="Pixels a latent, each way.")
    temporal: Count = Field(4, description="Frames a latent, after the first.")


class Pretrain(Section):
    """A base model made here: codec, text encoder and transformer from scratch, on other footage than the user's."""

    sources: list[str] = Field(min_length=1, description="Glob patterns of the videos that the base model knows.")
    transformer: TinyWan = TinyWan()
    codec: TinyCodec = TinyCodec()
    settings: TrainSettings = Field(description="Its training; objective `pretrain` (flow matching), full tuning.")

    @model_validator(mode="after")
    def _from_scratch_is_full(self) -> Self:
        if self.settings.tuning != "full":
            raise ValueError("settings.tuning: has to be `full`, since adapters on random weights learn nothing")
        return self


class Base(Section):
    """The model that is to get better: `model` by name, or `pretrain` to make one."""

    family: FamilyName = Field(
        "wan", description="Architecture (docs/reference/families.md). Only `wan` can be made by `pretrain`."
    )
    task: Literal["i2v", "t2v"] = Field("i2v", description="Condition: caption and first frame, or caption alone.")
    model: ModelName | None = Field(None, description="diffusers checkpoint: hub name or local folder.")
    revision: str | None = Field(None, description="Pinned revision; needed for a hub name.")
    expert: Literal["high", "low"] | None = Field(
        None, description="Of a checkpoint with two experts the one that is trained: for `high` or for `low` noise."
    )
    text_length: Count | None = Field(
        None, description="Tokens that a caption is padded to; empty: what the family's pipeline pads to."
    )
    pretrain: Pretrain | None = None
    seeds: list[int] = Field(
        [0],
        min_length=1,
        description="Of what `pretrain` makes: a base model for each seed (of initial weights and training), with "
        "losers, pairs and arms of its own, so that the report can speak of base models and not of one alone. What is "
        "of another than the first lies in `results/baseN/`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _seeds_are_a_list(cls, values: Any) -> Any:
        pretrain = values.get("pretrain") if isinstance(values, dict) else None
        if isinstance(pretrain, dict) and "seed" in pretrain:
            raise ValueError(f"`pretrain.seed` is `seeds` now, beside `pretrain`; write seeds: [{pretrain['seed']}]")
        return values

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.model is None) == (self.pretrain is None):
            raise ValueError("give exactly one of `model` (a checkpoint) and `pretrain` (make a small one)")
        if self.model and not self.revision and not Path(self.model).exists():
            raise ValueError(f"`revision` is missing: pin the revision of {self.model}")
        if self.pretrain and self.family != "wan":
            raise ValueError(f"`pretrain` makes a `wan`; give the {self.family} checkpoint as `model`")
        if self.pretrain and self.expert:
            raise ValueError("`expert`: what `pretrain` makes has no experts; leave it out")
        if self.model and self.seeds != [0]:
            raise ValueError("`seeds` are of what `pretrain` makes, and a checkpoint is one model; leave them out")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one occurs twice")
        return self

    @property
    def folders(self) -> dict[str, int]:
        """Folder of every base model below the results, with a slash and empty for the first -> its seed."""
        return {f"base{seed}/" if number else "": seed for number, seed in enumerate(self.seeds)}
