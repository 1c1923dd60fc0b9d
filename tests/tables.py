"""Rows as the frames that stages take, and back."""

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from regdpo.core import columns, frames
from regdpo.core.rows import ClipRow, R, Row


def frame(rows: Sequence[Row], model: type[Row] = ClipRow) -> pd.DataFrame:
    return frames.of(columns.table_of(rows, model))


def rows_of(frame: pd.DataFrame, model: type[R]) -> list[R]:
    """As they will be read, in the order of their ids."""
    table = columns.conform(frames.table(frame), model)
    assert isinstance(table, pa.Table), table
    return sorted(columns.rows_of(table, model), key=lambda row: row.key)
