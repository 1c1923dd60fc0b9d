"""Modulation as Triton kernels with their backward, each one pass over the tokens: what ``torch.compile`` is measured
against. The package does not use them.

A token takes its row of the tables: its sample's (Wan), its sample's for noisy or for clean tokens (MUG-V), or its own.
Sums are in fp32 and always in the same order: two runs give the same bytes.

Shapes: tokens x (B, S, C); tables (B, K, C), where K is 1, 2 or, for a row of each token's own, S; ``rows`` int32
(B, S) in [0, K), the row that a token takes, None for K = 1 and K = S.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

EPS = 1e-6
PROGRAMS = 2
"""Of a backward pass, for each multiprocessor: as many sums there are to be added up at the end."""


@triton.jit
def _modulate(
    x, shift, scale, rows, y, means, stds, tokens, kinds, width, eps, OWN: tl.constexpr, KINDS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    row = token if OWN else token // tokens * kinds
    if KINDS:
        row += tl.load(rows + token)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    value = tl.load(x + token * width + columns, mask=inside, other=0).to(tl.float32)
    mean = tl.sum(value, 0) / width
    centred = tl.where(inside, value - mean, 0)
    std = 1 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)  # its inverse
    factor = 1 + tl.load(scale + row * width + columns, mask=inside, other=0).to(tl.float32)
    offset = tl.load(shift + row * width + columns, mask=inside, other=0).to(tl.float32)
    tl.store(y + token * width + columns, centred * std * factor + offset, mask=inside)
    tl.store(means + token, mean)
    tl.store(stds + token, std)


@triton.jit
def _modulate_back(
    slope, x, scale, rows, means, stds, d_x, d_shift, d_scale, tokens, kinds, width, share, OWN: tl.constexpr,
    KINDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    part, sample = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    sum_shift = tl.zeros([BLOCK], tl.float32)
    sum_scale = tl.zeros([BLOCK], tl.float32)
    place = (sample * tl.num_programs(0) + part) * kinds
    kind = 0
    for number in range(part * share, tl.minimum((part + 1) * share, tokens)):
        token = sample.to(tl.int64) * tokens + number
        row = token
        if not OWN:
            now = 0
            if KINDS:
                now = tl.load(rows + token)
                if now != kind:  # tokens of a kind lie together: this is rare
                    _add(d_shift, d_scale, (place + kind) * width + columns, inside, sum_shift, sum_scale)
                    sum_shift = tl.zeros([BLOCK], tl.float32)
                    sum_scale = tl.zeros([BLOCK], tl.float32)
                    kind = now
            row = (sample * kinds + now).to(tl.int64)
        here = token * width + columns
        rise = tl.load(slope + here, mask=inside, other=0).to(tl.float32)
        std = tl.load(stds + token)
        normed = (tl.load(x + here, mask=inside, other=0).to(tl.float32) - tl.load(means + token)) * std
        normed = tl.where(inside, normed, 0)
        inner = rise * (1 + tl.load(scale + row * width + columns, mask=inside, other=0).to(tl.float32))
        mean, along = tl.sum(inner, 0) / width, tl.sum(inner * normed, 0) / width
        tl.store(d_x + here, (inner - mean - normed * along) * std, mask=inside)
        if OWN:
            tl.store(d_shift + here, rise, mask=inside)
            tl.store(d_scale + here, rise * normed, mask=inside)
        else:
            sum_shift += rise
            sum_scale += rise * normed
    if not OWN:
        _add(d_shift, d_scale, (place + kind) * width + columns, inside, sum_shift, sum_scale)


@triton.jit
def _gate(x, a, bias, gate, rows, y, tokens, kinds, width, OWN: tl.constexpr, KINDS: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    row = token if OWN else token // tokens * kinds
    if KINDS:
        row += tl.load(rows + token)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    here = token * width + columns
    added = tl.load(a + here, mask=inside, other=0).to(tl.float32)
    added += tl.load(bias + columns, mask=inside, other=0).to(tl.float32)
    factor = tl.load(gate + row * width + columns, mask=inside, other=0).to(tl.float32)
    tl.store(y + here, tl.load(x + here, mask=inside, other=0).to(tl.float32) + added * factor, mask=inside)


@triton.jit
def _gate_back(
    slope, a, bias, gate, rows, d_a, d_bias, d_gate, tokens, kinds, width, share, OWN: tl.constexpr,
    KINDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    part, sample = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    offset = tl.load(bias + columns, mask=inside, other=0).to(tl.float32)
    sum_bias = tl.zeros([BLOCK], tl.float32)
    sum_gate = tl.zeros([BLOCK], tl.float32)
    own = sample * tl.num_programs(0) + part
    kind = 0
    for number in range(part * share, tl.minimum((part + 1) * share, tokens)):
        token = sample.to(tl.int64) * tokens + number
        row = token
        if not OWN:
            now = 0
            if KINDS:
                now = tl.load(rows + token)
                if now != kind:
                    place = d_gate + (own * kinds + kind) * width + columns
                    tl.store(place, tl.load(place, mask=inside, other=0) + sum_gate, mask=inside)
                    sum_gate = tl.zeros([BLOCK], tl.float32)
                    kind = now
            row = (sample * kinds + now).to(tl.int64)
        here = token * width + columns
        rise = tl.load(slope + here, mask=inside, other=0).to(tl.float32)
        passed = rise * tl.load(gate + row * width + columns, mask=inside, other=0).to(tl.float32)
        tl.store(d_a + here, passed, mask=inside)
        sum_bias += passed
        grown = rise * (tl.load(a + here, mask=inside, other=0).to(tl.float32) + offset)
        if OWN:
            tl.store(d_gate + here, grown, mask=inside)
        else:
            sum_gate += grown
    tl.store(d_bias + own * width + columns, sum_bias, mask=inside)
    if not OWN:
        place = d_gate + (own * kinds + kind) * width + columns
        tl.store(place, tl.load(place, mask=inside, other=0) + sum_gate, mask=inside)


@triton.jit
def _add(first, second, places, inside, one, other):
    tl.store(first + places, tl.load(first + places, mask=inside, other=0) + one, mask=inside)
    tl.store(second + places, tl.load(second + places, mask=inside, other=0) + other, mask=inside)


class _Modulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, rows: Tensor | None, warps: int) -> Tensor:
        y = torch.empty_like(x)
        means, stds = (torch.empty(x.shape[:2], device=x.device) for _ in range(2))
        tokens, kinds, options = _options(x, shift, warps)
        width = x.shape[2]
        grid = (x.shape[0] * tokens,)
        _modulate[grid](x, shift, scale, rows, y, means, stds, tokens, kinds, width, EPS, **options)
        ctx.save_for_backward(x, scale, rows, means, stds)
        ctx.warps = warps
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, scale, rows, means, stds = ctx.saved_tensors
        slope, d_x = slope.contiguous(), torch.empty_like(x)
        tokens, kinds, options = _options(x, scale, ctx.warps)
        grid, share = _grid(x)
        d_shift, d_scale = (_sums(scale, grid, options["OWN"]) for _ in range(2))
        given = (slope, x, scale, rows, means, stds, d_x, d_shift, d_scale, tokens, kinds, x.shape[2], share)
        _modulate_back[grid](*given, **options)
        return d_x, _total(d_shift, scale), _total(d_scale, scale), None, None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, bias: Tensor, gate: Tensor, rows: Tensor | None, warps: int) -> Tensor:
        y = torch.empty_like(x)
        tokens, kinds, options = _options(x, gate, warps)
        _gate[(x.shape[0] * tokens,)](x, a, bias, gate, rows, y, tokens, kinds, x.shape[2], **options)
        ctx.save_for_backward(a, bias, gate, rows)
        ctx.warps = warps
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        a, bias, gate, rows = ctx.saved_tensors
        slope, d_a = slope.contiguous(), torch.empty_like(a)
        tokens, kinds, options = _options(a, gate, ctx.warps)
        grid, share = _grid(a)
        d_gate = _sums(gate, grid, options["OWN"])
        d_bias = slope.new_empty((grid[0] * grid[1], a.shape[2]), dtype=torch.float32)
        given = (slope, a, bias, gate, rows, d_a, d_bias, d_gate, tokens, kinds, a.shape[2], share)
        _gate_back[grid](*given, **options)
        return slope, d_a, d_bias.sum(0).to(bias.dtype), _total(d_gate, gate), None, None


def modulate(x: Tensor, shift: Tensor, scale: Tensor, rows: Tensor | None = None, warps: int = 8) -> Tensor:
    """``LN(x) (1 + scale) + shift`` of every token, layer norm without weights; in fp32, answered as x is."""
    y: Tensor = _Modulate.apply(x, shift, scale, rows, warps)
    return y


def gate(x: Tensor, a: Tensor, bias: Tensor, gate: Tensor, rows: Tensor | None = None, warps: int = 8) -> Tensor:
    """``x + gate (a + bias)`` of every token; bias (C,); in fp32, answered as x is."""
    y: Tensor = _Gate.apply(x, a, bias, gate, rows, warps)
    return y


def _options(x: Tensor, table: Tensor, warps: int) -> tuple[int, int, dict[str, Any]]:
    """Tokens of a sample, rows of its table, and what the kernels are made for."""
    tokens, kinds = x.shape[1], table.shape[1]
    own = kinds == tokens
    block = triton.next_power_of_2(x.shape[2])
    return tokens, kinds, {"OWN": own, "KINDS": kinds > 1 and not own, "BLOCK": block, "num_warps": warps}


def _grid(x: Tensor) -> tuple[tuple[int, int], int]:
    """Programs of a backward pass for each sample, and samples; the tokens of one program."""
    units = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2
    share = triton.cdiv(x.shape[0] * x.shape[1], PROGRAMS * units)
    return (triton.cdiv(x.shape[1], share), x.shape[0]), share


def _sums(table: Tensor, grid: tuple[int, int], own: bool) -> Tensor:
    """Where a table's gradient is gathered: (B, programs, K, C), or as the table where every token has its row."""
    if own:
        return torch.empty_like(table)
    programs, samples = grid
    return table.new_zeros((samples, programs, *table.shape[1:]), dtype=torch.float32)


def _total(gathered: Tensor, table: Tensor) -> Tensor:
    return gathered.sum(1).to(table.dtype) if gathered.ndim == 4 else gathered
