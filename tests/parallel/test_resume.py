"""A training that is killed goes on from its last checkpoint and ends with the same bytes; ports do not matter."""

import json
import socket
import subprocess
import time
from pathlib import Path

import forked
import psutil
import pytest
import tiny

from regdpo.core.digests import folder_digest
from regdpo.core.errors import UserError
from regdpo.launch.launcher import train
from regdpo.launch.options import LaunchOptions
from regdpo.train.checkpoint import complete

LIGHT = forked.LIGHT
LORA = {"rank": 2, "targets": ["to_q", "to_v"]}


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


AVERAGES = {"ema": 0.9, "reference_ema": {"decay": 0.5, "every": 2}, "export": "best", "eval_every": 1}


CASES = {
    "averages": {"tuning": "full", "checkpoint_every": 1, **AVERAGES},
    "cached": {"tuning": "lora", "parallel": {"reference": "cached", "pair": 2}},
}


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_is_undisturbed(world, tmp_path, case):
    """That with averages goes on really started, with seeds of its own for hashes: as what is forked, to the byte."""
    options = {"lora": LORA, "steps": 8, **CASES[case]}
    whole = tiny.job(world, tmp_path / "whole", **options)
    forked.train(whole, LaunchOptions(processes=2))

    (tmp_path / "killed").mkdir()
    killed = tiny.job(world, tmp_path / "killed", **options)
    first = forked.Launcher(killed, LaunchOptions(processes=2))
    deadline = time.monotonic() + 120
    while not list(Path(killed.run).glob("checkpoints/step_*")):
        assert first.poll() is None, first.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for process in [*psutil.Process(first.pid).children(recursive=True), first]:
        process.kill()
    first.wait()
    done = len(losses(Path(killed.run)))
    assert not (Path(killed.run) / "export").exists(), "the kill came too late to test anything"
    (train if case == "averages" else forked.train)(killed, LaunchOptions(processes=2))
    assert losses(Path(killed.run)) == losses(Path(whole.run))
    assert len(losses(Path(whole.run))) == 8 > done
    assert folder_digest(Path(killed.run) / "export") == folder_digest(Path(whole.run) / "export")


def test_a_taken_port_does_not_matter(light, tmp_path):
    """torchrun's usual port is in use; the ranks find another."""
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 29500))
            taken.listen()
        except OSError:
            pass  # somebody else has it: just as well
        forked.train(tiny.job(light, tmp_path / "run", objective="sft", steps=1), LaunchOptions(processes=1), LIGHT)
    assert (tmp_path / "run/export").exists()


def test_a_users_mistake_in_a_rank_is_its_one_line(light, tmp_path):
    job = tiny.job(light, tmp_path / "run", batch=3)
    with pytest.raises(UserError, match=r"^train.settings: batch 3 does not divide over 2 data ranks$"):
        forked.train(job, LaunchOptions(processes=2), LIGHT)


def test_a_missing_latent_is_named_before_the_first_step(light, tmp_path):
    latent = light.store.resolve(light.latents[0].path)
    hidden = latent.rename(latent.with_suffix(".hidden"))
    try:
        with pytest.raises(UserError, match=r"missing from the store"):
            forked.train(tiny.job(light, tmp_path / "run", objective="sft"), LaunchOptions(processes=1), LIGHT)
        assert not (tmp_path / "run/metrics.jsonl").exists()
    finally:
        hidden.rename(latent)


def test_a_crash_in_a_rank_is_told_with_its_root_cause(light, tmp_path):
    job = tiny.job(light, tmp_path / "run", objective="sft")
    broken = job.model_copy(update={"stage": job.stage.model_copy(update={"objective": "none"})})
    with pytest.raises(
        UserError, match=r"^training run failed: KeyError: 'none'; logs in .*/run/logs; the same command"
    ):
        forked.train(broken, LaunchOptions(processes=2), LIGHT)


def test_a_full_disk_leaves_the_last_checkpoint(world, tmp_path):
    """A real small file system for the run folder; with more room the same command goes on."""
    run = tmp_path / "run"
    run.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(run)], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        job = tiny.job(world, run, objective="sft", steps=12)
        with pytest.raises(UserError, match=rf"^no space left on the device while writing {run}"):
            forked.train(job, LaunchOptions(processes=2))
        kept = complete(run)
        assert kept
        assert not (run / "export").exists()
        subprocess.run(["mount", "-o", "remount,size=64m", str(run)], check=True)
        forked.train(job, LaunchOptions(processes=2))
        assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [
            *range(1, 13)
        ]
        assert (run / "export").is_dir()
    finally:
        subprocess.run(["umount", str(run)], check=True)
