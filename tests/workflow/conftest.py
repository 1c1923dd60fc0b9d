"""The workflow is run once; the tests look at what it made and at what a dry run would do."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from project import ALONE, Project


@pytest.fixture(scope="session")
def alone() -> list[str]:
    """What runs a command without a network; empty where that takes rights which are not there."""
    return ALONE if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0 else []


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, alone: list[str]) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    done = project.snakemake("all", before=alone)
    assert done.returncode == 0, done.stdout[-6000:]
    return project
