"""Why jobs would run, in the words of the configuration; Snakemake's records are made up here."""

import copy
import runpy
from pathlib import Path

import pytest
import yaml

from regdpo.config import mistakes, schema, stage_inputs
from regdpo.core import manifests
from regdpo.core.digests import canonical
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow
from regdpo.workflow import changes
from regdpo.workflow.changes import Job

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def configured(path: str = "", value: object = None) -> schema.Config:
    values = copy.deepcopy(DEFAULT)
    *folders, key = path.split(".")
    place = values
    for folder in folders:
        place = place.setdefault(folder, {})
    if path:
        place[key] = value
    return schema.check(values)


def repr_of(part: dict) -> str:
    """As Snakemake records a parameter."""
    return repr(canonical(part))


def following(now: schema.Config, before: schema.Config) -> list[Job]:
    """The training of two arms, their samples and scores, and the report; changed is what the configuration says."""
    jobs: list[Job] = []

    def add(rule: str, stage: str, part: str, above: set[int], which: tuple = (), **wildcards: str) -> int:
        read = getattr(stage_inputs, part).of
        old, new = (repr_of(read(settings, *which)) for settings in (before, now))
        differs = old != new
        changed, recorded = ({"config": new}, frozenset({old, "'0123'"})) if differs else ({}, frozenset())
        runs = differs or any(job.runs for job in jobs if job.number in above)
        job = Job(len(jobs), rule, stage, wildcards, runs, changed=changed, recorded=recorded, above=frozenset(above))
        jobs.append(job)
        return job.number

    negatives = add("render_negatives", "negatives", "NegativesStage", set(), ("base",), generator="base", shard="0")
    scored = set()
    for arm in ("dpo", "reg_dpo"):
        trained = add("train_arm", "train", "TrainStage", {negatives}, (arm, 0), arm=arm, seed="0")
        sampled = add("render_samples", "samples", "SamplesStage", {trained}, model=f"{arm}/seed0")
        scored.add(add("score", "scores", "ErrorsStage", {sampled}, model=f"{arm}/seed0"))
    merged = add("merge_scores", "scores", "PairsStage", scored)
    add("report_page", "report", "ReportStage", {merged})
    return jobs


def said(path: str, value: object) -> list[str]:
    now = configured(path, value)
    jobs = following(now, configured())
    return [f"{cause}: {changes.touched(those)}" for cause, those in changes.causes(jobs, now).items()]


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (
            "train.arms.reg_dpo.beta",
            30,
            "train.arms.reg_dpo.beta 50 -> 30: one training, its samples, scores, the report",
        ),
        ("train.settings.lr", 1e-3, "train.settings.lr 3e-05 -> 0.001: 2 trainings, their samples, scores, the report"),
        ("report.title", "x", "report.title Big Buck Bunny, new to a small model -> x: the report"),
        (
            "negatives.sampling.steps",
            7,
            "negatives.sampling.steps 20 -> 7: 1 shard of negatives, 2 trainings, their samples, scores, the report",
        ),
        ("scores.error.timesteps", 4, "scores.error.timesteps 8 -> 4: scores, the report"),
        ("samples.limit", 4, "samples.limit (nothing) -> 4: samples, scores, the report"),
    ],
)
def test_one_line_for_one_changed_key(path, value, line):
    assert said(path, value) == [line]


def test_an_arm_that_goes_changes_the_page_alone():
    arms = {name: arm for name, arm in DEFAULT["train"]["arms"].items() if name != "ddo"}
    lines = said("train.arms", arms)
    assert [line.rpartition(": ")[2] for line in lines] == ["the report", "the report"]
    assert lines[0].startswith('train.arms ["sft", "dpo", ')
    assert lines[1].startswith("train.arms.ddo {")


def test_an_override_is_told_where_it_stands():
    assert said("train.arms.dpo.settings", {"lr": 1e-3}) == [
        "train.arms.dpo.settings.lr 3e-05 -> 0.001: one training, its samples, scores, the report"
    ]


@pytest.mark.parametrize(
    ("path", "values", "cause"),
    [
        ("clips.width", (64, 80), "clips.width 64 -> 80"),
        ("clips.buckets", ([{}, {"frames": 17}], [{}, {"frames": 33}]), "clips.buckets.1.frames 17 -> 33"),
        ("clips.buckets", ([{"width": 96}, {}], [{"width": 80}, {}]), "clips.buckets.0.width 96 -> 80"),
    ],
)
def test_a_size_of_clips_is_told_by_its_key_wherever_it_is_read(path, values, cause):
    before, now = (configured(path, value) for value in values)
    for stage in (stage_inputs.ClipsStage, stage_inputs.BaseStage, stage_inputs.WeightsStage):
        old, new = (repr_of(stage.of(settings)) for settings in (before, now))
        job = Job(0, "cut_clips", "clips", changed={"config": new}, recorded=frozenset({old}))
        assert list(changes.causes([job], now)) == [cause]


def test_a_size_that_a_bucket_takes_from_clips_is_told_there():
    before, now = configured("clips.buckets", [{}, {"frames": 17}]), configured("clips.buckets", [{}, {"frames": 17}])
    now = now.model_copy(update={"clips": now.clips.model_copy(update={"width": 80})})
    old, new = (repr_of(stage_inputs.WeightsStage.of(settings)) for settings in (before, now))
    job = Job(0, "arm_weights", "weights", changed={"config": new}, recorded=frozenset({old}))
    assert all(cause.startswith("clips.width ") for cause in changes.causes([job], now))


def test_other_shards_have_other_videos_and_that_is_one_cause():
    job = Job(0, "cut_clips", "clips", {"shard": "0"}, changed={"shards": "2", "videos": "'x'"})
    assert list(changes.causes([job], configured("clips.shards", 2))) == ["clips.shards -> 2"]


def test_a_generators_override_is_told_where_it_stands():
    job = Job(0, "render_negatives", "negatives", {"generator": "fast", "shard": "0"})
    settings = configured("negatives.generators", {"base": {}, "fast": {"sampling": {"steps": 4}, "seed": 1}})
    for path, place in {
        ("sampling", "steps"): "negatives.generators.fast.sampling.steps",
        ("sampling", "shift"): "negatives.sampling.shift",
        ("seed",): "negatives.generators.fast.seed",
        ("per_clip",): "negatives.per_clip",
        ("begin",): "negatives.generators.fast.share",
        ("encode", "crf"): "clips.encode.crf",
    }.items():
        assert changes._place(path, job, settings) == place
    totals = Job(0, "total_suite", "suite_totals", {"suite": "t2v"})
    assert changes._place(("bootstrap", "resamples"), totals, settings) == "scores.bootstrap.resamples"


def test_every_part_of_a_stage_has_its_place_in_the_configuration():
    """So that what a line names can be found there."""
    known = set(mistakes.paths(schema.Config))
    settings = configured()
    for stage in stage_inputs.STAGES:
        if stage in (stage_inputs.ReportStage, stage_inputs.RateStage):  # the page shows all; no rule has its parts
            continue
        rule = Job(0, stage.__name__, "x")
        for name in stage.model_fields:
            assert changes._place((name,), rule, settings) in known, f"{stage.__name__}.{name}"


def test_other_reasons():
    now = configured()
    jobs = [
        Job(
            0, "cut_clips", "clips", {"shard": "0"}, changed={"videos": "'b'", "code": "'c'"}, recorded=frozenset("ab")
        ),
        Job(1, "cut_clips", "clips", {"shard": "1"}, changed={"code": "'c'"}),
        Job(2, "merge_clips", "clips", above=frozenset({0, 1})),
        Job(
            3, "caption_clips", "captions", {"shard": "0"}, missing=True, changed={"shards": "3"}, above=frozenset({2})
        ),
        Job(4, "caption_clips", "captions", {"shard": "1"}, changed={"shards": "3"}, others=("it was interrupted",)),
        Job(5, "gt_pairs", "pairs", runs=False, above=frozenset({4})),
    ]
    assert {cause: changes.touched(those) for cause, those in changes.causes(jobs, now).items()} == {
        "the videos": "1 shard of clips, 1 shard of captions",
        changes.CODE: "2 shards of clips, 1 shard of captions",
        changes.NEW: "1 shard of captions",
        "it was interrupted": "1 shard of captions",
        "clips.shards -> 3": "1 shard of captions",
    }
    assert changes.table(jobs, {"captions": 1.25}) == [
        "stage     to run  of  GPU-hours",
        "clips          2   2           ",
        "captions       2   2        1.2",
        "pairs          0   1           ",
        "all            4   5        1.2",
    ]
    merged = Job(6, "merge_captions", "captions", above=frozenset({3, 4}))
    told = "Snakemake counts 7: also 2 that only merge, count or export, and the target"
    assert changes.uncounted([*jobs, merged]) == told
    assert changes.uncounted(jobs[-1:]) == ""
    assert changes.first_target(jobs[2:], {"captions": "captions", "clips": "clips"}) == "clips"
    assert changes.first_target(jobs[3:], {"captions": "captions", "clips": "clips"}) == "captions"


def test_a_configuration_outside_the_checkout_is_judged_where_its_project_lies(tmp_path, monkeypatch):
    """Else every job of it would be told to be not made yet."""
    project = runpy.run_path(str(ROOT / "scripts/check.py"))["project"]
    mine = tmp_path / "config.yaml"
    mine.touch()
    monkeypatch.chdir(ROOT)
    assert project(mine) == tmp_path
    assert project(Path("config/config.yaml")) == project(tmp_path / "none.yaml") == ROOT
    monkeypatch.chdir(tmp_path)
    assert project(Path("config.yaml")) == project(ROOT / "config/config.yaml") == tmp_path


def test_damaged_manifests_are_named_with_the_commands(tmp_path, monkeypatch):
    """Cut off or with another byte; one that is whole and what is no manifest are not."""
    monkeypatch.chdir(tmp_path)
    check_whole = runpy.run_path(str(ROOT / "scripts/check.py"))["check_whole"]
    files = ["whole.parquet", "my cut.parquet", "other.parquet", "page.html", "none.parquet"]
    for name in files[:-1]:
        manifests.write(
            name, [CaptionRow(clip_id=str(it), caption="a hare", captioner="me") for it in range(9)], CaptionRow
        )
    check_whole(files)
    content = Path(files[0]).read_bytes()
    Path("my cut.parquet").write_bytes(content[:-20])
    Path("other.parquet").write_bytes(content.replace(b"a hare", b"a bare", 1))
    Path("page.html").write_text("")
    with pytest.raises(UserError) as caught:
        check_whole(files)
    first, second = str(caught.value).split("\nerror: ")
    assert first.startswith("my cut.parquet: is damaged (")
    assert first.endswith("): rm 'my cut.parquet', and Snakemake makes it again")
    assert second.startswith("other.parquet: is damaged (")
