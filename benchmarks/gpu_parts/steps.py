"""One training step of the real architectures, several ways: time, MFU, and memory beside the plan's."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import rig
import torch
from torch import nn

from gpu_parts.bench import Bench
from regdpo.config.training import TrainSettings
from regdpo.plan import layouts
from regdpo.plan.architecture import known
from regdpo.plan.memory import GIB, Training, memory

FULL: dict[str, Any] = {"activation_checkpointing": "full"}
MOST_STEPS, MOST_SECONDS = 4, 6.0
WAYS: dict[str, list[tuple[int, str, dict[str, Any]]]] = {
    "1.3B": [
        (33, "lora", FULL),
        (81, "lora", FULL),
        (33, "lora", {"halves": "separate", **FULL}),
        (33, "lora", {"halves": "sequential", **FULL}),
        (33, "lora", {}),
        (33, "full", FULL),
    ],
    "14B": [
        (17, "lora", FULL),
        (17, "lora", {"halves": "sequential", **FULL}),
        (81, "lora", {"halves": "sequential", **FULL}),
        (17, "lora", {"halves": "separate", **FULL}),
    ],
}
"""Of each model frames, tuning and layout, the most valuable first."""
COMPILED: dict[str, list[tuple[int, str, dict[str, Any]]]] = {
    "1.3B": [(33, "lora", {"compile": True, **FULL}), (33, "lora", FULL)],
    "14B": [(17, "lora", {"compile": True, **FULL})],
}

OTHERS: dict[str, tuple[int, int, int]] = {"mugv_10b": (104, 480, 832), "cogvideox_5b": (49, 480, 720)}
"""Of config/architectures: frames, height and width of a clip."""


def small(bench: Bench) -> None:
    _measure(bench, {"1.3B": WAYS["1.3B"]})


def large(bench: Bench) -> None:
    _measure(bench, {"14B": WAYS["14B"]})


def compiled(bench: Bench) -> None:
    if bench.dry:  # traced as always, and then run as it is: the compiler itself takes a minute
        nn.Module.compile = partialmethod(nn.Module.compile, backend="eager")  # type: ignore[method-assign]
    _measure(bench, dict(bench.some(list(COMPILED.items()))))


def others(bench: Bench) -> None:
    """Other families, with LoRA, one half after the other; when dry of small ones."""
    values = {"batch": 1, "parallel": {"halves": "sequential", **FULL}, "precision": "fp32" if bench.dry else "bf16"}
    settings = TrainSettings.model_validate(values)
    with _ranks(bench) as speed:
        for name, size in OTHERS.items():
            architecture = rig.shrunk(name) if bench.dry else known(name)
            _row(bench, name, Training(architecture, settings, *((9, 32, 32) if bench.dry else size), ranks=1), speed)


def _measure(bench: Bench, ways: dict[str, list[tuple[int, str, dict[str, Any]]]]) -> None:
    with _ranks(bench) as speed:
        for name, cases in ways.items():
            for frames, tuning, parallel in bench.some(cases):
                _row(bench, name, _training(bench, name, frames, tuning, parallel), speed)


@contextmanager
def _ranks(bench: Bench) -> Iterator[float]:
    """A process group; the FLOP/s of a matrix product."""
    if not bench.dry:
        torch.cuda.set_device(bench.device)
    with rig.ranks(bench.device, bench.folder):
        yield rig.matrix_product(bench.device)


def _row(bench: Bench, name: str, training: Training, speed: float) -> None:
    parallel = training.settings.parallel
    about = {"model": name, "frames": training.frames, "size": f"{training.height}x{training.width}"}
    about |= {"tuning": training.settings.tuning, "halves": parallel.halves}
    about |= {"checkpointing": parallel.activation_checkpointing, "compiled": parallel.compile}
    needs = 0.0
    if not bench.dry:  # at the plan's MFU
        needs = 10 + layouts.estimate(training, parallel, layouts.Machine(0, speed)).seconds
    folder = Path(tempfile.mkdtemp(dir=bench.folder)) / "world"
    bench.row(partial(_case, bench, folder, training, speed), needs=needs, **about)


def _training(bench: Bench, name: str, frames: int, tuning: str, parallel: dict[str, Any]) -> Training:
    values = {"batch": 1, "tuning": tuning, "parallel": parallel, "precision": "fp32" if bench.dry else "bf16"}
    return Training(bench.models()[name], TrainSettings.model_validate(values), *bench.size(frames), ranks=1)


def _case(bench: Bench, folder: Path, training: Training, speed: float) -> dict[str, Any]:
    settings = training.settings
    job = rig.planned(folder, training, bench.device, pairs=2)
    meter = rig.Memory(bench.device)
    begun = time.monotonic()
    trainer = rig.trainer(job, bench.device)
    row: dict[str, Any] = {"attention": trainer.attention, "to build, s": time.monotonic() - begun}
    steps = iter(range(100))
    first = rig.seconds(lambda: trainer.step(next(steps)), bench.device)
    row["first step, s"] = first
    took = first
    if settings.parallel.compile or first < min(MOST_SECONDS * 2, bench.left):  # a longer one says enough
        times = max(1, min(MOST_STEPS, int(min(MOST_SECONDS, bench.left) / first)))
        took = sorted(rig.seconds(lambda: trainer.step(next(steps)), bench.device) for _ in range(times))[times // 2]
    plan = memory(training, settings.parallel)
    row |= {"step, s": took, "MFU": layouts.model_flops(training, settings.parallel) / took / speed}
    row |= {"product, TFLOP/s": speed / 1e12}
    row |= beside_plan(meter, plan)
    return row


def beside_plan(meter: rig.Memory, plan: Any) -> dict[str, Any]:
    """Peak and what stays between steps, with the plan's figures."""
    stays = plan.weights + plan.optimizer + plan.reference
    return {
        "stays, GiB": meter.held / GIB,
        "planned to stay, GiB": stays / GIB,
        "peak, GiB": meter.peak / GIB,
        "reserved, GiB": meter.reserved / GIB,
        "plan, GiB": plan.used / GIB,
        "plan/peak": plan.used / meter.peak if meter.peak > 0 else None,
        "with margin, GiB": plan.total / GIB,
    }
