"""torch's own memory tracker over a group of ranks that is not there: what the plan's formula is held against.

A sharded model of a few blocks takes a step in fake mode: every operator and collective runs by its shapes alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import DeviceMesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._pytree import tree_map_only

from regdpo.models.device import DTYPES
from regdpo.parallel import tensor
from regdpo.parallel.mesh import layout, split_context
from regdpo.parallel.shard import recompute, shard
from regdpo.plan.architecture import Given
from regdpo.plan.memory import Training, graphs_of
from regdpo.plan.trace import error_of, model_of


def peak(training: Training, layers: tuple[int, ...]) -> int:
    """Bytes on one rank at the peak of the second step (the first makes the optimiser's state).

    Args:
        training: in the layout of its settings. layers: blocks of each kind, in the place of the architecture's.
    """
    settings, architecture = training.settings, training.architecture
    dtype, parallel = DTYPES[settings.precision], settings.parallel
    batch, graphs = graphs_of(training, parallel)
    model = model_of(training.a_pass, layers)
    every = parallel.recompute(training.parameters.total)
    with _ranks(training.ranks), FakeTensorMode(allow_non_fake_inputs=True):
        _materialise(model, torch.float32 if settings.tuning == "full" else dtype)
        blocks = architecture.family.blocks(model)
        if every != "none":
            recompute(model, blocks, 1 if every == "full" else every)
        with unset_fake_temporarily():
            mesh = layout(torch.device("cpu"), parallel, pairs=True)
        if mesh.tensor > 1:
            tensor.split(model, blocks, architecture.family.tensor, mesh.parts)
        with unset_fake_temporarily():
            split_context(model, mesh)
        shard(model, blocks, mesh, dtype)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
        inputs = [_real(architecture.inputs(batch, training.latent, dtype)) for _ in range(graphs)]
        tracker = FSDPMemTracker(model, optimizer)
        tracker.track_inputs(tuple(inputs))
        with tracker:
            _step(model, optimizer, inputs, tracker)
            tracker._peak_mem = dict.fromkeys(tracker._peak_mem, 0)  # of the first step
            _step(model, optimizer, inputs, tracker)
        snapshot = tracker.get_tracker_snapshot("peak")
    return snapshot[torch.device("cpu")]["Total"]


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: list[Given], tracker: FSDPMemTracker) -> None:
    errors = []
    for given in inputs:
        tracker.reset_mod_stats()  # it knows one forward pass; peaks are kept
        errors.append(error_of(model, given))
    torch.stack(errors).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def _real(values: Given) -> Given:
    return tree_map_only(Tensor, lambda v: torch.empty(v.shape, dtype=v.dtype), values)


def _materialise(model: nn.Module, stored: torch.dtype) -> None:
    """Fake tensors in the place of meta ones; frozen weights as they are computed with, trained ones fp32."""
    for module in model.modules():
        for name, old in list(module._parameters.items()):
            if old is not None:
                kind = torch.float32 if old.requires_grad else stored
                module._parameters[name] = nn.Parameter(torch.empty(old.shape, dtype=kind), old.requires_grad)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


@contextmanager
def _ranks(count: int) -> Iterator[None]:
    joined = DeviceMesh._concatenate  # FSDP's, of its mesh and the tensor's: it looks for this rank in real numbers

    def really(meshes: list[DeviceMesh]) -> DeviceMesh:
        with unset_fake_temporarily():
            return joined(meshes)

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
    try:
        with patch.object(DeviceMesh, "_concatenate", really):
            yield
    finally:
        dist.destroy_process_group()
