"""LPIPS over AlexNet, version 0.1: how far two pictures are apart in a network's features (Zhang et al., The
Unreasonable Effectiveness of Deep Features as a Perceptual Metric, arXiv 1801.03924).

Its package is not needed: of AlexNet (Krizhevsky, One weird trick, arXiv 1404.5997) five convolutions are run, and what
follows is a weighted sum.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from regdpo.config.schema import Lpips as Settings
from regdpo.core.errors import UserError
from regdpo.core.packaged import weights_file
from regdpo.data.weight_files import tensors

KEY = "vae.lpips"
LAYERS = (
    (0, 3, 64, 11, 4, 2),
    (3, 64, 192, 5, 1, 2),
    (6, 192, 384, 3, 1, 1),
    (8, 384, 256, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)
"""Of torchvision's AlexNet: place in ``features``, channels in and out, kernel, stride, padding."""
POOLED = (3, 6)
"""Layers before which the largest of 3 x 3 is taken, every second."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of pixels in [-1, 1]: ImageNet's mean and standard deviation, as LPIPS has them."""
LEAST = 31
"""Pixels of a side, below which nothing is left to pool."""
EPSILON = 1e-10


class Lpips:
    """The distance, from the weights of both files.

    Raises:
        UserError: a file is not there, cannot be read or lacks weights of these shapes.
    """

    def __init__(self, settings: Settings, device: torch.device):
        read = {
            name: tensors(f"{KEY}.{name}", weights_file(f"{KEY}.{name}", path)) for name, path in settings.named.items()
        }
        self.device = device
        self.convolutions, self.heads = [], []
        for number, (place, given, made, kernel, _, _) in enumerate(LAYERS):
            part = f"features.{place}"
            weight = _of(read["network"], "network", f"{part}.weight", (made, given, kernel, kernel))
            bias = _of(read["network"], "network", f"{part}.bias", (made,))
            head = _of(read["heads"], "heads", f"lin{number}.model.1.weight", (1, made, 1, 1))
            self.convolutions.append((weight.to(device), bias.to(device)))
            self.heads.append(head.to(device))

    @torch.no_grad()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> float:
        """Mean over frames; both uint8 RGB (F, H, W, 3), of sides of at least ``LEAST``."""
        return float(np.mean([self._of_two(*both) for both in zip(first, second, strict=True)]))

    def _of_two(self, first: np.ndarray, second: np.ndarray) -> float:
        x = torch.from_numpy(np.stack([first, second])).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        shift, scale = (x.new_tensor(values).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        x, distance = (x - shift) / scale, x.new_zeros(())
        for (place, *_, stride, padding), (weight, bias), head in zip(
            LAYERS, self.convolutions, self.heads, strict=True
        ):
            x = F.max_pool2d(x, 3, 2) if place in POOLED else x
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            unit = x / (x.norm(dim=1, keepdim=True) + EPSILON)
            distance = distance + F.conv2d((unit[:1] - unit[1:]).square(), head).mean()
        return float(distance)


def _of(found: Mapping[str, Tensor], file: str, name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in found or found[name].shape != shape:
        got = tuple(found[name].shape) if name in found else "none"
        raise UserError(f"{KEY}.{file}: wants {name} of shape {shape}, got {got}; is it the file of AlexNet?")
    return found[name]
