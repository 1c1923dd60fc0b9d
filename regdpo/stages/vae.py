"""The vae stage: held-out clips through an autoencoder and back, and what is lost of them on the way."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch

from regdpo.config.stage_inputs import VaeStage
from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.rows import ClipRow, PlaceRow, ReconstructionRow
from regdpo.core.store import Store
from regdpo.data.video import read_stored
from regdpo.evaluate import reconstruction
from regdpo.evaluate.lpips import Lpips
from regdpo.evaluate.reconstruction import METRICS
from regdpo.models.device import compute_dtype
from regdpo.models.family import Family, open_family
from regdpo.models.spec import Autoencoding, ModelFile
from regdpo.models.windows import check_frames

WINDOW = 8
"""Clips that are in main memory at once."""
Size = tuple[int, int, int, int]
"""Resolution and frames that were asked for; height and width of the clip."""


def measure(
    stage: VaeStage, model: ModelFile, clips: list[ClipRow], store: Store, device: torch.device
) -> list[ReconstructionRow]:
    """A row a clip, setting and metric.

    Args:
        model: whose autoencoder; its name is in the rows. clips: those that are measured.

    Raises:
        UserError: the autoencoder cannot take so many frames; weights of LPIPS are wrong; a clip is damaged.
    """
    how = Autoencoding(encode=stage.precision, tiling=stage.tiling)
    family = open_family(model.ref, store, device, compute_dtype(device), how)
    check_frames(model.name, stage.vae.frames, family.compression[0])
    lpips = Lpips(stage.vae.lpips, device) if stage.vae.lpips else None
    rows, alike = [], defaultdict[Size, list[ClipRow]](list)
    for clip in clips:
        short = min(clip.height, clip.width)
        for resolution in stage.vae.resolutions or [short]:
            for frames in stage.vae.frames or [clip.frames]:
                if reason := _unfit(clip, resolution, frames, family):
                    whole = dict.fromkeys(METRICS, reason)
                    rows += list(_rows(model.name, clip, (resolution, frames, 0, 0), whole))
                else:
                    alike[resolution, frames, clip.height, clip.width].append(clip)
    windows = [(size, those[i : i + WINDOW]) for size, those in alike.items() for i in range(0, len(those), WINDOW)]
    for (resolution, frames, *_), those in track(windows, "reconstruction", len(windows)):
        rows += _window(family, model.name, those, resolution, frames, lpips, store)
    return rows


def held_out(stage: VaeStage, clips: Sequence[ClipRow], places: Sequence[PlaceRow]) -> list[ClipRow]:
    """The clips of the split, or ``vae.limit`` of them, evenly.

    Raises:
        UserError: there is none.
    """
    asked = {place.clip_id for place in places if place.split == stage.split}
    found = sorted((clip for clip in clips if clip.clip_id in asked), key=lambda clip: clip.clip_id)
    if not found:
        raise UserError(f"samples.split: no clip is in the {stage.split} split, so there is none to reconstruct")
    count = min(len(found), stage.vae.limit or len(found))
    return [found[index * len(found) // count] for index in range(count)]


def _unfit(clip: ClipRow, resolution: int, frames: int, family: Family) -> str:
    """Why a clip cannot be measured so; empty: it can."""
    temporal, spatial = family.compression
    if frames > clip.frames:
        return f"clips have {clip.frames} frames (clips.frames)"
    if resolution > min(clip.height, clip.width):
        return f"clips of {clip.width}x{clip.height} would have to be enlarged (clips.width, clips.height)"
    if over := (frames - 1) % temporal:
        return f"it takes {temporal}k+1 frames, and clips have {frames}; {frames - over} would do (vae.frames)"
    if resolution < spatial:
        return f"a latent is of {spatial} pixels each way (vae.resolutions)"
    return ""


def _window(
    family: Family, name: str, clips: list[ClipRow], resolution: int, frames: int, lpips: Lpips | None, store: Store
) -> Iterator[ReconstructionRow]:
    """The rows of some clips of one size."""
    multiple = family.compression[1]
    real = [
        reconstruction.reduced(read_stored(store, clip.path, clip.sha256)[:frames], resolution, multiple)
        for clip in clips
    ]
    for clip, before, (after, encoding, decoding) in zip(
        clips, real, reconstruction.through(family, real), strict=True
    ):
        assert after.shape == before.shape
        values = reconstruction.likeness(before, after, lpips)
        values |= {"encode_fps": frames / encoding, "decode_fps": frames / decoding}
        yield from _rows(name, clip, (resolution, frames, *before.shape[1:3]), values)


def _rows(model: str, clip: ClipRow, size: Size, values: Mapping[str, float | str]) -> Iterator[ReconstructionRow]:
    resolution, frames, height, width = size
    for metric in METRICS:
        value = values[metric]
        yield ReconstructionRow(
            row_id=f"{model}|{clip.clip_id}|{resolution}|{frames}|{metric}",
            model=model,
            metric=metric,
            clip_id=clip.clip_id,
            resolution=resolution,
            frames=frames,
            height=height,
            width=width,
            **({"missing": value} if isinstance(value, str) else {"value": value}),
        )
