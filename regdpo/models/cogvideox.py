"""CogVideoX (1.0 and 1.5): text-to-video and image-to-video, v-prediction over a discrete diffusion."""

from functools import cached_property
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Tensor, nn

from regdpo.config.schema import Solver
from regdpo.core.errors import UserError
from regdpo.models.diffusers_family import DiffusersFamily, to_pixels

NOISE_DRAWS = 4  # encodings of a first frame with noise, to draw from in training
OFFSET = 2.0
"""What 1.5's image-to-video model is given as ``ofs``."""


class CogVideoX(DiffusersFamily):
    """A diffusers checkpoint with a ``CogVideoXTransformer3DModel``.

    With a(t) the product of alphas of the checkpoint's scheduler (0 at the last timestep), ``x_t = sqrt(a) x0 +
    sqrt(1 - a) noise`` and the target is ``v = sqrt(a) noise - sqrt(1 - a) x0`` (arXiv 2202.00512, appendix D). The T
    timesteps divide (0, 1) evenly: sigma belongs to ``t = floor(T sigma)``, and t has ``sigma = (t + 1/2) / T``.
    """

    name = "CogVideoX"
    text_length = 226
    flash = False
    transformer_class = CogVideoXTransformer3DModel
    pipeline_class = CogVideoXPipeline
    text_width = "text_embed_dim"
    autoencoders: ClassVar = {"AutoencoderKLCogVideoX": AutoencoderKLCogVideoX}

    def check_scheduler(self) -> None:
        kind = self._scheduler.config.prediction_type
        if kind != "v_prediction":
            raise UserError(f"{self._location}: its scheduler says {kind}, CogVideoX is trained for v_prediction")

    def check_geometry(self, frames: int, height: int, width: int) -> None:
        super().check_geometry(frames, height, width)
        config, side = self._transformer_config, self.compression[1]
        wanted = (config["sample_height"] * side, config["sample_width"] * side)
        if config["use_learned_positional_embeddings"] and (height, width) != wanted:
            raise UserError(
                f"clips.height, clips.width: {self._location} knows positions of {wanted[0]} x {wanted[1]} alone, "
                f"got {height} x {width}"
            )

    @property
    def in_channels(self) -> int:
        """For image-to-video the first frame's latents, followed by zeros, are stacked on the noised latents."""
        return 2 * self.channels if self.ref.task == "i2v" else self.channels

    @property
    def demanded_text_length(self) -> int | None:
        """That of the transformer where positions are added to text and video together."""
        config = self._transformer_config
        added = not config["use_rotary_positional_embeddings"] or config["use_learned_positional_embeddings"]
        return config["max_text_seq_length"] if added else None

    def example_inputs(self, latent_shape: tuple[int, ...]) -> dict[str, Tensor]:
        channels, _, *size = latent_shape
        return super().example_inputs((channels, 1, *size))  # the condition is one frame, which ``predict`` pads

    @torch.no_grad()
    def encode_first_frame(self, frame: Tensor, frames: int) -> dict[str, Tensor]:
        if self.ref.task == "t2v":
            return {}
        return {"condition": self._condition(to_pixels(frame.unsqueeze(1)))}

    @torch.no_grad()
    def draws_of_first_frame(self, frame: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Pixels in [-1, 1] with noise of standard deviation exp(N(-3, 1/2)), as the model was trained (CogVideoX's own
        finetuning code, ``add_noise_to_first_frame``; arXiv 2408.06072). Noise goes through the autoencoder, which
        training does not have, so some draws are encoded for it to choose from."""
        if self.ref.task == "t2v":
            return {}
        pixels = to_pixels(frame.unsqueeze(1))
        draws = []
        for _ in range(NOISE_DRAWS):
            deviation = torch.exp(0.5 * torch.randn(len(pixels), 1, 1, 1, 1, generator=generator) - 3)
            noise = torch.randn(pixels.shape, generator=generator)
            draws.append(self._condition(pixels + (deviation * noise).to(pixels)))
        return {"condition": torch.stack(draws, dim=1)}

    def _condition(self, pixels: Tensor) -> Tensor:
        """The latents of one frame, (B, C, 1, H', W')."""
        first = self._encode(pixels)
        if self._vae_config["invert_scale_latents"]:  # 1.5 was trained on conditions divided by the factor
            first = first / self._vae_config["scaling_factor"] ** 2
        return first

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return self._scheduler.add_noise(x0, noise, self._timestep(sigma))

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return self._scheduler.get_velocity(x0, noise, self._timestep(sigma))

    def predict(self, transformer: nn.Module, x_t: Tensor, sigma: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        parts = [x_t]
        if "condition" in inputs:
            left = x_t.shape[2] - inputs["condition"].shape[2]
            parts.append(nn.functional.pad(inputs["condition"].to(x_t.dtype), (0, 0, 0, 0, 0, left)))
        ofs = x_t.new_full((1,), OFFSET) if self._transformer_config["ofs_embed_dim"] else None
        answer = transformer(
            hidden_states=torch.cat(parts, dim=1).transpose(1, 2),  # (B, F', C, H', W')
            encoder_hidden_states=inputs["text"].to(x_t.dtype),
            timestep=self._timestep(sigma),
            ofs=ofs,
            image_rotary_emb=self._rotary(x_t),
            return_dict=False,
        )[0]
        return answer.transpose(1, 2)

    def sampler(
        self, steps: int, shift: float | None, latent_shape: tuple[int, ...], solver: Solver = "checkpoint"
    ) -> Any:
        """DDIM, also for checkpoints that name the DPM scheduler, whose timesteps are the same and whose steps draw
        noise. There is no shift, and no other solver."""
        assert solver == "checkpoint", "the configuration is refused that asks a family for a solver it lacks"
        scheduler = CogVideoXDDIMScheduler.from_config(self._scheduler.config)
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    def sigma_of(self, timestep: Tensor) -> Tensor:
        return (timestep + 0.5) / self._scheduler.config.num_train_timesteps

    def _timestep(self, sigma: Tensor) -> Tensor:
        return (sigma.float() * self._scheduler.config.num_train_timesteps).long()

    def _rotary(self, x_t: Tensor) -> Any:
        """The rotary tables (cosines, sines); 1.0 scales the grid to that of its training, 1.5 cuts from it."""
        config = self._transformer_config
        if not config["use_rotary_positional_embeddings"]:
            return None
        long, wide = self.patch
        grid = (x_t.shape[3] // wide, x_t.shape[4] // wide)
        base = (config["sample_height"] // wide, config["sample_width"] // wide)
        if config["patch_size_t"] is None:
            region: dict[str, Any] = {"crops_coords": get_resize_crop_region_for_grid(grid, base[1], base[0])}
        else:
            region = {"crops_coords": None, "grid_type": "slice", "max_size": base}
        return get_3d_rotary_pos_embed(
            config["attention_head_dim"],
            grid_size=grid,
            temporal_size=x_t.shape[2] // long,
            device=x_t.device,
            **region,
        )

    @cached_property
    def _scheduler(self) -> Any:
        return CogVideoXDDIMScheduler.from_config(self._config(CogVideoXDDIMScheduler, "scheduler"))
