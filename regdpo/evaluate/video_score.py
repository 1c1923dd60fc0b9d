"""VideoScore2's three scores of a video: visual quality, alignment with the text, physical and common sense.

He et al., VideoScore2: Think before You Score in Generative Video Evaluation, arXiv 2509.22799. A Qwen2.5-VL writes
what it sees and then a whole number from 1 to 5 for each. It answers greedily here, so that a video has one score.
"""

import re
from pathlib import Path
from typing import Any

from regdpo.config.evaluation import VideoScore2
from regdpo.config.stage_inputs import JudgeStage
from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.rows import ScoreRow
from regdpo.data.captioners.vision import load as load_vision
from regdpo.data.video import read_stored
from regdpo.evaluate.measures import Given
from regdpo.evaluate.proxies import row

NAMES = {
    "video_score2_visual": "visual quality",
    "video_score2_text": "text-to-video alignment",
    "video_score2_physical": "physical/common-sense consistency",
}
"""Metric -> what stands before its number in an answer."""
PLACE = "{prompt}"
KEY = "scores.video_score2"


def measure(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``."""
    stage: JudgeStage = given.stage
    settings = stage.scores.video_score2
    assert settings is not None
    question = question_of(f"{KEY}.prompt", settings.prompt)
    processor, model = load_vision(f"{KEY}.model", settings.model, settings.revision, ("qwen2_5_vl",))
    rows = []
    for sample in track(given.samples, "VideoScore2", len(given.samples)):
        video = read_stored(given.store, sample.path, sample.sha256)
        pair = given.pairs[sample.clip_id]
        found = read_scores(answer(processor, model, video, pair.fps, question.replace(PLACE, pair.caption), settings))
        for key, value in found.items():
            parts = {"model": sample.model, "metric": key, "clip_id": sample.clip_id, "seed": sample.seed}
            if value is None:
                score_id = f"{sample.model}|{key}|{sample.clip_id}|{sample.seed}"
                rows.append(ScoreRow(score_id=score_id, **parts, missing=f"the answer has no {NAMES[key]}"))
            else:
                rows.append(row(sample.model, key, sample.clip_id, sample.seed, value))
    return rows


def read_scores(text: str) -> dict[str, float | None]:
    """The numbers at the end of an answer, by metric; None where there is none from 1 to 5."""
    found: dict[str, float | None] = {}
    for key, name in NAMES.items():
        said = re.findall(rf"{re.escape(name)}\W*(\d+)(?![\d.])", text, re.IGNORECASE)
        value = float(said[-1]) if said else 0.0
        found[key] = value if 1 <= value <= 5 else None
    return found


def question_of(key: str, path: str) -> str:
    """The text of a file, which has a place for the caption.

    Raises:
        UserError: it cannot be read, or has none.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}: {path} cannot be read ({error})") from None
    if PLACE not in text:
        raise UserError(f"{key}: {path} has no {PLACE}, where the caption belongs")
    return text


def answer(processor: Any, model: Any, video: Any, fps: float, text: str, settings: VideoScore2) -> str:
    """What is said of a video, uint8 RGB (F, H, W, 3) of so many frames a second."""
    import torch

    inputs = seen(processor, video, fps, settings.fps, text).to(model.device)
    with torch.inference_mode():
        tokens = model.generate(
            **inputs, max_new_tokens=settings.max_new_tokens, do_sample=False, temperature=None, top_p=None, top_k=None
        )
    said = tokens[:, inputs["input_ids"].shape[1] :]
    return str(processor.post_process_image_text_to_text(said)[0])


def seen(processor: Any, video: Any, fps: float, shown_fps: float, text: str, **kwargs: Any) -> Any:
    """What a processor makes of a video, shown at a rate, and of a text after it; at least two frames, and an even
    number of them, since these models take frames by twos."""
    import numpy as np
    from transformers.video_utils import VideoMetadata

    count = max(2, round(len(video) / fps * shown_fps) // 2 * 2)
    shown = np.linspace(0, len(video) - 1, count).round().astype(int)
    metadata = VideoMetadata(total_num_frames=len(video), fps=fps, frames_indices=shown.tolist())
    question = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
    prompt = processor.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    return processor(
        text=[prompt],
        videos=[video[shown]],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="pt",
        **kwargs,
    )
