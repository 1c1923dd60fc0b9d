"""Parts of a model that take turns on a device: one is there, the others wait in main memory.

A text encoder, an autoencoder and a denoiser (or two) need not fit together, only the largest with what it computes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Copy = Callable[[Tensor, torch.device, torch.dtype], Tensor]


def copied(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The tensor there; itself if it is there already."""
    return tensor.to(device, dtype)


class Turns:
    """The device, and who is on it.

    Weights stay in main memory and are copied when their turn comes, so leaving costs nothing. They must not be
    changed on the device.
    """

    def __init__(self, device: torch.device, copy: Copy = copied):
        self.device, self.copy = device, copy
        self.guest: tuple[tuple[nn.Module, ...], torch.dtype | None] = ((), None)
        self.homes: list[tuple[Tensor, Tensor]] = []

    def bring(self, *modules: nn.Module, dtype: torch.dtype | None = None) -> None:
        """Put modules on the device in the place of those that were there; nothing if they are there.

        Args:
            dtype: of their floating-point parameters while they are there; None for their own. Buffers keep theirs.
        """
        if self.guest == (modules, dtype):
            return
        self.clear()
        for module in modules:
            for parameter in module.parameters():
                self._move(parameter, dtype if dtype and parameter.is_floating_point() else parameter.dtype)
            for buffer in module.buffers():
                self._move(buffer, buffer.dtype)
        self.guest = (modules, dtype)

    def clear(self) -> None:
        """Free the device."""
        for tensor, home in reversed(self.homes):
            tensor.data = home
        self.homes, self.guest = [], ((), None)

    def _move(self, tensor: Tensor, dtype: torch.dtype) -> None:
        home = tensor.data
        self.homes.append((tensor, home))
        tensor.data = self.copy(home, self.device, dtype)
