"""Digests of code: of an entry and all of regdpo that it imports, blind to comments and formatting."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from regdpo.core.digests import text_digest

PACKAGE = "regdpo"
ROOT = Path(__file__).resolve().parents[1]
PLUMBING = ("core", "runtime", "config", "launch", "runs", "workflow")
"""Packages that cannot change a result: they are left out of every closure."""
TABLES = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        *("models.registry", "models.family", "models.spec"),
        *("objectives.registry", "objectives.losses"),
        *("evaluate.measures", "data.registry", "data.captioner_registry", "data.pair_registry"),
    )
)
"""Modules of which only what an entry names as ``module:name`` counts, so that a new loss makes no arm stale but its
own."""


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
        if _is_plumbing(module) or (module in TABLES and not name):
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


def _is_plumbing(module: str) -> bool:
    package, _, rest = module.partition(".")
    return package == PACKAGE and (not rest or rest.split(".")[0] in PLUMBING)


@cache
def _tree(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text())
    for node in _statements(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # docstrings, and the strings under fields
            kept = [item for item in body if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """It and the statements in it: a tenth of what ast.walk goes through, and every process that starts does this."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        for name in ("body", "orelse", "handlers", "finalbody", "cases"):
            inner = getattr(node, name, None)
            if isinstance(inner, list):
                pending += inner


@cache
def source_of(path: Path) -> str:
    return ast.unparse(_tree(path))


def _file(module: str) -> Path:
    """Found by its name: to ask the import system would import the packages around it, and what they import."""
    if module.endswith(".py"):
        return Path(module)
    if module.split(".")[0] != PACKAGE:  # a family of somebody else's
        spec = find_spec(module)
        assert spec, f"{module} is not to be found"
        assert spec.origin, f"{module} has no file"
        return Path(spec.origin)
    path = ROOT.parent / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _imports(module: str) -> frozenset[str]:
    found: set[str] = set()
    for node in _statements(_tree(_file(module))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative imports are not followed"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if _is_module(name) else node.module for name in names}
    return frozenset(name for name in found if name.split(".")[0] == PACKAGE)


def _is_module(name: str) -> bool:
    return name.split(".")[0] == PACKAGE and _file(name).exists()


def _source(module: str, names: set[str] | None) -> str:
    if names is None:
        return source_of(_file(module))
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
