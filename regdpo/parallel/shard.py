"""FSDP2 over all ranks (or over each of several replicas), and recomputation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.utils.checkpoint import checkpoint

from regdpo.parallel.mesh import Layout


def shard(model: nn.Module, blocks: list[nn.Module], layout: Layout, dtype: torch.dtype, offload: bool = False) -> None:
    """Shard parameters, gradients and optimiser state: blocks first, then what is left.

    Gradients are averaged over all ranks. Inputs are not cast: timesteps and rotary tables must stay fp32.

    Args:
        offload: the shards lie in main memory and visit the device block by block.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.promote_types(dtype, torch.float32), cast_forward_inputs=False
    )
    # Left to itself FSDP keeps the root gathered after a pass without gradients, and weights that change then (an
    # average swapped in, a checkpoint) would not be seen by the next pass.
    options: dict[str, Any] = {"mesh": layout.shards, "mp_policy": policy, "reshard_after_forward": True}
    if offload:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=layout.shards.device_type == "cuda")
    for module in (*blocks, model):
        fully_shard(module, **options)


def own_part(parameter: Tensor) -> tuple[slice, ...]:
    """What this rank holds of a sharded parameter, as slices of the whole."""
    assert isinstance(parameter, DTensor)
    lengths, offsets = compute_local_shape_and_global_offset(
        parameter.shape, parameter.device_mesh, parameter.placements
    )
    return tuple(slice(offset, offset + length) for offset, length in zip(offsets, lengths, strict=True))


def recompute(model: nn.Module, blocks: list[nn.Module], every: int) -> None:
    """Recompute every nth block in the backward pass in place of keeping its activations."""
    chosen = {id(block) for block in blocks[::every]}

    def run(block: Callable[..., Any], *inputs: Tensor) -> Any:
        if id(block) not in chosen:
            return block(*inputs)
        return checkpoint(block, *inputs, use_reentrant=False)

    model.enable_gradient_checkpointing(run)  # type: ignore[operator]
