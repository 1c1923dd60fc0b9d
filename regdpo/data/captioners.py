"""Captioners: text files beside the footage, and vision-language models.

A captioner is a function of (stage, clips, store, every clip) that answers one row a clip; ``CAPTIONERS`` names them.
The model's frames are decoded here and given as arrays, so transformers needs no video decoder of its own.
"""

import sys
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from regdpo.config import schema
from regdpo.config.stage_inputs import CaptionsStage
from regdpo.core.code_digest import code_digest
from regdpo.core.digests import DigestCache, folder_digest, text_digest
from regdpo.core.environment import versions
from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.core.store import DIGESTS, Store
from regdpo.data.footage import footage_root, shown
from regdpo.data.sidecars import Sidecars, is_blank
from regdpo.data.video import read_stored
from regdpo.runtime.hub import BROKEN, download
from regdpo.runtime.torchvision_stub import torchvision_operators

QWEN = ("qwen2_5_vl", "qwen3_vl")

TOLD = 50
"""Most files that a message names."""


def _sidecar(stage: CaptionsStage, clips: list[ClipRow], store: Store, every: Collection[ClipRow]) -> list[CaptionRow]:
    """The text of each clip's shot or video (``sidecars.Sidecars``)."""
    files = Sidecars(_sidecar_root(stage), {clip.source for clip in every})
    shots = {(clip.source, clip.shot) for clip in every}
    named = {shot: name for shot in sorted(shots) if (name := files.of(*shot)) is not None}
    if missing := [clip for clip in every if (clip.source, clip.shot) not in named]:
        raise UserError(
            f"captions: {len(missing)} of {len(every)} clips have no caption: write "
            f"{_listed({files.wanted(clip.source) for clip in missing})} (or VIDEO.shot000.txt for one shot alone) in "
            f"{files.root}, or set `captions.root` or `captions.source`; scripts/captions.py --write-templates writes "
            "empty files for all, and a page that shows the videos"
        )
    if empty := {name for name in named.values() if files.is_empty(name)}:
        raise UserError(f"captions: in {files.root} {_listed(empty)}: is empty; write what the video shows")
    names = {clip.clip_id: named[clip.source, clip.shot] for clip in clips}
    texts = {name: files.read(name) for name in dict.fromkeys(names.values())}
    return [
        CaptionRow(clip_id=clip_id, caption=texts[name], captioner=f"sidecar:{shown(name)}")
        for clip_id, name in names.items()
    ]


def _listed(names: Collection[str]) -> str:
    """Names in order, all of them unless they are very many."""
    told = ", ".join(map(shown, sorted(names)[:TOLD]))
    return f"{told} and {len(names) - TOLD} more" if len(names) > TOLD else told


def _sidecar_root(stage: CaptionsStage) -> Path:
    try:
        return footage_root(stage.captions.root or stage.videos_root)
    except UserError as error:
        if not stage.captions.root:
            raise
        told = str(error).replace("videos.root", "captions.root")
        raise UserError(f"{told}; scripts/captions.py --write-templates makes it, with the files to fill in") from None


def _qwen_vl(stage: CaptionsStage, clips: list[ClipRow], store: Store, every: Collection[ClipRow]) -> list[CaptionRow]:
    """Greedy answers of a Qwen vision-language model; each is kept in the store as soon as its batch is done."""
    settings = stage.captions
    assert settings.model is not None  # the configuration refuses that
    local = Path(settings.model).is_dir()
    cache = DigestCache(store.root / DIGESTS)
    identity = f"{settings.model}@{folder_digest(settings.model, cache)[:12] if local else settings.revision}"
    cache.save()
    code = code_digest(__name__) + versions("torch", "transformers")
    shaped_by = (identity, settings.prompt, str(settings.frames), str(settings.max_new_tokens), code)
    kept = {clip.sha256: store.relative("captions", text_digest(clip.sha256, *shaped_by), ".txt") for clip in clips}
    by_content = {clip.sha256: clip for clip in clips}
    todo = [clip for digest, clip in by_content.items() if not store.resolve(kept[digest]).exists()]
    if todo:
        processor, model = _load(settings.model, settings.revision)
        batches = [todo[start : start + settings.batch] for start in range(0, len(todo), settings.batch)]
        for batch in track(batches, "captions"):
            for clip, caption in zip(batch, _answers(processor, model, batch, settings, store), strict=True):
                if is_blank(caption):
                    raise UserError(
                        f"captions: {identity} says nothing about clip {clip.clip_id}; change `captions.prompt`"
                    )
                with store.writing(kept[clip.sha256]) as temporary:
                    temporary.write_text(caption, encoding="utf-8")
    for relative in kept.values():
        store.digest(relative)
    texts = {digest: store.resolve(relative).read_text(encoding="utf-8") for digest, relative in kept.items()}
    return [CaptionRow(clip_id=clip.clip_id, caption=texts[clip.sha256], captioner=identity) for clip in clips]


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


Captioner = Callable[[CaptionsStage, list[ClipRow], Store, Collection[ClipRow]], list[CaptionRow]]
CAPTIONERS: dict[str, Captioner] = {"sidecar": _sidecar, "qwen_vl": _qwen_vl}
