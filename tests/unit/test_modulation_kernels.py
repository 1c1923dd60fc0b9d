"""The Triton kernels of benchmarks/kernels.py against their formulas, by Triton's interpreter on the CPU."""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="Triton is not installed: envs/dev.lock does without its 200 MB")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("TRITON_INTERPRET=1 has to be set before Triton is loaded", allow_module_level=True)

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
from gpu_parts import modulation

BATCH, TOKENS, WIDTH = 2, 11, 24
KINDS = {"a sample's": 1, "noisy or clean": 2, "its own": TOKENS}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def given(request):
    """A table's draw, the rows that tokens take, and what a table (B, K, C) gives every token."""
    source = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=source)  # noqa: E731
    kinds = request.param
    rows = torch.arange(TOKENS).expand(BATCH, -1) if kinds == TOKENS else torch.zeros(BATCH, TOKENS, dtype=torch.int64)
    if kinds == 2:
        rows = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1], [0] * 4 + [1] * 3 + [0] * 4])
    taken = lambda table: table.gather(1, rows.unsqueeze(2).expand(-1, -1, WIDTH))  # noqa: E731
    return draw, kinds, rows.int() if kinds == 2 else None, taken


def both(function, formula, tensors, slope):
    """Outputs and gradients: the kernel's in fp32, the formula's in fp64."""
    leaves = [it.clone().requires_grad_() for it in tensors]
    wide = [it.double().requires_grad_() for it in tensors]
    for way, ours in ((function, leaves), (formula, wide)):
        out = way(*ours)
        yield [out, *torch.autograd.grad(out, ours, slope.to(out.dtype))]


def compare(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_modulate(given):
    draw, kinds, rows, taken = given
    tables = [draw(BATCH, kinds, WIDTH) for _ in range(2)]

    def formula(x, shift, scale):
        return F.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + taken(scale)) + taken(shift)

    def kernel(x, shift, scale):
        return modulation.modulate(x, shift, scale, rows)

    compare(*both(kernel, formula, [draw(BATCH, TOKENS, WIDTH) + 1, *tables], draw(BATCH, TOKENS, WIDTH)))


def test_gate(given):
    draw, kinds, rows, taken = given
    tensors = [draw(BATCH, TOKENS, WIDTH), draw(BATCH, TOKENS, WIDTH), draw(WIDTH), draw(BATCH, kinds, WIDTH)]

    def formula(x, a, bias, gate):
        return x + taken(gate) * (a + bias)

    def kernel(x, a, bias, gate):
        return modulation.gate(x, a, bias, gate, rows)

    compare(*both(kernel, formula, tensors, draw(BATCH, TOKENS, WIDTH)))
