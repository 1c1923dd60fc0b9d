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
    luma -= luma.mean(dtype=np.float64)
    energy = 1.0
    for axis, length in enumerate(luma.shape):
        window = np.hanning(length + 2)[1:-1]
        energy *= float(np.square(window).sum())
        luma *= np.expand_dims(window.astype(np.float32), [other for other in range(3) if other != axis])
    time, height = (np.abs(np.fft.fftfreq(length)) for length in luma.shape[:2])
    temporal = np.digitize(time, OCTAVES, right=True)  # 0 is what stands still
    spatial = np.digitize(np.hypot(height[:, None], np.fft.rfftfreq(luma.shape[2])), OCTAVES, right=True).ravel()
    sizes = np.bincount(spatial, minlength=len(OCTAVES) + 1)
    sums, known = np.zeros((2, len(OCTAVES), len(OCTAVES) + 1))
    for band, plane in zip(temporal, rfftn(luma, overwrite_x=True), strict=True):
        sums[band] += np.bincount(spatial, np.square(np.abs(plane)).ravel(), minlength=len(OCTAVES) + 1)
        known[band] += sizes
    # The mean is no detail, and corners alone have frequencies beyond half a cycle a pixel.
    known[0, 0] = known[:, -1] = 0
    found: NDArray[np.float64] = sums[known > 0] / known[known > 0] / energy
    return found
