"""The files that VBench's dimensions need: which are there, what the others are, and how they are fetched on purpose.

No job fetches one. VBench itself would, from within a job, by ``wget`` and ``git clone``.
"""

import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path

from regdpo.core.digests import DigestCache, file_digest, text_digest
from regdpo.core.errors import UserError, first_line
from regdpo.core.progress import track
from regdpo.core.temporaries import atomic, temporary_of
from regdpo.evaluate.suites import WEIGHTS, Weight, needs

COMMAND = "python scripts/vbench_weights.py --fetch"
RANDOM = "RANDOM"
"""File among the weights that says that they are none: what is computed with them is no score."""
PIECE = 2**22
"""Bytes that are read at once."""


def there(name: str, folder: Path) -> bool:
    """Whether a file, or a folder with something in it, is below the weights."""
    path = folder / WEIGHTS[name].path
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def sites(python: str) -> list[Path]:
    """Folders of an interpreter's packages; looked for, with nothing run: its own, and those that a .pth file there
    names."""
    found = shutil.which(python)
    if found is None:
        return []
    own = sorted(Path(os.path.abspath(found)).parent.parent.glob("lib/python3.*/site-packages"))
    named = (line.strip() for site in own for path in site.glob("*.pth") for line in path.read_text().splitlines())
    return own + [Path(line) for line in named if line.startswith("/") and Path(line).is_dir()]


def modules_missing(dimension: str, python: str, static: bool = False) -> list[str]:
    """Python modules that a dimension imports and that are not in the environment of an interpreter."""
    folders = sites(python)
    return [
        name
        for name in needs(dimension, static).modules
        if not any((site / name).is_dir() or (site / f"{name}.py").is_file() for site in folders)
    ]


def lacking(dimension: str, python: str, folder: Path, static: bool = False) -> str:
    """Why a dimension cannot run: what is not there of its weights and packages; empty if it can."""
    files = [WEIGHTS[name].what for name in needs(dimension, static).weights if not there(name, folder)]
    modules = modules_missing(dimension, python, static)
    parts = [f"{_and(files)} to be fetched"] * bool(files) + [f"the package {_and(modules)}"] * bool(modules)
    return f"needs {', and '.join(parts)}" if parts else ""


def available(dimensions: Iterable[str], python: str, folder: Path, static: Iterable[str] = ()) -> list[str]:
    """Those that can run."""
    return [name for name in dimensions if not lacking(name, python, folder, name in static)]


def digest(dimension: str, folder: Path, cache: DigestCache, static: bool = False) -> str:
    """Of the weights of a dimension: bytes of files, sources of code."""
    parts = []
    for name in needs(dimension, static).weights:
        path = folder / WEIGHTS[name].path
        files = [path] if path.is_file() else sorted(it for it in path.rglob("*") if _counts(it, WEIGHTS[name].kind))
        parts += [text_digest(str(file.relative_to(folder)), cache.digest(file)) for file in files]
    return text_digest(*parts)


def _counts(path: Path, kind: str) -> bool:
    return path.is_file() and (kind != "git" or path.suffix == ".py")


def table(dimensions: Iterable[str], python: str, folder: Path, static: Iterable[str] = ()) -> str:
    """Files and packages that the dimensions need, one a line: where it belongs, whether it is there, size, SHA-256 as
    published (both blank where they are not known), and what it is for."""
    dimensions, static = list(dimensions), set(static)
    users: dict[str, list[str]] = {}
    modules: dict[str, list[str]] = {}
    for dimension in dimensions:
        for name in needs(dimension, dimension in static).weights:
            users.setdefault(name, []).append(dimension)
        for name in modules_missing(dimension, python, dimension in static):
            modules.setdefault(name, []).append(dimension)
    rows = [("file", "", "size", "sha256", "for")]
    for name, those in users.items():
        weight, path = WEIGHTS[name], folder / WEIGHTS[name].path
        size = f"{path.stat().st_size / 1e6:,.0f} MB" if path.is_file() else ""
        state = "there" if there(name, folder) else "missing"
        rows.append((weight.path, state, size, weight.sha256[:12], ", ".join(those)))
    rows += [(f"package {name}", "missing", "", "", ", ".join(those)) for name, those in modules.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    )


def told(dimensions: Iterable[str], python: str, folder: Path, static: Iterable[str] = ()) -> str:
    """The table and what to do about it, where something is missing; else empty."""
    dimensions = list(dimensions)
    ready = available(dimensions, python, folder, static)
    if len(ready) == len(dimensions):
        return ""
    return (
        f"VBench: {len(ready)} of {len(dimensions)} dimensions can run; the others will be missing. They need, below "
        f"{folder}:\n{table(dimensions, python, folder, static)}\n`{COMMAND}` fetches the files; packages: "
        "docs/how-to/vbench.md"
    )


def fetch(names: Iterable[str], folder: Path) -> list[str]:
    """Fetch what is not there. Returns what was fetched.

    Raises:
        UserError: an address cannot be reached, or other bytes come from it than were published.
    """
    fetched = []
    for name in names:
        if not there(name, folder):
            print(f"{WEIGHTS[name].what}: {WEIGHTS[name].url}", file=sys.stderr)
            try:
                _fetch(WEIGHTS[name], folder)
            except (OSError, subprocess.CalledProcessError, zipfile.BadZipFile) as error:
                raise UserError(
                    f"{WEIGHTS[name].url}: cannot be fetched ({first_line(error)}); put what is there as "
                    f"{folder / WEIGHTS[name].path} by hand"
                ) from None
            fetched.append(name)
    return fetched


def _fetch(weight: Weight, folder: Path) -> None:
    place = folder / weight.path
    if weight.kind == "file":
        with atomic(place) as temporary:
            _download(weight.url, temporary)
            if weight.sha256 and (found := file_digest(temporary)) != weight.sha256:
                raise UserError(
                    f"{weight.url}: gave other bytes (sha256 {found}) than were published ({weight.sha256})"
                )
    elif weight.kind == "zip":
        archive = temporary_of(folder / weight.below / "archive.zip")
        archive.parent.mkdir(parents=True, exist_ok=True)
        try:
            _download(weight.url, archive)
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(folder / weight.below)  # zipfile keeps names inside
        finally:
            archive.unlink(missing_ok=True)
    elif weight.kind == "git":
        with atomic(place) as temporary:
            subprocess.run(["git", "clone", "--depth", "1", weight.url, str(temporary)], check=True)
    else:
        from huggingface_hub import snapshot_download  # here, since it takes long to load

        snapshot_download(weight.url.removeprefix("https://huggingface.co/"), cache_dir=place.parent)


def _download(url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as file:  # noqa: S310 - declared addresses
        length = int(answer.headers.get("Content-Length") or 0)
        pieces = iter(lambda: answer.read(PIECE), b"")
        for piece in track(pieces, path.name, -(-length // PIECE) or None):
            file.write(piece)


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 2 else words)
