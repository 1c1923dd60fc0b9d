"""What a shot looks like, and how far two shots agree.

A fingerprint is the luma in 8x8 cells, averaged over each quarter of a second: small enough to keep, and coarse enough
to survive another encoder, size or frame rate. It is linear in the pixels, so that half a step between two samplings
can be averaged away.
"""

import base64
import itertools
from collections.abc import Iterable

import cv2
import numpy as np

RATE = 4.0
"""Steps of a fingerprint a second; a step is one frame where frames are rarer."""

CELLS = 8
"""Rows and columns of a picture."""

FLAT = 3.0
"""Standard deviation over a picture's cells (luma, 0..255) below which it shows nothing."""


def step_frames(fps: float) -> float:
    """Frames a step."""
    return max(1.0, fps / RATE)


def fingerprint(lumas: Iterable[np.ndarray], fps: float) -> str:
    """Base64 of a shot's steps.

    Args:
        lumas: uint8 (H, W), frame for frame.
        fps: their rate.
    """
    steps = itertools.groupby(enumerate(lumas), lambda numbered: numbered[0] // step_frames(fps))
    means = [np.mean([_cells(luma) for _, luma in step], axis=0) for _, step in steps]
    return base64.b64encode(b"".join(mean.round().astype(np.uint8).tobytes() for mean in means)).decode()


def steps_of(text: str) -> np.ndarray:
    """The steps of a fingerprint, uint8 (steps, cells).

    Raises:
        ValueError: it is none.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), np.uint8).reshape(-1, CELLS * CELLS)


def look(planes: np.ndarray) -> np.ndarray:
    """The cells of a frame, from its planes of yuv420p in the limited range, uint8 (3 H / 2, W): uint8 (8, 8)."""
    return look_of_luma(planes[: len(planes) * 2 // 3])


def look_of_luma(luma: np.ndarray) -> np.ndarray:
    """The same from the luma alone, uint8 (H, W)."""
    return ((_cells(luma) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)


def unit(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (..., cells) of mean 0 and variance 1, and the standard deviations (...) that they had."""
    centred = pictures - pictures.mean(-1, keepdims=True)
    contrast = np.sqrt(np.square(centred).mean(-1))
    return centred / np.maximum(contrast, 1e-6)[..., None], contrast


def agreement(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, float]:
    """How far aligned steps (T, cells) agree.

    A fixed camera gives the same picture to everything that happens before it, so that pictures alone are no evidence;
    neither are pictures that show nothing.

    Returns:
        The correlation of the pictures of each step (T,), nan where one is flat. And the correlation of what changes:
        of the pictures at unit variance, less their mean over time, flat steps left out; 0 where nothing changes.
    """
    (a, contrast_a), (b, contrast_b) = unit(one), unit(other)
    shown = np.minimum(contrast_a, contrast_b) >= FLAT
    pictures = np.where(shown, (a * b).mean(-1), np.nan)
    if not shown.any():
        return pictures, 0.0
    a, b = (x[shown] - x[shown].mean(0) for x in (a, b))
    power = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return pictures, float((a * b).sum()) / power if power > 1e-6 else 0.0


def _cells(luma: np.ndarray) -> np.ndarray:
    return cv2.resize(luma.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
