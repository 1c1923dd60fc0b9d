"""The table of videos: which are used, which stretches of them, and what is known of each.

A CSV file (UTF-8, a header) or a parquet table with the column ``path`` and any of ``OPTIONAL``; other columns are left
alone, unless their name is nearly one of these. A video that occurs several times gives several stretches.
"""

import difflib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from regdpo.config import schema
from regdpo.core.digests import canonical, text_digest
from regdpo.core.errors import UserError, first_line
from regdpo.data.sidecars import LARGEST, text_of

OPTIONAL = ("caption", "start", "end", "licence", "group")
TOLERANCE = 1e-6
"""Seconds by which times are rounded in manifests."""


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
    rows: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, values in enumerate(table.to_pylist(), start=1):
        told = {name: _text(file, number, name, values.get(name)) for name in ("path", *OPTIONAL)}
        rows.setdefault(_inside(file, number, told["path"]), []).append((number, told))
    if not rows:
        raise UserError(f"{file}: lists no videos")
    return {name: _listed(file, rows[name]) for name in sorted(rows)}


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
    try:
        if file.suffix.lower() == ".parquet":
            table = pq.read_table(file)
        elif file.suffix.lower() == ".csv":
            names = pyarrow.csv.open_csv(file).schema.names  # a mark of the byte order is skipped
            plain = pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            )
            quoted = pyarrow.csv.ParseOptions(newlines_in_values=True)
            table = pyarrow.csv.read_csv(file, parse_options=quoted, convert_options=plain)
        else:
            raise UserError(f"{file}: videos.table has to be a .csv or a .parquet file")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or first_line(error)})") from None
    except pa.ArrowException as error:
        raise UserError(f"{file}: is no table ({first_line(error)})") from None
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise UserError(f"{file}: has two columns {name}")
        near = difflib.get_close_matches(name.strip().lower(), ("path", *OPTIONAL), 1, 0.8)
        if near and name != near[0]:
            raise UserError(f"{file}: column {name!r}: did you mean {near[0]!r}?")
    if "path" not in table.column_names:
        raise UserError(f"{file}: has no column `path` (there are {', '.join(table.column_names)})")
    return table.select([name for name in ("path", *OPTIONAL) if name in table.column_names])


def _text(file: str | Path, row: int, column: str, value: Any) -> str:
    """A cell as text on one line; empty where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value)
    if column == "path":
        return text
    if not text.strip():
        return ""
    if len(text.encode(errors="surrogatepass")) > LARGEST:
        raise UserError(f"{file}, row {row}, column {column}: has more than {LARGEST} bytes")
    try:
        return text_of(text.encode(errors="surrogatepass"))
    except ValueError as error:
        raise UserError(f"{file}, row {row}, column {column}: {error}") from None


def _inside(file: str | Path, row: int, path: str) -> str:
    """A path below the root as the listing of the root would name it."""
    where = f"{file}, row {row}, column path"
    if not path or "\0" in path:
        raise UserError(f"{where}: names no file")
    found = PurePosixPath(path)
    if found.is_absolute() or ".." in found.parts or not found.parts:
        raise UserError(f"{where}: {path!r} does not lie below videos.root; give the path from there")
    return found.as_posix()


def _listed(file: str | Path, rows: list[tuple[int, dict[str, str]]]) -> Listed:
    """What the rows of one video say together."""
    first, told = rows[0]
    for number, other in rows[1:]:
        for column in ("licence", "group"):
            if other[column] != told[column]:
                raise UserError(
                    f"{file}, row {number}, column {column}: {other[column]!r}, but row {first} says {told[column]!r} "
                    "of the same video"
                )
    stretches = sorted((_stretch(file, number, values) for number, values in rows), key=lambda one: one.start)
    for one, two in pairwise(stretches):
        if two.start < one.end:
            early, late = sorted([one, two], key=lambda it: it.row)
            raise UserError(
                f"{file}, row {late.row}: {late} meets {early} of row {early.row}; stretches of one video must not"
            )
    return Listed(told["licence"], told["group"], stretches)


def _stretch(file: str | Path, row: int, values: dict[str, str]) -> Stretch:
    seconds = {}
    for column, default in (("start", 0.0), ("end", math.inf)):
        try:
            seconds[column] = float(values[column]) if values[column] else default
        except ValueError:
            raise UserError(f"{file}, row {row}, column {column}: {values[column]!r} is no number of seconds") from None
    start, end = seconds["start"], seconds["end"]
    if not (math.isfinite(start) and 0 <= start < end):
        raise UserError(f"{file}, row {row}: from {start:g} to {end:g} s is no stretch of a video")
    return Stretch(start, end, values["caption"], row)
