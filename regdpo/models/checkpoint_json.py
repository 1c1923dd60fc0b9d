"""What the JSON files of a checkpoint say of it, read and bounded before anything is built from them."""

import inspect
import json
from pathlib import Path
from typing import Any

from regdpo.core.errors import UserError, first_line

MOST_BYTES = 2**20
"""Of a configuration."""
MOST_LAYERS = 1000
"""Of what is built one by one; the largest models have a hundred."""
MOST = 2**31
"""Of any other whole number: sizes, ids of tokens, bases of rotary angles."""
REPEATED = ("layers", "blocks", "depth")
"""Parts of the names that count what is built one by one."""


def read_json(path: str | Path) -> dict[str, Any]:
    """A configuration of a checkpoint.

    Raises:
        UserError: it cannot be read, is no JSON object, or asks for an absurd number of layers.
    """
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: is larger than {MOST_BYTES >> 20} MiB, so it is no configuration")
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({first_line(error)})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a {type(values).__name__} in the place of a JSON object")
    _bounded(path, values)
    return values


def check_all(folder: str | Path) -> None:
    """Hold every part's configuration to ``read_json``.

    Raises:
        UserError: as there.
    """
    for path in sorted([*Path(folder).glob("*/config.json"), *Path(folder).glob("model_index.json")]):
        read_json(path)


def completed(path: str | Path, values: dict[str, Any], kind: Any) -> dict[str, Any]:
    """A part's configuration with the defaults of what it does not name.

    Args:
        path: its file, or what the reader knows it by.
        values: what it names.
        kind: the class that is made from it.

    Raises:
        UserError: a number is null that has another default.
    """
    parameters = inspect.signature(kind).parameters
    for name, value in values.items():
        default = parameters[name].default if name in parameters else None
        if value is None and isinstance(default, int | float | tuple) and not isinstance(default, bool):
            raise UserError(f"{path}: {name} is null; {kind.__name__} wants a number, such as {default}")
    return {name: it.default for name, it in parameters.items()} | values


def _bounded(path: str | Path, value: Any, key: str = "") -> None:
    if isinstance(value, dict):
        for name, below in value.items():
            _bounded(path, below, name)
    elif isinstance(value, list):
        for below in value:
            _bounded(path, below, key)
    elif isinstance(value, int):
        most = MOST_LAYERS if any(part in key for part in REPEATED) else MOST
        if abs(value) > most:
            raise UserError(f"{path}: {key} is {value}; at most {most} is taken")
