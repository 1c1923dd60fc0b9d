"""Winner, loser, text and condition of every pair, encoded once: one safetensors file per pair, and one per model for
the empty caption, which training puts in the place of dropped ones.

Both halves go through the same codec, each in a call of its own, and share the caption's embedding and the first
frame's condition. Of a window of pairs first all texts are encoded, then all videos, so that the text encoder and the
autoencoder need not fit on the device together.
"""

import sys
from collections.abc import Iterator
from itertools import islice

import torch
from safetensors.torch import save_file

from regdpo.config.stage_inputs import LatentsStage
from regdpo.core.code_digest import code_digest
from regdpo.core.digests import canonical, text_digest
from regdpo.core.environment import versions
from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.rows import Geometry, LatentRow, PairRow
from regdpo.core.store import Store
from regdpo.data.latent_files import DRAWS
from regdpo.data.video import read_stored
from regdpo.models.device import DTYPES, compute_dtype
from regdpo.models.family import Family, open_family
from regdpo.models.long_captions import refuse, told, too_long
from regdpo.models.spec import Autoencoding, ModelFile

WINDOW = 256
"""Pairs whose texts wait in main memory for the autoencoder; 1 GiB with Wan's 512 tokens of 4096 in bf16."""


def encode(
    stage: LatentsStage, model: ModelFile, pairs: list[PairRow], store: Store, device: torch.device
) -> list[LatentRow]:
    """Encode what the store does not hold yet; one row a pair.

    Raises:
        UserError: a clip is missing or is not of its pair's size; the model cannot take that.
    """
    how = Autoencoding(encode=stage.latents.precision, tiling=stage.latents.tiling)
    family = open_family(model.ref, store, device, compute_dtype(device), how)
    cut = too_long(family, {pair.pair_id: pair.caption for pair in pairs})
    if stage.too_long == "stop":
        refuse(cut, len(pairs), family)
    if line := told(cut, len(pairs), family):
        print(line, file=sys.stderr)
    sizes = [Geometry.of_row(pair).size for pair in pairs]
    tiled, shapes = {}, {}
    for size in dict.fromkeys(sizes):
        family.check_geometry(*size)
        tiled[size] = str(family.tiled("encode", *size))
        shapes[size] = ",".join(map(str, family.latent_shape(*size)))
    code = code_digest(__name__, type(family).__module__) + versions("torch", "diffusers", "transformers", "ftfy")
    empty = _empty_caption(family, text_digest("", model.ref.digest, code, stage.latents.dtype), stage, store)
    settings = canonical(stage.latents.model_dump(exclude={"shards"}))
    keys = [
        text_digest(
            model.ref.digest,
            code,
            settings,
            pair.caption,
            pair.winner_sha256,
            pair.loser_sha256,
            tiled[size],
        )
        for pair, size in zip(pairs, sizes, strict=True)
    ]
    paths = [store.relative("latents", key, ".safetensors") for key in keys]
    todo = {key: pair for key, path, pair in zip(keys, paths, pairs, strict=True) if not store.has(path)}
    for key, pair, text in track(_with_text(family, todo), "latents", len(todo)):
        tensors = _encode_pair(family, pair, text, stage, store, key)
        with store.writing(store.relative("latents", key, ".safetensors")) as temporary:
            save_file(tensors, temporary)
    return [
        LatentRow(
            pair_id=pair.pair_id,
            split=pair.split,
            clip_id=pair.clip_id,
            path=path,
            sha256=store.digest(path),
            encoder=model.ref.digest,
            shape=shapes[size],
            has_loser=bool(pair.loser),
            origin=pair.origin,
            generator=pair.generator,
            weight=pair.weight,
            label=pair.label,
            segments=pair.segments,
            **empty,
        )
        for path, pair, size in zip(paths, pairs, sizes, strict=True)
    ]


def _with_text(family: Family, todo: dict[str, PairRow]) -> Iterator[tuple[str, PairRow, dict[str, torch.Tensor]]]:
    items = iter(todo.items())
    while window := list(islice(items, WINDOW)):
        texts = [{name: it.cpu() for name, it in family.encode_text([pair.caption]).items()} for _, pair in window]
        for (key, pair), text in zip(window, texts, strict=True):
            yield key, pair, text


def _empty_caption(family: Family, key: str, stage: LatentsStage, store: Store) -> dict[str, str]:
    """Where the empty caption is, as columns of a row; of a model that is given the guidance scale there is none."""
    if family.embeds_guidance:
        return {}
    path = store.relative("latents", key, ".safetensors")
    if not store.has(path):
        tensors = {name: tensor[0] for name, tensor in family.encode_text([""]).items()}
        with store.writing(path) as temporary:
            save_file(_stored(tensors, stage), temporary)
    return {"empty": path, "empty_sha256": store.digest(path)}


def _encode_pair(
    family: Family, pair: PairRow, text: dict[str, torch.Tensor], stage: LatentsStage, store: Store, key: str
) -> dict[str, torch.Tensor]:
    halves = {"winner": (pair.winner, pair.winner_sha256)}
    if pair.loser:
        halves["loser"] = pair.loser, pair.loser_sha256
    frames = {name: _frames(store, *half, pair) for name, half in halves.items()}
    tensors = {name: family.encode_video(half[None])[0] for name, half in frames.items()}
    inputs = text | family.encode_first_frame(frames["winner"][None, 0], pair.frames)
    draws = family.draws_of_first_frame(frames["winner"][None, 0], torch.Generator().manual_seed(int(key[:15], 16)))
    assert not tensors.keys() & inputs.keys()
    tensors |= {name: tensor[0] for name, tensor in inputs.items()}
    tensors |= {name + DRAWS: tensor[0] for name, tensor in draws.items()}
    return _stored(tensors, stage)


def _stored(tensors: dict[str, torch.Tensor], stage: LatentsStage) -> dict[str, torch.Tensor]:
    dtype = DTYPES[stage.latents.dtype]
    return {name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}


def _frames(store: Store, path: str, sha256: str, pair: PairRow) -> torch.Tensor:
    frames = read_stored(store, path, sha256)
    wanted = (*Geometry.of_row(pair).size, 3)
    if frames.shape != wanted:
        raise UserError(f"pair {pair.pair_id}: {path} holds {frames.shape} (frames, height, width, 3), wanted {wanted}")
    return torch.from_numpy(frames)
