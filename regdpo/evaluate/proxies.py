"""Scores that need no weights: they say how a sample differs from the real continuation, not whether people like it."""

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from regdpo.core.progress import track
from regdpo.core.rows import REAL, SampleRow, ScoreRow
from regdpo.core.store import Store
from regdpo.data.video import read_stored
from regdpo.evaluate.measures import Given
from regdpo.evaluate.spectrum import spectral_distance


def measure(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``."""
    return score(list(given.samples), given.store)


def score(samples: list[SampleRow], store: Store) -> list[ScoreRow]:
    """Motion and sharpness of every sample, and how far it is from the real clip if it is not that itself.

    The first frame is left out of the spectrum, PSNR and SSIM: image-to-video is given it.
    """
    rows = []
    for sample in track(samples, "proxies", len(samples)):
        video = read_stored(store, sample.path, sample.sha256)
        values = {"motion": motion(video), "sharpness": sharpness(video)}
        if sample.model != REAL and sample.real:
            real = read_stored(store, sample.real, sample.real_sha256)
            values["spectrum"] = spectral_distance(video[1:], real[1:])
            values["psnr"] = peak_signal_noise_ratio(real[1:], video[1:], data_range=255)
            values["ssim"] = float(np.mean([_ssim(a, b) for a, b in zip(real[1:], video[1:], strict=True)]))
        rows += [row(sample.model, metric, sample.clip_id, sample.seed, value) for metric, value in values.items()]
    return rows


def row(model: str, metric: str, clip_id: str, seed: int, value: float) -> ScoreRow:
    """A score with the id that its parts make."""
    score_id = f"{model}|{metric}|{clip_id}|{seed}"
    return ScoreRow(score_id=score_id, model=model, metric=metric, clip_id=clip_id, seed=seed, value=float(value))


def motion(video: NDArray[np.uint8]) -> float:
    """Mean absolute difference of neighbouring frames, 0..255; video (F, H, W, 3)."""
    return float(np.abs(np.diff(video.astype(np.int16), axis=0)).mean())


def sharpness(video: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of luma, mean over frames; noise raises it as detail does."""
    return float(np.mean([cv2.Laplacian(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var() for f in video]))


def _ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return structural_similarity(a, b, data_range=255, channel_axis=2)
