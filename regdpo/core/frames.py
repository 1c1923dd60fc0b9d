"""Manifests as pandas frames, for stages that look at all rows: a column each, and of a map of numbers one for each of
its keys, such as ``scores.motion``, with NaN where there is none."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from regdpo.core import manifests
from regdpo.core.columns import NUMBERS, schema_of
from regdpo.core.rows import Row


def read(path: str | Path | None, model: type[Row], columns: Iterable[str] | None = None) -> pd.DataFrame:
    """All rows of a manifest, or some of their columns; none where there is no manifest.

    Raises:
        UserError: as ``manifests.read``.
    """
    if path is not None:
        return of(manifests.read_table(path, model, columns))
    empty = schema_of(model).empty_table()
    return of(empty if columns is None else empty.select([name for name in empty.column_names if name in {*columns}]))


def of(table: pa.Table) -> pd.DataFrame:
    """The frame of a table."""
    maps = [field.name for field in table.schema if field.type == NUMBERS]
    frame: pd.DataFrame = table.drop_columns(maps).to_pandas()
    parts = {f"{name}.{key}": values for name in maps for key, values in _by_key(table[name]).items()}
    return pd.concat([frame, pd.DataFrame(parts, index=frame.index)], axis=1) if parts else frame


def _by_key(column: pa.ChunkedArray) -> dict[str, np.ndarray]:
    maps = column.combine_chunks()
    offsets = maps.offsets.to_numpy()
    begin, count = offsets[0], offsets[-1] - offsets[0]
    rows = np.repeat(np.arange(len(maps)), np.diff(offsets))
    keys = maps.keys.slice(begin, count).dictionary_encode()
    number, values = keys.indices.to_numpy(), maps.items.slice(begin, count).to_numpy(zero_copy_only=False)
    found = {}
    for place, key in enumerate(keys.dictionary.to_pylist()):
        found[key] = np.full(len(maps), np.nan)
        mine = number == place
        found[key][rows[mine]] = values[mine]
    return dict(sorted(found.items()))


def table(frame: pd.DataFrame) -> pa.Table:
    """The table of a frame without maps, to be written as a manifest."""
    return pa.Table.from_pandas(frame, preserve_index=False)


def kinds(reasons: pd.Series) -> pd.Series:
    """Of reasons the words before the colon."""
    numbers, every = pd.factorize(reasons)
    names: Any = np.array([reason.partition(":")[0] for reason in every], object)
    return pd.Series(names[numbers] if len(every) else names, reasons.index, "str")
