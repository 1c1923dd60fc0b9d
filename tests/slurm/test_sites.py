"""Sites differ: each changes its profile and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project import ROOT

RULES = """
rule vbench:
    output: "seen.txt"
    threads: 2
    resources: mem_mb=lambda wildcards, attempt: 1000 * attempt, runtime=5, gpu=1
    shell: "mkdir tried && exit 1; echo $CUDA_VISIBLE_DEVICES > {output}"
"""


def run(folder: Path, **changes: object) -> dict[str, str]:
    """A rule that fails the first time, by the profile with some keys changed; what it saw of GPUs."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/profile.v9+.yaml").read_text())
    profile |= {"slurm-init-seconds-before-status-checks": 4, "latency-wait": 5} | changes
    (folder / "profile").mkdir(parents=True)
    (folder / "profile/profile.v9+.yaml").write_text(yaml.safe_dump(profile))
    (folder / "Snakefile").write_text(RULES)
    done = subprocess.run(
        [Path(sys.executable).parent / "snakemake", "--profile", "profile", "--nocolor", "seen.txt"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return (folder / "seen.txt").read_text().strip()


@pytest.fixture
def asked(cluster):
    """Resources that Slurm's jobs of this test asked for."""
    before = len(cluster.sacct(fields="JobID"))
    return lambda: [job["ReqTRES"] for job in cluster.sacct(fields="ReqTRES")[before:]]


TWICE = [f"billing=2,cpu=2,gres/gpu=1,mem={memory}M,node=1" for memory in (1000, 2000)]


def test_only_gres_is_accepted(cluster, asked):
    gres = {"slurm_partition": "gpu", "gpu": 0, "gres": "gpu:1"}
    assert run(cluster.shared / "gres", **{"set-resources": {"vbench": gres}}) == "0"
    assert asked() == TWICE


def test_several_kinds_of_gpus(cluster, asked):
    kind = {"slurm_partition": "gpu", "gpu_model": "fake", "mem_mb": "1500 * attempt"}
    assert run(cluster.shared / "kinds", **{"set-resources": {"vbench": kind}}) == "0"
    assert [amount.split("mem=")[1] for amount in asked()] == ["1500M,node=1", "3000M,node=1"]


def test_no_accounting(cluster, asked, monkeypatch):
    """The clients are told that there is none: sacct then answers as it does at such a site."""
    config = cluster.folder / "no_accounting.conf"
    lines = Path(cluster.environment["SLURM_CONF"]).read_text().splitlines()
    config.write_text("\n".join(line for line in lines if not line.startswith("Accounting")))
    monkeypatch.setenv("SLURM_CONF", str(config))
    assert subprocess.run(["sacct"], capture_output=True).returncode != 0
    assert run(cluster.shared / "no_accounting", **{"slurm-status-command": "squeue"}) == "0"
    assert asked() == TWICE
