"""The layouts that make sense for a training, whether each fits, how long it takes, and which to take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from regdpo.config.training import Parallel, TrainSettings, reference_kind
from regdpo.core.errors import UserError
from regdpo.models.device import DTYPES
from regdpo.plan import trace
from regdpo.plan.architecture import Architecture
from regdpo.plan.memory import Memory, Size, Training, memory, mode_of, settled, stored_copy
from regdpo.runtime.gpu_specs import GIB, GPUS

MFU = 0.4
"""Share of a GPU's bf16 peak that the executed FLOPs reach, recomputation and waiting included. An assumption."""
REFERENCE_ORDER = ("none", "adapters", "copy", "cached", "offload")


@dataclass(frozen=True)
class Machine:
    """The ranks' GPUs, one per rank."""

    memory: float  # bytes of one
    peak_flops: float
    mfu: float = MFU
    nodes: int = 1  # machines that the ranks are on


@dataclass(frozen=True)
class Estimate:
    """A layout under the plan."""

    parallel: Parallel
    mode: str
    reference: str
    batch: int  # pairs a step
    memory: Memory
    limit: float  # bytes of a rank
    frames: int  # of a clip
    tokens: int  # a rank
    seconds: float  # a step
    seconds_before: float  # before step 1, for every step
    flops: float  # executed for a pair, all ranks together

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.limit

    @property
    def pairs_per_hour(self) -> float:
        """With what was spent on them before step 1."""
        return 3600 * self.batch / (self.seconds + self.seconds_before)

    @property
    def name(self) -> str:
        """The layout in a line, by the keys of the configuration."""
        it = self.parallel
        parts = [f"tensor {it.tensor}"] if it.tensor > 1 else []
        parts += [f"context {it.context}", f"pair {it.pair}" if it.pair == 2 else self.mode]
        parts += [f"checkpointing {it.activation_checkpointing}", f"reference {self.reference}"]
        return ", ".join([*parts, f"replicate {it.replicate}"] if it.replicate > 1 else parts)


def impossible(training: Training, parallel: Parallel) -> str | None:
    """Why a layout cannot be, whatever the memory; None if it can."""
    ranks, architecture = training.ranks, training.architecture
    if reason := parallel.misfit(ranks, training.halves == 2, training.settings.batch):
        return reason
    if parallel.pair == 2 and training.labelled:
        return "pair 2 has winners and losers on different ranks, and samples with a label have no loser"
    if parallel.context > 1 and not architecture.family.context:
        return f"the sequence of {architecture.name} cannot be split"
    if architecture.family.heads % parallel.context:
        return f"context {parallel.context} does not divide {architecture.family.heads} attention heads"
    if parallel.tensor > 1 and not architecture.family.tensor:
        return f"the blocks of {architecture.name} cannot be split"
    if architecture.family.heads % (shared := parallel.context * parallel.tensor):
        return f"{_split(parallel)} does not divide {architecture.family.heads} attention heads"
    for one in training.each:
        if parallel.tensor > 1 and one.tokens % shared and not architecture.family.fills_up:
            of = f" of {one.shown}" if training.others else ""
            return f"{_split(parallel)} does not divide {one.tokens} tokens{of}"
        if one.tokens % parallel.context and not architecture.family.fills_up:
            of = f" of {one.shown}" if training.others else ""
            return f"context {parallel.context} does not divide {one.tokens} tokens{of}"
        if one.frames > architecture.family.most_frames(one.height, one.width):
            return f"{one.frames} frames reach beyond the positions that {architecture.name} knows"
    return None


def _split(parallel: Parallel) -> str:
    beside = f"context {parallel.context} x " if parallel.context > 1 else ""
    return f"{beside}tensor {parallel.tensor}"


def estimate(training: Training, parallel: Parallel, machine: Machine) -> Estimate:
    """Memory and time of a layout that is possible."""
    parallel = settled(training, parallel)
    mode, reference = mode_of(training, parallel), reference_kind(training.settings, parallel, training.halves == 2)
    layers = training.architecture.layers
    few = trace.recomputed(layers, parallel.activation_checkpointing)
    counts = [trace.flops(one.a_pass, one.latent[1]) for one in training.each]
    forward, backward = (training.mean(getattr(count, way) for count in counts) for way in ("forward", "backward"))
    again = training.mean(
        sum(blocks * m / max(1, n) for blocks, m, n in zip(count.blocks, few, layers, strict=True)) for count in counts
    )
    own = training.a_sample * (forward + backward + again)
    own += (1 - training.labelled) * forward if mode == "sequential" else 0  # of pairs
    asked = 0.0 if reference == "none" else training.a_sample * forward
    data = training.ranks // parallel.group(training.halves == 2)
    if training.asked_first and training.settings.batch > data * training.settings.micro_batch:
        own += training.a_sample * forward + (0 if reference == "cached" else asked)
    cached = asked if reference == "cached" else 0.0
    speed = training.ranks * machine.peak_flops * machine.mfu
    return Estimate(
        parallel=parallel,
        mode=mode,
        reference=reference,
        batch=training.settings.batch,
        memory=memory(training, parallel),
        limit=machine.memory,
        frames=training.frames,
        tokens=-(-training.tokens // (parallel.context * parallel.tensor)),
        seconds=training.settings.batch * (own + asked - cached) / speed,
        seconds_before=training.settings.batch * cached / speed,
        flops=own + asked,
    )


def model_flops(training: Training, parallel: Parallel) -> float:
    """What a step on the largest clips needs, all ranks together: passes over both halves and the reference's, nothing
    computed twice."""
    count = trace.flops(training.a_pass, training.latent[1])
    asked = (
        0
        if reference_kind(training.settings, parallel, training.halves == 2) in ("none", "cached")
        else training.a_sample * count.forward
    )
    return training.settings.batch * (training.a_sample * (count.forward + count.backward) + asked)


def sensible(training: Training) -> list[Parallel]:
    """Layouts worth a look; what is the same training with more memory and no less time is left out. Blocks are split
    as configured, or not where no layout can be so."""
    own = training.settings.parallel
    return _sensible(training, own) or _sensible(training, own.model_copy(update={"tensor": 1}))


def _sensible(training: Training, base: Parallel) -> list[Parallel]:
    contexts = [n for n in range(1, training.ranks + 1) if training.ranks % n == 0]
    if training.alone:
        pairs: list[tuple[int, str]] = [(1, "joint")]
    else:
        pairs = [(2, "joint"), (1, "joint"), (1, "separate"), (1, "sequential")]
    if training.settings.reference_ema:
        references = ["copy", "offload"]
    elif training.settings.tuning == "lora":
        references = ["adapters"]
    else:
        references = ["copy", "cached", "offload"]
    if training.halves == 1:
        references = ["auto"]
    layouts = []
    for context, (pair, halves), every, reference in product(contexts, pairs, ("none", 2, "full"), references):
        changed: dict[str, Any] = {
            "context": context,
            "pair": pair,
            "halves": halves,
            "activation_checkpointing": every,
            "reference": reference,
        }
        layouts.append(base.model_copy(update=changed))
    return [layout for layout in layouts if impossible(training, layout) is None]


def estimates(training: Training, machine: Machine) -> list[Estimate]:
    """All sensible layouts: first those that fit, the one to take first of all."""
    return sorted((estimate(training, layout, machine) for layout in sensible(training)), key=_order)


def _order(it: Estimate) -> Any:
    """What fits before what does not, then speed, then what needs fewer ranks to talk, then the smaller."""
    simple = (it.parallel.group(True), REFERENCE_ORDER.index(it.reference))
    return (not it.fits, -round(it.pairs_per_hour, 3), *simple, it.memory.total)


TENSOR = (2, 4, 8)
"""Ranks that may split blocks."""


def split_blocks(training: Training, parallel: Parallel, machine: Machine) -> Estimate | None:
    """A layout that does not fit with its blocks split over as few ranks as make it fit, all of one machine; None if
    none do."""
    for tensor, shared in product(TENSOR, (False, True)):
        context = parallel.context // tensor if shared else parallel.context
        changed = parallel.model_copy(update={"tensor": tensor, "context": context})
        if training.settings.parallel.tensor > 1 or not context or changed.straddles(training.ranks, machine.nodes):
            continue
        if impossible(training, changed) is None:
            found = estimate(training, changed, machine)
            if found.fits:
                return found
    return None


def sent(training: Training, parallel: Parallel) -> float:
    """Bytes that a rank sends to those it shares a video with, in a forward pass of a block of one sample: Ulysses
    passes on queries, keys, values and answers; split blocks have three regions, whose tokens are gathered, and whose
    answers are summed."""
    tokens = training.tokens / (parallel.context * parallel.tensor)
    states = tokens * training.architecture.family.width * DTYPES[training.settings.precision].itemsize
    return states * (4 * (parallel.context - 1) / parallel.context + 6 * (parallel.tensor - 1))


def longest(training: Training, parallel: Parallel, machine: Machine) -> Estimate | None:
    """The most frames of which a pair fits, as an estimate of that length; None if not even one frame does.

    The batch is one pair for every group of ranks that works on one.
    """
    architecture = training.architecture
    data = training.ranks // parallel.group(training.halves == 2)
    if data < 1:
        return None
    batch = training.settings.model_copy(update={"batch": data * training.settings.micro_batch})
    family, temporal = architecture.family, architecture.family.compression[0]
    low, high = 0, (family.most_frames(training.height, training.width) - 1) // temporal + 1

    def at(latent_frames: int) -> Training:
        frames = (latent_frames - 1) * temporal + 1
        return replace(training, settings=batch, frames=frames, others=(), weights=(1.0,))

    while low < high:  # memory grows with the length
        middle = (low + high + 1) // 2
        if memory(at(middle), parallel).total <= machine.memory:
            low = middle
        else:
            high = middle - 1
    while low and impossible(at(low), parallel):
        low -= 1
    return estimate(at(low), parallel, machine) if low else None


def check(
    settings: TrainSettings,
    architecture: Architecture,
    sizes: Sequence[Size],
    ranks: int,
    memory_per_rank: float,
    losers: bool = True,
    key: str = "train.settings.parallel",
    labelled: float = 0.0,
) -> float:
    """Bytes that a rank needs. Refuse a training of which the plan says that it cannot fit.

    Args:
        settings: with the ``parallel`` and ``micro_batch`` it will run with. sizes: of the clips.
        memory_per_rank: bytes.
        losers: whether the objective has any. key: what a refusal names. labelled: share of samples without a loser.

    Raises:
        UserError: it needs more than a rank has, or its layout cannot be; the fastest layouts that fit are named.
    """
    training = Training.of(architecture, settings, sizes, ranks, 2 if losers else 1, labelled)
    parallel = training.settings.parallel
    reason = impossible(training, parallel)
    if reason is None:
        need = memory(training, parallel).total
        if need <= memory_per_rank:
            return need
        reason = f"needs {need / GIB:.1f} of {memory_per_rank / GIB:.1f} GiB per rank"
    machine = Machine(memory_per_rank, GPUS["H100 SXM"].peak_flops)
    fitting = [it.name for it in estimates(training, machine) if it.fits][:3]
    advice = f"these layouts fit: {'; '.join(fitting)}" if fitting else "no layout of so many ranks fits"
    raise UserError(
        f"{key}: {reason} ({training.architecture.name}, {training.frames} frames of "
        f"{training.height}x{training.width}); {advice}; launch.force: true to try anyway"
    )


def main_memory(training: Training, parallel: Parallel) -> tuple[float, float]:
    """Bytes of main memory: of the first rank while it writes the trained weights (fp32), and of every rank while it
    trains. Loading takes each rank its shards alone (regdpo/train/build.py)."""
    count, local = training.parameters, trace.parameters(training.a_pass, parallel.tensor)
    offloaded = reference_kind(training.settings, parallel, training.halves == 2) == "offload"
    shards = training.ranks // (parallel.replicate * parallel.tensor)
    whole = count.total if training.settings.tuning == "full" else count.trained
    return 4.0 * whole, stored_copy(training) * local.total / shards if offloaded else 0.0
