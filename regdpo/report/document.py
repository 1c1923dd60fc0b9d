"""``report.json``: the content that the page is drawn from, whole, under a JSON Schema.

``Contents`` and its parts are the schema. The page is drawn from nothing else but the videos' bytes, so there is no
number on it that is not in the file.
"""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from regdpo.core.errors import UserError
from regdpo.core.temporaries import atomic
from regdpo.report.contents import VERSION, Contents

_CONTENTS = TypeAdapter(Contents)


def write(contents: Contents, path: str | Path) -> None:
    """Write it, atomically. Equal contents are equal bytes."""
    with atomic(path) as temporary:
        temporary.write_bytes(_CONTENTS.dump_json(contents, indent=1) + b"\n")


def read(path: str | Path) -> Contents:
    """What ``write`` wrote.

    Raises:
        UserError: it is missing, damaged, or of another version of the schema.
    """
    try:
        return _CONTENTS.validate_json(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); `snakemake report` writes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        what = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        told = f"is not a report of version {VERSION} of the schema ({what})"
        raise UserError(f"{path}: {told}; make it anew with `snakemake report`") from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file."""
    found = _CONTENTS.json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
