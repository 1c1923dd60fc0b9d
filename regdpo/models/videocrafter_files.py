"""The published files of VideoCrafter2 and T2V-Turbo <-> folders in diffusers' layout.

Tensors keep their values, but for T2V-Turbo's first version, whose low-rank update is added to VideoCrafter2's weights.
The base of one of its layers, ``time_cond_proj``, is in no file: its authors drew it anew, for training and for each
use. It is zero here, which leaves the update alone.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from regdpo.core.errors import UserError, first_line
from regdpo.models.conversions import ORDER, STORED, UNTOLD, lacks, read, tensors
from regdpo.models.discrete_noise import TIMESTEPS, alphas, scales
from regdpo.models.video_unet import FIRST_HEADS, GROUPS, VideoUNet
from regdpo.models.videocrafter_names import Tensors, lora_layers, merged, text_from, vae_from, vae_name
from regdpo.runtime.hub import BROKEN

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."
PUBLISHED = "VideoCrafter2's model.ckpt"
TURBO = "T2V-Turbo's list of low-rank updates nor the denoiser of its second version"
REST = "published.safetensors"
"""In the folder: tensors of the file that no part takes, such as the text tower's last layer."""
HEAD = 64
"""Width of the text tower's heads."""


def convert(model: Path, out: Path, tokenizer: str) -> None:
    """Write VideoCrafter2's folder.

    Raises:
        UserError: the file cannot be read, or is another one.
    """
    published = _published(model)
    unet = _part(published, UNET)
    _write_rest(out, published, _write_common(model, out, published, tokenizer))
    _save_unet(model, unet, out)
    write_index(out, "videocrafter2", "VideoCrafter2", {"_class_name": "ScaledDDIM", "eta": 1.0})


def convert_turbo(update: Path, model: Path, out: Path, tokenizer: str) -> None:
    """Write T2V-Turbo's folder, of its own file and VideoCrafter2's.

    Raises:
        UserError: as ``convert``.
    """
    given, published = read(update), _published(model)
    if isinstance(given, list):
        base = _part(published, UNET)
        _same(model, {name: it.shape for name, it in _empty(model, base).state_dict().items()}, base)
        unet = _updated(update, given, model, base)
    else:
        unet = tensors(update, given, TURBO)
    if "time_cond_proj.weight" not in unet:
        raise UserError(
            f"{update}: has no time_cond_proj.weight, which takes the guidance scale; it is neither {TURBO}"
        )
    _write_common(model, out, published, tokenizer)
    _save_unet(update, unet, out)
    (out / ORDER).write_text(json.dumps(list(unet)))
    motion = {"motion_guidance": 0.05, "motion_share": 0.5} if "motion_cond_proj.weight" in unet else {}
    write_index(out, "t2v_turbo", "T2VTurbo", {"_class_name": "Consistency", "origin_steps": 200, **motion})


def back(folder: Path, tuned: Path | None, out: Path) -> None:
    """Write VideoCrafter2's file: the same tensors under the same names in the same order."""
    unet, rest = _denoiser(folder, tuned), load_file(folder / REST)
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(folder / "text_encoder" / "model.safetensors")
    text = {name.removeprefix("text_model."): it for name, it in text.items()}
    names = json.loads((folder / ORDER).read_text())
    levels = _levels(name.removeprefix(VAE) for name in names if name.startswith(VAE))
    layers = json.loads((folder / "text_encoder" / "config.json").read_text())["num_hidden_layers"]
    found: Tensors = {}
    for name in names:
        if name in rest:
            found[name] = rest[name]
        elif name.startswith(UNET):
            found[name] = unet[name.removeprefix(UNET)]
        elif name.startswith(VAE):
            ours = vae_name(name.removeprefix(VAE), levels)
            pixels = ".attn_1." in name and ".norm." not in name and name.endswith("weight")
            found[name] = vae[ours][:, :, None, None] if pixels else vae[ours]
        else:
            ours_of = text_from({name.removeprefix(TEXT): torch.arange(3)}, layers)
            found[name] = torch.cat([text[ours] for ours in ours_of])
    torch.save({"state_dict": found}, out)


def back_turbo(folder: Path, tuned: Path | None, out: Path) -> None:
    """Write the denoiser's weights under their names, as v2 was published."""
    unet, names = _denoiser(folder, tuned), json.loads((folder / ORDER).read_text())
    torch.save({name: unet[name] for name in names}, out)


def _denoiser(folder: Path, tuned: Path | None) -> Tensors:
    own = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    if tuned is None:
        return own
    try:
        found = VideoUNet.from_pretrained(tuned, use_safetensors=True).state_dict()
    except BROKEN as error:
        raise UserError(f"{tuned}: is no folder of a tuned denoiser ({first_line(error)})") from None
    _same(tuned, {name: it.shape for name, it in own.items()}, found)
    return found


def _published(path: Path) -> Tensors:
    """The tensors of VideoCrafter2's file."""
    given = read(path)
    if not isinstance(given, dict) or "state_dict" not in given:
        raise UserError(f"{path}: has no state_dict of tensors; it is not {PUBLISHED}")
    found = tensors(path, given["state_dict"], PUBLISHED)
    for prefix in (UNET, VAE, TEXT):
        if not any(name.startswith(prefix) for name in found):
            raise UserError(f"{path}: has no {prefix}*; it is not {PUBLISHED}")
    for name, wanted in (("alphas_cumprod", alphas()), ("scale_arr", scales())):
        given_here = found.get(name, torch.empty(0)).flatten()[:TIMESTEPS].double()
        if given_here.shape != wanted.shape or not torch.allclose(given_here, wanted, rtol=1e-5):
            raise UserError(f"{path}: its {name} is not VideoCrafter2's")
    return found


def _part(published: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): it for name, it in published.items() if name.startswith(prefix)}


def _write_common(path: Path, out: Path, published: Tensors, tokenizer: str) -> set[str]:
    """Autoencoder, text encoder and tokenizer; the names of what they took."""
    vae, tower = _part(published, VAE), _part(published, TEXT)
    try:
        config = _text_config(tower)
        with torch.device("meta"):
            autoencoder, encoder = AutoencoderKL(**_vae_config(vae)), transformers.CLIPTextModel(config)
        _save(path, autoencoder, vae_from(vae, _levels(vae)), out / "vae")
        _save(path, encoder, text_from(tower, config.num_hidden_layers), out / "text_encoder")
    except UNTOLD as error:
        raise lacks(path, error, published, PUBLISHED) from None
    _save_tokenizer(tokenizer, config.vocab_size, config.max_position_embeddings, out / "tokenizer")
    taken = {name for name in tower if text_from({name: torch.arange(3)}, config.num_hidden_layers)}
    return {f"{VAE}{name}" for name in vae} | {f"{TEXT}{name}" for name in taken}


def _write_rest(out: Path, published: Tensors, taken: set[str]) -> None:
    rest = {name: it.contiguous() for name, it in published.items() if name not in taken and not name.startswith(UNET)}
    save_file(rest, out / REST)
    (out / ORDER).write_text(json.dumps(list(published)))


def _updated(path: Path, halves: list[Any], model: Path, base: Tensors) -> Tensors:
    """VideoCrafter2's weights with the low-rank update of a list."""
    wrong = f"{path}: is not the low-rank update of T2V-Turbo for {model}"
    if not all(isinstance(it, Tensor) and it.dim() >= 2 and str(it.dtype) in STORED for it in halves):
        raise UserError(f"{wrong}: it holds something else than matrices in floating point")
    if len(halves) < 10:
        raise UserError(f"{wrong}: {len(halves)} tensors are too few")
    halves = [it.float() for it in halves]
    width = len(base["input_blocks.0.0.weight"])
    base = {**base, "time_cond_proj.weight": torch.zeros(width, halves[9].shape[1])}
    layers = lora_layers(_empty(path, base))
    if len(halves) != 2 * len(layers):
        raise UserError(f"{wrong}: {len(halves)} tensors for {len(layers)} layers, which take two each")
    for layer, up, down in zip(layers, halves[::2], halves[1::2], strict=True):
        out, *into = base[f"{layer}.weight"].shape
        if (up.shape[0], list(down.shape[1:]), up.shape[1]) != (out, into, down.shape[0]):
            raise UserError(f"{wrong}: those of {layer} are {tuple(up.shape)} and {tuple(down.shape)}")
    return merged(base, layers, halves)


def _empty(path: Path, weights: Tensors) -> Any:
    """The UNet that has such weights, on the meta device; its configuration is told by their names and shapes."""
    try:
        with torch.device("meta"):
            return VideoUNet(**unet_config(weights))
    except UNTOLD as error:
        raise lacks(path, error, weights, "a UNet of VideoCrafter2") from None


def unet_config(weights: Tensors) -> dict[str, Any]:
    """The configuration of a UNet by the names and shapes of its weights."""
    base, channels = weights["input_blocks.0.0.weight"].shape[:2]
    widths: list[list[int]] = [[]]
    attended, place = [], 1
    while f"input_blocks.{place}.0.op.weight" in weights or f"input_blocks.{place}.0.in_layers.2.weight" in weights:
        if f"input_blocks.{place}.0.op.weight" in weights:
            widths.append([])
        else:
            widths[-1].append(len(weights[f"input_blocks.{place}.0.in_layers.2.weight"]))
            if f"input_blocks.{place}.1.norm.weight" in weights:
                attended.append(2 ** (len(widths) - 1))
        place += 1
    found = {
        "in_channels": channels,
        "out_channels": len(weights["out.2.weight"]),
        "model_channels": base,
        "channel_mult": [level[0] // base for level in widths],
        "num_res_blocks": len(widths[0]),
        "attention_resolutions": sorted(set(attended)),
        "num_head_channels": len(weights["init_attn.0.proj_in.weight"]) // FIRST_HEADS,
        "context_dim": weights["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
    }
    for name in ("time_cond_proj", "motion_cond_proj"):
        if f"{name}.weight" in weights:
            found[f"{name}_dim"] = weights[f"{name}.weight"].shape[1]
    return found


def _vae_config(weights: Tensors) -> dict[str, Any]:
    levels = _levels(weights)
    blocks = len({name for name in weights if re.fullmatch(r"encoder\.down\.0\.block\.\d+\.conv1\.weight", name)})
    return {
        "block_out_channels": [len(weights[f"encoder.down.{level}.block.0.conv1.weight"]) for level in range(levels)],
        "layers_per_block": blocks,
        "latent_channels": len(weights["post_quant_conv.weight"]),
        "norm_num_groups": GROUPS,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": 0.18215,
    }


def _levels(names: Iterable[str]) -> int:
    """Of the autoencoder."""
    found = [re.match(r"encoder\.down\.(\d+)\.", name) for name in names]
    return 1 + max((int(it[1]) for it in found if it), default=0)


def _text_config(weights: Tensors) -> transformers.CLIPTextConfig:
    """All layers but the last."""
    words, width = weights["token_embedding.weight"].shape
    layers = len({name for name in weights if re.fullmatch(r"transformer\.resblocks\.\d+\.ln_1\.weight", name)})
    return transformers.CLIPTextConfig(
        hidden_size=width,
        num_attention_heads=max(1, width // HEAD),
        intermediate_size=len(weights["transformer.resblocks.0.mlp.c_fc.weight"]),
        num_hidden_layers=layers - 1,
        vocab_size=words,
        max_position_embeddings=len(weights["positional_embedding"]),
        hidden_act="gelu",
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=0,
    )


def _save_unet(path: Path, weights: Tensors, out: Path) -> None:
    _save(path, _empty(path, weights), weights, out / "transformer")


def _save(path: Path, model: Any, weights: Tensors, folder: Path) -> None:
    """A model with all of its weights and no others."""
    _same(path, {name: it.shape for name, it in model.state_dict().items()}, weights)
    nn.Module.load_state_dict(model, {name: it.contiguous() for name, it in weights.items()}, assign=True)
    model.save_pretrained(folder, safe_serialization=True)


def _same(path: Path, wanted: dict[str, torch.Size], weights: Tensors) -> None:
    for what, names in (("lacks", wanted.keys() - weights.keys()), ("holds, unasked,", weights.keys() - wanted.keys())):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{path}: {what} {min(names)}{more}; it is not the published file")
    for name, shape in wanted.items():
        if weights[name].shape != shape:
            raise UserError(f"{path}: {name} is {tuple(weights[name].shape)} where {tuple(shape)} is wanted")
        if str(weights[name].dtype) not in STORED:
            raise UserError(f"{path}: {name} is stored as {weights[name].dtype}; it is not the published file")


def _save_tokenizer(name: str, words: int, places: int, folder: Path) -> None:
    """CLIP's tokenizer that pads with number 0, as OpenCLIP does."""
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except BROKEN as error:
        raise UserError(f"--tokenizer: {name} cannot be loaded ({first_line(error)})") from None
    if len(tokenizer) != words:
        raise UserError(f"--tokenizer: {name} has {len(tokenizer)} words, the text encoder {words}")
    tokenizer.pad_token, tokenizer.model_max_length = tokenizer.convert_ids_to_tokens(0), places
    tokenizer.save_pretrained(folder)


def write_index(out: Path, family: str, name: str, scheduler: dict[str, Any]) -> None:
    """The folder's ``model_index.json``, and the configuration of its sampler."""
    index = {
        "_class_name": name,
        "regdpo_family": family,
        "transformer": ["regdpo", VideoUNet.__name__],
        "vae": ["diffusers", AutoencoderKL.__name__],
        "text_encoder": ["transformers", transformers.CLIPTextModel.__name__],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["regdpo", scheduler["_class_name"]],
    }
    (out / "scheduler").mkdir()
    for path, values in (("model_index.json", index), ("scheduler/scheduler_config.json", scheduler)):
        (out / path).write_text(json.dumps(values, indent=2))
