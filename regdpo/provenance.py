"""Digests of files, of code and of environments: stale means different content, never a different clock."""

import ast
import hashlib
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from regdpo.errors import UserError
from regdpo.temporaries import atomic

PACKAGE = "regdpo"
ROOT = Path(__file__).resolve().parent
KEEP_EVERY = 30.0
"""Seconds after which a cache of digests is saved while it grows, so that Ctrl-C loses little."""

PLUMBING = frozenset(
    {
        "regdpo",
        "regdpo.config",
        "regdpo.config_section",
        "regdpo.config_train",
        "regdpo.errors",
        "regdpo.hardware",
        "regdpo.hub",
        "regdpo.launch",
        "regdpo.lease",
        "regdpo.processes",
        "regdpo.progress",
        "regdpo.provenance",
        "regdpo.ranks",
        "regdpo.rendezvous",
        "regdpo.slurm",
        "regdpo.stages",
        "regdpo.store",
        "regdpo.tables",
        "regdpo.temporaries",
        "regdpo.train.metrics",
        "regdpo.train.stop",
    }
)
"""Modules that cannot change a result. They are left out of every closure."""

TABLES = frozenset({"regdpo.models", "regdpo.models.family", "regdpo.objectives", "regdpo.objectives.losses"})
"""Modules of which only what an entry names as ``module:name`` counts, so a new loss restales no arm but its own."""


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


def folder_digest(path: str | Path, cache: "DigestCache | None" = None) -> str:
    """SHA-256 over names and bytes of all files below a folder, in hex; a cache spares reading large ones again."""
    root, digest = Path(path), cache.digest if cache else file_digest
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return text_digest(*(part for file in files for part in (file.relative_to(root).as_posix(), digest(file))))


def versions(*packages: str) -> str:
    """The installed versions of packages that shape an artefact, for its key."""
    return " ".join(f"{name}=={version(name)}" for name in sorted(packages))


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

    @staticmethod
    def _key(path: str | Path) -> str:
        stat = os.stat(path)
        return f"{Path(path).resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _cached(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def code_digest(*entries: str) -> str:
    """Digest of the entries' code and all of regdpo it imports, blind to comments, docstrings and formatting.

    Args:
        entries: ``regdpo.module``, ``PATH.py`` of a script, or ``regdpo.module:name`` for one definition of a table
            module and what that uses.

    Plumbing is left out; so are the definitions of table modules that no entry names. Imports are followed as
    written in the source: a module chosen at run time (a family) has to be an entry of its own.
    """
    modules: dict[str, set[str] | None] = {}
    pending = [entry.partition(":")[::2] for entry in entries]
    while pending:
        module, name = pending.pop()
        if module in PLUMBING or (module in TABLES and not name):
            continue
        if name:
            names = modules.setdefault(module, set())
            if names is not None:
                names.add(name)
        elif module not in modules or modules[module] is not None:
            modules[module] = None
        else:
            continue
        pending += [(imported, "") for imported in _imports(module) if imported not in modules]
    shown = {module: Path(module).name if module.endswith(".py") else module for module in modules}
    order = sorted(modules, key=shown.__getitem__)
    return text_digest(*(part for module in order for part in (shown[module], _source(module, modules[module]))))


def environment_digest(locks: Sequence[Path], *packages: str) -> str:
    """Digest of the locked versions of the packages that shape a stage's result."""
    versions = {name: version for lock in locks for name, version in _locked(lock).items()}
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
    names = {name for lock in ("regdpo", "cuda", "flash") for name in _locked(root / "envs" / f"{lock}.lock")}
    sources = [path for folder in ("regdpo", "scripts") for path in sorted((root / folder).rglob("*.py"))]
    code = text_digest(*map(_code, sources))[:8]
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
def _locked(lock: Path) -> dict[str, str]:
    lines = (line.split(";")[0].split("\\")[0].strip() for line in lock.read_text().splitlines())
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith(("#", "-")))
    return {name.split("[")[0].strip(): version.strip() for name, version in pairs}


@cache
def _tree(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # docstrings, and the strings under fields
            kept = [item for item in body if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


@cache
def _code(path: Path) -> str:
    return ast.unparse(_tree(path))


def _file(module: str) -> Path:
    """Found by its name: to ask the import system would import the packages around it, and what they import."""
    if module.endswith(".py"):
        return Path(module)
    path = ROOT.parent / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _imports(module: str) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(_tree(_file(module))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative imports are not followed"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if _is_module(name) else node.module for name in names}
    return frozenset(name for name in found if name.split(".")[0] == PACKAGE)


def _is_module(name: str) -> bool:
    return _file(name).exists()


def _source(module: str, names: set[str] | None) -> str:
    if names is None:
        return _code(_file(module))
    definitions = {name: node for node in _tree(_file(module)).body for name in _defined(node)}
    wanted, pending = set(), sorted(names)
    while pending:
        name = pending.pop()
        if name in wanted or name not in definitions:
            continue
        wanted.add(name)
        pending += [node.id for node in ast.walk(definitions[name]) if isinstance(node, ast.Name)]
    assert names <= wanted, f"{module} does not define {sorted(names - wanted)}"
    return "\n".join(f"{name}: {ast.unparse(definitions[name])}" for name in sorted(wanted))


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
