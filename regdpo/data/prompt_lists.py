"""Lists of prompts: a text file with one a line, or a table with a column ``prompt``, which is VidProM's layout (arXiv
2403.06098: uuid, prompt, time, and scores that are not read)."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError, first_line
from regdpo.data.quotes import refuse_names, rows, text_of_lists
from regdpo.data.sidecars import text_of

LARGEST = 2**30
"""Bytes of a list."""
COLUMN = "prompt"
OTHERS = (".tsv", ".json", ".jsonl", ".yaml", ".yml")
"""Suffixes of files whose lines are no prompts."""
SHORT = 16
"""Hex digits of a prompt's id."""


def read(path: str | Path) -> dict[str, str]:
    """Id -> prompt, in the order of the ids. A prompt that occurs twice counts once; empty ones do not.

    Raises:
        UserError: the list cannot be read, has no such column or two, a row has another number of columns, or there is
            no prompt; file and row are named.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: has more than {LARGEST} bytes")
        found: Sequence[str | None] = _parquet(path) if path.suffix.lower() == ".parquet" else _text(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or first_line(error)})") from None
    prompts: dict[str, str] = {}
    for row, said in enumerate(found, start=1):
        if said and said.strip():
            try:
                prompt = text_of(said.encode())
            except (ValueError, UnicodeError) as error:
                raise UserError(f"{path}, row {row}: {error}") from None
            prompts[text_digest("prompt", prompt)[:SHORT]] = prompt
    if not prompts:
        raise UserError(f"{path}: holds no prompt")
    return dict(sorted(prompts.items()))


def _parquet(path: Path) -> list[str | None]:
    try:
        refuse_names(path, pq.read_schema(path).names, (COLUMN,))
        return pq.read_table(path, columns=[COLUMN])[COLUMN].cast(pa.string()).to_pylist()
    except (ValueError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as a parquet table ({first_line(error)})") from None


def _text(path: Path) -> list[str]:
    if path.suffix.lower() in OTHERS:
        raise UserError(f"{path}: is no list of prompts; give a text file with one a line, or a .csv or .parquet table")
    text = text_of_lists(path)
    if path.suffix.lower() == ".csv":
        return [row[COLUMN] for row in rows(path, text, (COLUMN,))]
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
