"""Typed parquet manifests: one pydantic row model each.

Rows are ordered by their first field, the id, so equal content is equal bytes. Reading checks every value, by columns
(regdpo/core/columns.py), and names file, row and column of what does not fit: a manifest comes from strangers. A file
carries checksums of its pages and digests of its columns, since pages' checksums leave out the footer, which says what
the pages mean.

Rows lie in groups of ``GROUP``. A shard is a stretch of the rows that are to be shared out, so that any number of
shards reads a part of the file that hangs together, and nothing else of it. Whole manifests are handled as tables; rows
are objects where a stage has those of one shard.
"""

import json
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import feather

from regdpo.core.columns import ColumnDigest, Problem, columns_of, conform, rows_of, schema_of, table_of
from regdpo.core.errors import UserError, first_line
from regdpo.core.rows import R, Row
from regdpo.core.temporaries import atomic, scratch

CONTENT = b"regdpo.columns"
"""Key of a file's metadata: the digests of its columns, one a group of rows."""
GROUP = 2**13
"""Rows of a group."""
MOST_ROWS = 20_000_000
"""Of a manifest."""
MOST_BYTES = 4 * 2**30
"""Of a manifest in memory."""
A_ROW, A_VALUE = 500, 60
"""Bytes that a row takes as an object, and each value of it beside its text; measured for pairs."""
STRETCH = 8 * GROUP
"""Rows that are held while parts are merged."""


def write(path: str | Path, rows: list[R], model: type[R]) -> None:
    """Write rows ordered by id, atomically.

    Raises:
        UserError: an id occurs twice.
    """
    with _writing(path, model) as writer:
        writer.add(table_of(sorted(rows, key=lambda row: row.key), model))


def write_table(path: str | Path, table: pa.Table, model: type[Row]) -> None:
    """The same of a table, whose values are checked.

    Raises:
        UserError: a row does not fit, or an id occurs twice.
    """
    checked = conform(table, model)
    if isinstance(checked, Problem):
        raise UserError(f"{path}, row {checked.row}, column {checked.column}: {checked.what}")
    ids = checked.column(0)
    if not _ascends(ids):
        checked = checked.take(pc.sort_indices(ids))
    with _writing(path, model) as writer:
        writer.add(checked)


def merge(
    path: str | Path,
    parts: Sequence[str | Path],
    model: type[Row],
    change: Callable[[pa.Table], pa.Table] = lambda table: table,
) -> None:
    """Write the rows of several manifests into one. Of all parts the ids are held, of the rows those of one part or of
    one stretch of ``STRETCH``: each part's rows are first written to a file for each stretch, beside the manifest.

    Args:
        change: what becomes of some rows' values, their ids apart.

    Raises:
        UserError: as ``read_table`` and ``write``.
    """
    name = next(iter(model.model_fields))
    ids = pa.concat_tables([read_table(part, model, [name]) for part in parts] or [schema_of(model).empty_table()])[
        name
    ]
    first = ids.take(pc.sort_indices(ids)[::STRETCH]).to_pylist()  # of each stretch
    del ids
    with scratch(Path(path).parent) as folder:
        for counted, part in enumerate(parts):
            table = change(read_table(part, model))
            of = np.searchsorted(np.array(first, object), np.array(table[name].to_pylist(), object), "right") - 1
            for number in np.unique(of):
                piece = table.filter(pa.array(of == number))
                feather.write_feather(piece, str(folder / f"{number}-{counted:05}"), compression="lz4")
        with _writing(path, model) as writer:
            for number in range(len(first)):
                pieces = [feather.read_table(str(piece)) for piece in sorted(folder.glob(f"{number}-*"))]
                together = pa.concat_tables(pieces).cast(schema_of(model))
                writer.add(together.take(pc.sort_indices(together[name])))


def read(path: str | Path, model: type[R], ids: Collection[str] | None = None) -> list[R]:
    """Read and check every row, or those of some ids.

    Raises:
        UserError: the file is not a parquet table, is damaged, would take too much memory, an id occurs twice, or a row
            does not fit; file, row and column are named.
    """
    file = _File(path, model)
    if ids is None:
        file.bounded(file.count, file.count * (A_ROW + file.metadata.num_columns * A_VALUE))
        return file.rows(file.table())
    groups = file.groups_with(min(ids), max(ids)) if ids else []
    table = file.table(groups=groups)
    return file.rows(table.filter(pc.is_in(table.column(0), value_set=pa.array(sorted(ids), pa.string()))))


def read_table(path: str | Path, model: type[Row], columns: Iterable[str] | None = None) -> pa.Table:
    """The same as a table, or some columns of it. It has the model's types.

    Raises:
        UserError: as ``read``.
    """
    return _File(path, model).table(tuple(columns) if columns is not None else None)


def read_shard(path: str | Path, model: type[R], index: int, count: int, **where: str) -> list[R]:
    """The rows of one of ``count`` shards; of the file little more is read.

    Args:
        where: values of columns that rows must have to be shared out, such as ``status="accepted"``.

    Raises:
        UserError: as ``read``, for what is read.
    """
    file = _File(path, model)
    places = np.arange(file.count)
    if where:
        table = file.table(tuple(where))
        fits = [np.asarray(pc.fill_null(pc.equal(table[name], value), False)) for name, value in where.items()]
        places = np.flatnonzero(np.logical_and.reduce(fits))
    places = places[stretch(len(places), index, count)]
    groups, numbers = file.groups_at(places)
    return file.rows(file.table(groups=groups).take(pa.array(numbers)))


def read_where(path: str | Path, model: type[R], **where: Callable[[Any], bool]) -> list[R]:
    """The rows whose columns have values that are wanted, such as ``source=lambda name: name in mine``. All of the file
    is read, and little of it held; each value is asked about once a group of rows.

    Raises:
        UserError: as ``read``.
    """
    file, parts = _File(path, model), []
    for batch in file.batches():
        for name, wanted in where.items():
            values = batch[name].unique()
            mine = [value for value in values.to_pylist() if wanted(value)]
            batch = batch.filter(pc.is_in(batch[name], value_set=pa.array(mine, values.type)))
        parts.append(batch)
    return file.rows(pa.concat_tables(parts)) if parts else []


def check_whole(path: str | Path) -> None:
    """See whether a parquet table of any kind is as it was written, by its footer and the checksums of its pages. All
    of it is read, and little held.

    Raises:
        UserError: it is not; with the command that makes it again.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for _ in file.iter_batches(GROUP):
                pass
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: is damaged ({first_line(error)}): rm {shlex.quote(str(path))}, and Snakemake makes it again"
        ) from None


def in_shard(rows: list[R], index: int, count: int) -> list[R]:
    """Those of one of ``count`` shards of rows that are in the order of their ids."""
    return rows[stretch(len(rows), index, count)]


def stretch(length: int, index: int, count: int) -> slice:
    """The part of a sequence that a shard has: none differs from another by more than one."""
    return slice(length * index // count, length * (index + 1) // count)


def _again(path: str | Path) -> str:
    return f"to make it again: rm {shlex.quote(str(path))}, then the same command"


class _File:
    """A manifest that is there.

    Raises:
        UserError: it is no parquet table, is none of the model, or would take too much memory.
    """

    def __init__(self, path: str | Path, model: type[Row]):
        self.path, self.model = path, model
        with self._told():
            self.metadata = pq.read_metadata(path)
            self.schema = self.metadata.schema.to_arrow_schema()
            self.told = json.loads((self.metadata.metadata or {}).get(CONTENT, b"null"))
        wanted = schema_of(model)
        for field in self.schema:
            nested = pa.types.is_nested(field.type)
            if field.name not in model.model_fields or (nested and field.type != wanted.field(field.name).type):
                raise UserError(f"{path}, column {field.name}: is none of a {model.__name__}; {_again(path)}")
        self.count = self.metadata.num_rows
        self.groups = [self.metadata.row_group(index) for index in range(self.metadata.num_row_groups)]
        lengths = np.array([group.num_rows for group in self.groups], np.int64)
        self.starts = np.cumsum(lengths) - lengths
        if self.told is not None and (len(lengths) != len(self.told) or lengths.sum() != self.count):
            raise self._damaged()
        self.bounded(self.count, sum(group.total_byte_size for group in self.groups))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(
                f"{self.path}: cannot be read as a parquet table ({first_line(error)}); {_again(self.path)}"
            ) from None

    def _damaged(self) -> UserError:
        return UserError(
            f"{self.path}: is damaged (its content has another digest than it was written with); {_again(self.path)}"
        )

    def bounded(self, rows: int, size: int) -> None:
        if rows > MOST_ROWS or size > MOST_BYTES:
            raise UserError(
                f"{self.path}: unfolds to {rows} rows of {size / 2**30:.1f} GiB; a manifest has at most {MOST_ROWS} "
                f"and {MOST_BYTES / 2**30:.0f} GiB"
            )

    def batches(self, names: tuple[str, ...] | None = None, groups: list[int] | None = None) -> Iterator[pa.Table]:
        """Checked rows, at most ``GROUP`` at a time. A group that is damaged is told once all of it was seen."""
        wanted = columns_of(self.model)
        have = [name for name in self.schema.names if names is None or name in names]
        texts = [field.name for field in self.schema if pa.types.is_string(field.type)]
        rows = held = 0
        options = {"read_dictionary": texts, "page_checksum_verification": True}
        with self._told(), pq.ParquetFile(self.path, metadata=self.metadata, **options) as file:
            for group in range(len(self.groups)) if groups is None else groups:
                digests = {name: ColumnDigest(wanted[name]) for name in wanted if names is None or name in names}
                number = int(self.starts[group])
                for batch in file.iter_batches(batch_size=GROUP, row_groups=[group], columns=have):
                    rows += batch.num_rows
                    if held + sum(map(_at_most, batch.columns)) > MOST_BYTES:
                        self.bounded(rows, held + sum(map(_unfolded, batch.columns)))
                    table = conform(pa.Table.from_batches([batch]), self.model, names)
                    if isinstance(table, Problem):
                        raise UserError(
                            f"{self.path}, row {number + table.row}, column {table.column}: {table.what}; "
                            f"{_again(self.path)}"
                        )
                    number, held = number + batch.num_rows, held + table.nbytes
                    for name, digest in digests.items():
                        for chunk in table[name].chunks:
                            digest.update(chunk)
                    yield table
                if self.told is not None:
                    told = self.told[group]
                    if any(name in told and told[name] != digest.hex() for name, digest in digests.items()):
                        raise self._damaged()

    def table(self, names: tuple[str, ...] | None = None, groups: list[int] | None = None) -> pa.Table:
        """All columns or some, of all groups or some; ids are unique among them."""
        schema = schema_of(self.model)
        if names is not None:
            schema = pa.schema([field for field in schema if field.name in names])
        found = list(self.batches(names, groups))
        table = pa.concat_tables(found) if found else schema.empty_table()
        name = next(iter(self.model.model_fields))
        if name in table.column_names and not _ascends(table[name]):
            self._unique(table[name])
        return table

    def _unique(self, ids: pa.ChunkedArray) -> None:
        order = pc.sort_indices(ids)
        ordered = ids.take(order).combine_chunks()
        same = pc.index(pc.equal(ordered[1:], ordered[:-1]), True).as_py()
        if same >= 0:
            row = max(order[same].as_py(), order[same + 1].as_py())
            name = next(iter(self.model.model_fields))
            raise UserError(
                f"{self.path}, row {row}, column {name}: the id {ordered[same]} occurs twice; {_again(self.path)}"
            )

    def rows(self, table: pa.Table) -> list[Any]:
        """As objects."""
        many = len(table) * (A_ROW + table.num_columns * A_VALUE)
        self.bounded(len(table), many + table.nbytes)
        return rows_of(table, self.model)

    def groups_at(self, places: np.ndarray) -> tuple[list[int], np.ndarray]:
        """The groups that rows are in, by their numbers in the file, and their numbers in those groups together."""
        of = np.searchsorted(self.starts, places, "right") - 1
        groups = np.unique(of)
        lengths = np.array([self.groups[group].num_rows for group in groups], np.int64)
        before = np.cumsum(lengths) - lengths
        return groups.tolist(), places - self.starts[of] + before[np.searchsorted(groups, of)]

    def groups_with(self, first: str, last: str) -> list[int]:
        """The groups that may hold ids between two."""
        found = []
        for number, group in enumerate(self.groups):
            known = group.column(0).statistics if self.told is not None and group.num_columns else None
            if known is None or not known.has_min_max or (known.min <= last and first <= known.max):
                found.append(number)
        return found


class _Writer:
    """Writes conforming tables whose ids ascend, in groups."""

    def __init__(self, path: str | Path, file: pq.ParquetWriter, model: type[Row]):
        self.path, self.model, self._file = path, model, file
        self._digests: list[dict[str, str]] = []
        self._last: str | None = None

    def add(self, table: pa.Table) -> None:
        """All of a group, but for the last table; or all of a manifest."""
        for begin in range(0, len(table), GROUP):
            group = table[begin : begin + GROUP].combine_chunks()
            ids = group.column(0)
            same = pc.index(pc.equal(ids[1:], ids[:-1]), True).as_py()
            if same >= 0 or ids[0].as_py() == self._last:
                raise UserError(f"{self.path}: the id {ids[max(same, 0)]} occurs twice")
            self._last = ids[-1].as_py()
            digests = {}
            for name, column in columns_of(self.model).items():
                digest = ColumnDigest(column)
                for chunk in group[name].chunks:
                    digest.update(chunk)
                digests[name] = digest.hex()
            self._digests.append(digests)
            self._file.write_table(group, row_group_size=GROUP)

    def close(self) -> None:
        self._file.add_key_value_metadata({CONTENT: json.dumps(self._digests).encode()})


@contextmanager
def _writing(path: str | Path, model: type[Row]) -> Iterator[_Writer]:
    options: Mapping[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema_of(model), **options) as file:
        writer = _Writer(path, file, model)
        yield writer
        writer.close()


def _at_most(column: pa.Array) -> int:
    """The same or more, found sooner."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    return len(column) * int(pc.max(pc.binary_length(column.dictionary)).as_py() or 0)


def _unfolded(column: pa.Array) -> int:
    """Bytes of an array whose texts are written out."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return int(pc.sum(lengths).as_py() or 0) + int(column.indices.nbytes)


def _ascends(ids: pa.ChunkedArray) -> bool:
    """Whether each is larger than the one before."""
    if len(ids) < 2:
        return True
    return bool(pc.all(pc.greater(ids[1:], ids[:-1])).as_py())
