"""Seeded sampling, for negatives and for evaluation: steps of the family's sampler, many videos at once.

diffusers' pipelines take one first frame a call; a batch of different first frames needs this loop. For one video it
is the pipeline's own, which tests/unit/test_families.py holds it to. Noise derives from each row's seed. Rows are
rendered in fixed groups, so that an interrupted stage goes on with the same bytes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regdpo.config import Sampling, canonical
from regdpo.data.video import read_stored, write_frames
from regdpo.device import compute_dtype
from regdpo.models.family import Family, ModelFile, open_family
from regdpo.progress import track
from regdpo.provenance import code_digest, file_digest, text_digest, versions
from regdpo.stages import Geometry
from regdpo.store import Store


@dataclass(frozen=True)
class Request:
    """One video to render."""

    caption: str
    first_frame: str  # a clip in the store, whose first frame conditions image-to-video
    clip_sha256: str
    seed: int


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
    family: Family, denoiser: nn.Module, inputs: dict[str, Tensor], noise: Tensor, sampling: Sampling
) -> Tensor:
    """Latents (B, C, F, H, W) from noise of that shape; ``inputs`` is text and condition, batch first."""
    scheduler = family.sampler(sampling.steps, sampling.shift, tuple(noise.shape[1:]))
    guided = sampling.guided and not family.embeds_guidance
    if family.embeds_guidance:
        inputs = {**inputs, "guidance": noise.new_full((len(noise),), sampling.scale(None))}
    unconditional = {**inputs, **family.encode_text([sampling.negative_prompt] * len(noise))} if guided else {}
    latents = noise
    for t in scheduler.timesteps:
        sigma = family.sigma_of(t).expand(len(latents))
        prediction = family.predict(denoiser, latents.to(family.dtype), sigma, inputs).float()
        scale = sampling.scale(family.expert(sigma))
        if guided and scale > 1:
            plain = family.predict(denoiser, latents.to(family.dtype), sigma, unconditional).float()
            prediction = plain + scale * (prediction - plain)
        latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
    if "first" in inputs:
        latents[:, :, : inputs["first"].shape[2]] = inputs["first"]
    return latents


def render(
    kind: str,
    model: ModelFile,
    requests: list[Request],
    sampling: Sampling,
    geometry: Geometry,
    store: Store,
    device: torch.device,
) -> list[Rendered]:
    """Render what the store does not hold yet, in the order of the requests.

    Args:
        kind: folder of the store.
    """
    family = open_family(model.ref, store, device, compute_dtype(device))
    family.check_geometry(geometry.frames, geometry.height, geometry.width)
    settings = canonical([sampling.model_dump(mode="json"), geometry.model_dump(mode="json")])
    code = code_digest(__name__, type(family).__module__) + versions("torch", "diffusers", "transformers", "ftfy")
    paths = [
        store.relative(
            kind,
            text_digest(model.ref.digest, code, settings, request.caption, request.clip_sha256, str(request.seed)),
            ".mp4",
        )
        for request in requests
    ]
    groups = [range(first, min(first + sampling.batch, len(paths))) for first in range(0, len(paths), sampling.batch)]
    todo = [group for group in groups if not all(store.resolve(paths[index]).exists() for index in group)]
    denoiser = family.load_denoiser().eval() if todo else None
    for group in track(todo, kind, len(todo)):
        assert denoiser is not None
        frames = _render(family, denoiser, [requests[index] for index in group], sampling, geometry, store)
        for index, video in zip(group, frames, strict=True):
            if store.resolve(paths[index]).exists():
                continue
            with store.writing(paths[index]) as temporary:
                write_frames(temporary, video.numpy(), geometry.fps, geometry.encode)
    return [Rendered(path, file_digest(store.existing(path))) for path in paths]


def _render(
    family: Family, denoiser: nn.Module, group: list[Request], sampling: Sampling, geometry: Geometry, store: Store
) -> Tensor:
    first = torch.stack(
        [torch.from_numpy(read_stored(store, request.first_frame, request.clip_sha256)[0]) for request in group]
    )
    inputs = family.encode_text([request.caption for request in group])
    inputs |= family.encode_first_frame(first, geometry.frames)
    shape = family.latent_shape(geometry.frames, geometry.height, geometry.width)
    noise = torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(request.seed)) for request in group]
    ).to(family.device)
    return family.decode_video(denoise(family, denoiser, inputs, noise, sampling))
