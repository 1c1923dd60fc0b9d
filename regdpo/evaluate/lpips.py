"""LPIPS of a clip and what is given back of it."""

import numpy as np
import torch

from regdpo.config.schema import Lpips as Settings
from regdpo.core.packaged import weights_file
from regdpo.data.weight_files import tensors
from regdpo.models.lpips import KEY, Distance


class Lpips:
    """The distance, from the weights of both files.

    Raises:
        UserError: a file is not there, cannot be read or lacks weights of these shapes.
    """

    def __init__(self, settings: Settings, device: torch.device):
        read = {
            name: tensors(f"{KEY}.{name}", weights_file(f"{KEY}.{name}", path)) for name, path in settings.named.items()
        }
        self.distance = Distance(read["network"], read["heads"]).to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> float:
        """Mean over frames; both uint8 RGB (F, H, W, 3), of sides of at least ``LEAST``."""
        return float(np.mean([self._of_two(*both) for both in zip(first, second, strict=True)]))

    def _of_two(self, first: np.ndarray, second: np.ndarray) -> float:
        x = torch.from_numpy(np.stack([first, second])).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        return float(self.distance(*x.split(1)))
