"""What became of the footage, shaped for a page of its own: what each filter took, and how the scores lie."""

from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

import regdpo
from regdpo.config import schema
from regdpo.core.frames import kinds
from regdpo.core.progress import duration
from regdpo.core.rows import SplitRow
from regdpo.core.store import Store
from regdpo.core.temporaries import atomic
from regdpo.data.names import shown
from regdpo.data.notes import recall
from regdpo.data.registry import FILTERS
from regdpo.data.summary import cropped_most
from regdpo.report import histograms
from regdpo.report.parts import part

ALONE = [kind for kind, it in FILTERS.items() if not it.column]
TOGETHER = [kind for kind, it in FILTERS.items() if it.column]
BEFORE = ("unusable", "unwanted", "broken", "stretch", "short", "damaged", "repeated", "frames")
ORDER = (*BEFORE, *ALONE, "duplicate", *TOGETHER)
"""Kinds of rejections, in the order in which footage meets them."""
PICTURES, KEPT = 12, 24
"""Most pictures of what each filter took, and of what was kept."""
VIDEOS = 40
"""Most videos that are listed."""
COLUMNS = (
    "clip_id", "status", "reason", "source", "source_pixels", "start_s", "frames", "fps", "width", "height", "crop_x",
    "crop_y", "scores", "measured",
)  # fmt: skip
"""Of the clips, that the page is made of."""


@part
class Step:
    """What one reason took."""

    kind: str
    """The word before the colon of the reason, such as ``short``."""
    taken: int
    """Clips that were rejected for it."""
    left: int
    """Clips after it."""
    example: str
    """One reason in full."""
    threshold: str
    """Key and value of the threshold, of those that have one."""


@dataclass(frozen=True)
class Picture:
    """A clip by its middle frame."""

    jpeg: str  # base64
    text: str  # what is told under it
    title: str


@dataclass(frozen=True)
class Shape:
    """Kept clips of one size."""

    width: int
    height: int
    frames: int
    fps: float
    clips: int
    enlarged: int  # of them
    most: float  # how many times at most

    @property
    def seconds(self) -> float:
        return self.clips * self.frames / self.fps


@dataclass(frozen=True)
class Video:
    """One source."""

    name: str
    rows: int
    kept: int
    reason: str  # that took most of it


def steps(reasons: pd.Series, filters: schema.Filters) -> list[Step]:
    """The funnel, in the order of ``ORDER``.

    Args:
        reasons: of every row of the clips' manifest; empty where it was accepted.
        filters: with the thresholds.
    """
    of = kinds(reasons)
    counts = of[of != ""].value_counts()
    found, left = [], len(reasons)
    for kind in sorted(counts.index, key=lambda kind: (ORDER.index(kind) if kind in ORDER else len(ORDER), kind)):
        left -= int(counts[kind])
        first = reasons[of == kind].min()
        example = first.partition(": ")[2] or first
        found.append(Step(kind, int(counts[kind]), left, example, threshold(kind, filters)))
    return found


def threshold(kind: str, filters: schema.Filters) -> str:
    """``clips.filters.min_luma 8`` of a kind of rejection that has a threshold; else empty."""
    key = FILTERS[kind].key if kind in FILTERS else {"repeated": "max_repeated", "duplicate": "same_footage"}.get(kind)
    limit = getattr(filters, key) if key else None
    return f"clips.filters.{key} {limit:g}" if limit is not None else ""


def write(
    path: str | Path,
    rows: pd.DataFrame,
    splits: list[SplitRow] | str,
    filters: schema.Filters,
    store: Store,
) -> None:
    """Write the page to a file, atomically. Equal inputs give equal bytes.

    Args:
        path: the file.
        rows: of the clips' manifest, with the columns ``COLUMNS``.
        splits: how many clips each split gets, or why there is no such split.
        filters: with the thresholds.
        store: where what was measured lies.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    kept = rows[rows["status"] == "accepted"]
    html = environment.get_template("funnel.html").render(
        came=len(rows),
        kept=len(kept),
        measured=int(rows.filter(regex=r"^scores\.").notna().any(axis=1).sum()),
        sources=rows["source"].nunique(),
        kept_sources=kept["source"].nunique(),
        seconds=(kept["frames"] / kept["fps"]).sum(),
        steps=steps(rows["reason"], filters),
        scores=[(it, Markup(svg)) for it, svg in histograms.all_scores(rows, filters)],  # noqa: S704
        pictures={"": _pictures(_spread(kept, KEPT), store)} | _rejected(rows, store),
        shapes=_shapes(kept),
        splits=[] if isinstance(splits, str) else splits,
        problem=splits if isinstance(splits, str) else "",
        lost=cropped_most(rows),
        videos=_videos(rows),
        more=max(0, rows["source"].nunique() - VIDEOS),
        version=regdpo.__version__,
    )
    with atomic(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _rejected(rows: pd.DataFrame, store: Store) -> dict[str, list[Picture]]:
    """Of each kind of rejection that looked at clips, those nearest to its threshold first."""
    looked = rows[(rows["measured"] != "") & (rows["status"] == "rejected")]
    of, found = kinds(looked["reason"]), {}
    for kind in ORDER:
        mine = looked[of == kind]
        if (it := FILTERS.get(kind)) and len(mine):
            far = (-1 if it.bound == "least" else 1) * mine[f"scores.{it.score}"]
            chosen = mine.assign(far=far).sort_values(["far", "clip_id"])[:PICTURES]
        else:
            chosen = _spread(mine, PICTURES)
        if pictures := _pictures(chosen, store):
            found[kind] = pictures
    return found


def _spread(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """As many rows, spread evenly."""
    count = min(len(rows), most)
    return rows.iloc[[index * len(rows) // count for index in range(count)]]


def _pictures(rows: pd.DataFrame, store: Store) -> list[Picture]:
    """One a row, of those whose measures are still in the store."""
    found = []
    for row, kind in zip(rows.to_dict("records"), kinds(rows["reason"]), strict=True):
        told = recall(store, row["measured"]) or []
        jpeg = next((one["picture"] for one in told if (one["x"], one["y"]) == (row["crop_x"], row["crop_y"])), "")
        if jpeg:
            score = FILTERS[kind].score if kind in FILTERS else ""
            source = row["source"]
            text = f"{score} {row[f'scores.{score}']:.3g}" if score else shown(Path(source).name)
            found.append(Picture(jpeg, text, f"{shown(source)}, {row['start_s']:.1f} s: {row['reason'] or 'kept'}"))
    return found


def _shapes(kept: pd.DataFrame) -> list[Shape]:
    """Most frequent first."""
    size = ["width", "height", "frames", "fps"]
    factors = kept.get("scores.upscale", pd.Series(np.nan, kept.index)).fillna(1.0)
    told = kept[size].assign(most=factors, enlarged=factors > 1, clips=1).groupby(size, sort=False)
    found = told.agg({"clips": "sum", "enlarged": "sum", "most": "max"}).reset_index()
    return [Shape(**row) for row in found.sort_values("clips", ascending=False, kind="stable").to_dict("records")]


def _videos(rows: pd.DataFrame) -> list[Video]:
    """Those of which least is kept."""
    told = rows[["source"]].assign(rows=1, kept=rows["status"] == "accepted").groupby("source").sum()
    told["name"] = [shown(name) for name in told.index]
    told["left"] = told["kept"] / told["rows"]
    least = told.sort_values(["left", "rows", "name"], ascending=[True, False, True])[:VIDEOS]
    taken = rows[rows["source"].isin(least.index) & (rows["status"] == "rejected")]
    counts = taken[["source"]].assign(kind=kinds(taken["reason"])).value_counts().reset_index()
    most = counts.sort_values(["count", "kind"], ascending=[False, True]).drop_duplicates("source")
    reasons = dict(zip(most["source"], most["kind"], strict=True))
    return [
        Video(name, int(number), int(kept), reasons.get(source, ""))
        for source, number, kept, name in least[["rows", "kept", "name"]].itertuples()
    ]
