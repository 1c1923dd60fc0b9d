"""The base model as a stage: a checkpoint by name and pinned revision, or a small one made here."""

import json
import re
from pathlib import Path

import numpy as np
import torch

from regdpo.config.stage_inputs import BaseStage
from regdpo.core.code_digest import code_digest
from regdpo.core.digests import DigestCache, canonical, folder_digest, text_digest
from regdpo.core.environment import versions
from regdpo.core.errors import UserError
from regdpo.core.rows import Geometry, PairRow
from regdpo.core.store import DIGESTS, Store
from regdpo.data import video
from regdpo.models import wan_scratch
from regdpo.models.checkpoint_json import check_all
from regdpo.models.conversions import converted
from regdpo.models.family import family_class, open_family
from regdpo.models.sizes import check_size
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.models.wan import Wan
from regdpo.runtime.hub import download, listed

PARTS = ("model_index.json", "transformer/config.json", "vae/config.json")
"""Files that a checkpoint in diffusers' layout has."""
PSNR = "codec_psnr.json"


def by_name(stage: BaseStage, store: Store, name: str = "base", key: str = "base") -> ModelFile:
    """A checkpoint from the hub, downloaded into its cache if it is not there, or from a folder.

    Args:
        name: of the model. key: under which it stands in the configuration, for the reader.

    Raises:
        UserError: it cannot be had, is not in diffusers' layout, is not of the family, or cannot take such clips.
    """
    try:
        return _by_name(stage, store, name)
    except UserError as error:
        if key == "base":
            raise
        raise UserError(re.sub(r"^(base(?=\.)|)", lambda found: key if found[1] else f"{key}: ", str(error))) from None


def _by_name(stage: BaseStage, store: Store, name: str) -> ModelFile:
    base = stage.base
    assert base.model is not None
    folder = Path(base.model)
    local = folder.exists()
    if local:
        there = {part for part in PARTS if (folder / part).is_file()}
    else:
        there = listed("base.model", base.model, base.revision, PARTS)
    if lacking := [part for part in PARTS if part not in there]:
        raise UserError(
            f"base.model: {base.model} has no {lacking[0]}; it is not a checkpoint in diffusers' layout"
            + converted(base.family)
        )
    if not local:
        folder = download("base.model", base.model, base.revision)
    check_all(folder)
    if local:
        cache = DigestCache(store.root / DIGESTS)
        file = _file(stage, "folder", str(folder.resolve()), None, folder_digest(folder, cache))
        cache.save()
    else:
        commit = folder.name  # the hub's cache names a snapshot by the commit that the revision was resolved to
        file = _file(stage, "hub", base.model, commit, text_digest(base.model, commit))
    family = open_family(file.ref, store, torch.device("cpu"))
    family.check()
    for geometry in stage.geometries:
        family.check_geometry(*geometry.size)
    return file.model_copy(update={"name": name})


def from_scratch(stage: BaseStage, pairs: list[PairRow], store: Store) -> ModelFile:
    """A small checkpoint whose codec is fitted to the clips of ``pairs`` and whose transformer is random."""
    base = stage.base
    assert base.pretrain is not None
    codec = base.pretrain.codec
    for geometry in stage.geometries:
        check_size(Wan.name, geometry.size, (codec.temporal, codec.spatial), wan_scratch.PATCH)
    key = text_digest(
        canonical(stage.model_dump(mode="json")),
        code_digest(__name__),
        versions("torch", "diffusers", "transformers"),
        *(f"{pair.winner_sha256} {pair.caption}" for pair in pairs),
    )
    path = store.relative("models", key)
    if not store.has(path):
        alike: dict[Geometry, list[np.ndarray]] = {}
        for pair in pairs:
            alike.setdefault(Geometry.of_row(pair), []).append(
                video.read_stored(store, pair.winner, pair.winner_sha256)
            )
        videos = [torch.from_numpy(np.stack(those)) for those in alike.values()]
        with store.writing(path) as folder:
            captions = [pair.caption for pair in pairs]
            psnr = wan_scratch.make(base, stage.seed, videos, captions, stage.shift or 1.0, folder)
            (folder / PSNR).write_text(json.dumps({"codec_psnr": round(psnr, 2)}))
    folder = store.existing(path)
    file = _file(stage, "store", path, None, store.digest(path))
    return file.model_copy(update=json.loads((folder / PSNR).read_text()))


def _file(stage: BaseStage, where: str, path: str, revision: str | None, content: str) -> ModelFile:
    base, fps = stage.base, stage.geometries[0].fps  # one for all
    text_length = base.text_length or family_class(base.family).text_length
    digest = text_digest(content, base.family, base.task, str(text_length), str(fps))
    ref = ModelRef(
        family=base.family,
        task=base.task,
        where=where,
        path=path,
        revision=revision,
        expert=base.expert,
        fps=fps,
        text_length=text_length,
        digest=digest,
        content="" if where == "hub" else content,
    )
    return ModelFile(name="base", ref=ref, digest=text_digest(digest, base.expert or ""))
