"""What became of the footage, in lines."""

from itertools import pairwise

import pandas as pd

from regdpo.core.frames import kinds
from regdpo.data.names import shown

MUCH = 1 / 3
"""Share of a picture lost to the crop that is worth a note."""


def summary(rows: pd.DataFrame) -> list[str]:
    """One line for the accepted clips and one for each kind of rejection, with counts."""
    accepted, rejected = rows[rows["status"] == "accepted"], rows[rows["status"] == "rejected"]
    lines = [f"{len(accepted)} clips accepted, of {accepted['source'].nunique()} videos"]
    of = kinds(rejected["reason"])
    for kind, number in of.value_counts().sort_index().items():
        mine = rejected[of == kind]
        first = mine.loc[mine["clip_id"] == mine["clip_id"].min()].iloc[0]
        lines.append(f"{number} rejected as {kind} (such as {shown(first['source'])}: {first['reason']})")
    if note := cropped_most(rows):
        lines.append(f"note: {note}")
    return lines


def cropped_most(rows: pd.DataFrame) -> str:
    """One line about videos that lose much of their picture to the crop; empty if none does."""
    lost = {source: share for source, share in cropped(rows).items() if share > MUCH}
    if not lost:
        return ""
    most = max(lost, key=lost.__getitem__)
    return (
        f"{len(lost)} videos lose more than a third of their picture to the crop (such as "
        f"{shown(most)}: {lost[most]:.0%}); a size of their shape loses none (clips.width and "
        "clips.height, or beside others in clips.buckets), clips.crops takes several windows"
    )


def cropped(rows: pd.DataFrame) -> dict[str, float]:
    """Source -> share of its scaled picture, without bars, that is in no crop window."""
    if "scores.upscale" not in rows:
        return {}
    measured = rows[rows["scores.upscale"].notna()]
    ones = measured.drop_duplicates("source")
    size = ["source", "width", "height", "source_pixels"]
    windows = measured.merge(ones[size], on=size)
    across, down = (
        windows.drop_duplicates(["source", name]).groupby("source")[name].agg(list) for name in ("crop_x", "crop_y")
    )
    found = {}
    for source, width, height, pixels, upscale in ones[[*size, "scores.upscale"]].itertuples(index=False):
        shown = _covered(set(across[source]), width) * _covered(set(down[source]), height)
        found[source] = max(0.0, 1 - shown / (pixels * upscale**2))
    return found


def _covered(starts: set[int], length: int) -> int:
    """Of a line, how much stretches of a length cover together."""
    ordered = sorted(starts)
    return length + sum(min(length, after - before) for before, after in pairwise(ordered))
