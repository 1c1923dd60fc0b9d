"""Relative paths of a configuration: each is relative to the file that names it, a default's to the checkout.

What is read is meant (footage, captions, checkpoints, interpreters), the keys that are marked by ``InputPath``. Where
results and store lie (``paths``) is relative to the working directory, as all that Snakemake writes.
"""

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from regdpo.core.section import InputPath, Section

NAMES = "*"
"""In a path: names of the user's own, in a table of sections."""
CHECKOUT = Path(__file__).resolve().parents[2]


def located(
    values: Mapping[str, Any], files: Iterable[tuple[Path, Mapping[str, Any]]], root: type[Section]
) -> dict[str, Any]:
    """The same configuration with its paths relative to the working directory, or absolute where they leave it.

    Args:
        values: a configuration, perhaps of several files.
        files: the folder and the content of each, in the order in which they were read; the last that names a key
            counts.
        root: of the models that describe it.
    """
    result: dict[str, Any] = copy.deepcopy(dict(values))
    named = list(files)
    marked = ((keys, kind, default) for path, kind, default in _paths(root) for keys in _spelled(path, result))
    for keys, kind, default in marked:
        folders = [folder for folder, content in named if _at(content, keys) is not None]
        value = _at(result, keys)
        folder = folders[-1] if folders else Path()
        if value is None and isinstance(default, str):
            folder, value = CHECKOUT, default
        if isinstance(value, str):
            place: Any = result
            for key in keys[:-1]:
                place = place.setdefault(key, {}) if isinstance(place, dict) else None
            if isinstance(place, dict):
                place[keys[-1]] = _moved(value, folder, kind)
    return result


def _moved(value: str, folder: Path, kind: InputPath) -> str:
    here = Path.cwd()
    path = Path(os.path.abspath(folder / value))
    if value.startswith("package:") or (not kind.always and not path.exists()) or (kind.program and "/" not in value):
        return value
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _spelled(path: tuple[str, ...], values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The keys of a path, once for each of the user's names that stand in the place of ``NAMES``."""
    if NAMES not in path:
        return [path]
    at = path.index(NAMES)
    table = _at(values, path[:at])
    names = list(table) if isinstance(table, Mapping) else []
    return [(*path[:at], str(name), *path[at + 1 :]) for name in names]


def _paths(section: type[Section], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], InputPath, Any]]:
    """Keys, mark and default of every path."""
    for name, field in section.model_fields.items():
        inner = (field.annotation, *get_args(field.annotation))
        marks = [*field.metadata, *(mark for kind in inner for mark in getattr(kind, "__metadata__", ()))]
        for mark in marks:
            if isinstance(mark, InputPath):
                yield (*above, name), mark, field.default
        for kind in inner:
            if isinstance(kind, type) and issubclass(kind, Section):
                table = (NAMES,) if get_origin(field.annotation) is dict else ()
                yield from _paths(kind, (*above, name, *table))


def _at(values: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values
