"""Nodes that do not see the environment as the login node does."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import numpy
import pytest
import yaml
from sandbox import Sandbox
from slurm_project import SlurmProject


@pytest.fixture
def cover(cluster: Sandbox) -> Iterator[Callable[..., None]]:
    """Mounts something over a folder, on the first node alone."""

    def on_node(*command: object) -> None:
        inside = ["nsenter", "--target", str(cluster.process("n1")), "--mount", "--pid"]
        subprocess.run([*inside, *map(str, command)], check=True)

    with ExitStack() as stack:

        def mount(*arguments: object) -> None:
            on_node("mount", *arguments)
            stack.callback(on_node, "umount", "--lazy", arguments[-1])

        yield mount


def run(cluster: Sandbox, name: str) -> tuple[str, str]:
    """What Snakemake says of a job on the first node, and what Slurm's log of the job does."""
    project = SlurmProject(cluster.shared / name)
    path = project.folder / "profiles/slurm/profile.v9+.yaml"
    profile = yaml.safe_load(path.read_text())
    profile["default-resources"]["slurm_extra"] = "'--nodelist=n1'"
    path.write_text(yaml.safe_dump(profile))
    done = project.snakemake("results/clips/0.parquet", "--retries", "0")
    assert done.returncode == 1, done.stdout[-3000:]
    logs = [log.read_text() for log in (project.folder / "logs/slurm").rglob("*.log")]
    assert logs, done.stdout[-3000:]
    return done.stdout, "".join(logs)


def test_a_node_without_the_environment(cluster, cover):
    cover("-t", "tmpfs", "tmpfs", sys.prefix)
    said, log = run(cluster, "without")
    assert re.search(f"{sys.executable}: (not found|No such file or directory)", log)
    assert "Traceback" not in said + log


def test_a_node_with_an_old_copy_of_a_package(cluster, cover):
    """As a node-local disk may have it, at the same path."""
    now = Path(numpy.__file__).parents[1] / f"numpy-{version('numpy')}.dist-info"
    old = cluster.shared / "old"
    shutil.copytree(now, old)
    (old / "METADATA").write_text(
        (now / "METADATA").read_text().replace(f"Version: {version('numpy')}", "Version: 1.0")
    )
    cover("--bind", old, now)
    said, log = run(cluster, "old_copy")
    assert (
        f"n1 does not see the environment that this was started from: numpy 1.0 instead of {version('numpy')}, in"
        in log
    )
    assert "Traceback" not in said + log
