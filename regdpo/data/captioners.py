"""Captioners: models that say what a clip shows."""

import sys
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from regdpo.config import schema
from regdpo.config.stage_inputs import CaptionsStage
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.core.store import Store
from regdpo.data.video import read_stored
from regdpo.runtime.hub import BROKEN, download
from regdpo.runtime.torchvision_stub import torchvision_operators
from regdpo.stages.captions import _qwen_vl, _sidecar

QWEN = ("qwen2_5_vl", "qwen3_vl")


def _load(name: str, revision: str | None) -> tuple[Any, Any]:
    """Processor and model, on the GPU in bf16 where there is one. No code of the checkpoint is run."""
    if find_spec("transformers") is None or find_spec("torchvision") is None:
        raise UserError(
            f"captions.source: qwen_vl needs transformers and torchvision, which {sys.executable} does not have; "
            "run `make captioning` (it installs envs/captioning.lock) and use .venv-captioning/bin/python"
        )
    torchvision_operators()
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    cuda = torch.cuda.is_available()
    folder = name if Path(name).is_dir() else download("captions.model", name, revision)
    source: dict[str, Any] = {"trust_remote_code": False}
    try:
        kind = AutoConfig.from_pretrained(folder, **source).model_type
        if kind not in QWEN:
            raise UserError(f"captions.model: {name} is a {kind} model; qwen_vl takes {' and '.join(QWEN)}")
        processor = AutoProcessor.from_pretrained(folder, **source)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.bfloat16 if cuda else torch.float32, use_safetensors=True, **source
        )
    except BROKEN as error:
        reason = " ".join(str(error).split())
        raise UserError(f"captions.model: {name} cannot be loaded ({reason})") from None
    if processor.tokenizer.pad_token is None:
        raise UserError(
            f"captions.model: {name}: its tokenizer has no token to pad with; name one as pad_token in its "
            "tokenizer_config.json"
        )
    processor.tokenizer.padding_side = "left"
    return processor, model.eval().to("cuda" if cuda else "cpu")


def _answers(processor: Any, model: Any, clips: list[ClipRow], settings: schema.Captions, store: Store) -> list[str]:
    """Captions of a batch, whitespace normalised."""
    import torch
    from transformers.video_utils import VideoMetadata

    videos, metadata = [], []
    for clip in clips:
        frames = read_stored(store, clip.path, clip.sha256)
        shown = evenly(len(frames), settings.frames)
        videos.append(frames[shown])
        metadata.append(VideoMetadata(total_num_frames=len(frames), fps=clip.fps, frames_indices=shown.tolist()))
    question = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": settings.prompt}]}]
    prompt = processor.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    inputs = processor(
        text=[prompt] * len(clips),
        videos=videos,
        video_metadata=metadata,
        do_sample_frames=False,
        cap_pixels_per_frame=True,
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    with torch.inference_mode():
        tokens = model.generate(
            **inputs, max_new_tokens=settings.max_new_tokens, do_sample=False, temperature=None, top_p=None, top_k=None
        )
    answers = processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])
    return [" ".join(answer.split()) for answer in answers]


def evenly(total: int, count: int) -> np.ndarray:
    """Indices of ``count`` frames spread over ``total``, first and last included; an even count, for the model sees
    frames two by two, and some twice where there are fewer."""
    return np.linspace(0, total - 1, count + count % 2).round().astype(int)


Captioner = Callable[[CaptionsStage, list[ClipRow], Store, Collection[str]], list[CaptionRow]]
CAPTIONERS: dict[str, Captioner] = {"sidecar": _sidecar, "qwen_vl": _qwen_vl}
