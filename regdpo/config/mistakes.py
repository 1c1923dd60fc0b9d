"""What the reader is told of mistakes in a configuration, and sections of which some keys are overridden."""

import difflib
import re
from collections.abc import Iterator
from typing import Any, TypeVar, get_origin

import yaml
from pydantic import ValidationError

from regdpo.core.errors import UserError
from regdpo.core.section import Section, kinds

S = TypeVar("S", bound=Section)


def overridden(shared: S, values: dict[str, Any], key: str) -> S:
    """A section of which some keys, on any level, have other values.

    Args:
        key: that the values stand under, for the message.

    Raises:
        ValueError: what comes out is not valid.
    """
    try:
        return type(shared).model_validate(_merge(shared.model_dump(), values))
    except ValidationError as error:
        raise ValueError(f"{key}.{lines(error, type(shared))[0]}") from None


def _merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def refuse_twice(text: str, path: str) -> None:
    """Refuse YAML in which a key is given twice, of which its readers silently take the last.

    Raises:
        UserError: naming the key and both lines.
    """
    pending, seen = [("", yaml.compose(text, yaml.SafeLoader))], set[int]()
    while pending:
        above, node = pending.pop()
        if id(node) in seen:  # it is named again by an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += [(f"{above}{number}.", one) for number, one in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines and name != "<<":
                raise UserError(f"{path}: {above}{name} is given twice, in lines {lines[name]} and {line}; keep one")
            lines[name] = line
            pending.append((f"{above}{name}.", value))


ALTERNATIVE = re.compile(r"^constrained-|\[")
"""What pydantic puts between the keys where a value may be of several kinds."""


def lines(error: ValidationError, model: type[Section]) -> list[str]:
    """A line a mistake, with the path of its key.

    Args:
        model: of which the values are.
    """
    found = []
    for item in error.errors():
        names = [str(part) for part in item["loc"] if not ALTERNATIVE.search(str(part))]
        where = ".".join(names)
        if not where.isprintable():
            where = where.encode("unicode_escape").decode()
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{_meant(model, names)} (config/README.md lists the keys)"
        elif item["type"] == "missing":
            message = "is missing (config/README.md says what it is)"
        elif item["type"] in ("model_type", "dict_type") and not isinstance(item["input"], list):
            keys = f" ({', '.join(_keys(model, [*names, ''])[:3])}, ...)" if item["type"] == "model_type" else ""
            given = "is empty" if item["input"] is None else f"is {item['input']!r}"
            message = f"{given}; its keys{keys} go below it, indented"
        elif item["type"] == "literal_error":
            words = re.findall(r"'([^']*)'", str(item.get("ctx", {}).get("expected", "")))
            alike = difflib.get_close_matches(str(item["input"]), words, n=1)
            message += f" (got {item['input']!r}{f'; did you mean {alike[0]}?' if alike else ''})"
        elif not isinstance(item["input"], dict | list):
            message += f" (got {item['input']!r})"
        found.append(f"{where}: {message}" if where else message)
    return found


def _meant(model: type[Section], names: list[str]) -> str:
    """What an unknown key may have been meant for: its namesake elsewhere, or one beside it that is written alike."""
    *above, key = names
    namesakes = [path for path in paths(model) if path.rpartition(".")[2] == key]
    near = [path for path in namesakes if above and path.startswith(f"{above[0]}.")]
    meant = near or namesakes or difflib.get_close_matches(key, _keys(model, names), n=1)
    return f"; did you mean {meant[0]}?" if meant else ""


def _keys(model: type[Section], names: list[str]) -> list[str]:
    """The keys that may stand where the last of ``names`` does, those first that have to."""
    sections = [model]
    for name in names[:-1]:
        found = [section.model_fields[name] for section in sections if name in section.model_fields]
        # else it is a name of the user's own, as of an arm
        sections = [it for field in found for it in _below(field.annotation)] if found else sections
    fields = [(name, field) for section in sections for name, field in section.model_fields.items()]
    return [name for name, field in sorted(fields, key=lambda it: not it[1].is_required())]


def paths(model: type[Section], above: str = "") -> Iterator[str]:
    """Every key that is not within a table of the user's own names."""
    for name, field in model.model_fields.items():
        yield f"{above}{name}"
        if get_origin(field.annotation) is not dict:
            for section in _below(field.annotation):
                yield from paths(section, f"{above}{name}.")


def _below(annotation: Any) -> list[type[Section]]:
    return [kind for kind in kinds(annotation) if isinstance(kind, type) and issubclass(kind, Section)]
