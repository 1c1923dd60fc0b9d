"""The footage behind the numbers, shaped for the page: how it was split, and what of it was rejected."""

from collections import Counter, defaultdict

from regdpo.core.rows import ClipRow
from regdpo.evaluate.stats import places
from regdpo.report.gather import Inputs
from regdpo.report.parts import part

SPLITS = ("train", "validation", "test")
SOURCES = 50
"""Most that the page names one by one."""


@part
class Split:
    """How train, validation and test lie in the footage."""

    by: str
    """``segment`` (of a shot, in time) or ``source`` (whole videos)."""
    counts: dict[str, dict[str, int]]
    """Video -> split -> pairs; of the videos with the most."""
    sources: int
    """Videos that pairs are of."""
    totals: dict[str, dict[str, int]]
    """Split -> what is counted (pairs, clips, videos) -> how many."""
    origins: dict[str, int]
    """Source of pairs (``pairs.sources``) -> pairs."""
    gap: int | None
    """Least number of frames between clips of two splits; null: no shot is in two splits."""
    held_out: int
    """Clips that the models are compared on."""
    lengths: list[int]
    """Frames that a clip may have."""
    stretches: int
    """Of footage that the held-out clips lie on; those of one shot that overlap in time lie on one."""
    held_out_sources: list[str]
    """Videos that they are of."""


def split(inputs: Inputs) -> Split:
    """Describe the split from the rows themselves, not from what was asked for."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    split_of = {}
    for pair in inputs.pairs:
        counts[pair.source][pair.split] += 1
        if pair.origin not in inputs.config.pairs.ranked:  # what was generated lies on no footage
            split_of[pair.clip_id] = pair.split
    shots: dict[tuple[str, int], list[ClipRow]] = defaultdict(list)
    for clip_id in split_of:
        clip = inputs.clips[clip_id]
        shots[clip.source, clip.shot].append(clip)
    gaps = []
    for members in shots.values():
        ends: dict[str, int] = {}
        for clip in sorted(members, key=lambda clip: (clip.start, clip.clip_id)):
            mine = split_of[clip.clip_id]
            gaps += [clip.start - end for other, end in ends.items() if other != mine]
            ends[mine] = max(ends.get(mine, 0), clip.start + clip.frames)
    held = [inputs.clips[clip_id] for clip_id in inputs.held_out]
    most = sorted(counts, key=lambda source: (-counts[source].total(), source))[:SOURCES]
    totals = {
        split: {
            "pairs": len(those),
            "clips": len({pair.clip_id for pair in those}),
            "videos": len({pair.source for pair in those}),
        }
        for split in SPLITS
        if (those := [pair for pair in inputs.pairs if pair.split == split])
    }
    return Split(
        by="segment" if any(len(splits) > 1 for splits in counts.values()) else "source",
        counts={source: {split: counts[source][split] for split in SPLITS} for source in sorted(most)},
        sources=len(counts),
        totals=totals,
        origins=dict(sorted(Counter(pair.origin for pair in inputs.pairs).items())),
        gap=min(gaps, default=None),
        held_out=len(held),
        lengths=sorted({clip.frames for members in shots.values() for clip in members}),
        stretches=len(set(places(held).values())),
        held_out_sources=sorted({clip.source for clip in held}),
    )
