"""Train, validation and test: no footage that is found to be the same is in two of them.

With enough sources a source belongs to one split, by the hash of its name, so that a new source moves no other. With
few, every shot is cut in time: its first part trains, the middle validates, the end tests, and between the parts lies a
gap wider than a clip, so that no clip has a frame, or a neighbouring frame, in two splits. Where two shots show the
same footage (a trimmed copy, a recap), what is held out stays, and clips of the other shot that come nearer to it than
that gap are left out.
"""

import bisect
import itertools
import math
from collections import defaultdict

from regdpo.config.schema import Pairs
from regdpo.core.digests import text_digest
from regdpo.core.rows import ClipRow, CopyRow
from regdpo.data.footage import matches

SPLITS = ("train", "validation", "test")


def is_known(source: str, known: list[str]) -> bool:
    """Whether the base model was trained on a source, by the glob patterns of ``base.pretrain.sources``."""
    return matches(source, known)


def assign(clips: list[ClipRow], settings: Pairs, frames: int) -> dict[str, str]:
    """Clip id -> split. Rejected clips, and clips that would reach over a gap, are in none."""
    split_of = source_splits([clip for clip in clips if clip.status == "accepted" or _is_duplicate(clip)], settings)
    accepted = [clip for clip in clips if clip.status == "accepted"]
    if split_of:
        return {clip.clip_id: split_of[clip.source] for clip in accepted}
    return {clip.clip_id: split for clip in accepted if (split := _segment(clip, settings, frames))}


def source_splits(clips: list[ClipRow], settings: Pairs) -> dict[str, str]:
    """Source -> split, by the hash of its name alone, but that validation and test get one source at least; nothing
    where shots are cut in time instead.

    Args:
        clips: of the sources that there are, without regard to which of several copies is kept.
        settings: how to split.
    """
    place = {clip.source: int(text_digest(str(settings.seed), clip.source)[:13], 16) / 16**13 for clip in clips}
    if settings.split == "segment" or (settings.split == "auto" and len(place) < settings.min_sources):
        return {}
    order = sorted(place, key=lambda source: (place[source], source))
    tests = max(1, sum(where < settings.test for where in place.values()))
    held = sum(where < settings.test + settings.validation for where in place.values())
    names = ["test"] * tests + ["validation"] * max(1, held - tests)
    return dict(itertools.zip_longest(order, names[: len(order)], fillvalue="train"))


def _is_duplicate(clip: ClipRow) -> bool:
    return clip.kind == "duplicate"


def shared(
    clips: list[ClipRow], splits: dict[str, str], copies: list[CopyRow], frames: int
) -> dict[str, tuple[str, str]]:
    """Id of a clip -> split and source of a clip that is held out further (test before validation before train) and
    shows the same footage, or some that lies no further off than a clip is long."""
    mine: dict[tuple[str, int], list[ClipRow]] = defaultdict(list)
    starts: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.start):
        if clip.clip_id in splits:
            mine[clip.source, clip.shot].append(clip)
            starts[clip.source, clip.shot, splits[clip.clip_id]].append(clip.start)
    found = {}
    for copy in copies:
        one, other = (copy.source, copy.shot, copy.start), (copy.other_source, copy.other_shot, copy.other_start)
        for (source, shot, start), (held, held_shot, held_start) in ((one, other), (other, one)):
            for clip in mine[source, shot]:
                for split in SPLITS[SPLITS.index(splits[clip.clip_id]) + 1 :]:
                    if near(starts[held, held_shot, split], clip.start - start + held_start, 2 * frames):
                        found[clip.clip_id] = split, held
    return found


def near(starts: list[int], start: float, far: float) -> bool:
    """Whether one of the sorted starts lies no further than that from another."""
    after = bisect.bisect_left(starts, start - far)
    return after < len(starts) and starts[after] <= start + far


def shortest(settings: Pairs, frames: int) -> int:
    """Frames of a shot from which on each of its three parts has room for a clip, where one starts at every frame."""
    least = min(1 - settings.validation - settings.test, settings.validation, settings.test)
    return math.ceil(frames / least) + 2 * (frames + 1)


def _segment(clip: ClipRow, settings: Pairs, frames: int) -> str | None:
    """The split of the segment that holds all of a clip's frames; None if it reaches into a gap."""
    gap = frames + 1
    shares = {
        "train": 1 - settings.validation - settings.test,
        "validation": settings.validation,
        "test": settings.test,
    }
    usable = clip.shot_frames - gap * (len(shares) - 1)
    begin = 0.0
    for name, share in shares.items():
        end = begin + share * usable
        if begin <= clip.start and clip.start + frames <= end:
            return name
        begin = end + gap
    return None
