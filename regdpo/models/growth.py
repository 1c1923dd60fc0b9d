"""A wider model of the same function: every hidden vector h becomes (h, ..., h), n copies.

Net2Net's idea (arXiv 1511.05641) in HyperCloning's form (arXiv 2409.12903), by which MUG-V 10B (arXiv 2510.17519) was
grown from a model of half its width. Heads become n times as many, of the same width, since a head's rotary frequencies
and the scale of its logits depend on that. LayerNorm and RMSNorm of copies are copies of the norm, whether a norm spans
one head or all of them. A matrix that is given copies has its columns repeated and divided by n; one that answers with
them has its rows repeated, each of several vectors that stand one after another by itself.

With exact copies the gradients of all copies are the same, and they stay copies. So noise can be added to every matrix
that is given copies: its sum over the n blocks of columns is zero, so that the function stays what it was while the
gradients differ.
"""

import hashlib
import importlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regdpo.core.digests import folder_digest
from regdpo.core.environment import versions
from regdpo.core.errors import UserError
from regdpo.core.temporaries import atomic, link_or_copy
from regdpo.models.checkpoint_json import check_all, completed, read_json
from regdpo.models.weights import StoredWeights, save

CONFIG = "config.json"
PARTS = ("transformer", "transformer_2")
"""Folders of a checkpoint that hold denoisers."""
ORIGIN = "grown.json"
"""Of a grown checkpoint: what it was made from and how."""


@dataclass(frozen=True)
class Rule:
    """What of a module's tensors is repeated."""

    rows: int = 0  # hidden vectors that it answers with, one after another; 0: what it answers with keeps its width
    columns: bool = False  # whether it is given a hidden vector
    axis: int = 0  # on which what it answers with lies


FIXED = Rule()
ENTRY = Rule(rows=1)
"""From what keeps its width to a hidden vector."""
HIDDEN = Rule(rows=1, columns=True)
EXIT = Rule(columns=True)
VECTOR = Rule(rows=1, axis=-1)
"""Gains, biases, learned tokens and tables of hidden vectors."""


@dataclass(frozen=True)
class Growth:
    """How a class of denoisers grows.

    Args:
        model: it, as ``module:class``; its constructor's arguments are the entries of ``config.json``.
        counts: entries that are multiplied, where they are not null. Those that give the width of a head are not among
            them.
        rules: patterns that match the whole name of a module with weights, or of a parameter that is in none.
    """

    model: str
    counts: tuple[str, ...]
    rules: Mapping[str, Rule]

    @property
    def denoiser(self) -> Any:
        """The class."""
        module, _, name = self.model.partition(":")
        return getattr(importlib.import_module(module), name)

    def rule(self, name: str) -> Rule:
        """Of a tensor by its name."""
        module = re.sub(r"\.(weight|bias)$", "", name)
        found = [rule for pattern, rule in self.rules.items() if re.fullmatch(pattern, module)]
        assert len(found) == 1, f"{self.model}: {len(found)} rules for {name}"
        return found[0]

    def wider(self, config: Mapping[str, Any], times: int) -> dict[str, Any]:
        """The configuration of the grown model."""
        return {**config, **{name: config[name] * times for name in self.counts if config.get(name)}}

    def empty(self, config: Mapping[str, Any]) -> Any:
        """The model of a configuration on the meta device."""
        with torch.device("meta"):
            return self.denoiser.from_config(dict(config))


GROWTHS = {
    "WanTransformer3DModel": Growth(
        "diffusers:WanTransformer3DModel",
        ("num_attention_heads", "ffn_dim", "added_kv_proj_dim"),
        {
            r"patch_embedding": ENTRY,
            r"condition_embedder\.(time|text)_embedder\.linear_1": ENTRY,
            r"condition_embedder\.(time|text)_embedder\.linear_2": HIDDEN,
            r"condition_embedder\.time_proj": replace(HIDDEN, rows=6),
            r"condition_embedder\.image_embedder\.(pos_embed|norm1|ff\.net\.0\.proj)": FIXED,
            r"condition_embedder\.image_embedder\.ff\.net\.2": ENTRY,
            r"condition_embedder\.image_embedder\.norm2": VECTOR,
            r"blocks\.\d+\.attn[12]\.(to_[qkv]|add_[kv]_proj|to_out\.0)": HIDDEN,
            r"blocks\.\d+\.(attn[12]\.norm_(q|k|added_k)|norm2)": VECTOR,
            r"blocks\.\d+\.ffn\.net\.(0\.proj|2)": HIDDEN,
            r"(blocks\.\d+\.)?scale_shift_table": VECTOR,
            r"proj_out": EXIT,
        },
    ),
    "MugVTransformer3DModel": Growth(
        "regdpo.models.mugv_transformer:MugVTransformer3DModel",
        ("num_attention_heads",),
        {
            r"x_embedder\.proj|(t|fps)_embedder\.mlp\.0|y_embedder\.y_proj\.fc1": ENTRY,
            r"(t|fps)_embedder\.mlp\.2|y_embedder\.y_proj\.fc2": HIDDEN,
            r"t_block\.1": replace(HIDDEN, rows=6),
            r"(start|end)_token|((blocks\.\d+|final_layer)\.)?scale_shift_table": VECTOR,
            r"blocks\.\d+\.attn\.qkv": replace(HIDDEN, rows=3),
            r"blocks\.\d+\.cross_attn\.kv_linear": replace(HIDDEN, rows=2),
            r"blocks\.\d+\.(cross_attn\.q_linear|(cross_)?attn\.proj|mlp\.fc[12])": HIDDEN,
            r"blocks\.\d+\.(cross_)?attn\.[qk]_norm": FIXED,
            r"blocks\.\d+\.cross_attn_norm": VECTOR,
            r"final_layer\.linear": EXIT,
        },
    ),
}
"""By the class that ``config.json`` names. Another class is another entry."""


@dataclass(frozen=True)
class Asked:
    """How a model is grown.

    Args:
        times: what its width is multiplied by.
        noise: standard deviation of what is added to the entries of a matrix, as a part of theirs. seed: of it.

    Raises:
        UserError: times or noise are out of bounds.
    """

    times: int = 2
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.times < 2:
            raise UserError(f"--times: {self.times} does not make it wider; take 2 or more")
        if not 0 <= self.noise <= 1:
            raise UserError(f"--noise: {self.noise} is no part of a matrix's standard deviation; take 0 to 1")


def grown(name: str, tensor: Tensor, rule: Rule, asked: Asked) -> Tensor:
    """A tensor of the grown model, in the type of the small one's."""
    times, wide = asked.times, tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    if rule.rows:
        wide = torch.cat([copy for part in wide.chunk(rule.rows, rule.axis) for copy in [part] * times], rule.axis)
    if rule.columns and wide.dim() > 1:
        wide = torch.stack([wide / times] * times)
        if asked.noise:
            wide += asked.noise * wide.std(correction=0) * _noise(name, wide, asked)
        wide = torch.cat([*wide], 1)
    return wide.to(tensor.dtype)


def _noise(name: str, like: Tensor, asked: Asked) -> Tensor:
    """Of variance 1 and of sum 0 over the first dimension; another for each name."""
    key = hashlib.sha256(f"{asked.seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    drawn = torch.randn(like.shape, generator=generator, dtype=like.dtype)
    return (drawn - drawn.mean(0)) * math.sqrt(len(like) / (len(like) - 1))


def growth_of(path: str, values: Mapping[str, Any]) -> tuple[Growth, dict[str, Any]]:
    """How a denoiser grows, and its configuration with the defaults of what it does not name.

    Args:
        path: of its ``config.json``, for the reader. values: what that holds.

    Raises:
        UserError: it is of a class that has no rules, or a value is of the wrong kind.
    """
    kind = values.get("_class_name")
    if kind not in GROWTHS:
        raise UserError(f"{path}: is of the class {kind}; what has rules to grow by is {', '.join(GROWTHS)}")
    return GROWTHS[kind], completed(path, dict(values), GROWTHS[kind].denoiser)


def sizes(path: str, values: Mapping[str, Any], asked: Asked) -> tuple[int, int]:
    """Parameters before and after, of a configuration as for ``growth_of``."""
    growth, config = growth_of(path, values)
    small, large = (growth.empty(it) for it in (config, growth.wider(config, asked.times)))
    return parameters(small), parameters(large)


def parameters(model: nn.Module) -> int:
    """How many there are."""
    return sum(it.numel() for it in model.parameters())


def denoisers(source: Path) -> dict[str, Path]:
    """Folders of denoisers by their places in a checkpoint; of one that stands alone the place is empty.

    Raises:
        UserError: there is none.
    """
    if (source / "model_index.json").is_file():
        check_all(source)
        found = {part: source / part for part in PARTS if (source / part / CONFIG).is_file()}
        if not found:
            raise UserError(f"{source}: has no transformer/{CONFIG}; it is not a checkpoint in diffusers' layout")
        return found
    if (source / CONFIG).is_file():
        return {"": source}
    raise UserError(
        f"{source}: has neither model_index.json nor {CONFIG}; it is no folder of a model in diffusers' layout"
    )


def grow_checkpoint(source: Path, tuned: Mapping[str, Path], out: Path, asked: Asked) -> dict[str, Any]:
    """Write a grown copy of a checkpoint in diffusers' layout, or of a denoiser's folder alone.

    Its other parts are the source's, by hard links where the file system has them.

    Args:
        source: it. tuned: folders of denoisers to grow in the place of its own, by the names of ``PARTS``.
        out: a folder that is not there yet.

    Returns:
        What ``ORIGIN`` holds of it.

    Raises:
        UserError: it cannot be read, is of a class without rules, or ``out`` is there or in the source.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; name a folder that is not")
    folders = denoisers(source) | dict(tuned)
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out}: lies in what it would be grown from; name a folder outside of {source}")
    origin: dict[str, Any] = {
        "name": source.name,
        "times": asked.times,
        "noise": asked.noise,
        "seed": asked.seed,
        "made_with": versions("diffusers", "torch"),
        "parts": {},
    }
    with atomic(out) as temporary:
        temporary.mkdir()
        for part, folder in folders.items():
            origin["parts"][part] = grow_denoiser(folder, temporary / part, asked)
        if "" not in folders:
            _link_rest(source, temporary)
        (temporary / ORIGIN).write_text(json.dumps(origin, indent=2, sort_keys=True) + "\n")
    return origin


def grow_denoiser(folder: Path, out: Path, asked: Asked) -> dict[str, Any]:
    """Write the grown model of a denoiser's folder, a file of weights after another.

    Returns:
        The digest of the small one's folder, and the parameters of both.

    Raises:
        UserError: as ``grow_checkpoint``.
    """
    growth, config = growth_of(str(folder / CONFIG), read_json(folder / CONFIG))
    small, large = growth.empty(config), growth.empty(growth.wider(config, asked.times))
    stored = StoredWeights(folder, tuple(growth.denoiser._keys_to_ignore_on_load_unexpected or ()))
    stored.check({name: tuple(it.shape) for name, it in small.state_dict().items()})
    shapes = {name: it.shape for name, it in large.state_dict().items()}
    out.mkdir(exist_ok=True)
    large.save_config(out)

    def wide() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in stored.read(dict.fromkeys(shapes, ())):
            if not tensor.is_floating_point():
                raise UserError(
                    f"{folder}: {name} is stored as {tensor.dtype}; only weights that are not quantised grow"
                )
            large = grown(name, tensor, growth.rule(name), asked)
            assert large.shape == shapes[name], f"{name} has grown to {large.shape}, not to {shapes[name]}"
            yield name, large

    save(wide(), out)
    return {"source": folder_digest(folder), "parameters_before": parameters(small), "parameters": parameters(large)}


def _link_rest(source: Path, out: Path) -> None:
    """All of a checkpoint but its denoisers and what is hidden."""
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if inside.parts[0] in (*PARTS, ORIGIN) or any(part.startswith(".") for part in inside.parts):
            continue
        if path.is_file():
            (out / inside).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path.resolve(), out / inside)
