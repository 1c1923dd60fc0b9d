"""How far a video's power spectrum is from the real clip's: detail and motion, whatever the picture shows."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfftn

OCTAVES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Ends of the bands, in cycles a pixel and in cycles a frame."""
ROUNDING = 1 / 12
"""Variance of what is lost as pixels are rounded to whole numbers: power below it cannot be seen."""


def spectral_distance(video: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    """Log-spectral distance in dB: the root mean square of the difference of powers, over bands of space and time.

    The distance is that of speech processing (Gray and Markel, Distance measures for speech processing, 1976). Blur and
    stillness lack power, noise and flicker have too much, and both count. Where things are does not count, so another
    future of the same scene is not punished.

    Args:
        video: (F, H, W, 3). real: the same shape.
    """
    ours, theirs = _bands(video), _bands(real)
    return float(np.sqrt(np.mean((10 * np.log10((ours + ROUNDING) / (theirs + ROUNDING))) ** 2)))


def _bands(video: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean power of luma in each band that has any frequency, under Hann's window, so that edges are no detail."""
    luma = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]).astype(np.float32)
    window = np.ones((1, 1, 1), np.float32)
    for axis, length in enumerate(luma.shape):
        shape = [1, 1, 1]
        shape[axis] = length
        window = window * np.hanning(length + 2)[1:-1].reshape(shape).astype(np.float32)
    power = np.abs(rfftn((luma - luma.mean()) * window)) ** 2 / np.square(window).sum()
    time, height = (np.abs(np.fft.fftfreq(length)) for length in luma.shape[:2])
    width = np.fft.rfftfreq(luma.shape[2])
    spatial = np.digitize(np.hypot(height[:, None], width[None]), OCTAVES, right=True)
    temporal = np.digitize(time, OCTAVES, right=True)  # 0 is what stands still
    band = (len(OCTAVES) + 1) * temporal[:, None, None] + spatial[None]
    band = np.where(spatial[None] < len(OCTAVES), band, 0)  # beyond half a cycle a pixel there are corners only
    band[0, 0, 0] = 0
    known = np.bincount(band.ravel())
    known[0] = 0
    sums = np.bincount(band.ravel(), power.ravel())
    found: NDArray[np.float64] = sums[known > 0] / known[known > 0]
    return found
