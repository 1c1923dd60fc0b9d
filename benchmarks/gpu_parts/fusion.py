"""Modulation and gated residuals, forward and backward: as the blocks run them, by torch.compile, and by Triton."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import rig
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpu_parts.bench import Bench
from regdpo.models import mugv_transformer as mugv

EPS = 1e-6
TOKENS = 32760
"""Of 81 frames of 480x832."""
TIMES = 7
WARPS = (8, 16)
WAYS = ("eager", "compiled", "triton")


@dataclass(frozen=True)
class Case:
    """Whose modulation, for how many samples, and how tokens take it: ``sample`` (Wan: one row for all tokens of a
    sample), ``choice`` (MUG-V: one for noisy and one for clean tokens), ``token`` (Wan 2.2 5B: each its own)."""

    model: str
    width: int
    kind: str
    samples: int = 1
    tokens: int = TOKENS

    @property
    def table(self) -> torch.dtype:
        """Of modulations, as the blocks have them: Wan's are fp32."""
        return torch.bfloat16 if self.kind == "choice" else torch.float32

    @property
    def rows(self) -> int:
        return {"sample": 1, "choice": 2, "token": self.tokens}[self.kind]


CASES = (
    Case("Wan 14B", 5120, "sample"),
    Case("MUG-V 10B", 3456, "choice"),
    Case("Wan 14B", 5120, "sample", samples=2),
    Case("Wan 14B", 5120, "token"),
)
Function = Callable[..., Tensor]


def measure(bench: Bench) -> None:
    """Time of the device, bytes that have to be read and written at least once, their share of what a copy moves in the
    same run, and the error of every result against the same formula in float64."""
    copied = _copied(bench)
    bench.row(lambda: {"TB/s": copied / 1e12}, function="copy")
    for case in CASES:
        if bench.dry:
            case = Case(case.model, 96, case.kind, case.samples, 50)
        for name in ("modulate", "gate"):
            *given, slope = _given(case, name, bench)
            wanted = _both(_plain(case, name, given), [it.double() for it in given], slope.double())
            for way in WAYS:
                about = {"function": name, "model": case.model, "modulation": case.kind, "samples": case.samples}
                one = partial(_one, bench, case, name, way, given, slope, wanted, copied)
                bench.row(one, needs=6, **about, way=way)
            del given, slope, wanted
    if not bench.dry:
        bench.row(partial(_linear, bench), needs=1, function="linear", model="Wan 14B")


def _one(
    bench: Bench,
    case: Case,
    name: str,
    way: str,
    given: list[Tensor],
    slope: Tensor,
    wanted: list[Tensor],
    copied: float,
) -> dict[str, Any]:
    leaves = [it.detach().requires_grad_() for it in given]
    found: dict[str, Any] = {}
    timed: dict[tuple[float, float], str] = {}
    for how, function in _ways(bench, case, name, way, given):
        results = _both(function, leaves, slope)
        if not found:
            names = ["y", "dx"] + (["dshift", "dscale"] if name == "modulate" else ["da", "dbias", "dgate"])
            found |= {
                f"error of {what}": rig.relative(it, right)
                for what, it, right in zip(names, results, wanted, strict=True)
            }
        del results
        timed[_forward_backward(function, leaves, slope, bench)] = how
    forward, backward = min(timed, key=sum)
    moved = _bytes(name, given)
    row: dict[str, Any] = {"forward, ms": 1000 * forward, "forward, GB": moved[0] / 1e9}
    row |= {"of a copy": moved[0] / forward / copied}
    row |= {"backward, ms": 1000 * backward, "backward, GB": moved[1] / 1e9}
    row |= {"of a copy, backward": moved[1] / backward / copied}
    return row | found | ({"how": timed[forward, backward]} if len(timed) > 1 else {})


def _given(case: Case, name: str, bench: Bench) -> list[Tensor]:
    """x, shift, scale; or x, a, bias, gate. And last what the result's gradient is."""
    draw = _draw(bench.device, bench.dtype)
    whole = case.samples, case.tokens, case.width
    table = torch.float32 if bench.dry else case.table
    tables = [
        draw(case.samples, case.rows, case.width, dtype=table) * 0.5 for _ in range(2 if name == "modulate" else 1)
    ]
    others = [] if name == "modulate" else [draw(*whole), draw(case.width)]
    return [draw(*whole), *others, *tables, draw(*whole)]


def _draw(device: torch.device, usual: torch.dtype) -> Function:
    source = torch.Generator(device).manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(*shape, generator=source, device=device, dtype=dtype or usual)

    return draw


def _clean(case: Case, device: torch.device) -> Tensor:
    """int32 (B, S), 1 where a token takes the modulation of t = 0: a first frame of 21, and the tokens at the ends."""
    rows = torch.zeros(case.samples, case.tokens, dtype=torch.int32, device=device)
    rows[:, : case.tokens // 21] = rows[:, -1] = 1
    return rows


def _plain(case: Case, name: str, given: list[Tensor]) -> Function:
    """As the blocks have it: diffusers' Wan in fp32 between bf16 tokens, ours of MUG-V in the tokens' type.

    A gate's ``a`` comes from a linear layer, whose bias the matrix product adds on its way out (the row ``linear`` says
    what that takes). Here it is added for itself.
    """
    noisy = (_clean(case, given[0].device) == 0).unsqueeze(2)

    def wide(x: Tensor) -> Tensor:
        return x if x.dtype == torch.float64 else x.float()

    def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        if case.kind == "choice":
            return mugv.modulated(mugv.norm(x), shift.transpose(0, 1), scale.transpose(0, 1), noisy)
        return (F.layer_norm(wide(x), x.shape[-1:], eps=EPS) * (1 + scale) + shift).type_as(x)

    def gate(x: Tensor, a: Tensor, bias: Tensor, gates: Tensor) -> Tensor:
        if case.kind == "choice":
            return x + mugv.chosen(gates.transpose(0, 1), noisy) * (a + bias)
        return (wide(x) + (a + bias) * gates).type_as(x)

    return modulate if name == "modulate" else gate


def _ways(bench: Bench, case: Case, name: str, way: str, given: list[Tensor]) -> Iterator[tuple[str, Function]]:
    if way == "triton":
        if bench.dry and (find_spec("triton") is None or not _interpreted()):
            raise RuntimeError("needs Triton, and without a GPU TRITON_INTERPRET=1 in the environment")
        from gpu_parts import modulation  # Triton is not everywhere

        rows = _clean(case, given[0].device) if case.kind == "choice" else None
        for warps in bench.some(list(WARPS)):
            yield f"{warps} warps", partial(getattr(modulation, name), rows=rows, warps=warps)
        return
    function = _plain(case, name, given)
    if way == "compiled":
        torch._dynamo.reset()
        # when dry only traced: a compiler for C++ takes a minute for all of them
        function = torch.compile(function, dynamic=False, backend="aot_eager" if bench.dry else "inductor")
    yield way, function


def _interpreted() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


def _both(function: Function, given: list[Tensor], slope: Tensor) -> list[Tensor]:
    leaves = [it if it.requires_grad else it.requires_grad_() for it in given]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, slope)]


def _forward_backward(function: Function, leaves: list[Tensor], slope: Tensor, bench: Bench) -> tuple[float, float]:
    """Seconds, medians."""
    took: list[tuple[float, float]] = []
    for _ in range(1 if bench.dry else TIMES):
        outs: list[Tensor] = []
        forward = _once(lambda outs=outs: outs.append(function(*leaves)), bench)  # type: ignore[misc]
        backward = _once(lambda outs=outs: torch.autograd.grad(outs[0], leaves, slope), bench)  # type: ignore[misc]
        took.append((forward, backward))
    one, other = zip(*took, strict=True)
    return statistics.median(one), statistics.median(other)


def _seconds(work: Callable[[], object], bench: Bench) -> float:
    work()
    return statistics.median(_once(work, bench) for _ in range(TIMES))


def _once(work: Callable[[], object], bench: Bench) -> float:
    """Of the device alone: it is given something to do first, while the CPU starts what is measured."""
    if bench.dry:
        return rig.seconds(work, bench.device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    _busy(bench.device)
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def _busy(device: torch.device) -> None:
    """About two milliseconds."""
    for _ in range(2):
        _filler(device) @ _filler(device)


@cache
def _filler(device: torch.device) -> Tensor:
    return torch.zeros(8192, 8192, dtype=torch.bfloat16, device=device)


def _bytes(name: str, given: list[Tensor]) -> tuple[int, int]:
    """Forward and backward: what is read and written at least once."""
    tokens = given[0].nbytes
    if name == "modulate":  # backward: slope, x, scale -> dx, dshift, dscale
        table = given[1].nbytes
        return 2 * tokens + 2 * table, 3 * tokens + 3 * table
    table = given[3].nbytes  # backward: slope, a, gate -> da, dgate; dx is the slope
    return 3 * tokens + table, 3 * tokens + 2 * table


def _copied(bench: Bench) -> float:
    """Bytes that a copy reads and writes in a second."""
    source = torch.zeros(2**22 if bench.dry else 2**29, dtype=torch.bfloat16, device=bench.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), bench)


def _linear(bench: Bench) -> dict[str, Any]:
    """A linear layer's forward pass, with the bias and without."""
    width = CASES[0].width
    layer = nn.Linear(width, width, device=bench.device, dtype=bench.dtype)
    x = torch.randn(TOKENS, width, device=bench.device, dtype=bench.dtype)
    with torch.no_grad():
        bare = _seconds(lambda: F.linear(x, layer.weight), bench)
        whole = _seconds(lambda: layer(x), bench)
    return {"without bias, ms": 1000 * bare, "with bias, ms": 1000 * whole}
