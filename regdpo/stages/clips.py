"""The clips stage: real videos in, normalised clips and a reason for every rejection out.

A video belongs to one shard by the hash of its path. Each shard finds shots, cuts every shot into windows of time and
space, measures the clips and writes their rows (regdpo/data/clipping.py).
"""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from regdpo.config import schema
from regdpo.config.stage_inputs import ClipsStage
from regdpo.core.digests import shard_of
from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.rows import ClipRow
from regdpo.core.store import Store
from regdpo.data import buckets, filters, footage, names, table
from regdpo.data.clipping import Source, Span, clip_id, examine, video_rows
from regdpo.data.registry import of_weights


def cut_shard(stage: ClipsStage, digests: dict[str, str], index: int, count: int, store: Store) -> list[ClipRow]:
    """Cut the clips of one shard into the store.

    Args:
        stage: the stage's configuration.
        digests: of all videos, from ``source_digests``.
        index: the shard.
        count: number of shards.
        store: where clips go, and what is remembered of earlier runs.

    Returns:
        One row a clip, ordered by id; one rejected row for a video that is broken, for a shot that is too short and
        for a stretch of time from which no clip is cut.

    Raises:
        UserError: the store lies among the videos.
        OSError: ENOSPC, the disk is full.
    """
    root = footage.footage_root(stage.videos.root)
    listed = table.listing(stage.videos)
    for name in digests:
        if (root / name).is_relative_to(store.root.resolve()):
            raise UserError(f"{root / name}: lies in the store; name the store's folder in videos.exclude")
    judges = {
        it.column or it.score: it.measure()(getattr(stage.clips, it.weights), store)
        for it in of_weights(stage.clips.filters).values()
    }
    rows: list[ClipRow] = []
    for name in track([name for name in digests if shard_of(name, count) == index], "videos"):
        if digests[name]:
            found = _rows_of_video(root, name, digests[name], listed.get(name), stage.clips, store)
            rows += [_judged(row, judges, stage.clips.filters) for row in found]
        else:
            shown = names.shown(name)
            reason = f"unusable: {footage.refusal(root, name) or 'was no file that can be opened when this began'}"
            rows.append(
                ClipRow(clip_id=clip_id(shown), status="rejected", reason=reason, source=shown, source_digest="")
            )
    told = {name: {"licence": one.licence, "group": one.group} for name, one in listed.items()}
    rows = [row.model_copy(update=told[row.source]) if row.source in told else row for row in rows]
    return sorted(rows, key=lambda row: row.clip_id)


def _rows_of_video(
    root: Path, name: str, digest: str, listed: table.Listed | None, clips: schema.Clips, store: Store
) -> Iterator[ClipRow]:
    """Of a video, and of each of its parts, the row of every clip, and of what none is cut from."""
    for part, source in enumerate(examine(root / name, name, digest, clips, store)):
        row = clip_id(name, f"p{part:02}" if part else "")
        if isinstance(source, str):
            yield ClipRow(clip_id=row, status="rejected", reason=source, source=name, source_digest=digest)
            continue
        spans: list[Span] = []
        used = list(_stretches(source, listed))
        if listed and source.shots and not used:
            seconds = ", ".join(map(str, listed.stretches))
            reason = f"stretch: nothing of its shots is shown in what the table lists ({seconds})"
            yield source.row(row, 0, status="rejected", reason=reason)
        for number, begin, frames in used:
            picture = source.picture(number)
            geometry = buckets.choose(clips.geometries, *picture, frames)
            if geometry is None:
                what = "the shot" if frames == source.shots[number].frames else "the table's stretch of the shot"
                least = min(it.frames for it in buckets.open_to(clips.geometries, *picture))
                reason = f"short: {what} has {frames} frames, a clip takes {least}"
                row = clip_id(name, f"s{source.earlier + number:03}" + (f"-f{begin:06}" if begin else ""))
                yield source.row(row, number, status="rejected", reason=reason)
                continue
            starts = range(begin, begin + frames - geometry.frames + 1, clips.stride or geometry.frames)
            new = not spans or spans[-1].shot != number
            spans += [Span(source, number, start, geometry, new and start == begin) for start in starts]
        if spans:
            yield from chain.from_iterable(video_rows(spans, clips, store))


def _judged(row: ClipRow, judges: dict[str, Callable[[ClipRow], Any]], limits: schema.Filters) -> ClipRow:
    """An accepted clip with the scores that need weights, and the columns; rejected, if a score lies beyond its
    threshold."""
    if row.status == "rejected" or not judges:
        return row
    scores = row.scores | {key: judge(row) for key, judge in judges.items() if key not in ClipRow.model_fields}
    reason = filters.reject_reason(scores, limits, row.frames == 1)
    if reason:
        values = {"status": "rejected", "reason": reason, "path": "", "sha256": ""}
    else:
        values = {key: judge(row) for key, judge in judges.items() if key in ClipRow.model_fields}
    return row.model_copy(update={"scores": scores, **values})


def _stretches(source: Source, listed: table.Listed | None) -> Iterator[tuple[int, int, int]]:
    """Number of a shot, first frame counted from its first, and number of frames, of all that is used of a video."""
    if listed is None:
        yield from ((number, 0, shot.frames) for number, shot in enumerate(source.shots))
        return
    with np.load(source.seen) as arrays:
        times = arrays["times"]
    for number, shot in enumerate(source.shots):
        for begin, end in table.runs(listed, times, shot.start, shot.start + shot.frames):
            yield number, begin - shot.start, end - begin
