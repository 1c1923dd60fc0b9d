"""Which attention backend is taken, and that the GPU is asked once; times and GPU are made up."""

import json
from types import SimpleNamespace

import pytest
import torch

from regdpo.core.errors import UserError
from regdpo.parallel import attention

CUDA, BF16 = torch.device("cuda"), torch.bfloat16
HOPPER = {"_native_flash": 4.0, "_native_cudnn": 2.0, "native": 3.9}


class Model(torch.nn.Module):
    """One that has some backends."""

    config = SimpleNamespace(attention_head_dim=128)

    def __init__(self, *there: str):
        super().__init__()
        self.there, self.taken = there, ""

    def set_attention_backend(self, name: str) -> None:
        if name not in self.there:
            raise RuntimeError(f"{name} is not installed")
        self.taken = name


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """What was timed, in order."""
    calls: list[str] = []

    def seconds(backend: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> float:
        assert head_dim == 128
        calls.append(backend)
        if backend not in HOPPER:
            raise RuntimeError("no kernel found")
        return HOPPER[backend]

    monkeypatch.setattr(attention, "seconds", seconds)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    return calls


def test_the_fastest_is_taken_and_remembered(timed, monkeypatch):
    model = Model(*HOPPER)
    assert attention.choose(model, CUDA, BF16) == model.taken == "_native_cudnn"
    assert timed == list(HOPPER)
    assert attention.choose(Model(*HOPPER), CUDA, BF16) == "_native_cudnn"
    assert timed == list(HOPPER), "nothing is timed twice"
    kept = json.loads(attention.remembered().read_text())
    assert [*kept.values()] == [HOPPER]
    assert "H100" in next(iter(kept))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L40S")
    attention.choose(Model(*HOPPER), CUDA, BF16)
    assert timed == 2 * list(HOPPER), "another GPU is asked"
    attention.choose(Model("flash", *HOPPER), CUDA, BF16)
    assert len(timed) == 2 * len(HOPPER) + 4, "another backend is there"
    assert len(json.loads(attention.remembered().read_text())) == 2


def test_a_deterministic_training_asks_nobody(timed):
    assert attention.choose(Model("flash", *HOPPER), CUDA, BF16, deterministic=True) == "_native_flash"
    assert attention.choose(Model(*HOPPER), CUDA, torch.float32) == "native"
    assert attention.choose(Model(*HOPPER), CUDA, BF16, "_native_flash") == "_native_flash"
    assert not timed
    with pytest.raises(UserError, match=r"attention: _native_cudnn is not to be had here \(its backward pass"):
        attention.choose(Model(*HOPPER), CUDA, BF16, "_native_cudnn", deterministic=True)


def test_what_is_alike_keeps_its_order(tmp_path):
    times = {"a": 1.0, "b": 0.99, "c": 0.9}
    file = tmp_path / "file.json"
    assert attention.fastest(["a", "b"], "x", times.__getitem__, file) == "a"
    assert attention.fastest(["a", "b", "c"], "y", times.__getitem__, file) == "c"


def test_what_cannot_run_after_all_is_passed_over(timed):
    assert attention.choose(Model("flash", "_native_flash"), CUDA, BF16) == "_native_flash"


@pytest.mark.parametrize("text", ["[1]", "{", '{"x": 3}', '{"x": {"a": 1}}'])
def test_a_spoilt_memory_is_no_memory(text, tmp_path):
    file = tmp_path / "file.json"
    file.write_text(text)
    times = {"a": 2.0, "b": 1.0}
    assert attention.fastest(["a", "b"], "x", times.__getitem__, file) == "b"
    assert json.loads(file.read_text())["x"] == times


def test_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    assert attention.fastest(["a", "b"], "x", {"a": 2.0, "b": 1.0}.__getitem__, tmp_path / "file/x.json") == "b"
