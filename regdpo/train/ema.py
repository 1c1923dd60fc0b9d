"""An exponential average of the trained weights, sharded as they are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def ramped(decay: float, step: int) -> float:
    """The decay at a step (counted from 1): ``min(decay, step / (step + 9))``, and 0 at the first, so that the
    untrained start has no share in the average. Source: diffusers' ``EMAModel.get_decay`` with its defaults."""
    return min(decay, step / (step + 9)) if step > 1 else 0.0


class Ema:
    """``average = d * average + (1 - d) * weights`` after every step, d ramping up to ``decay``."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float):
        self.parameters, self.decay = parameters, decay
        self.average: dict[str, Tensor] = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step (counted from 1)."""
        for name, parameter in self.parameters.items():
            self.average[name].lerp_(parameter.detach(), 1 - ramped(self.decay, step))

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The model with the average for its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            weights = parameter.detach().clone()
            parameter.copy_(self.average[name])
            self.average[name].copy_(weights)


class Average(Ema):
    """Of the weights after every so many steps: ``sum(decay^(n-k) w_k) / sum(decay^(n-k))``, k = 1 ... n; kept as it
    grows, so that no earlier weights are. MUG-V's average of checkpoints (arXiv 2510.17519), whose coefficients it does
    not give."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float, every: int):
        super().__init__(parameters, decay)
        self.every = every

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step (counted from 1), if it is one of those."""
        if step % self.every:
            return
        share = 1 / sum(self.decay**age for age in range(step // self.every))
        for name, parameter in self.parameters.items():
            self.average[name].lerp_(parameter.detach(), share)
