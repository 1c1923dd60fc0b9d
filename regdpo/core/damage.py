"""What of the store was found missing or damaged is told to the rules that make it: the same command makes it again.

Beside each manifest that names such an artefact, ``MANIFEST.damaged`` says so, a line for each find. Its digest is a
parameter of the rule that makes the manifest (``params.damage``): a new line makes that one output stale, once. The
rule finds all else in the store and makes what is not there, or not whole, again.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from regdpo.core import manifests
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, ImportedRow, LatentRow, NegativeRow, Row, SampleRow
from regdpo.core.store import Store

SUFFIX = ".damaged"
PATH = {"path": "sha256"}
TABLES: tuple[tuple[str, str, type[Row], dict[str, str]], ...] = (
    ("clips", "clips/*.parquet", ClipRow, PATH),
    ("clips", "imports/*/*.parquet", ImportedRow, {"winner": "winner_sha256", "loser": "loser_sha256"}),
    ("negatives", "{of}negatives/*/*.parquet", NegativeRow, PATH),
    ("samples", "{of}samples/**/*.parquet", SampleRow, PATH),
    ("latents", "{of}latents/*/*.parquet", LatentRow, {**PATH, "empty": "empty_sha256"}),
)
"""Kind of an artefact, the manifests of the jobs that make it, below the results, and the columns that name it and its
SHA-256."""
FILES = {
    "models": ("{of}base/untrained.json",),
    "runs": ("{of}train/*/*/model.json", "{of}base/model.json", "vae/trained/model.json"),
    "merged": ("{of}merged/*/*/model.json",),
}
"""The same of kinds that model files name."""
BASES = ("", "base[-0-9]*/", "by/*/seed*/", "base[-0-9]*/by/*/seed*/")
"""Folders of base models: that of the first, and of others (``regdpo.core.model_names``); and of what trained models
make for the next step of a chain."""
WEIGHTS = {"path": "content", "lora": "lora_content", "transformer": "transformer_content", "vae": "vae_content"}
"""How they name them."""


def tell(results: Path, store: Store, relative: str) -> bool:
    """Say of an artefact that it is missing or damaged; of a missing one, also what else of the store is.

    Args:
        results: the folder of the workflow's results. relative: the artefact, or a file in it.

    Returns:
        Whether a rule was found that makes it.
    """
    name = artefact(relative)
    lost = not store.resolve(name).exists()
    found = False
    for manifest, names in named(results):
        mine = name in map(artefact, names)
        gone = [] if mine or not lost else [other for other in names if not store.resolve(other).exists()]
        if mine or gone:
            with suppress(OSError):
                _note(manifest, name if mine else min(gone))
                found |= mine
    return found


def artefact(relative: str) -> str:
    """The artefact that a path in the store belongs to: ``kind/ab/KEY``, with the suffix of a file."""
    return "/".join(Path(relative).parts[:3])


def named(results: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Manifests of the jobs that make artefacts, and which each names, with the SHA-256 that it gives. What cannot be
    read is told where it is used."""
    for kind, pattern, model, columns in TABLES:
        for path in _found(results, pattern):
            with suppress(UserError):
                table = manifests.read_table(path, model, [name for pair in columns.items() for name in pair])
                pairs = [
                    pair
                    for name, sha256 in columns.items()
                    for pair in zip(table[name].to_pylist(), table[sha256].to_pylist(), strict=True)
                ]
                yield path, {name: sha256 for name, sha256 in pairs if name.startswith(f"{kind}/")}
    for kind, patterns in FILES.items():
        for path in _found(results, *patterns):
            with suppress(OSError, ValueError, AttributeError):
                ref = json.loads(path.read_text())["ref"]
                pairs = [(ref.get(name, ""), ref.get(sha256, "")) for name, sha256 in WEIGHTS.items()]
                yield path, {name: sha256 for name, sha256 in pairs if str(name).startswith(f"{kind}/")}


def _found(results: Path, *patterns: str) -> list[Path]:
    """Of all base models."""
    return sorted({path for of in BASES for pattern in patterns for path in results.glob(pattern.format(of=of))})


def digest(manifest: str | Path) -> str:
    """``params.damage`` of the rule that makes a manifest; empty where nothing was ever found."""
    with suppress(OSError):
        return text_digest(_of(Path(manifest)).read_text())[:16]
    return ""


def _of(manifest: Path) -> Path:
    return manifest.with_name(manifest.name + SUFFIX)


def _note(manifest: Path, name: str) -> None:
    """Unless it was told since the manifest was made."""
    path, line = _of(manifest), f"{name}\n"
    if path.exists() and path.stat().st_mtime_ns > manifest.stat().st_mtime_ns and line in path.read_text():
        return
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)
