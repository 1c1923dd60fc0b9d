"""What every section of the configuration is made of."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Count = Annotated[int, Field(ge=1)]
Even = Annotated[int, Field(ge=2, multiple_of=2)]
AtLeastOne = Annotated[float, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
"""Of the user's own. Several may stand in one file's name, which has at most 255 bytes."""


@dataclass(frozen=True)
class InputPath:
    """Marks text that names a file or folder which is read (regdpo/config/locations.py)."""

    always: bool = True
    """False: it may be the name of something on a hub instead, and is where there is no such folder."""
    program: bool = False
    """Whether a name without a folder is looked for in PATH."""


class Section(BaseModel):
    """Base of all sections: no unknown keys, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_it_is_meant(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's ``yes`` is no number, though Python counts it as 1. ``6e3`` is one, though YAML 1.1 reads text: it
        asks for a dot and a sign."""
        assert info.field_name is not None
        if isinstance(value, bool) and bool not in kinds(cls.model_fields[info.field_name].annotation):
            raise ValueError("true and false are no values of this key")
        if isinstance(value, str) and "\0" in value:
            raise ValueError("holds a null byte, which neither a path nor a text can")
        if isinstance(value, str) and EXPONENT.fullmatch(value):
            return value if str in kinds(cls.model_fields[info.field_name].annotation) else float(value)
        return value


EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def kinds(annotation: Any) -> Iterator[Any]:
    """The types that a field may have, those in lists and tables too."""
    yield annotation
    for inner in get_args(annotation):
        yield from kinds(inner)
