"""Candidates: several videos that a model makes of each prompt, of which pairs are chosen by score."""

from collections.abc import Mapping

import torch

from regdpo.config.schema import BASE
from regdpo.config.stage_inputs import CandidatesStage
from regdpo.core.digests import shard_of, text_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import CandidateRow, CaptionRow, ClipRow, Geometry, PlaceRow
from regdpo.core.store import Store
from regdpo.data import prompt_lists
from regdpo.data.splits import is_known, side
from regdpo.models.spec import ModelFile
from regdpo.sampling import render as sampler
from regdpo.sampling.render import Request, seed_of

Prompt = tuple[str, str, ClipRow | None, str]
"""Id, text, the clip whose caption it is if it is one, and the split."""


def of_clips(
    stage: CandidatesStage, clips: list[ClipRow], captions: list[CaptionRow], places: Mapping[str, PlaceRow]
) -> list[Prompt]:
    """The captions of clips that are in a split."""
    texts = {row.clip_id: row.caption for row in captions if not row.reason}
    return [
        (clip.clip_id, texts[clip.clip_id], clip, places[clip.clip_id].split)
        for clip in clips
        if clip.clip_id in texts and clip.clip_id in places and not is_known(clip.source, stage.known)
    ]


def of_file(stage: CandidatesStage, index: int, count: int) -> list[Prompt]:
    """The prompts of one of ``count`` shards of a list, each in the split that its hash says."""
    assert stage.candidates.prompts
    found = limited(stage, list(prompt_lists.read(stage.candidates.prompts).items()))
    return [
        (key, text, None, side(f"prompt {text}", stage.pairs)) for key, text in found if shard_of(key, count) == index
    ]


def limited(stage: CandidatesStage, prompts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Ids and texts of as many as the limit says, in the order of their hashes by the seed."""
    seed = str(stage.candidates.seed)
    return sorted(prompts, key=lambda it: text_digest(seed, it[0]))[: stage.candidates.limit]


def render(
    stage: CandidatesStage, model: ModelFile, prompts: list[Prompt], store: Store, device: torch.device
) -> list[CandidateRow]:
    """``count`` rows a prompt; a broken video is a rejected one.

    Args:
        model: that makes them.

    Raises:
        UserError: the model begins with first frames, and a prompt has none.
    """
    if model.ref.task == "i2v" and any(clip is None for _, _, clip, _ in prompts):
        raise UserError(f"pairs.sources.{stage.source}.candidates.prompts: {model.name} begins with first frames")
    asked = [(prompt, number) for prompt in prompts for number in range(stage.candidates.count)]
    requests = [
        Request(
            caption=text,
            first_frame=clip.path if clip else "",
            clip_sha256=clip.sha256 if clip else "",
            seed=seed_of(stage.candidates.seed, "candidate", key, number),
            geometry=Geometry.of_row(clip) if clip else stage.geometry,
        )
        for (key, text, clip, _), number in asked
    ]
    made = sampler.render("candidates", model, requests, stage.sampling, stage.encode, store, device, refuse=True)
    return [
        CandidateRow(
            candidate_id=f"{stage.source}.{key}.c{number}",
            prompt_id=f"{stage.source}.{key}",
            status="rejected" if video.reason else "accepted",
            reason=video.reason,
            origin=stage.source,
            split=split,
            source=clip.source if clip else f"{stage.source}/{key}",
            shot=clip.shot if clip else 0,
            start=clip.start if clip else 0,
            caption=text,
            number=number,
            seed=request.seed,
            generator=BASE,
            model=model.digest,
            **request.geometry.model_dump(),
            path=video.path,
            sha256=video.sha256,
            real=clip.path if clip else "",
            real_sha256=clip.sha256 if clip else "",
        )
        for ((key, text, clip, split), number), request, video in zip(asked, requests, made, strict=True)
    ]
