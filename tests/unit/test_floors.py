"""The rooms of the package stand on floors: a module imports from lower floors and from its own room alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import regdpo

ROOT = Path(regdpo.__file__).parent
FLOORS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("runtime",),
    ("models.original_names", "models.sizes"),
    # declarations, which the configuration derives from
    (
        *("objectives.registry", "models.registry", "evaluate.suites"),
        *("data.registry", "data.captioner_registry", "data.pair_registry"),
    ),
    ("config",),
    ("data", "models", "objectives", "parallel"),
    ("runs", "sampling"),
    ("train", "plan", "evaluate"),
    ("launch", "rate", "report"),
    ("stages",),
    ("workflow",),
)
"""From the ground up; docs/concepts/architecture.md says what is in each room."""
NEIGHBOURS: set[tuple[str, str]] = set()
"""Rooms of one floor of which the first imports the second, as docs/concepts/architecture.md says with the reason."""
LIGHT = (
    "core",
    "runtime",
    "config",
    "workflow",
    "objectives.registry",
    "evaluate.suites",
    "models.checkpoint_json",
    "models.registry",
    "models.loading",
    "models.sizes",
    "models.spec",
    "data.registry",
    "data.captioner_registry",
    "data.pair_registry",
)
"""What imports no torch, but inside of a function."""


def modules() -> dict[str, Path]:
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")}


def imports(path: Path, inside: bool = True) -> set[str]:
    """Full names of what a file imports, with each name that it takes from a module.

    Args:
        inside: of its functions too.
    """
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree)) if inside else [node for node in tree.body if not isinstance(node, ast.If)]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def place(module: str) -> tuple[int, str]:
    """Floor and room of a module, by the longest name that fits."""
    names = {name: floor for floor, rooms in enumerate(FLOORS) for name in rooms}
    fitting = [name for name in names if f"{module}.".startswith(f"{name}.")]
    assert fitting, f"regdpo/{module.replace('.', '/')}.py stands on no floor"
    room = max(fitting, key=len)
    return names[room], room


def test_only_packages_are_at_the_top():
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("module", sorted(set(modules()) - {"__init__"}))
def test_a_module_imports_from_below_alone(module):
    floor, room = place(module.removesuffix(".__init__"))
    for name in imports(modules()[module]):
        package, _, rest = name.partition(".")
        if package != "regdpo" or not rest or rest == "__version__":
            continue
        there, other = place(rest)
        allowed = there < floor or other == room or (room, other) in NEIGHBOURS
        assert allowed, f"{module} (in {room}) imports {name} (in {other})"


def test_only_the_workflow_knows_snakemake():
    """And not even it is needed for the package to be imported."""
    for module, path in modules().items():
        assert not any(name.split(".")[0] == "snakemake" for name in imports(path)), module


@pytest.mark.parametrize("module", sorted(name for name in modules() if name.startswith(LIGHT)))
def test_what_the_rules_read_imports_no_torch(module):
    heavy = {"torch", "diffusers", "transformers", "peft"}
    assert not {name.split(".")[0] for name in imports(modules()[module], inside=False)} & heavy


def test_stages_rules_and_scripts_have_the_same_names():
    stages = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    rules = {path.stem for path in (ROOT.parent / "rules").glob("*.smk")} - {"common"}
    scripts = {path.stem for path in (ROOT.parent / "scripts").glob("*.py")}
    assert stages == rules
    assert stages <= scripts


STARTS_LIGHT = ["captions", "clips", "halves", "merge", "merge_clips", "pairs", "report", "scores", "timeline", "train"]
STARTS_LIGHT += ["imports", "rate", "funnel", "splits", "unlock", "weights"]


def test_what_needs_no_model_starts_without_torch():
    """The launcher too, unless it asks for GPUs; measures load what they need once they are chosen."""
    code = (
        "import runpy, sys\n"
        "for path in sys.argv[1:]:\n"
        "    runpy.run_path(path)\n"
        "    assert 'torch' not in sys.modules, path\n"
    )
    scripts = [str(ROOT.parent / f"scripts/{name}.py") for name in STARTS_LIGHT]
    done = subprocess.run([sys.executable, "-c", code, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
