"""A row model by columns: its Arrow schema, the checks that pydantic would make of each row, made of whole columns, and
the digest of a column.

A column is checked for what its field declares: type, absence, a Literal's values, bounds and lengths. What fails is
shown to pydantic, row by row, which says what is wrong.
"""

import gc
import hashlib
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from regdpo.core.rows import Row

NUMBERS = pa.map_(pa.string(), pa.float64())
TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), dict[str, float]: NUMBERS}
BOUNDS: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    annotated_types.Ge: ("ge", pc.greater_equal),
    annotated_types.Gt: ("gt", pc.greater),
    annotated_types.Le: ("le", pc.less_equal),
    annotated_types.Lt: ("lt", pc.less),
}
DIGEST = 16
"""Hex digits of a column's digest."""


@dataclass(frozen=True)
class Column:
    """What a field allows."""

    name: str
    type: pa.DataType
    nullable: bool
    required: bool
    default: Any
    choices: tuple[str, ...]  # empty: any
    limits: tuple[Any, ...]  # of annotated_types


@dataclass(frozen=True)
class Problem:
    """The first row that does not fit, and what is wrong with it."""

    row: int
    column: str
    what: str


@cache
def columns_of(model: type[Row]) -> dict[str, Column]:
    """The columns of a row model, in its order.

    Raises:
        AssertionError: a field declares what columns are not checked for.
    """
    checks = model.__pydantic_decorators__
    own = [*checks.field_validators, *checks.model_validators, *checks.validators]
    assert not own, f"no check by columns for {own} of {model.__name__}"
    found = {}
    for name, field in model.model_fields.items():
        inner, nullable = _inner(field.annotation)
        choices = get_args(inner) if get_origin(inner) is Literal else ()
        kind = TYPES.get(str if choices else inner)
        assert kind is not None, f"no arrow type for {field.annotation}"
        known = (*BOUNDS, annotated_types.MinLen, annotated_types.MaxLen)
        assert all(isinstance(limit, known) for limit in field.metadata), f"no check of {name} for {field.metadata}"
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        found[name] = Column(name, kind, nullable, field.is_required(), default, choices, tuple(field.metadata))
    return found


def _inner(annotation: Any) -> tuple[Any, bool]:
    """A field's type without None, and whether None is allowed."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    (inner,) = [it for it in get_args(annotation) if it is not type(None)]
    return inner, True


@cache
def schema_of(model: type[Row]) -> pa.Schema:
    """The Arrow schema of a row model."""
    return pa.schema([(column.name, column.type) for column in columns_of(model).values()])


def conform(table: pa.Table, model: type[Row], names: tuple[str, ...] | None = None) -> pa.Table | Problem:
    """A table with the model's columns and types, absent ones by their defaults; or the first row that does not fit.

    Args:
        names: columns to have; None: all.
    """
    wanted = {name: column for name, column in columns_of(model).items() if names is None or name in names}
    arrays, worst = [], len(table)
    for name, column in wanted.items():
        array, bad = _absent(column, len(table)) if name not in table.column_names else _typed(table[name], column)
        if bad is None:
            bad = _first_bad(array, column, told=name in table.column_names and _chosen(table[name], column))
        worst = min(worst, bad) if bad is not None else worst
        arrays.append(array)
    if worst < len(table):
        return _problem(table, worst, model)
    return pa.table(arrays, schema=pa.schema([(name, column.type) for name, column in wanted.items()]))


def _absent(column: Column, count: int) -> tuple[Any, int | None]:
    if column.required:
        return None, 0
    value = [] if column.type == NUMBERS else column.default
    return pa.chunked_array([pa.array([value] * count, column.type)]), None


def _typed(array: pa.ChunkedArray, column: Column) -> tuple[pa.ChunkedArray, int | None]:
    """The values with the column's type, or the first row whose value has another."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        array = pa.chunked_array([chunk.dictionary_decode() for chunk in array.chunks], type=kind)
    if kind == column.type:
        return array, None
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    fits = (
        pa.types.is_null(kind)
        or (text and pa.types.is_string(column.type))
        or (pa.types.is_integer(kind) and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)))
        or (pa.types.is_floating(kind) and pa.types.is_floating(column.type))
    )
    if fits:
        return array.cast(column.type), None
    if pa.types.is_floating(kind) and pa.types.is_integer(column.type):  # whole numbers, as a table with gaps has them
        broken = _first(pc.not_equal(pc.trunc(array), array))
        return (array, broken) if broken is not None else (array.cast(column.type), None)
    return array, _first(pc.is_valid(array)) or 0


def _chosen(array: pa.ChunkedArray, column: Column) -> bool:
    """Whether the words that an array's values are numbers of are all among the column's choices."""
    if not column.choices or not pa.types.is_dictionary(array.type):
        return False
    return all(set(chunk.dictionary.to_pylist()) <= {*column.choices} for chunk in array.chunks)


def _first_bad(array: pa.ChunkedArray, column: Column, told: bool) -> int | None:
    """The first row whose value the column does not allow; ``told``: it is known that choices are met."""
    found: list[int | None] = []
    if array.null_count and not column.nullable:
        found.append(_first(pc.is_null(array)))
    if column.choices and not told:
        allowed = pc.is_in(array, value_set=pa.array(column.choices))
        found.append(_first(pc.and_(pc.invert(allowed), pc.is_valid(array))))
    if column.type == NUMBERS:
        found += [_without_number(array)]
    for limit in column.limits:
        if isinstance(limit, annotated_types.MinLen):
            fits = pc.greater_equal(pc.utf8_length(array), limit.min_length)
        elif isinstance(limit, annotated_types.MaxLen):
            fits = pc.less_equal(pc.utf8_length(array), limit.max_length)
        else:
            attribute, compare = BOUNDS[type(limit)]
            fits = compare(array, getattr(limit, attribute))
        found.append(_first(pc.invert(fits)))
    return min((row for row in found if row is not None), default=None)


def _without_number(array: pa.ChunkedArray) -> int | None:
    """The first row of maps of which one has a value that is none."""
    before = 0
    for chunk in array.chunks:
        offsets = chunk.offsets.to_numpy()
        items = chunk.items.slice(offsets[0], offsets[-1] - offsets[0])
        if items.null_count:
            place = _first(pc.is_null(items)) or 0
            return before + int(np.searchsorted(offsets, offsets[0] + place, "right")) - 1
        before += len(chunk)
    return None


def _first(mask: Any) -> int | None:
    found = pc.index(mask, True).as_py()
    return None if found < 0 else int(found)


def _problem(table: pa.Table, row: int, model: type[Row]) -> Problem:
    """What pydantic says of a row."""
    values = {name: array[row].as_py() for name, array in zip(table.column_names, table.columns, strict=True)}
    maps = [field.name for field in table.schema if pa.types.is_map(field.type)]
    values |= {name: dict(values[name]) for name in maps if values[name] is not None}
    try:
        model.model_validate(values)
    except ValidationError as error:
        item = error.errors()[0]
        return Problem(row, ".".join(map(str, item["loc"])), item["msg"])
    raise AssertionError(f"{model.__name__}: columns and rows disagree about {values}")


def table_of(rows: Sequence[Row], model: type[Row]) -> pa.Table:
    """The table of rows, in their order."""
    columns = {name: [getattr(row, name) for row in rows] for name in model.model_fields}
    for name, column in columns_of(model).items():
        if column.type == NUMBERS:  # equal maps may be in different orders
            columns[name] = [dict(sorted(values.items())) for values in columns[name]]
    return pa.table(columns, schema=schema_of(model))


def rows_of(table: pa.Table, model: type[Row]) -> list[Any]:
    """The rows of a table that conforms."""
    columns, names, validate = [], tuple(columns_of(model)), model.__pydantic_validator__.validate_python
    with _uncollected():
        for column in columns_of(model).values():
            values = table[column.name].to_pylist()
            columns.append([dict(value) for value in values] if column.type == NUMBERS else values)
        return [validate(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Rows are many objects without circles: looking for some again and again takes as long as making the rows."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class ColumnDigest:
    """SHA-256 of a column's values, however they come in pieces: absences, lengths and bytes each for themselves."""

    def __init__(self, column: Column):
        self.column = column
        self._parts = [hashlib.sha256() for _ in range(5)]

    def update(self, array: pa.Array) -> None:
        """Values of the column's type."""
        absent, lengths, data, other_lengths, other = self._parts
        if self.column.nullable:
            absent.update(_bytes(pc.is_null(array)))
        if self.column.type == NUMBERS:
            offsets = array.offsets.to_numpy()
            lengths.update(np.diff(offsets).data)
            begin, count = offsets[0], offsets[-1] - offsets[0]
            _update_text(other_lengths, other, array.keys.slice(begin, count))
            data.update(_bytes(array.items.slice(begin, count)))
        elif self.column.type == pa.string():
            _update_text(lengths, data, array)
        else:
            data.update(_bytes(array))

    def hex(self) -> str:
        whole = hashlib.sha256(b"".join(part.digest() for part in self._parts))
        return whole.hexdigest()[:DIGEST]


def _bytes(array: pa.Array) -> memoryview:
    """Values of a fixed width, zero where there is none."""
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    return np.ascontiguousarray(array.fill_null(0).to_numpy(zero_copy_only=False)).view(np.uint8).data


def _update_text(lengths: Any, data: Any, array: pa.Array) -> None:
    if array.null_count:
        array = array.fill_null("")
    if not len(array):
        return
    _, offsets, text = array.buffers()
    bounds = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    lengths.update(np.diff(bounds).data)
    if text is not None:
        data.update(memoryview(text)[bounds[0] : bounds[-1]])
