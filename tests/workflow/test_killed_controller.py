"""Ctrl-C and kill -9 of Snakemake, and the one command after it; real runs."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from project import CONFIG, Project

LOCKED, STEPS = "Directory cannot be locked", 80


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    yield Project(tmp_path)
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(tmp_path):
                process.kill()
        except psutil.Error:
            pass


def unlock(project: Project, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/unlock.py", *arguments]
    _, options = project.command()
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)


def killed(running: subprocess.Popen) -> None:
    os.kill(running.pid, signal.SIGKILL)
    running.wait()


def test_ctrl_c_then_killed_and_it_goes_on_after_one_command(project):
    values = copy.deepcopy(CONFIG)
    values["clips"] |= {"stride": 2, "crops": [2, 2]}  # enough to be still at work when it is cancelled
    project.configure(values)
    target = "results/clips.parquet"
    assert "no run of the workflow was here" in unlock(project).stdout

    def cut() -> set[Path]:
        return set((project.folder / "store").rglob("*.mp4"))

    project.interrupt(project.started(target, lambda: len(cut()) > 3))
    kept = cut()
    running = project.started(target, lambda: len(cut()) > len(kept) + 3)

    living = unlock(project)
    assert living.returncode == 2
    assert f"a run lives, nothing was unlocked: process {running.pid} on " in living.stdout
    assert ", last heartbeat " in living.stdout
    killed(running)
    assert LOCKED in project.snakemake(target).stdout

    refused = unlock(project)
    assert refused.returncode == 2
    assert "of the dead run still works here: process " in refused.stdout
    assert LOCKED in project.snakemake(target).stdout
    freed = unlock(project, "--cancel")
    assert freed.returncode == 0, freed.stdout
    assert freed.stdout.startswith("ended:\n  process ")
    assert freed.stdout.endswith("clips\nunlocked: the same command goes on\n")
    done = project.snakemake(target)
    assert done.returncode == 0, done.stdout[-3000:]
    assert kept < cut()
    assert unlock(project).stdout == "nothing was locked\n"
    assert not list((project.folder / ".snakemake/regdpo/runs").iterdir())


def test_a_training_stopped_then_outliving_its_run(finished, project):
    """Ctrl-C: it saves and leaves. Then kill -9: it trains on, and the next run takes its result."""
    for name in ("store", "results", ".snakemake"):
        shutil.copytree(finished.folder / name, project.folder / name, copy_function=shutil.copy)  # clocks of now
    values = copy.deepcopy(CONFIG)
    values["train"]["settings"]["steps"] = STEPS
    values["launch"]["processes"] = 1
    project.configure(values)
    target, before = "results/train/dpo/seed0/model.json", set(project.folder.glob("store/runs/*/*"))

    def saved() -> set[str]:
        return {path.name for run in runs() for path in run.glob("checkpoints/step_*")}

    def runs() -> set[Path]:
        return set(project.folder.glob("store/runs/*/*")) - before

    shorter = "step_0000004"  # of the same training with four steps, from where it goes on
    said = project.interrupt(project.started(target, lambda: saved() - {shorter}))
    told = re.search(rf"training dpo/seed0 stopped at step (\d+)/{STEPS} as asked \(SIGINT\)", said)
    assert told, said[-3000:]
    old = saved()

    killed(project.started(target, lambda: saved() - old))
    freed = unlock(project)
    assert freed.returncode == 0, freed.stdout
    assert "goes on (--cancel ends it):\n  process " in freed.stdout
    assert "train dpo/seed0\nThe next run waits for trainings" in freed.stdout
    done = project.snakemake(target)
    assert done.returncode == 0, done.stdout[-3000:]
    (run,) = runs()
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1)), "trained once"
    assert re.findall(r"from step (\d+);", (run / "log.txt").read_text()) == ["4", told[1]]
    assert json.loads((run / "lease/0000002.json").read_text())["released"]
    assert not (run / "lease/0000003.json").exists()


def test_a_lock_of_nobody_known_is_left_alone(project):
    locks = project.folder / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("x\n")
    done = unlock(project)
    assert done.returncode == 2
    assert "who took the lock is not known" in done.stdout
    assert list(locks.iterdir())
