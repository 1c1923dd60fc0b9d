"""Content-addressed artefacts: one key, one file or folder, written under a temporary name and renamed.

A key is the digest of everything that shaped the artefact, so an artefact is never overwritten and never stale.
Manifests hold paths relative to the store's root; ``Store.resolve`` keeps them inside it.
"""

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regdpo.errors import UserError

IDENTITY = ".store"
"""File of a store that says which one it is, in any words."""
SHOWN = 10.0
"""Seconds that a network file system may take to show it."""


class Store:
    """A folder of artefacts, ``root/kind/ab/abcd...suffix``.

    Raises:
        UserError: the workflow uses another one by this name (REGDPO_STORE, REGDPO_STORE_IDENTITY): this machine does
            not see it.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        named, meant = os.environ.get("REGDPO_STORE", ""), os.environ.get("REGDPO_STORE_IDENTITY", "")
        if not meant or self.root.resolve() != Path(named).resolve():
            return
        end = time.monotonic() + SHOWN
        while self._named() != meant and time.monotonic() < end:
            time.sleep(0.5)
        if self._named() != meant:
            raise UserError(
                f"{self.root.resolve()}: machine {socket.gethostname()} does not see the store that the workflow uses; "
                "paths.store must be on a file system that all machines share"
            )

    def _named(self) -> str:
        with suppress(OSError):
            os.listdir(self.root)  # has a network file system look
            return (self.root / IDENTITY).read_text()
        return ""

    def identity(self) -> str:
        """Which one it is; the first to ask decides."""
        path = self.root / IDENTITY
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{uuid.uuid4().hex}")
            temporary.write_text(temporary.name)
            with suppress(FileExistsError):
                os.link(temporary, path)
            temporary.unlink()
        return path.read_text()

    def relative(self, kind: str, key: str, suffix: str = "") -> str:
        """The path of an artefact relative to the root, as manifests hold it."""
        return f"{kind}/{key[:2]}/{key}{suffix}"

    def resolve(self, relative: str) -> Path:
        """The artefact a manifest names.

        Raises:
            UserError: the path leaves the store.
        """
        root = self.root.resolve()
        path = (root / relative).resolve()
        if not path.is_relative_to(root) or path == root:
            raise UserError(f"{relative}: leads out of the store {self.root}; the manifest was not written by regdpo")
        return path

    def existing(self, relative: str) -> Path:
        """Like ``resolve``, for an artefact that has to be there.

        Raises:
            UserError: it is not.
        """
        path = self.resolve(relative)
        if not path.exists():
            raise UserError(
                f"{path}: missing from the store although a manifest names it; "
                "delete that manifest under the results folder and give the same command again"
            )
        return path

    @contextmanager
    def writing(self, relative: str) -> Iterator[Path]:
        """Yield a temporary path of the same suffix to write a file or folder to; rename it into place afterwards.

        On any error, and on Ctrl-C, the temporary is removed and nothing appears under the final name.
        """
        final = self.resolve(relative)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{uuid.uuid4().hex[:8]}{final.suffix}")
        try:
            yield temporary
            _rename(temporary, final)
        finally:
            _remove(temporary)


def _rename(source: Path, target: Path) -> None:
    if source.is_dir() and target.exists():  # the same content, written by another process meanwhile
        return
    os.replace(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it into place unless the block fails."""
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{uuid.uuid4().hex[:8]}-{final.name}")
    try:
        yield temporary
        os.replace(temporary, final)
    finally:
        _remove(temporary)
