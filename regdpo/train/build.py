"""Policy and reference as modules: built empty, sharded, then filled by every rank with its own slices of the stored
weights, so that no rank ever holds a model whole."""

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from regdpo.config.training import Lora, Parallel, TrainSettings
from regdpo.core.errors import UserError
from regdpo.models.device import DTYPES
from regdpo.models.family import Family
from regdpo.objectives.schedule import generator
from regdpo.parallel import attention, tensor
from regdpo.parallel.mesh import Layout, split_context
from regdpo.parallel.shard import own_part, recompute, shard

COMPILER = {"triton.mix_order_reduction": False}
"""Of torch.compile. On GPUs, torch 2.10 to 2.13 otherwise sum over tokens and over channels in one kernel and leave the
gradient of a modulation table that is put together of them unwritten (github.com/pytorch/pytorch/issues/193061)."""

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer


def build(
    role: Literal["policy", "copy"],
    family: Family,
    settings: TrainSettings,
    parallel: Parallel,
    layout: Layout,
    device: torch.device,
    seed: int,
    deterministic: bool = False,
) -> tuple[nn.Module, str]:
    """A sharded model with its weights, and the name of its attention backend.

    Args:
        seed: of the adapters.
        role: ``copy`` is frozen and has adapters only if the start has some, or it is to follow the policy.
    """
    trained, dtype = role == "policy", DTYPES[settings.precision]
    goes_on = bool(family.ref.lora)
    adapted = settings.tuning == "lora" and (trained or goes_on or settings.reference_ema is not None)
    # Weights that move are fp32; those that never do are stored as they are computed with.
    moves = settings.tuning == "full" and (trained or settings.reference_ema is not None)
    stored = torch.float32 if moves else dtype

    def prepare(model: nn.Module) -> nn.Module:
        if settings.tuning == "lora" or not trained:
            model.requires_grad_(False)
        if stored != torch.float32:
            for parameter in model.parameters():  # and no buffer: rotary tables stay fp32
                parameter.data = parameter.data.to(stored)
        if adapted:
            family.add_lora(model, settings.lora)
            for parameter in trained_parameters(model).values():  # peft makes adapters of their layers' type
                parameter.data = parameter.data.float()
        return model.requires_grad_(False) if not trained else model

    model = prepare(family.empty_transformer())
    blocks = family.blocks(model)
    every = parallel.recompute(sum(parameter.numel() for parameter in model.parameters()))
    if trained and every != "none":
        recompute(model, blocks, 1 if every == "full" else every)
    backend = attention.choose(model, device, dtype, parallel.attention, family.flash, deterministic)
    if layout.tensor > 1:
        tensor.split(model, blocks, family.tensor, layout.parts)
    split_context(model, layout)
    if parallel.compile:
        for block in blocks:
            block.compile(options=COMPILER)
    shard(model, blocks, layout, dtype, offload=not trained and parallel.reference == "offload")
    offloaded = not trained and parallel.reference == "offload"
    fill(model, family, torch.device("cpu") if offloaded else device, device, seed, settings.lora)
    return model.train(trained), backend


@torch.no_grad()
def fill(model: nn.Module, family: Family, device: torch.device, compute: torch.device, seed: int, lora: Lora) -> None:
    """Give a sharded model on the meta device its weights.

    Adapters are those of the start. Where it has none they derive from the seed and their name, on every layout alike:
    A as peft draws it, B zero.

    Args:
        device: where the shards lie. compute: where the model runs, and its buffers lie.

    Raises:
        UserError: the stored weights cannot be read, or are those of another architecture; adapters are of other
            layers, or of another rank.
    """
    model.to_empty(device=device)
    base: dict[str, nn.Parameter] = {}
    own: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        (own if ".lora_" in name else base)[name.replace(".base_layer.", ".")] = parameter
    if family.ref.lora and own:
        _go_on(own, family.stored_adapters(), lora)
    else:
        for name, parameter in own.items():
            _start(parameter, name, seed)
    buffers, kept = family.buffers(), model.state_dict().keys()
    stored = {name: buffer for name, buffer in buffers.items() if name in kept}
    weights = family.weights()
    weights.check({name: tuple(tensor.shape) for name, tensor in (base | stored).items()})
    wanted = {name: own_part(parameter) for name, parameter in base.items()} | dict.fromkeys(stored, ())
    for name, part in weights.read(wanted):
        (_local(base[name]) if name in base else stored[name]).copy_(part)
    for path, module in model.named_modules():
        for name, _ in module.named_buffers(recurse=False):
            module._buffers[name] = buffers[f"{path}.{name}".lstrip(".")].to(compute)


def _start(parameter: nn.Parameter, name: str, seed: int) -> None:
    whole = torch.zeros(parameter.shape)
    if ".lora_A." in name:
        nn.init.kaiming_uniform_(whole, a=math.sqrt(5), generator=generator("adapters", seed, name))
    _local(parameter).copy_(whole[own_part(parameter)])


def _go_on(own: dict[str, nn.Parameter], stored: dict[str, Tensor], lora: Lora) -> None:
    """Fill adapters with those of the start, whose B has the factor alpha / rank in it already."""
    named = {name.replace(".default.", "."): parameter for name, parameter in own.items()}
    for name in sorted(named.keys() ^ stored.keys()):
        has = "has one there" if name in stored else "has none there"
        raise UserError(f"train.settings.lora: the adapters go on, and their start {has}: {name}; take its `lora`")
    for name, parameter in named.items():
        tensor = stored[name]
        if tensor.shape != parameter.shape:
            raise UserError(
                f"train.settings.lora: the adapters go on, and {name} is {tuple(tensor.shape)} at their start, not "
                f"{tuple(parameter.shape)}; take its `lora`"
            )
        scale = lora.alpha / lora.rank if ".lora_B." in name else 1.0
        _local(parameter).copy_((tensor.to(parameter.dtype) / scale)[own_part(parameter)])


def _local(parameter: nn.Parameter) -> Tensor:
    assert isinstance(parameter, DTensor)
    return parameter.to_local()


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the optimiser moves, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapters(model: nn.Module) -> list["BaseTunerLayer"]:
    """The layers that have adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
