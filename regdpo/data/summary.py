"""What became of the footage, in lines."""

from itertools import pairwise
from pathlib import Path

import pandas as pd

from regdpo.core.errors import UserError
from regdpo.core.frames import kinds
from regdpo.data.names import shown

MUCH = 1 / 3
"""Share of a picture lost to the crop that is worth a note."""

COMMONEST = 3
"""Reasons that are told where no clip is accepted."""

NAMED = 3
"""Videos that a note names."""


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


def check_accepted(rows: pd.DataFrame, page: Path) -> None:
    """See whether there is any clip.

    Args:
        rows: of the merged manifest.
        page: that shows what became of the footage.

    Raises:
        UserError: there is none; with the commonest reasons, and the page that shows all.
    """
    if (rows["status"] == "accepted").any():
        return
    of = kinds(rows["reason"])
    counts = sorted(of.value_counts().items(), key=lambda item: (-item[1], item[0]))
    told = []
    for kind, number in counts[:COMMONEST]:
        mine = rows[of == kind]
        first = mine.loc[mine["clip_id"] == mine["clip_id"].min()].iloc[0]
        told.append(f"{number} {kind} (such as {shown(first['source'])}: {first['reason'].partition(': ')[2]})")
    others = f", and {len(counts) - COMMONEST} other reasons" if len(counts) > COMMONEST else ""
    raise UserError(f"no clip is accepted, of {len(rows)} candidates: {', '.join(told)}{others}; {page} shows them all")


def cropped_most(rows: pd.DataFrame) -> str:
    """One line about videos that lose much of their picture to the crop; empty if none does."""
    lost = {source: share for source, share in cropped(rows).items() if share > MUCH}
    if not lost:
        return ""
    most = sorted(lost, key=lambda source: (-lost[source], source))[:NAMED]
    named = ", ".join(f"{shown(source)} {lost[source]:.0%}" for source in most)
    if more := len(lost) - len(most):
        named += f" and {more} more"
    return (
        f"{len(lost)} video{'s lose' if len(lost) > 1 else ' loses'} more than a third of the picture to the crop "
        f"({named}); a size of their shape loses none (clips.width and "
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
