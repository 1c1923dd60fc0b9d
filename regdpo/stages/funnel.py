"""The funnel stage: what became of the footage, as one self-contained page, before anything is captioned."""

from pathlib import Path

import pandas as pd

from regdpo.config.stage_inputs import FunnelStage
from regdpo.core.errors import UserError
from regdpo.core.rows import CopyRow, SplitRow
from regdpo.core.store import Store
from regdpo.report import funnel
from regdpo.stages import pairs

CLIPS = {*pairs.PLACED, *funnel.COLUMNS}
"""Columns of the clips that are looked at."""


def write(stage: FunnelStage, clips: pd.DataFrame, copies: list[CopyRow], store: Store, out: Path) -> None:
    """Write the page; the same inputs give the same bytes.

    Args:
        stage: the thresholds, and how footage is split.
        clips: accepted and rejected, with the columns ``CLIPS``.
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
