"""One rank's share of layouts over eight GPUs, on one: the weights of an eighth, the tokens and the passes of one rank.
What others would send is a copy of what this one has: memory is that of the layout, time is without communication."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import rig
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from gpu_parts.bench import Bench
from gpu_parts.steps import FULL, beside_plan
from regdpo.config.training import TrainSettings
from regdpo.parallel import attention
from regdpo.plan import layouts
from regdpo.plan.memory import Training, memory

RANKS = 8
LAYOUTS: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"context": 4, "pair": 2, **FULL}),
    ("lora", {"context": 8, **FULL}),
    ("full", {"context": 8, **FULL}),
    ("lora", {"context": 8}),
    ("lora", {"pair": 2, **FULL}),
]
"""Of 14B, the most valuable first."""
FRAMES = 81


def measure(bench: Bench) -> None:
    if not bench.dry:
        torch.cuda.set_device(bench.device)
    speed = rig.matrix_product(bench.device)
    architecture = bench.models()["14B"]
    for number, (tuning, parallel) in enumerate(bench.some(LAYOUTS)):
        data = RANKS // (parallel.get("context", 1) * parallel.get("pair", 1))
        values = {"batch": data, "tuning": tuning, "precision": "fp32" if bench.dry else "bf16", "parallel": parallel}
        settings = TrainSettings.model_validate(values)
        training = Training(architecture, settings, *bench.size(FRAMES), RANKS)
        needs = 10 + 1.5 * layouts.estimate(training, settings.parallel, layouts.Machine(0, speed)).seconds
        layout = ", ".join(f"{key} {value}" for key, value in parallel.items())
        about = {"model": "14B", "frames": training.frames, "size": f"{training.height}x{training.width}"}
        folder = bench.folder / str(number)
        bench.row(
            partial(_case, bench, folder, training, speed),
            needs=0 if bench.dry else needs,
            **about,
            tuning=tuning,
            layout=layout,
        )


def _case(bench: Bench, folder: Any, training: Training, speed: float) -> dict[str, Any]:
    settings = training.settings
    job = rig.planned(folder, training, bench.device, pairs=RANKS)
    meter = rig.Memory(bench.device)
    with alone():
        trainer = rig.trainer(job, bench.device)
        row: dict[str, Any] = {"attention": trainer.attention}
        took = rig.seconds(lambda: trainer.step(0), bench.device)
        row["first step, s"] = took
        if took < bench.left / 2:
            took = rig.seconds(lambda: trainer.step(1), bench.device)
    row |= {"step, s": took, "MFU": layouts.model_flops(training, settings.parallel) / took / RANKS / speed}
    return row | beside_plan(meter, memory(training, settings.parallel))


@contextmanager
def alone() -> Iterator[None]:
    """Rank 0 of eight, of which the others are not there."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=RANKS)
    with ExitStack() as stack:
        replaced = {"all_gather": _gather, "reduce_scatter": _scatter}
        for name, stand_in in replaced.items():
            for kind in ("single", "into_tensor", "tensor"):  # torch's releases name them differently
                if hasattr(dist, f"{name}_{kind}"):
                    stack.enter_context(patch.object(dist, f"{name}_{kind}", stand_in))
        stack.enter_context(patch.object(dist, "all_gather", _exchange))
        stack.enter_context(patch.object(attention, "agreed", lambda decide: decide()))
        stack.enter_context(patch.object(functional, "all_to_all_single", lambda tensor, *_: tensor.clone()))
        stack.enter_context(patch.object(dist, "new_group", lambda *_, **__: None))  # of checkpoints
        try:
            yield
        finally:
            dist.destroy_process_group()


def _gather(output: Tensor, input: Tensor, *_: Any, **__: Any) -> None:
    for chunk in output.view(-1, input.numel()):
        if chunk.data_ptr() != input.data_ptr():  # its own may lie there already
            chunk.copy_(input.flatten())


def _exchange(parts: list[Tensor], own: Tensor, *_: Any, **__: Any) -> None:
    for part in parts:
        part.copy_(own)


def _scatter(output: Tensor, input: Tensor, *_: Any, **__: Any) -> None:
    output.copy_(input.flatten()[: output.numel()].view_as(output))
