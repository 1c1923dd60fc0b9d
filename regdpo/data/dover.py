"""How good a clip looks as footage, by DOVER (Wu et al., arXiv 2211.04894): a network of the whole picture for what is
liked, one of small pieces in full size for blur, noise and compression, and their fusion.

The file is what its repository's convert_to_onnx.py writes (https://github.com/VQAssessment/DOVER). Means, deviations
and the fusion are those of its evaluate_a_set_of_videos.py; its onnx_inference.py has the technical mean with the other
sign. Where pieces are taken is drawn there by chance, and here once for each size, so that a clip has one score.
"""

import math
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
from regdpo.data.judges import Judge

KEY = "clips.dover.model"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
LENGTH, STEP, CLIPS = 32, 2, 3
"""Frames of a view, and of the technical one every how many, and how many parts of the video."""
GRID, PIECE = 7, 32
"""Pieces in each direction, and pixels of a side of each; the aesthetic view is as large as all of them together."""
SIDE = GRID * PIECE
AESTHETIC, TECHNICAL = (0.1107, 0.07355, 0.6104), (0.08285, 0.03774, 0.3896)
"""Mean and deviation of each score over the authors' data, and its share in the fusion."""


class Dover(Judge):
    """The fused score, from 0 to 1.

    Args:
        settings: the model. store: where clips and scores are.

    Raises:
        UserError: the weights are not there, or nothing that runs them.
    """

    def __init__(self, settings: schema.Dover, store: Store):
        self._path = weights_file(KEY, settings.model)
        onnx_file.runtime(KEY)
        super().__init__(store, ("onnxruntime", "opencv-python-headless"), file_digest(self._path))

    def _score(self, frames: np.ndarray) -> float:
        first, second = self._session.get_inputs()
        parts = second.shape[0] if isinstance(second.shape[0], int) else CLIPS
        given = {first.name: aesthetic_view(frames), second.name: technical_view(frames, parts)}
        try:
            found = self._session.run(None, given)
        except onnx_file.errors() as error:
            raise UserError(f"{KEY}: {self._path} is no DOVER ({first_line(error)})") from None
        if len(found) != 2:
            raise UserError(f"{KEY}: {self._path} is no DOVER: it gives {len(found)} outputs and not two")
        return fused(*(float(np.mean(it)) for it in found))

    @cached_property
    def _session(self) -> Any:
        return onnx_file.load(KEY, self._path, [5, 5])


def fused(aesthetic: float, technical: float) -> float:
    """Both scores as one from 0 to 1."""
    halves = ((aesthetic, *AESTHETIC), (technical, *TECHNICAL))
    return 1 / (1 + math.exp(-sum(share * (score - mean) / deviation for score, mean, deviation, share in halves)))


def aesthetic_view(frames: np.ndarray) -> np.ndarray:
    """Frames spread over the clip, each whole, float32 (1, 3, LENGTH, SIDE, SIDE), of uint8 RGB (F, H, W, 3)."""
    shown = frames[np.linspace(0, len(frames) - 1, LENGTH).round().astype(int)]
    return normalised(np.stack([cv2.resize(frame, (SIDE, SIDE)) for frame in shown]))


def technical_view(frames: np.ndarray, parts: int = CLIPS) -> np.ndarray:
    """Pieces of every second frame of some parts of the clip, float32 (parts, 3, LENGTH, SIDE, SIDE).

    A clip that is too short begins anew; a picture that is smaller than the pieces together is enlarged.
    """
    height, width = frames.shape[1:3]
    scale = SIDE / min(height, width)
    if scale > 1:
        size = (max(SIDE, round(width * scale)), max(SIDE, round(height * scale)))
        frames = np.stack([cv2.resize(frame, size) for frame in frames])
        height, width = frames.shape[1:3]
    places = pieces(height, width)
    starts = np.linspace(0, max(len(frames) - LENGTH * STEP, 0), parts).round().astype(int)
    views = []
    for start in starts:
        shown = frames[(start + STEP * np.arange(LENGTH)) % len(frames)]
        view = np.empty((LENGTH, SIDE, SIDE, 3), np.uint8)
        for (row, column), (top, left) in places.items():
            there = np.s_[:, row * PIECE : (row + 1) * PIECE, column * PIECE : (column + 1) * PIECE]
            view[there] = shown[:, top : top + PIECE, left : left + PIECE]
        views.append(normalised(view))
    return np.concatenate(views)


def pieces(height: int, width: int) -> dict[tuple[int, int], tuple[int, int]]:
    """Cell of the grid -> top and left of its piece: the same for a size, anywhere in the cell."""
    draw = np.random.default_rng(0)
    found = {}
    for row in range(GRID):
        for column in range(GRID):
            corner = []
            for side, number in ((height, row), (width, column)):
                begin = side * number // GRID
                room = side * (number + 1) // GRID - begin - PIECE
                corner.append(min(begin + int(draw.integers(0, max(room, 0) + 1)), side - PIECE))
            found[row, column] = corner[0], corner[1]
    return found


def normalised(frames: np.ndarray) -> np.ndarray:
    """Uint8 RGB (F, H, W, 3) as the networks take them, float32 (1, 3, F, H, W)."""
    values: np.ndarray = (frames - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(values.transpose(3, 0, 1, 2)[None])
