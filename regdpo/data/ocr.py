"""How much of the picture text covers, by a detector of text: differentiable binarization (arXiv 1911.08947), as
PaddleOCR's detectors are. It sees text on a box of its own and over a fixed camera's picture too.
"""

from functools import cached_property
from typing import Any

import cv2
import numpy as np

from regdpo.config import schema
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError, first_line
from regdpo.core.packaged import weights_file
from regdpo.core.store import Store
from regdpo.data import onnx_file
from regdpo.data.judges import Judge, some

KEY = "clips.ocr.model"

SHORT_SIDE = 736
"""Most pixels of the shorter side that the detector sees, as in RapidOCR (https://github.com/RapidAI/RapidOCR) ..."""

MULTIPLE = 32
"""... and what both sides are multiples of."""

LEAST, SURE = 0.3, 0.5
"""Probability from which on a pixel is text, and the mean of a region from which on it counts: RapidOCR's."""

SHRUNK = 1.6
"""Area over outline of a region, times this, is how far its text reaches beyond it: section 3.4 of the paper, with
RapidOCR's factor."""

THIN, TALL = 3, 0.2
"""Pixels of a region's shorter side below which it is none, and the share of the picture's shorter side above which it
is no line of text: of a blurred picture detectors take the whole for text."""


class Ocr(Judge):
    """The share of the picture that text covers, median over some frames.

    Args:
        settings: the model. store: where clips and scores are.

    Raises:
        UserError: the weights are not there, or nothing that runs them.
    """

    def __init__(self, settings: schema.Ocr, store: Store):
        self.settings, self._path = settings, weights_file(KEY, settings.model)
        onnx_file.runtime(KEY)
        packages = ("onnxruntime", "opencv-python-headless")
        super().__init__(store, packages, file_digest(self._path), str(settings.frames))

    def _score(self, frames: np.ndarray) -> float:
        return float(np.median([covered(it) for it in self.regions(some(frames, self.settings.frames))]))

    def regions(self, frames: np.ndarray) -> np.ndarray:
        """The probability of text at each pixel, float32 (F, h, w), of uint8 RGB (F, H, W, 3).

        Raises:
            UserError: the file is no such detector.
        """
        try:
            (found, *_) = self._session.run(None, {self._session.get_inputs()[0].name: pixels(frames)})
        except onnx_file.errors() as error:
            raise UserError(f"{KEY}: {self._path} is no detector of text ({first_line(error)})") from None
        if found.ndim != 4 or found.shape[:2] != (len(frames), 1):
            raise UserError(f"{KEY}: {self._path} is no detector of text: it gives {found.shape}")
        return np.asarray(found[:, 0], np.float32)

    @cached_property
    def _session(self) -> Any:
        return onnx_file.load(KEY, self._path, [4])


def pixels(frames: np.ndarray) -> np.ndarray:
    """What the detector sees of uint8 RGB (F, H, W, 3): BGR from -1 to 1, float32 (F, 3, h, w). Pictures are made
    smaller, never larger: in enlarged ones it takes everything for text."""
    height, width = frames.shape[1:3]
    scale = min(1.0, SHORT_SIDE / min(height, width))
    size = [max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (width, height)]
    shown = np.stack([cv2.resize(frame, size) for frame in frames])
    values: np.ndarray = (shown[..., ::-1].astype(np.float32) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def covered(text: np.ndarray) -> float:
    """The share of a picture that regions of text cover, each as the rectangle around it.

    Args:
        text: the probability at each pixel, float32 (H, W).
    """
    regions = (text > LEAST).astype(np.uint8)
    whole = np.zeros_like(regions)
    for outline in cv2.findContours(regions, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
        middle, (wide, high), turned = cv2.minAreaRect(outline)
        inside = cv2.fillPoly(np.zeros_like(regions), [outline], 1)
        tall = min(wide, high) > TALL * min(text.shape)
        if tall or min(wide, high) < THIN or cv2.mean(text, inside)[0] < SURE:
            continue
        beyond = SHRUNK * wide * high / (2 * (wide + high))
        corners = cv2.boxPoints((middle, (wide + 2 * beyond, high + 2 * beyond), turned))
        cv2.fillPoly(whole, [corners.round().astype(np.int32)], 1)
    return float(whole.mean())
