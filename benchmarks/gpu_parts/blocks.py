"""Whole blocks: the kernels that torch.compile makes between matrix products and attention, what each of them fuses,
and on a GPU what they take, beside the same block without."""

import re
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import rig
import torch
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch._inductor.utils import run_and_get_code

from gpu_parts.bench import Bench
from gpu_parts.fusion import TOKENS
from regdpo.models import mugv_transformer as mugv
from regdpo.train.build import COMPILER

LORA = {"Wan 14B": ["to_q", "to_k", "to_v", "to_out.0"], "MUG-V 10B": ["qkv", "proj", "q_linear", "kv_linear"]}
CASES = (("Wan 14B", "full"), ("MUG-V 10B", "full"), ("Wan 14B", "lora"), ("MUG-V 10B", "lora"))
"""Models and what is trained. A full tuning has every sum over tokens that a backward pass can ask for."""
MADE = re.compile(r"^ +((cpp|triton_[a-z]+)_fused_?(\w*?)_(\d+))(?:\.run)?\(", re.MULTILINE)
CALLED = re.compile(r"(?:^ +|= )(?:extern_kernels|torch\.ops\.\w+)\.(\w+)(?:\.default)?\(", re.MULTILINE)
PRODUCTS = re.compile(r"gemm|cutlass|nvjet|xmma|splitk", re.IGNORECASE)
ATTENTION = re.compile(r"flash|fmha|attention|cudnn.*sdpa|sdpa", re.IGNORECASE)


def measure(bench: Bench) -> None:
    """For each of them a row that counts, and a row for each kernel."""
    for model, tuning in CASES:
        bench.row(partial(_eager, bench, model, tuning), needs=4, model=model, tuning=tuning, way="eager")
        kernels: list[dict[str, Any]] = []
        about = {"model": model, "tuning": tuning, "way": "compiled"}
        bench.row(partial(_compiled, bench, model, tuning, kernels), needs=10, **about)
        for kernel in kernels:
            bench.row(partial(dict, kernel), model=model, tuning=tuning, way="compiled")


def _eager(bench: Bench, model: str, tuning: str) -> dict[str, Any]:
    block, given, leaves = _block(bench, model, tuning)
    work = partial(_both, block, given, leaves)
    work()
    return {} if bench.dry else _timed(work, bench)[0]


def _compiled(bench: Bench, model: str, tuning: str, kernels: list[dict[str, Any]]) -> dict[str, Any]:
    block, given, leaves = _block(bench, model, tuning)
    work = partial(_both, block, given, leaves)
    wanted = work()
    torch._dynamo.reset()
    block.compile(dynamic=False, options=COMPILER)
    begun = time.monotonic()
    found, code = run_and_get_code(work)
    row: dict[str, Any] = {"to compile, s": time.monotonic() - begun}
    errors = [rig.relative(one, other) for one, other in zip(found, wanted, strict=True)]
    row |= {"error of y": errors[0], "worst of a gradient": max(errors[1:])}
    del found, wanted
    each: Counter[str] = Counter()
    if not bench.dry:
        timed, each = _timed(work, bench)
        row |= timed
    for source in code:
        print(source)  # to the log
        name = "backward" if "tangents_1" in source else "forward"
        calls = source[source.index("def call(") :]
        made, called = Counter(MADE.findall(calls)), Counter(CALLED.findall(calls))
        row[f"kernels {name}"] = made.total()
        row[f"products {name}"] = sum(count for it, count in called.items() if re.search("mm|convolution", it))
        row[f"attention {name}"] = sum(count for it, count in called.items() if "attention" in it)
        for (whole, kind, fused, number), count in made.items():
            one: dict[str, Any] = {"pass": name, "kernel": f"{kind} {number}", "calls": count, "fuses": fused}
            if whole in each:
                one["ms"] = each[whole] / 1000
            kernels.append(one)
    return row


def _timed(work: Callable[[], object], bench: Bench) -> tuple[dict[str, Any], Counter[str]]:
    """A forward and a backward pass: all in all, and by the profiler; microseconds of every kernel of its own."""
    row: dict[str, Any] = {"ms": 1000 * rig.median(work, bench.device, 5)}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    each, kinds, count = Counter[str](), Counter[str](), 0
    for it in profile.key_averages():
        kind = "attention" if ATTENTION.search(it.key) else "products" if PRODUCTS.search(it.key) else "rest"
        kinds[kind] += it.self_device_time_total
        count += it.count if kind == "rest" and it.self_device_time_total else 0
        each[it.key] += it.self_device_time_total
    for kind in ("products", "attention", "rest"):
        row[f"{kind}, ms"] = kinds[kind] / 1000
    return row | {"kernels of the rest": count}, each


def _both(block: nn.Module, given: list[Any], leaves: list[Tensor]) -> list[Tensor]:
    out = block(*given)
    return [out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))]


def _block(bench: Bench, model: str, tuning: str) -> tuple[nn.Module, list[Any], list[Tensor]]:
    """A block with random weights, what it is given, and what is asked for the gradients of."""
    torch.manual_seed(0)
    device, dtype, wan = bench.device, bench.dtype, model == "Wan 14B"
    tokens, text = (96, 16) if bench.dry else (TOKENS, 512 if wan else 300)
    width, heads, hidden = (5120, 40, 13824) if wan else (3456, 48, 13824)
    if bench.dry:
        width, heads, hidden = (64, 2, 128) if wan else (48, 2, 96)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype)

    with torch.device(device):
        block: nn.Module
        if wan:
            block = WanTransformerBlock(width, hidden, heads, cross_attn_norm=True)
        else:
            block = mugv.MugVBlock(width, heads, hidden)
    block = block.to(dtype)
    x, states = draw(1, tokens, width), draw(1, text, width)
    if tuning == "lora":
        block.requires_grad_(False)
        inject_adapter_in_model(LoraConfig(r=8 if bench.dry else 64, target_modules=LORA[model]), block)
        block = block.to(dtype)
    if wan:
        tables = tuple(torch.rand(1, tokens, 1, width // heads, device=device) for _ in range(2))
        times = draw(1, 6, width)
        given: list[Any] = [x, states, times, tables]
    else:
        noisy = torch.ones(1, tokens, 1, dtype=torch.bool, device=device)
        noisy[:, : tokens // 21] = noisy[:, -1] = False
        shown = torch.arange(text, device=device)[None] < text // 2
        times = draw(2, 1, 6, width)
        table = torch.rand(1, tokens, 1, width // heads // 2, 2, device=device)
        given = [x, states, shown, times, noisy, table, tokens]
    leaves = [x.requires_grad_(), *(it for it in block.parameters() if it.requires_grad)]
    if tuning == "full":
        leaves.append(times.requires_grad_())
    return block, given, leaves
