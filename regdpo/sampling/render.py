"""Seeded sampling, for negatives and for evaluation: many videos at once, which diffusers' pipelines do not take with
different first frames.

Noise derives from each row's seed. Rows are rendered in fixed groups of one geometry, so that an interrupted stage goes
on with the same bytes. Text encoder, autoencoder and denoiser take turns on the device (regdpo/models/turns.py): of a
window of groups first all texts are encoded, then all first frames, then each group is denoised and decoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regdpo.config.schema import Encode, Sampling
from regdpo.core.code_digest import code_digest
from regdpo.core.digests import canonical, text_digest
from regdpo.core.environment import versions
from regdpo.core.progress import track
from regdpo.core.rows import Geometry
from regdpo.core.store import Store
from regdpo.data.video import read_stored, write_frames
from regdpo.models.device import compute_dtype
from regdpo.models.family import Family, open_family, to_frames
from regdpo.models.spec import Autoencoding, ModelFile
from regdpo.sampling import broken
from regdpo.sampling.denoise import check, denoise, nearest_step, negatives_of, prepared

WINDOW = 64
"""Videos whose text and first frames wait in main memory for the denoiser."""
SUFFIX = ".mp4"
Given = dict[str, Tensor]


@dataclass(frozen=True)
class Request:
    """One video to render."""

    caption: str
    first_frame: str  # a clip in the store, whose first frame conditions image-to-video; none for text-to-video
    clip_sha256: str
    seed: int
    geometry: Geometry
    strength: float | None = None  # sigma that this clip is noised to, to begin with; none: with noise alone


@dataclass(frozen=True)
class Rendered:
    """Where it is; of one that was refused, the file that says why."""

    path: str
    sha256: str
    reason: str = ""  # why it was refused
    strength: float | None = None  # sigma of the step that it began at, the nearest to what was asked


def seed_of(base: int, *what: object) -> int:
    """A row's seed, from the configured one and what the row is; fits in a signed 64-bit column."""
    return int(text_digest(str(base), *map(str, what))[:15], 16)


def render(
    kind: str,
    model: ModelFile,
    requests: list[Request],
    sampling: Sampling,
    encode: Encode,
    store: Store,
    device: torch.device,
    refuse: bool = False,
) -> list[Rendered]:
    """Render what the store does not hold yet. Returns where each request's video is.

    Args:
        kind: folder of the store.
        encode: how videos are written.
        refuse: write none that is broken (regdpo/sampling/broken.py), but why it is; for negatives. What a model is
            judged by is written as it came.

    Raises:
        UserError: the model cannot take a geometry or the sampling; a clip is missing or damaged.
    """
    how = Autoencoding(decode=sampling.decode, tiling=sampling.tiling)
    family = open_family(model.ref, store, device, compute_dtype(device), how)
    check(family, sampling)
    settings = {}
    for geometry in dict.fromkeys(request.geometry for request in requests):
        family.check_geometry(*geometry.size)
        tiled = [family.tiled("encode", *geometry.size), family.tiled("decode", *geometry.size)]
        settings[geometry] = canonical([*(it.model_dump(mode="json") for it in (sampling, encode, geometry)), tiled])
    code = code_digest(__name__, type(family).__module__) + versions("torch", "diffusers", "transformers", "ftfy")
    starts = [_start(family, sampling, request) for request in requests]
    paths = [
        store.relative(
            kind,
            text_digest(
                model.ref.digest,
                code,
                settings[request.geometry],
                request.caption,
                request.clip_sha256,
                str(request.seed),
                *(() if strength is None else ("from step", str(first))),
            ),
            SUFFIX,
        )
        for request, (first, strength) in zip(requests, starts, strict=True)
    ]
    groups = _groups(
        [(request.geometry, start) for request, start in zip(requests, starts, strict=True)], sampling.batch
    )
    todo = [group for group in groups if not all(_made(store, paths[index]) for index in group)]
    denoiser = prepared(family.load_denoiser(), sampling) if todo else None
    for group, inputs, negative, clips in track(_encoded(family, todo, requests, sampling, store), kind, len(todo)):
        assert denoiser is not None
        geometry = requests[group[0]].geometry
        shape = family.latent_shape(*geometry.size)
        seeds = [torch.Generator().manual_seed(requests[index].seed) for index in group]
        noise = torch.stack([torch.randn(shape, generator=seed) for seed in seeds])
        latents = denoise(family, denoiser, inputs, noise, sampling, negative, clips, starts[group[0]][0], seeds)
        for index, one in zip(group, latents.split(1), strict=True):
            if _made(store, paths[index]):
                continue
            pixels = family.decode_pixels(one)
            video, finite = to_frames(pixels)[0].numpy(), bool(pixels.isfinite().all())
            reason = (broken.reason(video) if finite else broken.NOT_FINITE) if refuse else ""
            with store.writing(_refusal(paths[index]) if reason else paths[index]) as temporary:
                if reason:
                    temporary.write_text(reason)
                else:
                    write_frames(temporary, video, geometry.fps, encode)
    return [replace(_found(store, path), strength=strength) for path, (_, strength) in zip(paths, starts, strict=True)]


def _start(family: Family, sampling: Sampling, request: Request) -> tuple[int, float | None]:
    """The step that a request begins at, and the sigma that its clip is noised to."""
    if request.strength is None:
        return 0, None
    return nearest_step(family, sampling, family.latent_shape(*request.geometry.size), request.strength)


def _refusal(path: str) -> str:
    """What lies in the store in the place of a video that was refused."""
    return path.removesuffix(SUFFIX) + ".txt"


def _made(store: Store, path: str) -> bool:
    return store.has(path) or store.has(_refusal(path))


def _found(store: Store, path: str) -> Rendered:
    if store.resolve(path).exists():
        return Rendered(path, store.digest(path))
    refusal = _refusal(path)
    return Rendered(refusal, store.digest(refusal), store.existing(refusal).read_text())


def _groups(kinds: list[Any], batch: int) -> list[list[int]]:
    """Which requests are rendered together: at most ``batch`` of one kind (geometry and start), in their order."""
    alike: dict[Any, list[int]] = {}
    for index, kind in enumerate(kinds):
        alike.setdefault(kind, []).append(index)
    return [those[first : first + batch] for those in alike.values() for first in range(0, len(those), batch)]


def _encoded(
    family: Family, groups: list[list[int]], requests: list[Request], sampling: Sampling, store: Store
) -> Iterator[tuple[list[int], Given, Given, Tensor | None]]:
    """Groups with the denoiser's inputs, those of guidance, and the latents that they begin with, in main memory."""
    many = max(1, WINDOW // sampling.batch)
    for start in range(0, len(groups), many):
        window = groups[start : start + many]
        texts, negatives = [], []
        for group in window:
            texts.append(_home(family.encode_text([requests[index].caption for index in group])))
            negatives.append(_home(negatives_of(family, sampling, len(group))))
        inputs: list[Given] = []
        clips: list[Tensor | None] = []
        for group, text in zip(window, texts, strict=True):
            asked = [requests[index] for index in group]
            firsts = [read_stored(store, it.first_frame, it.clip_sha256)[0] for it in asked if it.first_frame]
            condition: Given = {}
            if firsts:
                frames = asked[0].geometry.frames
                condition = _home(family.encode_first_frame(torch.from_numpy(np.stack(firsts)), frames))
            inputs.append(text | condition)
            given = asked[0].strength is not None
            clips.append(torch.cat([_latents(family, it, store) for it in asked]) if given else None)
        yield from zip(window, inputs, negatives, clips, strict=True)


def _latents(family: Family, request: Request, store: Store) -> Tensor:
    frames = read_stored(store, request.first_frame, request.clip_sha256)
    return family.encode_video(torch.from_numpy(frames)[None]).cpu()


def _home(given: Given) -> Given:
    return {name: value.cpu() for name, value in given.items()}
