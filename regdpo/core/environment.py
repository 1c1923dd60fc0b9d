"""What a process runs on: Python, the locked packages that are installed, and regdpo by its sources."""

import platform
import socket
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from regdpo.core.code_digest import PACKAGE, ROOT, source_of
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError


def versions(*packages: str) -> str:
    """The installed versions of packages that shape an artefact, for its key."""
    return " ".join(f"{name}=={version(name)}" for name in sorted(packages))


def environment_digest(locks: Sequence[Path], *packages: str) -> str:
    """Digest of the locked versions of the packages that shape a stage's result."""
    versions = locked(*locks)
    unknown = [name for name in packages if name not in versions]
    assert not unknown, f"{[str(lock) for lock in locks]} do not lock {unknown}"
    return text_digest(*(f"{name}=={versions[name]}" for name in sorted(packages)))


@cache
def environment(root: Path = ROOT.parent) -> str:
    """What this process runs on, as ``name==version`` with spaces between: Python, the locked packages that are
    installed, and regdpo by the digest of its sources, blind to comments, docstrings and formatting.

    Args:
        root: of the checkout.
    """
    names = locked(*(root / "envs" / f"{lock}.lock" for lock in ("regdpo", "cuda", "flash")))
    sources = [path for folder in ("regdpo", "scripts") for path in sorted((root / folder).rglob("*.py"))]
    code = text_digest(*map(source_of, sources))[:8]
    found = {"python": platform.python_version(), PACKAGE: code} | {name: _installed(name) for name in names}
    return " ".join(f"{name}=={found[name]}" for name in sorted(found) if found[name])


def check_environment(there: str) -> None:
    """Refuse a machine that does not see what the process saw that started the workflow, or the training.

    Args:
        there: what ``environment`` said; empty where nobody asked.

    Raises:
        UserError: naming the machine and what differs.
    """
    mine, theirs = (dict(item.split("==") for item in text.split()) for text in (environment(), there))
    differ = [
        f"{name} {mine.get(name, 'none')} instead of {theirs.get(name, 'none')}"
        for name in sorted(mine | theirs)
        if mine.get(name) != theirs.get(name)
    ]
    if there and differ:
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise UserError(
            f"{socket.gethostname()} does not see the environment that this was started from: "
            f"{', '.join(differ[:3])}{more}, in {sys.prefix} and {ROOT}; nodes have to share both, "
            "and they must not change while it runs"
        )


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@cache
def locked(*files: Path, here: bool = False) -> dict[str, str]:
    """The versions that lock files pin; of a package that is pinned more than once, the last.

    Args:
        here: only those that are for this Python and machine; another one may run what is asked for.
    """
    found = {}
    for path in files:
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                pinned = Requirement(line.rstrip("\\ "))
            except InvalidRequirement:  # comments, options and hashes
                continue
            if not here or pinned.marker is None or pinned.marker.evaluate():
                found[pinned.name] = str(pinned.specifier).removeprefix("==")
    return found
