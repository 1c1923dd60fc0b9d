"""What the report's content is made of: frozen dataclasses, whose docstrings are the descriptions of its schema."""

from typing import Any, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def part(cls: type[T]) -> type[T]:
    """A dataclass of the report's content. Each field has a docstring under it; that is its description."""
    made: Any = dataclass(frozen=True, config=ConfigDict(use_attribute_docstrings=True))(cls)
    return cast("type[T]", made)
