"""How the names of files are shown."""

import os
from pathlib import Path


def shown(name: str | Path) -> str:
    """A name that can be printed on one line and written as UTF-8; other characters and bytes are escaped."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
