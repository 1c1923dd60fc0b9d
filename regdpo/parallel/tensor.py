"""Tensor parallelism: the ranks of a group hold parts of every block's matrices and of the tokens between them.

Layers that a region begins with are split by their outputs, those it ends with by their inputs (Megatron-LM, arXiv
1909.08053); tokens are gathered in front of it, and what its ranks answer is summed and split by tokens again (sequence
parallel norms, arXiv 2205.05198). So everything outside of regions works on a rank's own tokens, and for parameters
that are not split **every rank's gradient is a part of a sum**: FSDP2 adds them up, told by their placement.

Parameters are DTensors, whole ones by name and shape for checkpoints, exports, the optimiser and the gradient's norm.
The arithmetic is on what a rank holds of them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

Plan = Mapping[str, str]
"""Ends of names -> what such a module is. A ``region``: its first argument is tokens (B, S, C). In it a linear layer
split by its outputs (``column``) or its inputs (``row``), or an RMSNorm over all heads of what is split by outputs
(``norm``). Layers that are stored as one (``fused 2``, ``fused 3``) begin a region too: their matrix stays whole, and a
rank works with its rows of each. Outside of blocks the ``exit``, after which all tokens are needed again; ``filling``,
which fills up the sequence for ranks that share it (its ``ranks``); an ``entry``, whose answer, by token, is needed for
a rank's own. The denoiser itself, "", is a ``timestep`` if it may be given one for every token, (B, S). The first end
that fits counts; nothing is done to what is ``whole``."""


def split(model: nn.Module, blocks: list[nn.Module], plan: Plan, mesh: DeviceMesh) -> None:
    """Split a model's blocks over the ranks of a mesh of one dimension, before diffusers splits its sequence and FSDP
    its parameters.

    Args:
        model: on the meta device, with its adapters.
    """
    for name, module in model.named_modules():
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            placed = placement(plan, f"{name}.{leaf}")
            whole = distribute_tensor(parameter.data, mesh, [placed], src_data_rank=None)
            module.register_parameter(leaf, nn.Parameter(whole, parameter.requires_grad))
    install(model, blocks, plan, Ranks(mesh))


def placement(plan: Plan, name: str) -> Placement:
    """How a parameter lies on the ranks.

    Of the product B A of an adapter the side that touches what is split is split as its layer is.
    """
    module, _, leaf = name.rpartition(".")
    layer, half = adapted(module)
    style = of(plan, layer)
    if style == "norm" or (style == "column" and half != "A"):
        return Shard(0)
    if style == "row" and leaf == "weight" and half != "B":
        return Shard(1)
    return Replicate()


def adapted(name: str) -> tuple[str, str]:
    """The layer that a module is part of, and which side of its adapter that is: A, B, or none."""
    layer, _, half = re.sub(r"\.(base_layer|default)\b", "", name).partition(".lora_")
    return layer, half


def of(plan: Plan, name: str) -> str | None:
    """What a module is."""
    return next((style for end, style in plan.items() if end and (name == end or name.endswith(f".{end}"))), None)


class Ranks:
    """The ranks of a group, and what goes between them; tokens are the second dimension."""

    def __init__(self, mesh: DeviceMesh):
        self.mesh, self.size, self.rank = mesh, mesh.size(), mesh.get_local_rank()

    def own(self, x: Tensor) -> Tensor:
        """This rank's tokens."""
        return x.chunk(self.size, 1)[self.rank].contiguous()

    def all(self, x: Tensor) -> Tensor:
        """All ranks' tokens, for what they compute alike: backward each takes its own."""
        return self._moved(x, Shard(1), Replicate(), Replicate())

    def gathered(self, x: Tensor) -> Tensor:
        """All ranks' tokens, for layers of which each has a part: backward their gradients are summed."""
        return self._moved(x, Shard(1), Replicate(), Partial())

    def summed(self, x: Tensor) -> Tensor:
        """This rank's tokens of the sum over the ranks."""
        return self._moved(x, Partial(), Shard(1), Shard(1))

    def total(self, x: Tensor) -> Tensor:
        """The sum over the ranks, forward and backward."""
        result: Tensor = _Total.apply(x, self.mesh.get_group())
        return result

    def _moved(self, x: Tensor, begin: Placement, end: Placement, gradient: Placement) -> Tensor:
        whole = DTensor.from_local(x, self.mesh, [begin], run_check=False)
        return whole.redistribute(placements=[end]).to_local(grad_placements=[gradient])


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _reduced(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _reduced(gradient, ctx.group), None


def _reduced(x: Tensor, group: Any) -> Tensor:
    result = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(result, group=group)
    return result


def install(model: nn.Module, blocks: list[nn.Module], plan: Plan, ranks: Ranks) -> None:
    """Have modules work on a rank's part of their parameters, and pass on what is missing."""
    inside = {id(part) for block in blocks for part in block.modules()}
    outside = [(name, module) for name, module in model.named_modules() if id(module) not in inside]
    for name, module in model.named_modules():
        style = of(plan, name)
        if style == "region":
            if hasattr(module, "heads"):
                module.heads //= ranks.size
            _around(module, before=ranks.gathered, after=ranks.summed)
        elif style == "norm":
            _norm_of_all(module, ranks)
        elif style == "exit":
            _around(module, after=ranks.all)
        elif style == "entry":
            _around(module, after=ranks.own)
        elif style == "filling":
            module.ranks *= ranks.size
    _around(blocks[0], before=ranks.own)
    for block in blocks:
        _local(block, list(block.named_modules()), plan, ranks)
    if plan.get("") == "timestep":
        _own_timesteps(model, ranks)
    _local(model, outside, plan, ranks)


def _around(
    module: nn.Module,
    before: Callable[[Tensor], Tensor] | None = None,
    after: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Let a module's first argument and its answer pass through functions."""
    forward: Callable[..., Any] = module.forward

    @wraps(forward)
    def run(x: Tensor, *others: Any, **named: Any) -> Any:
        answer = forward(before(x) if before else x, *others, **named)
        return after(answer) if after else answer

    module.forward = run


def _own_timesteps(model: nn.Module, ranks: Ranks) -> None:
    forward: Callable[..., Any] = model.forward

    @wraps(forward)
    def run(*given: Any, timestep: Tensor, **named: Any) -> Any:
        return forward(*given, timestep=ranks.own(timestep) if timestep.dim() == 2 else timestep, **named)

    model.forward = run


def _norm_of_all(norm: Any, ranks: Ranks) -> None:
    """RMSNorm of vectors of which each rank has a part."""
    (width,) = norm.normalized_shape

    def run(x: Tensor) -> Tensor:
        wide = x.float()
        square = ranks.total(wide.square().sum(-1, keepdim=True)) / width
        eps = torch.finfo(x.dtype).eps if norm.eps is None else norm.eps
        return (wide * torch.rsqrt(square + eps) * norm.weight).to(x.dtype)

    norm.forward = run


def _local(module: nn.Module, parts: list[tuple[str, nn.Module]], plan: Plan, ranks: Ranks) -> None:
    """Have a module see this rank's parts of the parameters while it runs."""
    forward: Callable[..., Any] = module.forward
    styles = {id(part): _style_of_outputs(plan, name) for name, part in parts}

    @contextmanager
    def seen() -> Iterator[None]:
        kept = [(part, dict(part._parameters)) for _, part in parts if part._parameters]
        for part, parameters in kept:
            for name, whole in parameters.items():
                if whole is None:
                    continue
                own, style = _held(whole), styles[id(part)]
                if style.startswith("fused"):
                    layers = own.unflatten(0, (int(style.removeprefix("fused ")), ranks.size, -1))
                    own = layers[:, ranks.rank].flatten(0, 1)
                elif style == "row" and name == "bias":
                    own = own / ranks.size  # the ranks' answers are summed, and with them this, which each has
                part._parameters[name] = own  # type: ignore[assignment]
        try:
            yield
        finally:
            for part, parameters in kept:
                part._parameters.update(parameters)

    @wraps(forward)
    def run(*given: Any, **named: Any) -> Any:
        with seen():
            return forward(*given, **named)

    module.forward = run


def _style_of_outputs(plan: Plan, name: str) -> str:
    """What the layer is whose outputs are a module's, "" if none: of an adapter's sides those of B are."""
    layer, half = adapted(name)
    return "" if half == "A" else of(plan, layer) or ""


def _held(whole: Tensor) -> Tensor:
    if not isinstance(whole, DTensor):
        return whole  # a stand-in
    (placed,) = whole.placements
    return whole.to_local(grad_placements=[Partial() if placed.is_replicate() else placed])
