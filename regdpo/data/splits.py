"""Train, validation and test: no footage that is found to be the same is in two of them.

By source a video belongs to one split, by a threshold on the hash of its origin: a video that is added moves no other.
The origin is the group that the table of videos gives, or else the digest of the file's bytes, not its path: a file
that is renamed or moved stays on its side, and two equal files are on the same one. By segment every shot is cut in
time: its first part trains, the middle validates, the end tests, and between the parts lies a gap wider than a clip, so
that no clip has a frame, or a neighbouring frame, in two splits. Where two shots show the same footage (a trimmed copy,
a recap), what is held out stays, and clips of the other shot that come nearer to it than that gap are left out.
"""

import bisect
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from regdpo.config.schema import Pairs
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, CopyRow
from regdpo.core.section import Section
from regdpo.core.temporaries import atomic
from regdpo.data.footage import matches

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SEEDS = 1000
"""That ``auto`` tries. Of three videos with shares of .8, .1 and .1 one in twenty seeds fills all three splits."""


def is_known(source: str, known: list[str]) -> bool:
    """Whether the base model was trained on a source, by the glob patterns of ``base.pretrain.sources``."""
    return matches(source, known)


def assign(clips: list[ClipRow], settings: Pairs) -> dict[str, str]:
    """Clip id -> split. Rejected clips, and clips that would reach over a gap, are in none."""
    split_of = source_splits([clip for clip in clips if clip.status == "accepted" or _is_duplicate(clip)], settings)
    accepted = [clip for clip in clips if clip.status == "accepted"]
    if split_of:
        return {clip.clip_id: split_of[clip.source] for clip in accepted}
    return _segments(accepted, settings)


def source_splits(clips: list[ClipRow], settings: Pairs) -> dict[str, str]:
    """Source -> split, by the hash of its origin alone; nothing where shots are cut in time instead.

    Args:
        clips: of the sources that there are, without regard to which of several copies is kept.
        settings: how to split.
    """
    settings = settle(clips, settings)
    if settings.split == "segment":
        return {}
    origins = {clip.source: origin(clip) for clip in clips}
    sides = {one: side(one, settings) for one in set(origins.values())}
    return {source: sides[one] for source, one in origins.items()}


def settle(clips: list[ClipRow], settings: Pairs) -> Pairs:
    """Settings without ``auto``: by source from ``min_sources`` origins on, by segment below, as long as that leaves no
    split empty; else by source with the next seed, from the given one on, that leaves none empty and holds out no more
    clips, for either, than it trains on. Then the hash and that seed say where a video is that is added later.

    Args:
        clips: accepted ones, without regard to which of several copies is kept. settings: how to split.
    """
    if settings.split != "auto":
        return settings
    segment = settings.model_copy(update={"split": "segment"})
    origins = Counter(origin(clip) for clip in clips)
    few = len(origins) < settings.min_sources
    if len(origins) < len(SPLITS) or (few and set(_segments(clips, segment).values()) == set(SPLITS)):
        return segment
    for seed in range(settings.seed, settings.seed + SEEDS):
        found = settings.model_copy(update={"split": "source", "seed": seed})
        counts = Counter[str]()
        for one, number in origins.items():
            counts[side(one, found)] += number
        if all(0 < counts[split] <= counts["train"] for split in SPLITS):
            return found
    return segment


def origin(clip: ClipRow) -> str:
    """What all clips of one origin share, and no others."""
    return f"group {clip.group}" if clip.group else f"content {clip.source_digest}"


def side(origin: str, settings: Pairs) -> SplitName:
    """The split of an origin: where the hash of the seed and of it lies in [0, 1), to be held against the shares."""
    place = int(text_digest(str(settings.seed), origin)[:13], 16) / 16**13
    if place < settings.test:
        return "test"
    return "validation" if place < settings.test + settings.validation else "train"


HOW = ("split", "min_sources", "validation", "test", "seed")
"""What of the settings says how to split."""


class Decision(Section):
    """How the footage is split, and for which settings that was decided."""

    way: Literal["source", "segment"]
    seed: int
    origins: int
    """How many there were then."""
    asked: dict[str, Any]

    def settings(self, asked: Pairs) -> Pairs:
        """Those settings with the decision in the place of ``auto``."""
        return asked.model_copy(update={"split": self.way, "seed": self.seed})

    def serves(self, asked: Pairs) -> bool:
        """Whether it was decided for settings that split in the same way."""
        return self.asked == asked.model_dump(include=set(HOW))


def decide(file: Path, clips: list[ClipRow], settings: Pairs) -> Pairs:
    """Settings without ``auto``: as the file says, so that videos which are added do not change it; where there is
    none, or one for other settings, it is decided now and written.

    Args:
        file: of the decision.
        clips: accepted ones, without regard to which of several copies is kept. settings: how to split.

    Raises:
        UserError: the file is damaged.
    """
    if file.exists():
        kept = _read(file)
        if kept.serves(settings):
            _write(file, kept)
            return kept.settings(settings)
    found = settle(clips, settings)
    origins = len({origin(clip) for clip in clips})
    asked = settings.model_dump(include=set(HOW))
    made = Decision(way=found.split, seed=found.seed, origins=origins, asked=asked)
    _write(file, made)
    return made.settings(settings)


def decided(file: str | Path, settings: Pairs) -> Pairs:
    """Settings without ``auto``, as the file of ``decide`` says.

    Raises:
        UserError: it cannot be read, or is for other settings.
    """
    kept = _read(Path(file))
    if not kept.serves(settings):
        raise UserError(f"{file}: says how to split by other settings of `pairs`; run the merging of clips again")
    return kept.settings(settings)


def _read(file: Path) -> Decision:
    try:
        return Decision.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); run the merging of clips again") from None
    except ValidationError:
        raise UserError(
            f"{file}: does not say how the footage was split; delete it, and it is decided anew, which may move videos "
            "between train, validation and test"
        ) from None


def _write(file: Path, decision: Decision) -> None:
    with atomic(file) as temporary:
        temporary.write_text(decision.model_dump_json(indent=1) + "\n")


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
    found: dict[str, tuple[str, str]] = {}
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


def _segments(clips: list[ClipRow], settings: Pairs) -> dict[str, str]:
    """Clip id -> split by segment, without clips that reach into a gap."""
    longest: dict[tuple[str, int], int] = defaultdict(int)
    for clip in clips:
        longest[clip.source, clip.shot] = max(longest[clip.source, clip.shot], clip.frames)
    gaps = {shot: frames + 1 for shot, frames in longest.items()}
    found = {clip.clip_id: _segment(clip, settings, gaps[clip.source, clip.shot]) for clip in clips}
    return {clip_id: split for clip_id, split in found.items() if split}


def _segment(clip: ClipRow, settings: Pairs, gap: int) -> str | None:
    """The split of the segment that holds all of a clip's frames; None if it reaches into a gap, which has as many
    frames for all clips of a shot."""
    shares = {
        "train": 1 - settings.validation - settings.test,
        "validation": settings.validation,
        "test": settings.test,
    }
    usable = clip.shot_frames - gap * (len(shares) - 1)
    begin = 0.0
    for name, share in shares.items():
        end = begin + share * usable
        if begin <= clip.start and clip.start + clip.frames <= end:
            return name
        begin = end + gap
    return None
