"""Pairs and their split: no footage in two splits."""

import itertools
import re
from collections import Counter

import pandas as pd
import pytest
from tables import frame, rows_of

from regdpo.config.schema import Pairs
from regdpo.config.stage_inputs import MinimumStage, PairsStage, SplitsStage
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow, CopyRow, ImportedRow, NegativeRow, PairRow, SplitRow
from regdpo.data import splits
from regdpo.data.asked import every_id
from regdpo.data.splits import SPLITS
from regdpo.stages import pairs

FRAMES = 9


def clips(sources: int = 1, shot_frames: int = 132, stride: int = 2) -> list[ClipRow]:
    return [
        ClipRow(
            clip_id=f"s{source:02}-{start:03}",
            status="accepted",
            source=f"s{source:02}.mp4",
            source_digest=str(source),
            shot=0,
            shot_frames=shot_frames,
            start=start,
            frames=FRAMES,
            path=f"clips/{source}/{start}.mp4",
            sha256=f"{source}{start}",
        )
        for source in range(sources)
        for start in range(0, shot_frames - FRAMES + 1, stride)
    ]


def assign(rows: list[ClipRow], settings: Pairs) -> dict[str, str]:
    return splits.assign(frame(rows), settings).to_dict()


def source_splits(rows: list[ClipRow], settings: Pairs) -> dict[str, str]:
    return splits.source_splits(frame(rows), settings)


def pretraining(stage: PairsStage, rows: list[ClipRow], said: list[CaptionRow]) -> list[PairRow]:
    return rows_of(pairs.pretraining(stage, frame(rows), frame(said, CaptionRow)[[*pairs.CAPTIONS]]), PairRow)


def negatives(clips: list[ClipRow], caption: str = "x") -> list[NegativeRow]:
    fixed = {"generator": "base", "family": "wan", "model": "g", "task": "i2v", "seed": 1, "steps": 1}
    fixed |= {"guidance": 1.0, "shift": 1.0, "frames": FRAMES}
    fixed |= {"fps": 25.0, "width": 64, "height": 64, "path": "n.mp4", "sha256": "n", "caption": caption}
    return [NegativeRow(negative_id=f"{clip.clip_id}.n0", clip_id=clip.clip_id, **fixed) for clip in clips]


def captions(clips: list[ClipRow]) -> list[CaptionRow]:
    return [CaptionRow(clip_id=clip.clip_id, caption="x", captioner="t") for clip in clips]


def build(rows: list[ClipRow], known: tuple[str, ...] = (), **settings):
    stage = PairsStage.model_validate({"pairs": settings, "frames": FRAMES, "known": list(known)})
    return made(stage, rows, captions(rows), negatives(rows))[0]


def made(stage, rows, said, rendered, copies=()):
    tables = frame(rows), frame(said, CaptionRow), frame(rendered, NegativeRow), list(copies), frame([], ImportedRow)
    built, lines = pairs.build(stage, *tables)
    return rows_of(built, PairRow), lines


@pytest.mark.parametrize("share", [0.1, 0.18, 0.3])
def test_segments_lie_more_than_a_clip_apart(share):
    built = build(clips(), validation=share, test=share)
    spans = {
        split: {frame for row in built if row.split == split for frame in range(row.start, row.start + FRAMES)}
        for split in splits.SPLITS
    }
    order = [spans[split] for split in splits.SPLITS]
    for before, after in itertools.pairwise(order):
        assert min(after) - max(before) > FRAMES
    assert len(built) < len(clips()), "clips in a gap are in no split"


def test_the_gap_in_a_shot_is_as_wide_as_its_own_clips():
    """Two shots of clips of two lengths: each is split as if it were alone."""
    short = clips(shot_frames=132)
    long = [
        clip.model_copy(update={"clip_id": f"long-{clip.clip_id}", "shot": 1, "frames": 3 * FRAMES, "shot_frames": 396})
        for clip in clips(shot_frames=370)
    ]
    settings = Pairs(validation=0.3, test=0.3)
    found = assign(short + long, settings)
    assert found == assign(short, settings) | assign(long, settings)
    for rows in (short, long):
        frames = rows[0].frames
        starts = [[row.start for row in rows if found.get(row.clip_id) == split] for split in SPLITS]
        assert all(starts)
        for before, after in itertools.pairwise(starts):
            assert min(after) - max(before) > 2 * frames


def test_clips_of_two_lengths_in_one_shot_share_its_gaps():
    short = clips(shot_frames=396)
    long = [row.model_copy(update={"clip_id": f"long-{row.clip_id}", "frames": 3 * FRAMES}) for row in short[:-9]]
    found = assign(short + long, Pairs(validation=0.3, test=0.3))
    held: dict[str, set[int]] = {split: set() for split in SPLITS}
    for row in short + long:
        if split := found.get(row.clip_id):
            held[split] |= set(range(row.start, row.start + row.frames))
    for before, after in itertools.pairwise(SPLITS):
        assert min(held[after]) - max(held[before]) > 3 * FRAMES


def test_by_source_from_enough_sources_on():
    built = build(clips(sources=30), validation=0.2, test=0.2)
    split_of: dict[str, set[str]] = {}
    for row in built:
        split_of.setdefault(row.source, set()).add(row.split)
    assert all(len(splits) == 1 for splits in split_of.values())
    assert {split for splits in split_of.values() for split in splits} == set(SPLITS)


def videos(number: int, **values) -> list[ClipRow]:
    """A clip of each."""
    one = clips()[0]
    return [
        one.model_copy(update={"source": f"v{n}.mp4", "clip_id": f"v{n}", "source_digest": f"d{n}", **values})
        for n in range(number)
    ]


def test_of_many_sources_each_split_gets_its_share():
    found = source_splits(videos(4000), Pairs(validation=0.1, test=0.2))
    counts = Counter(found.values())
    assert counts["test"] == pytest.approx(800, abs=100)
    assert counts["validation"] == pytest.approx(400, abs=80)


def test_a_split_is_a_threshold_on_the_hash_of_a_videos_bytes():
    """By a formula of its own: SHA-256 as a number in [0, 1), of the seed and the digest as ``text_digest`` joins them."""
    settings = Pairs(split="source", seed=3, validation=0.3, test=0.2)
    for clip in videos(40):
        place = int(text_digest("3", f"content {clip.source_digest}"), 16) / 16**64
        expected = "test" if place < 0.2 else "validation" if place < 0.5 else "train"
        assert source_splits([clip], settings) == {clip.source: expected}


def test_nobody_changes_sides_when_videos_are_added_renamed_or_copied():
    """From one video to hundreds: each keeps its split, alone or among the others."""
    settings, many = Pairs(split="source", validation=0.2, test=0.2), videos(300)
    whole = source_splits(many, settings)
    assert set(whole.values()) == set(SPLITS)
    for number in (1, 2, 3, 10, 299):
        assert source_splits(many[:number], settings) == {clip.source: whole[clip.source] for clip in many[:number]}
    moved = [clip.model_copy(update={"source": f"elsewhere/{clip.source}"}) for clip in many]
    assert source_splits([*many, *moved], settings) == whole | {
        clip.source: whole[clip.source.removeprefix("elsewhere/")] for clip in moved
    }


def test_a_group_is_on_one_side():
    rows = [row for name in "abcdefgh" for row in videos(40, group=name)]
    named = [row.model_copy(update={"source": f"{row.group}/{row.source}"}) for row in rows]
    sides: dict[str, set[str]] = {}
    for source, split in source_splits(named, Pairs(split="source", validation=0.3, test=0.3)).items():
        sides.setdefault(source.partition("/")[0], set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    assert len(set.union(*sides.values())) > 1


def test_auto_decides_once_and_keeps_to_it(tmp_path):
    file, asked = tmp_path / "split.json", Pairs(validation=0.2, test=0.2)
    few, many = clips(sources=5), videos(100)
    assert splits.decide(file, frame(few), asked).split == "segment"
    assert splits.decide(file, frame(many), asked).split == "segment", "videos were added"
    assert splits.decided(file, asked.model_copy(update={"limit": 7})).split == "segment"
    other = asked.model_copy(update={"min_sources": 20})
    with pytest.raises(UserError, match="says how to split by other settings of `pairs`"):
        splits.decided(file, other)
    assert splits.decide(file, frame(many), other).split == "source", "something else was asked"
    assert splits.decide(file, frame(few), other).split == "source", "videos were taken away"
    file.write_text("{")
    with pytest.raises(UserError, match=r"split\.json: does not say .*delete it, and it is decided anew"):
        splits.decide(file, frame(many), other)


def test_auto_leaves_no_split_empty(tmp_path):
    """Of many videos none happens to be held out with the given seed: another is taken, for all that come later too."""
    asked, every = Pairs(validation=0.2, test=0.2), videos(100)
    train = [clip for clip in every if splits.side(f"content {clip.source_digest}", asked) == "train"]
    assert len(train) > asked.min_sources
    decided = splits.decide(tmp_path / "split.json", frame(train), asked)
    assert decided.split == "source"
    sides = source_splits(train, decided)
    assert set(sides.values()) == set(SPLITS)
    later = splits.decide(tmp_path / "split.json", frame(every), asked)
    assert later == decided
    assert sides.items() <= source_splits(every, later).items(), "nobody changes sides"


@pytest.mark.parametrize("count", [3, 4, 7])
def test_auto_gives_whole_videos_to_splits_where_shots_are_too_short_for_three(tmp_path, count):
    few = videos(count, shot_frames=2 * FRAMES)
    decided = splits.decide(tmp_path / "split.json", frame(few), Pairs())
    assert decided.split == "source"
    counts = Counter(assign(few, decided).values())
    assert set(counts) == set(SPLITS)
    assert counts["train"] == max(counts.values())
    if count == 7:  # of which the report asks for three to test on, and no fewer train
        assert list(source_splits(few, decided).values()).count("test") == 3


def test_auto_cuts_few_long_shots_in_time(tmp_path):
    assert splits.decide(tmp_path / "split.json", frame(clips()), Pairs()).split == "segment"


def test_a_clip_of_held_out_footage_makes_no_pair_and_a_line():
    rows = clips(sources=30, stride=9)
    split_of = source_splits(rows, Pairs(validation=0.2, test=0.2))
    test, train = (next(source for source in split_of if split_of[source] == split) for split in ("test", "train"))
    copy = CopyRow(
        copy_id="1", source=test, shot=0, start=0, frames=132, other_source=train, other_shot=0, other_start=0
    )
    stage = PairsStage.model_validate({"pairs": {"validation": 0.2, "test": 0.2}, "frames": FRAMES, "known": []})
    built, lines = made(stage, rows, captions(rows), negatives(rows), [copy])
    assert {row.source for row in built} == set(split_of) - {train}
    held = sum(row.source == train for row in rows)
    assert lines == [f"{held} clips of {train} are left out of train: {test} holds the same footage out for test"]


def test_few_sources_asked_to_split_by_source_are_refused():
    with pytest.raises(UserError, match="no pair falls into"):
        build(clips(), split="source", validation=0.2, test=0.2)


def test_with_a_limit_negatives_are_made_of_the_clips_that_it_chooses_alone():
    """By two generators, one of which takes half of the clips twice."""
    generators = [
        {"generator": "base", "per_clip": 1, "begin": 0.0, "share": 1.0},
        {"generator": "fast", "per_clip": 2, "begin": 0.3, "share": 0.5},
    ]
    values = {"pairs": {"validation": 0.2, "test": 0.2, "limit": 9}, "frames": FRAMES, "known": []}
    stage, rows = SplitsStage.model_validate({**values, "generators": generators}), clips(sources=30, stride=30)
    every = pairs.places(stage, frame(rows), [])

    def rendered(clip_ids):
        asked = [(clip_id, name) for clip_id in clip_ids for name in every_id(stage.generators, clip_id)]
        some = negatives([row for row in rows if row.clip_id == rows[0].clip_id])[0]
        return [some.model_copy(update={"negative_id": name, "clip_id": clip_id}) for clip_id, name in asked]

    needed = pairs.needed(stage, every)
    assert 3 <= (needed == "train").sum() <= 9 < (every == "train").sum()
    assert needed[needed != "train"].equals(every[every != "train"])
    assert {len(every_id(stage.generators, clip_id)) for clip_id in every.index} == {1, 3}
    of_all, of_needed = (made(stage, rows, captions(rows), rendered(ids.index))[0] for ids in (every, needed))
    assert of_all == of_needed
    assert sum(row.split == "train" for row in of_all) == 9
    unlimited = stage.model_copy(update={"pairs": stage.pairs.model_copy(update={"limit": None})})
    assert pairs.needed(unlimited, every) is every


def counted(rows: list[ClipRow], copies: tuple[CopyRow, ...] = (), **settings):
    stage = PairsStage.model_validate({"pairs": settings, "frames": FRAMES, "known": []})
    return pairs.count(stage, frame(rows), list(copies))


def test_clips_are_counted_by_split_before_there_are_negatives():
    """As many as the pairs will be, by which the negatives are taken up."""
    for rows, settings in (
        (clips(), {"validation": 0.18, "test": 0.18}),
        (clips(sources=60, stride=60), {"test": 0.2}),
    ):
        built = build(rows, **settings)
        stage = PairsStage.model_validate({"pairs": settings, "frames": FRAMES, "known": []})
        assert pairs.places(stage, frame(rows), []).to_dict() == {row.clip_id: row.split for row in built}
        found = {row.split: (row.clips, row.sources) for row in counted(rows, **settings)}
        assert found == {
            split: (len(mine), len({row.source for row in mine}))
            for split in SPLITS
            if (mine := [row for row in built if row.split == split])
        }
    line = pairs.told(counted(clips(), validation=0.18, test=0.18))
    assert re.fullmatch(
        r"clips by split: train \d+ \(videos: 1\), validation \d+ \(videos: 1\), test \d+ .*; each shot cut in time",
        line,
    )
    assert pairs.told(counted(clips(sources=60, stride=60))).endswith("; each video in one of them")


def test_too_little_footage_is_refused_with_what_would_do():
    """What is told to be enough is enough, and a frame less is not."""
    settings = {"validation": 0.1, "test": 0.2}
    with pytest.raises(UserError, match=r"no clip falls into validation \(train \d+, validation 0, test 8\)") as caught:
        counted(clips(shot_frames=100, stride=1), **settings)
    least = int(re.search(r"about (\d+) frames .* the longest has 100: give longer ones", str(caught.value))[1])
    counted(clips(shot_frames=least, stride=1), **settings)
    with pytest.raises(UserError, match=f"about {least} frames"):
        counted(clips(shot_frames=least - 1, stride=1), **settings)
    with pytest.raises(UserError, match=r"or pairs\.split: auto, which may give"):
        counted(clips(sources=3, shot_frames=50), split="segment", **settings)
    with pytest.raises(
        UserError, match=r"\(train \d+, .*\); 2 videos .* fall where the hash .*, and 50 would .* give more"
    ):
        counted(clips(sources=2), split="source", **settings)
    rejected = [row.model_copy(update={"status": "rejected", "reason": "dark: 3"}) for row in clips()]
    with pytest.raises(UserError, match="no clip was accepted: the clips' manifest has the reason"):
        counted(rejected, **settings)


def test_known_footage_makes_no_pairs():
    built = build(clips(sources=2), known=("s00*",), validation=0.2, test=0.2)
    assert {row.source for row in built} == {"s01.mp4"}


def test_limit_takes_training_pairs_alone():
    everything, limited = (build(clips(), validation=0.18, test=0.18, limit=limit) for limit in (None, 5))
    count = {split: sum(row.split == split for row in limited) for split in splits.SPLITS}
    assert count["train"] == 5
    assert count["test"] == sum(row.split == "test" for row in everything)


def test_a_negative_of_another_caption_is_refused():
    rows = clips()
    stage = PairsStage.model_validate({"pairs": {}, "frames": FRAMES, "known": []})
    with pytest.raises(UserError, match="made from another caption"):
        made(stage, rows, captions(rows), negatives(rows, "y"))


def test_a_clip_whose_caption_cannot_be_used_makes_no_pair():
    rows = clips(sources=2)
    said = [row.model_copy(update={"reason": "refusal: x"} if "s00" in row.clip_id else {}) for row in captions(rows)]
    stage = PairsStage.model_validate({"pairs": {"validation": 0.2, "test": 0.2}, "frames": FRAMES, "known": []})
    left = [row for row in negatives(rows) if "s01" in row.negative_id]
    built, _ = made(stage, rows, said, left)
    assert {row.source for row in built} == {"s01.mp4"}
    known = stage.model_copy(update={"known": ["*"]})
    assert {row.source for row in pretraining(known, rows, said)} == {"s01.mp4"}


def test_a_rejected_negative_makes_no_pair_and_is_counted():
    rows = clips()
    rendered = negatives(rows)
    gone = {"status": "rejected", "reason": "frozen: no frame differs"}
    rendered = [row.model_copy(update=gone) if index < 3 else row for index, row in enumerate(rendered)]
    stage = PairsStage.model_validate({"pairs": {}, "frames": FRAMES, "known": []})
    built, lines = made(stage, rows, captions(rows), rendered)
    assert not {row.pair_id for row in built} & {row.negative_id for row in rendered[:3]}
    assert len(built) == len(build(rows)) - 3
    assert lines == [f"3 of {len(rendered)} negatives are rejected and make no pair: frozen 3"]
    with pytest.raises(UserError, match=r"no pair falls into .* negatives are rejected and make no pair: frozen"):
        made(stage, rows, captions(rows), [row.model_copy(update=gone) for row in rendered])


def test_pretraining_takes_known_footage_whole():
    rows = clips(sources=2)
    stage = PairsStage.model_validate({"pairs": {}, "frames": FRAMES, "known": ["s00*"]})
    built = pretraining(stage, rows, captions(rows))
    assert {row.source for row in built} == {"s00.mp4"}
    assert {row.split for row in built} == {"train"}
    with pytest.raises(UserError, match=r"base.pretrain.sources: no accepted clip matches"):
        pretraining(stage.model_copy(update={"known": ["none"]}), rows, captions(rows))


def test_held_out_footage_that_the_report_will_call_too_little_is_told_once_it_is_counted():
    rows = [SplitRow(split="test", clips=40, sources=2, stretches=12), SplitRow(split="train", clips=9, sources=2)]
    asked = {"minimum": {"sources": 3, "clips": 10}, "split": "test"}
    line = pairs.too_few(rows, MinimumStage.model_validate(asked))
    assert line.startswith(
        "test has 40 clips on 12 stretches of 2 videos; the report says a word like better only from 10"
    )
    assert not pairs.too_few(rows, MinimumStage.model_validate({**asked, "minimum": {"sources": 2, "clips": 12}}))
    assert pairs.too_few(rows, MinimumStage.model_validate({**asked, "minimum": {"sources": 2, "clips": 13}}))


def test_clips_of_one_shot_that_overlap_lie_on_one_stretch():
    """Also where a short one lies within a long one; each by hand."""
    spans = [("a", 0, 0, 9), ("a", 0, 40, 5), ("a", 0, 8, 9), ("a", 0, 9, 2), ("a", 0, 16, 9), ("a", 0, 25, 9)]
    spans += [("a", 1, 0, 9), ("b", 0, 0, 9), ("b", 0, 0, 9)]
    frame = pd.DataFrame(spans, columns=["source", "shot", "start", "frames"])
    assert pairs.stretches(frame) == 5  # of a: 0 to 25, 25 to 34, 40 to 45, and its second shot; of b one
    assert pairs.stretches(frame[:0]) == 0
