"""CSV files read as they are meant: a quote that is left open makes a reader take the rows after it for one text, and a
comma without quotes cuts a text in two, without a word."""

import csv
import difflib
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from regdpo.core.errors import UserError
from regdpo.data.names import shown


@contextmanager
def no_limit() -> Iterator[None]:
    """Within it a field of a CSV file may have any length: Python's csv refuses more than 131072 characters."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def refuse_open(file: str | Path, lines: Iterable[str]) -> None:
    """Read a CSV file strictly, for its quotes alone.

    Args:
        lines: of the file, with their ends.

    Raises:
        UserError: a quote is not closed, or text follows behind one; with the row (from 1, without the line of names
            and empty ones) and the line in which that row begins.
    """
    row, line = -1, 0
    try:
        with no_limit():
            rows = csv.reader(lines, strict=True)
            for cells in rows:
                row, line = row + bool(cells), rows.line_num
    except csv.Error:
        where = f"row {row + 1}, which begins in line {line + 1}" if row >= 0 else "line 1"
        raise UserError(
            f"{file}, {where}: a quote is not closed, or text follows behind its end; a quote that belongs to a "
            'text is written twice, and the whole text between quotes ("a ""big"" dog")'
        ) from None


def rows(file: str | Path, text: str, needed: Sequence[str] = (), once: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its first line; empty lines are none.

    Args:
        text: of the file. needed: columns that have to be there, and are the only ones that are read; none: all are.
        once: columns that may not be there twice.

    Raises:
        UserError: a quote is open; a column is lacking or there twice; a row has more or fewer cells than the first
            line. File, row (from 1, without the line of names and empty ones) and line are named.
    """
    refuse_open(file, io.StringIO(text, newline=""))
    found: list[dict[str, str]] = []
    with no_limit():
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        names = next(lines, [])
        refuse_names(file, names, needed, once)
        for cells in filter(None, lines):
            if len(cells) != len(names):
                other = "more" if len(cells) > len(names) else "fewer"
                raise UserError(
                    f"{file}, row {len(found) + 1}, which ends in line {lines.line_num}: has {other} columns than the "
                    f"first line ({len(cells)} and not {len(names)}); put a text that holds commas between quotes"
                )
            found.append({name: cell for name, cell in zip(names, cells, strict=True) if name in (needed or names)})
    return found


def refuse_names(file: str | Path, names: Sequence[str], needed: Sequence[str], once: Sequence[str] = ()) -> None:
    """Refuse the columns of a table among which one that is needed is lacking, or one is there twice.

    Raises:
        UserError: naming the column.
    """
    if lacking := [name for name in needed if name not in names]:
        near = [name for name in names if difflib.get_close_matches(name.strip().lower(), lacking, 1, 0.8)]
        apart = "; columns are told apart by commas" if len(names) == 1 and {*";\t|"} & {*names[0]} else ""
        meant = f"; is {shown(near[0])[:80]!r} meant?" if near else apart
        there = f"its columns are {shown(', '.join(names))[:200]}" if any(names) else "its first line names none"
        raise UserError(f"{file}: has no column {' and '.join(lacking)}; {there}{meant}")
    if twice := [name for name in (*needed, *once) if names.count(name) > 1]:
        raise UserError(f"{file}: has {names.count(twice[0])} columns {twice[0]}; keep one, and rename the others")


def text_of_lists(file: str | Path) -> str:
    """The text of a list, without the mark of the byte order.

    Raises:
        UserError: it is not in UTF-8; with the line.
    """
    data = Path(file).read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: is not text in UTF-8; save the file as UTF-8") from None
