"""Videos of a suite's prompts: the same prompts, first frames and seeds for base and every arm."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from regdpo.config.schema import Encode
from regdpo.config.stage_inputs import SuiteSamplesStage
from regdpo.core.digests import canonical, file_digest, text_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import Geometry, SuiteSampleRow
from regdpo.core.store import Store
from regdpo.data.video import write_frames
from regdpo.evaluate.prompts import Prompt
from regdpo.models.spec import ModelFile
from regdpo.sampling import render as sampler
from regdpo.sampling.render import Request, seed_of

FIRST_FRAMES = "first_frames"
"""Folder of the store."""


def render(
    stage: SuiteSamplesStage,
    model: ModelFile,
    prompts: Sequence[Prompt],
    images: Mapping[str, Path],
    store: Store,
    device: torch.device,
) -> list[SuiteSampleRow]:
    """One row a prompt and video.

    Args:
        images: name -> file of the first frames that the prompts name.
    """
    sampling, geometry = stage.sampling, stage.geometry
    firsts = {name: first_frame(path, geometry, stage.encode, store) for name, path in images.items()}
    asked = [(prompt, index) for prompt in prompts for index in range(prompt.videos)]
    seeds = [seed_of(stage.seed, stage.suite, prompt.text, index) for prompt, index in asked]
    requests = [
        Request(prompt.text, *firsts.get(prompt.image, ("", "")), seed, geometry)
        for (prompt, _), seed in zip(asked, seeds, strict=True)
    ]
    rendered = sampler.render("suites", model, requests, sampling, stage.encode, store, device)
    digests = {name: file_digest(path) for name, path in images.items()}
    return [
        SuiteSampleRow(
            sample_id=f"{model.name}|{prompt.names[index]}",
            suite=stage.suite,
            model=model.name,
            name=prompt.names[index],
            prompt=prompt.text,
            index=index,
            image=prompt.image,
            image_sha256=digests.get(prompt.image, ""),
            seed=seed,
            steps=sampling.steps,
            guidance=sampling.scale("high"),
            guidance_low=sampling.guidance["low"] if isinstance(sampling.guidance, dict) else None,
            shift=sampling.shift,
            solver=sampling.solver,
            cache=sampling.cache.kind,
            **geometry.model_dump(),
            path=video.path,
            sha256=video.sha256,
        )
        for (prompt, index), seed, video in zip(asked, seeds, rendered, strict=True)
    ]


def first_frame(path: Path, geometry: Geometry, encode: Encode, store: Store) -> tuple[str, str]:
    """An image as the first frame of a clip, in the store: scaled to cover the video, cut around its middle, and
    written as clips are. Returns its path and its digest.

    Raises:
        UserError: it is no image.
    """
    key = text_digest(file_digest(path), canonical(geometry.model_dump()), canonical(encode.model_dump(mode="json")))
    relative = store.relative(FIRST_FRAMES, key, ".mp4")
    if not store.has(relative):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise UserError(f"{path}: is no image that can be read")
        with store.writing(relative) as temporary:
            write_frames(
                temporary, cover(np.asarray(picture, np.uint8)[None, :, :, ::-1], geometry), geometry.fps, encode
            )
    return relative, store.digest(relative)


def cover(frames: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Frames (F, H, W, 3), scaled to cover a size and cut around their middle."""
    height, width = frames.shape[1:3]
    scale = max(geometry.height / height, geometry.width / width)
    size = (max(geometry.width, round(width * scale)), max(geometry.height, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = np.stack([cv2.resize(frame, size, interpolation=way) for frame in frames])
    top, left = (size[1] - geometry.height) // 2, (size[0] - geometry.width) // 2
    return scaled[:, top : top + geometry.height, left : left + geometry.width]
