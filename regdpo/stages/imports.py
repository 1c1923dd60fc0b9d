"""The imports stage: pairs that others made, both halves brought to what clips are."""

from collections import Counter

from regdpo.config.schema import PairSource
from regdpo.config.stage_inputs import ImportsStage
from regdpo.core.digests import DigestCache, shard_of
from regdpo.core.progress import track
from regdpo.core.rows import ImportedRow
from regdpo.core.store import Store
from regdpo.data import labels
from regdpo.data.clipping import clip_id
from regdpo.data.halves import Half, alone, both
from regdpo.data.names import shown
from regdpo.data.pair_lists import SAME, Listed, pairs_of
from regdpo.data.video import BrokenVideo
from regdpo.evaluate.gsb import ordinal_alpha


def import_shard(
    stage: ImportsStage, name: str, index: int, count: int, store: Store, digests: DigestCache
) -> list[ImportedRow]:
    """The pairs of one shard of a source, rejected ones with their reason.

    Args:
        stage: the stage's configuration. name: of the source. index: the shard. count: number of shards.
        store: where the halves go. digests: of the files, so that each is read once.

    Raises:
        UserError: the list cannot be read.
        OSError: ENOSPC, the disk is full.
    """
    mine = [row for row in pairs_of(name, stage.sources[name]) if shard_of(row.name, count) == index]
    return [_imported(stage, name, row, store, digests) for row in track(mine, f"pairs of {name}")]


def told(rows: list[ImportedRow]) -> str:
    """A line about what was imported, for the reader."""
    kinds = Counter(row.kind for row in rows if row.status == "rejected")
    accepted = sum(row.status == "accepted" for row in rows)
    line = f"{accepted} pairs of {rows[0].origin} imported" if rows else "no pairs in this shard"
    if not kinds:
        return line
    first = next(row for row in rows if row.status == "rejected")
    counts = ", ".join(f"{number} for {kind}" for kind, number in sorted(kinds.items()))
    return f"{line}, {kinds.total()} rejected ({counts}; such as {first.source}: {first.reason})"


def agreement(source: PairSource) -> list[str]:
    """A line about how far the raters of labels agree, for the reader; none of other sources."""
    if source.kind != "labels":
        return []
    votes = [verdict.votes for verdict in labels.verdicts(source)]
    ties = sum(not sum(its) for its in votes)
    alpha = ordinal_alpha(votes)
    how = "not known, of raters who judged nothing in common" if alpha is None else f"Krippendorff's alpha {alpha:.2f}"
    return [f"{len(votes)} videos or pairs of them were judged, {ties} are ties and left out; agreement: {how}"]


def _imported(stage: ImportsStage, name: str, pair: Listed, store: Store, digests: DigestCache) -> ImportedRow:
    known = {"pair_id": clip_id(f"{name}/{pair.name}"), "origin": name, "source": f"{name}/{shown(pair.name)}"}
    known |= {"group": shown(pair.group), "caption": pair.caption, "votes": pair.votes}
    if pair.reason:
        return ImportedRow(status="rejected", reason=pair.reason, **known)
    try:
        ends = [(path, digests.digest(path)) for path in (pair.winner, pair.loser)[: 1 if pair.label else 2]]
        known["source_digest"] = ends[0][1]
        if len(ends) > 1 and ends[0][1] == ends[1][1]:
            return ImportedRow(status="rejected", reason=SAME, **known)
        if pair.label:
            known["label"] = pair.label
            winner, geometry = alone(ends[0], stage.clips, store)
            loser = Half("", "", "")
        else:
            winner, loser, geometry = both(ends[0], ends[1], stage.clips, store)
    except BrokenVideo as error:
        return ImportedRow(status="rejected", reason=str(error), **known)
    if winner.sha256 == loser.sha256:
        return ImportedRow(status="rejected", reason=SAME, **known)
    return ImportedRow(
        status="accepted",
        **known,
        **geometry.model_dump(),
        winner=winner.path,
        winner_sha256=winner.sha256,
        loser=loser.path,
        loser_sha256=loser.sha256,
        fingerprint=winner.fingerprint,
    )
