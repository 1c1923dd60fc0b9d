"""The workflow is run once; the tests look at what it made and at what a dry run would do."""

import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from project import ALONE, Project

from regdpo.core import portable


@pytest.fixture(scope="session")
def alone() -> list[str]:
    """What runs a command without a network; empty where that takes rights which are not there."""
    return ALONE if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0 else []


@pytest.fixture(scope="session", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory, alone: list[str]) -> Iterator[None]:
    """The process that a workflow's others are forked from, without a network too."""
    address = tmp_path_factory.mktemp("warm") / "socket"
    command = [*alone, sys.executable, Path(__file__).parent / "warm.py", address]
    environment = portable.environment()  # of what it forks no library reads it again
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    assert server.stdout
    assert server.stdout.readline() == "ready\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGDPO_WARM", f"{sysconfig.get_path('purelib')}:{address}")
        yield
    server.terminate()
    server.wait()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, alone: list[str]) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    done = project.snakemake("all", before=alone)
    assert done.returncode == 0, done.stdout[-6000:]
    return project
