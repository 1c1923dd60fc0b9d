"""benchmarks/gpu.py: all of it in miniature, and what becomes of a part that hangs, crashes or runs out of memory."""

import ast
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import gpu
from gpu_parts import blocks, results, runner, wheels
from gpu_parts.bench import Bench
from gpu_parts.longest import longest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ABOUT = {"title": "", "command": "", "commit": "", "date": "", "machine": {"python": "3"}}


def test_everything_in_miniature(tmp_path, monkeypatch):
    """In this process, which has loaded torch; but for the larger of two lists of steps, which is the same code."""
    names = ["resume", "steps_14B", "attention", "share", "longest", "vae"]
    wanted = ["--dry", "--budget", "2400", "--parts", ",".join(names), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks/gpu.py", *wanted])
    for name, value in gpu.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert gpu.main() == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert [(part["name"], part["state"]) for part in found["parts"]] == [(name, "done") for name in names]
    rows = {part["name"]: part["rows"] for part in found["parts"]}
    assert all(name == "attention" or "failed" not in row for name, part in rows.items() for row in part)
    (resumed,) = rows["resume"]
    assert resumed["same bytes"] is True
    assert resumed["resumed from"] == "step_0000002"
    attention = {row["backend"]: row for row in rows["attention"]}
    assert "is not to be had here" in attention["_flash_3_hub"]["failed"]
    assert attention["native"]["error of dq"] < 1e-5
    assert attention["native"]["same bytes twice, deterministic"]
    assert all(row["step, s"] > 0 and row["plan, GiB"] > 0 for row in rows["steps_14B"])
    assert rows["share"][0]["layout"] == "context 4, pair 2, activation_checkpointing full"
    assert rows["longest"][0]["trials"] > 1
    page = (tmp_path / "README.md").read_text()
    assert "| model | frames |" in page
    assert "## vae" in page


def hang(bench):
    bench.row(lambda: {"value": 1}, case="quick")
    bench.row(lambda: time.sleep(600), case="slow")


def crash(bench):
    bench.row(lambda: {"value": 2}, case="before")
    os.kill(os.getpid(), signal.SIGKILL)


def fall(bench):
    print("something else")
    raise RuntimeError("no kernel image is available")


def out_of_memory(bench):
    def measure():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.\nGPU 0 has ...")

    bench.row(measure, case="large")
    bench.row(lambda: {"value": 3}, case="small")
    bench.row(lambda: {}, needs=1e6, case="long")


def last(bench):
    bench.row(lambda: {"value": 4}, case="last")


def test_a_part_harms_no_other(tmp_path):
    written = []

    class Watched(results.Results):
        def write(self):
            super().write()
            written.append(json.loads((self.folder / "results.json").read_text())["parts"])

    parts = [runner.Part(measure.__name__, "", share, measure) for measure, share in
             ((hang, 1), (crash, 20), (fall, 20), (out_of_memory, 20), (last, 20))]  # fmt: skip
    runner.run(parts, 81, True, False, Watched(tmp_path, ABOUT))
    found = {part["name"]: part for part in written[-1]}
    assert {name: part["state"] for name, part in found.items()} == {
        "hang": "time limit",
        "crash": "killed by SIGKILL",
        "fall": "failed: RuntimeError: no kernel image is available",
        "out_of_memory": "done",
        "last": "done",
    }
    assert found["hang"]["rows"] == [{"case": "quick", "value": 1}, {"case": "slow", "failed": "time limit"}]
    assert found["crash"]["rows"] == [{"case": "before", "value": 2}]
    assert found["out_of_memory"]["rows"] == [
        {"case": "large", "failed": "out of memory: CUDA out of memory. Tried to allocate 3.00 GiB."},
        {"case": "small", "value": 3},
        {"case": "long", "failed": "no time was left"},
    ]
    assert found["last"]["limit_s"] > 70, "what others left is the last one's"
    running = [parts[0] for parts in written if parts[0]["state"] == "running"]
    assert {"case": "quick", "value": 1} in running[-1]["rows"], "a row is there before its part has ended"


@pytest.mark.parametrize(("greatest", "start"), [(100, 100), (100, 40), (100, 300), (1, 50), (500, 500)])
def test_the_longest_is_found_in_few_trials(greatest, start):
    limit, tried = 80.0, []

    def trial(length):
        tried.append(length)
        return None if length > greatest else 20 + 60 * length / greatest

    seen = longest(trial, start, 1000, limit, lambda: True)
    fits, beyond = (max(n for n, p in seen.items() if p), min(n for n, p in seen.items() if p is None))
    assert fits <= greatest < beyond
    assert beyond - fits <= max(1, fits // 100)
    assert len(tried) == len(set(tried)) <= 8


@pytest.mark.parametrize(("model", "tuning"), blocks.CASES)
def test_blocks_are_given_what_they_take(tmp_path, model, tuning):
    """As benchmarks/kernels.py compiles them; here they run as they are."""
    block, given, leaves = blocks._block(Bench(tmp_path, tmp_path, True, 0), model, tuning)
    out, *slopes = blocks._both(block, given, leaves)
    assert out.shape == given[0].shape
    assert [it.shape for it in slopes] == [it.shape for it in leaves]
    assert len(leaves) > 10


def test_the_wheels_are_what_the_trainer_imports():
    """Of third parties, by name; and nothing of torch's, which is left as it is."""
    lock = ROOT / "envs/regdpo.lock"
    listed = {line.split("==")[0] for line in wheels.requirements(lock).splitlines() if "==" in line}
    assert not {name for name in listed if name.startswith(("torch", "nvidia", "triton", "snakemake"))}
    pending, seen, third = ["benchmarks/gpu.py", *map(str, (ROOT / "benchmarks/gpu_parts").glob("*.py"))], set(), set()
    while pending:
        path = pending.pop()
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [f"{node.module}.{alias.name}" for alias in node.names] if modules else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                base = ROOT / "benchmarks" if module.split(".")[0] in ("rig", "gpu_parts") else ROOT
                file = base.joinpath(*module.split(".")).with_suffix(".py")
                if file.exists() and file not in seen:
                    seen.add(file)
                    pending.append(str(file))
                third.add(module.split(".")[0])
    third -= sys.stdlib_module_names | {"regdpo", "rig", "gpu_parts", "torch", "torchao", "triton"}
    names = {"yaml": "pyyaml"}
    assert {names.get(name, name).replace("_", "-") for name in third} <= listed
