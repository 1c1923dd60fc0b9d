"""What the JSON files of a checkpoint say of it, read and bounded before anything is built from them."""

import inspect
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from regdpo.core.errors import UserError, first_line

KNOWN = Path(__file__).resolve().parents[2] / "config" / "architectures"
"""Our own minimal configs of published checkpoints: a family, a task, and the JSON files that the family reads."""
MOST_BYTES = 2**20
"""Of a configuration."""
MOST_LAYERS = 1000
"""Of what is built one by one; the largest models have a hundred."""
MOST = 2**31
"""Of any other whole number: sizes, ids of tokens, bases of rotary angles."""
REPEATED = ("layers", "blocks", "depth")
"""Parts of the names that count what is built one by one."""
MOST_POSITIONS = 2**20
"""Of what a table is built for, a row each; models have thousands."""
TABLES = ("seq_len", "position")
"""Parts of the names that count a table's rows."""


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


@cache
def known() -> dict[str, Path]:
    """Name of a published checkpoint, or of its file -> that file in ``KNOWN``."""
    files = {path: json.loads(path.read_text())["models"] for path in sorted(KNOWN.glob("*.json"))}
    return {name: path for path, names in files.items() for name in (*names, path.stem)}


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
        UserError: a value is of another kind than its default, or no number where that is one above zero.
    """
    parameters = inspect.signature(kind).parameters
    for name, value in values.items():
        default = parameters[name].default if name in parameters else None
        if (wanted := _wanted(default)) and not _fits(value, default):
            shown = "null" if value is None else json.dumps(value)[:40]
            raise UserError(f"{path}: {name} is {shown}; {kind.__name__} wants {wanted}, such as {default}")
    return {name: it.default for name, it in parameters.items()} | values


def _wanted(default: Any) -> str:
    """What stands in the place of a default, in words; empty where anything may."""
    if isinstance(default, bool | str) or default is None:
        return ""
    if isinstance(default, tuple | list):
        return "numbers" if default and all(_wanted(it) for it in default) else ""
    if isinstance(default, int):
        return "a whole number above 0" if default > 0 else "a whole number"
    return "a number" if isinstance(default, float) else ""


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, tuple | list):
        alike = default[0]
        return isinstance(value, tuple | list) and all(_fits(it, alike) for it in value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(default, int):
        return whole and (value > 0 or default <= 0)
    return whole or isinstance(value, float)


def _bounded(path: str | Path, value: Any, key: str = "") -> None:
    if isinstance(value, dict):
        for name, below in value.items():
            _bounded(path, below, name)
    elif isinstance(value, list):
        for below in value:
            _bounded(path, below, key)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}: {key} is {value}, which is no number")
    elif isinstance(value, int):
        most = MOST
        for parts, fewer in ((TABLES, MOST_POSITIONS), (REPEATED, MOST_LAYERS)):
            most = fewer if any(part in key for part in parts) else most
        if abs(value) > most:
            raise UserError(f"{path}: {key} is {value}; at most {most} is taken")
