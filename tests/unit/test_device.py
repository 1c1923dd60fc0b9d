"""Jobs of one machine, each with GPUs of its own. The GPUs are told of, not there: what is tested is who gets which."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from regdpo import device
from regdpo.errors import UserError

JOB = """
import sys, torch
torch.cuda.device_count = lambda: 4
from regdpo.device import taken, visible
with taken(int(sys.argv[1])) as mine:
    print(*[visible()[number] for number in mine], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    with ExitStack() as stack:

        def start(count: int, **environment: str) -> subprocess.Popen:
            process = subprocess.Popen(
                [sys.executable, "-c", JOB, str(count)],
                env=os.environ | {"TMPDIR": str(tmp_path)} | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def test_no_two_jobs_have_the_same_gpu(job):
    first = job(2)
    assert first.stdout.readline() == "0 1\n"
    second = job(1)
    assert second.stdout.readline() == "2\n"
    third = job(2)
    assert third.stderr.readline() == "waiting for 2 of 4 GPUs: other jobs have them\n"
    second.communicate()
    assert third.stdout.readline() == "2 3\n"
    fourth = job(1)
    assert fourth.stderr.readline() == "waiting for 1 of 4 GPUs: other jobs have them\n"
    first.kill()
    assert fourth.stdout.readline() == "0\n"


def test_names_are_those_that_the_job_was_given(job):
    """Of a part of the machine, and of another Slurm job, whose GPUs are others whatever they are called."""
    given = {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a"}
    assert [job(1, **given).stdout.readline() for _ in range(2)] == ["GPU-b\n", "GPU-a\n"]
    assert job(1, **given, SLURM_JOB_ID="7").stdout.readline() == "GPU-b\n"


def test_more_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"^2 GPUs are wanted and 1 are here"), device.taken(2):
        pass


def test_a_folder_of_somebody_else(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (tmp_path / "regdpo-gpus-12345-").mkdir()
    with pytest.raises(UserError, match="belongs to somebody else"), device.taken(1):
        pass
