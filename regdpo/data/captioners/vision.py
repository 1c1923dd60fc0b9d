"""Captions by a vision-language model that transformers runs in this process.

Frames are decoded here and given as arrays, so transformers needs no video decoder of its own.
"""

import sys
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regdpo.config import schema
from regdpo.core.code_digest import code_digest
from regdpo.core.digests import DigestCache, folder_digest
from regdpo.core.environment import versions
from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.core.store import DIGESTS, Store
from regdpo.data.captioners.answers import Answer, Kept, Task, evenly, needed
from regdpo.data.video import read_stored
from regdpo.runtime.hub import BROKEN, download
from regdpo.runtime.torchvision_stub import torchvision_operators

KINDS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"cap_pixels_per_frame": True},
    "qwen3_vl": {"cap_pixels_per_frame": True},
    "smolvlm": {},
}
"""``model_type`` of the models that are known -> what their processors are given besides."""
NEEDED = ("transformers", "torchvision", "num2words")
"""Packages, of which the last is SmolVLM2's."""


def answer(task: Task) -> list[CaptionRow]:
    """Greedy answers, a batch at a time; each is kept in the store as soon as its batch is done.

    Raises:
        UserError: the model cannot be loaded.
    """
    settings, store = task.stage.captions, task.store
    name = needed(settings.model, "captions.model")
    local = Path(name).is_dir()
    cache = DigestCache(store.root / DIGESTS)
    identity = f"{name}@{folder_digest(name, cache)[:12] if local else settings.revision}"
    cache.save()
    code = code_digest(__name__) + versions("torch", "transformers")
    kept = Kept(task, identity, settings.prompt, str(settings.frames), str(settings.max_new_tokens), code)
    if todo := kept.missing():
        processor, model = load("captions.model", name, settings.revision)
        batches = [todo[start : start + settings.batch] for start in range(0, len(todo), settings.batch)]
        for batch in track(batches, "captions"):
            for clip, said in zip(batch, _answers(processor, model, batch, settings, store), strict=True):
                kept.keep(clip, said)
    return kept.rows()


def load(key: str, name: str, revision: str | None, kinds: Collection[str] = tuple(KINDS)) -> tuple[Any, Any]:
    """Processor and model, on the GPU in bf16 where there is one. No code of the checkpoint is run.

    Args:
        key: of the configuration, for the reader. kinds: ``model_type`` that it may have.

    Raises:
        UserError: it cannot be loaded, or is of another kind.
    """
    if lacking := [package for package in NEEDED if find_spec(package) is None]:
        raise UserError(
            f"{key}: transformers needs {' and '.join(lacking)}, which {sys.executable} does not have; "
            "run `make captioning` (it installs envs/captioning.lock) and use .venv-captioning/bin/python"
        )
    torchvision_operators()
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    cuda = torch.cuda.is_available()
    folder = name if Path(name).is_dir() else download(key, name, revision)
    source: dict[str, Any] = {"trust_remote_code": False}
    try:
        kind = AutoConfig.from_pretrained(folder, **source).model_type
        if kind not in kinds:
            raise UserError(f"{key}: {name} is a {kind} model; known are {', '.join(kinds)}")
        processor = AutoProcessor.from_pretrained(folder, **source)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.bfloat16 if cuda else torch.float32, use_safetensors=True, **source
        )
    except BROKEN as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{key}: {name} cannot be loaded ({reason})") from None
    if processor.tokenizer.pad_token is None:
        raise UserError(
            f"{key}: {name}: its tokenizer has no token to pad with; name one as pad_token in its tokenizer_config.json"
        )
    processor.tokenizer.padding_side = "left"
    return processor, model.eval().to("cuda" if cuda else "cpu")


def _answers(processor: Any, model: Any, clips: list[ClipRow], settings: schema.Captions, store: Store) -> list[Answer]:
    """Of a batch. One that is as long as it may be, without an end, is cut off."""
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
        **KINDS[model.config.model_type],
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    with torch.inference_mode():
        tokens = model.generate(
            **inputs, max_new_tokens=settings.max_new_tokens, do_sample=False, temperature=None, top_p=None, top_k=None
        )
    said = tokens[:, inputs["input_ids"].shape[1] :]
    ends = model.generation_config.eos_token_id
    ended = torch.isin(said, torch.tensor(ends if isinstance(ends, list) else [ends], device=said.device)).any(1)
    texts = processor.post_process_image_text_to_text(said)
    return [Answer(text, not end) for text, end in zip(texts, ended.tolist(), strict=True)]
