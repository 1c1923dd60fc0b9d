"""How well frames fit their prompt, and how people who compared pictures would like them: models of CLIP's form.

Three are known, each a mean over some frames of a video (that mean is ours: the models were made for pictures):

- CLIP score: 100 max(cos, 0) of the picture's and the text's embeddings (Hessel et al., CLIPScore, arXiv 2104.08718,
  whose factor 2.5 is not taken);
- PickScore: the model's own scale times the cosine (Kirstain et al., Pick-a-Pic, arXiv 2305.01569);
- HPS v2: 100 times the cosine (Wu et al., Human Preference Score v2, arXiv 2306.09341), of a checkpoint in the layout
  of transformers; the one that is published is in OpenCLIP's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regdpo.config.evaluation import TextImage
from regdpo.config.stage_inputs import JudgeStage
from regdpo.core.errors import UserError, first_line
from regdpo.core.progress import track
from regdpo.core.rows import ScoreRow
from regdpo.data.aesthetic import pixels
from regdpo.data.judges import some
from regdpo.data.video import read_stored
from regdpo.evaluate.measures import Given
from regdpo.evaluate.proxies import row
from regdpo.models.device import pick
from regdpo.runtime.hub import BROKEN, folder_of


def clip_score(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``."""
    return _score("clip_score", given, lambda cosine, scale: 100 * cosine.clamp(min=0))


def pick_score(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``."""
    return _score("pick_score", given, lambda cosine, scale: scale * cosine)


def hps(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``."""
    return _score("hps", given, lambda cosine, scale: 100 * cosine)


def _score(name: str, given: Given, value: Callable[[Tensor, float], Tensor]) -> list[ScoreRow]:
    stage: JudgeStage = given.stage
    settings: TextImage = getattr(stage.scores, name)
    device = pick(given.device)
    tokenizer, model = load(f"scores.{name}.model", settings, device)
    rows = []
    with torch.inference_mode():
        for sample in track(given.samples, name.replace("_", " "), len(given.samples)):
            frames = some(read_stored(given.store, sample.path, sample.sha256), settings.frames)
            cosine = cosines(tokenizer, model, frames, given.pairs[sample.clip_id].caption)
            found = float(value(cosine, float(model.logit_scale.exp())).mean())
            rows.append(row(sample.model, name, sample.clip_id, sample.seed, found))
    return rows


def cosines(tokenizer: Any, model: Any, frames: np.ndarray, caption: str) -> Tensor:
    """Of each frame, uint8 RGB (F, H, W, 3), with the text, float32 (F,). What the text encoder cannot take of a long
    text is cut off, as these models do with their own."""
    text = tokenizer(caption, truncation=True, return_tensors="pt").to(model.device)
    seen = pixels(frames, model.config.vision_config.image_size).to(model.device)
    words = model.text_projection(model.text_model(**text).pooler_output)
    pictures = model.visual_projection(model.vision_model(pixel_values=seen).pooler_output)
    return torch.nn.functional.cosine_similarity(pictures, words, dim=-1)


def load(key: str, settings: TextImage, device: torch.device) -> tuple[Any, Any]:
    """Tokenizer and CLIP. No code of the checkpoint is run.

    Raises:
        UserError: they cannot be loaded, or it is no whole CLIP.
    """
    from transformers import AutoTokenizer, CLIPModel

    clip: Any = CLIPModel
    folder = folder_of(key, settings.model, settings.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model, told = clip.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except BROKEN as error:
        raise UserError(f"{key}: {settings.model} cannot be loaded ({first_line(error)})") from None
    if lacking := sorted(told["missing_keys"]):
        raise UserError(f"{key}: {settings.model} lacks {len(lacking)} tensors of a CLIP, such as {lacking[0]}")
    tokenizer.model_max_length = model.config.text_config.max_position_embeddings
    return tokenizer, model.eval().to(device)
