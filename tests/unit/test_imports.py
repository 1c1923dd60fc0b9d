"""Pairs that others made: both halves brought to what clips are, and one split for all."""

import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from tables import frame, rows_of

from regdpo.config import schema
from regdpo.config.stage_inputs import ImportsStage, PairsStage
from regdpo.core.digests import DigestCache, file_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow, ImportedRow, NegativeRow, PairRow
from regdpo.core.store import Store
from regdpo.data import splits
from regdpo.data.fingerprint import steps_of
from regdpo.data.video import read_stored, write_frames
from regdpo.stages import imports, pairs
from regdpo.workflow.inputs import Inputs

SFT = {"objective": "sft"}
TINY = {"frames": 5, "fps": 8, "width": 32, "height": 32}


def video(path: Path, grey: int, frames: int = 6, size: tuple[int, int] = (32, 32), fps: float = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_frames(path, np.full((frames, *size, 3), grey, np.uint8), fps, schema.Encode())


def imported(folder: Path, store: Store, rows: list[str], **clips: object) -> list[ImportedRow]:
    (folder / "pairs.csv").write_text("\n".join(["winner,loser,caption,group", *rows]))
    sources = {"mine": schema.PairSource(kind="csv", path=str(folder / "pairs.csv"))}
    stage = ImportsStage(sources=sources, clips=schema.Clips(**{**TINY, **clips}))
    return imports.import_shard(stage, "mine", 0, 1, store, DigestCache(folder / "digests.json"))


def test_both_halves_become_what_clips_are(tmp_path):
    video(tmp_path / "w.mp4", 60, frames=14, size=(64, 96), fps=16)
    video(tmp_path / "l.mp4", 200, frames=5)
    video(tmp_path / "short.mp4", 1, frames=4)
    (tmp_path / "again.mp4").write_bytes((tmp_path / "w.mp4").read_bytes())
    video(tmp_path / "longer.mp4", 200, frames=9)
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "w.mp4").read_bytes()[:99])
    store = Store(tmp_path / "store")
    lines = ["w.mp4,l.mp4,a dog,", "w.mp4,short.mp4,a,", "broken.mp4,w.mp4,a,", "l.mp4,none.mp4,a,"]
    lines += ["w.mp4,again.mp4,a,", "l.mp4,longer.mp4,a,"]
    rows = imported(tmp_path, store, lines)
    (good,) = [row for row in rows if row.status == "accepted"]
    assert (good.origin, good.caption, good.frames, good.fps) == ("mine", "a dog", 5, 8)
    assert good.source_digest == file_digest(tmp_path / "w.mp4")
    for path, sha256, grey in ((good.winner, good.winner_sha256, 60), (good.loser, good.loser_sha256, 200)):
        frames = read_stored(store, path, sha256)
        assert frames.shape == (5, 32, 32, 3)
        assert abs(frames.astype(int) - grey).max() < 4
        with av.open(str(store.resolve(path))) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.average_rate, stream.pix_fmt) == ("h264", 8, "yuv420p")
    assert {row.source: row.kind for row in rows if row.status == "rejected"} == {
        "mine/w.mp4 > short.mp4": "short",
        "mine/broken.mp4 > w.mp4": "winner",
        "mine/l.mp4 > none.mp4": "loser",
        "mine/w.mp4 > again.mp4": "same",
        "mine/l.mp4 > longer.mp4": "same",
    }
    line = imports.told(rows)
    assert line.startswith(
        "1 pairs of mine imported, 5 rejected (1 for loser, 2 for same, 1 for short, 1 for winner; such as mine/"
    )

    made = {path: path.stat().st_mtime_ns for path in store.root.rglob("*.mp4")}
    assert imported(tmp_path, store, lines) == rows
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*.mp4")} == made, "nothing was cut again"


def built_of(
    stage: PairsStage, cut: list[ClipRow], rows: list[ImportedRow], shots: dict | None = None
) -> tuple[list[PairRow], list[str]]:
    tables = frame(cut), frame([], CaptionRow), frame([], NegativeRow), [], frame(rows, ImportedRow), shots or {}
    built, lines = pairs.build(stage, *tables)
    return rows_of(built, PairRow), lines


def test_imported_pairs_follow_the_hash_of_their_winner(tmp_path):
    """And stay where they are when others are added; a group is on one side."""
    stage = PairsStage.model_validate(
        {"pairs": {"validation": 0.3, "test": 0.3, "split": "source"}, "frames": 5, "known": []}
    )

    def row(number: int, group: str = "") -> ImportedRow:
        half = {"winner": f"w{number}", "winner_sha256": "x", "loser": "l", "loser_sha256": "y", **TINY}
        digest = {"source_digest": f"d{number}", "group": group, "source": f"mine/{number}"}
        return ImportedRow(pair_id=f"p{number}", status="accepted", origin="mine", caption="a", **digest, **half)

    rows = [row(number) for number in range(30)]
    broken = rows[0].model_copy(update={"pair_id": "broken", "status": "rejected", "reason": "winner: x"})
    built, _ = built_of(stage, [], [*rows, broken])
    assert {pair.pair_id: pair.split for pair in built} == {
        row.pair_id: splits.side(f"content {row.source_digest}", stage.pairs) for row in rows
    }
    assert {(pair.origin, pair.loser, pair.frames, pair.source) for pair in built} >= {("mine", "l", 5, "mine/3")}
    more, _ = built_of(stage, [], [*rows, *(row(number) for number in range(30, 60))])
    assert {pair.pair_id: pair.split for pair in built}.items() <= {pair.pair_id: pair.split for pair in more}.items()
    with pytest.raises(
        UserError, match=r"^pairs\.sources\.mine: of 1 pairs none can be used; such as mine/0: winner: x$"
    ):
        built_of(stage, [], [broken])
    together, _ = built_of(stage, [], [*rows, *(row(number, "film") for number in range(30, 60))])
    assert len({pair.split for pair in together if int(pair.pair_id[1:]) >= 30}) == 1


def test_a_winner_that_is_in_the_footage_too_is_on_its_side_or_in_no_pair():
    """Where the footage is cut in time its video is in all splits."""
    cut = {"validation": 0.3, "test": 0.3, "split": "segment"}
    stage = PairsStage.model_validate({"pairs": cut, "frames": 5, "known": []})
    half = {"winner": "w", "winner_sha256": "x", "loser": "l", "loser_sha256": "y", **TINY, "caption": "a"}
    rows = [
        ImportedRow(pair_id=f"p{n}", status="accepted", origin="mine", source="s", source_digest=f"d{n}", **half)
        for n in range(30)
    ]
    shot = {"source": "film.mp4", "source_digest": "d3", "shot": 0, "shot_frames": 90, "frames": 5}
    footage = [ClipRow(clip_id=f"c{start}", status="accepted", start=start, **shot) for start in range(0, 85, 5)]
    built, lines = built_of(stage, footage, rows)
    assert {pair.pair_id for pair in built} == {row.pair_id for row in rows} - {"p3"}
    assert lines == [
        "1 pairs of mine are left out: their winners are videos of the footage, on another side of the split"
    ]


def test_a_winner_encoded_again_is_on_one_side_alone(tmp_path):
    """Of two files that show the same the one that is held out further stays, and the footage before either."""
    noise = np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8)
    wall = cv2.resize(noise, (480, 320), interpolation=cv2.INTER_CUBIC)
    frames = np.stack([wall[5 * k : 5 * k + 64, 8 * k : 8 * k + 96] for k in range(20)])
    write_frames(tmp_path / "w.mp4", frames, 8, schema.Encode())
    write_frames(tmp_path / "again.mp4", frames[:, ::2, ::2], 8, schema.Encode(crf=35))
    write_frames(tmp_path / "other.mp4", frames[::-1, ::-1], 8, schema.Encode())
    lines = ["w.mp4,other.mp4,a dog,", "again.mp4,other.mp4,a dog,", "other.mp4,w.mp4,a dog,"]
    rows = imported(tmp_path, Store(tmp_path / "store"), lines, frames=16)
    assert [row.status for row in rows] == ["accepted"] * 3
    others = [
        rows[0].model_copy(update={"pair_id": f"p{n}", "source_digest": f"d{n}", "fingerprint": ""}) for n in range(30)
    ]

    def stage(seed: int) -> PairsStage:
        settings = {"validation": 0.3, "test": 0.3, "split": "source", "seed": seed}
        return PairsStage.model_validate({"pairs": settings, "frames": 16, "known": [], "same_footage": 0.85})

    def sides(seed: int) -> dict[str, str]:
        return {row.source: splits.side(f"content {row.source_digest}", stage(seed).pairs) for row in rows}

    again, w = "mine/again.mp4 > other.mp4", "mine/w.mp4 > other.mp4"
    seed = next(seed for seed in range(99) if (sides(seed)[w], sides(seed)[again]) == ("train", "test"))
    built, told = built_of(stage(seed), [], [*rows, *others])
    assert {pair.source for pair in built if len(pair.pair_id) > 3} == {again, "mine/other.mp4 > w.mp4"}
    assert told == [f"pair {w} is left out of train: its winner shows the same as {again}, which is in test"]
    same = next(seed for seed in range(99) if sides(seed)[w] == sides(seed)[again])
    built, told = built_of(stage(same), [], [*rows, *others])
    assert (len(built), told) == (33, [])

    shot = {"source": "film.mp4", "source_digest": "d", "shot": 0, "shot_frames": 16, "frames": 16, "start": 0}
    film = ClipRow(clip_id="c", status="accepted", **shot)
    steps = {("film.mp4", 0): steps_of(next(row.fingerprint for row in rows if row.source == w))}
    for seed in range(9):
        mine = splits.side("content d", stage(seed).pairs)
        built, told = built_of(stage(seed), [film], [*rows, *others], steps)
        assert {pair.split for pair in built if pair.source in (w, again) and len(pair.pair_id) > 3} <= {mine}
        lost = [it for it in (w, again) if sides(seed)[it] != mine]
        assert sum("shows the same as film.mp4, which is in" in line for line in told) == len(lost)


def test_a_list_and_its_videos_count_by_content(tmp_path):
    """What makes the import stale: a byte of a half, a caption; not a clock, and not where the list lies."""

    def digest(folder: Path) -> str:
        source = {"kind": "csv", "path": str(folder / "pairs.csv")}
        values = {"videos": {"root": "."}, "base": {"model": "x", "revision": "1"}, "pairs": {"sources": {"m": source}}}
        settings = schema.check({**values, "paths": {"store": str(tmp_path / "store")}, "train": {"arms": {"a": SFT}}})
        return Inputs(settings, tmp_path / "notes", print).imports("m")

    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "w.mp4").write_bytes(b"winner")
        (folder / "l.mp4").write_bytes(b"loser")
        (folder / "pairs.csv").write_text("winner,loser,caption\nw.mp4,l.mp4,a dog\n")
    before = digest(tmp_path / "a")
    assert before
    os.utime(tmp_path / "a/l.mp4", (1, 1))
    assert digest(tmp_path / "a") == digest(tmp_path / "b") == before
    (tmp_path / "a/l.mp4").write_bytes(b"other")
    assert digest(tmp_path / "a") != before
    (tmp_path / "b/pairs.csv").write_text("winner,loser,caption\nw.mp4,l.mp4,a cat\n")
    assert digest(tmp_path / "b") != before
