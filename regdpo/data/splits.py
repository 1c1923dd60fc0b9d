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

import pandas as pd
from pydantic import ValidationError

from regdpo.config.schema import Minimum, Pairs
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.frames import kinds
from regdpo.core.rows import CopyRow
from regdpo.core.section import Section
from regdpo.core.temporaries import atomic
from regdpo.data.footage import matches

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SEEDS = 1000
"""That ``auto`` tries. Of three videos with shares of .8, .1 and .1 one in twenty seeds fills all three splits."""
ENOUGH = Minimum().sources
"""Videos to test on from which on a report says more than that there are too few, unless it is asked for more."""


def is_known(source: str, known: list[str]) -> bool:
    """Whether the base model was trained on a source, by the glob patterns of ``base.pretrain.sources``."""
    return matches(source, known)


def are_known(sources: pd.Series, known: list[str]) -> pd.Series:
    """The same of each."""
    return sources.isin([source for source in sources.unique() if is_known(source, known)])


def assign(clips: pd.DataFrame, settings: Pairs) -> pd.Series:
    """Split of each clip, by its id. Rejected clips, and clips that would reach over a gap, are in none."""
    accepted = clips["status"] == "accepted"
    split_of = source_splits(clips[accepted | (kinds(clips["reason"]) == "duplicate")], settings)
    clips = clips[accepted]
    found = clips["source"].map(split_of) if split_of else _segments(clips, settings)
    return pd.Series(found.to_numpy(), clips["clip_id"].array, "str")[(found != "").to_numpy()]


def source_splits(clips: pd.DataFrame, settings: Pairs) -> dict[str, SplitName]:
    """Source -> split, by the hash of its origin alone; nothing where shots are cut in time instead.

    Args:
        clips: of the sources that there are, without regard to which of several copies is kept.
        settings: how to split.
    """
    settings = settle(clips, settings)
    if settings.split == "segment":
        return {}
    one = clips.drop_duplicates("source")
    sides = {it: side(it, settings) for it in origins(one).unique()}
    return {source: sides[it] for source, it in zip(one["source"], origins(one), strict=True)}


def settle(clips: pd.DataFrame, settings: Pairs) -> Pairs:
    """Settings without ``auto``: by source from ``min_sources`` origins on, by segment below, as long as that leaves no
    split empty; else by source with the next seed, from the given one on, that leaves none empty, holds out no more
    clips, for either, than it trains on, and gives the test ``ENOUGH`` origins, if a seed does. Then the hash and that
    seed say where a video is that is added later.

    Args:
        clips: accepted ones, without regard to which of several copies is kept. settings: how to split.
    """
    if settings.split != "auto":
        return settings
    segment = settings.model_copy(update={"split": "segment"})
    numbers = origins(clips).value_counts().to_dict()
    few = len(numbers) < settings.min_sources
    if len(numbers) < len(SPLITS) or (few and {*SPLITS} <= {*_segments(clips, segment)}):
        return segment
    filled = None
    for seed in range(settings.seed, settings.seed + SEEDS):
        found = settings.model_copy(update={"split": "source", "seed": seed})
        sides = {one: side(one, found) for one in numbers}
        counts = Counter[str]()
        for one, number in numbers.items():
            counts[sides[one]] += number
        if all(0 < counts[split] <= counts["train"] for split in SPLITS):
            filled = filled or found
            if list(sides.values()).count("test") >= ENOUGH:
                return found
    return filled or segment


def origins(clips: pd.DataFrame) -> pd.Series:
    """Of each clip what all of one origin share, and no others."""
    return ("group " + clips["group"]).where(clips["group"] != "", "content " + clips["source_digest"])


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


def decide(file: Path, clips: pd.DataFrame, settings: Pairs) -> Pairs:
    """Settings without ``auto``: as the file says, so that videos which are added do not change it; where there is
    none, or one for other settings or from before there was any footage, it is decided now and written.

    Args:
        file: of the decision.
        clips: accepted ones, without regard to which of several copies is kept. settings: how to split.

    Raises:
        UserError: the file is damaged.
    """
    if file.exists():
        kept = _read(file)
        if kept.serves(settings) and kept.origins:
            _write(file, kept)
            return kept.settings(settings)
    found = settle(clips, settings)
    asked = settings.model_dump(include=set(HOW))
    made = Decision(way=found.split, seed=found.seed, origins=origins(clips).nunique(), asked=asked)
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


def shared(clips: pd.DataFrame, splits: pd.Series, copies: list[CopyRow], frames: int) -> dict[str, tuple[str, str]]:
    """Id of a clip -> split and source of a clip that is held out further (test before validation before train) and
    shows the same footage, or some that lies no further off than a clip is long."""
    named = {name for copy in copies for name in (copy.source, copy.other_source)}
    placed = clips[clips["source"].isin(named)].merge(splits.rename("split"), left_on="clip_id", right_index=True)
    mine: dict[tuple[str, int], list[Any]] = defaultdict(list)
    starts: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for clip in placed.sort_values("start", kind="stable").itertuples():
        mine[clip.source, clip.shot].append(clip)
        starts[clip.source, clip.shot, clip.split].append(clip.start)
    found: dict[str, tuple[str, str]] = {}
    for copy in copies:
        one, other = (copy.source, copy.shot, copy.start), (copy.other_source, copy.other_shot, copy.other_start)
        for (source, shot, start), (held, held_shot, held_start) in ((one, other), (other, one)):
            for clip in mine[source, shot]:
                for split in SPLITS[SPLITS.index(clip.split) + 1 :]:
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


def _segments(clips: pd.DataFrame, settings: Pairs) -> pd.Series:
    """Of each clip the split of the segment that holds all of its frames; empty if it reaches into a gap, which has as
    many frames for all clips of a shot."""
    gap = clips.groupby(["source", "shot"], sort=False)["frames"].transform("max") + 1
    shares = {
        "train": 1 - settings.validation - settings.test,
        "validation": settings.validation,
        "test": settings.test,
    }
    usable = clips["shot_frames"] - gap * (len(shares) - 1)
    begin, found = gap * 0.0, pd.Series("", clips.index, dtype="str")
    for name, share in shares.items():
        end = begin + share * usable
        found[(begin <= clips["start"]) & (clips["start"] + clips["frames"] <= end)] = name
        begin = end + gap
    return found
