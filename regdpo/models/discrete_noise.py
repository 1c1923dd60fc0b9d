"""The noise of VideoCrafter2 and T2V-Turbo: a thousand timesteps, and samplers whose steps draw noise.

``ā_t`` is the product of ``1 - β`` up to t, with β the squares of 1000 numbers evenly between sqrt(.00085) and
sqrt(.012). There is no terminal SNR of zero. VideoCrafter2 also multiplies the data by ``scales``.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

TIMESTEPS = 1000
FALL = 400
"""Timesteps after which the data's scale has fallen to its end."""


@cache
def alphas(exact: bool = True) -> Tensor:
    """(1000,) products, float64; VideoCrafter2's. T2V-Turbo makes them in float32 throughout (``exact=False``)."""
    if exact:
        betas = np.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS) ** 2
        return torch.from_numpy(np.cumprod(1 - betas))
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float32) ** 2, 0).double()


@cache
def scales(end: float = 0.7) -> Tensor:
    """(1000,), float64: what VideoCrafter2 multiplies data by. It falls from 1 in the first 400 timesteps and stays;
    the published file goes on to 1400, where no timestep leads."""
    falling, kept = torch.linspace(1, end, FALL, dtype=torch.float64), TIMESTEPS - FALL
    return torch.cat([falling, torch.full((kept,), end, dtype=torch.float64)])


def noised(x0: Tensor, noise: Tensor, timestep: Tensor, products: Tensor, scale: Tensor | None = None) -> Tensor:
    """``sqrt(ā) s x0 + sqrt(1 - ā) noise``, x0 (B, C, F, H, W), timestep (B,)."""
    at = timestep.cpu()
    signal = products[at].sqrt() * (1 if scale is None else scale[at])
    shape = (-1, *(1,) * (x0.dim() - 1))
    keep, add = (it.to(x0).view(shape) for it in (signal, (1 - products[at]).sqrt()))
    return keep * x0 + add * noise


class Sampler:
    """Steps that are given noise: ``draws`` says so.

    ``timesteps`` fall. ``step`` has the arguments of diffusers' schedulers, and noise of the shape of the latents.
    """

    draws = True

    def __init__(self, timesteps: list[int], device: torch.device | str = "cpu"):
        self.timesteps = torch.tensor(timesteps, device=device)
        self.places = {t: place for place, t in enumerate(timesteps)}

    def step(
        self, answer: Tensor, t: Tensor | int, latents: Tensor, noise: Tensor, return_dict: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The latents after the step, and the data that the answer predicts."""
        raise NotImplementedError

    def _data(self, answer: Tensor, latents: Tensor, alpha: float) -> Tensor:
        return (latents - (1 - alpha) ** 0.5 * answer) / alpha**0.5


class ScaledDDIM(Sampler):
    """DDIM (arXiv 2010.02502) over scaled data: what is predicted is divided by the scale of its timestep and goes on
    with that of the next.

    ``c = 1000 // steps`` and every c-th timestep from 1 on: 7 steps make 8. After the last one follows timestep 0, not
    clean data, with a scale of 1.

    Args:
        eta: the share of fresh noise, 0 to 1.
    """

    def __init__(self, steps: int, eta: float, device: torch.device | str = "cpu"):
        rising = list(range(1, TIMESTEPS, max(1, TIMESTEPS // steps)))
        super().__init__(rising[::-1], device)
        self.eta = eta
        self.before = dict(zip(rising, (0, *rising), strict=False))

    def step(
        self, answer: Tensor, t: Tensor | int, latents: Tensor, noise: Tensor, return_dict: bool = False
    ) -> tuple[Tensor, Tensor]:
        now = int(t)
        after = self.before[now]
        alpha, next_alpha = float(alphas()[now]), float(alphas()[after])
        spread = self.eta * ((1 - next_alpha) / (1 - alpha) * (1 - alpha / next_alpha)) ** 0.5
        data = self._data(answer, latents, alpha) / float(scales()[now])
        direction = (1 - next_alpha - spread**2) ** 0.5 * answer
        return next_alpha**0.5 * float(scales()[after]) * data + direction + spread * noise, data


class Consistency(Sampler):
    """T2V-Turbo's steps: to the data, and back by fresh noise to the next timestep (arXiv 2303.01469, algorithm 1). The
    last answers with the data.

    Args:
        steps: at most ``origin``. origin: timesteps of the solver that was distilled, of which those are taken.
    """

    def __init__(self, steps: int, origin: int, device: torch.device | str = "cpu"):
        every = [number * (TIMESTEPS // origin) - 1 for number in range(origin, 0, -1)]
        super().__init__(every[:: max(1, origin // steps)][:steps], device)

    def step(
        self, answer: Tensor, t: Tensor | int, latents: Tensor, noise: Tensor, return_dict: bool = False
    ) -> tuple[Tensor, Tensor]:
        now = int(t)
        products = alphas(exact=False)
        keep, take = boundary(now)
        data = take * self._data(answer, latents, float(products[now])) + keep * latents
        place = self.places[now]
        if place == len(self.timesteps) - 1:
            return data, data
        alpha = float(products[int(self.timesteps[place + 1])])
        return alpha**0.5 * data + (1 - alpha) ** 0.5 * noise, data


def boundary(timestep: int) -> tuple[float, float]:
    """Shares of the latents and of the predicted data in the answer of a consistency model: all latents at 0."""
    scaled, deviation = 10.0 * timestep, 0.5
    whole = scaled**2 + deviation**2
    return deviation**2 / whole, scaled / whole**0.5
