"""What a process runs on: Python, the locked packages that are installed, and regdpo by its sources."""

import platform
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from regdpo.core import portable
from regdpo.core.code_digest import PACKAGE, ROOT, source_of
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError


def versions(*packages: str) -> str:
    """The installed versions of packages that shape an artefact, and the mode that its numbers are made in, for its
    key."""
    mode = [portable.identity(True)] if portable.active() else []
    return " ".join([*(f"{name}=={version(name)}" for name in sorted(packages)), *mode])


def environment_digest(locks: Sequence[Path], *packages: str, numbers: str = "") -> str:
    """Digest of the locked versions of the packages that shape a stage's result.

    Args:
        numbers: the mode that its numbers are made in, as ``portable.identity`` has it.
    """
    versions = locked(*locks)
    unknown = [name for name in packages if name not in versions]
    assert not unknown, f"{[str(lock) for lock in locks]} do not lock {unknown}"
    return text_digest(*(f"{name}=={versions[name]}" for name in sorted(packages)), *filter(None, [numbers]))


FILES = "files"
"""In place of a package: the sources as they are written. Where these agree, nobody has to read the code."""


@cache
def environment(root: Path = ROOT.parent) -> str:
    """What this process runs on, as ``name==version`` with spaces between: Python, the locked packages that are
    installed, and regdpo by the digest of its sources, blind to comments, docstrings and formatting.

    Args:
        root: of the checkout.
    """
    found = _installed(root) | {FILES: _written(root), PACKAGE: _code(root)}
    return " ".join(f"{name}=={found[name]}" for name in sorted(found))


def check_environment(there: str) -> None:
    """Refuse a machine that does not see what the process saw that started the workflow, or the training.

    Args:
        there: what ``environment`` said; empty where nobody asked.

    Raises:
        UserError: naming the machine and what differs.
    """
    if not there:
        return
    root = ROOT.parent
    theirs = dict(item.split("==") for item in there.split())
    same = theirs.pop(FILES, "") == _written(root)
    mine = _installed(root) | {PACKAGE: theirs[PACKAGE] if same else _code(root)}
    differ = [
        f"{name} {mine.get(name, 'none')} instead of {theirs.get(name, 'none')}"
        for name in sorted(mine | theirs)
        if mine.get(name) != theirs.get(name)
    ]
    if differ:
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise UserError(
            f"{socket.gethostname()} does not see the environment that this was started from: "
            f"{', '.join(differ[:3])}{more}, in {sys.prefix} and {ROOT}; nodes have to share both, "
            "and they must not change while it runs"
        )


def _sources(root: Path) -> list[Path]:
    return [path for folder in ("regdpo", "scripts") for path in sorted((root / folder).rglob("*.py"))]


def _written(root: Path) -> str:
    return text_digest(*(path.read_text() for path in _sources(root)))[:8]


def _code(root: Path) -> str:
    return text_digest(*map(source_of, _sources(root)))[:8]


def _installed(root: Path) -> dict[str, str]:
    """Python and the locked packages that are there. importlib's `version` parses all of a package's metadata."""
    found = {"python": platform.python_version()}
    for name in locked(*(root / "envs" / f"{lock}.lock" for lock in ("regdpo", "cuda", "flash", "filters"))):
        with suppress(PackageNotFoundError):
            metadata = distribution(name).read_text("METADATA") or ""
            found[name] = metadata.partition("\nVersion: ")[2].partition("\n")[0].strip()
    return found


@cache
def locked(*files: Path, here: bool = False) -> dict[str, str]:
    """The versions that lock files pin; of a package that is pinned more than once, the last.

    Args:
        here: only those that are for this Python and machine; another one may run what is asked for.
    """
    found = {}
    for path in files:
        for line in path.read_text().splitlines() if path.exists() else []:
            if not line or line[0] in " #":  # most of them are hashes
                continue
            try:
                pinned = Requirement(line.rstrip("\\ "))
            except InvalidRequirement:  # options
                continue
            if not here or pinned.marker is None or pinned.marker.evaluate():
                found[pinned.name] = str(pinned.specifier).removeprefix("==")
    return found
