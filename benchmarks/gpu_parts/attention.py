"""Attention backends side by side, forward and backward, at Wan's shapes: time, and error against full precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import rig
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch import Tensor

from gpu_parts.bench import Bench
from regdpo.core.errors import UserError
from regdpo.parallel import attention
from regdpo.plan.architecture import Architecture

TIMES = 3
TEXT = 512
HEIGHT_WIDTH = ((480, 832), (720, 1280))


def measure(bench: Bench) -> None:
    """Every backend that the trainer may choose, on self-attention over 81 frames and on attention to text."""
    backends = [name for name in attention.FLASH if _there(bench, name)]
    for architecture in bench.some([*reversed(bench.models().values())]):
        for height, width in ((32, 64),) if bench.dry else HEIGHT_WIDTH:
            tokens = architecture.family.tokens(architecture.latent_shape(17 if bench.dry else 81, height, width))
            for keys in (tokens, TEXT):
                for backend in backends:
                    about = {"backend": backend, "heads": architecture.family.heads, "queries": tokens, "keys": keys}
                    bench.row(partial(_one, bench, architecture, tokens, keys, backend), needs=3, **about)


def _there(bench: Bench, backend: str) -> bool:
    """Whether it can be used here; else a row says why not."""
    model = WanTransformer3DModel(num_layers=1, num_attention_heads=1, ffn_dim=8, text_dim=8)  # to be asked
    try:
        attention.choose(model, bench.device, bench.dtype, backend)
    except UserError as error:
        bench.fail(str(error), backend=backend)
        return False
    return True


def _one(bench: Bench, architecture: Architecture, tokens: int, keys: int, backend: str) -> dict[str, Any]:
    name = AttentionBackendName(backend)
    heads = architecture.family.heads
    width = architecture.family.width // heads
    source = torch.Generator(bench.device).manual_seed(0)

    def draw(length: int) -> Tensor:
        shape = (1, length, heads, width)
        return torch.randn(shape, generator=source, device=bench.device, dtype=bench.dtype)

    given = [draw(tokens), draw(keys), draw(keys)]
    slope = draw(tokens)
    leaves = [tensor.requires_grad_() for tensor in given]

    def forward() -> Tensor:
        return dispatch_attention_fn(*leaves, backend=name)

    def both() -> list[Tensor]:
        out = forward()
        return [out, *torch.autograd.grad(out, leaves, slope)]

    found, again = both(), both()
    row: dict[str, Any] = {"same bytes twice": all(map(torch.equal, found, again))}
    if backend not in attention.IN_NO_ORDER:
        with _deterministic():
            row["same bytes twice, deterministic"] = all(map(torch.equal, both(), both()))
            row["forward and backward, deterministic, ms"] = 1000 * rig.median(both, bench.device, TIMES)
    del again
    wanted = _exact(*(tensor[0, :, 0].detach().float() for tensor in given), slope[0, :, 0].float())
    for what, one, right in zip(("out", "dq", "dk", "dv"), found, wanted, strict=True):
        row[f"error of {what}"] = rig.relative(one[0, :, 0], right)
    del found, wanted
    memory = rig.Memory(bench.device)
    row["forward, ms"] = 1000 * rig.median(forward, bench.device, TIMES)
    took = rig.median(both, bench.device, TIMES)
    row["forward and backward, ms"] = 1000 * took
    # four products forward and ten backward, of which two compute the scores again (FlashAttention-2, arXiv 2307.08691)
    row["TFLOP/s"] = 14 * tokens * keys * architecture.family.width / took / 1e12
    row["peak, GiB"] = memory.peak / 2**30
    return row


@contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _exact(query: Tensor, key: Tensor, value: Tensor, slope: Tensor) -> list[Tensor]:
    """One head in fp32, by the definition, in chunks of queries: output and gradients."""
    scale = query.shape[-1] ** -0.5
    out, d_query = torch.empty_like(query), torch.empty_like(query)
    d_key, d_value = torch.zeros_like(key), torch.zeros_like(value)
    for rows in torch.arange(len(query), device=query.device).split(8192):
        weights = torch.softmax(query[rows] @ key.T * scale, -1)
        out[rows] = weights @ value
        d_value += weights.T @ slope[rows]
        d_weights = slope[rows] @ value.T
        d_scores = weights * (d_weights - (slope[rows] * out[rows]).sum(-1, keepdim=True)) * scale
        d_query[rows] = d_scores @ key
        d_key += d_scores.T @ query[rows]
    return [out, d_query, d_key, d_value]
