"""The clips stage: real videos in, normalised clips and a reason for every rejection out.

A video belongs to one shard by the hash of its path. Each shard finds shots, cuts every shot into windows of time and
space, measures the clips and writes their rows (regdpo/data/clipping.py).
"""

from collections.abc import Callable, Iterator
from itertools import chain
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
    root, geometries = footage.footage_root(stage.videos.root), stage.clips.geometries
    listed = table.listing(stage.videos)
    for name in digests:
        if (root / name).is_relative_to(store.root.resolve()):
            raise UserError(f"{root / name}: lies in the store; name the store's folder in videos.exclude")
    judges = {
        it.column or it.score: it.measure()(getattr(stage.clips, it.weights), store)
        for it in of_weights(stage.clips.filters).values()
    }
    rows: list[ClipRow] = []
    spans: list[list[Span]] = []  # of each video, or part of one
    for name in track([name for name in digests if shard_of(name, count) == index], "videos"):
        if not digests[name]:
            shown = names.shown(name)
            reason = f"unusable: {footage.refusal(root, name) or 'was no file that can be opened when this began'}"
            rows.append(
                ClipRow(clip_id=clip_id(shown), status="rejected", reason=reason, source=shown, source_digest="")
            )
            continue
        for part, source in enumerate(examine(root / name, name, digests[name], stage.clips, store)):
            if isinstance(source, str):
                row = clip_id(name, f"p{part:02}" if part else "")
                rows.append(
                    ClipRow(clip_id=row, status="rejected", reason=source, source=name, source_digest=digests[name])
                )
                continue
            spans.append([])
            used = list(_stretches(source, listed.get(name)))
            if source.shots and not used:
                seconds = ", ".join(map(str, listed[name].stretches))
                reason = f"stretch: nothing of its shots is shown in what the table lists ({seconds})"
                row = clip_id(name, f"p{part:02}" if part else "")
                rows.append(source.row(row, 0, status="rejected", reason=reason))
            for number, begin, frames in used:
                picture = source.picture(number)
                geometry = buckets.choose(geometries, *picture, frames)
                if geometry is None:
                    what = "the shot" if frames == source.shots[number].frames else "the table's stretch of the shot"
                    least = min(it.frames for it in buckets.open_to(geometries, *picture))
                    reason = f"short: {what} has {frames} frames, a clip takes {least}"
                    row = clip_id(name, f"s{source.earlier + number:03}" + (f"-f{begin:06}" if begin else ""))
                    rows.append(source.row(row, number, status="rejected", reason=reason))
                    continue
                starts = range(begin, begin + frames - geometry.frames + 1, stage.clips.stride or geometry.frames)
                new = not spans[-1] or spans[-1][-1].shot != number
                spans[-1] += [Span(source, number, start, geometry, new and start == begin) for start in starts]
    found = chain.from_iterable(video_rows(those, stage.clips, store) for those in spans if those)
    for some in track(found, "clips", sum(map(len, spans))):
        rows += [_judged(row, judges, stage.clips.filters) for row in some]
    told = {name: {"licence": one.licence, "group": one.group} for name, one in listed.items()}
    rows = [row.model_copy(update=told[row.source]) if row.source in told else row for row in rows]
    return sorted(rows, key=lambda row: row.clip_id)


def _judged(row: ClipRow, judges: dict[str, Callable[[ClipRow], Any]], limits: schema.Filters) -> ClipRow:
    """An accepted clip with the scores that need weights, and the columns; rejected, if a score lies beyond its
    threshold."""
    if row.status == "rejected" or not judges:
        return row
    scores = row.scores | {key: judge(row) for key, judge in judges.items() if key not in ClipRow.model_fields}
    reason = filters.reject_reason(scores, limits)
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
