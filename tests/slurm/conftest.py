"""One Slurm for all tests of this folder, and the project that was run on it."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from sandbox import Sandbox, missing
from slurm_project import SlurmProject


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A Slurm of three nodes with two GPUs each; every command finds it."""
    if reason := missing():
        pytest.skip(f"no Slurm: {reason}")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that Slurm ends with the tests
    with Sandbox(tmp_path_factory.mktemp("slurm")) as slurm, pytest.MonkeyPatch.context() as patch:
        for name, value in slurm.environment.items():
            patch.setenv(name, value)
        yield slurm


@pytest.fixture(scope="session")
def finished(cluster: Sandbox) -> SlurmProject:
    """A project that `all` was run in, on the file system that the nodes share."""
    project = SlurmProject(cluster.shared / "project")
    done = project.snakemake("all")
    assert done.returncode == 0, done.stdout[-6000:]
    project.ran = cluster.sacct(fields="JobID,Account,Comment,State,Partition,NNodes,NodeList,AllocTRES,TimelimitRaw")
    return project
