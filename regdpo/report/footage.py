"""The footage behind the numbers: how it was split, what was rejected, and what tells both halves of a pair apart."""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from regdpo.core.progress import track
from regdpo.core.rows import ClipRow, PairRow
from regdpo.core.store import Store
from regdpo.data.video import read_stored
from regdpo.evaluate import proxies, stats
from regdpo.report.gather import Inputs, place

T = TypeVar("T")
SPLITS = ("train", "validation", "test")
COMPARED = 200
"""Most pairs whose videos are read to compare both halves."""
LARGE = 0.8
"""Standardised difference that counts as large (J. Cohen, Statistical Power Analysis, 1988)."""


@dataclass(frozen=True)
class SplitKind:
    """How train, validation and test lie in the footage."""

    by: str  # "segment" or "source"
    counts: dict[str, dict[str, int]]  # source -> split -> pairs
    gap: int | None  # least number of frames between clips of two splits; None: no shot is in two splits
    held_out: int
    overlapping: int  # held-out clips that share frames' times with another of the same shot
    held_out_sources: list[str]


@dataclass(frozen=True)
class Feature:
    """One simple statistic of both halves of the pairs."""

    name: str
    unit: str
    winner: float
    loser: float
    standardised: float
    winner_higher: float  # share of pairs

    @property
    def large(self) -> bool:
        return abs(self.standardised) >= LARGE


def split_kind(inputs: Inputs) -> SplitKind:
    """Describe the split from the rows themselves, not from what was asked for."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    split_of = {}
    for pair in inputs.pairs:
        counts[pair.source][pair.split] += 1
        split_of[pair.clip_id] = pair.split
    shots: dict[tuple[str, int], list[ClipRow]] = defaultdict(list)
    for clip_id in split_of:
        clip = inputs.clips[clip_id]
        shots[clip.source, clip.shot].append(clip)
    gaps = []
    for members in shots.values():
        ends: dict[str, int] = {}
        for clip in sorted(members, key=place_in_time):
            split = split_of[clip.clip_id]
            gaps += [clip.start - end for other, end in ends.items() if other != split]
            ends[split] = max(ends.get(split, 0), clip.start + clip.frames)
    held = [inputs.clips[clip_id] for clip_id in inputs.held_out]
    return SplitKind(
        by="segment" if any(len(splits) > 1 for splits in counts.values()) else "source",
        counts={source: {split: counts[source][split] for split in SPLITS} for source in sorted(counts)},
        gap=min(gaps, default=None),
        held_out=len(held),
        overlapping=_overlapping(held),
        held_out_sources=sorted({clip.source for clip in held}),
    )


def place_in_time(clip: ClipRow) -> tuple[int, str]:
    """Order within a shot."""
    return clip.start, clip.clip_id


def _overlapping(clips: list[ClipRow]) -> int:
    ordered = sorted(clips, key=lambda clip: (clip.source, clip.shot, clip.start))
    touched = set()
    for before, after in itertools.pairwise(ordered):
        if (before.source, before.shot) == (after.source, after.shot) and after.start < before.start + before.frames:
            touched |= {before.clip_id, after.clip_id}
    return len(touched)


def rejections(inputs: Inputs) -> list[tuple[str, int, str]]:
    """(kind of reason, clips, one reason in full), most frequent first."""
    reasons = defaultdict(list)
    for clip in inputs.clips.values():
        if clip.status == "rejected":
            reasons[clip.reason.partition(":")[0]].append(clip.reason)
    return sorted(((kind, len(all_), min(all_)) for kind, all_ in reasons.items()), key=lambda row: (-row[1], row[0]))


def pairs_with_losers(inputs: Inputs) -> list[PairRow]:
    """Pairs that have both halves, in the order of the footage; training pairs, unless there are none."""
    both = [pair for pair in inputs.pairs if pair.loser]
    chosen = [pair for pair in both if pair.split == "train"] or both
    return sorted(chosen, key=lambda pair: (place(inputs.clips[pair.clip_id]), pair.pair_id))


def halves(inputs: Inputs) -> tuple[list[Feature], int]:
    """What tells winners and losers apart without looking at quality, and from how many pairs."""
    pairs = spread(pairs_with_losers(inputs), COMPARED)
    measured = [
        [
            _features(inputs.store, *half)
            for half in ((pair.winner, pair.winner_sha256), (pair.loser, pair.loser_sha256))
        ]
        for pair in track(pairs, "both halves", len(pairs))
    ]
    found = []
    for name, unit in FEATURES.items():
        winner, loser = (np.array([halves[side][name] for halves in measured]) for side in (0, 1))
        if measured:
            higher = float(((winner > loser) + 0.5 * (winner == loser)).mean())
            mean = float(winner.mean()), float(loser.mean())
            found.append(Feature(name, unit, *mean, stats.standardised(winner, loser), higher))
    return found, len(measured)


def spread(items: list[T], count: int, offset: float = 0.0) -> list[T]:
    """At most ``count`` items, evenly spread; ``offset`` in [0, 1) moves the first one."""
    if len(items) <= count:
        return list(items)
    return [items[int((index + offset) * len(items) / count)] for index in range(count)]


FEATURES = {
    "brightness": "mean luma, 0..255",
    "contrast": "standard deviation of luma",
    "motion": "mean absolute difference of neighbouring frames",
    "sharpness": "variance of the Laplacian",
    "file size": "bytes",
}


def _features(store: Store, relative: str, sha256: str) -> dict[str, float]:
    video = read_stored(store, relative, sha256)
    lumas = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]
    return {
        "brightness": float(np.mean(lumas)),
        "contrast": float(np.mean([luma.std() for luma in lumas])),
        "motion": proxies.motion(video),
        "sharpness": proxies.sharpness(video),
        "file size": float(store.existing(relative).stat().st_size),
    }
