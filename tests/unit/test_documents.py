"""The documents of the repository name what is there."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import regdpo

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
"""A path from the repository's root; with a pattern or a placeholder in it (``*``, ``{}``, ``NAME``) only as far as it
is a path."""
MADE = re.compile(r"^(results|store|logs)/|NAME|ARM|/X\.")


def own(path: Path) -> str:
    return str(path.relative_to(ROOT))


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
    named = {name for name in NAMED.findall(text) if not MADE.search(name)}
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing


def test_every_document_is_listed():
    """docs/README.md is the page to read first."""
    listed = {(ROOT / "docs" / target.partition("#")[0]).resolve() for target in LINK.findall(_read("docs/README.md"))}
    assert set((ROOT / "docs").glob("**/*.md")) - listed == {ROOT / "docs/README.md"}


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
