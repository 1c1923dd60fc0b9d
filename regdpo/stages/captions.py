"""The captions stage: one caption a clip."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from regdpo.config.schema import CaptionServer
from regdpo.config.stage_inputs import CaptionsStage
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.core.store import Store
from regdpo.data.caption_checks import problem
from regdpo.data.captioner_registry import CAPTIONERS
from regdpo.data.captioners.answers import Task

TOLD = 20
"""Most captions that a message names."""


def caption_shard(
    stage: CaptionsStage,
    clips: list[ClipRow],
    store: Store,
    sources: Collection[str] = (),
    every: Callable[[], Sequence[ClipRow]] | None = None,
    server: CaptionServer | None = None,
) -> list[CaptionRow]:
    """Captions of accepted clips, one row a clip, in the order of ``clips``; with a reason where it cannot be used.

    Args:
        stage: the stage's configuration.
        clips: of one shard.
        store: where a model's answers are kept.
        sources: videos of the accepted clips of all shards, so that a sidecar which could belong to two is told; empty:
            those of ``clips``.
        every: gives the accepted clips of all shards, so that all sidecars that are missing are told at once, once one
            of this shard is; None: ``clips``.
        server: whom the captioner ``endpoint`` asks.

    Raises:
        UserError: a sidecar is missing, empty, not text or could belong to two videos; the model cannot be loaded; the
            server fails; captions cannot be used and ``captions.unusable`` is ``stop``.
    """
    answer = CAPTIONERS[stage.captions.source].answer()
    rows = answer(
        Task(stage, clips, store, sources or {clip.source for clip in clips}, every or (lambda: clips), server)
    )
    checked = [row.model_copy(update={"reason": problem(row, stage.captions)}) for row in rows]
    bad = [row for row in checked if row.reason]
    if bad and stage.captions.unusable == "stop":
        told = "; ".join(f"clip {row.clip_id}: {row.reason}" for row in bad[:TOLD])
        more = f"; and {len(bad) - TOLD} more" if len(bad) > TOLD else ""
        raise UserError(
            f"captions: {len(bad)} of {len(rows)} cannot be used: {told}{more}. `captions.unusable: leave_out` leaves "
            "such clips out of the pairs"
        )
    return checked


def told(rows: list[CaptionRow]) -> str:
    """One line about the captions that are left out; empty if there are none."""
    kinds = Counter(row.kind for row in rows if row.reason)
    if not kinds:
        return ""
    first = next(row for row in rows if row.reason)
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    return (
        f"captions: {kinds.total()} of {len(rows)} clips are left out of the pairs, for their caption cannot be used "
        f"({counts}; such as clip {first.clip_id}: {first.reason})"
    )
