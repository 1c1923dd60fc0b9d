"""Wan 2.2: the 5B model with a timestep for every token, and the 14B models with two experts.

The 5B model is given the first frame of image-to-video clean, at timestep 0, in the place of the first latent frame.
Of the 14B models ``transformer`` answers for sigmas from ``boundary_ratio`` upwards, ``transformer_2`` for those below.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from regdpo.core.errors import UserError
from regdpo.models.diffusers_family import TRAIN_TIMESTEPS, DiffusersFamily, keep_first, to_pixels
from regdpo.models.wan import Wan

PARTS = {"high": "transformer", "low": "transformer_2"}


class Experts(nn.Module):
    """Both experts as one denoiser."""

    def __init__(self, high: nn.Module, low: nn.Module, boundary: float):
        super().__init__()
        self.high, self.low, self.boundary = high, low, boundary

    def forward(self, timestep: Tensor, **inputs: Any) -> Any:
        return getattr(self, asked(timestep, self.boundary))(timestep=timestep, **inputs)


def asked(timestep: Tensor, boundary: float) -> Literal["high", "low"]:
    """Which expert answers for a batch's timesteps (B,), all on one side of the boundary."""
    noisy = timestep >= boundary
    assert noisy.all() or not noisy.any(), "a batch on both sides of the experts' boundary"
    return "high" if noisy.all() else "low"


class Wan22(Wan):
    """A diffusers checkpoint of Wan 2.2."""

    @property
    def part(self) -> str:  # type: ignore[override]
        return PARTS[self.ref.expert or "high"]

    def check(self) -> None:
        if self._two_experts and not self.ref.expert:
            raise UserError(f"base.expert: {self._location} has two experts; say which is trained, `high` or `low`")
        if self._two_experts and not self._index.get("boundary_ratio"):
            raise UserError(f"{self._location}: model_index.json gives no boundary_ratio for its two experts")
        DiffusersFamily.check(self)

    @property
    def in_channels(self) -> int:
        return self.channels if self._per_token else super().in_channels

    @property
    def sigma_range(self) -> tuple[float, float]:
        if not self.ref.expert:
            return 0.0, 1.0
        return (self._boundary, 1.0) if self.ref.expert == "high" else (0.0, self._boundary)

    def load_denoiser(self) -> nn.Module:
        trained = self.load_transformer()
        if not self.ref.expert:
            return trained
        other = "low" if self.ref.expert == "high" else "high"
        experts = {
            self.ref.expert: trained,
            other: self._load(self.transformer_class, PARTS[other], self._location),
        }
        return Experts(experts["high"], experts["low"], self._boundary * TRAIN_TIMESTEPS)

    def seat(self, denoiser: nn.Module, sigma: Tensor) -> None:
        """Of two experts the one that is asked."""
        if isinstance(denoiser, Experts):
            denoiser = getattr(denoiser, self.expert(sigma) or "high")
        super().seat(denoiser, sigma)

    def expert(self, sigma: Tensor) -> Literal["high", "low"] | None:
        if not self.ref.expert:
            return None
        return asked(sigma.float() * TRAIN_TIMESTEPS, self._boundary * TRAIN_TIMESTEPS)

    @torch.no_grad()
    def encode_first_frame(self, frame: Tensor, frames: int) -> dict[str, Tensor]:
        if self.ref.task == "t2v" or not self._per_token:
            return super().encode_first_frame(frame, frames)
        return {"first": self._encode(to_pixels(frame.unsqueeze(1)))}

    def example_inputs(self, latent_shape: tuple[int, ...]) -> dict[str, Tensor]:
        inputs, (channels, _, *size) = super().example_inputs(latent_shape), latent_shape
        if self._per_token and self.ref.task == "i2v":
            inputs["first"] = torch.empty(1, channels, 1, *size, device="meta")
        return inputs

    def predict(self, transformer: nn.Module, x_t: Tensor, sigma: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        if not self._per_token:
            return super().predict(transformer, x_t, sigma, inputs)
        x, timestep = keep_first(x_t, sigma.float() * TRAIN_TIMESTEPS, inputs, self.patch[1])
        return self._forward(transformer, x, timestep, inputs)

    @property
    def _per_token(self) -> bool:
        return bool(self._index.get("expand_timesteps"))

    @property
    def _two_experts(self) -> bool:
        return bool(self._index.get("transformer_2", [None])[0])

    @property
    def _boundary(self) -> float:
        return self._index["boundary_ratio"]
