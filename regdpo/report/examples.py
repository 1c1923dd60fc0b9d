"""Which clips and pairs the page shows videos of, and why."""

import random
from dataclasses import field
from typing import TypeVar

from regdpo.core.model_names import BASE
from regdpo.core.rows import REAL, ClipRow, PairRow
from regdpo.evaluate.measures import metrics
from regdpo.evaluate.stats import clip_means
from regdpo.report.gather import Inputs, position
from regdpo.report.parts import part
from regdpo.report.results import Scores, names

T = TypeVar("T")


@part
class Video:
    """One video of the store with its label."""

    label: str
    """What stands below it."""
    model: str
    """``real``, ``base`` or an arm; it chooses the colour."""
    path: str
    """In the store."""
    sha256: str
    """Of the file."""
    note: str = ""
    """A figure beside the label."""


@part
class Clip:
    """Where a clip is from, and its size."""

    clip_id: str
    """As in the manifest of clips."""
    source: str
    """Its video, below ``videos.root``."""
    shot: int
    """Of the video, counted from 0."""
    start: int
    """First frame, counted from the shot's first at the clip's frames a second."""
    frames: int
    """Its length."""
    width: int
    """In pixels."""
    height: int
    """In pixels."""

    @classmethod
    def of(cls, row: ClipRow) -> "Clip":
        return cls(row.clip_id, row.source, row.shot, row.start, row.frames, row.width, row.height)


@part
class Example:
    """Videos of one clip, side by side."""

    clip: Clip
    """The clip."""
    caption: str
    """Its caption."""
    videos: list[Video]
    """In the order in which they stand."""
    labels: list[str] = field(default_factory=list)
    """Why it is shown, where that is more than chance; of a pair its split."""


def held_out(inputs: Inputs, scores: Scores) -> list[Example]:
    """Held-out clips, evenly spread by seed, then the ones with the best and the worst difference to base."""
    chosen = _chosen(inputs, scores)
    rows = {(row.clip_id, row.model): row for row in inputs.samples if row.seed == inputs.config.samples.seeds[0]}
    columns = {BASE: BASE} | {arm: runs[0].model.name for arm, runs in inputs.arms.items()}
    found = []
    for clip_id, labels in chosen.items():
        clip, caption = inputs.clips[clip_id], inputs.captions.get(clip_id)
        noted = "psnr" in metrics(inputs.config.base.task)
        videos = [Video(REAL, REAL, clip.path, clip.sha256)]
        for label, model in columns.items():
            if row := rows.get((clip_id, model)):
                psnr = clip_means(scores.of([model], "psnr")).get(clip_id) if noted else None
                videos.append(Video(label, label, row.path, row.sha256, f"{psnr:.1f} dB" if psnr is not None else ""))
        found.append(Example(Clip.of(clip), caption.caption if caption else "", videos, labels))
    return found


def pairs(inputs: Inputs) -> list[Example]:
    """Some pairs, evenly spread by seed: winner and loser."""
    offset = random.Random(inputs.config.pairs.seed).random()  # noqa: S311
    return [
        Example(
            Clip.of(inputs.clips[pair.clip_id]),
            pair.caption,
            [
                Video("winner", REAL, pair.winner, pair.winner_sha256),
                Video("loser", BASE, pair.loser, pair.loser_sha256),
            ],
            [pair.split],
        )
        for pair in spread(_with_losers(inputs), inputs.config.report.examples, offset)
    ]


def spread(items: list[T], count: int, offset: float) -> list[T]:
    """At most ``count`` items, evenly spread; ``offset`` in [0, 1) moves the first one."""
    if len(items) <= count:
        return list(items)
    return [items[int((index + offset) * len(items) / count)] for index in range(count)]


def _with_losers(inputs: Inputs) -> list[PairRow]:
    """Pairs that have both halves, in the order of the footage; training pairs, unless there are none."""
    both = [pair for pair in inputs.pairs if pair.loser]
    chosen = [pair for pair in both if pair.split == "train"] or both
    return sorted(chosen, key=lambda pair: (position(inputs.clips[pair.clip_id]), pair.pair_id))


def _chosen(inputs: Inputs, scores: Scores) -> dict[str, list[str]]:
    """Clip -> why it is shown, where that is more than chance."""
    offset = random.Random(inputs.config.scores.bootstrap.seed).random()  # noqa: S311
    chosen: dict[str, list[str]] = {clip: [] for clip in spread(inputs.held_out, inputs.config.report.examples, offset)}
    arms = inputs.arms
    arm = next((a for a, runs in arms.items() if runs[0].model.objective == "reg_dpo"), next(iter(arms)))
    metric = metrics()[inputs.config.scores.primary]
    ours, base = (clip_means(scores.of(side, metric.key)) for side in (names(arms[arm]), scores.bases))
    gains = {
        clip: metric.better * (ours[clip] - base[clip]) for clip in inputs.held_out if clip in ours and clip in base
    }
    if len(gains) > 1:
        for label, pick in (("best", max), ("worst", min)):
            clip = pick(gains, key=gains.__getitem__)
            chosen.setdefault(clip, []).append(f"{label} clip of {arm} against base in {metric.label}")
    return chosen
