"""Winner and loser on different ranks, and the step that makes every layout the same training.

A loss is a function of four numbers a pair, so its gradient is a weighted sum of the errors' gradients, with weights
that are known once the four numbers are. Each rank therefore runs its halves backward with the weights in front,
however the halves are spread; between ranks of a pair go only the errors.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from regdpo.parallel.mesh import Layout


def exchange(own: Tensor, layout: Layout) -> Tensor:
    """The numbers of both halves, winners first, from a rank that may have one half.

    Args:
        own: (k, B, ...), k numbers of this rank's half where ``layout.pair`` is 2, else (k, 2B, ...) already; no graph.

    Returns:
        (k, 2B, ...), equal on all ranks of a pair.
    """
    if layout.pair == 1:
        return own
    parts = [torch.empty_like(own) for _ in range(layout.pair)]
    dist.all_gather(parts, own.contiguous(), group=layout.mesh["pair"].get_group())
    return torch.cat(parts, dim=1)


def weigh(loss: Callable[..., Tensor], *numbers: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A loss of some numbers of a batch, and its derivatives by them.

    Args:
        loss: of as many arguments; the loss of each pair or sample, (B,).
        numbers: without graph.

    Returns:
        The loss, (B,), detached, and its sum's derivative by each number, of the number's shape.
    """
    leaves = [number.detach().requires_grad_() for number in numbers]
    with torch.enable_grad():
        value = loss(*leaves)
        slopes = torch.autograd.grad(value.sum(), leaves)
    return value.detach(), slopes
