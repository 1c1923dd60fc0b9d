"""Nodes that do not see the environment as the login node does."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import numpy
import pytest
import yaml
from sandbox import Sandbox
from slurm_project import SlurmProject


@pytest.fixture
def mount(cluster: Sandbox) -> Iterator[Callable[..., None]]:
    """Mounts something on one node alone, until the test has ended."""

    def on_node(node: str, *command: object) -> None:
        inside = ["nsenter", "--target", str(cluster.process(node)), "--mount", "--pid"]
        subprocess.run([*inside, *map(str, command)], check=True)

    with ExitStack() as stack:

        def over(node: str, folder: object, *arguments: object) -> None:
            on_node(node, "mount", *arguments, folder)
            stack.callback(on_node, node, "umount", "--lazy", folder)

        yield over


def job_on(cluster: Sandbox, node: str) -> str:
    """What Slurm's log says of a job there that fails."""
    project = SlurmProject(cluster.shared / f"project_{node}")
    path = project.folder / "profiles/slurm/profile.v9+.yaml"
    profile = yaml.safe_load(path.read_text())
    profile["default-resources"]["slurm_extra"] = f"'--nodelist={node}'"
    path.write_text(yaml.safe_dump(profile))
    done = project.snakemake("results/clips/0.parquet", "--retries", "0")
    assert done.returncode == 1, done.stdout[-3000:]
    assert "Traceback" not in done.stdout
    return "".join(log.read_text() for log in (project.folder / "logs/slurm").rglob("*.log"))


def test_nodes_that_see_another_environment(cluster, mount):
    """One sees none; one an old package at the same path, as a node-local disk may have it."""
    now = Path(numpy.__file__).parents[1] / f"numpy-{version('numpy')}.dist-info"
    old = cluster.shared / "old"
    shutil.copytree(now, old)
    metadata = (now / "METADATA").read_text()
    (old / "METADATA").write_text(metadata.replace(f"Version: {version('numpy')}", "Version: 1.0"))
    mount("n1", sys.prefix, "-t", "tmpfs", "tmpfs")
    mount("n2", now, "--bind", old)
    with ThreadPoolExecutor() as pool:
        none, stale = pool.map(lambda node: job_on(cluster, node), ["n1", "n2"])
    assert re.search(rf"{re.escape(sys.executable)}: (not found|No such file or directory)", none), none
    assert (
        f"n2 does not see the environment that this was started from: numpy 1.0 instead of {numpy.__version__},"
        in stale
    )
    assert "Traceback" not in none + stale
