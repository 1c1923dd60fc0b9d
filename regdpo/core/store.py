"""Content-addressed artefacts: one key, one file or folder, written under a temporary name and renamed.

A key is the digest of everything that shaped the artefact, so an artefact is never overwritten and never stale.
Manifests hold paths relative to the store's root; ``Store.resolve`` keeps them inside it.
"""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regdpo.core.digests import file_digest, folder_digest, text_digest
from regdpo.core.errors import UserError
from regdpo.core.temporaries import atomic, temporary_of

DIGESTS = "digests.json"
"""File of a store that digests of large files are kept in, as ``DigestCache``."""
IDENTITY = ".store"
"""File of a store that says which one it is, in any words."""
ASIDE = "damaged"
"""Folder of a store where what was found damaged is put by who makes it again."""
USERS = "used_by"
"""Folder of a store with a file for each folder of results that was made with it."""
SHOWN = 10.0
"""Seconds that a network file system may take to show it."""


AGAIN = "give the same command again, which makes it anew"
RULES = {
    "clips": "cut_clips",
    "captions": "caption_clips",
    "negatives": "render_negatives",
    "samples": "render_samples",
    "latents": "encode_latents",
    "models": "base_from_scratch",
    "runs": "train_arm",
    "merged": "merge_adapters",
}
"""Kind of an artefact -> the rule that makes it."""


def names_in(folder: Path) -> set[str]:
    """What a folder holds now: to list it has a network file system look, which else may answer from memory for a
    while, also that a name is not there. Nothing where there is no folder."""
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


class Store:
    """A folder of artefacts, ``root/kind/ab/abcd...suffix``.

    Args:
        expected: what ``identity`` said where the workflow was started; empty where nobody asked.

    Raises:
        UserError: this machine sees another one by this name.
    """

    def __init__(self, root: str | Path, expected: str = ""):
        self.root = Path(root)
        self._checked: set[tuple[str, str]] = set()
        self._whole: dict[str, str] = {}  # digests of what was just found whole
        self.tell: Callable[[str], bool] = lambda relative: False
        """Called with what is found missing or damaged; whether the same command makes it again (core/damage.py)."""
        self.expected = expected
        end = time.monotonic() + SHOWN
        while expected and self._named() != expected and time.monotonic() < end:
            time.sleep(0.5)
        if expected and self._named() != expected:
            raise UserError(
                f"{self.root.resolve()}: machine {socket.gethostname()} does not see the store that the workflow uses; "
                "paths.store must be on a file system that all machines share"
            )

    def _named(self) -> str:
        with suppress(OSError):
            return (self.root / IDENTITY).read_text() if IDENTITY in names_in(self.root) else ""
        return ""

    def identity(self) -> str:
        """Which one it is; the first to ask decides."""
        path = self.root / IDENTITY
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_of(path)
            temporary.write_text(temporary.name)
            with suppress(FileExistsError):
                os.link(temporary, path)
            temporary.unlink()
        return path.read_text()

    def used_by(self, folder: Path, results: Path) -> None:
        """Remember who uses it, so that nothing of theirs is cleaned away: where the workflow runs, and its results."""
        user = json.dumps({"folder": str(folder.resolve()), "results": str(results.resolve())})
        path = self.root / USERS / f"{text_digest(user)[:16]}.json"
        if not path.exists():
            with atomic(path) as temporary:
                temporary.write_text(user)

    def users(self) -> list[tuple[Path, Path]]:
        """Folders where the workflow has run with it, and their results; they may be gone."""
        found = []
        for path in sorted((self.root / USERS).glob("*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                user = json.loads(path.read_text())
                found.append((Path(user["folder"]), Path(user["results"])))
        return found

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
            again = AGAIN if self.tell(relative) else _again(relative)
            raise UserError(f"{path}: missing from the store although a manifest names it; {again}")
        return path

    def checked(self, relative: str, sha256: str) -> Path:
        """Like ``existing``, for a file whose bytes have to be those that the manifest names; read once per process.

        Raises:
            UserError: it is not there, or its bytes are others.
        """
        path = self.existing(relative)
        if (relative, sha256) not in self._checked:
            if (found := file_digest(path)) != sha256:
                raise self.damaged(relative, f"sha256 {found[:12]}, its manifest says {sha256[:12]}")
            self._checked.add((relative, sha256))
        return path

    def digest(self, relative: str, rule: str = "") -> str:
        """SHA-256 of a file or folder, kept beside it when it is first asked for: what is found there later is whole.

        Args:
            rule: that makes it, where its kind does not say.

        Raises:
            UserError: it is not there, or its bytes have changed since.
        """
        path = self.existing(relative)
        if relative in self._whole:
            return self._whole.pop(relative)
        found, kept = folder_digest(path) if path.is_dir() else file_digest(path), kept_at(path)
        written = ""
        with suppress(FileNotFoundError):  # nobody asked before, or another process writes it anew
            written = kept.read_text()
        if not written:
            with atomic(kept) as temporary:
                temporary.write_text(found)
        elif written != found:
            raise self.damaged(relative, f"sha256 {found[:12]}, it was {written[:12]}", rule)
        self._checked.add((relative, found))
        return found

    def damaged(self, relative: str, reason: str, rule: str = "") -> UserError:
        """What to raise for an artefact that is not what was written: the file, and the command that makes it again.

        Args:
            rule: that makes it, where its kind does not say.
        """
        again = AGAIN if self.tell(relative) else f"delete it, then {_again(relative, rule)}"
        return UserError(f"{self.resolve(relative)} is damaged ({reason}); {again}")

    def wrong(self, relative: str, sha256: str) -> str:
        """What is wrong with an artefact; empty if it has the digest that a manifest gives, or that is kept beside it
        where the manifest gives none."""
        path = self.resolve(relative)
        if not path.exists():
            return "is missing"
        found = folder_digest(path) if path.is_dir() else file_digest(path)
        with suppress(FileNotFoundError):
            sha256 = sha256 or kept_at(path).read_text()
        return "" if sha256 in ("", found) else f"is altered (sha256 {found[:12]}, it was {sha256[:12]})"

    def has(self, relative: str) -> bool:
        """Whether an artefact is there, with the bytes that it was written with; ``digest`` then reads it no second
        time. One with other bytes is put aside, for whoever asks to make it again."""
        path, kept = self.resolve(relative), kept_at(self.resolve(relative))
        if not path.exists():
            return False
        found = folder_digest(path) if path.is_dir() else file_digest(path)
        with suppress(FileNotFoundError):
            if kept.read_text() not in ("", found):
                aside = self.root / ASIDE / relative
                print(f"{path}: is damaged; it is put aside as {aside}, and made again", file=sys.stderr)
                aside.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(path, aside)
                kept.unlink(missing_ok=True)
                return False
            self._whole[relative] = found
        return True

    @contextmanager
    def writing(self, relative: str) -> Iterator[Path]:
        """``atomic``, for an artefact; the digest that was kept of an earlier one is forgotten."""
        final = self.resolve(relative)
        with atomic(final) as temporary:
            yield temporary
            kept_at(final).unlink(missing_ok=True)


def _again(relative: str, rule: str = "") -> str:
    rule = rule or RULES.get(relative.partition("/")[0], "")
    return "give the same command again" + (f" with --forcerun {rule}" if rule else "")


def kept_at(path: Path) -> Path:
    """Where the digest of an artefact is."""
    return path.with_name(f"{path.name}.sha256")
