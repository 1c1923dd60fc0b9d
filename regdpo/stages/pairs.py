"""The manifest of pairs: GT-Pair (arXiv 2511.01450, section 3.1: winner = real clip, loser = generated from it), and
pairs that others made.

Which clip is in which split, and why, says regdpo/data/splits.py.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import pandas as pd

from regdpo.config.schema import Pairs
from regdpo.config.stage_inputs import MinimumStage, PairsStage, SplitsStage
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.frames import kinds
from regdpo.core.rows import CopyRow, SplitRow, rejections
from regdpo.data import copies as duplicated
from regdpo.data import fingerprint, ranking
from regdpo.data.asked import every_id
from regdpo.data.duplicates import Shot
from regdpo.data.names import shown
from regdpo.data.splits import SPLITS, are_known, assign, decided, origins, shared, shortest, side, source_splits

S = TypeVar("S", bound=PairsStage)
TOLD = 20
"""Most pairs that lines name."""

OF_CLIPS = {
    "clip_id": "clip_id", "source": "source", "shot": "shot", "start": "start", "frames": "frames", "fps": "fps",
    "width": "width", "height": "height", "path": "winner", "sha256": "winner_sha256",
}  # fmt: skip
"""Column of the clips -> of the pairs."""
OF_NEGATIVES = {
    "negative_id": "pair_id", "clip_id": "clip_id", "caption": "caption", "path": "loser", "sha256": "loser_sha256",
    "seed": "loser_seed", "generator": "generator",
}  # fmt: skip
OF_IMPORTED = {name: name for name in (
    "pair_id", "source", "frames", "fps", "width", "height", "caption", "winner", "winner_sha256", "loser",
    "loser_sha256", "origin", "label",
)}  # fmt: skip
PLACED = ("clip_id", "status", "reason", "source", "source_digest", "group", "shot", "shot_frames", "start", "frames")
"""Columns of the clips that say which split they are in."""
CLIPS = {*PLACED, *OF_CLIPS}
CAPTIONS = {"clip_id", "caption", "reason"}
NEGATIVES = {*OF_NEGATIVES, "status", "reason"}
IMPORTED = {*OF_IMPORTED, "status", "reason", "source_digest", "group", "fingerprint"}
"""Columns that ``build`` reads of each."""


def build(
    stage: PairsStage,
    clips: pd.DataFrame,
    captions: pd.DataFrame,
    negatives: pd.DataFrame,
    copies: list[CopyRow],
    imported: pd.DataFrame,
    shots: Mapping[Shot, np.ndarray] = MappingProxyType({}),
    ranked: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """One row a negative, for accepted clips of footage that the base model does not know and no other split holds; and
    one for each pair that others made.

    Args:
        clips, captions, negatives, imported: with the columns ``CLIPS``, ``CAPTIONS``, ``NEGATIVES``, ``IMPORTED``.
        shots: steps of the footage's fingerprints (``duplicates.steps_of``), to be found in pairs of others.
        ranked: what the function of that name gives.

    Returns:
        The rows of the manifest; and lines about what makes no pair: clips of which others hold the same out, pairs of
        others whose winner shows what is on another side, and rejected negatives.

    Raises:
        UserError: a split would be empty, a clip lacks its caption, or a list of others has no pair that can be used.
    """
    splits, elsewhere = _placed(stage, clips, copies)
    placed = splits[~splits.index.isin(elsewhere)]
    made = negatives.loc[negatives["clip_id"].isin(placed.index) & (negatives["status"] == "accepted"), [*OF_NEGATIVES]]
    texts = captions[captions["reason"] == ""].set_index("clip_id")["caption"]
    other = made["clip_id"].map(texts) != made["caption"]
    if other.any():
        first = made.loc[other.idxmax(), "negative_id"]
        raise UserError(f"negative {first}: made from another caption; run the negatives stage again")
    rows = made.rename(columns=OF_NEGATIVES).merge(_winners(clips), on="clip_id")
    rows["split"] = rows["clip_id"].map(placed)
    of_others, left_out = _imported(stage, imported, clips, splits, shots)
    broken = _broken(negatives)
    lines = [*_told(elsewhere, splits, clips), *left_out, *filter(None, [broken])]
    why = "; ".join(filter(None, [broken, *left_out]))
    together = _together(rows, of_others)
    if ranked is not None and len(ranked):
        together = pd.concat([together, ranked], ignore_index=True).fillna({"weight": 1.0, "origin": "gt", "label": ""})
    return _limited(_complete(together, why), stage.pairs), lines


def ranked(stage: PairsStage, candidates: pd.DataFrame, scores: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The pairs that are chosen by score, of all sources that do so, and a line about each.

    Raises:
        UserError: as ``ranking.choose``.
    """
    found = []
    for name, source in stage.ranked.items():
        mine = candidates[candidates["origin"] == name]
        if mine.empty:  # of a round whose trainings take none of this source
            continue
        those = scores[scores["clip_id"].isin(mine["prompt_id"])]
        found.append(ranking.choose(name, source, mine, those))
    tables = [rows for rows, _ in found]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), [line for _, line in found]


def places(stage: PairsStage, clips: pd.DataFrame, copies: list[CopyRow]) -> pd.Series:
    """Split by clip id, of those that pairs are made of: of new footage, in no gap between splits, and showing nothing
    that is held out further.

    Args:
        clips: with the columns ``PLACED``.
    """
    splits, elsewhere = _placed(stage, clips, copies)
    return splits[~splits.index.isin(elsewhere)]


def needed(stage: SplitsStage, placed: pd.Series) -> pd.Series:
    """Of what ``places`` says the clips of which negatives are made: with a limit of the training pairs only those
    that it chooses. A negative that is rejected afterwards is a pair less."""
    if stage.pairs.limit is None:
        return placed
    train = placed.index[placed == "train"]
    clip_of = {name: clip_id for clip_id in train for name in every_id(stage.generators, clip_id)}
    chosen = {clip_of[name] for name in _first(clip_of, stage.pairs)}
    return placed[(placed != "train") | placed.index.isin(chosen)]


def count(
    stage: PairsStage, clips: pd.DataFrame, copies: list[CopyRow], placed: pd.Series | None = None
) -> list[SplitRow]:
    """How much footage each split gets, known before any negative is rendered.

    Args:
        placed: what ``places`` says, if it was asked before.

    Raises:
        UserError: a split would be empty, and there are no other pairs; with what the footage lacks.
    """
    placed = places(stage, clips, copies) if placed is None else placed
    accepted = clips[(clips["status"] == "accepted") & ~are_known(clips["source"], stage.known)]
    way = "source" if source_splits(accepted, stage.pairs) else "segment"
    split_of = accepted["clip_id"].map(placed)
    rows = []
    for split in SPLITS:
        mine = accepted[split_of == split]
        rows.append(
            SplitRow(split=split, clips=len(mine), sources=mine["source"].nunique(), stretches=stretches(mine), way=way)
        )
    empty = [row.split for row in rows if not row.clips]
    if empty and stage.alone:
        counts = ", ".join(f"{row.split} {row.clips}" for row in rows)
        raise UserError(f"pairs: no clip falls into {' and '.join(empty)} ({counts}); {_lacking(stage, accepted)}")
    return rows


def _imported(
    stage: PairsStage,
    imported: pd.DataFrame,
    clips: pd.DataFrame,
    splits: pd.Series,
    shots: Mapping[Shot, np.ndarray],
) -> tuple[pd.DataFrame, list[str]]:
    """The pairs of others, each on the side of its winner's origin; without those whose winner's file is in the footage
    and on another side there, or whose winner shows what another side has. And lines about what is left out."""
    taken = imported[imported["status"] == "accepted"]
    if len(unusable := imported[~imported["origin"].isin(taken["origin"])]):
        first = unusable.iloc[0]
        raise UserError(
            f"pairs.sources.{first['origin']}: of {sum(unusable['origin'] == first['origin'])} pairs none can be used; "
            f"such as {first['source']}: {first['reason']}"
        )
    of = origins(taken)
    split = of.map({one: side(one, stage.pairs) for one in of.unique()})
    placed = clips.assign(split=clips["clip_id"].map(splits)).dropna(subset="split")
    there = placed[placed["source_digest"].isin(taken["source_digest"])]
    sides = there.groupby("source_digest")["split"].agg(lambda found: "/".join(sorted({*found})))
    on = taken["source_digest"].map(sides).fillna(split)
    left_out = taken["origin"][on != split].value_counts().sort_index()
    rows = taken.assign(split=split)[on == split]
    elsewhere = _elsewhere(stage, rows, placed, shots)
    rows = rows.loc[~rows["pair_id"].isin(elsewhere), [*OF_IMPORTED, "split"]].assign(shot=0, start=0)
    rows["clip_id"] = rows["pair_id"]
    lines = [
        f"{number} pairs of {name} are left out: their winners are videos of the footage, on another side of the split"
        for name, number in left_out.items()
    ]
    more = [f"{len(elsewhere) - TOLD} more pairs are left out for that reason"] if len(elsewhere) > TOLD else []
    return rows, [*lines, *list(elsewhere.values())[:TOLD], *more]


def _elsewhere(
    stage: PairsStage, pairs: pd.DataFrame, placed: pd.DataFrame, shots: Mapping[Shot, np.ndarray]
) -> dict[str, str]:
    """Id of a pair of others -> line about its winner, which shows what another side has: the footage, or the winner of
    another pair that is held out further (test before validation before train). It may be another file: encoded again,
    scaled, trimmed."""
    if stage.same_footage is None or pairs.empty:
        return {}
    there = placed[["source", "shot", "split"]].drop_duplicates()
    sides = {shot: {*one["split"]} for shot, one in there.groupby(["source", "shot"]) if shot in shots}
    ordered = pairs.assign(rank=[-SPLITS.index(split) for split in pairs["split"]]).sort_values(["rank", "pair_id"])
    steps = [shots[shot] for shot in sides]
    for pair, told in zip(ordered["pair_id"], ordered["fingerprint"], strict=True):
        try:
            steps.append(fingerprint.steps_of(told))
        except ValueError:
            raise UserError(f"pair {pair}: its fingerprint is damaged; make the import's manifest again") from None
    names = [*(shown(source) for source, _ in sides), *ordered["source"]]
    where = [*sides.values(), *({split} for split in ordered["split"])]
    found: dict[str, str] = {}
    for copy in duplicated.find(steps, stage.same_footage):
        if copy.later >= len(sides) and where[copy.earlier] != where[copy.later]:
            (split,) = where[copy.later]
            found.setdefault(
                ordered["pair_id"].iloc[copy.later - len(sides)],
                f"pair {names[copy.later]} is left out of {split}: its winner shows the same as {names[copy.earlier]}, "
                f"which is in {' and '.join(sorted(where[copy.earlier]))}",
            )
    return found


def _together(made: pd.DataFrame, of_others: pd.DataFrame) -> pd.DataFrame:
    """Those of the footage and those of others."""
    if of_others.empty:
        return made
    gaps = {"generator": "", "loser_seed": -1}
    return pd.concat([made.assign(origin="gt", label=""), of_others.assign(**gaps)], ignore_index=True)[
        [*of_others, *gaps]
    ]


def settled(stage: S, split: str | None) -> S:
    """The stage's configuration with what was decided of the split, if there is a file of that."""
    return stage.model_copy(update={"pairs": decided(split, stage.pairs)}) if split else stage


def told(rows: list[SplitRow]) -> str:
    """The counts in a line, for the reader."""
    how = "each video in one of them" if {row.way for row in rows} == {"source"} else "each shot cut in time"
    counts = ", ".join(f"{row.split} {row.clips} (videos: {row.sources})" for row in rows)
    return f"clips by split: {counts}; {how}"


def stretches(clips: pd.DataFrame) -> int:
    """How many stretches of footage clips lie on: those of one shot that overlap in time lie on one."""
    ordered = clips.sort_values(["source", "shot", "start"])
    shots = [ordered["source"], ordered["shot"]]
    before = (ordered["start"] + ordered["frames"]).groupby(shots).cummax().groupby(shots).shift()
    return int((~(ordered["start"] < before)).sum())


def too_few(rows: list[SplitRow], asked: MinimumStage) -> str:
    """A line where the held-out split has less footage than the report asks for; else empty."""
    row, minimum = next(row for row in rows if row.split == asked.split), asked.minimum
    if row.sources >= minimum.sources and row.stretches >= minimum.clips:
        return ""
    return (
        f"{row.split} has {row.clips} clips on {row.stretches} stretches of {row.sources} videos; the report says a "
        f"word like better only from {minimum.clips} clips of {minimum.sources} videos on, and clips that overlap are "
        "one (report.minimum)"
    )


def _placed(
    stage: PairsStage, clips: pd.DataFrame, copies: list[CopyRow]
) -> tuple[pd.Series, dict[str, tuple[str, str]]]:
    """Split of each clip of new footage, by its id, and what is held out further and shows the same, as
    ``splits.shared`` says."""
    new = clips[~are_known(clips["source"], stage.known)]
    splits = assign(new, stage.pairs)
    return splits, shared(new, splits, copies, stage.frames)


def _lacking(stage: PairsStage, accepted: pd.DataFrame) -> str:
    """What the footage lacks for three splits, and what would do."""
    if accepted.empty:
        return "no clip was accepted: the clips' manifest has the reason of each"
    settings, frames = stage.pairs, accepted["frames"].min()
    sources = accepted["source"].nunique()
    if source_splits(accepted, settings):
        enough = math.ceil(5 / min(settings.validation, settings.test, 1 - settings.validation - settings.test))
        return (
            f"{origins(accepted).nunique()} videos (or groups of them) fall where the hash of each says, and {enough} "
            "would almost surely fill all three: give more videos, larger shares (pairs.validation is "
            f"{settings.validation:g}, pairs.test {settings.test:g}), or pairs.split: auto, which looks for a way that "
            "fills all three"
        )
    least = shortest(settings, frames)
    longest = accepted["shot_frames"].max()
    by_source = ", or pairs.split: auto, which may give whole videos to a split" if sources >= len(SPLITS) else ""
    starts = "" if longest < least else "more places where clips start (clips.stride: 1 is all), "
    return (
        f"a shot has to have about {least} frames for a clip in each, where one starts at every frame, and the longest "
        f"has {longest}: give {starts}longer ones, shorter clips (clips.frames is {frames}), larger shares "
        f"(pairs.validation is {settings.validation:g}, pairs.test {settings.test:g}){by_source}"
    )


def pretraining(stage: PairsStage, clips: pd.DataFrame, captions: pd.DataFrame) -> pd.DataFrame:
    """Winners alone, all to train on: the footage that a base model made here is to know.

    Raises:
        UserError: no accepted clip is from a known source, or a clip lacks its caption.
    """
    rows = _winners(clips[(clips["status"] == "accepted") & are_known(clips["source"], stage.known)])
    rows = rows.merge(captions, on="clip_id", how="left")
    if rows["reason"].isna().any():
        first = rows["clip_id"][rows["reason"].isna()].iloc[0]
        raise UserError(f"clip {first}: has no caption; run the captions stage again")
    rows = rows[rows["reason"] == ""].drop(columns="reason").assign(split="train")
    if rows.empty:
        raise UserError(f"base.pretrain.sources: no accepted clip matches {stage.known}")
    return rows.assign(pair_id=rows["clip_id"])


def _winners(clips: pd.DataFrame) -> pd.DataFrame:
    return clips[[*OF_CLIPS]].rename(columns=OF_CLIPS)


def _told(elsewhere: dict[str, tuple[str, str]], splits: pd.Series, clips: pd.DataFrame) -> list[str]:
    """One line for each source and what it shares."""
    those = clips[clips["clip_id"].isin(elsewhere)]
    counts = Counter(
        (source, splits[clip], *elsewhere[clip]) for source, clip in zip(those["source"], those["clip_id"], strict=True)
    )
    return [
        f"{number} clips of {source} are left out of {split}: {held} holds the same footage out for {held_split}"
        for (source, split, held_split, held), number in sorted(counts.items())
    ]


def _broken(negatives: pd.DataFrame) -> str:
    """How many negatives make no pair, and why, in a line; empty if none."""
    return rejections(kinds(negatives["reason"][negatives["status"] == "rejected"]), len(negatives))


def _complete(rows: pd.DataFrame, broken: str) -> pd.DataFrame:
    counts = rows["split"].value_counts().to_dict()
    empty = [split for split in SPLITS if split not in counts]
    if empty:
        raise UserError(
            f"pairs: no pair falls into {' and '.join(empty)} ({counts}); give more or longer footage, "
            "shorter clips (clips.frames, clips.stride), or larger shares (pairs.validation, pairs.test)"
            + (f"; {broken}" if broken else "")
        )
    return rows


def _limited(rows: pd.DataFrame, settings: Pairs) -> pd.DataFrame:
    if settings.limit is None:
        return rows
    train = rows[rows["split"] == "train"]
    return rows[(rows["split"] != "train") | rows["pair_id"].isin(_first(train["pair_id"], settings))]


def _first(pair_ids: Iterable[str], settings: Pairs) -> list[str]:
    """As many as the limit says, in the order of their hashes by the seed."""
    return sorted(pair_ids, key=lambda pair_id: text_digest(str(settings.seed), pair_id))[: settings.limit]
