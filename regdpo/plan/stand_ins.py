"""Tensor parallelism by its shapes alone: what one rank of a group holds and moves, without the others."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import Shard

from regdpo.parallel.tensor import Plan, Ranks, install, placement


def split(model: nn.Module, blocks: list[nn.Module], plan: Plan, ranks: int) -> None:
    """Give a model on the meta device a rank's parts of its parameters, and have it work on them."""
    for name, module in model.named_modules():
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            placed = placement(plan, f"{name}.{leaf}")
            if isinstance(placed, Shard):
                own = torch.empty_like(parameter.chunk(ranks, placed.dim)[0], memory_format=torch.contiguous_format)
                module.register_parameter(leaf, nn.Parameter(own, parameter.requires_grad))
    install(model, blocks, plan, StandIns(ranks))


class StandIns(Ranks):
    """The first rank of a group that is not there."""

    def __init__(self, size: int):
        self.size, self.rank = size, 0

    def all(self, x: Tensor) -> Tensor:
        return self._passed(x, self._more, lambda it: it.chunk(self.size, 1)[0])

    def gathered(self, x: Tensor) -> Tensor:
        return self._passed(x, self._more, self._fewer)

    def summed(self, x: Tensor) -> Tensor:
        return self._passed(x, self._fewer, self._more)

    def total(self, x: Tensor) -> Tensor:
        return self._passed(x, torch.empty_like, torch.empty_like)

    def _passed(self, x: Tensor, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]) -> Tensor:
        result: Tensor = _Passed.apply(x, forward, backward)
        return result

    def _more(self, x: Tensor) -> Tensor:
        """As it arrives, rank by rank, and then in order."""
        received = x.new_empty(self.size * x.shape[0], *x.shape[1:])
        return torch.empty_like(received).view(x.shape[0], self.size * x.shape[1], *x.shape[2:])

    def _fewer(self, x: Tensor) -> Tensor:
        """Ordered for the ranks, and then summed."""
        ordered = torch.empty_like(x, memory_format=torch.contiguous_format)
        return ordered.new_empty(x.shape[0], x.shape[1] // self.size, *x.shape[2:])


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.back = back
        return forward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.back(gradient), None, None
