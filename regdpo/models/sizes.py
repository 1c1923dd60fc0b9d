"""What a family cuts videos into, by what the JSON files of a checkpoint say: data of the families' declarations, which
is asked before anything is loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from regdpo.core.errors import UserError

Values = Mapping[str, Any]
"""Of one JSON file. What it does not name is as diffusers' class of that part has it."""


@dataclass(frozen=True)
class Cut:
    """Of one family."""

    compression: Callable[[Values], tuple[int, int]]
    """From ``vae/config.json``: frames and pixels a latent; the first frame has a latent of its own."""
    patch: Callable[[Values], tuple[int, int]]
    """From ``transformer/config.json``: latents a token, in time and each way in space."""
    stacks: bool = False
    """Whether image-to-video has checkpoints of its own, whose denoiser takes latents of the condition too."""
    alone: bool = False
    """Whether the frames of each latent are encoded by themselves, so that a clip may be cut before any of them."""

    def window(self, latents: int, temporal: int) -> int:
        """Frames that an autoencoder is trained to make so many latent frames of.

        Args:
            temporal: frames a latent.
        """
        return latents * temporal if self.alone else (latents - 1) * temporal + 1


def _wan_compression(vae: Values) -> tuple[int, int]:
    return vae.get("scale_factor_temporal", 4), vae.get("scale_factor_spatial", 8)


def _wan_patch(transformer: Values) -> tuple[int, int]:
    long, wide = transformer.get("patch_size", (1, 2, 2))[:2]
    return long, wide


def _cogvideox_compression(vae: Values) -> tuple[int, int]:
    blocks = vae.get("block_out_channels", (128, 256, 256, 512))
    return int(vae.get("temporal_compression_ratio", 4)), 2 ** (len(blocks) - 1)


def _hunyuan_compression(vae: Values) -> tuple[int, int]:
    return vae.get("temporal_compression_ratio", 4), vae.get("spatial_compression_ratio", 8)


def _ltx_compression(vae: Values) -> tuple[int, int]:
    factor = 2 ** sum(vae.get("spatio_temporal_scaling", (True, True, True, False)))
    temporal = vae.get("temporal_compression_ratio") or vae.get("patch_size_t", 1) * factor
    return temporal, vae.get("spatial_compression_ratio") or vae.get("patch_size", 4) * factor


def _frames_compression(vae: Values) -> tuple[int, int]:
    return 1, 2 ** (len(vae.get("block_out_channels", (64,))) - 1)


def _unet_patch(unet: Values) -> tuple[int, int]:
    """The latents that its deepest level has one of."""
    return 1, 2 ** (len(unet.get("channel_mult", (1, 2, 4, 4))) - 1)


def _mugv_compression(vae: Values) -> tuple[int, int]:
    return 8, 2 ** (len(vae.get("block_out_channels", (128, 256, 512, 512))) - 1)


def _patch(otherwise: int) -> Callable[[Values], tuple[int, int]]:
    return lambda transformer: (transformer.get("patch_size_t") or 1, transformer.get("patch_size", otherwise))


WAN = Cut(_wan_compression, _wan_patch, stacks=True)
COGVIDEOX = Cut(_cogvideox_compression, _patch(2), stacks=True)
HUNYUAN_VIDEO = Cut(_hunyuan_compression, _patch(2))
LTX_VIDEO = Cut(_ltx_compression, _patch(1))
VIDEOCRAFTER2 = Cut(_frames_compression, _unet_patch)
MUGV = Cut(_mugv_compression, _wan_patch, alone=True)


def check_size(
    family: str, size: tuple[int, int, int], compression: tuple[int, int], patch: tuple[int, int] = (1, 1)
) -> None:
    """Refuse what cannot be cut into patches of latents.

    Args:
        size: frames, height and width of a clip. compression: frames and pixels a latent; the first frame has a
            latent of its own. patch: latents a token, in time and each way in space.

    Raises:
        UserError: naming the nearest smaller size.
    """
    (frames, height, width), (temporal, spatial), (long, wide) = size, compression, patch
    step, first = temporal * long, temporal * (long - 1) + 1
    if (frames - first) % step:
        fits = max(first, frames - (frames - first) % step)
        raise UserError(f"clips.frames: {family} takes {step}k+{first} frames, got {frames}; {fits} would do")
    side = spatial * wide
    for name, value in (("height", height), ("width", width)):
        if value % side:
            fits = max(side, value // side * side)
            raise UserError(f"clips.{name}: {family} takes multiples of {side}, got {value}; {fits} would do")
