"""The longest video of which a pair fits, beside the plan's. A trial is the forward pass and, backward, the last two
blocks, where memory is at its fullest. The blocks before them are recomputed: they keep their input and nothing else,
so here they compute nothing, which would take most of the time."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import rig
import torch
from torch import Tensor

from gpu_parts.bench import Bench
from regdpo.config.training import TrainSettings
from regdpo.core.errors import first_line
from regdpo.plan import layouts
from regdpo.plan.memory import GIB, Training, memory
from regdpo.train.trainer import Trainer

WAYS = [("14B", "joint"), ("1.3B", "joint"), ("14B", "sequential"), ("1.3B", "sequential")]
LIVE = 2
"""Blocks that go backward."""
CLOSE = 100
"""Lengths are told apart to a hundredth."""
DRY = 100.0 * 2**20
"""Bytes, of a device that is not there."""


class Reached(Exception):
    """The backward pass is beyond its fullest moment."""


def measure(bench: Bench) -> None:
    if not bench.dry:
        torch.cuda.set_device(bench.device)
    with rig.ranks(bench.device, bench.folder):
        for name, halves in bench.some(WAYS):
            values = {"batch": 1, "precision": "fp32" if bench.dry else "bf16"}
            values |= {"parallel": {"halves": halves, "activation_checkpointing": "full"}}
            settings = TrainSettings.model_validate(values)
            training = Training(bench.models()[name], settings, *bench.size(5), ranks=1)
            about = {"model": name, "size": f"{training.height}x{training.width}", "tuning": "lora", "halves": halves}
            bench.row(partial(_case, bench, training, f"{name}_{halves}"), needs=0 if bench.dry else 20, **about)


def _case(bench: Bench, training: Training, name: str) -> dict[str, Any]:
    limit, whole = _room(bench)
    parallel = training.settings.parallel
    planned = layouts.longest(training, parallel, layouts.Machine(whole, 1.0))
    temporal = training.architecture.family.compression[0]

    def frames(latents: int) -> int:
        return (latents - 1) * temporal + 1

    def trial(latents: int) -> float | None:
        peak = _trial(bench, replace(training, frames=frames(latents)), f"{name}_{latents}")
        return None if peak is None or peak > limit else peak

    start = (planned.frames - 1) // temporal + 1 if planned else 2
    most = (training.architecture.family.most_frames(training.height, training.width) - 1) // temporal + 1
    trials = longest(trial, start, 8 if bench.dry else most, limit, lambda: bench.left > (0 if bench.dry else 15))
    fits = max((length for length, peak in trials.items() if peak is not None), default=0)
    beyond = min((length for length, peak in trials.items() if peak is None), default=0)
    row: dict[str, Any] = {"memory, GiB": limit / GIB, "trials": len(trials)}
    row |= {"plan, frames": planned.frames if planned else 0, "fits, frames": frames(fits) if fits else 0}
    row |= {"does not fit, frames": frames(beyond) if beyond else None}
    if fits:
        plan = memory(replace(training, frames=frames(fits)), parallel)
        row |= {"reserved, GiB": (trials[fits] or 0) / GIB}
        row |= {"plan, GiB": plan.used / GIB, "with margin, GiB": plan.total / GIB}
    return row


def longest(
    trial: Callable[[int], float | None], start: int, most: int, limit: float, time_left: Callable[[], bool]
) -> dict[int, float | None]:
    """Find the greatest length that fits, in few trials: memory is nearly a straight line in it.

    Args:
        trial: bytes at the peak of a length, or None if it does not fit. start: a guess.
        most: that makes sense. limit: bytes.

    Returns:
        What was tried. The greatest length that fits and the least that does not are close, unless time was over.
    """
    seen: dict[int, float | None] = {}
    length = max(1, min(start, most) // 2)
    while time_left():
        seen[length] = trial(length)
        fits = sorted(n for n, peak in seen.items() if peak is not None)
        low, high = fits[-1] if fits else 0, min((n for n, peak in seen.items() if peak is None), default=most + 1)
        if high - low <= max(1, low // CLOSE):
            break
        if len(fits) > 1:
            (a, b), (p, q) = fits[-2:], ((seen[n] or 0.0) for n in fits[-2:])
            slope = (q - p) / (b - a)
            length = low + int((limit - q) / slope) if slope > 0 else most
        else:
            length = start if low else high // 2
        length = max(length, low + 1) if length not in seen else low + 1
        if not low < length < high:
            length = (low + high) // 2
    return seen


def _room(bench: Bench) -> tuple[float, float]:
    """Bytes that tensors may take, and of the whole device, from which the plan takes its margin."""
    rig.Memory(bench.device)  # what an earlier case has left is given back
    if bench.dry:
        return DRY, DRY
    free, whole = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved(), whole


def _trial(bench: Bench, training: Training, name: str) -> float | None:
    meter = rig.Memory(bench.device)
    job = rig.planned(bench.folder / name, training, bench.device, pairs=1)
    try:
        trainer = rig.trainer(job, bench.device)
        with _the_fullest_moment(trainer):
            rows, places = trainer.chunks(0)[0][0]
            trainer.passes.backward(rows, places, 1, 0)
        raise AssertionError("the backward pass went beyond the blocks that it was to reach")
    except Reached:
        return meter.reserved
    except RuntimeError as error:
        if not rig.out_of_memory(error):
            raise
        print(f"{name}: {first_line(error)}")
        return None


@contextmanager
def _the_fullest_moment(trainer: Trainer) -> Iterator[None]:
    blocks = trainer.family.blocks(trainer.policy)
    *before, first = blocks[: 1 - LIVE]
    one = torch.ones((), device=trainer.device, requires_grad=True)

    def keep(hidden: Tensor, *_: Any) -> Tensor:
        return hidden * one.to(hidden.dtype)  # its gradient needs the input, which checkpointing keeps

    def enter(_: Any, args: Any) -> None:
        if args[0].requires_grad:
            args[0].register_hook(reached)

    def reached(_: Tensor) -> None:
        raise Reached

    hook = first.register_forward_pre_hook(enter)
    with ExitStack() as stack:
        stack.callback(hook.remove)
        for block in before:
            stack.enter_context(patch.object(block, "forward", keep))
        yield
