"""The documents of the repository name what is there."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from test_floors import FLOORS

import regdpo
from regdpo.data.registry import FILTERS
from regdpo.evaluate.measures import metrics
from regdpo.models.registry import FAMILIES

ROOT = Path(regdpo.__file__).parents[1]
DOCUMENTS = [
    path
    for pattern in ("*.md", ".github/**/*.md", *(f"{top}/**/*.md" for top in ("docs", "config", "benchmarks", "tests")))
    for path in sorted(ROOT.glob(pattern))
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(
    r"(?<![\w/.-])((?:regdpo|scripts|rules|tests|benchmarks|config|envs|profiles|workflow|docs)/[\w./+-]*[\w+/])"
)
"""A path from the repository's root, as far as it has no pattern (``*``, ``{}``) in it."""
SHORT = re.compile(r"`(?:regdpo/)?([a-z_]+/[\w/]+\.py)`")
"""A module by its path below the package."""
PLACEHOLDER = re.compile(r"NAME|[/_]X\.")


def own(path: Path) -> str:
    return str(path.relative_to(ROOT))


def rows(name: str, first: str) -> set[str]:
    """The words in the first column of the table whose first heading that is."""
    table = _read(name).partition(f"\n| {first} |")[2].partition("\n\n")[0]
    return {word for line in table.splitlines()[2:] for word in re.findall(r"`(\w+)`", line.split("|")[1])}


def heading(line: str) -> str:
    """The anchor that a heading gets on a page."""
    return re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=own)
def test_links_lead_somewhere(document):
    for target in LINK.findall(document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), target
        if anchor:
            headings = [heading(line) for line in path.read_text().splitlines() if line.startswith("#")]
            assert anchor in headings, target


@pytest.mark.parametrize("document", [it for it in DOCUMENTS if it.name != "CHANGELOG.md"], ids=own)
def test_named_paths_are_there(document):
    """The changelog may name what there was."""
    text = LINK.sub("", document.read_text())
    named = {name for name in NAMED.findall(text) if not PLACEHOLDER.search(name)}
    missing = {name for name in named if not (ROOT / name).exists()}
    short = {name for name in SHORT.findall(text) if not PLACEHOLDER.search(name)}
    missing |= {name for name in short if not any((root / name).exists() for root in (ROOT, ROOT / "regdpo"))}
    assert not missing


def test_every_document_is_listed():
    """docs/README.md is the page to read first."""
    listed = {(ROOT / "docs" / target.partition("#")[0]).resolve() for target in LINK.findall(_read("docs/README.md"))}
    assert set((ROOT / "docs").glob("**/*.md")) - listed == {ROOT / "docs/README.md"}


def test_every_metric_and_family_has_a_row():
    assert rows("docs/reference/scores.md", "metric") == set(metrics())
    assert rows("docs/reference/families.md", "`base.family`") == set(FAMILIES)


def test_every_filter_has_its_row_with_its_threshold():
    table = _read("docs/reference/footage.md").partition("\n| reason | score |")[2].partition("\n\n")[0]
    told = set()
    for line in table.splitlines()[2:]:
        kinds, scores, limits = (cell for cell in line.split("|")[1:4])
        keys = re.findall(r"`(\w+)` (off|[\d.]+)", limits)
        told |= {
            (kind, *re.findall(r"`(\w+)`", scores), *key)
            for kind, key in zip(re.findall(r"`(\w+)`", kinds), keys, strict=True)
        }
    assert told == {
        (kind, it.score, it.key, "off" if it.default is None else f"{it.default:g}") for kind, it in FILTERS.items()
    }


def test_the_floors_are_described():
    table = _read("docs/concepts/architecture.md").partition("\n| floor |")[2].partition("\n\n")[0]
    described = [re.findall(r"`([\w.]+)`", line.split("|")[2]) for line in table.splitlines()[2:]]
    assert [sorted(rooms) for rooms in reversed(described)] == [sorted(rooms) for rooms in FLOORS]


def test_the_version_is_one():
    assert yaml.safe_load(_read("CITATION.cff"))["version"] == regdpo.__version__
    assert "version" in tomllib.loads(_read("pyproject.toml"))["project"]["dynamic"]
    assert f"\n## {regdpo.__version__}" in _read("CHANGELOG.md")


def test_pre_commit_checks_what_lint_checks():
    """Each command of ``make lint`` is a hook, with the tools of the locks."""
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", _read("Makefile"), re.MULTILINE)
    assert recipe
    hooks = yaml.safe_load(_read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert [line.strip() for line in recipe[1].splitlines()] == [hook["entry"] for hook in hooks]


def _read(name: str) -> str:
    return (ROOT / name).read_text()


def test_what_a_document_calls_a_proof_is_a_test():
    known = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)[`\[]", (ROOT / "docs/concepts/staleness.md").read_text())
    assert len(named) > 8
    assert [name for name in named if f"def {name}(" not in known] == []
