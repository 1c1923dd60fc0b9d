"""Winner, loser, text and condition of every pair, encoded once: one safetensors file a pair, and one a model for the
empty caption, which training puts in the place of dropped ones.

Both halves go through the same codec call and share the caption's embedding and the first frame's condition.
"""

import torch
from safetensors.torch import save_file

from regdpo.data.encoded import DRAWS
from regdpo.data.video import read_stored
from regdpo.device import DTYPES, compute_dtype
from regdpo.errors import UserError
from regdpo.models.family import Family, ModelFile, open_family
from regdpo.progress import track
from regdpo.provenance import code_digest, file_digest, text_digest, versions
from regdpo.stages import LatentsStage
from regdpo.store import Store
from regdpo.tables import LatentRow, PairRow


def encode(
    stage: LatentsStage, model: ModelFile, pairs: list[PairRow], store: Store, device: torch.device
) -> list[LatentRow]:
    """Encode what the store does not hold yet; one row a pair.

    Raises:
        UserError: a clip is missing or is not of the configured size.
    """
    geometry = stage.geometry
    family = open_family(model.ref, store, device, compute_dtype(device))
    family.check_geometry(geometry.frames, geometry.height, geometry.width)
    code = code_digest(__name__, type(family).__module__) + versions("torch", "diffusers", "transformers", "ftfy")
    empty = _empty_caption(family, text_digest("", model.ref.digest, code, stage.latents.dtype), stage, store)
    rows = []
    for pair in track(pairs, "latents", len(pairs)):
        key = text_digest(
            model.ref.digest,
            code,
            stage.latents.dtype,
            pair.caption,
            pair.winner_sha256,
            pair.loser_sha256,
            str(geometry),
        )
        path = store.relative("latents", key, ".safetensors")
        if not store.resolve(path).exists():
            tensors = _encode_pair(family, pair, stage, store, key)
            with store.writing(path) as temporary:
                save_file(tensors, temporary)
        rows.append(
            LatentRow(
                pair_id=pair.pair_id,
                split=pair.split,
                clip_id=pair.clip_id,
                path=path,
                sha256=file_digest(store.resolve(path)),
                encoder=model.ref.digest,
                shape=",".join(map(str, family.latent_shape(geometry.frames, geometry.height, geometry.width))),
                has_loser=bool(pair.loser),
                weight=pair.weight,
                **empty,
            )
        )
    return rows


def _empty_caption(family: Family, key: str, stage: LatentsStage, store: Store) -> dict[str, str]:
    """Where the empty caption is, as columns of a row; of a model that is given the guidance scale there is none."""
    if family.embeds_guidance:
        return {}
    path = store.relative("latents", key, ".safetensors")
    if not store.resolve(path).exists():
        tensors = {name: tensor[0] for name, tensor in family.encode_text([""]).items()}
        with store.writing(path) as temporary:
            save_file(_stored(tensors, stage), temporary)
    return {"empty": path, "empty_sha256": file_digest(store.resolve(path))}


def _encode_pair(family: Family, pair: PairRow, stage: LatentsStage, store: Store, key: str) -> dict[str, torch.Tensor]:
    halves = {"winner": (pair.winner, pair.winner_sha256)}
    if pair.loser:
        halves["loser"] = pair.loser, pair.loser_sha256
    frames = {name: _frames(store, *half, stage, pair.pair_id) for name, half in halves.items()}
    latents = family.encode_video(torch.stack(list(frames.values())))
    tensors = {name: latents[index] for index, name in enumerate(frames)}
    inputs = family.encode_text([pair.caption])
    inputs |= family.encode_first_frame(frames["winner"][None, 0], stage.geometry.frames)
    draws = family.draws_of_first_frame(frames["winner"][None, 0], torch.Generator().manual_seed(int(key[:15], 16)))
    assert not tensors.keys() & inputs.keys()
    tensors |= {name: tensor[0] for name, tensor in inputs.items()}
    tensors |= {name + DRAWS: tensor[0] for name, tensor in draws.items()}
    return _stored(tensors, stage)


def _stored(tensors: dict[str, torch.Tensor], stage: LatentsStage) -> dict[str, torch.Tensor]:
    dtype = DTYPES[stage.latents.dtype]
    return {name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}


def _frames(store: Store, path: str, sha256: str, stage: LatentsStage, pair_id: str) -> torch.Tensor:
    frames = read_stored(store, path, sha256)
    wanted = (stage.geometry.frames, stage.geometry.height, stage.geometry.width, 3)
    if frames.shape != wanted:
        raise UserError(f"pair {pair_id}: {path} holds {frames.shape} (frames, height, width, 3), wanted {wanted}")
    return torch.from_numpy(frames)
