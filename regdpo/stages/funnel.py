"""The funnel stage: what became of the footage, as one self-contained page, before anything is captioned."""

from pathlib import Path

from regdpo.config.stage_inputs import FunnelStage
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, CopyRow, SplitRow
from regdpo.core.store import Store
from regdpo.report import funnel
from regdpo.stages import pairs


def write(stage: FunnelStage, clips: list[ClipRow], copies: list[CopyRow], store: Store, out: Path) -> None:
    """Write the page; the same inputs give the same bytes.

    Args:
        stage: the thresholds, and how footage is split.
        clips: accepted and rejected.
        copies: which shots show the same footage.
        store: where what was measured of clips lies.
        out: the file.
    """
    counts: list[SplitRow] | str
    try:
        counts = pairs.count(stage, clips, copies)
    except UserError as error:  # an empty split; the page is where one sees why
        counts = str(error)
    funnel.write(out, clips, counts, stage.filters, store)
