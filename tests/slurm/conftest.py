import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "workflow")]
import sandbox

sandbox.PORT = 18000
from project import Project


@pytest.fixture(scope="session")
def cluster():
    return sandbox.Sandbox(Path("/tmp/w/mine/slurm"))


@pytest.fixture(scope="session")
def finished(cluster):
    p = Project.__new__(Project)
    p.folder = cluster.shared / "p1"
    return p
