"""Frames that autoencoders are measured with, and windows that they are trained on, against the sizes of clips; asked
before anything is loaded."""

from collections.abc import Iterable

from regdpo.config.autoencoder import LEAST, AutoencoderTraining
from regdpo.core.errors import UserError


def check_frames(name: str, asked: Iterable[int], temporal: int) -> None:
    """Refuse numbers of frames to be measured (``vae.frames``) that an autoencoder does not take.

    Raises:
        UserError: naming the next smaller one.
    """
    for frames in asked:
        if over := (frames - 1) % temporal:
            raise UserError(f"vae.frames: {name} takes {temporal}k+1 frames, got {frames}; {frames - over} would do")


def window_sides(height: int, width: int, crop: int | None, spatial: int) -> tuple[int, int]:
    """Height and width of the windows of a clip, whole latents of ``spatial`` pixels each way."""
    high, wide = (min(side, crop or side) // spatial * spatial for side in (height, width))
    return high, wide


def check_windows(
    training: AutoencoderTraining, name: str, frames: int, spatial: int, sizes: Iterable[tuple[int, int, int]]
) -> None:
    """Refuse windows that no clip has, or that are too small.

    Args:
        name: whose autoencoder. frames: of its longest window. spatial: pixels of its latents. sizes: frames, height
            and width of clips.

    Raises:
        UserError: naming what to change.
    """
    sizes = list(sizes)
    fitting = {(height, width) for long, height, width in sizes if long >= frames}
    if not fitting:
        raise UserError(
            f"vae.train.windows: {max(training.windows)} latents of {name} are {frames} frames, and clips have at most "
            f"{max(long for long, *_ in sizes)} (clips.frames); take shorter windows or longer clips"
        )
    if training.crop and training.crop < spatial:
        raise UserError(f"vae.train.crop: {training.crop} is less than the {spatial} pixels of a latent of {name}")
    for height, width in sorted(fitting):
        least = min(window_sides(height, width, training.crop, spatial))
        if not least:
            raise UserError(
                f"vae.train.of: clips of {width}x{height} are smaller than the {spatial} pixels of a latent of {name}; "
                "take larger clips (clips.width, clips.height)"
            )
        if training.loss.perceptual and least < LEAST:
            raise UserError(
                f"vae.train.loss.perceptual: LPIPS wants sides of {LEAST} pixels, and windows have {least}; enlarge "
                "vae.train.crop or the clips, or set it to 0"
            )
