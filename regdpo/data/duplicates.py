"""The shards' clips as one manifest, in which the same footage is kept once, and of clips that look alike one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from regdpo.config.stage_inputs import MergeStage
from regdpo.core import frames, manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, CopyRow
from regdpo.data import copies, fingerprint, similar, splits
from regdpo.data.registry import FILTERS
from regdpo.data.splits import SPLITS, are_known, source_splits

Shot = tuple[str, int]
"""Source, and number of the shot."""
COLUMNS = (
    "clip_id", "status", "reason", "source", "source_digest", "group", "source_pixels", "source_rate", "shot",
    "shot_frames", "start", "frames", "fps", "width", "height", "crop_x", "crop_y", "scores",
)  # fmt: skip
"""That are looked at of all clips, beside the fingerprints."""


def merge(
    shards: Sequence[str | Path], stage: MergeStage, out: str | Path, decision: Path | None = None
) -> tuple[pd.DataFrame, list[CopyRow]]:
    """Write the manifest of all clips: those of the shards, without fingerprints, and those rejected whose footage
    another shot shows too.

    Args:
        shards: their manifests. stage: the configuration. out: the manifest.
        decision: as of ``find``.

    Returns:
        The clips as they are written, with the columns ``COLUMNS``; and which shots show the same.

    Raises:
        UserError: a manifest or a fingerprint is damaged.
    """
    parts: list[pd.DataFrame] = []
    steps: dict[Shot, np.ndarray] = {}
    vectors: dict[str, np.ndarray] = {}
    for shard in shards:
        table = manifests.read_table(shard, ClipRow, [*COLUMNS, "fingerprint", "embedding"])
        steps |= steps_of(table)
        vectors |= similar.vectors_of(table) if stage.max_similar else {}
        parts.append(frames.of(table.drop_columns(["fingerprint", "embedding"])))
    clips = pd.concat(parts, ignore_index=True)
    reasons, found = find(clips, steps, stage, decision)
    scores: dict[str, float] = {}
    if stage.max_similar:
        scores, alike = resembling(clips[~clips["clip_id"].isin(reasons)], vectors, stage, decision)
        reasons |= alike
    manifests.merge(out, shards, ClipRow, lambda table: similar.scored(without(table, reasons), scores))
    which = clips["clip_id"].isin(reasons)
    clips.loc[which, "status"] = "rejected"
    clips.loc[which, "reason"] = clips.loc[which, "clip_id"].map(reasons)
    return clips, found


def find(
    clips: pd.DataFrame, steps: dict[Shot, np.ndarray], stage: MergeStage, decision: Path | None = None
) -> tuple[dict[str, str], list[CopyRow]]:
    """Which clips show footage that another shot shows too, and which shots show the same.

    Kept is the clip that is held out (test before validation before train), so that a copy moves no footage into
    another split; then the one whose source has more pixels, then more bits a second, then the first name, then
    the first shot. Where shots are cut in time into splits, all clips of one source are kept: which of them comes first
    says nothing of where it is held out.

    Args:
        clips: of all shards. steps: of the shots' fingerprints, which are used up. stage: the configuration.
        decision: file that says how the footage is split (``splits.decide``), which is made if it is not there.

    Returns:
        Id of a clip -> why it is to be rejected; and the shots.
    """
    accepted, shown, sides = _in_order(clips, stage, decision)
    shots = list(zip(shown["source"], shown["shot"], strict=True))
    rates = shown["fps"].tolist()
    none = fingerprint.steps_of("")
    found = copies.find([steps.pop(shot, none) for shot in shots], stage.same_footage)
    reasons = _duplicates(found, shots, accepted, set(sides))
    return reasons, [_row(copy, shots, rates[copy.later]) for copy in found]


def resembling(
    clips: pd.DataFrame, vectors: dict[str, np.ndarray], stage: MergeStage, decision: Path | None = None
) -> tuple[dict[str, float], dict[str, str]]:
    """How much clips look like others that come before them in the order of ``find``, and which do so too much.

    Clips of one shot are not held against each other, nor those of one source where shots are cut in time into splits.

    Args:
        clips: that the same footage leaves. vectors: id of a clip -> its embedding. stage, decision: as of ``find``.

    Returns:
        Id of a clip -> the greatest cosine; and -> why it is rejected.
    """
    accepted, shown, sides = _in_order(clips, stage, decision)
    place = shown.assign(place=np.arange(len(shown)))[["source", "shot", "place"]]
    asked = accepted[accepted["clip_id"].isin(vectors.keys())].merge(place, on=["source", "shot"])
    asked = asked.sort_values(["place", "start", "clip_id"], ignore_index=True)
    if asked.empty:
        return {}, {}
    cut = ~asked["source"].isin(sides.keys())
    apart = np.where(cut, -1 - pd.factorize(asked["source"])[0], asked["place"])
    ids, declared = asked["clip_id"].tolist(), FILTERS["similar"]
    cosines, others = similar.nearest(np.stack([vectors[one] for one in ids]), apart)
    scores = {one: round(float(it), 4) for one, it in zip(ids, cosines, strict=True) if np.isfinite(it)}
    return scores, {
        one: f"similar: {declared.says.format(score=scores[one], limit=stage.max_similar)} ({ids[other]})"
        for one, other in zip(ids, others.tolist(), strict=True)
        if one in scores and stage.max_similar is not None and declared.rejects(scores[one], stage.max_similar)
    }


def _in_order(
    clips: pd.DataFrame, stage: MergeStage, decision: Path | None
) -> tuple[pd.DataFrame, pd.DataFrame, Mapping[str, str]]:
    """The accepted clips, one row for each of their shots in the order in which they are kept, and the split of each
    source that is whole in one."""
    accepted = clips[clips["status"] == "accepted"]
    new = accepted[~are_known(accepted["source"], stage.known)]
    settings = splits.decide(decision, new, stage.pairs) if decision else stage.pairs
    sides = source_splits(new, settings)
    rank = {source: len(SPLITS) - SPLITS.index(side) for source, side in sides.items()}
    shown = accepted.drop_duplicates(["source", "shot"])
    shown = shown.assign(rank=shown["source"].map(rank).fillna(len(SPLITS) + 1))
    order = ["rank", "source_pixels", "source_rate", "source", "shot"]
    shown = shown.sort_values(order, ascending=[True, False, False, True, True])
    return accepted, shown, sides


def steps_of(table: pa.Table) -> dict[Shot, np.ndarray]:
    """Those of the shots whose fingerprints are in some rows.

    Raises:
        UserError: a fingerprint is none.
    """
    found, table = {}, table.filter(pc.not_equal(table["fingerprint"], ""))
    columns = (table[name].to_pylist() for name in ("source", "shot", "clip_id", "fingerprint"))
    for source, shot, clip_id, text in zip(*columns, strict=True):
        try:
            found[source, shot] = fingerprint.steps_of(text)
        except ValueError:
            raise UserError(f"clip {clip_id}: its fingerprint is damaged; make the shard's manifest again") from None
    return found


def without(table: pa.Table, reasons: dict[str, str]) -> pa.Table:
    """Rows of clips without fingerprints and embeddings, those of ``reasons`` rejected."""
    which = pc.is_in(table["clip_id"], value_set=pa.array(sorted(reasons), pa.string()))
    why = [reasons.get(clip_id, "") for clip_id in table["clip_id"].to_pylist()]
    values = {
        "status": pc.if_else(which, "rejected", table["status"]),
        "reason": pc.if_else(which, pa.array(why, pa.string()), table["reason"]),
        "fingerprint": pa.repeat("", len(table)),
        "embedding": pa.repeat("", len(table)),
    }
    for name, column in values.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _duplicates(found: list[copies.Copy], shots: list[Shot], accepted: pd.DataFrame, whole: set[str]) -> dict[str, str]:
    """Id of a clip -> why it is rejected: at least half of its frames are those of a clip that is kept. Sources that
    are ``whole`` in one split are held against themselves too."""
    reasons: dict[str, str] = {}
    kept: dict[Shot, list[int]] = {}
    of: dict[int, list[copies.Copy]] = defaultdict(list)
    for copy in found:
        source = shots[copy.later][0]
        if shots[copy.earlier][0] != source or source in whole:
            of[copy.later].append(copy)
    numbers = sorted({*of, *(copy.earlier for those in of.values() for copy in those)})
    clips = defaultdict(list)
    for clip in accepted[accepted["source"].isin({shots[number][0] for number in numbers})].itertuples():
        clips[clip.source, clip.shot].append(clip)
    for number in numbers:
        shot = shots[number]
        for clip in clips[shot]:
            for copy in of[number]:
                step, half = fingerprint.step_frames(clip.fps), clip.frames / 2
                source, other = shots[copy.earlier]
                common = min(clip.start + clip.frames, copy.stop * step) - max(clip.start, copy.start * step)
                if common >= half and splits.near(kept[source, other], clip.start + copy.offset * step, half):
                    reasons[clip.clip_id] = f"duplicate: same content as {source} shot {other}"
                    break
        kept[shot] = sorted({clip.start for clip in clips[shot] if clip.clip_id not in reasons})
    return reasons


def _row(copy: copies.Copy, shots: list[Shot], fps: float) -> CopyRow:
    step = fingerprint.step_frames(fps)
    (source, shot), (other, other_shot) = shots[copy.later], shots[copy.earlier]
    return CopyRow(
        copy_id=f"{source} shot {shot} = {other} shot {other_shot}",
        source=source,
        shot=shot,
        start=round(copy.start * step),
        frames=round((copy.stop - copy.start) * step),
        other_source=other,
        other_shot=other_shot,
        other_start=round((copy.start + copy.offset) * step),
    )
