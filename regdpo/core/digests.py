"""Digests of files, folders and texts: stale means different content, never a different clock."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from regdpo.core.temporaries import atomic

KEEP_EVERY = 30.0
"""Seconds after which a cache of digests is saved while it grows, so that Ctrl-C loses little."""


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def text_digest(*parts: str) -> str:
    """SHA-256 of texts, in hex; the boundaries count."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def canonical(values: Any) -> str:
    """Equal values as equal text: JSON with sorted keys."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def shard_of(key: str, shards: int) -> int:
    """The shard that something belongs to, by what it is called alone; the name of a file may be no text."""
    return int(hashlib.sha256(os.fsencode(key)).hexdigest()[:15], 16) % shards


def folder_digest(path: str | Path, cache: "DigestCache | None" = None) -> str:
    """SHA-256 over names and bytes of all files below a folder, in hex; a cache spares reading large ones again."""
    root, digest = Path(path), cache.digest if cache else file_digest
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return text_digest(*(part for file in files for part in (file.relative_to(root).as_posix(), digest(file))))


class DigestCache:
    """Digests of large files, kept by path, size and modification time, so that a video is read once.

    What cannot be read of it, or not be kept, costs another reading and nothing else.

    Args:
        path: its file. others: files of more such caches, which are read alone.
    """

    def __init__(self, path: str | Path, *others: str | Path):
        self.path = Path(path)
        mine = _cached(self.path)
        self.known = {key: value for other in others for key, value in _cached(Path(other)).items()} | mine
        self.changed = self.known != mine
        self._kept = time.monotonic()
        self._folders: dict[str, str] = {}  # where they really are

    def knows(self, path: str | Path) -> bool:
        """Whether ``digest`` would not have to read the file."""
        return self._key(path) in self.known

    def digest(self, path: str | Path) -> str:
        key = self._key(path)
        if key not in self.known:
            self.known[key] = file_digest(path)
            self.changed = True
            if time.monotonic() > self._kept + KEEP_EVERY:
                self.save()
        return self.known[key]

    def save(self) -> None:
        self._kept = time.monotonic()
        if not self.changed:
            return
        with suppress(OSError):
            with atomic(self.path) as temporary:
                temporary.write_text(json.dumps(self.known))
            self.changed = False

    def _key(self, path: str | Path) -> str:
        stat = os.stat(path)
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(self._folders[folder], name)
        return f"{real}|{stat.st_size}|{stat.st_mtime_ns}"


def _cached(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
