"""What an autoencoder gives back of a clip, held against the clip itself."""

import math
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from regdpo.config.autoencoder import LEAST
from regdpo.evaluate.lpips import Lpips
from regdpo.evaluate.measures import Metric
from regdpo.models.family import Family, to_frames

METRICS: dict[str, Metric] = {
    it.key: it
    for it in (
        Metric("psnr", "PSNR", "dB", 1, 2, "of all frames together"),
        Metric("ssim", "SSIM", "", 1, 4, "mean over frames"),
        Metric("lpips", "LPIPS", "", -1, 4, "mean over frames, by AlexNet"),
        Metric("flicker", "Flicker", "0..255", -1, 3, "mean absolute change of the error from frame to frame"),
        Metric("encode_fps", "Encoded", "frames/s", 1, 1, "on the device that measured it"),
        Metric("decode_fps", "Decoded", "frames/s", 1, 1, "on the device that measured it"),
    )
}
"""In the order in which they are shown."""
LIKENESS = ("psnr", "ssim", "lpips", "flicker")
"""Those that compare a clip with what is given back of it."""
EXACT = "every pixel came back"
NO_WEIGHTS = "no weights are named (vae.lpips)"


def likeness(real: np.ndarray, given_back: np.ndarray, lpips: Lpips | None) -> dict[str, float | str]:
    """Each of ``LIKENESS``, or the reason why there is none; both uint8 RGB (F, H, W, 3)."""
    error = given_back.astype(np.int16) - real.astype(np.int16)
    found: dict[str, float | str] = {"psnr": EXACT, "lpips": NO_WEIGHTS, "flicker": "one frame"}
    if error.any():
        found["psnr"] = float(peak_signal_noise_ratio(real, given_back, data_range=255))
    found["ssim"] = float(np.mean([_ssim(*both) for both in zip(real, given_back, strict=True)]))
    if len(error) > 1:
        found["flicker"] = flicker(error)
    if lpips:
        small = min(real.shape[1:3]) < LEAST
        found["lpips"] = f"a side is shorter than {LEAST} pixels" if small else lpips(real, given_back)
    return found


def flicker(error: np.ndarray) -> float:
    """Mean of ``|e_t+1 - e_t|`` over pixels, channels and pairs of neighbouring frames (F, H, W, 3): 0 of an error that
    stands still, however large it is."""
    return float(np.abs(np.diff(error, axis=0)).mean())


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    return float(structural_similarity(a, b, data_range=255, channel_axis=2))


def reduced(clip: np.ndarray, resolution: int, multiple: int) -> np.ndarray:
    """A clip (F, H, W, 3) made smaller by the mean over areas, so that its shorter side is ``resolution``, and cut
    about its middle to multiples that an autoencoder takes. One of that size already is only cut."""
    height, width = clip.shape[1:3]
    if (short := min(height, width)) != resolution:
        size = round(width * resolution / short), round(height * resolution / short)
        clip = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in clip])
    sides = clip.shape[1:3]
    kept = [side // multiple * multiple for side in sides]
    top, left = ((side - keep) // 2 for side, keep in zip(sides, kept, strict=True))
    return clip[:, top : top + kept[0], left : left + kept[1]]


def through(family: Family, clips: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float, float]]:
    """What an autoencoder gives back of clips of one size, and the seconds that each was encoded and decoded in.

    All are encoded and then all decoded, since the autoencoder may be of another precision for either; the first one
    goes ahead untimed. Times are of tensors on the device: to read clips and to write them is not in them.
    """
    videos = [torch.from_numpy(np.ascontiguousarray(clip))[None] for clip in clips]
    family.encode_video(videos[0])
    encoded = [_timed(family, family.encode_video, video) for video in videos]
    latents = [latent.cpu() for latent, _ in encoded]
    family.decode_pixels(latents[0])
    found = []
    for latent, (_, encoding) in zip(latents, encoded, strict=True):
        pixels, decoding = _timed(family, family.decode_pixels, latent)
        found.append((to_frames(pixels)[0].numpy(), encoding, decoding))
    return found


def _timed(family: Family, function: Callable[[Tensor], Tensor], given: Tensor) -> tuple[Tensor, float]:
    _finish(family)
    begin = time.perf_counter()
    result = function(given)
    _finish(family)
    return result, max(time.perf_counter() - begin, math.ulp(1.0))


def _finish(family: Family) -> None:
    if family.device.type == "cuda":
        torch.cuda.synchronize(family.device)
