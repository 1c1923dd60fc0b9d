"""The videos on the page: which ones, and how they get into it."""

import base64
import random
from dataclasses import dataclass, field
from statistics import fmean

import ffmpeg

from regdpo.core.rows import REAL, ClipRow
from regdpo.core.temporaries import scratch
from regdpo.data import video
from regdpo.evaluate.measures import PRIMARY, metrics
from regdpo.report.footage import pairs_with_losers, spread
from regdpo.report.gather import Inputs
from regdpo.report.results import BASE, Scores
from regdpo.report.verdicts import names

WIDEST = 320
"""Videos wider than this, in pixels, are scaled down for the page; others go in as they are."""


@dataclass(frozen=True)
class Shown:
    """One video with its label; ``model`` chooses its colour."""

    label: str
    model: str
    uri: str
    note: str = ""


@dataclass(frozen=True)
class Example:
    """Videos of one clip, side by side."""

    clip: ClipRow
    caption: str
    videos: list[Shown]
    labels: list[str] = field(default_factory=list)


def examples(inputs: Inputs, scores: Scores) -> list[Example]:
    """Held-out clips, evenly spread by seed, then the ones with the best and the worst difference to base."""
    chosen = _chosen(inputs, scores)
    paths = {(row.clip_id, row.model): row for row in inputs.samples if row.seed == inputs.config.samples.seeds[0]}
    columns = {BASE: BASE} | {arm: runs[0].model.name for arm, runs in inputs.arms.items()}
    found = []
    for clip_id, labels in chosen.items():
        real = inputs.clips[clip_id]
        shown = [Shown(REAL, REAL, data_uri(inputs, real.path, real.sha256))]
        for label, model in columns.items():
            if row := paths.get((clip_id, model)):
                psnr = scores.of([model], "psnr").get(clip_id)
                note = f"{fmean(psnr):.1f} dB" if psnr else ""
                shown.append(Shown(label, label, data_uri(inputs, row.path, row.sha256), note))
        found.append(Example(inputs.clips[clip_id], _caption(inputs, clip_id), shown, labels))
    return found


def pair_examples(inputs: Inputs) -> list[Example]:
    """Some pairs, evenly spread by seed: winner and loser."""
    offset = random.Random(inputs.config.pairs.seed).random()  # noqa: S311
    return [
        Example(
            inputs.clips[pair.clip_id],
            pair.caption,
            [
                Shown("winner", REAL, data_uri(inputs, pair.winner, pair.winner_sha256)),
                Shown("loser", BASE, data_uri(inputs, pair.loser, pair.loser_sha256)),
            ],
            [pair.split],
        )
        for pair in spread(pairs_with_losers(inputs), inputs.config.report.examples, offset)
    ]


def _chosen(inputs: Inputs, scores: Scores) -> dict[str, list[str]]:
    """Clip -> why it is shown, where that is more than chance."""
    offset = random.Random(inputs.config.scores.bootstrap.seed).random()  # noqa: S311
    chosen: dict[str, list[str]] = {clip: [] for clip in spread(inputs.held_out, inputs.config.report.examples, offset)}
    arms = inputs.arms
    arm = next((a for a, runs in arms.items() if runs[0].model.objective == "reg_dpo"), next(iter(arms)))
    for key in ("psnr", PRIMARY):
        ours, base = scores.of(list(names(arms[arm]).values()), key), scores.of([BASE], key)
        gains = {
            clip: metrics()[key].better * (fmean(ours[clip]) - fmean(base[clip]))
            for clip in inputs.held_out
            if clip in ours and clip in base
        }
        if len(gains) > 1:
            what = f"{arm} against base in {metrics()[key].label}"
            for label, pick in (("best", max), ("worst", min)):
                clip = pick(gains, key=gains.__getitem__)
                chosen.setdefault(clip, []).append(f"{label} clip of {what}")
            break
    return chosen


def data_uri(inputs: Inputs, relative: str, sha256: str) -> str:
    """A video of the store as a ``data:`` URI, scaled down if it is large.

    Raises:
        UserError: it is missing from the store or damaged.
    """
    path = inputs.store.checked(relative, sha256)
    if inputs.config.clips.width <= WIDEST:
        data = path.read_bytes()
    else:
        with scratch() as folder:
            encode = inputs.config.clips.encode.model_copy(update={"crf": 24})
            small = folder / "small.mp4"
            stream = ffmpeg.input(str(path)).video.filter("scale", WIDEST, -2)
            video.run(stream.output(str(small), **video.encoding(encode, inputs.config.clips.frames)))
            data = small.read_bytes()
    return f"data:video/mp4;base64,{base64.b64encode(data).decode()}"


def _caption(inputs: Inputs, clip_id: str) -> str:
    row = inputs.captions.get(clip_id)
    return row.caption if row else ""
