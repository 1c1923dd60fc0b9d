"""What a clip shows as one vector, by a model of pictures: CLIP (arXiv 2103.00020), SigLIP (2303.15343), DINOv2
(2304.07193) and what else transformers loads with features of a picture.
"""

import base64
import json
from functools import cached_property
from typing import Any

import numpy as np

from regdpo.config import schema
from regdpo.core.errors import UserError, first_line
from regdpo.core.store import Store
from regdpo.data.judges import Judge, model_digest, model_folder, seen, some
from regdpo.runtime.hub import BROKEN

KEY = "clips.embeddings.model"

PREPARATION = "preprocessor_config.json"


class Embeddings(Judge):
    """The mean of the features of some frames, each of length 1, itself of length 1; base64 of float16, for the column
    ``embedding``.

    Args:
        settings: the model. store: where clips and what is said of them are.

    Raises:
        UserError: the weights cannot be had.
    """

    def __init__(self, settings: schema.Embeddings, store: Store):
        self.settings = settings
        self._folder = model_folder(KEY, settings.model, settings.revision)
        model = model_digest(settings.model, settings.revision, store)
        super().__init__(store, ("torch", "transformers"), model, str(settings.frames))

    def _score(self, frames: np.ndarray) -> str:
        import torch

        values = torch.nn.functional.normalize(self.features(some(frames, self.settings.frames)), dim=-1).mean(0)
        vector = torch.nn.functional.normalize(values, dim=0).numpy()
        return base64.b64encode(vector.astype("<f2").tobytes()).decode()

    def features(self, frames: np.ndarray) -> Any:
        """Of uint8 RGB (F, H, W, 3): float32 (F, width), on the CPU.

        Raises:
            UserError: the weights cannot be loaded.
        """
        import torch

        with torch.inference_mode():
            shown = seen(frames, **self._preparation).to(self._model.device)
            look = getattr(self._model, "get_image_features", self._model)
            return look(pixel_values=shown).pooler_output.float().cpu()

    @cached_property
    def _preparation(self) -> dict[str, Any]:
        """How the model wants pictures, as the arguments of ``seen``."""
        file = self._folder / PREPARATION
        try:
            told = json.loads(file.read_text())
            size, crop = told["size"], told.get("crop_size") if told.get("do_center_crop") else None
            scaled: Any = size if isinstance(size, int) else size.get("shortest_edge") or _both(size)
            return {
                "scaled": scaled,
                "cropped": crop and ((crop, crop) if isinstance(crop, int) else _both(crop)),
                "mean": [float(it) for it in told["image_mean"]],
                "std": [float(it) for it in told["image_std"]],
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            line = f"{KEY}: {file} does not say how pictures are prepared ({type(error).__name__}: {first_line(error)})"
            raise UserError(line) from None

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModel

        try:
            model, told = AutoModel.from_pretrained(
                self._folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except BROKEN as error:
            raise UserError(f"{KEY}: {self.settings.model} cannot be loaded ({first_line(error)})") from None
        if lacking := sorted(told["missing_keys"]):
            raise UserError(f"{KEY}: {self.settings.model} lacks {len(lacking)} tensors, such as {lacking[0]}")
        return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _both(size: dict[str, int]) -> tuple[int, int]:
    return int(size["height"]), int(size["width"])
