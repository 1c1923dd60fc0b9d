"""T2V-Turbo: VideoCrafter2 distilled to few steps, with the guidance scale as an input.

``scripts/convert.py t2v_turbo`` makes the checkpoint, of a low-rank update and VideoCrafter2's file (v1) or of a whole
denoiser (v2). It samples by consistency steps, and without VideoCrafter2's scale of the data.

In training the guidance is left out, as VideoDPO leaves it: the target is the noise in real footage, not what guidance
would make of it.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from regdpo.config.schema import Solver
from regdpo.core.errors import UserError
from regdpo.models.discrete_noise import TIMESTEPS, Consistency, alphas, noised
from regdpo.models.video_unet import guidance_embedding
from regdpo.models.videocrafter2 import VideoCrafter2


class T2VTurbo(VideoCrafter2):
    """A checkpoint with a ``VideoUNet`` that takes the guidance scale; v2's takes one of motion too."""

    name = "T2V-Turbo"
    sampler_name: ClassVar = "Consistency"
    takes_guidance: ClassVar = True
    other: ClassVar = "videocrafter2"

    @property
    def embeds_guidance(self) -> bool:
        return True

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noised(x0, noise, self._timestep(sigma), alphas(exact=False))

    def predict(self, transformer: nn.Module, x_t: Tensor, sigma: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        timesteps, config = self._timestep(sigma), self._transformer_config
        fps = torch.full_like(sigma, self.ref.fps, dtype=torch.float32)
        guidance = motion = None
        if "guidance" in inputs:
            guidance = guidance_embedding(inputs["guidance"], config["time_cond_proj_dim"])
            if width := config["motion_cond_proj_dim"]:
                motion = guidance_embedding(self._motion(timesteps), width)
        answer: Tensor = transformer(x_t, timesteps, inputs["text"].to(x_t.dtype), fps, guidance, motion)
        return answer

    def _motion(self, timesteps: Tensor) -> Tensor:
        """v2's second scale: the checkpoint's in the share of the timesteps that is noisiest, 0 after it."""
        scale, share = (float(self._sampling.get(name, 0.0)) for name in ("motion_guidance", "motion_share"))
        return torch.where(timesteps >= TIMESTEPS * (1 - share), scale, 0.0)

    def sampler(
        self, steps: int, shift: float | None, latent_shape: tuple[int, ...], solver: Solver = "checkpoint"
    ) -> Any:
        """Consistency steps, at most as many as the solver had that was distilled."""
        assert solver == "checkpoint", "the configuration is refused that asks a family for a solver it lacks"
        most = int(self._sampling.get("origin_steps", 200))
        if steps > most:
            raise UserError(f"sampling.steps: {self._location} takes at most {most}, got {steps}; 4 to 16 are usual")
        return Consistency(steps, most, self.device)
