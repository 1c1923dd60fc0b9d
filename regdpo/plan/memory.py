"""Memory of one rank at its fullest moment, by part.

Weights, optimiser and gradients are sharded over the ranks of a replica (FSDP2) and counted from the number of
parameters P (trained: T) and ranks N; activations are what regdpo/plan/trace.py saw. docs/concepts/plan.md gives
the formulas.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from statistics import fmean

import torch

from regdpo.config.training import Parallel, TrainSettings, reference_kind
from regdpo.models.device import DTYPES
from regdpo.plan import trace
from regdpo.plan.architecture import Architecture
from regdpo.plan.trace import FP32, Parameters, Pass
from regdpo.runtime.gpu_specs import GIB

RESERVED = 3 * GIB
"""Of what programs see of a GPU: CUDA context, NCCL, cuBLAS. An assumption, a rule of thumb."""
FRAGMENTATION = 0.05
"""Of what comes and goes: holes in the allocator's memory. An assumption, a rule of thumb."""
OPTIMIZER = {"adamw": 8.0, "adamw_8bit": 2 + 8 / 256}
"""Bytes a trained parameter: two moments; in 8 bit with an fp32 scale for every 256 (torchao)."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank."""

    weights: float  # with their average, if there is one
    optimizer: float
    gradients: float
    activations: float
    reference: float
    buffers: float  # gathered blocks, gradients on their way, inputs
    margin: float

    @property
    def used(self) -> float:
        """Without the margin: what torch's tracker would see."""
        return self.total - self.margin

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


Size = tuple[int, int, int]
"""Frames, height and width of a clip."""


@dataclass(frozen=True)
class Training:
    """What is to be trained, on what, by how many ranks. Of clips of several sizes memory is that of the largest and
    time the mean, by how many there are of each."""

    architecture: Architecture
    settings: TrainSettings  # its `parallel` is what the configuration says
    frames: int
    height: int
    width: int
    ranks: int
    halves: int = 2  # 1 for objectives without losers
    others: tuple[Size, ...] = ()  # of further clips, none of more tokens
    weights: tuple[float, ...] = (1.0,)  # of the mean, its own and those of the others
    labelled: float = 0.0  # share of samples with a label and no loser, of an objective that takes them
    asked_first: bool = False  # micro-batches of a step are passed once before it

    @classmethod
    def of(
        cls,
        architecture: Architecture,
        settings: TrainSettings,
        sizes: Sequence[Size] | Mapping[Size, float],
        ranks: int,
        halves: int = 2,
        labelled: float = 0.0,
    ) -> "Training":
        """On clips of those sizes: as many of each, or so many."""
        given = [cls(architecture, settings, *size, ranks, halves, labelled=labelled) for size in sizes]
        largest, *others = sorted(given, key=lambda one: -one.tokens)
        many = sizes if isinstance(sizes, Mapping) else dict.fromkeys(sizes, 1.0)
        weights = tuple(many[one.size] for one in (largest, *others))
        return replace(largest, others=tuple(one.size for one in others), weights=weights)

    def mean(self, values: Iterable[float]) -> float:
        """Of values of ``each``."""
        return fmean(values, self.weights)

    @property
    def a_sample(self) -> float:
        """Halves of a pair or sample, on the mean."""
        return self.halves - self.labelled

    @property
    def alone(self) -> bool:
        """Whether no sample has a loser."""
        return self.a_sample == 1

    @property
    def size(self) -> Size:
        return self.frames, self.height, self.width

    @property
    def each(self) -> list["Training"]:
        """The same on clips of one size, for every size; the largest first."""
        one = replace(self, others=(), weights=(1.0,))
        return [
            one,
            *(replace(one, frames=frames, height=height, width=width) for frames, height, width in self.others),
        ]

    @property
    def shown(self) -> str:
        """Its clips, in words."""
        return ", ".join(f"{one.frames} frames of {one.height}x{one.width}" for one in self.each)

    @property
    def latent(self) -> tuple[int, int, int, int]:
        return self.architecture.latent_shape(self.frames, self.height, self.width)

    @property
    def tokens(self) -> int:
        return self.architecture.family.tokens(self.latent)

    @property
    def a_pass(self) -> Pass:
        settings = self.settings
        lora = settings.lora if settings.tuning == "lora" else None
        return Pass(self.architecture, *self.latent[2:], lora, DTYPES[settings.precision])

    @property
    def parameters(self) -> Parameters:
        return trace.parameters(self.a_pass)


def settled(training: Training, parallel: Parallel) -> Parallel:
    """A layout in which it is said which blocks are recomputed."""
    return parallel.model_copy(update={"activation_checkpointing": parallel.recompute(training.parameters.total)})


def mode_of(training: Training, parallel: Parallel) -> str:
    """How a rank takes its halves; with one half there is no choice."""
    return "joint" if parallel.pair == 2 or training.alone else parallel.halves


def graphs_of(training: Training, parallel: Parallel) -> tuple[int, int]:
    """Samples in a graph, and graphs alive at once."""
    mode = mode_of(training, parallel)
    both = mode == "joint" and parallel.pair == 1 and not training.alone
    return training.settings.micro_batch * (2 if both else 1), 2 if mode == "separate" else 1


def memory(training: Training, parallel: Parallel, layers: tuple[int, ...] | None = None) -> Memory:
    """The fullest moment of a step.

    Args:
        layers: blocks of each kind, in the place of the architecture's.
    """
    settings, parallel = training.settings, settled(training, parallel)
    count = trace.parameters(training.a_pass, parallel.tensor)  # of a rank, before FSDP shards them
    count = replace(count, layers=layers or count.layers)
    shards = training.ranks // (parallel.replicate * parallel.tensor)
    compute = DTYPES[settings.precision].itemsize
    stored = FP32 if settings.tuning == "full" else compute
    trained = FP32 * count.trained / shards
    reference = reference_kind(training.settings, parallel, training.halves == 2)

    batch, graphs = graphs_of(training, parallel)
    data = training.ranks // parallel.group(training.halves == 2)
    many = settings.batch > data * settings.micro_batch or mode_of(training, parallel) == "sequential"
    earlier = trained if many else 0.0  # gradients that wait from an earlier backward pass of the step

    moments = [(trained, 0.0, 0.0)]  # gradients, activations, buffers; a fused AdamW works in place
    order = _order(count.layers)
    last = len(order) - 1
    ends = {len(order) - end for end in accumulate(count.layers)}  # blocks that went backward before a kind's last one
    for done in sorted(
        {min(d, last) for end in ends for d in (end, end + 1)} | {last}
    ):  # all between is a straight line
        at = last - done
        gathered = compute * (count.root + sum(count.block[kind] for kind in order[max(0, at - 1) : at + 1]))
        scattered = FP32 * count.block_trained[order[at + 1]] if done else 0
        gradients = max(earlier, FP32 * sum(count.block_trained[kind] for kind in order[at + 1 :]) / shards)
        live = _activations(training, parallel, count.layers, batch, graphs, at)
        moments.append((gradients, live, gathered + scattered))
    gradients, activations, buffers = max(moments, key=sum)
    buffers += 2 * settings.micro_batch * graphs * _inputs(training)
    return Memory(
        weights=(stored * (count.total - count.trained) + FP32 * count.trained) / shards
        + (trained if settings.ema or settings.average else 0),
        optimizer=OPTIMIZER[settings.optimizer] * count.trained / shards,
        gradients=gradients,
        activations=activations,
        reference=stored_copy(training) * count.total / shards if reference == "copy" else 0.0,
        buffers=buffers,
        margin=RESERVED + FRAGMENTATION * (activations + buffers),
    )


def stored_copy(training: Training) -> int:
    """Bytes a parameter of a reference that is a model of its own."""
    moves = training.settings.reference_ema and training.settings.tuning == "full"
    return FP32 if moves else DTYPES[training.settings.precision].itemsize


def _order(layers: tuple[int, ...]) -> list[int]:
    """The kind of every block, from the first on."""
    return [kind for kind, depth in enumerate(layers) for _ in range(depth)]


def _activations(
    training: Training, parallel: Parallel, layers: tuple[int, ...], batch: int, graphs: int, at: int
) -> float:
    """While the block at a place goes backward, and those behind it have."""
    every, depth, order = parallel.activation_checkpointing, sum(layers), _order(layers)
    few = trace.recomputed(layers, every)

    def seen(kind: int, recomputed: bool) -> trace.Bytes:
        return trace.activations(
            training.a_pass, kind, training.latent[1], parallel.context, recomputed, parallel.tensor
        )

    if sum(few) in (0, depth):
        one = seen(order[at], sum(few) == depth)
        kept = [n * seen(kind, sum(few) == depth).block if n else 0.0 for kind, n in enumerate(layers)]
        fixed, outside = one.fixed, one.kept
    else:
        slim, whole = seen(order[at], True), seen(order[at], False)
        kept = [
            m * seen(kind, True).block + (n - m) * seen(kind, False).block
            for kind, (m, n) in enumerate(zip(few, layers, strict=True))
        ]
        behind = (depth - 1) % int(every)  # blocks after the last one that is recomputed; they are gone by then
        fixed, outside = max(whole.fixed, slim.fixed - behind * whole.block), whole.kept
    there = order[: at + 1]
    left = sum(size * there.count(kind) / max(1, layers[kind]) for kind, size in enumerate(kept))
    return batch * (left + fixed + (graphs - 1) * (sum(kept) + outside))


def _inputs(training: Training) -> float:
    """Of one sample, in fp32: clean latents, noise and target, and what the model is given."""
    given = training.architecture.inputs(1, training.latent, torch.float32)
    size = sum(value.numel() for value in trace.tensors(given))
    return FP32 * (3 * torch.Size(training.latent).numel() + size)
