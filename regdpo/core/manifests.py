"""Typed parquet manifests: one pydantic row model each.

Rows are ordered by their first field, the id, so equal content is equal bytes. Reading checks every row and names
file, row and column of what does not fit: a manifest comes from strangers. A file carries checksums of its pages and
the digest of its content, since pages' checksums leave out the footer, which says what the pages mean.
"""

import itertools
import json
import shlex
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from regdpo.core.digests import shard_of, text_digest
from regdpo.core.errors import UserError, first_line
from regdpo.core.rows import R, Row
from regdpo.core.temporaries import atomic

CONTENT = b"regdpo.content"
"""Key of a file's metadata: the digest of its content."""
MOST_ROWS = 20_000_000
"""Of a manifest."""
MOST_BYTES = 4 * 2**30
"""Of a manifest in memory; a million pairs take two thirds."""
A_ROW, A_VALUE = 500, 60
"""Bytes that a row takes, and each value of it beside its text; measured for pairs."""


def write(path: str | Path, rows: list[R], model: type[R]) -> None:
    """Write rows ordered by id, atomically.

    Raises:
        UserError: an id occurs twice.
    """
    rows = sorted(rows, key=lambda row: row.key)
    for before, row in itertools.pairwise(rows):
        if before.key == row.key:
            raise UserError(f"{path}: the id {row.key} occurs twice")
    columns = {name: [getattr(row, name) for row in rows] for name in model.model_fields}
    table = pa.table(columns, schema=_schema(model)).replace_schema_metadata({CONTENT: _content(columns)})
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read(path: str | Path, model: type[R]) -> list[R]:
    """Read and check every row.

    Raises:
        UserError: the file is not a parquet table, is damaged, would take too much memory, or a row does not fit; file,
            row and column are named.
    """
    try:
        columns = _columns(path, model)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a parquet table ({first_line(error)}); {_again(path)}") from None
    rows = []
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        try:
            rows.append(model.model_validate(dict(zip(columns, values, strict=True))))
        except ValidationError as error:
            item = error.errors()[0]
            column = ".".join(map(str, item["loc"]))
            raise UserError(f"{path}, row {number}, column {column}: {item['msg']}; {_again(path)}") from None
    return rows


def _again(path: str | Path) -> str:
    return f"to make it again: rm {shlex.quote(str(path))}, then the same command"


def _columns(path: str | Path, model: type[Row]) -> dict[str, list[Any]]:
    """The values of every column, once the file has said how many there are; texts are unfolded last."""
    metadata = pq.read_metadata(path)
    schema = metadata.schema.to_arrow_schema()
    wanted = _schema(model)
    for field in schema:
        nested = pa.types.is_nested(field.type)
        if field.name not in model.model_fields or (nested and field.type != wanted.field(field.name).type):
            raise UserError(f"{path}, column {field.name}: is none of a {model.__name__}; {_again(path)}")
    size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    _bounded(path, metadata.num_rows, metadata.num_columns, size)
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts, page_checksum_verification=True) as file:
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        rows = size = 0
        for batch in file.iter_batches(batch_size=2**14):
            rows, size = rows + batch.num_rows, size + sum(map(_unfolded, batch.columns))
            _bounded(path, rows, metadata.num_columns, size)
            for name, column in zip(schema.names, batch.columns, strict=True):
                values = column.to_pylist()
                columns[name] += map(dict, values) if pa.types.is_map(column.type) else values
    told = (schema.metadata or {}).get(CONTENT)
    if told is not None and told != _content(columns):
        raise UserError(f"{path}: is damaged (its content has another digest than it was written with); {_again(path)}")
    return columns


def _bounded(path: str | Path, rows: int, columns: int, size: int) -> None:
    size += rows * (A_ROW + columns * A_VALUE)
    if rows > MOST_ROWS or size > MOST_BYTES:
        raise UserError(
            f"{path}: unfolds to {rows} rows of {size / 2**30:.1f} GiB; a manifest has at most {MOST_ROWS} and "
            f"{MOST_BYTES / 2**30:.0f} GiB"
        )


def _unfolded(column: pa.Array) -> int:
    """Bytes of an array whose texts are written out."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return int(pc.sum(lengths).as_py() or 0) + int(column.indices.nbytes)


def _content(columns: dict[str, list[Any]]) -> bytes:
    return text_digest(json.dumps(columns, ensure_ascii=False, sort_keys=True, default=str)).encode()


def in_shard(rows: list[R], index: int, count: int) -> list[R]:
    """The rows of one of ``count`` shards, by hash of the id."""
    return [row for row in rows if shard_of(row.key, count) == index]


def _schema(model: type[Row]) -> pa.Schema:
    numbers = pa.map_(pa.string(), pa.float64())
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), dict[str, float]: numbers}

    def arrow(annotation: Any) -> pa.DataType:
        for candidate in (annotation, *get_args(annotation)):
            if candidate in types:
                return types[candidate]
            if isinstance(candidate, str):  # a Literal's values
                return pa.string()
        raise AssertionError(f"no arrow type for {annotation}")

    return pa.schema([(name, arrow(field.annotation)) for name, field in model.model_fields.items()])
