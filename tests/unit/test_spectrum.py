"""The spectral distance, by what it must be for known changes of a video."""

import cv2
import numpy as np
import pytest

from regdpo.evaluate.spectrum import spectral_distance

RNG = np.random.default_rng(0)
WIDE = cv2.GaussianBlur(RNG.normal(0, 1, (64, 160)), (0, 0), 1.2)
WIDE = 60 * WIDE / np.abs(WIDE).max()


def video(frames: np.ndarray) -> np.ndarray:
    """(F, H, W) about 0 as a grey video."""
    return np.repeat(np.rint(128 + frames).clip(0, 255).astype(np.uint8)[..., None], 3, axis=3)


def moving(start: int = 0, step: int = 2, gain: float = 1.0) -> np.ndarray:
    return gain * np.stack([WIDE[:, start + step * n : start + step * n + 64] for n in range(8)])


REAL = video(moving())


def test_a_video_is_at_no_distance_from_itself():
    assert spectral_distance(REAL, REAL) == 0


def test_half_the_contrast_is_six_decibels():
    noise = RNG.integers(-30, 31, (8, 64, 64))
    found = spectral_distance(video(noise), video(2 * noise))
    assert found == pytest.approx(20 * np.log10(2), abs=0.02)


def test_white_noise_has_the_power_of_its_variance():
    noise = RNG.normal(0, 20, (8, 64, 64))
    grey = np.full((8, 64, 64), 0.0)
    expected = 10 * np.log10((20**2 + 2 / 12) / (1 / 12))
    assert spectral_distance(video(noise), video(grey)) == pytest.approx(expected, rel=0.02)


def test_another_place_is_nearer_than_another_look():
    elsewhere = spectral_distance(video(moving(start=70)), REAL)
    blurred = spectral_distance(video(np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in moving()])), REAL)
    still = spectral_distance(video(moving(step=0)), REAL)
    noisy = spectral_distance(video(moving() + RNG.normal(0, 12, (8, 64, 64))), REAL)
    assert elsewhere < min(blurred, still, noisy) / 2
