"""The mesh of ranks: (data, pair, context, tensor). Ranks of one pair group hold halves of the same pairs, ranks of one
context group parts of the same videos, ranks of one tensor group, which are neighbours, of the same blocks too."""

from contextlib import nullcontext
from dataclasses import dataclass
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from regdpo.config.training import Parallel
from regdpo.core.errors import UserError


@dataclass(frozen=True)
class Layout:
    """How this rank takes part."""

    mesh: DeviceMesh
    shards: DeviceMesh  # what FSDP shards over: all ranks but for the tensor's, or (replicas, ranks of a replica)
    parts: DeviceMesh  # the tensor group
    data: int
    data_rank: int
    pair: int
    pair_rank: int  # 0: winners, 1: losers
    context: int
    tensor: int

    @property
    def first(self) -> bool:
        return dist.get_rank() == 0

    @property
    def group(self) -> int:
        """Ranks that work on the same pairs."""
        return self.pair * self.context * self.tensor

    @property
    def share(self) -> int:
        """Ranks whose gradients of the same pairs FSDP takes for those of other pairs."""
        return self.pair * self.context

    @property
    def place(self) -> str:
        """This rank's, for people."""
        half = ["winners", "losers"][self.pair_rank] if self.pair == 2 else "both halves"
        part = self.mesh["ulysses"].get_local_rank() if self.context > 1 else 0
        place = f"data {self.data_rank + 1}/{self.data}, {half}, context {part + 1}/{self.context}"
        return f"{place}, tensor {self.parts.get_local_rank() + 1}/{self.tensor}" if self.tensor > 1 else place

    def __str__(self) -> str:
        product = f"data {self.data} x pair {self.pair} x context {self.context}"
        return f"{product} x tensor {self.tensor}" if self.tensor > 1 else product


def layout(device: torch.device, parallel: Parallel, pairs: bool) -> Layout:
    """The layout of all ranks; those not needed for pair, context and tensor are data parallel.

    Args:
        pairs: whether the objective has losers; without, no rank is set apart for them.

    Raises:
        UserError: the ranks do not divide.
    """
    ranks, pair, context = dist.get_world_size(), parallel.pair if pairs else 1, parallel.context
    if reason := parallel.misfit(ranks, pairs):
        raise UserError(f"train.settings: {reason}")
    tensor = parallel.tensor
    data = ranks // (pair * context * tensor)
    shape, names = (data, pair, 1, context, tensor), ("data", "pair", "ring", "ulysses", "tensor")
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=names)
    if parallel.replicate == 1:
        shards, parts = mesh[names[:-1]]._flatten("world"), mesh["tensor"]
    else:
        own = (parallel.replicate, ranks // (parallel.replicate * tensor), tensor)
        whole = init_device_mesh(device.type, own, mesh_dim_names=("replica", "shard", "tensor"))
        shards, parts = whole["replica", "shard"], whole["tensor"]
    return Layout(
        mesh,
        shards,
        parts,
        data,
        mesh["data"].get_local_rank(),
        pair,
        mesh["pair"].get_local_rank() if pair > 1 else 0,
        context,
        tensor,
    )


def split_context(model: nn.Module, layout: Layout) -> None:
    """Let the ranks of a context group share each video's tokens (Ulysses: all-to-all over the attention heads)."""
    if layout.context == 1:
        return
    from diffusers import ContextParallelConfig

    config = ContextParallelConfig(ulysses_degree=layout.context, mesh=layout.mesh["ring", "ulysses"])
    # diffusers takes the rank modulo the accelerators to name a device that it then has no use for.
    bare = torch.accelerator.device_count() == 0
    with patch.object(torch.accelerator, "device_count", return_value=1) if bare else nullcontext():
        model.enable_parallelism(config=config)  # type: ignore[operator]
