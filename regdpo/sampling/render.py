"""Seeded sampling, for negatives and for evaluation: steps of the family's sampler, many videos at once.

diffusers' pipelines take one first frame a call; a batch of different first frames needs this loop. For one video it
is the pipeline's own, which tests/unit/test_families.py holds it to. Noise derives from each row's seed. Rows are
rendered in fixed groups of one geometry, so that an interrupted stage goes on with the same bytes. Text encoder,
autoencoder and denoiser take turns on the device (regdpo/models/turns.py): of a window of groups first all texts are
encoded, then all first frames, then each group is denoised and decoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from regdpo.config.schema import Encode, Sampling, canonical
from regdpo.core.code_digest import code_digest
from regdpo.core.digests import text_digest
from regdpo.core.environment import versions
from regdpo.core.progress import track
from regdpo.core.rows import Geometry
from regdpo.core.store import Store
from regdpo.data.video import read_stored, write_frames
from regdpo.models.device import compute_dtype
from regdpo.models.family import Family, open_family
from regdpo.models.spec import Autoencoding, ModelFile

WINDOW = 64
"""Videos whose text and first frames wait in main memory for the denoiser."""
Given = dict[str, Tensor]


@dataclass(frozen=True)
class Request:
    """One video to render."""

    caption: str
    first_frame: str  # a clip in the store, whose first frame conditions image-to-video; none for text-to-video
    clip_sha256: str
    seed: int
    geometry: Geometry


@dataclass(frozen=True)
class Rendered:
    """Where it is."""

    path: str
    sha256: str


def seed_of(base: int, *what: object) -> int:
    """A row's seed, from the configured one and what the row is; fits in a signed 64-bit column."""
    return int(text_digest(str(base), *map(str, what))[:15], 16)


@torch.no_grad()
def denoise(
    family: Family,
    denoiser: nn.Module,
    inputs: dict[str, Tensor],
    noise: Tensor,
    sampling: Sampling,
    negative: dict[str, Tensor] | None = None,
) -> Tensor:
    """Latents (B, C, F, H, W) from noise of that shape.

    Args:
        inputs: text and condition, batch first. negative: what ``negatives_of`` encodes, if it was encoded before.
    """
    if negative is None:
        negative = negatives_of(family, sampling, len(noise))
    inputs, noise = {name: value.to(family.device) for name, value in inputs.items()}, noise.to(family.device)
    scheduler = family.sampler(sampling.steps, sampling.shift, tuple(noise.shape[1:]))
    if family.embeds_guidance:
        inputs = {**inputs, "guidance": noise.new_full((len(noise),), sampling.scale(None))}
    unconditional = {**inputs, **{name: value.to(family.device) for name, value in negative.items()}}
    latents = noise
    for t in scheduler.timesteps:
        sigma = family.sigma_of(t).expand(len(latents))
        family.seat(denoiser, sigma)
        prediction = family.predict(denoiser, latents.to(family.dtype), sigma, inputs).float()
        scale = sampling.scale(family.expert(sigma))
        if negative and scale > 1:
            plain = family.predict(denoiser, latents.to(family.dtype), sigma, unconditional).float()
            prediction = plain + scale * (prediction - plain)
        latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
    if "first" in inputs:
        latents[:, :, : inputs["first"].shape[2]] = inputs["first"]
    return latents


def negatives_of(family: Family, sampling: Sampling, count: int) -> dict[str, Tensor]:
    """The text that guidance leads ``count`` videos away from; empty if there is no such guidance."""
    if not sampling.guided or family.embeds_guidance:
        return {}
    return family.encode_text([sampling.negative_prompt] * count)


def render(
    kind: str,
    model: ModelFile,
    requests: list[Request],
    sampling: Sampling,
    encode: Encode,
    store: Store,
    device: torch.device,
) -> list[Rendered]:
    """Render what the store does not hold yet. Returns where each request's video is.

    Args:
        kind: folder of the store.
        encode: how videos are written.

    Raises:
        UserError: the model cannot take a geometry; a clip is missing or damaged.
    """
    how = Autoencoding(decode=sampling.decode, tiling=sampling.tiling)
    family = open_family(model.ref, store, device, compute_dtype(device), how)
    settings = {}
    for geometry in dict.fromkeys(request.geometry for request in requests):
        family.check_geometry(*geometry.size)
        tiled = [family.tiled("encode", *geometry.size), family.tiled("decode", *geometry.size)]
        settings[geometry] = canonical([*(it.model_dump(mode="json") for it in (sampling, encode, geometry)), tiled])
    code = code_digest(__name__, type(family).__module__) + versions("torch", "diffusers", "transformers", "ftfy")
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
            ),
            ".mp4",
        )
        for request in requests
    ]
    groups = _groups(requests, sampling.batch)
    todo = [group for group in groups if not all(store.resolve(paths[index]).exists() for index in group)]
    denoiser = family.load_denoiser().eval() if todo else None
    for group, inputs, negative in track(_encoded(family, todo, requests, sampling, store), kind, len(todo)):
        assert denoiser is not None
        geometry = requests[group[0]].geometry
        shape = family.latent_shape(*geometry.size)
        seeds = [torch.Generator().manual_seed(requests[index].seed) for index in group]
        noise = torch.stack([torch.randn(shape, generator=seed) for seed in seeds])
        frames = family.decode_video(denoise(family, denoiser, inputs, noise, sampling, negative))
        for index, video in zip(group, frames, strict=True):
            if store.resolve(paths[index]).exists():
                continue
            with store.writing(paths[index]) as temporary:
                write_frames(temporary, video.numpy(), geometry.fps, encode)
    return [Rendered(path, store.digest(path)) for path in paths]


def _groups(requests: list[Request], batch: int) -> list[list[int]]:
    """Which requests are rendered together: at most ``batch`` of one geometry, in their order."""
    alike: dict[Geometry, list[int]] = {}
    for index, request in enumerate(requests):
        alike.setdefault(request.geometry, []).append(index)
    return [those[first : first + batch] for those in alike.values() for first in range(0, len(those), batch)]


def _encoded(
    family: Family, groups: list[list[int]], requests: list[Request], sampling: Sampling, store: Store
) -> Iterator[tuple[list[int], Given, Given]]:
    """Groups with the denoiser's inputs and those of guidance, in main memory."""
    many = max(1, WINDOW // sampling.batch)
    for start in range(0, len(groups), many):
        window = groups[start : start + many]
        texts, negatives = [], []
        for group in window:
            texts.append(_home(family.encode_text([requests[index].caption for index in group])))
            negatives.append(_home(negatives_of(family, sampling, len(group))))
        inputs = []
        for group, text in zip(window, texts, strict=True):
            asked = [requests[index] for index in group]
            firsts = [read_stored(store, it.first_frame, it.clip_sha256)[0] for it in asked if it.first_frame]
            condition: Given = {}
            if firsts:
                frames = asked[0].geometry.frames
                condition = _home(family.encode_first_frame(torch.from_numpy(np.stack(firsts)), frames))
            inputs.append(text | condition)
        yield from zip(window, inputs, negatives, strict=True)


def _home(given: Given) -> Given:
    return {name: value.cpu() for name, value in given.items()}
