"""Scores of clips that need weights: what all of them share.

They are asked of clips that have been encoded, and kept in the store by the bytes of the clip, of the weights and the
code, so that another threshold asks no model.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regdpo.core.code_digest import code_digest
from regdpo.core.digests import DigestCache, folder_digest, text_digest
from regdpo.core.environment import versions
from regdpo.core.rows import ClipRow
from regdpo.core.store import DIGESTS, Store
from regdpo.data.notes import recall, remember
from regdpo.data.video import read_stored
from regdpo.runtime.hub import download

if TYPE_CHECKING:
    import torch

FOLDER = "judged"
"""Of the store, where what they say is kept."""


class Judge(ABC):
    """What scores clips.

    Args:
        store: where clips and scores are. packages: that shape the score. what: digests of all else that does.
    """

    def __init__(self, store: Store, packages: Sequence[str], *what: str):
        self.store = store
        self._key = text_digest(code_digest(type(self).__module__), versions(*packages, "av"), *what)

    def __call__(self, clip: ClipRow) -> Any:
        """What is said of a clip, from the store or the model: a score, or text for a column of its row.

        Raises:
            UserError: the weights cannot be loaded.
        """
        kept = self.store.relative(FOLDER, text_digest(self._key, clip.sha256), ".json")
        found = recall(self.store, kept)
        if found is None:
            found = self._score(_frames(self.store, clip.path, clip.sha256))
            found = round(found, 4) if isinstance(found, float) else found
            remember(self.store, kept, found)
        return found

    @abstractmethod
    def _score(self, frames: np.ndarray) -> Any:
        """Of uint8 RGB (F, H, W, 3); what JSON can hold."""


@lru_cache(maxsize=1)
def _frames(store: Store, path: str, sha256: str) -> np.ndarray:
    """Of the clip that was asked for last, whom several judge."""
    return read_stored(store, path, sha256)


def some(frames: np.ndarray, count: int) -> np.ndarray:
    """So many frames from within a clip, evenly spread, or all if it has fewer."""
    count = min(count, len(frames))
    return frames[np.linspace(0, len(frames) - 1, count + 2).round().astype(int)[1:-1]]


def model_folder(key: str, model: str, revision: str | None) -> Path:
    """Where a model of the hub or a local one is; it is downloaded now, before the first video is read.

    Raises:
        UserError: it cannot be had.
    """
    return Path(model) if Path(model).is_dir() else download(key, model, revision)


def seen(
    frames: np.ndarray,
    scaled: int | tuple[int, int],
    cropped: tuple[int, int] | None,
    mean: Sequence[float],
    std: Sequence[float],
) -> "torch.Tensor":
    """What a model of pictures sees of uint8 RGB (F, H, W, 3), float32 (F, 3, height, width).

    Args:
        scaled: bicubic, to so many pixels of the shorter side, or to this height and width.
        cropped: height and width of the middle that is taken.
        mean, std: of each channel, of values from 0 to 1.
    """
    import torch

    values = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    height, width = values.shape[2:]
    shape = scaled
    if isinstance(shape, int):
        scale = shape / min(height, width)
        shape = max(shape, int(height * scale)), max(shape, int(width * scale))  # as transformers rounds
    values = torch.nn.functional.interpolate(values, list(shape), mode="bicubic", antialias=True).round().clamp(0, 255)
    if cropped:
        top, left = (shape[0] - cropped[0]) // 2, (shape[1] - cropped[1]) // 2
        values = values[:, :, top : top + cropped[0], left : left + cropped[1]]
    return (values / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def model_digest(model: str, revision: str | None, store: Store) -> str:
    """Of a hub name, which is pinned, or of a folder's content."""
    if not Path(model).is_dir():
        return f"{model}@{revision}"
    cache = DigestCache(store.root / DIGESTS)
    found = folder_digest(model, cache)
    cache.save()
    return found
