"""Sites differ: each changes its profile and nothing else."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from project import ROOT
from slurm_project import SOON

RULES = """
rule render_samples:
    output: "seen.txt"
    threads: 2
    resources: mem_mb=lambda wildcards, attempt: 1000 * attempt, runtime=5, gpu=1
    shell: "mkdir tried || echo $CUDA_VISIBLE_DEVICES > {output}; test -e {output}"
"""
GPU = {"slurm_partition": "gpu"}
SITES = {
    "gres": {"set-resources": {"render_samples": {**GPU, "gpu": 0, "gres": "gpu:1"}}},
    "gres_by_threads": {"set-resources": {"render_samples": {**GPU, "gpu": 0, "gres": "f'gpu:{threads}'"}}},
    "kinds": {"set-resources": {"render_samples": {**GPU, "gpu_model": "fake", "mem_mb": "1500 * attempt"}}},
    "no_accounting": {"slurm-status-command": "squeue"},
}
MANY = {"gres_by_threads": 2}
MEMORY = {"kinds": 1500}


@pytest.fixture(scope="module")
def sites(cluster) -> dict[str, tuple[Path, int, str]]:
    """At each site at the same time: a rule that fails when it is first tried. Its folder, exit code, what was said."""
    without = cluster.folder / "no_accounting.conf"
    lines = Path(cluster.environment["SLURM_CONF"]).read_text().splitlines()
    without.write_text("\n".join(line for line in lines if not line.startswith("Accounting")))
    running = {}
    for site, changes in SITES.items():
        folder = cluster.shared / site
        profile = yaml.safe_load((ROOT / "profiles/slurm/profile.v9+.yaml").read_text())
        profile |= {"slurm-init-seconds-before-status-checks": 4, "latency-wait": 5} | changes
        (folder / "profile").mkdir(parents=True)
        (folder / "profile/profile.v9+.yaml").write_text(yaml.safe_dump(profile))
        (folder / "Snakefile").write_text(RULES)
        running[site] = subprocess.Popen(
            [*SOON, "--profile", "profile", "--nocolor", "seen.txt"],
            cwd=folder,
            env=os.environ | ({"SLURM_CONF": str(without)} if site == "no_accounting" else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    said = {site: process.communicate(timeout=200)[0] for site, process in running.items()}
    return {site: (cluster.shared / site, process.returncode, said[site]) for site, process in running.items()}


@pytest.mark.parametrize("site", SITES)
def test_the_rule_gets_its_gpus_and_more_memory_when_tried_again(cluster, sites, site):
    folder, code, said = sites[site]
    assert code == 0, said[-3000:]
    gpus = MANY.get(site, 1)
    assert len((folder / "seen.txt").read_text().strip().split(",")) == gpus
    jobs = [job for job in cluster.sacct(fields="WorkDir,Partition,ReqTRES") if job["WorkDir"] == str(folder)]
    memory = MEMORY.get(site, 1000)
    asked = [f"billing=2,cpu=2,gres/gpu={gpus},mem={attempt * memory}M,node=1" for attempt in (1, 2)]
    assert [(job["Partition"], job["ReqTRES"]) for job in jobs] == [("gpu", amounts) for amounts in asked]


def test_no_accounting_is_none(cluster):
    """What the clients of that site were told."""
    config = {"SLURM_CONF": str(cluster.folder / "no_accounting.conf")}
    done = subprocess.run(["sacct"], env=os.environ | config, capture_output=True, text=True, check=False)
    assert "accounting storage is disabled" in done.stderr
