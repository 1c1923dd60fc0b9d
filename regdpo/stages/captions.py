"""The captions stage: one caption a clip."""

from collections.abc import Collection

from regdpo.config.stage_inputs import CaptionsStage
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.core.store import Store
from regdpo.data.captioners import CAPTIONERS


def caption_shard(
    stage: CaptionsStage, clips: list[ClipRow], store: Store, every: Collection[ClipRow] = ()
) -> list[CaptionRow]:
    """Captions of accepted clips, one row a clip, in the order of ``clips``.

    Args:
        stage: the stage's configuration.
        clips: of one shard.
        store: where a model's answers are kept.
        every: accepted clip, so that all sidecars that are missing are told at once, and one that could belong to two
            videos; empty: ``clips``.

    Raises:
        UserError: a sidecar is missing, empty, not text or could belong to two videos; the model cannot be loaded.
    """
    return CAPTIONERS[stage.captions.source](stage, clips, store, every or clips)
