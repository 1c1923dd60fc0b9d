"""The GT-Pair manifest (arXiv 2511.01450, section 3.1): winner = real clip, loser = generated from it.

Train, validation and test share no footage that is found to be the same. With enough sources a source belongs to one
split, by the hash of its name, so that a new source moves no other. With few, every shot is cut in time: its first part
trains, the middle validates, the end tests, and between the parts lies a gap wider than a clip, so that no clip has a
frame, or a neighbouring frame, in two splits. Where two shots show the same footage (a trimmed copy, a recap), what is
held out stays, and clips of the other shot that come nearer to it than that gap are left out.
"""

import bisect
import itertools
from collections import Counter, defaultdict
from typing import Any

from regdpo.config import Pairs
from regdpo.data.video import matches
from regdpo.errors import UserError
from regdpo.provenance import text_digest
from regdpo.stages import PairsStage
from regdpo.tables import CaptionRow, ClipRow, CopyRow, NegativeRow, PairRow

SPLITS = ("train", "validation", "test")


def is_known(source: str, known: list[str]) -> bool:
    """Whether the base model was trained on a source, by the glob patterns of ``base.pretrain.sources``."""
    return matches(source, known)


def build(
    stage: PairsStage,
    clips: list[ClipRow],
    captions: list[CaptionRow],
    negatives: list[NegativeRow],
    copies: list[CopyRow],
) -> tuple[list[PairRow], list[str]]:
    """One row a negative, for accepted clips of footage that the base model does not know and no other split holds.

    Returns:
        The rows; and lines about the clips that were left out, because what they show is held out.

    Raises:
        UserError: a split would be empty, or a clip lacks its caption.
    """
    new = [clip for clip in clips if not is_known(clip.source, stage.known)]
    splits = assign(new, stage.pairs, stage.frames)
    elsewhere = shared(new, splits, copies, stage.frames)
    texts = {row.clip_id: row.caption for row in captions}
    by_id = {clip.clip_id: clip for clip in clips}
    rows = []
    for negative in negatives:
        split = splits.get(negative.clip_id)
        if split is None or negative.clip_id in elsewhere:
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
            )
        )
    return _limited(_complete(rows), stage.pairs), _told(elsewhere, splits, by_id)


def pretraining(stage: PairsStage, clips: list[ClipRow], captions: list[CaptionRow]) -> list[PairRow]:
    """Winners alone, all to train on: the footage that a base model made here is to know.

    Raises:
        UserError: no accepted clip is from a known source, or a clip lacks its caption.
    """
    texts = {row.clip_id: row.caption for row in captions}
    rows = []
    for clip in clips:
        if clip.status == "rejected" or not is_known(clip.source, stage.known):
            continue
        if clip.clip_id not in texts:
            raise UserError(f"clip {clip.clip_id}: has no caption; run the captions stage again")
        rows.append(PairRow(pair_id=clip.clip_id, split="train", **_of(clip), caption=texts[clip.clip_id]))
    if not rows:
        raise UserError(f"base.pretrain.sources: no accepted clip matches {stage.known}")
    return rows


def assign(clips: list[ClipRow], settings: Pairs, frames: int) -> dict[str, str]:
    """Clip id -> split. Rejected clips, and clips that would reach over a gap, are in none."""
    split_of = source_splits([clip for clip in clips if clip.status == "accepted" or _is_duplicate(clip)], settings)
    accepted = [clip for clip in clips if clip.status == "accepted"]
    if split_of:
        return {clip.clip_id: split_of[clip.source] for clip in accepted}
    return {clip.clip_id: split for clip in accepted if (split := _segment(clip, settings, frames))}


def source_splits(clips: list[ClipRow], settings: Pairs) -> dict[str, str]:
    """Source -> split, by the hash of its name alone, but that validation and test get one source at least; nothing
    where shots are cut in time instead.

    Args:
        clips: of the sources that there are, without regard to which of several copies is kept.
        settings: how to split.
    """
    place = {clip.source: int(text_digest(str(settings.seed), clip.source)[:13], 16) / 16**13 for clip in clips}
    if settings.split == "segment" or (settings.split == "auto" and len(place) < settings.min_sources):
        return {}
    order = sorted(place, key=lambda source: (place[source], source))
    tests = max(1, sum(where < settings.test for where in place.values()))
    held = sum(where < settings.test + settings.validation for where in place.values())
    names = ["test"] * tests + ["validation"] * max(1, held - tests)
    return dict(itertools.zip_longest(order, names[: len(order)], fillvalue="train"))


def _is_duplicate(clip: ClipRow) -> bool:
    return clip.reason.startswith("duplicate:")


def shared(
    clips: list[ClipRow], splits: dict[str, str], copies: list[CopyRow], frames: int
) -> dict[str, tuple[str, str]]:
    """Id of a clip -> split and source of a clip that is held out further (test before validation before train) and
    shows the same footage, or some that lies no further off than a clip is long."""
    mine: dict[tuple[str, int], list[ClipRow]] = defaultdict(list)
    starts: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.start):
        if clip.clip_id in splits:
            mine[clip.source, clip.shot].append(clip)
            starts[clip.source, clip.shot, splits[clip.clip_id]].append(clip.start)
    found = {}
    for copy in copies:
        one, other = (copy.source, copy.shot, copy.start), (copy.other_source, copy.other_shot, copy.other_start)
        for (source, shot, start), (held, held_shot, held_start) in ((one, other), (other, one)):
            for clip in mine[source, shot]:
                for split in SPLITS[SPLITS.index(splits[clip.clip_id]) + 1 :]:
                    if near(starts[held, held_shot, split], clip.start - start + held_start, 2 * frames):
                        found[clip.clip_id] = split, held
    return found


def near(starts: list[int], start: float, far: float) -> bool:
    """Whether one of the sorted starts lies no further than that from another."""
    after = bisect.bisect_left(starts, start - far)
    return after < len(starts) and starts[after] <= start + far


def _told(elsewhere: dict[str, tuple[str, str]], splits: dict[str, str], by_id: dict[str, ClipRow]) -> list[str]:
    """One line for each source and what it shares."""
    counts = Counter((by_id[clip].source, splits[clip], *held) for clip, held in elsewhere.items())
    return [
        f"{number} clips of {source} are left out of {split}: {held} holds the same footage out for {held_split}"
        for (source, split, held_split, held), number in sorted(counts.items())
    ]


def _segment(clip: ClipRow, settings: Pairs, frames: int) -> str | None:
    """The split of the segment that holds all of a clip's frames; None if it reaches into a gap."""
    gap = frames + 1
    shares = {
        "train": 1 - settings.validation - settings.test,
        "validation": settings.validation,
        "test": settings.test,
    }
    usable = clip.shot_frames - gap * (len(shares) - 1)
    begin = 0.0
    for name, share in shares.items():
        end = begin + share * usable
        if begin <= clip.start and clip.start + frames <= end:
            return name
        begin = end + gap
    return None


def _of(clip: ClipRow) -> dict[str, Any]:
    return {
        "clip_id": clip.clip_id,
        "source": clip.source,
        "shot": clip.shot,
        "start": clip.start,
        "winner": clip.path,
        "winner_sha256": clip.sha256,
    }


def _complete(rows: list[PairRow]) -> list[PairRow]:
    counts = Counter[str](row.split for row in rows)
    empty = [split for split in SPLITS if not counts[split]]
    if empty:
        raise UserError(
            f"pairs: no pair falls into {' and '.join(empty)} ({dict(counts)}); give more or longer footage, "
            "shorter clips (clips.frames, clips.stride), or larger shares (pairs.validation, pairs.test)"
        )
    return rows


def _limited(rows: list[PairRow], settings: Pairs) -> list[PairRow]:
    if settings.limit is None:
        return rows
    train = sorted(
        (row for row in rows if row.split == "train"), key=lambda row: text_digest(str(settings.seed), row.pair_id)
    )
    return train[: settings.limit] + [row for row in rows if row.split != "train"]
