"""The life of a run folder: stopped in good order, killed, taken over, refused; real launchers and ranks."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import forked
import psutil
import tiny

from regdpo.core.digests import folder_digest
from regdpo.core.environment import environment
from regdpo.core.errors import EXIT_UNFINISHED, EXIT_USER_ERROR
from regdpo.launch.launcher import living
from regdpo.launch.options import LaunchOptions
from regdpo.runs.job import Job

STEPS = 120
SETTINGS = {"objective": "sft", "steps": STEPS, "tuning": "full"}


class Launcher:
    """A launcher in a process group of its own, as a terminal starts one."""

    def __init__(self, job: Job, grace: float = 60, start: Callable[..., Any] = forked.Launcher):
        self.run = Path(job.run)
        self.process = start(job, LaunchOptions(processes=2, grace=grace), "dpo/seed3", forked.LIGHT)
        self.family: list[psutil.Process] = []

    def wait_until(self, true) -> None:
        deadline = time.monotonic() + 180
        while not true():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.note()

    def note(self) -> None:
        if self.process.poll() is None:
            self.family = self.children()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def listening(self) -> set[str]:
        """Addresses at which it, its torchrun or its ranks take connections."""
        processes = [psutil.Process(self.process.pid), *self.children()]
        sockets = [it for process in processes for it in process.net_connections("inet")]
        return {it.laddr.ip for it in sockets if not it.raddr}

    def wait_for_steps(self, count: int) -> None:
        """Until this launcher's ranks have done so many steps."""
        self.wait_until(lambda: living(self.run))
        before = len(rows(self.run))
        self.wait_until(lambda: len(rows(self.run)) >= before + count)

    def waits(self) -> None:
        """Until it says so."""
        line = self.process.stderr.readline()
        assert line.startswith(f"training dpo/seed3: process {living(self.run).pid} on ")
        assert f"trains in {self.run} (step " in line
        assert not self.children()

    def end(self) -> tuple[int, str]:
        """Exit code and last line; nothing of it is left."""
        said = self.process.stderr.read()
        self.process.wait(120)
        assert "Traceback" not in "".join(line for line in said.splitlines() if not line.startswith("["))
        gone = psutil.wait_procs(self.family, timeout=60)[1]
        assert not gone, gone
        return self.process.returncode, said.splitlines()[-1] if said else ""


@contextmanager
def launched(job: Job, **options):
    """Whatever the test does, nothing outlives it."""
    launcher = Launcher(job, **options)
    try:
        yield launcher
    finally:
        launcher.note()
        launcher.process.kill()
        for process in launcher.family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        launcher.process.wait()


def rows(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines(True) if line[-1] == "\n"] if path.exists() else []


def stopped_at(run: Path, reason: str, line: str, saved: bool = True) -> None:
    """The line says the step; it is that of the last metrics, and a checkpoint is there if there was a step."""
    step = len(rows(run))
    assert line == f"training dpo/seed3 stopped at step {step}/{STEPS} as asked ({reason}); the same command goes on"
    assert (run / f"checkpoints/step_{step:07d}").is_dir() == saved
    assert not (run / "stop").exists()
    assert living(run) is None


def test_disturbed_in_every_way_it_ends_as_undisturbed(light, tmp_path):
    """No periodic checkpoints: what is kept was saved when it was asked to stop. The path is hard on launchers."""
    whole = tiny.job(light, tmp_path / "whole", **SETTINGS).model_copy(update={"checkpoint_every": STEPS})
    forked.train(whole, LaunchOptions(processes=2), forked.LIGHT)

    folder = tmp_path / "a=b,c=$d e"
    folder.mkdir()
    job = tiny.job(light, folder / "run", **SETTINGS).model_copy(update={"checkpoint_every": STEPS})
    run = Path(job.run)

    with launched(job) as launcher:
        launcher.wait_for_steps(2)
        assert launcher.listening() == {"127.0.0.1"}, "strangers can reach it"
        for process in [*launcher.family, launcher.process]:  # a cluster tells everyone
            process.terminate()
        code, line = launcher.end()
    assert code == EXIT_UNFINISHED == 75
    stopped_at(run, "SIGTERM", line)

    with launched(job) as launcher:
        launcher.wait_for_steps(2)
        with launched(job) as second:
            second.waits()
            (run / "stop").write_text("end of the week\n")
            code, line = launcher.end()
            assert second.end() == (code, line)
    assert code == EXIT_UNFINISHED
    stopped_at(run, "end of the week", line)
    saved = len(rows(run))

    with launched(job) as launcher:
        launcher.wait_for_steps(2)
        os.kill(living(run).pid, signal.SIGKILL)
        code, line = launcher.end()
    assert code == EXIT_USER_ERROR
    assert line.startswith("error: training dpo/seed3 failed: rank 0 was ended by SIGKILL")
    assert line.endswith(f"logs in {run / 'logs'}; the same command goes on from the last checkpoint")
    (run / "stop").write_text("stale")

    with launched(job) as launcher:
        launcher.wait_for_steps(2)
        assert rows(run)[0]["step"] == 1
        assert len(rows(run)) > saved
        os.killpg(launcher.process.pid, signal.SIGINT)
        code, line = launcher.end()
    assert code == EXIT_UNFINISHED
    stopped_at(run, "SIGINT", line)

    assert len(rows(run)) < STEPS, "too quick to test anything"
    with launched(job) as launcher:
        launcher.wait_for_steps(2)
        with launched(job) as second:  # takes the result
            second.waits()
            assert launcher.end()[0] == 0
            assert second.end()[0] == 0
    losses = [row["loss"] for row in rows(run)]
    assert len(losses) == STEPS
    assert losses == [row["loss"] for row in rows(Path(whole.run))]
    assert folder_digest(run / "export") == folder_digest(Path(whole.run) / "export")


def test_asked_before_the_first_step(light, tmp_path):
    job = tiny.job(light, tmp_path / "run", **SETTINGS)
    with launched(job, start=forked.started) as launcher:
        launcher.wait_until(launcher.children)
        (tmp_path / "run/stop").touch()
        code, line = launcher.end()
    assert code == EXIT_UNFINISHED
    stopped_at(tmp_path / "run", "stop file", line, saved=False)
    with launched(job, start=forked.started) as launcher:
        launcher.wait_until(launcher.children)
        launcher.process.terminate()
        code, line = launcher.end()
    assert code == EXIT_UNFINISHED
    assert line.startswith("training dpo/seed3 was ended (SIGTERM) with nothing saved; ")


def _ignoring(job: Job) -> bool:
    """Train in a process that ignores SIGINT, and send it one once there are steps; whether it was sent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sent = threading.Event()

    def send() -> None:
        while not rows(Path(job.run)):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        sent.set()

    threading.Thread(target=send, daemon=True).start()
    forked._train(job, LaunchOptions(processes=1), "", forked.LIGHT)
    return sent.is_set()


def test_a_signal_that_is_ignored_stays_so(light, tmp_path):
    """As scripts start what they put behind them; torchx would heed it."""
    job = tiny.job(light, tmp_path / "run", objective="sft", steps=20)
    assert forked.call(_ignoring, job)
    assert (tmp_path / "run/export").is_dir()


def test_a_rank_with_a_stale_copy_of_the_environment(light, tmp_path):
    seen = re.sub(r"\btorch==\S+", "torch==2.0", environment())
    job = tiny.job(light, tmp_path / "run", **SETTINGS).model_copy(update={"environment": seen})
    with launched(job) as launcher:
        code, line = launcher.end()
    assert code == EXIT_USER_ERROR
    assert re.search(
        rf"{socket.gethostname()} does not see the environment .*: torch 2\.13\S* instead of 2\.0, in", line
    )
    assert not (tmp_path / "run/lease").exists()


def test_ranks_that_cannot_save_are_ended_after_the_grace(light, tmp_path):
    job = tiny.job(light, tmp_path / "run", **SETTINGS)
    with launched(job, grace=2) as launcher:
        launcher.wait_for_steps(2)
        os.kill(living(Path(job.run)).pid, signal.SIGSTOP)
        os.killpg(launcher.process.pid, signal.SIGINT)
        code, line = launcher.end()
    assert code == EXIT_UNFINISHED
    assert line.startswith("training dpo/seed3 was ended (SIGINT) with nothing saved; ")
    assert living(Path(job.run)) is None


def test_ranks_outlive_the_launcher_but_not_torchrun(light, tmp_path):
    job = tiny.job(light, tmp_path / "run", **{**SETTINGS, "steps": 10_000})
    run = Path(job.run)
    with launched(job) as launcher:
        launcher.wait_for_steps(2)
        launcher.process.kill()
        first = living(run).pid
        with launched(job) as second:
            second.waits()
            before = len(rows(run))
            second.wait_until(lambda: len(rows(run)) > before)
            assert living(run).pid == first
            psutil.Process(first).parent().kill()
            second.wait_until(lambda: (owner := living(run)) and owner.pid != first)
            launcher.end()
            second.wait_for_steps(2)
            psutil.Process(living(run).pid).parent().kill()
            code, line = second.end()  # it does not take its own ranks, which are still going, for another's
        assert code == EXIT_USER_ERROR
        assert line.startswith("error: training dpo/seed3 failed: ")
    assert living(run) is None
