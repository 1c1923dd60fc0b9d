"""What one forward and backward pass allocates and computes, found by running it on the meta device.

Models of two and three blocks are run for two lengths of video; everything else is a straight line through what was
seen (a parabola in the length for attention's FLOPs). Where there are blocks of several kinds, each kind is run without
the others. Attention is taken as flash attention: what is kept of it is
query, key, value, output and a number a row. Parameters and their gradients are not counted here.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from regdpo.config.training import Lora
from regdpo.core.errors import UserError
from regdpo.models.live import Live, Need
from regdpo.parallel.shard import recompute
from regdpo.plan import stand_ins
from regdpo.plan.architecture import Architecture, Given

DEPTHS = (2, 3)
FP32 = 4
LATENT_FRAMES = (8, 24)


@dataclass(frozen=True)
class Pass:
    """What is the same in all passes of a training."""

    architecture: Architecture
    height: int  # of the latents
    width: int
    lora: Lora | None
    dtype: torch.dtype

    def __hash__(self) -> int:
        rank = self.lora.rank if self.lora else 0
        return hash((self.architecture.name, self.height, self.width, rank, self.dtype))

    def latent(self, frames: int) -> tuple[int, int, int, int]:
        """(C, F', H', W')."""
        channels = self.architecture.latent_shape(1, 1, 1)[0]
        return channels, frames, self.height, self.width

    def alone(self, kind: int, depth: int) -> tuple[int, ...]:
        """Blocks of one kind without the others."""
        return tuple(depth if other == kind else 0 for other in range(len(self.architecture.layers)))


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters."""

    block: tuple[int, ...]  # of each kind
    root: int  # all that is in no block
    block_trained: tuple[int, ...]
    root_trained: int
    layers: tuple[int, ...]

    @property
    def total(self) -> int:
        return self.root + sum(depth * size for depth, size in zip(self.layers, self.block, strict=True))

    @property
    def trained(self) -> int:
        return self.root_trained + sum(n * size for n, size in zip(self.layers, self.block_trained, strict=True))


@dataclass(frozen=True)
class Bytes:
    """Of a pass over a sample: ``fixed + depth * block`` at its peak, ``kept + depth * block`` after forward."""

    fixed: float
    block: float
    kept: float


@dataclass(frozen=True)
class Flops:
    """FLOPs of a pass over one sample on all its ranks together."""

    forward: float
    backward: float
    blocks: tuple[float, ...]  # a forward pass through all blocks of each kind

    @property
    def recomputed(self) -> float:
        """By checkpointing every block."""
        return sum(self.blocks)


@cache
def parameters(of: Pass, tensor: int = 1) -> Parameters:
    """Count them, or of blocks that ``tensor`` ranks split what one of these has."""
    layers = of.architecture.layers
    model = model_of(of, (1,) * len(layers))
    if tensor > 1:
        stand_ins.split(model, of.architecture.family.blocks(model), of.architecture.family.tensor, tensor)
    blocks = [list(block.parameters()) for block in of.architecture.family.blocks(model)]
    counts = tuple(sum(p.numel() for p in block) for block in blocks)
    trained = tuple(sum(p.numel() for p in block if p.requires_grad) for block in blocks)
    return Parameters(
        block=counts,
        root=sum(p.numel() for p in model.parameters()) - sum(counts),
        block_trained=trained,
        root_trained=sum(p.numel() for p in model.parameters() if p.requires_grad) - sum(trained),
        layers=layers,
    )


def recomputed(layers: tuple[int, ...], every: str | int) -> tuple[int, ...]:
    """Blocks of each kind that are recomputed: none, all (``full``), or every nth, from the first of all on."""
    if every == "none":
        return (0,) * len(layers)
    step = 1 if every == "full" else int(every)
    chosen = [0, *(-(-end // step) for end in accumulate(layers))]
    return tuple(after - before for before, after in pairwise(chosen))


@cache
def activations(of: Pass, kind: int, frames: int, context: int, checkpointed: bool, tensor: int = 1) -> Bytes:
    """Peak of forward and backward of one sample on one of ``context x tensor`` ranks that share it.

    Args:
        kind: of blocks. frames: latent frames. checkpointed: every block is recomputed, or none.
    """
    short, long = LATENT_FRAMES
    shallow, deep = (_seen(of, long, context, checkpointed, of.alone(kind, depth), tensor).bytes for depth in DEPTHS)
    block = (deep[0] - shallow[0]) / (DEPTHS[1] - DEPTHS[0]) / long  # a frame; the text's share is below a hundredth
    brief = _seen(of, short, context, checkpointed, of.alone(kind, DEPTHS[0]), tensor).bytes

    def root(i: int) -> float:
        blocks = DEPTHS[0] * block
        return _line(LATENT_FRAMES, (brief[i] - blocks * short, shallow[i] - blocks * long), frames)

    return Bytes(root(0), block * frames, root(1))


SAMPLER = 8
"""Latents in fp32 that sampling keeps beside the denoiser: the noised ones, both answers, and what a solver of the
second order keeps and computes of them."""


@cache
def inference(of: Pass, frames: int, batch: int, texts: int = 1) -> Need:
    """A denoiser that is not trained: its weights, and the peak of a forward pass with what it is given.

    Args:
        frames: latent frames. batch: clips at once. texts: sets of what it is given beside the latents.
    """
    layers = of.architecture.layers
    model = model_of(of, tuple(min(DEPTHS[0], depth) for depth in layers)).eval()
    latent = of.latent(frames)
    inputs = of.architecture.inputs(batch, latent, of.dtype)
    given = tensors(inputs)
    with torch.no_grad(), _stand_ins(1), Live([*model.parameters(), *model.buffers(), *given]) as live:
        model(*inputs[0], **inputs[1])
    kept = FP32 * batch * (SAMPLER * math.prod(latent) + texts * of.architecture.beside(latent))
    return Need(_held(of), sum(tensor.nbytes for tensor in given) + live.peak + kept)


def _held(of: Pass) -> int:
    """Bytes of a whole denoiser's weights as they are loaded: some layers stay in fp32 (``_keep_in_fp32_modules``)."""
    model = of.architecture.empty()
    if of.lora:
        of.architecture.family.add_lora(model, of.lora)
    exact = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    size = sum(buffer.nbytes for buffer in model.buffers())
    for name, parameter in model.named_parameters():
        size += parameter.numel() * (FP32 if exact & set(name.split(".")) else of.dtype.itemsize)
    return size


@cache
def flops(of: Pass, frames: int) -> Flops:
    """FLOPs for ``frames`` latent frames. A multiplication and an addition are two."""
    layers = of.architecture.layers

    def seen(kind: int, depth: int, phase: int) -> float:
        short, long = (_seen(of, f, 1, False, of.alone(kind, depth), 1).flops[phase] for f in LATENT_FRAMES)
        matrices = _line(LATENT_FRAMES, (short[0], long[0]), frames)
        # Attention over tokens and text: a * frames + b * frames^2.
        ratios = (short[1] / LATENT_FRAMES[0], long[1] / LATENT_FRAMES[1])
        return matrices + frames * _line(LATENT_FRAMES, ratios, frames)

    parts = []
    for phase in (0, 1):
        deep = [seen(kind, DEPTHS[1], phase) for kind in range(len(layers))]
        shallow = [seen(kind, DEPTHS[0], phase) for kind in range(len(layers))]
        block = [(d - s) / (DEPTHS[1] - DEPTHS[0]) for d, s in zip(deep, shallow, strict=True)]
        all_of = tuple(depth * one for depth, one in zip(layers, block, strict=True))
        parts.append((deep[0] + (layers[0] - DEPTHS[1]) * block[0] + sum(all_of[1:]), all_of))
    (forward, blocks), (backward, _) = parts
    return Flops(forward, backward, blocks)


def _line(at: tuple[int, int], values: tuple[float, float], x: float) -> float:
    return values[0] + (values[1] - values[0]) * (x - at[0]) / (at[1] - at[0])


def model_of(of: Pass, layers: tuple[int, ...]) -> nn.Module:
    """The policy on the meta device, parameters as they are gathered for a block's computation.

    Raises:
        UserError: there are blocks that no adapter is for, without the others.
    """
    model = of.architecture.empty(layers)
    if of.lora:
        model.requires_grad_(False)
        of.architecture.family.add_lora(model, _found_in(model, of.lora) if 0 in layers else of.lora)
    for parameter in model.parameters():  # and no buffer: rotary tables stay fp32
        parameter.data = parameter.data.to(of.dtype)
    return model.train()


def _found_in(model: nn.Module, lora: Lora) -> Lora:
    """With those of its layers that a model has which lacks some kind of blocks."""
    from regdpo.models.adapters import linear_layers  # here, since it loads diffusers, as the next two

    if isinstance(lora.targets, str):
        return lora
    layers = linear_layers(model)
    found = [name for name in lora.targets if any(layer == name or layer.endswith(f".{name}") for layer in layers)]
    if not found:
        raise UserError("train.settings.lora.targets: some kind of blocks has none of them; no plan is made for that")
    return lora.model_copy(update={"targets": found})


@dataclass(frozen=True)
class _Seen:
    """Of one pass."""

    bytes: tuple[int, int]  # at the peak, and between forward and backward
    flops: tuple[tuple[float, float], tuple[float, float]]  # of (the rest, attention), forward and backward


@cache
def _seen(of: Pass, frames: int, context: int, checkpointed: bool, layers: tuple[int, ...], tensor: int) -> _Seen:
    """Run a pass of one sample on one of ``context x tensor`` ranks that share it."""
    model, inputs = model_of(of, layers), of.architecture.inputs(1, of.latent(frames), of.dtype)
    blocks = of.architecture.family.blocks(model)
    if checkpointed:
        recompute(model, blocks, 1)
    if tensor > 1:
        stand_ins.split(model, blocks, of.architecture.family.tensor, tensor)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
    given = tensors(inputs)
    with _stand_ins(context) as attention, _Counted([*model.parameters(), *model.buffers(), *given]) as live:
        if context > 1:
            _split(model, attention)
        error = error_of(model, inputs)
        kept, forward = live.now, (live.flops, attention.forward)
        error.backward()
    assert live.now <= live.peak / 50, f"{live.now} bytes outlived the pass"
    return _Seen((live.peak, kept), (forward, (live.flops - forward[0], attention.backward)))


class _Counted(Live):
    """And FLOPs of matrix products and convolutions."""

    flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if law := flop_registry.get(func.overloadpacket):
            self.flops += law(*args, **(kwargs or {}), out_val=result)
        return result


def tensors(given: Given) -> list[Tensor]:
    """Those that a model is given one by one."""
    return [value for value in (*given[0], *given[1].values()) if isinstance(value, Tensor)]


def error_of(model: nn.Module, given: Given) -> Tensor:
    """The squared error of an answer, against what does not matter."""
    answer = model(*given[0], **given[1])
    prediction: Tensor = answer[0] if isinstance(answer, tuple) else answer
    del answer
    return ((prediction.float() - torch.empty_like(prediction, dtype=torch.float32)) ** 2).mean()


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


class _Attention:
    """Flash attention by its shapes, under Ulysses where ranks share a sequence. It adds up its FLOPs."""

    def __init__(self, context: int):
        self.context, self.forward, self.backward = context, 0.0, 0.0

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = _Flash.apply(query, key, value, self)
        return result


class _Flash(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, law: _Attention) -> Tensor:
        ctx.law, ctx.exchanged = law, law.context > 1 and query.shape[-2] == key.shape[-2]  # text is not split
        ctx.product = 2.0 * query.numel() * key.shape[-2]
        law.forward += 2 * ctx.product
        if ctx.exchanged:
            query, key, value = _exchange(query, key, value)
        out, rows = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, rows)
        return _exchange(out)[0] if ctx.exchanged else out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.law.backward += 5 * ctx.product  # the scores are computed again
        gradient = _exchange(gradient)[0] if ctx.exchanged else gradient
        gradients = [torch.empty_like(saved) for saved in ctx.saved_tensors[:3]]
        del gradient
        return *(_exchange(*gradients) if ctx.exchanged else gradients), None


def _exchange(*tensors: Tensor) -> list[Tensor]:
    """Ulysses: ordered for sending, received, ordered for use; each step for all tensors, as diffusers does it."""
    result = list(tensors)
    for _ in range(3):
        result = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in result]
    return result


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, dim: int, ranks: int) -> Tensor:
        ctx.dim, ctx.ranks = dim, ranks
        shape = list(tensor.shape)
        shape[dim] *= ranks
        return tensor.new_empty(shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient.chunk(ctx.ranks, ctx.dim)[0], None, None


@contextmanager
def _stand_ins(context: int) -> Iterator[_Attention]:
    """Attention and exchange between ranks by their shapes."""
    attention = _Attention(context)
    with ExitStack() as stack:
        stack.enter_context(patch("torch.nn.functional.scaled_dot_product_attention", attention))
        if context == 1:
            yield attention
            return
        from diffusers.hooks.context_parallel import EquipartitionSharder

        stack.enter_context(patch.object(EquipartitionSharder, "shard", lambda x, dim, mesh: x.chunk(context, dim)[0]))
        stack.enter_context(
            patch.object(EquipartitionSharder, "unshard", lambda x, dim, mesh: _Gather.apply(x, dim, context))
        )
        yield attention


def _split(model: nn.Module, attention: _Attention) -> None:
    """Split the sequence where diffusers splits it."""
    from diffusers.hooks.context_parallel import apply_context_parallel

    config: Any = SimpleNamespace(ulysses_anything=False, ring_anything=False, _mesh=None, _flattened_mesh=None)
    apply_context_parallel(model, config, model._cp_plan)  # type: ignore[arg-type]
    # For a model that fills its sequence up; attention has none, so that nothing is sent.
    ulysses = SimpleNamespace(ulysses_degree=attention.context)
    model._parallel_config = SimpleNamespace(context_parallel_config=ulysses)  # type: ignore[assignment]
