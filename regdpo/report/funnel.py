"""What became of the footage, shaped for a page of its own: what each filter took, and how the scores lie."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

import regdpo
from regdpo.config import schema
from regdpo.core.rows import ClipRow, SplitRow
from regdpo.core.store import Store
from regdpo.core.temporaries import atomic
from regdpo.data.footage import cropped_most
from regdpo.data.names import shown
from regdpo.data.notes import recall
from regdpo.data.registry import FILTERS
from regdpo.report import histograms

ORDER = ("unusable", "unwanted", "broken", "stretch", "short", "damaged", "repeated", "frames", *FILTERS, "duplicate")
"""Kinds of rejections, in the order in which footage meets them."""
PICTURES, KEPT = 12, 24
"""Most pictures of what each filter took, and of what was kept."""
VIDEOS = 40
"""Most videos that are listed."""


@dataclass(frozen=True)
class Step:
    """What one reason took."""

    kind: str
    taken: int
    left: int  # after it
    example: str
    threshold: str  # key and value, of those that have one


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
    def minutes(self) -> float:
        return self.clips * self.frames / self.fps / 60


@dataclass(frozen=True)
class Video:
    """One source."""

    name: str
    rows: int
    kept: int
    reason: str  # that took most of it


def steps(reasons: Iterable[str], filters: schema.Filters) -> list[Step]:
    """The funnel, in the order of ``ORDER``.

    Args:
        reasons: of every row of the clips' manifest; empty where it was accepted.
        filters: with the thresholds.
    """
    every = pd.Series(list(reasons), dtype=object)
    kinds = every.str.partition(":")[0] if len(every) else every
    counts = kinds[kinds != ""].value_counts()
    found, left = [], len(every)
    for kind in sorted(counts.index, key=lambda kind: (ORDER.index(kind) if kind in ORDER else len(ORDER), kind)):
        left -= int(counts[kind])
        first = min(every[kinds == kind])
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
    rows: Sequence[ClipRow],
    splits: list[SplitRow] | str,
    filters: schema.Filters,
    store: Store,
) -> None:
    """Write the page to a file, atomically. Equal inputs give equal bytes.

    Args:
        path: the file.
        rows: of the clips' manifest.
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
    kept = [row for row in rows if row.status == "accepted"]
    html = environment.get_template("funnel.html").render(
        came=len(rows),
        kept=len(kept),
        measured=sum(bool(row.scores) for row in rows),
        sources=len({row.source for row in rows}),
        kept_sources=len({row.source for row in kept}),
        minutes=sum(row.frames / row.fps for row in kept) / 60,
        steps=steps((row.reason for row in rows), filters),
        scores=[(it, Markup(svg)) for it, svg in histograms.all_scores(rows, filters)],  # noqa: S704
        pictures={"": _pictures(_spread(kept, KEPT), store)} | _rejected(rows, store),
        shapes=_shapes(kept),
        splits=[] if isinstance(splits, str) else splits,
        problem=splits if isinstance(splits, str) else "",
        lost=cropped_most(list(rows)),
        videos=_videos(rows),
        more=max(0, len({row.source for row in rows}) - VIDEOS),
        version=regdpo.__version__,
    )
    with atomic(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _rejected(rows: Sequence[ClipRow], store: Store) -> dict[str, list[Picture]]:
    """Of each kind of rejection that looked at clips, those nearest to its threshold first."""
    found = {}
    for kind in ORDER:
        mine = [row for row in rows if row.measured and row.status == "rejected" and row.kind == kind]
        chosen = _spread(mine, PICTURES)
        if it := FILTERS.get(kind):
            sign, score = (-1 if it.bound == "least" else 1), it.score
            far = {row.clip_id: sign * row.scores[score] for row in mine}
            chosen = sorted(mine, key=lambda row: (far[row.clip_id], row.clip_id))[:PICTURES]
        if pictures := _pictures(chosen, store):
            found[kind] = pictures
    return found


def _spread(rows: Sequence[ClipRow], most: int) -> list[ClipRow]:
    """As many rows, spread evenly."""
    count = min(len(rows), most)
    return [rows[index * len(rows) // count] for index in range(count)]


def _pictures(rows: Sequence[ClipRow], store: Store) -> list[Picture]:
    """One a row, of those whose measures are still in the store."""
    found = []
    for row in rows:
        told = recall(store, row.measured) or []
        jpeg = next((one["picture"] for one in told if (one["x"], one["y"]) == (row.crop_x, row.crop_y)), "")
        if jpeg:
            score = FILTERS[row.kind].score if row.kind in FILTERS else ""
            text = f"{score} {row.scores[score]:.3g}" if score else shown(Path(row.source).name)
            found.append(Picture(jpeg, text, f"{shown(row.source)}, {row.start_s:.1f} s: {row.reason or 'kept'}"))
    return found


def _shapes(kept: Sequence[ClipRow]) -> list[Shape]:
    sizes: dict[tuple[int, int, int, float], list[float]] = {}
    for row in kept:
        sizes.setdefault((row.width, row.height, row.frames, row.fps), []).append(row.scores.get("upscale", 1.0))
    return [
        Shape(*size, clips=len(factors), enlarged=sum(factor > 1 for factor in factors), most=max(factors))
        for size, factors in sorted(sizes.items(), key=lambda item: -len(item[1]))
    ]


def _videos(rows: Sequence[ClipRow]) -> list[Video]:
    """Those of which least is kept."""
    of: dict[str, list[ClipRow]] = {}
    for row in rows:
        of.setdefault(row.source, []).append(row)
    found = []
    for name, mine in of.items():
        kept = sum(row.status == "accepted" for row in mine)
        reasons = pd.Series([row.kind for row in mine if row.status == "rejected"], dtype=object)
        most = (
            "" if reasons.empty else sorted(reasons.value_counts().items(), key=lambda item: (-item[1], item[0]))[0][0]
        )
        found.append(Video(shown(name), len(mine), kept, most))
    return sorted(found, key=lambda video: (video.kept / video.rows, -video.rows, video.name))[:VIDEOS]
