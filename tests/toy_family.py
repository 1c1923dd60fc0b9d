"""A family of the tests' own, in plain torch and without any class of diffusers: pooled pixels for latents, letters for
text, two blocks of attention."""

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from regdpo.config.schema import Solver
from regdpo.config.training import Lora
from regdpo.core.errors import UserError
from regdpo.models.checkpoint_json import read_json
from regdpo.models.family import Family
from regdpo.models.registry import Declaration
from regdpo.models.sizes import check_size
from regdpo.models.tiling import Direction
from regdpo.models.weights import FILE, StoredWeights, Weights

DECLARED = Declaration("toy_family:Toy")
"""The one line: ``FAMILIES["toy"] = DECLARED``."""
CONFIG = {"layers": 2, "heads": 2, "width": 16}
CHANNELS, LETTERS = 3, 4  # of the latents; numbers that stand for a letter
COMPRESSION = (4, 8)


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Denoiser(nn.Module):
    def __init__(self, layers: int, heads: int, width: int):
        super().__init__()
        self.enter, self.leave = nn.Linear(CHANNELS, width), nn.Linear(width, CHANNELS)
        self.time, self.text = nn.Linear(1, width), nn.Linear(LETTERS, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.run: Any = lambda block, x: block(x)

    def enable_gradient_checkpointing(self, run: Any) -> None:
        self.run = run

    def forward(self, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        tokens = self.enter(x.flatten(2).transpose(1, 2)) + self.text(text).mean(1, keepdim=True)
        tokens = tokens + self.time(sigma.view(-1, 1, 1).to(x.dtype))
        for block in self.blocks:
            tokens = self.run(block, tokens)
        return self.leave(tokens).transpose(1, 2).unflatten(2, x.shape[2:])


class Euler:
    """Of a flow."""

    def __init__(self, steps: int):
        self.timesteps, self.steps = torch.linspace(1, 1 / steps, steps), steps

    def step(self, answer: Tensor, t: Tensor, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (latents - answer / self.steps,)


class Toy(Family):
    text_length = 8
    flash = False
    name: ClassVar[str] = "Toy"

    @property
    def folder(self) -> Path:
        return Path(self.ref.location(self.store), "transformer")

    @property
    def config(self) -> dict[str, int]:
        return read_json(self.folder / "config.json")

    def tiled(self, direction: Direction, frames: int, height: int, width: int) -> bool:
        return False

    def check(self) -> None:
        if self.ref.task != "t2v":
            raise UserError("base.task: Toy is for t2v alone")

    def check_geometry(self, frames: int, height: int, width: int) -> None:
        check_size(self.name, (frames, height, width), self.compression)

    def load_transformer(self) -> nn.Module:
        model = Denoiser(**self.config)
        own = self.store.existing(self.ref.transformer) if self.ref.transformer else self.folder
        model.load_state_dict(load_file(own / FILE))
        return model.to(self.dtype)

    def empty_transformer(self, layers: tuple[int, ...] | None = None) -> nn.Module:
        changed = {} if layers is None else {"layers": layers[0]}
        with torch.device("meta"):
            return Denoiser(**self.config | changed).to(self.dtype)

    def weights(self) -> Weights:
        return StoredWeights(self.store.existing(self.ref.transformer) if self.ref.transformer else self.folder)

    def buffers(self) -> dict[str, Tensor]:
        return {}

    def save_transformer(self, state: dict[str, Tensor], folder: Path) -> None:
        save_file(state, folder / FILE)

    def add_lora(self, model: nn.Module, lora: Lora) -> None:
        raise UserError("train.settings.tuning: Toy is tuned in full")

    def save_lora(self, model: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
        raise AssertionError("it has no adapters")

    def blocks(self, transformer: nn.Module) -> list[nn.Module]:
        return list(transformer.blocks)  # type: ignore[arg-type]

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.config["layers"],)

    def encode_video(self, frames: Tensor) -> Tensor:
        pixels = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        first = pixels[:, :, :1].expand(-1, -1, COMPRESSION[0] - 1, -1, -1)
        return F.avg_pool3d(torch.cat([first, pixels], 2), (COMPRESSION[0], COMPRESSION[1], COMPRESSION[1]))

    def decode_pixels(self, latents: Tensor) -> Tensor:
        temporal, spatial = COMPRESSION
        return F.interpolate(latents, scale_factor=(temporal, spatial, spatial))[:, :, temporal - 1 :]

    def text_tokens(self, captions):
        return [len(caption) for caption in captions]

    def encode_text(self, captions: list[str]) -> dict[str, Tensor]:
        letters = [caption.ljust(self.ref.text_length)[: self.ref.text_length].encode() for caption in captions]
        codes = torch.tensor([list(line[: self.ref.text_length]) for line in letters])
        return {"text": (codes.unsqueeze(-1) // torch.tensor([1, 4, 16, 64]) % 4).float()}

    def encode_first_frame(self, frame: Tensor, frames: int) -> dict[str, Tensor]:
        return {}

    @property
    def compression(self) -> tuple[int, int]:
        return COMPRESSION

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        temporal, spatial = COMPRESSION
        return CHANNELS, (frames - 1) // temporal + 1, height // spatial, width // spatial

    @property
    def context(self) -> bool:
        return False

    @property
    def heads(self) -> int:
        return self.config["heads"]

    @property
    def width(self) -> int:
        return self.config["width"]

    def tokens(self, latent_shape: tuple[int, ...]) -> int:
        return latent_shape[1] * latent_shape[2] * latent_shape[3]

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.view(-1, 1, 1, 1, 1).to(x0.dtype)
        return (1 - sigma) * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise - x0

    def predict(self, transformer: nn.Module, x_t: Tensor, sigma: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        return transformer(x_t, sigma, inputs["text"].to(x_t.dtype))

    def example_inputs(self, latent_shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"text": torch.empty(1, self.ref.text_length, LETTERS, device="meta")}

    def sampler(
        self, steps: int, shift: float | None, latent_shape: tuple[int, ...], solver: Solver = "checkpoint"
    ) -> Any:
        return Euler(steps)

    def sigma_of(self, timestep: Tensor) -> Tensor:
        return timestep


def save(folder: Path) -> None:
    """A checkpoint with random weights, in the layout that a base model has."""
    torch.manual_seed(0)
    for part, values in {"model_index.json": {}, "vae/config.json": {}, "transformer/config.json": CONFIG}.items():
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).write_text(json.dumps(values))
    save_file(Denoiser(**CONFIG).state_dict(), folder / "transformer" / FILE)
