"""Lists of prompts: a text file with one a line, or a table with a column ``prompt``, which is VidProM's layout (arXiv
2403.06098: uuid, prompt, time, and scores that are not read)."""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError, first_line
from regdpo.data.quotes import no_limit, refuse_open
from regdpo.data.sidecars import text_of

LARGEST = 2**30
"""Bytes of a list."""
COLUMN = "prompt"
SHORT = 16
"""Hex digits of a prompt's id."""


def read(path: str | Path) -> dict[str, str]:
    """Id -> prompt, in the order of the ids. A prompt that occurs twice counts once; empty ones do not.

    Raises:
        UserError: the list cannot be read, has no such column, or holds no prompt; file and row are named.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: has more than {LARGEST} bytes")
        found = _parquet(path) if path.suffix.lower() == ".parquet" else _text(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8") from None
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
        if COLUMN not in pq.read_schema(path).names:
            raise UserError(f"{path}: has no column {COLUMN}")
        return pq.read_table(path, columns=[COLUMN])[COLUMN].cast(pa.string()).to_pylist()
    except (ValueError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as a parquet table ({first_line(error)})") from None


def _text(path: Path) -> list[str | None]:
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix.lower() != ".csv":
        return list(text.splitlines())
    refuse_open(path, io.StringIO(text, newline=""))
    with no_limit():
        lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if COLUMN not in (lines.fieldnames or []):
            raise UserError(f"{path}: has no column {COLUMN}")
        return [line[COLUMN] for line in lines]
