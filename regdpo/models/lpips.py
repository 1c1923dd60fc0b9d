"""LPIPS over AlexNet, version 0.1: how far two pictures are apart in a network's features (Zhang et al., The
Unreasonable Effectiveness of Deep Features as a Perceptual Metric, arXiv 1801.03924), as a module with gradients.

Its package is not needed: of AlexNet (Krizhevsky, One weird trick, arXiv 1404.5997) five convolutions are run, and what
follows is a weighted sum.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regdpo.core.errors import UserError

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
EPSILON = 1e-10


class Distance(nn.Module):
    """Of two pictures each, (N, 3, H, W) in [-1, 1] with sides of at least 31 pixels -> (N,). Its weights are fixed.

    Args:
        network, heads: the tensors of both files of weights.

    Raises:
        UserError: weights of these shapes are lacking.
    """

    def __init__(self, network: Mapping[str, Tensor], heads: Mapping[str, Tensor]):
        super().__init__()
        self.convolutions, self.heads = nn.ParameterList(), nn.ParameterList()
        for number, (place, given, made, kernel, _, _) in enumerate(LAYERS):
            part = f"features.{place}"
            self.convolutions.append(_of(network, "network", f"{part}.weight", (made, given, kernel, kernel)))
            self.convolutions.append(_of(network, "network", f"{part}.bias", (made,)))
            self.heads.append(_of(heads, "heads", f"lin{number}.model.1.weight", (1, made, 1, 1)))
        self.requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        x = torch.cat([first, second])
        shift, scale = (x.new_tensor(values).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        x, distance = (x - shift) / scale, x.new_zeros(len(first))
        for number, ((place, *_, stride, padding), head) in enumerate(zip(LAYERS, self.heads, strict=True)):
            weight, bias = self.convolutions[2 * number], self.convolutions[2 * number + 1]
            x = F.max_pool2d(x, 3, 2) if place in POOLED else x
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            one, other = (x / (x.norm(dim=1, keepdim=True) + EPSILON)).chunk(2)
            distance = distance + F.conv2d((one - other).square(), head).mean((1, 2, 3))
        return distance


def empty() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """``network`` and ``heads`` of a ``Distance`` whose weights do not matter."""
    network, heads = {}, {}
    for number, (place, given, made, kernel, _, _) in enumerate(LAYERS):
        network[f"features.{place}.weight"] = torch.empty(made, given, kernel, kernel)
        network[f"features.{place}.bias"] = torch.empty(made)
        heads[f"lin{number}.model.1.weight"] = torch.empty(1, made, 1, 1)
    return network, heads


def _of(found: Mapping[str, Tensor], file: str, name: str, shape: tuple[int, ...]) -> nn.Parameter:
    if name not in found or found[name].shape != shape:
        got = tuple(found[name].shape) if name in found else "none"
        raise UserError(f"{KEY}.{file}: wants {name} of shape {shape}, got {got}; is it the file of AlexNet?")
    return nn.Parameter(found[name], requires_grad=False)
