"""The locks and the environments made of them agree. That `make lock` would leave them as they are takes a network."""

import hashlib
import os
import re
import subprocess
import sys
import zipfile
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
    ("regdpo", "torch", "filters"),
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
            if (lock, name) == (
                "vbench",
                "setuptools",
            ):  # the last that openai-clip works with, in the place of .venv's
                continue
            assert first.setdefault(name, versions) & versions, name


def test_no_rule_has_an_environment_that_its_configuration_does_not_need():
    """Captions from files need no captioner's; what needs more than regdpo's is said by its declaration."""
    for rule in sorted((ENVS.parent / "rules").glob("*.smk")):
        fixed = set(re.findall(r'"\.\./envs/([\w-]+)\.yaml"', rule.read_text()))
        assert fixed <= {"regdpo"}, rule.name


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
        installed |= {"torch.lock"} if "install_torch.py" in found else set()
        scripts += [file for file in found if file.endswith(".sh")]
    assert installed == set(locks.split())


def wheel(folder: Path) -> str:
    """A build of torch's that no index has; its SHA-256."""
    path = folder / "torch-2.13.0+ours-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {
            "METADATA": "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+ours\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }.items():
            archive.writestr(f"torch-2.13.0+ours.dist-info/{name}", text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_torch_without_a_locked_hash_is_told_or_demanded(tmp_path):
    """pip is asked which build it would take; another than the one that was pinned is not installed."""
    found = wheel(tmp_path)
    site = tmp_path / "site"
    options = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}

    def install(**more: str) -> subprocess.CompletedProcess:
        environment = os.environ | options | {"PIP_TARGET": str(site), "TORCH_INDEX_URL": ""} | more
        command = [sys.executable, str(ENVS / "install_torch.py")]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    refused = install(TORCH_SHA256="0" * 64)
    assert refused.returncode == 1
    assert refused.stderr.endswith(f"has the SHA-256 {found}, and TORCH_SHA256 is {'0' * 64}\n"), refused.stderr
    assert not site.exists()
    done = install(TORCH_SHA256="")
    assert done.returncode == 0, done.stderr
    assert f"whose hash no lock has; TORCH_SHA256={found} demands it the next time" in done.stdout
    assert list(site.glob("torch-2.13.0+ours.dist-info"))


def test_what_comes_as_source_is_built_with_what_is_locked():
    """An isolated build takes its tools from the index, by no hash. flash-attn's setup imports those below."""
    makefile = (ENVS.parent / "Makefile").read_text()
    for line in re.findall(r".*pip install.*", makefile) + re.findall(
        r".*pip install.*", (ENVS / "regdpo.post-deploy.sh").read_text()
    ):
        assert "--no-build-isolation" in line or line.startswith("PIP_INSTALL"), line
    assert {"setuptools", "wheel", "ninja", "packaging", "psutil", "einops"} <= (
        pinned("regdpo.lock") | pinned("cuda.lock")
    ).keys()
