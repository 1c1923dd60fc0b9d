"""What a launcher does before ranks start, and what it makes of their end."""

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import tiny
import torch
from torchx.schedulers.local_scheduler import SignalException
from torchx.specs import AppState, macros

from regdpo.core.errors import Unfinished, UserError
from regdpo.launch import backends
from regdpo.launch.backends import CRASH, HEAD, ROLE, Refusal, _application
from regdpo.launch.launcher import Launch, OutOfTime
from regdpo.launch.options import LaunchOptions, Shape
from regdpo.launch.plan_check import planned
from regdpo.launch.run_log import RunLog
from regdpo.launch.time_limit import OUT_OF_TIME
from regdpo.plan.memory import GIB
from regdpo.runs.stop import Asked
from regdpo.runtime.gpus import taken
from regdpo.runtime.lease import Lease
from regdpo.runtime.slurm import Allocation

SIZE = {"sizes": [(9, 32, 32)]}


def test_a_training_that_cannot_fit_is_refused(world, tmp_path):
    job = tiny.job(world, tmp_path / "run")
    options = LaunchOptions(processes=2, **SIZE)
    with pytest.raises(UserError, match=r"needs [\d.]+ of 0.0 GiB per rank .*launch.force: true to try anyway"):
        planned(job, options, "NVIDIA H100 80GB HBM3", 0.01 * GIB)
    assert planned(job, options, "NVIDIA H100 80GB HBM3", 80 * GIB).peak_flops == 989e12
    assert planned(job, options.model_copy(update={"force": True}), "other", 0.01 * GIB).peak_flops is None


def test_what_a_step_needs(world, tmp_path):
    """Six passes' worth of FLOPs for winner and loser, trained fully, and two for the reference; none for sft's loser."""
    options = LaunchOptions(processes=1, **SIZE)
    flops = {
        objective: planned(tiny.job(world, tmp_path / "run", objective=objective), options, "", 80 * GIB).step_flops[
            world.latents[0].shape
        ]
        for objective in ("sft", "dpo")
    }
    config = tiny.base_config()["pretrain"]["transformer"]
    width, tokens, text = config["heads"] * config["head_dim"], 3 * 2 * 2, 8
    # of a block: q, k, v and o of self-attention, q and o of cross-attention over tokens, k and v over text, two of ffn
    linear = 2 * width * (width * (6 * tokens + 2 * text) + 2 * tokens * config["ffn_dim"])
    forward = config["layers"] * (linear + 4 * tokens * width * (tokens + text))
    assert flops["sft"] == pytest.approx(4 * 3 * forward, rel=0.25)  # what is not in blocks comes on top
    assert flops["dpo"] / flops["sft"] == pytest.approx(8 / 3, rel=0.02)


def test_what_cannot_be_planned_starts_unchecked(world, tmp_path, capsys):
    job = tiny.job(world, tmp_path / "run")
    assert planned(job, LaunchOptions(processes=2), "", 1.0) == job
    assert "not checked against the plan: the size of the clips is not given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("restarts", "requeue", "why"),
    [(3, True, r"\(launch.requeues: 3 are spent\)"), (0, False, r"Slurm job 17 may not be requeued: slurm-requeue")],
)
def test_a_job_whose_time_is_over_is_not_requeued_forever(world, tmp_path, restarts, requeue, why):
    launch = Launch(tiny.job(world, tmp_path / "run"), LaunchOptions(requeues=3), "dpo/seed0")
    launch.allocation = Allocation("17", ("n1",), restarts, requeue)
    with pytest.raises(OutOfTime, match=why):
        launch._requeue(OutOfTime("training dpo/seed0 stopped at step 5/9"))


def test_each_machine_tells_of_its_crash_in_a_file_of_its_own(tmp_path):
    (role,) = _application(tmp_path, Shape(nodes=2, each=4)).roles
    files = [macros.Values("", "", str(machine), HEAD).apply(role).env["TORCHELASTIC_ERROR_FILE"] for machine in (0, 1)]
    assert len(set(files)) == 2
    assert all(Path(file).match(f"{tmp_path}/{CRASH}") for file in files)


def test_ranks_of_this_machine_see_gpus_of_their_own(tmp_path, monkeypatch, caplog):
    """A module in the place of the trainer says what it sees; the GPUs are told of, not there."""
    (tmp_path / f"{ROLE}.py").write_text("import os; print('sees', os.environ['CUDA_VISIBLE_DEVICES'])")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(backends, "MODULE", ROLE)
    with taken(1), backends.OneMachine(RunLog(tmp_path), tmp_path, Shape(nodes=1, each=2, gpus=2), "cuda") as here:
        while not here.ended():
            time.sleep(0.1)
        here.join()
    said = [line for line in here.run_log.path.read_text().splitlines() if "sees" in line]
    assert sorted(said) == ["[0]:sees 5,6", "[1]:sees 5,6"]
    assert not [it for it in caplog.records if it.name.startswith("torchx")], "it says that GPUs may be shared"


def test_ranks_that_still_die_are_no_other_launchers(world, tmp_path, monkeypatch):
    """Those of a torchrun that was killed; another launcher's live on."""
    launch = Launch(tiny.job(world, tmp_path / "run"), LaunchOptions(), "dpo/seed0")
    lease = Lease.acquire(launch.run)
    dying = threading.Timer(1, lease.release)
    dying.start()
    assert not launch._other_came_first()
    monkeypatch.setattr("regdpo.launch.launcher.GONE", 0.5)
    lease = Lease.acquire(launch.run)
    assert launch._other_came_first()
    lease.release()


def test_a_run_folder_is_its_users_alone(tmp_path):
    RunLog(tmp_path / "runs/key")
    assert (tmp_path / "runs/key").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("age", "lives"), [(0, True), (3600, False), (-3600, False)])
def test_a_job_that_accounting_does_not_know_is_waited_for_while_it_may_be_new(tmp_path, monkeypatch, age, lives):
    """An hour in the future: the clock was set back."""
    handle = tmp_path / backends.HANDLE
    handle.write_text("slurm://torchx/17")
    os.utime(handle, (time.time() - age,) * 2)
    monkeypatch.setattr(backends, "_state", lambda runner, handle: AppState.UNKNOWN)
    assert bool(backends.left_behind(tmp_path)) == lives


def test_what_a_person_writes_into_stop_is_a_reason_whatever_it_is():
    for text, reason in {
        "end of the\nweek\n": "end of the week",
        OUT_OF_TIME: OUT_OF_TIME,
        "": "stop file",
        "5": "5",
        '{"out_of_time": true}': '{"out_of_time": true}',
    }.items():
        assert Asked.read(text) == Asked(reason=reason)
    asked = Asked(reason=OUT_OF_TIME, out_of_time=True)
    assert Asked.read(asked.model_dump_json()) == asked


def test_what_a_machine_refuses_is_no_other_line():
    refusal = Refusal(refused="machine n2 does not see it")
    assert Refusal.of(refusal.model_dump_json()) == refusal
    assert not any(Refusal.of(line) for line in ("error: anything", "{", '{"refused": 1}', "[0]:{}", ""))


def test_a_signal_while_ranks_are_being_started(world, tmp_path, monkeypatch):
    """torchx heeds it until the launcher does."""

    def interrupted(self: Launch) -> None:
        raise SignalException("Process 1 got signal: 2", signal.SIGINT)

    monkeypatch.setattr(Launch, "_ranks", interrupted)
    launch = Launch(tiny.job(world, tmp_path / "run"), LaunchOptions(processes=1), "dpo/seed0")
    with pytest.raises(
        Unfinished, match=r"^training dpo/seed0 was ended \(SIGINT\) with nothing saved; the same command"
    ):
        launch.to_the_end()
