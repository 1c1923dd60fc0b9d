"""The table of videos: which are used, which stretches of them, and what is known of each.

A CSV file (UTF-8, a header) or a parquet table with the column ``path`` and any of ``OPTIONAL``; other columns are left
alone, unless their name is nearly one of these. A video that occurs several times gives several stretches.
"""

import codecs
import difflib
import math
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from regdpo.config import schema
from regdpo.core.digests import canonical, text_digest
from regdpo.core.errors import UserError, first_line
from regdpo.core.manifests import MOST_BYTES, MOST_ROWS
from regdpo.data.names import shown
from regdpo.data.quotes import refuse_open
from regdpo.data.sidecars import LARGEST, one_line

OPTIONAL = ("caption", "start", "end", "licence", "group")
TOLERANCE = 1e-6
"""Seconds by which times are rounded in manifests."""
LONGEST = 4096
"""Characters of a path."""


@dataclass(frozen=True)
class Stretch:
    """Seconds [start, end) of a video, by its own clock."""

    start: float
    end: float
    caption: str
    row: int  # of the table, from 1

    def __str__(self) -> str:
        return f"{self.start:g} s to " + ("the end" if self.end == math.inf else f"{self.end:g} s")


@dataclass(frozen=True)
class Listed:
    """A video of the table."""

    licence: str
    group: str
    stretches: list[Stretch]  # in order; none meets another

    @property
    def shaping(self) -> str:
        """All that shapes its clips, which captions do not."""
        return canonical([self.licence, self.group, [[it.start, str(it.end)] for it in self.stretches]])

    def at(self, seconds: float) -> Stretch | None:
        """The stretch of which that is a time."""
        for one in self.stretches:
            if one.start - TOLERANCE <= seconds < one.end:
                return one
        return None


def read(file: str | Path) -> dict[str, Listed]:
    """The videos by their paths below the root, sorted.

    Raises:
        UserError: it cannot be read, or a row does not fit; the file, the row (from 1, without the header) and the
            column are named.
    """
    table = _table(Path(file))
    columns = {name: _texts(file, table, name) for name in ("path", *OPTIONAL)}
    rows: dict[str, list[int]] = defaultdict(list)
    for number, path in enumerate(columns["path"], start=1):
        rows[_inside(file, number, path)].append(number)
    if not rows:
        raise UserError(f"{file}: lists no videos")
    return {name: _listed(file, columns, rows[name]) for name in sorted(rows)}


def listing(videos: schema.Videos) -> dict[str, Listed]:
    """The table of the configuration, read once as long as its file does not change; empty if there is none.

    Raises:
        UserError: as ``read``.
    """
    if not videos.table:
        return {}
    try:
        there = os.stat(videos.table)
    except OSError as error:
        raise UserError(f"videos.table: {videos.table}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(there.st_mode):
        raise UserError(f"videos.table: {videos.table}: is no regular file")
    return _remembered(videos.table, there.st_size, there.st_mtime_ns)


@lru_cache(maxsize=2)
def _remembered(file: str, size: int, time: int) -> dict[str, Listed]:
    return read(file)


def captions_digest(listed: dict[str, Listed], names: Iterable[str]) -> str:
    """Of the captions of some videos, and which stretches they are of."""
    told = [
        [name, [[it.start, str(it.end), it.caption] for it in listed[name].stretches]]
        for name in sorted(names)
        if name in listed
    ]
    return text_digest(canonical(told))


def runs(listed: Listed, times: np.ndarray, begin: int, end: int) -> list[tuple[int, int]]:
    """Frames [first, last) of a shot that lie in one stretch and follow each other.

    Args:
        listed: the video's stretches.
        times: seconds of each frame of the video.
        begin: the shot's first frame.
        end: one past its last.
    """
    found = []
    for one in listed.stretches:
        inside = (times[begin:end] >= one.start - TOLERANCE) & (times[begin:end] < one.end)
        edges = np.flatnonzero(np.diff(inside, prepend=False, append=False)) + begin
        found += [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return sorted(found)


def _table(file: Path) -> pa.Table:
    """The columns that mean something, as they are written."""
    if file.suffix.lower() not in (".csv", ".parquet"):
        raise UserError(f"{file}: videos.table has to be a .csv or a .parquet file")
    try:
        table = _parquet(file) if file.suffix.lower() == ".parquet" else _csv(file)
        table.validate(full=True)  # as text in UTF-8
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or shown(first_line(error))})") from None
    except pa.ArrowException as error:
        raise UserError(f"{file}: is no table ({shown(first_line(error))})") from None
    return table


def _csv(file: Path) -> pa.Table:
    with file.open("rb") as opened:
        begin = opened.read(4)
    if b"\0" in begin or begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{file}: is text in UTF-16 or no text; save it as CSV in UTF-8")
    with file.open("rb") as opened:
        quotes = any(b'"' in block for block in iter(lambda: opened.read(2**20), b""))
    if quotes:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            refuse_open(file, lines)
    large = pyarrow.csv.ReadOptions(block_size=16 * LARGEST)  # a row has to fit
    quoted = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pyarrow.csv.open_csv(file, read_options=large, parse_options=quoted) as opened:
        names = opened.schema.names  # a mark of the byte order is skipped
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=_used(file, names)
    )
    return pyarrow.csv.read_csv(file, large, quoted, convert)


def _parquet(file: Path) -> pa.Table:
    found = pq.read_schema(file)
    used, texts = _used(file, found.names), []
    for name in used:
        kind = found.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        texts += [name] if text else []
        if not (text or pa.types.is_null(kind) or (number and name != "path")):
            raise UserError(f"{file}, column {name}: holds {str(kind)[:80]} where text or numbers have to be")
    with pq.ParquetFile(file, read_dictionary=texts) as opened:  # so that one text in many rows stays one
        metadata = opened.metadata
        size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        _bounded(file, metadata.num_rows, size)
        table = opened.read(columns=used)
    for name in texts:
        longest = [pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in table[name].chunks]
        size += len(table) * max(longest, default=0)
    _bounded(file, len(table), size)
    return table


def _bounded(file: Path, rows: int, size: int) -> None:
    if rows > MOST_ROWS or size > MOST_BYTES:
        raise UserError(
            f"{file}: may unfold to {rows} rows of {size / 2**30:.1f} GiB; a table has at most {MOST_ROWS} and "
            f"{MOST_BYTES / 2**30:.0f} GiB"
        )


def _used(file: Path, names: list[str]) -> list[str]:
    """The columns that mean something."""
    known = ("path", *OPTIONAL)
    for name, count in Counter(names).items():
        if name in known and count > 1:
            raise UserError(f"{file}: has {count} columns {name}")
        near = difflib.get_close_matches(name.strip().lower(), known, 1, 0.8)
        if near and name != near[0]:
            raise UserError(f"{file}: column {name!r}: did you mean {near[0]!r}?")
    if "path" not in names:
        told = shown(", ".join(names[:20]))[:200]
        raise UserError(f"{file}: has no column `path` (there are {told}); columns are told apart by commas")
    return [name for name in known if name in names]


def _texts(file: str | Path, table: pa.Table, column: str) -> list[str]:
    """Its cells as text on one line; empty where there is nothing."""
    if column not in table.column_names:
        return [""] * len(table)
    values = table[column].to_pylist()
    return [_text(file, number, column, value) for number, value in enumerate(values, start=1)]


def _text(file: str | Path, row: int, column: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value)
    if column == "path" or not text.strip():
        return text if column == "path" else ""
    if len(text) > LARGEST or len(text.encode()) > LARGEST:
        raise UserError(f"{file}, row {row}, column {column}: has more than {LARGEST} bytes")
    try:
        return one_line(text)
    except ValueError as error:
        raise UserError(f"{file}, row {row}, column {column}: {error}") from None


def _inside(file: str | Path, row: int, path: str) -> str:
    """A path below the root as the listing of the root would name it."""
    parts = path.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or len(path) > LONGEST or "\0" in path:
        where = f"{file}, row {row}, column path"
        if not path or len(path) > LONGEST or "\0" in path:
            raise UserError(f"{where}: names no file")
        found = PurePosixPath(path)
        if found.is_absolute() or ".." in parts or not found.parts:
            raise UserError(f"{where}: {path!r} does not lie below videos.root; give the path from there")
        return found.as_posix()
    return path


def _listed(file: str | Path, columns: dict[str, list[str]], rows: list[int]) -> Listed:
    """What the rows of one video say together."""
    first, *others = rows
    told = {column: columns[column][first - 1] for column in ("licence", "group")}
    for number in others:
        for column, said in told.items():
            if (other := columns[column][number - 1]) != said:
                raise UserError(
                    f"{file}, row {number}, column {column}: {other!r}, but row {first} says {said!r} of the same video"
                )
    stretches = sorted((_stretch(file, number, columns) for number in rows), key=lambda one: one.start)
    for one, two in pairwise(stretches):
        if two.start < one.end:
            early, late = sorted([one, two], key=lambda it: it.row)
            raise UserError(
                f"{file}, row {late.row}: {late} meets {early} of row {early.row}; stretches of one video must not"
            )
    return Listed(told["licence"], told["group"], stretches)


def _stretch(file: str | Path, row: int, columns: dict[str, list[str]]) -> Stretch:
    seconds = {}
    for column, default in (("start", 0.0), ("end", math.inf)):
        said = columns[column][row - 1]
        try:
            seconds[column] = float(said) if said else default
        except ValueError:
            raise UserError(f"{file}, row {row}, column {column}: {said!r} is no number of seconds") from None
    start, end = seconds["start"], seconds["end"]
    if not (math.isfinite(start) and 0 <= start < end):
        raise UserError(f"{file}, row {row}: from {start:g} to {end:g} s is no stretch of a video")
    return Stretch(start, end, columns["caption"][row - 1], row)
