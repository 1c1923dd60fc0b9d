"""Samples for evaluation: held-out clips' captions and first frames, the same seeds for base and every arm."""

from collections.abc import Collection

import torch

from regdpo.config.schema import Samples
from regdpo.config.stage_inputs import SamplesStage
from regdpo.core.rows import REAL, Geometry, PairRow, SampleRow
from regdpo.core.store import Store
from regdpo.models.spec import ModelFile
from regdpo.sampling import render as sampler
from regdpo.sampling.render import Request, seed_of


def chosen(samples: Samples, pairs: list[PairRow], ranked: Collection[str] = ()) -> list[PairRow]:
    """One pair a held-out clip: all of the split, or ``samples.limit`` of them, evenly.

    Args:
        ranked: sources of pairs whose winners were generated: they are left out unless there are no others.
    """
    pairs = [pair for pair in pairs if pair.origin not in ranked and not pair.label] or pairs
    clips = {pair.clip_id: pair for pair in pairs if pair.split == samples.split}
    rows = [clips[clip_id] for clip_id in sorted(clips)]
    if samples.limit and len(rows) > samples.limit:
        return [rows[index * len(rows) // samples.limit] for index in range(samples.limit)]
    return rows


def real(stage: SamplesStage, every: list[list[PairRow]]) -> list[SampleRow]:
    """The real clips in the place of samples.

    Args:
        every: the pairs of each base model.
    """
    clips = {pair.clip_id: pair for pairs in every for pair in chosen(stage.samples, pairs, stage.ranked)}
    return [
        SampleRow(
            sample_id=f"{REAL}|{pair.clip_id}|-1",
            model=REAL,
            clip_id=pair.clip_id,
            seed=-1,
            steps=0,
            guidance=1.0,
            shift=1.0,
            caption=pair.caption,
            path=pair.winner,
            sha256=pair.winner_sha256,
            real=pair.winner,
            real_sha256=pair.winner_sha256,
        )
        for pair in (clips[clip_id] for clip_id in sorted(clips))
    ]


def render(
    stage: SamplesStage, model: ModelFile, pairs: list[PairRow], store: Store, device: torch.device
) -> list[SampleRow]:
    """One row a clip of the split and seed."""
    samples, sampling = stage.samples, stage.samples.sampling
    asked = [(pair, seed) for pair in chosen(samples, pairs, stage.ranked) for seed in samples.seeds]
    requests = [
        Request(
            caption=pair.caption,
            first_frame=pair.winner,
            clip_sha256=pair.winner_sha256,
            seed=seed_of(seed, "sample", pair.clip_id),
            geometry=Geometry.of_row(pair),
        )
        for pair, seed in asked
    ]
    rendered = sampler.render("samples", model, requests, sampling, stage.encode, store, device)
    return [
        SampleRow(
            sample_id=f"{model.name}|{pair.clip_id}|{seed}",
            model=model.name,
            clip_id=pair.clip_id,
            seed=seed,
            steps=sampling.steps,
            guidance=sampling.scale("high"),
            guidance_low=sampling.guidance["low"] if isinstance(sampling.guidance, dict) else None,
            shift=sampling.shift,
            solver=sampling.solver,
            cache=sampling.cache.kind,
            caption=pair.caption,
            path=video.path,
            sha256=video.sha256,
            real=pair.winner,
            real_sha256=pair.winner_sha256,
        )
        for (pair, seed), video in zip(asked, rendered, strict=True)
    ]
