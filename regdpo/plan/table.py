"""The plan as text: every layout of a training, and how long a video each technique makes room for."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from regdpo.config.training import Parallel
from regdpo.plan.architecture import known
from regdpo.plan.layouts import (
    Estimate,
    Machine,
    estimate,
    estimates,
    impossible,
    longest,
    main_memory,
    sensible,
    sent,
    split_blocks,
)
from regdpo.plan.memory import FRAGMENTATION, RESERVED, Training
from regdpo.plan.stages import Stage
from regdpo.runtime.gpu_specs import GIB

PARTS = ("weights", "optimizer", "gradients", "activations", "reference", "buffers", "margin")
LEAST = GIB / 20
"""Bytes of main memory that are told."""
SMALL = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"


def assumptions(machine: Machine) -> str:
    """What the figures rest on and was not measured."""
    return (
        f"assumed: {machine.peak_flops / 1e12:.0f} TFLOP/s peak at an MFU of {machine.mfu:g} (executed FLOPs; talk "
        f"between ranks is not timed); margin {RESERVED / GIB:.0f} GiB + {100 * FRAGMENTATION:.0f} % of activations "
        "and buffers; nothing here was measured on a GPU"
    )


def listing(training: Training, machine: Machine, times: Sequence[str] = ()) -> str:
    """All sensible layouts, the configured one first, with the one to take.

    Args:
        times: lines on how long the configured trainings take.
    """
    own = training.settings.parallel
    head = (
        f"{training.architecture.name} ({training.architecture.source}), {training.shown}: "
        f"{', '.join(str(one.tokens) for one in training.each)} tokens; {training.settings.tuning}, "
        f"{training.ranks} x {machine.memory / GIB:.1f} GiB, {training.settings.batch} pairs a step"
    )
    lines = [head, assumptions(machine), ""]
    names = ("fits", "GiB", *PARTS, "tokens/rank", "s/step", "pairs/h", "layout")
    reason = impossible(training, own)
    found = estimates(training, machine)
    rows = [] if reason else [_row(estimate(training, own, machine), "configured: ")]
    rows += [_row(it) for it in found]
    lines += _aligned([names, *rows])
    if reason:
        lines.append(f"the configured layout cannot be: {reason}")
    lines.append("")
    best = found[0] if found and found[0].fits else None
    if best is None:
        lines += _split_blocks(training, machine, found)
    else:
        lines.append(f"take: {best.name} ({best.pairs_per_hour:.0f} pairs an hour)")
        lines.append(f"  train: {{settings: {{parallel: {{{_yaml(best.parallel)}}}}}}}")
        lines += times
        lines += _main_memory(*main_memory(training, best.parallel))
    lines += _talk(training, own if reason is None else None)
    told = [layout.straddles(training.ranks, machine.nodes) for layout in (own, *([best.parallel] if best else []))]
    lines += [f"slow over {machine.nodes} machines: {slow}" for slow in dict.fromkeys(told) if slow]
    if any(it.seconds_before for it in found):
        lines.append("cached: the reference's passes are made before step 1; pairs/h counts them, s/step does not")
    return "\n".join(lines)


def _split_blocks(training: Training, machine: Machine, found: Sequence[Estimate]) -> list[str]:
    """What to take where nothing fits without splitting blocks."""
    leanest = min(found, key=lambda it: it.memory.total, default=None)
    split = leanest and split_blocks(training, leanest.parallel, machine)
    if not split:
        return ["take: nothing fits; fewer frames, a smaller frame or more ranks would do"]
    return [
        f"take: {split.name}: nothing fits unless blocks are split too; only within a machine with fast links (NVLink)",
        f"  train: {{settings: {{parallel: {{{_yaml(split.parallel)}}}}}}}",
        *_talk(training, split.parallel),
    ]


def _talk(training: Training, parallel: Parallel | None) -> list[str]:
    """What split blocks cost, beside the same ranks as context."""
    if parallel is None or parallel.tensor == 1:
        return []
    other = parallel.model_copy(update={"tensor": 1, "context": parallel.context * parallel.tensor})
    line = (
        f"tensor {parallel.tensor}: a rank sends {sent(training, parallel) / 1e6:.0f} MB in each block's forward pass"
    )
    if impossible(training, other):
        return [f"{line}; it is worth that on one machine with fast links, since context cannot take its place"]
    return [
        f"{line}, {sent(training, other) / 1e6:.0f} with context {other.context} in its place, which is to be taken "
        "where it fits"
    ]


def stages(found: Iterable[Stage], memory: float) -> str:
    """What each stage needs of one GPU: the fullest of its turns, and those that it takes before and after."""
    lines = ["", f"stages beside the trainings, on one GPU of {memory / GIB:.1f} GiB; their parts take turns there"]
    rows: list[tuple[str, ...]] = [
        ("fits", "GiB", "weights", "work", "margin", "fullest turn", "stage (its other turns, GiB)")
    ]
    for stage in found:
        it = stage.fullest
        sizes = [f"{size / GIB:.1f}" for size in (it.total, it.weights, it.work, it.margin)]
        others = [f"{turn.part} {turn.total / GIB:.1f}" for turn in stage.turns if turn is not it]
        named = f"{stage.key} ({'; '.join(others)})" if others else stage.key
        rows.append(("yes" if it.total <= memory else "no", *sizes, it.part, named))
    return "\n".join([*lines, *_aligned(rows)])


def _main_memory(written: float, held: float) -> list[str]:
    """A line, unless it is next to nothing."""
    needs = {"on the first rank while it exports": written, "on every rank for the offloaded reference": held}
    said = [f"{size / GIB:.1f} GiB {what}" for what, size in needs.items() if size >= LEAST]
    return [f"main memory: {', '.join(said)}"] if said else []


def _yaml(parallel: Parallel) -> str:
    """What a layout says beyond the defaults."""
    said = parallel.model_dump(exclude_defaults=True)
    return ", ".join(f"{key}: {value}" for key, value in said.items())


def as_json(training: Training, machine: Machine) -> dict[str, Any]:
    """The same for programs; bytes and seconds."""
    own, found = training.settings.parallel, estimates(training, machine)
    reason = impossible(training, own)

    def entry(it: Estimate) -> dict[str, Any]:
        return {
            "parallel": it.parallel.model_dump(),
            "fits": it.fits,
            "memory": {**asdict(it.memory), "total": it.memory.total},
            "tokens_per_rank": it.tokens,
            "step_seconds": it.seconds,
            "pairs_per_hour": it.pairs_per_hour,
            "flops_per_pair": it.flops,
            "seconds_before_step_1_per_step": it.seconds_before,
        }

    return {
        "architecture": training.architecture.name,
        "source": training.architecture.source,
        "frames": training.frames,
        "height": training.height,
        "width": training.width,
        "tokens": training.tokens,
        "others": [dict(zip(("frames", "height", "width"), size, strict=True)) for size in training.others],
        "ranks": training.ranks,
        "memory_per_rank": machine.memory,
        "peak_flops": machine.peak_flops,
        "mfu": machine.mfu,
        "configured": entry(estimate(training, own, machine)) if reason is None else {"impossible": reason},
        "layouts": [entry(it) for it in found],
        "take": entry(found[0]) if found and found[0].fits else None,
    }


BASELINE = Parallel(halves="separate", activation_checkpointing="full", reference="copy")
"""FSDP2, SDPA, both halves' graphs alive, a frozen sharded copy. Our own: the paper gives none."""


def longest_videos(training: Training, machine: Machine) -> str:
    """Markdown: the most frames of the baseline, with each technique alone, with one after another, and at best."""
    base = longest(training, BASELINE, machine)
    least = base.frames if base else None
    lines = [
        "| layout | frames | x baseline | tokens/rank | GiB/rank | s/step | pairs/h |",
        "|---|---:|---:|---:|---:|---:|---:|",
        _line("**baseline**", base, least),
        "| *one alone* | | | | | | |",
    ]
    for name, change in _alone(training):
        lines.append(_line(name, longest(training, BASELINE.model_copy(update=change), machine), least))
    lines.append("| *one after another* | | | | | | |")
    changed: dict[str, Any] = {}
    for name, change in _after_another(training):
        changed |= change
        lines.append(_line(name, longest(training, BASELINE.model_copy(update=changed), machine), least))
    found = [longest(training, layout, machine) for layout in sensible(_easy(training))]
    reached = [it for it in found if it]
    most = max((it.frames for it in reached), default=0)
    best = min((it for it in reached if it.frames == most), key=lambda it: it.seconds / it.batch, default=None)
    lines.append(_line(f"**best**: {best.name}" if best else "**best**", best, least))
    return "\n".join(lines)


def small(training: Training) -> Training:
    """Wan2.1-T2V-1.3B on one GPU, else as given."""
    return replace(training, architecture=known(SMALL), height=480, width=832, ranks=1)


def _easy(training: Training) -> Training:
    """A batch and a short clip that divide over all layouts."""
    settings = training.settings.model_copy(update={"batch": training.ranks * training.settings.micro_batch})
    return replace(
        training, settings=settings, frames=(training.ranks - 1) * training.architecture.family.compression[0] + 1
    )


def _contexts(training: Training) -> list[int]:
    return [n for n in (2, 4, 8) if training.ranks % n == 0]


def _alone(training: Training) -> list[tuple[str, dict[str, Any]]]:
    rows: list[tuple[str, dict[str, Any]]] = [
        ("flash attention (SDPA keeps no scores either)", {"attention": "flash"}),
        ("reference: adapters off", {"reference": "adapters"}),
        ("reference: offloaded copy", {"reference": "offload"}),
        ("reference: cached errors", {"reference": "cached"}),
        ("halves joint (one batch)", {"halves": "joint"}),
        ("halves sequential", {"halves": "sequential"}),
    ]
    if training.ranks % 2 == 0:
        rows.append(("pair parallel", {"pair": 2, "halves": "joint"}))
    return rows + [(f"context {n}", {"context": n}) for n in _contexts(training)]


def _after_another(training: Training) -> list[tuple[str, dict[str, Any]]]:
    rows: list[tuple[str, dict[str, Any]]] = [("+ adapters-off reference", {"reference": "adapters"})]
    if training.ranks % 2:
        return [*rows, ("+ halves sequential", {"halves": "sequential"})]
    rows.append(("+ pair parallel", {"pair": 2, "halves": "joint"}))
    rows += [(f"+ context {n}", {"context": n}) for n in _contexts(training) if training.ranks % (2 * n) == 0]
    for n in _contexts(training)[-1:]:
        change = {"context": n, "pair": 1, "halves": "sequential"}
        rows.append((f"+ context {n}, halves sequential in the place of pair parallel", change))
    return rows


def _line(name: str, it: Estimate | None, least: int | None) -> str:
    if it is None:
        return f"| {name} | none | | | | | |"
    factor = f"{it.frames / least:.1f}" if least else ""
    return (
        f"| {name} | {it.frames} | {factor} | {it.tokens} | {it.memory.total / GIB:.1f} | {it.seconds:.0f} | "
        f"{it.pairs_per_hour:.0f} |"
    )


def _row(it: Estimate, prefix: str = "") -> tuple[str, ...]:
    parts = asdict(it.memory)
    sizes = [f"{it.memory.total / GIB:.1f}", *(f"{parts[part] / GIB:.1f}" for part in PARTS)]
    times = [str(it.tokens), f"{it.seconds:.1f}", f"{it.pairs_per_hour:.0f}"]
    return ("yes" if it.fits else "no", *sizes, *times, prefix + it.name)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return ["  ".join([*(cell.rjust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
