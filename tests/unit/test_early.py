"""What reading the rules refuses: footage, sizes and a captioner that are not there."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from regdpo.config import schema
from regdpo.config.stage_inputs import ClipsStage
from regdpo.core.errors import UserError
from regdpo.data import footage
from regdpo.workflow import early
from regdpo.workflow.inputs import Inputs

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
WAN = {"model": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "revision": "main", "task": "t2v"}


def configured(**sections: dict) -> schema.Config:
    values = copy.deepcopy(DEFAULT)
    for name, section in sections.items():
        values[name] = section if name == "base" else values.get(name, {}) | section
    return schema.check(values)


def test_a_generator_that_cannot_take_the_clips_is_refused():
    ltx = {"family": "ltx_video", "model": "Lightricks/LTX-Video", "revision": "main"}
    settings = configured(negatives={"generators": {"base": {}, "ltx": ltx}}, clips={"frames": 13})
    with pytest.raises(
        UserError, match=r"^negatives.generators.ltx: clips.frames: ltx_video takes 8k\+1 frames, got 13"
    ):
        early.geometry(settings)


@pytest.mark.parametrize(
    ("base", "clips", "line"),
    [
        (DEFAULT["base"], {"frames": 16}, "clips.frames: wan takes 4k+1 frames, got 16; 13 would do"),
        (DEFAULT["base"], {"width": 72}, "clips.width: wan takes multiples of 16, got 72; 64 would do"),
        (WAN, {"frames": 16}, "clips.frames: wan takes 4k+1 frames, got 16; 13 would do"),
        ({"model": "some/wan", "revision": "main"}, {"frames": 16}, "clips.frames: wan takes 4k+1 frames"),
        (
            {"model": "Wan-AI/Wan2.2-TI2V-5B-Diffusers", "revision": "main", "family": "wan22"},
            {"height": 720, "short_side": None},
            "clips.height: wan22 takes multiples of 32, got 720; 704 would do",
        ),
        (
            {"model": "Lightricks/LTX-Video", "revision": "main", "family": "ltx_video"},
            {"frames": 13},
            "clips.frames: ltx_video takes 8k+1 frames, got 13; 9 would do",
        ),
    ],
)
def test_sizes_that_the_base_cannot_take(base, clips, line):
    fits = {"frames": 9, "width": 64, "height": 64}
    early.geometry(configured(base=base, clips=fits))
    with pytest.raises(UserError) as caught:
        early.geometry(configured(base=base, clips=clips))
    assert str(caught.value).startswith(line)
    bucket = {key: value for key, value in clips.items() if key in fits}
    with pytest.raises(UserError) as caught:
        early.geometry(configured(base=base, clips={"short_side": None, "buckets": [fits, fits | bucket]}))
    assert str(caught.value).startswith(line.replace("clips.", "clips.buckets.1."))


COGVIDEOX = {"family": "cogvideox", "model": "zai-org/CogVideoX-5b", "revision": "main", "task": "t2v"}


@pytest.mark.parametrize(
    ("base", "parallel", "line"),
    [
        (WAN, {"tensor": 8}, "train.arms.sft: parallel.tensor: 8 does not divide the 12 attention heads"),
        (WAN, {"tensor": 4, "context": 2}, "train.arms.sft: parallel.tensor: 4 x context 2 does not divide the 12"),
        (WAN, {"context": 8}, "train.arms.sft: parallel.context: 8 does not divide the 12 attention heads"),
        (COGVIDEOX, {"tensor": 2}, "train.arms.sft: parallel.tensor: 2, but cogvideox's blocks cannot be split"),
        (DEFAULT["base"], {"tensor": 8}, "base.pretrain: parallel.tensor: 8 does not divide the 4 attention heads"),
        (WAN | {"model": "some/wan"}, {"tensor": 8}, None),
        (WAN, {"tensor": 2, "context": 2}, None),
    ],
)
def test_ranks_that_cannot_share_the_base(base, parallel, line):
    """Of a checkpoint that is not here nobody knows how many heads it has."""
    pretrain = copy.deepcopy({"pretrain": base["pretrain"]}) if "pretrain" in base else {}
    if pretrain:
        pretrain["pretrain"]["settings"]["parallel"] = parallel
    settings = {"batch": 8, "parallel": {} if pretrain else parallel}
    train = {"settings": settings, "arms": {"sft": {"objective": "sft"}}}
    values = configured(base=base | pretrain, train=train, launch={"processes": 8}, scores={"primary": "error"})
    if line is None:
        early.shared(values)
        return
    with pytest.raises(UserError) as caught:
        early.shared(values)
    assert str(caught.value).startswith(line)


def test_a_local_checkpoint_is_asked_itself(tmp_path):
    """One with another codec than its family's usual; a damaged one is left to the base's stage."""
    base = {"model": str(tmp_path), "task": "t2v"}
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/config.json").write_text(json.dumps({"scale_factor_temporal": 2}))
    early.geometry(configured(base=base, clips={"frames": 11}))
    with pytest.raises(UserError, match=r"takes 2k\+1 frames"):
        early.geometry(configured(base=base, clips={"frames": 10}))
    (tmp_path / "transformer").mkdir()
    for takes, task, other in ((36, "i2v", "t2v"), (16, "t2v", "i2v")):
        (tmp_path / "transformer/config.json").write_text(json.dumps({"in_channels": takes, "out_channels": 16}))
        early.geometry(configured(base=base | {"task": task}, clips={"frames": 11}))
        with pytest.raises(
            UserError, match=f"^base.task: {other}, and .* is for {task} .its transformer takes {takes}"
        ):
            early.geometry(configured(base=base | {"task": other}, clips={"frames": 11}))
    for damaged in ({"scale_factor_temporal": None}, {"scale_factor_spatial": 0}, {"scale_factor_temporal": "4"}):
        (tmp_path / "vae/config.json").write_text(json.dumps(damaged))
        early.geometry(configured(base=base, clips={"frames": 9}))


@pytest.mark.parametrize(
    ("vae", "clips", "line"),
    [
        ({"frames": [9, 8]}, {}, "vae.frames: base takes 4k+1 frames, got 8; 5 would do"),
        ({"train": {}}, {}, "vae.train.windows: 8 latents of base are 29 frames, and clips have at most 13"),
        ({"train": {"of": "mugv", "windows": [2]}}, {}, "vae.train.windows: 2 latents of mugv are 16 frames"),
        ({"train": {"windows": [4], "crop": 7}}, {}, "vae.train.crop: 7 is less than the 8 pixels of a latent of base"),
        (
            {"train": {"windows": [4], "crop": 39, "loss": {"perceptual": 1}}, "lpips": {"network": "n", "heads": "h"}},
            {"height": 16},
            "vae.train.loss.perceptual: LPIPS wants sides of 31 pixels, and windows have 16",
        ),
    ],
)
def test_autoencoders_that_cannot_take_the_clips(vae, clips, line):
    mugv = {"family": "mugv", "model": "MUG-V/MUG-V-inference", "revision": "main"}
    sections = {"base": WAN, "clips": {"frames": 13} | clips, "negatives": {"generators": {"base": {}, "mugv": mugv}}}
    early.autoencoders(configured(**sections, vae={"frames": [1, 9], "train": {"windows": [1, 4]}}))
    with pytest.raises(UserError) as caught:
        early.autoencoders(configured(**sections, vae=vae))
    assert str(caught.value).startswith(line)


def test_footage_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"videos.root: nowhere: there is no such folder"):
        early.check(configured(videos={"root": "nowhere"}))
    with pytest.raises(UserError, match="no videos under"):
        early.check(configured(videos={"root": str(tmp_path)}))


def test_filters_without_their_weights(tmp_path, monkeypatch):
    """Before the first job, whether they are on; their settings shape nothing while they are off."""
    monkeypatch.setattr(footage, "list_videos", lambda videos: [])
    reads = ClipsStage.of(configured())
    missing = {"model": str(tmp_path / "none.onnx")}
    assert ClipsStage.of(configured(clips={"ocr": missing})) == reads
    early.check(configured(clips={"ocr": missing}))
    asked = {"filters": {"max_text": 0.02}}
    with pytest.raises(UserError, match=r"^clips.ocr.model: there is no file .*none.onnx; download the weights"):
        early.check(configured(clips=asked | {"ocr": missing}))
    (tmp_path / "none.onnx").touch()
    there = configured(clips=asked | {"ocr": missing})
    assert Inputs(there, tmp_path / "notes", print).judges == [str(tmp_path / "none.onnx")]
    monkeypatch.setattr(early, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^clips.ocr: onnxruntime is not installed here; run `make filters`$"):
        early.check(there)
    early.judges(there, conda=True)
    shots = {"detector": "transnetv2", "weights": str(tmp_path / "none.pth")}
    with pytest.raises(UserError, match=r"^clips.shots.weights: there is no file .*none.pth; download the weights"):
        early.check(configured(clips={"shots": shots}))
    assert Inputs(configured(clips={"shots": shots}), tmp_path / "notes", print).judges == [shots["weights"]]
    assert ClipsStage.of(configured(clips={"shots": {"weights": "other"}})) == reads
    clip = tmp_path / "clip"
    clip.mkdir()
    head = {"filters": {"min_aesthetic": 4}, "aesthetic": {"model": str(clip), "head": "nowhere.pth"}}
    with pytest.raises(UserError, match=r"^clips.aesthetic.head: there is no file nowhere.pth"):
        early.check(configured(clips=head))


def test_a_captioner_without_its_environment(tmp_path, monkeypatch):
    """It is not missed where all is captioned, where conda makes it, and where this environment has its packages."""
    captions = {
        "source": "transformers",
        "model": "Qwen/Qwen3-VL-8B-Instruct",
        "revision": "main",
        "python": "none/python",
    }
    settings = configured(captions=captions, paths={"results": str(tmp_path)})
    monkeypatch.setattr(early, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"captions.python: there is no program none/python; run `make captioning`"):
        early.check(settings)
    early.check(settings, conda=True)
    early.captioner(configured(captions=captions | {"python": sys.executable}))
    (tmp_path / "captions.parquet").touch()
    early.check(settings)
    monkeypatch.undo()
    early.captioner(configured())


def test_nothing_heavy_is_loaded():
    """A dry run waits for it; nor is the hub's library, of checkpoints that are known."""
    code = (
        "import sys, yaml\nfrom regdpo.config import schema\nfrom regdpo.workflow import early\n"
        "early.check(schema.load('config/config.yaml'))\n"
        f"early._files(schema.Base(**{WAN}))\n"
        "assert not {'torch', 'diffusers', 'huggingface_hub'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_footage_and_text_files_are_listed_once_for_all_shards(tmp_path, monkeypatch):
    """Each folder; what a dry run costs grows with the number of videos alone."""
    for name in ("a/one.mp4", "a/two.mp4", "b/three.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_text(name)
    captions = {"source": "sidecar", "root": str(tmp_path / "videos")}
    videos = {"root": str(tmp_path / "videos"), "include": ["**"]}
    settings = configured(videos=videos, clips={"shards": 16}, captions=captions)
    listed: list[str] = []
    for module, name in ((footage, "list_videos"), (os, "listdir")):
        plain = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda it, plain=plain, name=name: (listed.append(f"{name} {it}"), plain(it))[1]
        )
    found = Inputs(settings, tmp_path / "notes", print)
    assert len({found.videos(str(shard)) for shard in range(16)}) == len({"none", "one.mp4", "two.mp4", "three.mp4"})
    assert {found.sidecars(str(shard)) for shard in range(16)}
    assert sum(it.startswith("list_videos") for it in listed) == 1
    assert sorted(it for it in listed if "/videos/" in it) == [f"listdir {tmp_path}/videos/{name}" for name in "ab"]


@pytest.mark.parametrize(
    ("text", "arm", "line"),
    [
        (None, {"objective": "dpo", "beta": 5}, r"^pairs.sources.said: .*said.csv: there is no such file"),
        ("video,label\na.mp4,great\n", {"objective": "sft"}, r"^pairs.sources.said: .*said.csv, row 1: label 'great'"),
        ("video,label,caption\na.mp4,pass,c\n", {"objective": "dpo", "beta": 5}, r"^train.arms.a: dpo compares winner"),
        (
            "video,label,caption\na.mp4,pass,c\n",
            {"objective": "kto", "beta": 5, "settings": {"parallel": {"pair": 2}}},
            r"^train.arms.a: `parallel.pair: 2` splits winner and loser",
        ),
    ],
)
def test_lists_of_pairs_are_read_before_the_first_job(tmp_path, text, arm, line):
    (tmp_path / "a.mp4").touch()
    if text:
        (tmp_path / "said.csv").write_text(text)
    said = {"gt": {"kind": "gt"}, "said": {"kind": "labels", "path": str(tmp_path / "said.csv")}}
    values = copy.deepcopy(DEFAULT)
    values["train"]["arms"] = {"a": arm}
    settings = schema.check(values | {"pairs": {"sources": said}, "launch": {"processes": 2}, "rating": {}})
    with pytest.raises(UserError, match=line):
        early.imported(settings)
    if text and "pass" in text:  # one that takes them
        arms = {"a": {"objective": "kto", "beta": 5}, "b": {"objective": "dpo", "beta": 5, "sources": {"gt": 1}}}
        values["train"]["arms"] = arms
        early.imported(schema.check(values | {"pairs": {"sources": said}}))


@pytest.mark.parametrize(
    ("score", "line"),
    [
        ("omniscore", "omniscore is not measured; give scores.omniscore"),
        ("vbench_dynamic_degree", "vbench_dynamic_degree is not measured; name it in scores.vbench.dimensions"),
        ("vbench_imaging_quality", r"vbench_imaging_quality is made by VBench, which none lacks; run `make vbench`"),
        ("spectrum", "spectrum compares with a real clip, and `prompts` have none"),
        ("sharpness", r"prompts: .*/none.csv: cannot be read"),
    ],
)
def test_videos_are_chosen_by_scores_that_they_will_have(tmp_path, score, line):
    source = {"kind": "best_of_n", "candidates": {"score": {score: 1}, "prompts": str(tmp_path / "none.csv")}}
    base = {"model": "some/wan", "revision": "main", "task": "t2v"}
    vbench = {"python": "none", "dimensions": ["imaging_quality"]}
    settings = configured(base=base, pairs={"sources": {"it": source}}, scores={"vbench": vbench})
    with pytest.raises(UserError, match=rf"^pairs\.sources\.it\.candidates\.(score: )?{line}"):
        early.check(settings)
