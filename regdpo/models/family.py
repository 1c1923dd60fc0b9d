"""What a model family must answer. Nobody else asks what model it is.

Shapes: B batch, C channels, F frames (video or latent), H and W pixels or latents, L text tokens, D text width.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from regdpo.config.schema import Solver
from regdpo.config.training import Lora
from regdpo.core.errors import UserError
from regdpo.core.store import Store
from regdpo.models.live import Need
from regdpo.models.registry import FAMILIES
from regdpo.models.spec import Autoencoding, ModelRef
from regdpo.models.tiling import Direction, to_bytes
from regdpo.models.turns import Turns
from regdpo.models.weights import Weights

Draw = Callable[[Tensor, Tensor], Tensor]
"""Mean and log variance of a posterior -> latents of it."""
AS_IT_IS = Autoencoding()
"""As the family and the device have it."""
UNLIMITED = 10**6
"""Frames that no clip has."""


class Family(ABC):
    """One architecture. An instance answers for one checkpoint and loads its parts when they are first asked for.

    ``inputs``, which the denoiser is given beside the noised latents, is what ``encode_text`` and
    ``encode_first_frame`` returned: tensors with the batch first, of any floating dtype. One key has a meaning outside
    the family: ``first`` holds the first latent frames (B, C, f, H', W') where those are given clean instead of being
    denoised; no error is measured on them, and sampling ends with them in place.

    The denoiser is a module with ``enable_gradient_checkpointing(run)``, after which it calls ``run(block, *inputs)``
    for each of its blocks, and with ``set_attention_backend(name)`` if ``flash``; diffusers' models have both.

    What a plan asks is answered from the JSON files of the checkpoint alone: ``latent_shape``, ``tokens``, ``layers``,
    ``heads``, ``width``, ``context``, ``most_frames``, ``empty_transformer``, ``blocks``, ``add_lora``,
    ``example_inputs``, ``predict``, ``tiled``, ``encoder_needs`` and ``autoencoder_need``.
    """

    text_length: ClassVar[int]
    """Tokens a caption is padded to, unless the configuration says otherwise."""
    flash: ClassVar[bool] = True
    """Whether the denoiser can be given an attention backend: not if it masks attention, or calls torch's itself."""
    tensor: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """How ranks split the denoiser's blocks (``regdpo.parallel.tensor.Plan``); empty where they cannot."""

    fills_up: ClassVar[bool] = False
    """Whether the denoiser fills up a sequence that the ranks which share it do not divide."""

    def __init__(
        self,
        ref: ModelRef,
        store: Store,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        autoencoding: Autoencoding = AS_IT_IS,
    ):
        self.ref, self.store, self.device, self.dtype, self.autoencoding = ref, store, device, dtype, autoencoding
        self.memory: float | None = None
        if device.type == "cuda":
            self.memory = torch.cuda.get_device_properties(device).total_memory
        self.turns = Turns(device)

    @abstractmethod
    def tiled(self, direction: Direction, frames: int, height: int, width: int) -> bool:
        """Whether a clip of so many frames and pixels is encoded or decoded in tiles."""

    def on_gpu(self, memory: float, autoencoding: Autoencoding) -> Self:
        """The family as it would be on a GPU of so many bytes, which need not be there, for what a plan asks."""
        it = copy(self)
        it.device, it.dtype, it.memory, it.autoencoding = torch.device("cuda"), torch.bfloat16, memory, autoencoding
        return it

    def encoder_needs(self, captions: int) -> dict[str, Need]:
        """What models that encode text and pictures need on the device, for so many captions and first frames, by what
        people call them; those of an entry are there together, one entry after another."""
        return {}

    def autoencoder_need(self, direction: Direction, frames: int, height: int, width: int, tiles: bool) -> Need | None:
        """What the autoencoder needs on the device for one clip; None where nothing is known of it."""
        return None

    def autoencoder_to_train(self, fresh: bool, decoder: bool) -> nn.Module:
        """A copy of the autoencoder in main memory and fp32, or with ``fresh`` one of new weights; with ``decoder`` its
        encoder's parameters take no gradients.

        Raises:
            UserError: it is one that is not trained here.
        """
        raise UserError(f"vae.train: the autoencoder of {self.ref.family} is not trained here")

    def window_frames(self, latents: int) -> int:
        """Frames that the autoencoder is trained to make so many latent frames of."""
        raise NotImplementedError

    def reconstruct(self, autoencoder: Any, pixels: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """A window of pixels (B, 3, F, H, W) in [-1, 1] through ``autoencoder_to_train``, with gradients: what comes
        back, which no clamp has cut, and mean and log variance of the posterior."""
        raise NotImplementedError

    def seat(self, denoiser: nn.Module, sigma: Tensor) -> None:
        """Have on the device what of a denoiser answers at sigma (B,), in the place of all else."""
        self.turns.bring(denoiser)

    @abstractmethod
    def check(self) -> None:
        """Raise UserError for a checkpoint that is not of this family, or not for the task, expert or text length."""

    def text_tokens(self, captions: Sequence[str]) -> list[int]:
        """Tokens that each caption takes, the marks at its ends included; of more than ``ref.text_length`` the text
        encoder does not read the rest. 0 from a family that does not say."""
        return [0] * len(captions)

    @abstractmethod
    def check_geometry(self, frames: int, height: int, width: int) -> None:
        """Raise UserError for a clip size that the checkpoint cannot take, naming the nearest that it can."""

    @abstractmethod
    def load_transformer(self) -> nn.Module:
        """The denoiser in ``dtype`` and in main memory, with the tuned transformer or adapters of ``ref`` if any."""

    def load_denoiser(self) -> nn.Module:
        """What sampling needs: the denoiser, joined by the other expert where there are two."""
        return self.load_transformer()

    @abstractmethod
    def empty_transformer(self, layers: tuple[int, ...] | None = None) -> nn.Module:
        """The denoiser's architecture on the meta device, in ``dtype``, from its configuration alone.

        Args:
            layers: blocks of each kind, in the place of the checkpoint's; none of a kind is possible.
        """

    @abstractmethod
    def weights(self) -> Weights:
        """The stored tensors of the denoiser, its adapters left out, by the names of ``empty_transformer``."""

    @abstractmethod
    def buffers(self) -> dict[str, Tensor]:
        """The denoiser's buffers by name, such as rotary tables, in main memory and as they are before any weights."""

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The sigmas that the trained denoiser answers for: all, or one expert's part."""
        return 0.0, 1.0

    @abstractmethod
    def save_transformer(self, state: dict[str, Tensor], folder: Path) -> None:
        """Write a full state dict in diffusers' layout."""

    @abstractmethod
    def add_lora(self, model: nn.Module, lora: Lora) -> None:
        """Add adapters that change nothing yet. Raise UserError for a target that no layer answers to."""

    @abstractmethod
    def save_lora(self, model: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
        """Write adapters as the family's diffusers pipeline loads them, with the same bytes in every process."""

    def stored_adapters(self) -> dict[str, Tensor]:
        """The adapters of ``ref`` as ``LAYER.lora_A.weight`` and ``LAYER.lora_B.weight``, of the right strength as they
        are (alpha = rank); none where it has none."""
        return {}

    def merge_adapters(self, folder: Path) -> None:
        """Write the denoiser with the adapters of ``ref`` merged into its weights, in fp32 and in diffusers' layout.

        Raises:
            UserError: the family cannot, or they do not fit.
        """
        raise UserError(f"base.family: adapters of {self.ref.family} cannot be merged; let them go on")

    @abstractmethod
    def blocks(self, transformer: nn.Module) -> list[nn.Module]:
        """The repeated blocks in the order in which they are run, the units of sharding and recomputation."""

    @property
    @abstractmethod
    def layers(self) -> tuple[int, ...]:
        """How many ``blocks`` of each kind the checkpoint has; those of a kind are alike and follow each other."""

    @abstractmethod
    def encode_video(self, frames: Tensor) -> Tensor:
        """uint8 (B, F, H, W, 3) -> normalised latents (B, C, F', H', W'), fp32; one video after another."""

    @abstractmethod
    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Normalised latents (1, C, F', H', W') -> (1, 3, F, H, W), fp32, with black at -1 and white at 1; they may be
        beyond that, and not finite where the latents or the decoder's numbers are not."""

    def decode_video(self, latents: Tensor) -> Tensor:
        """Normalised latents (B, C, F', H', W') -> uint8 (B, F, H, W, 3), one video after another."""
        return torch.cat([to_frames(self.decode_pixels(one)) for one in latents.split(1)])

    @abstractmethod
    def encode_text(self, captions: list[str]) -> dict[str, Tensor]:
        """Captions -> ``text`` (B, L, D), padded as the family's pipeline pads it, and what else the denoiser is given
        of them, such as ``text_mask`` (B, L)."""

    def encode_negative(self, prompts: list[str]) -> dict[str, Tensor]:
        """The same of what guidance leads away from, empty where the configuration leaves that to the family."""
        return self.encode_text(prompts)

    @abstractmethod
    def encode_first_frame(self, frame: Tensor, frames: int) -> dict[str, Tensor]:
        """uint8 (B, H, W, 3) -> what the denoiser is given of the first frame; empty for text-to-video."""

    def draws_of_first_frame(self, frame: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """What training draws from in the place of entries of ``encode_first_frame``, with a dimension for the draws
        after the batch: (B, n, ...); empty where the model was trained on clean first frames."""
        return {}

    @property
    @abstractmethod
    def compression(self) -> tuple[int, int]:
        """Frames and pixels a latent; the first frame has a latent of its own."""

    def most_frames(self, height: int, width: int) -> int:
        """The longest clip whose positions the denoiser knows; 0 if a single frame of that size is beyond them."""
        return UNLIMITED

    @abstractmethod
    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F', H', W') of a clip."""

    @property
    @abstractmethod
    def context(self) -> bool:
        """Whether ranks can share the denoiser's sequence by diffusers' plan for it."""

    @property
    @abstractmethod
    def heads(self) -> int:
        """Attention heads."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Of the denoiser's hidden states."""

    @abstractmethod
    def tokens(self, latent_shape: tuple[int, ...]) -> int:
        """The video's part of the denoiser's sequence, for latents (C, F', H', W')."""

    @abstractmethod
    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """The noised latents at sigma (B,)."""

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """What the denoiser is asked for."""

    @abstractmethod
    def predict(self, transformer: nn.Module, x_t: Tensor, sigma: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """The denoiser's answer, of the shape of ``x_t``; ``inputs`` are cast to its dtype."""

    @abstractmethod
    def example_inputs(self, latent_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """What ``predict`` is given as ``inputs`` with one clip of latents (C, F', H', W'), on the meta device: tensors
        of the shapes that ``encode_text`` and ``encode_first_frame`` return, such as ``text`` (1, L, D)."""

    def expert(self, sigma: Tensor) -> Literal["high", "low"] | None:
        """Which of two experts answers at sigma (B,); None of a denoiser without experts."""
        return None

    @property
    def embeds_guidance(self) -> bool:
        """Whether the denoiser takes the guidance scale as ``inputs["guidance"]`` (B,), which replaces classifier-free
        guidance."""
        return False

    def shift_of(self, latent_shape: tuple[int, ...]) -> float:
        """The shift of the sigmas of clips with latents (C, F', H', W'), of a family that has one for each size."""
        raise AssertionError("its declaration says that it has none")

    @abstractmethod
    def sampler(
        self, steps: int, shift: float | None, latent_shape: tuple[int, ...], solver: Solver = "checkpoint"
    ) -> Any:
        """A diffusers scheduler with its ``timesteps`` set, whose ``step`` is deterministic; or one that has ``draws``,
        whose ``step`` is given ``noise`` of the shape of the latents.

        Args:
            shift: of a flow's sigmas; None for the checkpoint's own. latent_shape: (C, F', H', W'), by which some
                checkpoints shift. solver: one of those that the family declares, or ``checkpoint`` for its own.
        """

    @abstractmethod
    def sigma_of(self, timestep: Tensor) -> Tensor:
        """The sigma of one of the sampler's timesteps."""


def to_frames(pixels: Tensor) -> Tensor:
    """(B, 3, F, H, W) in [-1, 1] -> uint8 (B, F, H, W, 3), in main memory."""
    frames = to_bytes(pixels).cpu()
    return frames.permute(0, 2, 3, 4, 1)


def family_class(name: str) -> type[Family]:
    """The class behind a family's name in the configuration."""
    module, _, attribute = FAMILIES[name].family.partition(":")
    return getattr(importlib.import_module(module), attribute)


def open_family(
    ref: ModelRef,
    store: Store,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    autoencoding: Autoencoding = AS_IT_IS,
) -> Family:
    """The family of a model, ready to load its parts."""
    return family_class(ref.family)(ref, store, device, dtype, autoencoding)
