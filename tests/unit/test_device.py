"""Jobs of one machine, each with GPUs of its own. The GPUs are told of, not there: what is tested is who gets which."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from regdpo.core.errors import UserError
from regdpo.launch import plan_check
from regdpo.launch.plan_check import device_of
from regdpo.models import device
from regdpo.runtime import gpus

pytestmark = pytest.mark.slow

JOB = """
import sys
from types import SimpleNamespace
sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: 4))
from regdpo.runtime.gpus import taken, visible
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
    with pytest.raises(UserError, match=r"^2 GPUs are wanted and 1 are here"), gpus.taken(2):
        pass


def test_a_folder_of_somebody_else(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (tmp_path / "regdpo-gpus-12345-").mkdir()
    with pytest.raises(UserError, match="belongs to somebody else"), gpus.taken(1):
        pass


OLD = "The NVIDIA driver on your system is too old (found version 12020).\nPlease update"


@pytest.mark.parametrize(
    ("cuda", "said", "work"),
    [
        (None, "Torch not compiled with CUDA enabled", False),
        ("13.0", "Found no NVIDIA driver on your system.", False),
        ("13.0", "No CUDA GPUs are available", False),
        ("13.0", OLD, None),
    ],
)
def test_gpus_that_cannot_be_used_are_not_passed_over(monkeypatch, cuda, said, work):
    """With `auto`, as with `cuda`; a machine without any is the CPU."""

    def init() -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    if work is not None:
        assert gpus.gpus_work() == work
        assert device_of("auto", 1) == "cpu"
        assert device.pick("auto") == torch.device("cpu")
        return
    for call in (lambda: device.pick("auto"), lambda: device_of("auto", 1), lambda: device_of("cuda", 1)):
        with pytest.raises(
            UserError, match=r"cannot be used: The NVIDIA driver .* \(found version 12020\)\. \(torch 2"
        ):
            call()


def test_the_launcher_asks_a_gpu_that_no_other_job_has(job, monkeypatch, tmp_path):
    """This torch cannot answer, and that is one line."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    assert job(2).stdout.readline() == "0 1\n"
    with pytest.raises(UserError, match=r"^GPU 2 does not answer: AssertionError: Torch not compiled with CUDA"):
        plan_check.gpu_found()


@pytest.mark.parametrize("given", [{}, {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, {"PYTORCH_ALLOC_CONF": "x"}])
def test_the_allocator_is_set_where_nobody_did(given):
    ask = "import os, regdpo; print({name: value for name, value in os.environ.items() if 'ALLOC_CONF' in name})"
    clean = {name: value for name, value in os.environ.items() if "ALLOC_CONF" not in name}
    said = subprocess.run([sys.executable, "-c", ask], env=clean | given, capture_output=True, text=True).stdout
    assert said.strip() == str(given or {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})
