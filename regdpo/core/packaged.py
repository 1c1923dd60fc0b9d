"""Files inside installed packages, named as ``package:NAME/PATH``. A package is located, never imported."""

from importlib.util import find_spec
from pathlib import Path

from regdpo.core.errors import UserError

PREFIX = "package:"


def package_of(text: str) -> str:
    """The package that a path names; empty if it is an ordinary path."""
    return text.removeprefix(PREFIX).partition("/")[0] if text.startswith(PREFIX) else ""


def place(text: str) -> Path | None:
    """Where that is; None if no such package is installed here."""
    if not text.startswith(PREFIX):
        return Path(text)
    name, _, rest = text.removeprefix(PREFIX).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / rest


def weights_file(key: str, text: str) -> Path:
    """A file of weights that a key of the configuration names.

    Raises:
        UserError: there is none.
    """
    path = place(text)
    if path is None:
        raise UserError(
            f"{key}: {text}: no package {package_of(text)} is installed here; run `make filters`, or name a file"
        )
    if not path.is_file():
        raise UserError(f"{key}: there is no file {path}; download the weights and name them here")
    return path
