"""The manifest of pairs: GT-Pair (arXiv 2511.01450, section 3.1: winner = real clip, loser = generated from it), and
pairs that others made.

Which clip is in which split, and why, says regdpo/data/splits.py.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, TypeVar

from regdpo.config.schema import Pairs
from regdpo.config.stage_inputs import PairsStage
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow, CopyRow, Geometry, ImportedRow, NegativeRow, PairRow, SplitRow
from regdpo.data.splits import SPLITS, assign, decided, is_known, origin, shared, shortest, side, source_splits

S = TypeVar("S", bound=PairsStage)


def build(
    stage: PairsStage,
    clips: list[ClipRow],
    captions: list[CaptionRow],
    negatives: list[NegativeRow],
    copies: list[CopyRow],
    imported: Sequence[ImportedRow] = (),
) -> tuple[list[PairRow], list[str]]:
    """One row a negative, for accepted clips of footage that the base model does not know and no other split holds; and
    one for each pair that others made.

    Returns:
        The rows; and lines about what makes no pair: clips of which others hold the same out, and rejected negatives.

    Raises:
        UserError: a split would be empty, or a clip lacks its caption.
    """
    splits, elsewhere = _placed(stage, clips, copies)
    texts = {row.clip_id: row.caption for row in captions if not row.reason}
    by_id = {clip.clip_id: clip for clip in clips}
    rows = []
    for negative in negatives:
        split = splits.get(negative.clip_id)
        if split is None or negative.clip_id in elsewhere or negative.status == "rejected":
            continue
        clip = by_id[negative.clip_id]
        if texts.get(clip.clip_id) != negative.caption:
            raise UserError(
                f"negative {negative.negative_id}: made from another caption; run the negatives stage again"
            )
        rows.append(
            PairRow(
                pair_id=negative.negative_id,
                split=split,
                **_of(clip),
                caption=negative.caption,
                loser=negative.path,
                loser_sha256=negative.sha256,
                loser_seed=negative.seed,
                generator=negative.generator,
            )
        )
    of_others, left_out = _imported(stage, imported, clips, splits)
    broken = NegativeRow.rejected(negatives)
    lines = [*_told(elsewhere, splits, by_id), *left_out, *filter(None, [broken])]
    return _limited(_complete(rows + of_others, broken), stage.pairs), lines


def places(stage: PairsStage, clips: list[ClipRow], copies: list[CopyRow]) -> dict[str, str]:
    """Clip id -> split, of those that pairs are made of: of new footage, in no gap between splits, and showing nothing
    that is held out further."""
    splits, elsewhere = _placed(stage, clips, copies)
    return {clip_id: split for clip_id, split in splits.items() if clip_id not in elsewhere}


def count(
    stage: PairsStage, clips: list[ClipRow], copies: list[CopyRow], placed: dict[str, str] | None = None
) -> list[SplitRow]:
    """How much footage each split gets, known before any negative is rendered.

    Args:
        placed: what ``places`` says, if it was asked before.

    Raises:
        UserError: a split would be empty, and there are no other pairs; with what the footage lacks.
    """
    placed = places(stage, clips, copies) if placed is None else placed
    by_id = {clip.clip_id: clip for clip in clips}
    rows = []
    accepted = [clip for clip in clips if clip.status == "accepted" and not is_known(clip.source, stage.known)]
    way = "source" if source_splits(accepted, stage.pairs) else "segment"
    for split in SPLITS:
        mine = [clip_id for clip_id, of in placed.items() if of == split]
        sources = len({by_id[clip_id].source for clip_id in mine})
        rows.append(SplitRow(split=split, clips=len(mine), sources=sources, way=way))
    empty = [row.split for row in rows if not row.clips]
    if empty and stage.alone:
        counts = ", ".join(f"{row.split} {row.clips}" for row in rows)
        raise UserError(f"pairs: no clip falls into {' and '.join(empty)} ({counts}); {_lacking(stage, accepted)}")
    return rows


def _imported(
    stage: PairsStage, imported: Sequence[ImportedRow], clips: list[ClipRow], splits: dict[str, str]
) -> tuple[list[PairRow], list[str]]:
    """The pairs of others, each on the side of its winner's origin; without those whose winner's file is in the footage
    and on another side there. And a line for each source that loses some."""
    sides: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.clip_id in splits:
            sides[clip.source_digest].add(splits[clip.clip_id])
    rows, left_out = [], Counter[str]()
    for pair in imported:
        if pair.status == "rejected":
            continue
        clip = pair.clip()
        split = side(origin(clip), stage.pairs)
        if sides.get(pair.source_digest, {split}) != {split}:
            left_out[pair.origin] += 1
            continue
        rows.append(
            PairRow(
                pair_id=pair.pair_id,
                split=split,
                **_of(clip),
                caption=pair.caption,
                loser=pair.loser,
                loser_sha256=pair.loser_sha256,
                origin=pair.origin,
            )
        )
    return rows, [
        f"{number} pairs of {name} are left out: their winners are videos of the footage, on another side of the split"
        for name, number in sorted(left_out.items())
    ]


def settled(stage: S, split: str | None) -> S:
    """The stage's configuration with what was decided of the split, if there is a file of that."""
    return stage.model_copy(update={"pairs": decided(split, stage.pairs)}) if split else stage


def told(rows: list[SplitRow]) -> str:
    """The counts in a line, for the reader."""
    how = "each video in one of them" if {row.way for row in rows} == {"source"} else "each shot cut in time"
    counts = ", ".join(f"{row.split} {row.clips} (videos: {row.sources})" for row in rows)
    return f"clips by split: {counts}; {how}"


def _placed(
    stage: PairsStage, clips: list[ClipRow], copies: list[CopyRow]
) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Split of each clip of new footage, and what is held out further and shows the same, as ``splits.shared`` says."""
    new = [clip for clip in clips if not is_known(clip.source, stage.known)]
    splits = assign(new, stage.pairs)
    return splits, shared(new, splits, copies, stage.frames)


def _lacking(stage: PairsStage, accepted: list[ClipRow]) -> str:
    """What the footage lacks for three splits, and what would do."""
    if not accepted:
        return "no clip was accepted: the clips' manifest has the reason of each"
    settings, frames = stage.pairs, min(clip.frames for clip in accepted)
    sources = len({clip.source for clip in accepted})
    if source_splits(accepted, settings):
        origins = len({origin(clip) for clip in accepted})
        enough = math.ceil(5 / min(settings.validation, settings.test, 1 - settings.validation - settings.test))
        return (
            f"{origins} videos (or groups of them) fall where the hash of each says, and {enough} would almost surely "
            f"fill all three: give more videos, larger shares (pairs.validation is {settings.validation:g}, pairs.test "
            f"{settings.test:g}), or pairs.split: auto, which looks for a way that fills all three"
        )
    least = shortest(settings, frames)
    longest = max(clip.shot_frames for clip in accepted)
    by_source = ", or pairs.split: auto, which may give whole videos to a split" if sources >= len(SPLITS) else ""
    starts = "" if longest < least else "more places where clips start (clips.stride: 1 is all), "
    return (
        f"a shot has to have about {least} frames for a clip in each, where one starts at every frame, and the longest "
        f"has {longest}: give {starts}longer ones, shorter clips (clips.frames is {frames}), larger shares "
        f"(pairs.validation is {settings.validation:g}, pairs.test {settings.test:g}){by_source}"
    )


def pretraining(stage: PairsStage, clips: list[ClipRow], captions: list[CaptionRow]) -> list[PairRow]:
    """Winners alone, all to train on: the footage that a base model made here is to know.

    Raises:
        UserError: no accepted clip is from a known source, or a clip lacks its caption.
    """
    texts = {row.clip_id: row.caption for row in captions}
    unusable = {row.clip_id for row in captions if row.reason}
    rows = []
    for clip in clips:
        if clip.status == "rejected" or not is_known(clip.source, stage.known) or clip.clip_id in unusable:
            continue
        if clip.clip_id not in texts:
            raise UserError(f"clip {clip.clip_id}: has no caption; run the captions stage again")
        rows.append(PairRow(pair_id=clip.clip_id, split="train", **_of(clip), caption=texts[clip.clip_id]))
    if not rows:
        raise UserError(f"base.pretrain.sources: no accepted clip matches {stage.known}")
    return rows


def _told(elsewhere: dict[str, tuple[str, str]], splits: dict[str, str], by_id: dict[str, ClipRow]) -> list[str]:
    """One line for each source and what it shares."""
    counts = Counter((by_id[clip].source, splits[clip], *held) for clip, held in elsewhere.items())
    return [
        f"{number} clips of {source} are left out of {split}: {held} holds the same footage out for {held_split}"
        for (source, split, held_split, held), number in sorted(counts.items())
    ]


def _of(clip: ClipRow) -> dict[str, Any]:
    return {
        "clip_id": clip.clip_id,
        "source": clip.source,
        "shot": clip.shot,
        "start": clip.start,
        **Geometry.of_row(clip).model_dump(),
        "winner": clip.path,
        "winner_sha256": clip.sha256,
    }


def _complete(rows: list[PairRow], broken: str) -> list[PairRow]:
    counts = Counter[str](row.split for row in rows)
    empty = [split for split in SPLITS if not counts[split]]
    if empty:
        raise UserError(
            f"pairs: no pair falls into {' and '.join(empty)} ({dict(counts)}); give more or longer footage, "
            "shorter clips (clips.frames, clips.stride), or larger shares (pairs.validation, pairs.test)"
            + (f"; {broken}" if broken else "")
        )
    return rows


def _limited(rows: list[PairRow], settings: Pairs) -> list[PairRow]:
    if settings.limit is None:
        return rows
    train = sorted(
        (row for row in rows if row.split == "train"), key=lambda row: text_digest(str(settings.seed), row.pair_id)
    )
    return train[: settings.limit] + [row for row in rows if row.split != "train"]
