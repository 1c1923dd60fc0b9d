"""How pleasing people would find frames of a clip, by LAION's aesthetic predictors: CLIP's embedding of the picture,
and a head over it (https://github.com/LAION-AI/aesthetic-predictor,
https://github.com/christophschuhmann/improved-aesthetic-predictor).

The head is any chain of linear layers, such as the predictors' single one and their five with dropout between.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regdpo.config import schema
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError, first_line
from regdpo.core.packaged import weights_file
from regdpo.core.store import Store
from regdpo.data.judges import Judge, model_digest, model_folder, seen, some
from regdpo.data.weight_files import tensors
from regdpo.runtime.hub import BROKEN

if TYPE_CHECKING:
    import torch

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on: https://github.com/openai/CLIP."""

KEY = "clips.aesthetic"


class Aesthetic(Judge):
    """The mean score of some frames of a clip; the predictors were trained on votes from 1 to 10.

    Args:
        settings: the models. store: where clips and scores are.

    Raises:
        UserError: a file of the weights is not there.
    """

    def __init__(self, settings: schema.Aesthetic, store: Store):
        self.settings = settings
        self._head = weights_file(f"{KEY}.head", settings.head)
        self._folder = model_folder(f"{KEY}.model", settings.model, settings.revision)
        model = model_digest(settings.model, settings.revision, store)
        super().__init__(store, ("torch", "transformers"), model, file_digest(self._head), str(settings.frames))

    def _score(self, frames: np.ndarray) -> float:
        """Of uint8 RGB (F, H, W, 3)."""
        import torch

        model, layers = self._loaded
        shown = some(frames, self.settings.frames)
        with torch.inference_mode():
            size = model.config.vision_config.image_size
            seen = model.vision_model(pixel_values=pixels(shown, size).to(model.device))
            values = model.visual_projection(seen.pooler_output)
            values = values / values.norm(dim=-1, keepdim=True)
            for weight, bias in layers:
                values = torch.nn.functional.linear(values, weight, bias)
        return float(values.mean())

    @cached_property
    def _loaded(self) -> tuple[Any, "list[tuple[torch.Tensor, torch.Tensor | None]]"]:
        import torch
        from transformers import CLIPModel

        name = self.settings.model
        clip: Any = CLIPModel
        try:
            model, told = clip.from_pretrained(
                self._folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except BROKEN as error:
            raise UserError(f"{KEY}.model: {name} cannot be loaded ({first_line(error)})") from None
        if lacking := sorted(told["missing_keys"]):
            raise UserError(f"{KEY}.model: {name} lacks {len(lacking)} tensors of a CLIP, such as {lacking[0]}")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        layers = read_head(self._head, model.config.projection_dim)
        return model.eval().to(device), [
            (weight.to(device), None if bias is None else bias.to(device)) for weight, bias in layers
        ]


def pixels(frames: np.ndarray, size: int) -> "torch.Tensor":
    """What CLIP sees of uint8 RGB (F, H, W, 3): the middle, its shorter side scaled to so many pixels; float32 (F, 3,
    size, size)."""
    return seen(frames, size, (size, size), MEAN, STD)


def read_head(path: Path, width: int) -> "list[tuple[torch.Tensor, torch.Tensor | None]]":
    """Weights and biases of a chain of linear layers, in the order of their names' numbers.

    Args:
        path: a safetensors file, or one of torch. width: of the embedding.

    Raises:
        UserError: it is no such chain from the embedding to one number.
    """
    found = tensors(f"{KEY}.head", path)
    names = [name for name, it in found.items() if it.ndim == 2]
    names.sort(key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    layers = [(found[name], found.get(f"{name.removesuffix('weight')}bias")) for name in names]
    widths = [width, *(len(weight) for weight, _ in layers)]
    if (
        not layers
        or widths[-1] != 1
        or any(weight.shape[1] != w for (weight, _), w in zip(layers, widths, strict=False))
    ):
        shapes = ", ".join(f"{name} {tuple(found[name].shape)}" for name in names) or "no matrix"
        raise UserError(
            f"{KEY}.head: {path} is no chain of linear layers from an embedding of {width} numbers to one ({shapes}); "
            "the predictor has to be the one for this CLIP"
        )
    return layers
