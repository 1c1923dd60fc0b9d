"""What is in a store: what manifests name, what is kept to go on from or to spare work, and what is dead."""

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from regdpo.core.damage import artefact
from regdpo.core.errors import UserError, first_line
from regdpo.core.store import ASIDE, RULES, Store
from regdpo.runtime.lease import living

State = Literal["named", "held", "remembered", "resumable", "unfinished", "dead"]
STATES: dict[State, str] = {
    "named": "a manifest names it",
    "held": "a living training is there",
    "remembered": "found out about footage, or asked of a captioner; spares work when it is asked again",
    "resumable": "a training that has not come to its end; the same command goes on with it",
    "unfinished": "made since the last manifest of its kind, as by a shard that was interrupted",
    "dead": "no manifest names it: of settings, code or videos that are no more",
}
REMEMBERED = ("shots", "cuts", "measures", "judged", "captions")
KINDS = (*RULES, *REMEMBERED, ASIDE)
"""Folders of a store that are cleaned; any other is left alone."""
KEPT = ".sha256"


@dataclass(frozen=True)
class Item:
    """An artefact, with the digest that is kept beside it."""

    relative: str
    kind: str
    state: State
    size: int  # bytes
    changed: float  # seconds since the epoch

    def paths(self, store: Store) -> list[Path]:
        path = store.root / self.relative
        return [path, path.with_name(path.name + KEPT)]


def take(store: Store, results: Iterable[Path]) -> list[Item]:
    """Everything in the store.

    Args:
        results: folders whose manifests count.

    Raises:
        UserError: one of them cannot be read, or is none.
    """
    names, newest = set[str](), dict[str, float]()
    for folder in results:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder of results")
        for path, found in _named(folder):
            names |= {artefact(name) for name in found}
            for kind in {name.partition("/")[0] for name in found}:
                newest[kind] = max(newest.get(kind, 0.0), path.stat().st_mtime)
    return [_item(store, relative, names, newest) for relative in _there(store)]


def _there(store: Store) -> Iterator[str]:
    """Artefacts by their names; what is being written has none yet."""
    for kind in KINDS:
        base = store.root / kind
        depth = 3 if kind == ASIDE else 1
        for folder in sorted(base.glob("/".join("*" * depth))):
            paths = [folder] if kind == ASIDE else sorted(folder.iterdir()) if folder.is_dir() else []
            there = {path.name for path in paths}
            for path in paths:
                companion = path.name.endswith(KEPT) and path.name.removesuffix(KEPT) in there
                if not path.name.startswith(".") and not companion:
                    yield path.relative_to(store.root).as_posix()


def _item(store: Store, relative: str, names: set[str], newest: dict[str, float]) -> Item:
    path, kind = store.root / relative, relative.partition("/")[0]
    files = [path, path.with_name(path.name + KEPT)]
    stats = [file.lstat() for file in _files(path) if file.exists() or file.is_symlink()]
    stats += [file.lstat() for file in files[1:] if file.exists()]
    changed = max((stat.st_mtime for stat in stats), default=path.lstat().st_mtime)
    return Item(
        relative, kind, _state(path, kind, relative in names, changed, newest), sum(s.st_size for s in stats), changed
    )


def _state(path: Path, kind: str, named: bool, changed: float, newest: dict[str, float]) -> State:
    if kind == "runs" and living(path):
        return "held"
    if named:
        return "named"
    if kind in REMEMBERED:
        return "remembered"
    if kind == ASIDE or path.name.endswith(KEPT):
        return "dead"
    if kind == "runs":
        return "dead" if (path / "export").exists() else "resumable"
    return "unfinished" if changed >= newest.get(kind, 0.0) else "dead"


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            yield from (Path(folder, name) for name in names)
    else:
        yield path


def _named(results: Path) -> Iterator[tuple[Path, set[str]]]:
    """Every table and JSON file below the results, and the paths of a store that are in it.

    Raises:
        UserError: one cannot be read, which may name what would else be taken for dead.
    """
    starts = tuple(f"{kind}/" for kind in RULES)
    for path in sorted(results.rglob("*")):
        if path.suffix not in (".parquet", ".json") or not path.is_file() or path.name.startswith("."):
            continue
        try:
            found = set(_texts(path))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(
                f"{path}: cannot be read ({first_line(error)}), and may name what is in the store"
            ) from None
        yield path, {text for text in found if text.startswith(starts)}


def _texts(path: Path) -> Iterator[str]:
    if path.suffix == ".json":
        pending = [json.loads(path.read_text())]
        while pending:
            value = pending.pop()
            if isinstance(value, str):
                yield value
            elif isinstance(value, dict | list):
                pending += value.values() if isinstance(value, dict) else value
        return
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
        for batch in file.iter_batches(columns=texts):
            for column in batch.columns:
                yield from (text for text in column.unique().to_pylist() if text)


def told(items: list[Item], now: float | None = None) -> list[str]:
    """A table by state and kind: how many, how large, how old."""
    now = time.time() if now is None else now
    lines = [f"{'state':<11} {'kind':<10} {'count':>8} {'GB':>9}  {'days since a change':<20}"]
    for state in STATES:
        for kind in sorted({item.kind for item in items if item.state == state}):
            those = [item for item in items if (item.state, item.kind) == (state, kind)]
            days = sorted(max(0.0, now - item.changed) / 86400 for item in those)
            size = sum(item.size for item in those) / 1e9
            lines.append(f"{state:<11} {kind:<10} {len(those):>8} {size:>9.3f}  {days[0]:.1f} to {days[-1]:.1f}")
    return lines
