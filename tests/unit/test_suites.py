"""VBench's suites: prompts, names and first frames, what is checked before they start, what they need, what they come
to. What VBench itself computes is test_vbench.py's, and here at the end with random weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import jinja2
import numpy as np
import pytest

from regdpo.config.evaluation import Bootstrap
from regdpo.config.schema import Encode, VBench
from regdpo.config.stage_inputs import SuiteStage, SuiteTotalsStage
from regdpo.core.errors import UserError
from regdpo.core.rows import Geometry, SuiteScoreRow
from regdpo.core.store import Store
from regdpo.data.video import read_stored, write_frames
from regdpo.evaluate import prompts, vbench, vbench_run, vbench_weights
from regdpo.evaluate.prompts import Prompt
from regdpo.evaluate.suites import DIMENSIONS, SUITES, WEIGHTS, expanded
from regdpo.evaluate.vbench_run import Found, Setting
from regdpo.report import page, suites
from regdpo.stages import suite_samples, suite_scores, suite_totals

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("REGDPO_VBENCH_PYTHON") or str(ROOT / ".venv-vbench" / "bin" / "python")
SIZE = Geometry(frames=3, fps=8.0, width=64, height=64)
DOG, CAT = (
    Prompt("a dog, running", ("temporal_flickering",), {}),
    Prompt('a "cat"', ("temporal_flickering", "color"), {}),
)


def stage(**changes) -> SuiteStage:
    values = {"suite": "t2v", "dimensions": list(SUITES["t2v"].dimensions), "static": [], "limit": None, "seed": 0}
    return SuiteStage(**values | {"geometry": SIZE} | changes)


def listed(tmp_path: Path, *rows: dict) -> Path:
    path = tmp_path / "list.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def official() -> Path:
    if not vbench_run.installed(PYTHON):
        pytest.skip("VBench is not installed")
    return prompts.file_of("t2v", PYTHON, None)


def test_the_official_prompts(official):
    """Numbers of the paper's prompt suite (arXiv 2311.17982, and VBench's repository)."""
    suite = SUITES["t2v"]
    every = prompts.read("t2v", official, suite.dimensions, suite.static, None)
    counts = {name: sum(name in it.dimensions for it in every) for name in suite.dimensions}
    assert len(every) == 944
    assert counts["human_action"] == counts["temporal_style"] == 100
    assert counts["overall_consistency"] == counts["aesthetic_quality"] == counts["imaging_quality"] == 93
    assert (counts["temporal_flickering"], counts["color"], counts["scene"]) == (75, 85, 86)
    assert sum(it.videos for it in every) == 944 * 5 + 75 * 20 == suite.rendered(static=True, limit=None)
    styled = next(it for it in every if it.text == "The bund Shanghai, oil painting")  # two rows of the list
    assert {*styled.dimensions} == {"appearance_style", "aesthetic_quality", "imaging_quality", "overall_consistency"}
    assert styled.auxiliary == {"appearance_style": {"appearance_style": "oil painting"}}
    assert styled.names[0] == "The bund Shanghai, oil painting-0.mp4"
    few = prompts.read("t2v", official, suite.dimensions, (), 2)
    assert all(sum(name in it.dimensions for it in few) == 2 for name in suite.dimensions)
    assert sum(it.videos for it in few) <= suite.rendered(static=False, limit=2)
    shards = [prompts.in_shard(every, index, 3) for index in range(3)]
    assert sorted(it.text for shard in shards for it in shard) == sorted(it.text for it in every)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt_en": "a/b", "dimension": ["color"]}, "'a/b' can be no file's name"),
        ({"prompt_en": "long " * 60, "dimension": ["color"]}, "can be no file's name"),
        ({"prompt_en": "a", "dimension": ["color"], "image_name": "../a.jpg"}, "is no file's name"),
        ({"prompt_en": "a"}, "is no list of VBench's prompts"),
        ({"prompt_en": "a", "dimension": ["scene"]}, "has no prompts of color"),
    ],
)
def test_a_list_that_is_none(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        prompts.read("t2v", listed(tmp_path, row), ["color"], (), None)


def test_missing_and_misnamed_videos_are_named():
    expected = [*DOG.names, *CAT.names]
    prompts.check_names(expected, expected, "here")
    given = [*DOG.names, *CAT.names[:-1], 'a "cat" -4.mp4', "notes.txt"]
    with pytest.raises(UserError) as told:
        prompts.check_names(expected, given, "here")
    assert str(told.value).startswith("here: 1 of 10 videos are missing: 'a \"cat\"-4.mp4'; 2 have names that are")
    assert "is the first meant to be 'a \"cat\"-4.mp4'?" in str(told.value)
    with pytest.raises(UserError, match="and 10 more"):
        prompts.check_names([f"{number}" for number in range(20)], [], "here")


def video(folder: Path, name: str, frames: int = 3) -> None:
    rng = np.random.default_rng(0)
    write_frames(folder / name, rng.integers(0, 255, (frames, 64, 64, 3)).astype(np.uint8), 8, Encode())


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of ten videos with their official names."""
    (tmp_path / "videos").mkdir()
    video(tmp_path, "one.mp4")
    for name in (*DOG.names, *CAT.names):
        shutil.copy(tmp_path / "one.mp4", tmp_path / "videos" / name)
    return tmp_path / "videos"


def test_a_folder_of_videos_is_checked_before_anything_is_measured(folder, tmp_path):
    store = Store(tmp_path / "store")
    rows = suite_scores.in_folder(folder, "t2v", "mine", [DOG, CAT], store)
    assert [row.name for row in rows] == [*DOG.names, *CAT.names]
    (folder / DOG.names[1]).write_bytes(b"no video")
    video(folder, CAT.names[0], frames=1)
    with pytest.raises(
        UserError, match=r"2 of 10 cannot be measured: 'a dog, running-1.mp4' .*'a \"cat\"-0.mp4' has 1"
    ):
        suite_scores.in_folder(folder, "t2v", "mine", [DOG, CAT], store)
    with pytest.raises(UserError, match="there is no such folder"):
        suite_scores.in_folder(tmp_path / "none", "t2v", "mine", [DOG], store)


def test_a_dimension_is_asked_once_though_the_job_is_killed(folder, tmp_path, monkeypatch):
    """And what it says of each video gets to its rows; what cannot run is one row with the reason."""
    asked = []

    def answer(dimension, videos, setting):
        asked.append(dimension)
        if dimension == "color" and len(asked) == 2:
            raise KeyboardInterrupt  # as a kill, it leaves nothing behind
        return {it.name: (0.25 * (1 + int(it.name[-5])), 2.0) for it in videos if it.name[-5] != "4"}

    monkeypatch.setattr(vbench_run, "_asked", answer)
    monkeypatch.setattr(vbench_run, "unavailable", lambda python: "")
    monkeypatch.setattr(
        vbench_weights, "lacking", lambda name, *rest: "" if name in ("temporal_flickering", "color") else "needs much"
    )
    store = Store(tmp_path / "store")
    rows = suite_scores.in_folder(folder, "t2v", "mine", [DOG, CAT], store)
    short = stage(dimensions=["temporal_flickering", "color", "scene"])
    setting = Setting("python", tmp_path, "cpu", store)
    with pytest.raises(KeyboardInterrupt):
        suite_scores.score(short, "mine", [DOG, CAT], rows, {}, setting)
    found = suite_scores.score(short, "mine", [DOG, CAT], rows, {}, setting)
    assert asked == ["temporal_flickering", "color", "color"]
    by_name = {(row.dimension, row.name): row for row in found}
    assert len(found) == 10 + 5 + 1
    assert by_name["temporal_flickering", DOG.names[1]].value == 0.5
    assert by_name["temporal_flickering", DOG.names[4]].missing == "VBench could not read the video"
    assert by_name["color", CAT.names[4]].value is None
    assert by_name["color", CAT.names[4]].missing == ""  # the object is not in it
    assert by_name["scene", ""].missing == "needs much"
    with pytest.raises(UserError, match="5 of 10 videos are missing"):
        suite_scores.score(short, "mine", [DOG, CAT], rows[:5], {}, setting)


def test_random_weights_make_no_score(tmp_path, monkeypatch):
    monkeypatch.setattr(vbench_run, "run", lambda name, videos, setting: {it.name: Found(0.5) for it in videos})
    monkeypatch.setattr(vbench_run, "unavailable", lambda python: "")
    monkeypatch.setattr(vbench_weights, "lacking", lambda *given: "")
    (tmp_path / vbench_weights.RANDOM).touch()
    setting = Setting("python", tmp_path, "cpu", Store(tmp_path / "store"))
    videos = [vbench_run.Video("0.mp4", "", "")]
    found = vbench_run.measured(["temporal_flickering", "dynamic_degree"], videos, setting)
    assert found["temporal_flickering"][0] == {"0.mp4": Found(0.5)}  # needs none
    assert found["dynamic_degree"] == ({}, "weights are random numbers, with which nothing is a score")


def test_what_is_missing_is_one_table(tmp_path):
    weights, python = tmp_path / "weights", str(tmp_path / "bin/python")
    site = tmp_path / "lib/python3.11/site-packages"
    for path in (site / "clip", weights / "clip_model", tmp_path / "bin"):
        path.mkdir(parents=True)
    Path(python).write_text("#!/bin/sh\nexit 1\n")
    Path(python).chmod(0o755)
    (weights / "clip_model/ViT-L-14.pt").write_bytes(bytes(3_000_000))
    asked = ["background_consistency", "temporal_flickering", "aesthetic_quality", "dynamic_degree"]
    assert vbench_weights.available(asked, python, weights) == ["temporal_flickering"]
    assert vbench_weights.lacking("aesthetic_quality", python, weights) == (
        "needs LAION's aesthetic head to be fetched"
    )
    assert vbench_weights.lacking("dynamic_degree", python, weights) == (
        "needs RAFT to be fetched, and the package easydict"
    )
    told = vbench_weights.told(asked, python, weights)
    assert told.startswith("VBench: 1 of 4 dimensions can run; the others will be missing. They need, below ")
    assert "`python scripts/vbench_weights.py --fetch` fetches the files" in told
    lines = {line.split()[0]: line for line in told.splitlines() if "  " in line}
    assert lines["clip_model/ViT-L-14.pt"].split()[1:] == ["there", "3", "MB", "b8cca3fd41ae", "aesthetic_quality"]
    assert lines["clip_model/ViT-B-32.pt"].split()[1:] == ["missing", "40d365715913", "background_consistency"]
    assert lines["raft_model/models/raft-things.pth"].split()[1:] == ["missing", "dynamic_degree"]
    assert vbench_weights.told(["temporal_flickering"], python, weights) == ""
    assert "RAFT" in vbench_weights.lacking("temporal_flickering", python, weights, static=True)


def test_where_vbench_looks_for_files_is_where_they_belong(official):
    """By its own source: each file is named in it."""
    package = official.parent
    source = "".join(
        path.read_text() for path in [*package.glob("*.py"), package / "third_party/ViCLIP/simple_tokenizer.py"]
    )
    own = {
        name
        for name, it in WEIGHTS.items()
        if it.kind != "hub" and it.path.split("/")[0] not in ("cotracker", "dreamsim")
    }
    assert len(own) == 13
    for name in own:
        folder, _, file = WEIGHTS[name].path.rpartition("/")
        assert file in source, name
        assert f"CACHE_DIR}}/{folder.split('/')[0]}" in source or f'CACHE_DIR, "{folder}' in source, name
        assert WEIGHTS[name].url in source, name


def test_what_is_fetched_has_the_bytes_that_were_published(tmp_path, monkeypatch):
    def answer(url, path):
        path.write_bytes(b"other")

    monkeypatch.setattr(vbench_weights, "_download", answer)
    assert vbench_weights.fetch(["amt"], tmp_path) == ["amt"]
    assert vbench_weights.fetch(["amt"], tmp_path) == []
    with pytest.raises(UserError, match="gave other bytes"):
        vbench_weights.fetch(["clip_b32"], tmp_path)
    assert not (tmp_path / WEIGHTS["clip_b32"].path).exists()
    with pytest.raises(
        UserError, match=r"models.zip: cannot be fetched \(File is not a zip file\); put what is there as"
    ):
        vbench_weights.fetch(["raft"], tmp_path)


def test_nothing_is_downloaded_behind_ones_back():
    """Neither by a program nor by this process; other programs run."""
    tries = {
        "subprocess.run(['wget', 'https://a.b/c'])": "would have been downloaded: wget https://a.b/c",
        "os.system('wget https://a.b/c')": "would have been downloaded: wget https://a.b/c",
        "urllib.request.urlopen('http://127.0.0.1:9/')": "would have been asked for: 127.0.0.1",
        "socket.create_connection(('example.org', 80))": "would have been asked for: example.org",
        "socket.socket().connect(('127.0.0.1', 9))": "would have been asked for: ('127.0.0.1', 9)",
        "subprocess.run(['true'], check=True)": "",
    }
    program = f"""
import os, socket, subprocess, urllib.request
from regdpo.evaluate import vbench_worker
vbench_worker.offline()
for line in {list(tries)!r}:
    try:
        exec(line)
        print()
    except vbench_worker.OfflineError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == list(tries.values()), done.stderr


VC2 = {
    "subject_consistency": 96.85, "background_consistency": 98.22, "temporal_flickering": 98.41,
    "motion_smoothness": 97.73, "aesthetic_quality": 63.13, "dynamic_degree": 42.50, "imaging_quality": 67.22,
    "object_class": 92.55, "multiple_objects": 40.66, "human_action": 95.0, "color": 92.92,
    "spatial_relationship": 35.86, "scene": 55.29, "appearance_style": 25.13, "temporal_style": 25.84,
    "overall_consistency": 28.23,
}  # fmt: skip
"""VideoCrafter2 on VBench's leaderboard, whose total is 80.44."""


def scored(changes: dict | None = None) -> list[SuiteScoreRow]:
    """Two videos a dimension, whose mean by their weights is VideoCrafter2's score."""
    rows = []
    for name, percent in VC2.items():
        for number, (offset, weight) in enumerate(((0.03, 1.0), (-0.01, 3.0))):
            values = {"value": percent / 100 + offset, "weight": weight} | (changes or {}).get(name, {})
            what = {"suite": "t2v", "model": "base", "dimension": name, "name": f"{number}.mp4"}
            rows.append(SuiteScoreRow(score_id=f"base|{name}|{number}", **what, **values))
    return rows


def test_a_suite_comes_to_the_published_total():
    whole = vbench.outcome(stage(static=["temporal_flickering"]), scored())
    assert (whole.coverage, whole.partial) == ("16 of 16", "")
    assert whole.totals["total"] == pytest.approx(80.44, abs=0.015)
    assert whole.scores["color"] == pytest.approx(0.9292)


def test_totals_have_intervals_over_prompts(tmp_path):
    """Of a mean over prompts of one dimension, everything else alike: the error of a mean, s / sqrt(n), on VBench's
    scale; and an arm that is better by the same on every prompt has a difference without spread."""
    asked = SuiteTotalsStage(
        **stage(static=["temporal_flickering"]).model_dump(), bootstrap=Bootstrap(resamples=2000, seed=1)
    )
    spread = np.random.default_rng(0).uniform(0.4, 0.8, 300)

    def of(model, better=0.0):
        return [
            SuiteScoreRow(score_id=f"{model}|{name}|{prompt}", suite="t2v", model=model, dimension=name,
                          name=f"{prompt}-0.mp4", value=(value if name == "color" else 0.2) + better)
            for name in VC2 for prompt, value in enumerate(spread)
        ]  # fmt: skip

    models = {"base": 0.0, "base1/base": 0.05, "sft/seed0": 0.01, "base1/sft/seed0": 0.05, "elsewhere": 0.0}
    rows = [row for model, better in models.items() for row in of(model, better)]
    found = suite_totals.totals(asked, rows, list(models))
    spreads = suite_totals.intervals(asked, rows, found)
    one = spreads["base"]["semantic"]
    assert (one.high - one.low) / 2 == pytest.approx(1.96 * 100 * spread.std() / 300**0.5 / 9, rel=0.06)
    assert one.low < found["base"].totals["semantic"] < one.high
    assert one.delta is None
    gained = found["sft/seed0"].totals["total"] - found["base"].totals["total"]
    arm = spreads["sft/seed0"]["total"]
    assert [arm.delta, arm.delta_low, arm.delta_high] == pytest.approx([gained] * 3)
    assert gained > 0.1
    assert spreads["base1/sft/seed0"]["total"].delta == pytest.approx(0)  # against its own base
    assert spreads["base1/base"]["total"].delta is None
    suite_totals.write(asked, found, spreads, tmp_path / "t2v.json")
    html = page_of([suites.read(tmp_path / "t2v.json")])
    assert f"[{one.low:.2f}, {one.high:.2f}]" in html
    assert f"Δ +{gained:.2f} [+{gained:.2f}, +{gained:.2f}]" in html


def page_of(found: list[suites.Suite]) -> str:
    """The section of the report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "regdpo/report"), undefined=jinja2.StrictUndefined, autoescape=True
    )
    environment.filters |= {"num": page.number, "breakable": page.breakable, "signed": page.signed}
    return environment.get_template("suites.html").render(suites=found)


@pytest.mark.parametrize(
    ("changes", "settings", "partial"),
    [
        ({"scene": {"value": None, "missing": "needs Tag2Text"}}, {}, "partial: 15 of 16 dimensions"),
        ({"color": {"value": None}}, {}, "partial: 15 of 16 dimensions"),
        ({"color": {"value": float("nan")}}, {}, "partial: 15 of 16 dimensions"),
        ({}, {"limit": 3}, "partial: 3 prompts a dimension, not all"),
        ({}, {"static": []}, "partial: temporal_flickering also of videos that move"),
    ],
)
def test_there_is_no_total_of_a_part(changes, settings, partial, tmp_path):
    asked = stage(**{"static": ["temporal_flickering"]} | settings)
    found = suite_totals.totals(asked, scored(changes), ["base"])
    assert (found["base"].partial, found["base"].totals) == (partial, {})
    suite_totals.write(asked, found, {}, tmp_path / "t2v.json")
    written = json.loads((tmp_path / "t2v.json").read_text())["models"]["base"]
    assert written["totals"] is None
    assert written["dimensions"]["motion_smoothness"]["score"] == pytest.approx(0.9773)
    assert written["dimensions"]["motion_smoothness"]["normalised"] == pytest.approx((97.73 - 70.6) / (99.75 - 70.6))
    assert partial in suite_totals.text(asked, found)
    read = suites.read(tmp_path / "t2v.json")
    assert read.models["base"].partial == partial
    html = page_of([read])
    assert html.count(partial) == 1  # of the cell of the total
    assert f"{partial.capitalize()}; so there is no total." in html
    assert ("97.73" in html, "93.07" in html) == (True, True)  # as it is, and on VBench's scale
    lost = sum(row.missing != "" for row in read.models["base"].dimensions.values())
    assert html.count('title="needs Tag2Text"') == (1 if "scene" in changes else 0)
    assert html.count(">missing</abbr>") == lost
    assert html.count("<li>") == min(lost, 1)
    (tmp_path / "t2v.json").write_text("{}")
    with pytest.raises(UserError, match="holds no totals of a suite"):
        suites.read(tmp_path / "t2v.json")


def test_first_frames_are_the_crops_nearest_to_the_videos(tmp_path):
    assert [prompts.ratio_of(*size) for size in ((832, 480), (512, 512), (480, 832), (1280, 720), (640, 400))] == [
        "7-4", "1-1", "1-1", "16-9", "8-5",
    ]  # fmt: skip
    asked = [Prompt("a dog", ("i2v_subject",), {}, "dog.png"), Prompt("a cat", ("i2v_subject",), {}, "cat.png")]
    with pytest.raises(UserError, match=r"scores.vbench.images: .*1-1: 2 of 2 videos are missing|2 of 2"):
        prompts.images_of(asked, tmp_path, SIZE)
    (tmp_path / "1-1").mkdir()
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[:, :50] = (0, 0, 255)  # red on the left, as OpenCV has it
    for name in ("dog.png", "cat.png", "other.png"):
        cv2.imwrite(str(tmp_path / "1-1" / name), picture)
    images = prompts.images_of(asked, tmp_path, SIZE)
    store = Store(tmp_path / "store")
    frames = read_stored(store, *suite_samples.first_frame(images["dog.png"], SIZE, Encode(), store))
    assert frames.shape == (1, 64, 64, 3)
    assert frames[0, 32, 16, 0] > 200
    assert frames[0, 32, 16, 2] < 60
    assert frames[0, 32, 48].max() < 60
    wide = suite_samples.cover(np.arange(8, dtype=np.uint8)[None, None, :, None].repeat(2, 1).repeat(3, 3), SIZE)
    assert wide.shape == (1, 64, 64, 3)
    assert set(np.unique(wide)) <= {2, 3, 4, 5}  # the middle of it
    (tmp_path / "1-1/dog.png").write_text("no picture")
    with pytest.raises(UserError, match="is no image"):
        suite_samples.first_frame(images["dog.png"], SIZE, Encode(), store)


def test_dimensions_may_be_named_by_a_suite():
    assert expanded(["temporal_flickering", "custom"]) == [
        "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree",
        "aesthetic_quality", "imaging_quality",
    ]  # fmt: skip
    assert VBench(dimensions=["custom"]).measured == sorted(SUITES["custom"].dimensions, key=list(DIMENSIONS).index)


@pytest.mark.slow
def test_vbench_computes_with_what_lies_in_the_place_of_its_weights(folder, tmp_path, official):
    """Up to the model's door: code from the hub with its weights linked, by VBench's own path."""
    weights = tmp_path / "weights"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    maker = [PYTHON, str(ROOT / "tests/random_vbench.py"), str(weights), "dino_code", "dino"]
    subprocess.run(maker, check=True, env=environment)
    store = Store(tmp_path / "store")
    rows = suite_scores.in_folder(folder, "t2v", "mine", [DOG, CAT], store)
    videos = [vbench_run.Video(row.name, row.path, row.sha256, row.prompt) for row in rows]
    found = vbench_run.run("subject_consistency", videos, Setting(PYTHON, weights, "cpu", store))
    assert found.keys() == {row.name for row in rows}
    assert all(0 <= it.value <= 1.001 for it in found.values())
    reasons = vbench_run.measured(["subject_consistency"], videos, Setting(PYTHON, weights, "cpu", store))
    assert reasons["subject_consistency"][0] == {}
