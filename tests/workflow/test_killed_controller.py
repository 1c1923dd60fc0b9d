"""kill -9 of Snakemake, and the one command after it; real runs."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from project import CONFIG, Project

LOCKED = "Directory cannot be locked"


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


def started(project: Project, target: str, begun: Callable[[], bool]) -> subprocess.Popen:
    command, options = project.command(target)
    log = project.folder / "out.log"
    with log.open("w") as out:
        running = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **options)
    deadline = time.monotonic() + 240
    while not begun():
        assert running.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)
    return running


def killed(running: subprocess.Popen) -> None:
    os.kill(running.pid, signal.SIGKILL)
    running.wait()


def test_a_killed_run_goes_on_after_one_command(project):
    values = copy.deepcopy(CONFIG)
    values["clips"] |= {"stride": 2, "crops": [2, 2]}  # enough to be caught at work
    project.configure(values)
    target = "results/clips.parquet"
    assert "no run of the workflow was here" in unlock(project).stdout
    running = started(project, target, lambda: len(list((project.folder / "store").rglob("*.mp4"))) > 3)

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
    assert unlock(project).stdout == "nothing was locked\n"
    assert not list((project.folder / ".snakemake/regdpo/runs").iterdir())


def test_a_training_outlives_the_run_and_the_next_takes_its_result(finished, project):
    for name in ("store", "results", ".snakemake"):
        shutil.copytree(finished.folder / name, project.folder / name, copy_function=shutil.copy)  # clocks of now
    values = copy.deepcopy(CONFIG)
    values["train"]["settings"]["steps"] = 60
    project.configure(values)
    target, before = "results/train/dpo/seed0/model.json", set(project.folder.glob("store/runs/*/*"))

    def run() -> Path | None:
        return next(iter(set(project.folder.glob("store/runs/*/*")) - before), None)

    killed(started(project, target, lambda: bool((it := run()) and list(it.glob("checkpoints/step_*")))))
    freed = unlock(project)
    assert freed.returncode == 0, freed.stdout
    assert "goes on (--cancel ends it):\n  process " in freed.stdout
    assert "train dpo/seed0\nThe next run waits for trainings" in freed.stdout
    done = project.snakemake(target)
    assert done.returncode == 0, done.stdout[-3000:]
    steps = [json.loads(line)["step"] for line in (run() / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61)), "trained once"
    assert json.loads((run() / "lease/0000001.json").read_text())["released"]
    assert not (run() / "lease/0000002.json").exists()


def test_a_lock_of_nobody_known_is_left_alone(project):
    locks = project.folder / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("x\n")
    done = unlock(project)
    assert done.returncode == 2
    assert "who took the lock is not known" in done.stdout
    assert list(locks.iterdir())
