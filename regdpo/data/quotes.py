"""Quotes in CSV files: one that is left open makes a reader take the rows after it for one text, without a word."""

import csv
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from regdpo.core.errors import UserError


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
