"""Captions from sidecar files, and from tiny random models in the environment that `make captioning` makes."""

import base64
import json
import os
import re
import runpy
import subprocess
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from regdpo.config import schema
from regdpo.config.stage_inputs import CaptionsStage
from regdpo.core import digests, manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.core.store import Store, kept_at
from regdpo.data import caption_checks, caption_templates
from regdpo.data.captioners import answers, vision
from regdpo.data.sidecars import Sidecars
from regdpo.data.video import write_frames
from regdpo.stages import captions

ROOT = Path(__file__).parents[2]

needs_torchvision = pytest.mark.skipif(
    not find_spec("num2words"),
    reason="torchvision and num2words are not installed here; `make test` runs these once more in .venv-captioning",
)


def clip(name: str, source: str = "a/b.mp4", shot: int = 0, **values) -> ClipRow:
    return ClipRow(clip_id=name, status="accepted", source=source, source_digest="0", shot=shot, **values)


def sidecars(root: Path, files: dict[str, bytes], clips: list[ClipRow]) -> list[CaptionRow]:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    stage = CaptionsStage(captions=schema.Captions(), videos_root=str(root))
    return captions.caption_shard(stage, clips, Store(root / "store"))


def test_a_shots_own_sidecar_goes_before_the_videos(tmp_path):
    files = {"a/b.txt": b"\xef\xbb\xbf a  hare\n\n wakes \n", "a/b.shot002.txt": "ein Häschen".encode()}
    rows = sidecars(tmp_path, files, [clip("one", shot=0), clip("two", shot=2), clip("three", shot=12)])
    assert [(row.clip_id, row.caption, row.captioner) for row in rows] == [
        ("one", "a hare wakes", "sidecar:a/b.txt"),
        ("two", "ein Häschen", "sidecar:a/b.shot002.txt"),
        ("three", "a hare wakes", "sidecar:a/b.txt"),
    ]


def test_all_missing_sidecars_are_one_line(tmp_path):
    clips = [clip("1"), clip("2", source="c.mov"), clip("3", source="c.mov", shot=1), clip("4", source="d.mkv")]
    with pytest.raises(UserError, match=r"^captions: 3 of 4 clips have no caption: write a/b\.txt, c\.txt ") as error:
        sidecars(tmp_path, {"d.txt": b"a boat"}, clips)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)
    stage = CaptionsStage(captions=schema.Captions(), videos_root=str(tmp_path))
    with pytest.raises(UserError, match=r"^captions: 3 of 4 clips have no caption: write a/b\.txt, c\.txt "):
        captions.caption_shard(stage, clips[:1], Store(tmp_path / "store"), every=lambda: clips)
    with pytest.raises(UserError) as error:
        captions.caption_shard(stage, clips[2:], Store(tmp_path / "store"), every=lambda: clips)
    assert str(error.value) == (
        "captions: 1 of the 2 clips of this shard have none, such as those of c.mov; the shard with a/b.mp4 lists all that "
        "lack"
    )
    (tmp_path / "d.txt").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of the 1 clips .* such as those of d\.mkv; the shard with a/b\.mp4"):
        captions.caption_shard(stage, clips[3:], Store(tmp_path / "store"), every=lambda: clips)
    (tmp_path / "d.txt").write_bytes(b"a boat")
    (row,) = captions.caption_shard(stage, clips[3:], Store(tmp_path / "store"), every=lambda: pytest.fail("asked"))
    assert row.caption == "a boat", "whose own captions are there reads no other"
    with pytest.raises(UserError, match=r"^captions: these 2 text files are empty: a/b\.txt, c\.txt in "):
        sidecars(tmp_path, {"a/b.txt": b"", "c.txt": b""}, clips)


def test_templates_are_written_for_what_has_no_caption(tmp_path):
    """The page shows clips, those that are smaller than their video as large as that has them."""
    store, frames = Store(tmp_path / "store"), np.zeros((3, 32, 48, 3), np.uint8)
    frames[:, :, :24] = 200
    (tmp_path / "videos").mkdir()
    write_frames(tmp_path / "videos/x.mp4", frames.repeat(8, 1).repeat(8, 2), 8, schema.Encode())
    with store.writing("clips/one.mp4") as path:
        write_frames(path, frames, 8, schema.Encode())
    kept = {"path": "clips/one.mp4", "sha256": digests.file_digest(store.resolve("clips/one.mp4"))}
    sources = {"1": "a/<b>.mp4", "2": "x.mp4", "3": "x.mov", "4": "told.mp4"}
    scaled = {
        "width": 16,
        "height": 16,
        "crop_x": 20,
        "frames": 3,
        "fps": 8.0,
        "start_s": 0.0,
        "scores": {"upscale": 0.125},
    }
    clips = [clip(name, source=source, **kept, **scaled) for name, source in sources.items()]
    clips.append(clip("5", source="told.mp4", shot=2, **kept))
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "told.txt").write_text("a boat")
    done = list(caption_templates.write(folder, clips, store, tmp_path / "videos"))
    assert done[0] == "3 empty text files written, 1 videos had one"
    texts = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}
    assert texts == {"a/<b>.txt": "", "x.mp4.txt": "", "x.mov.txt": "", "told.txt": "a boat"}
    page = (folder / "captions.html").read_text()
    found = [base64.b64decode(it) for it in re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)]
    pictures = [cv2.imdecode(np.frombuffer(it, np.uint8), cv2.IMREAD_COLOR) for it in found]
    assert [it.shape[:2] for it in pictures] == [(32, 48), (32, 48), (32, 48), (32, 48), (128, 128)]
    bright = pictures[-1].mean(axis=(0, 2)) > 100
    assert abs(bright.sum() - 32) <= 4, "of the window, which begins 160 pixels from the left, till 192"
    assert "a/&lt;b&gt;.mp4" in page
    assert "told.shot002.txt" in page
    with pytest.raises(UserError, match=r"3 text files are empty: a/<b>\.txt, x\.mov\.txt, x\.mp4\.txt in "):
        sidecars(folder, {}, clips)
    for name in texts:
        (folder / name).write_text("a train")
    assert len(sidecars(folder, {}, clips)) == 5
    assert next(iter(caption_templates.write(folder, clips, store))) == "0 empty text files written, 4 videos had one"
    assert (folder / "x.mp4.txt").read_text() == "a train"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n\t", "is empty"),
        ("\u200b\ufeff\n".encode(), "is empty"),
        ("\u3164 \u115f\uffa0".encode(), "is empty"),
        ("\u2800\n".encode(), "is empty"),
        (b"caf\xe9", r"is not UTF-8 text \(byte 3\)"),
        ("a dog runs".encode("utf-16-le"), "holds null bytes, perhaps UTF-16 without its mark; save it as UTF-8"),
        (b"\xff\xfea", r"is not UTF-16 text \(byte 2\)"),
        (b"a dog\x07", r"holds the character U\+0007"),
        ("a dog \U0010ffff".encode(), r"holds the character U\+10FFFF"),
        (b"a" * (2**20 + 1), "has 1048577 bytes, a caption has at most 1048576"),
    ],
)
def test_a_sidecar_that_says_nothing_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=rf"a/b\.txt: {message}"):
        sidecars(tmp_path, {"a/b.txt": content}, [clip("1")])


def test_sidecars_stay_inside_the_root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("a secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    for source in ("../secret.mp4", str(tmp_path / "secret.mp4"), "link.mp4"):
        with pytest.raises(UserError, match="leads out of"):
            sidecars(root, {}, [clip("1", source=source)])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_sidecar_with_a_byte_order_mark_is_read(tmp_path, encoding):
    (row,) = sidecars(tmp_path, {"a/b.txt": "a dog\r\n runs \U0001f415".encode(encoding)}, [clip("1")])
    assert row.caption == "a dog runs \U0001f415"


def test_a_long_sidecar_is_read_whole(tmp_path):
    (row,) = sidecars(tmp_path, {"a/b.txt": b"a dog runs. " * 8_500}, [clip("1")])
    assert row.caption == " ".join(["a dog runs."] * 8_500)
    assert len(row.caption) > 100_000
    assert not row.reason


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_in_another_normal_form_find_their_sidecar(tmp_path, forms):
    video, text = (unicodedata.normalize(form, "Café Zürich") for form in forms)
    (row,) = sidecars(tmp_path, {f"{text}.TXT": b"a cup"}, [clip("1", source=f"{video}.mp4")])
    assert row.caption == "a cup"


def test_a_sidecar_that_could_belong_to_two_videos_is_refused(tmp_path):
    clips = [clip("1", source="x.mp4"), clip("2", source="x.mov")]
    with pytest.raises(
        UserError, match=r"x\.txt could belong to x\.mov and x\.mp4; name it after one of them .x\.mov\.txt"
    ):
        sidecars(tmp_path, {"x.txt": b"which"}, clips)
    stage = CaptionsStage(captions=schema.Captions(), videos_root=str(tmp_path))
    with pytest.raises(UserError, match="could belong to"):  # where the other is another shard's
        captions.caption_shard(stage, clips[:1], Store(tmp_path / "store"), ["x.mp4", "x.mov"])
    rows = sidecars(tmp_path, {"x.mp4.txt": b"one", "x.mov.shot000.txt": b"other"}, clips)
    assert [row.caption for row in rows] == ["one", "other"]


def test_a_pipe_is_no_sidecar_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "b.txt")
    assert Sidecars(tmp_path, ()).digest(["b.mp4"])
    with pytest.raises(UserError, match=r"b\.txt: is no regular file"):
        sidecars(tmp_path, {}, [clip("1", source="b.mp4")])


def test_the_digest_counts_what_belongs_to_the_videos_and_reads_nothing_else(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("a secret")
    (root / "a.link.txt").write_text("of another video")
    (root / "a.txt").symlink_to(tmp_path / "secret.txt")
    before = Sidecars(root, ()).digest(["a.mp4", "b.mp4"])
    (tmp_path / "secret.txt").write_text("another secret")
    (root / "a.link.txt").write_text("changed")
    assert Sidecars(root, ()).digest(["b.mp4", "a.mp4"]) == before
    (root / "b.shot001.txt").write_text("a boat")
    assert Sidecars(root, ()).digest(["a.mp4", "b.mp4"]) != before


def test_sidecars_may_lie_in_a_folder_of_their_own(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "b.txt").write_text("a train")
    stage = CaptionsStage(captions=schema.Captions(root=str(tmp_path / "texts")), videos_root="nowhere")
    rows = captions.caption_shard(stage, [clip("1", source="b.mp4")], Store(tmp_path / "store"))
    assert [row.caption for row in rows] == ["a train"]
    stage = CaptionsStage(captions=schema.Captions(root=str(tmp_path / "absent")), videos_root=str(tmp_path))
    with pytest.raises(UserError, match=r"^captions\.root: .*; scripts/captions.py --write-templates makes it"):
        captions.caption_shard(stage, [clip("1", source="b.mp4")], Store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("A dog runs over a meadow. It cannot see the cat; sorry sight.", ""),
        ("I can see a dog", ""),
        ("Imsorry is a town in this film", ""),
        ("Ein Hund läuft über eine Wiese — wie 1999!", ""),
        (" \u200b", "empty"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I\u2019m sorry, I cannot", "refusal"),
        ("Sorry, no video was given", "refusal"),
        ("As an AI language model", "refusal"),
        ("I am unable to view videos", "refusal"),
        ("I cannot describe this video", "refusal"),
        ("Unfortunately, I see nothing", "refusal"),
        ("很抱歉,我不能", "refusal"),
        ("<think>The user wants", "reasoning"),
        ("a dog\x1b[31m runs", "characters"),
        ("a dog \ufffd", "characters"),
        ("一只狗在草地上奔跑", "language"),
        ("一只狗 dog", "language"),
        ("123 !", "language"),
    ],
)
def test_what_a_caption_is_checked_for(text, kind):
    row = CaptionRow(clip_id="c", caption=text, captioner="m")
    found = caption_checks.problem(row, schema.Captions(script="LATIN"))
    assert found.partition(":")[0] == kind
    assert found.isprintable()
    if kind == "language":
        assert not caption_checks.problem(row, schema.Captions())
    assert caption_checks.problem(row.model_copy(update={"cut": True}), schema.Captions()) != ""


@pytest.mark.parametrize(
    ("total", "count", "indices"),
    [(9, 3, [0, 3, 5, 8]), (17, 2, [0, 16]), (81, 5, [0, 16, 32, 48, 64, 80]), (1, 1, [0, 0]), (3, 4, [0, 1, 1, 2])],
)
def test_frames_are_spread_over_the_clip(total, count, indices):
    assert answers.evenly(total, count).tolist() == indices


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl", "smolvlm"])
def model(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    runpy.run_path(str(ROOT / "tests" / "tiny_qwen.py"))["make"](request.param, folder)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def clips(store) -> list[ClipRow]:
    """Three sizes, so that prompts differ in length."""
    noise = np.random.default_rng(0)
    rows = []
    for number, (height, width) in enumerate([(64, 64), (96, 160), (128, 96)]):
        frames = noise.integers(0, 256, (9, height // 16, width // 16, 3), np.uint8).repeat(16, 1).repeat(16, 2)
        relative = store.relative("clips", f"{number}" * 64, ".mp4")
        with store.writing(relative) as temporary:
            write_frames(temporary, frames, 8.0, schema.Encode())
        digest = digests.file_digest(store.resolve(relative))
        rows.append(clip(f"clip{number}", frames=9, fps=8.0, path=relative, sha256=digest))
    return rows


def qwen(model: Path, **settings) -> CaptionsStage:
    values = {"source": "transformers", "model": str(model), "frames": 4, "max_new_tokens": 12, "unusable": "leave_out"}
    values |= settings
    return CaptionsStage(captions=schema.Captions(**values), videos_root="nowhere")


@needs_torchvision
def test_a_tiny_model_is_cut_off_or_not(model, clips, store):
    """Whether an answer ended is told by the token that ends it, by the model's own generation here."""
    rows = captions.caption_shard(qwen(model, batch=3), clips, store)
    assert [(row.cut, row.kind) for row in rows] == [(True, "cut off")] * 3
    with pytest.raises(UserError, match=r"captions: 3 of 3 cannot be used: clip clip0: cut off: .*captions\.unusable"):
        captions.caption_shard(qwen(model, batch=3, unusable="stop"), clips, store)


@needs_torchvision
def test_qwen_captions_are_greedy_batched_and_kept(model, clips, store, monkeypatch):
    rows = captions.caption_shard(qwen(model, batch=3), clips, store)
    assert [row.clip_id for row in rows] == ["clip0", "clip1", "clip2"]
    assert len({row.caption for row in rows}) == 3  # the model sees the clips
    assert all(row.captioner.startswith(f"{model}@") for row in rows)

    # One caption is lost and one is marked: the lost one alone is made again, now unpadded in a batch of one.
    texts = {json.loads(path.read_text())["caption"]: path for path in (store.root / "captions").glob("*/*.json")}
    texts[rows[0].caption].unlink()
    marked = texts[rows[1].caption]
    marked.write_text('{"caption": "kept from before", "cut": false}')
    kept_at(marked).unlink()
    made: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(vision, "track", lambda items, *_: made.extend(items) or made)
        again = captions.caption_shard(qwen(model, batch=1), clips, store)
    assert len(made) == 1
    assert [row.caption for row in again] == [rows[0].caption, "kept from before", rows[2].caption]

    other = captions.caption_shard(qwen(model, prompt="What is it?"), clips[1:2], store)
    assert other[0].caption not in (rows[1].caption, "kept from before")

    marked.write_text("changed")
    assert [row.caption for row in captions.caption_shard(qwen(model, batch=1), clips, store)] == [
        row.caption for row in rows
    ]


@needs_torchvision
def test_pickled_weights_are_refused(model, clips, store):
    weights = model / "model.safetensors"
    weights.rename(model / "pytorch_model.bin")
    try:
        with pytest.raises(UserError, match=r"^captions\.model: .* cannot be loaded"):
            captions.caption_shard(qwen(model), clips, store)
    finally:
        (model / "pytorch_model.bin").rename(weights)


@needs_torchvision
@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("tokenizer_config.json", {"pad_token": None}, "its tokenizer has no token to pad with"),
        ("config.json", {"vision_config": {"patch_size": None}}, "cannot be loaded"),
    ],
)
def test_a_model_that_lacks_what_is_needed_is_refused_in_one_line(model, clips, store, file, change, said):
    whole = (model / file).read_text()
    values = json.loads(whole)
    for key, value in change.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    (model / file).write_text(json.dumps(values))
    try:
        with pytest.raises(UserError, match=rf"^captions\.model: .*{said}") as error:
            captions.caption_shard(qwen(model, prompt="else"), clips, store)
        assert "\n" not in str(error.value)
    finally:
        (model / file).write_text(whole)


@needs_torchvision
def test_other_models_are_refused_in_one_line(tmp_path, clips, store):
    with pytest.raises(UserError, match=r"^captions\.model: .* cannot be loaded") as error:
        captions.caption_shard(qwen(tmp_path), clips, store)
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="is a bert model; known are qwen2_5_vl, qwen3_vl, smolvlm"):
        captions.caption_shard(qwen(tmp_path), clips, store)


def command(folder: Path, **settings) -> subprocess.CompletedProcess[str]:
    """scripts/captions.py on the second of two clips, the first being rejected."""
    rejected = clip("0").model_copy(update={"status": "rejected", "reason": "static"})
    manifests.write(folder / "clips.parquet", [rejected, clip("1", source="b.mp4")], ClipRow)
    part = {"captions": settings, "videos_root": str(folder)}
    parts = {"CaptionsStage": part, "CaptionServerStage": {"server": None}}
    (folder / "a.run").write_text(json.dumps({"parts": parts}))
    arguments = [
        "--config",
        "a.run",
        "--store",
        "store",
        "--clips",
        "clips.parquet",
        "--shard",
        "0/1",
        "--out",
        "out.parquet",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "captions.py", *arguments],
        cwd=folder, env=environment, text=True, capture_output=True, timeout=60,
    )  # fmt: skip


def test_the_command_captions_accepted_clips(tmp_path):
    (tmp_path / "b.txt").write_text("a boat")
    done = command(tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(row.clip_id, row.caption) for row in manifests.read(tmp_path / "out.parquet", CaptionRow)] == [
        ("1", "a boat")
    ]


@pytest.mark.skipif(find_spec("num2words") is not None, reason="num2words is installed here")
def test_without_torchvision_the_way_out_is_named(tmp_path):
    done = command(tmp_path, source="transformers", model=".")
    assert done.returncode == 2
    assert done.stderr.startswith("error: captions.model: transformers needs ")
    assert "make captioning" in done.stderr
    assert len(done.stderr.splitlines()) == 1
