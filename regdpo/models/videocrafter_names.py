"""How the published files of VideoCrafter2 and T2V-Turbo name what diffusers and transformers have classes for. The
denoiser keeps its names."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]

VAE = (
    (r"^encoder\.down\.(\d+)\.block\.(\d+)", r"encoder.down_blocks.\1.resnets.\2"),
    (r"^encoder\.down\.(\d+)\.downsample", r"encoder.down_blocks.\1.downsamplers.0"),
    (r"^decoder\.up\.(\d+)\.block\.(\d+)", r"decoder.up_blocks.\1.resnets.\2"),
    (r"^decoder\.up\.(\d+)\.upsample", r"decoder.up_blocks.\1.upsamplers.0"),
    (r"\.mid\.block_1", ".mid_block.resnets.0"),
    (r"\.mid\.block_2", ".mid_block.resnets.1"),
    (r"\.mid\.attn_1\.norm", ".mid_block.attentions.0.group_norm"),
    (r"\.mid\.attn_1\.proj_out", ".mid_block.attentions.0.to_out.0"),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.nin_shortcut", ".conv_shortcut"),
    (r"\.norm_out", ".conv_norm_out"),
)
"""Parts of Stable Diffusion's names -> diffusers'."""
_ATTENTION = re.compile(r"mid_block\.attentions\.0\.to_.*weight$")
"""Convolutions of one pixel there, linear layers here."""


def vae_name(theirs: str, levels: int) -> str:
    """diffusers' name of a tensor of the autoencoder. There the deepest level of the decoder comes first, in the file
    last."""
    name = theirs
    for pattern, ours in VAE:
        name = re.sub(pattern, ours, name)
    return re.sub(r"up_blocks\.(\d+)", lambda found: f"up_blocks.{levels - 1 - int(found[1])}", name)


def vae_from(published: Mapping[str, Tensor], levels: int) -> Tensors:
    """The autoencoder's tensors as diffusers has them."""
    found = {vae_name(name, levels): tensor for name, tensor in published.items()}
    return {name: it.flatten(1) if _ATTENTION.search(name) else it for name, it in found.items()}


_TEXT = (
    ("transformer.resblocks.", "encoder.layers."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    ("ln_final.", "final_layer_norm."),
)
_ENDS = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
}


def text_from(published: Mapping[str, Tensor], layers: int) -> Tensors:
    """The first layers of OpenCLIP's text tower, and what normalises their end, as ``CLIPTextModel`` has them. The rest
    is left out, since the denoiser never sees it."""
    found = {}
    for theirs, tensor in published.items():
        place = re.match(r"transformer\.resblocks\.(\d+)\.", theirs)
        if (place and int(place[1]) >= layers) or theirs in ("text_projection", "logit_scale"):
            continue
        name = _ENDS.get(theirs, theirs)
        for part, ours in _TEXT:
            name = name.replace(part, ours)
        if ".attn.in_proj_" in name:
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace(".attn.in_proj_", f".self_attn.{letter}_proj.")] = third
        else:
            found[name] = tensor
    return found


def lora_layers(unet: nn.Module) -> list[str]:
    """The layers of T2V-Turbo's low-rank update in the order of its file, which has no names: all but convolutions of
    one token, as they were registered."""
    return [name for name, it in unet.named_modules() if isinstance(it, nn.Linear | nn.Conv2d | nn.Conv3d)]


def merged(weights: Mapping[str, Tensor], layers: Sequence[str], halves: Sequence[Tensor]) -> Tensors:
    """Weights with a low-rank update: ``W + up down``, of strength 1.

    Args:
        halves: up and down of each layer, one after another.
    """
    found = dict(weights)
    for layer, up, down in zip(layers, halves[::2], halves[1::2], strict=True):
        name = f"{layer}.weight"
        found[name] = found[name] + torch.mm(up.flatten(1), down.flatten(1)).view_as(found[name])
    return found
