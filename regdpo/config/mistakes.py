"""What the reader is told of mistakes in a configuration, and sections of which some keys are overridden."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

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
        line = lines(error, type(shared))[0]
        below = re.match(r"[a-z_]+[^ ]*: ", line)  # else it is of the whole section
        raise ValueError(f"{key}{'.' if below else ': '}{line}") from None


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


LONGEST = 80
"""Characters of what was given, and of a name in a key, that are shown."""


@dataclass(frozen=True)
class Mistake:
    """One mistake, as pydantic tells it."""

    names: list[str]
    """The keys from the outermost to that which is meant."""
    items: list[Any]
    """What is wrong; of a value that may be of several kinds, what each misses."""


def lines(error: ValidationError, model: type[Section]) -> list[str]:
    """A line a mistake, with the path of its key.

    Args:
        model: of which the values are.
    """
    entries = [(tuple(item["loc"]), item) for item in error.errors()]
    return [_line(one, model) for one in _mistakes(model, entries, [])]


def _mistakes(annotation: Any, entries: list[tuple[tuple[Any, ...], Any]], names: list[str]) -> list[Mistake]:
    """What is told of one place. Where a value may be of several kinds pydantic tells what each misses, below the
    kind's name: the kind counts that was understood furthest.

    Args:
        annotation: of the place. entries: where below it something is wrong, and what. names: the keys of the place.
    """
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    found = [Mistake(names, [item]) for where, item in entries if not where]
    below: dict[Any, list[tuple[tuple[Any, ...], Any]]] = {}
    for where, item in entries:
        if where:
            below.setdefault(where[0], []).append((where[1:], item))
    choice = get_origin(annotation) in (Union, UnionType)
    choices = [it for it in get_args(annotation) if it is not NoneType] if choice else []
    if len(choices) > 1 and below:
        kinds_ = [_mistakes(_chosen(choices, str(label)), it, names) for label, it in below.items()]
        depths = [max(len(one.names) for one in kind) for kind in kinds_]
        if max(depths) > len(names):
            return [*found, *kinds_[depths.index(max(depths))]]
        items = [item for kind in kinds_ for one in kind for item in one.items]
        if near := [it for it in items if it["type"] in ("too_long", "too_short")]:
            items = near  # a list, though of another length
        return [*found, Mistake(names, items)]
    inner = choices[0] if choices else annotation
    for key, it in below.items():
        more = [] if str(key) == "[key]" else [str(key)]
        found += _mistakes(_held(inner, key), it, [*names, *more])
    return found


def _chosen(choices: list[Any], label: str) -> Any:
    """The kind that pydantic calls so; None where nothing lies below it."""
    plain = [get_args(it)[0] if get_origin(it) is Annotated else it for it in choices]
    return next((it for it in plain if label.startswith(getattr(get_origin(it) or it, "__name__", "-"))), None)


def _held(annotation: Any, key: Any) -> Any:
    """What may stand under a key of a section, a table or a list; None if that is not known."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation.model_fields[key].annotation if key in annotation.model_fields else None
    inner = get_args(annotation)
    if get_origin(annotation) is tuple and isinstance(key, int):
        return inner[key] if key < len(inner) else None
    return inner[-1] if get_origin(annotation) in (dict, list) and inner else None


def _line(mistake: Mistake, model: type[Section]) -> str:
    names, item = mistake.names, mistake.items[0]
    message = item["msg"].removeprefix("Value error, ")
    given = repr(item["input"])
    given = given if len(given) <= LONGEST else f"{given[:LONGEST]}..., {len(str(item['input']))} characters"
    if item["type"] == "extra_forbidden":
        message = f"unknown key{_meant(model, names)} (config/README.md lists the keys)"
    elif item["type"] == "missing":
        message = "is missing (config/README.md says what it is)"
    elif item["type"] in ("model_type", "dict_type") and not isinstance(item["input"], list):
        keys = f" ({', '.join(_keys(model, [*names, ''])[:3])}, ...)" if item["type"] == "model_type" else ""
        message = f"{'is empty' if item['input'] is None else f'is {given}'}; its keys{keys} go below it, indented"
    elif item["type"] == "value_error" and (inner := INNER.match(message)) and inner[2] in _keys(model, [*names, ""]):
        names, message = [*names, inner[1]], message[inner.end() :]
    if len(mistake.items) > 1 or item["type"] == "literal_error":
        said = [it["msg"].removeprefix("Input should be ").partition(", unable")[0] for it in mistake.items]
        words = [word for it in mistake.items if it["type"] == "literal_error" for word in QUOTED.findall(it["msg"])]
        alike = difflib.get_close_matches(str(item["input"]), words, n=1)
        message = f"Input should be {', or '.join(dict.fromkeys(said))}"
        message += f" (got {given}{f'; did you mean {alike[0]}?' if alike else ''})"
    elif item["type"] not in PLAIN and not isinstance(item["input"], dict | list):
        message += f" (got {given})"
    every = ".".join(names).split(".")
    where = ".".join(name if len(name) <= LONGEST else f"{name[:LONGEST]}..." for name in every)
    if not where.isprintable():
        where = where.encode("unicode_escape").decode()
    return f"{where}: {message}" if where else message


PLAIN = ("extra_forbidden", "missing", "model_type", "dict_type")
"""Mistakes of which what was given is told, or says nothing."""
INNER = re.compile(r"(([a-z_]+)(?:\.[\w-]+)*): ")
"""With what a section begins where it names the key below it that is meant."""
QUOTED = re.compile(r"'([^']*)'")


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
