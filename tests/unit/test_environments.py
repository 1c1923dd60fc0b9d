"""The locks and the environments made of them agree. That `make lock` would leave them as they are takes a network."""

import hashlib
import re
from pathlib import Path

import pytest
import yaml

ENVS = Path(__file__).parents[2] / "envs"
LOCKS = sorted(path.stem for path in ENVS.glob("*.lock"))
YAMLS = sorted(path.stem for path in ENVS.glob("*.yaml"))
TOGETHER = [
    ("regdpo", "torch", "cuda", "flash"),
    ("regdpo", "dev"),
    ("regdpo", "torch", "vbench"),
    ("regdpo", "torch", "captioning"),
]


def pinned(file: str) -> dict[str, set[str]]:
    """Package -> versions; several where the platforms differ."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==([^\s;\\]+)", (ENVS / file).read_text(), re.M):
        versions.setdefault(name, set()).add(version)
    return versions


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_hashes_and_no_place(lock):
    text = (ENVS / f"{lock}.lock").read_text()
    pins = re.findall(r"^\S+==.*$", text, re.M)
    assert pins
    if lock != "torch":  # its builds differ
        assert all(pin.endswith("\\") for pin in pins)
        assert text.count("--hash=sha256:") >= len(pins)
    assert "/" not in text


@pytest.mark.parametrize("name", sorted(path.stem for path in ENVS.glob("*.in")))
def test_a_lock_has_what_was_asked_for(name):
    asked = [line for line in (ENVS / f"{name}.in").read_text().splitlines() if line and not line.startswith("#")]
    locked = pinned(f"{name}.lock") | (pinned("torch.lock") if name == "regdpo" else {})
    assert {re.match(r"[\w.-]+", line)[0] for line in asked} <= locked.keys()
    for package, versions in pinned(f"{name}.in").items():
        assert locked[package] == versions


@pytest.mark.parametrize("locks", TOGETHER)
def test_locks_of_one_environment_agree(locks):
    first: dict[str, set[str]] = {}
    for lock in locks:
        for name, versions in pinned(f"{lock}.lock").items():
            assert first.setdefault(name, versions) & versions, name


@pytest.mark.parametrize("name", YAMLS)
def test_a_conda_environment_is_that_of_its_locks(name):
    """Snakemake makes it anew when the yaml changes, so that has to change with the locks."""
    text = (ENVS / f"{name}.yaml").read_text()
    locks, digest = re.search(r"^# locks: (.*) = (\w+)$", text, re.M).groups()
    data = b"".join((ENVS / lock).read_bytes() for lock in locks.split())
    assert digest == hashlib.sha256(data).hexdigest()[:16], "run `make lock`"
    python, pip = yaml.safe_load(text)["dependencies"]
    assert re.fullmatch(r"python=3\.11\.\d+", python)
    assert pip == "pip"
    scripts = [f"{name}.post-deploy.sh"]
    installed: set[str] = set()
    for script in scripts:  # of those it calls, too
        found = re.findall(r'"\$locks/(\S+)"', (ENVS / script).read_text())
        installed |= {file for file in found if file.endswith(".lock")}
        scripts += [file for file in found if file.endswith(".sh")]
    assert installed == set(locks.split())
