"""Documents generated from the configuration's models: the JSON Schema and the tables of config/README.md."""

import json
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from regdpo.config.schema import Config
from regdpo.core.section import Section

SEVERAL: dict[Any, str] = {dict: ".NAME", list: "[]"}
"""What stands for the user's own names, or for a place in a list, in the path of a section."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the configuration."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def markdown() -> str:
    """Every key with its type, default and meaning, one table a section."""
    parts = []
    pending: list[tuple[str, type[Section]]] = [("", Config)]
    while pending:
        path, section = pending.pop(0)
        rows, below = [], []
        for name, field in section.model_fields.items():
            inner = next((t for t in (field.annotation, *get_args(field.annotation)) if _is_section(t)), None)
            here = f"{path}.{name}".lstrip(".")
            several = SEVERAL.get(get_origin(field.annotation))
            if inner is not None:
                below.append((f"{here}{several or ''}", inner))
                if several is None:
                    continue
            meaning = (field.description or "").replace("|", "\\|")
            default = "(required)" if field.is_required() else f"`{json.dumps(field.default, default=_plain)}`"
            rows.append(f"| `{name}` | {_type_name(field.annotation)} | {default} | {meaning} |")
        if rows:
            title = f"### `{path}`" if path else "### top level"
            about = " ".join((section.__doc__ or "").split())
            parts.append(
                "\n".join([title, "", about, "", "| key | type | default | meaning |", "|---|---|---|---|", *rows])
            )
        pending = below + pending
    return "\n\n".join(parts) + "\n"


def _plain(section: Section) -> dict[str, Any]:
    return section.model_dump(exclude_none=True)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _type_name(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_type_name(part) for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is not None:
        inner = ", ".join(_type_name(part) for part in get_args(annotation) if part is not Ellipsis)
        return f"{get_origin(annotation).__name__} of {inner}"
    return {
        "str": "text",
        "int": "integer",
        "float": "number",
        "bool": "yes/no",
        "Any": "any",
        "Arm": "arm",
        "Step": "step",
        "Bucket": "bucket",
        "PairSource": "source of pairs",
        "Generator": "generator",
    }[annotation.__name__]
