"""The configuration: the default, the recipes, refusals with the path of the key, and the generated documents."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from regdpo.config import documents, locations, schema, stage_inputs
from regdpo.config.run_file import SUFFIX, RunFile
from regdpo.core.errors import UserError
from regdpo.core.model_names import ModelName
from regdpo.workflow.params import Params

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def changed(path: str, value: object) -> dict:
    values = copy.deepcopy(DEFAULT)
    *folders, key = path.split(".")
    place = values
    for folder in folders:
        place = place.setdefault(folder, {})
    place[key] = value
    return values


@pytest.mark.parametrize("path", [ROOT / "config/config.yaml", *sorted(ROOT.glob("config/*s/*.yaml"))], ids=str)
def test_shipped_configurations_are_valid(path):
    schema.load(path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("clips.frame", 9, r"clips.frame: unknown key"),
        ("clips.fps", "fast", r"clips.fps: .*number.*'fast'"),
        (
            "train.export_formats",
            ["comfyui"],
            r"train.export_formats: comfyui is for adapters, and no arm has tuning `lora`",
        ),
        (
            "train.settings.timesteps",
            {"shift": "by_size"},
            r"train.arms.\w+.settings.timesteps.shift: `by_size` is of mugv; wan has none",
        ),
        ("train.arms.dpo.beta", float("inf"), r"train.arms.dpo.beta: .*finite number"),
        ("videos.root", "a\0b", r"videos.root: holds a null byte"),
        ("train.arms.d\npo", {"objective": "sft"}, r"train.arms.d\\npo: String should match"),
        (
            "pairs.sources",
            {"mine": {"kind": "best_of_n", "candidates": {"score": {"motion": 1}, "policy": [[0, 1], [0, 1]]}}},
            r"policy: two ranks are given twice",
        ),
        ("train.arms.dpo.beta", -1, r"train.arms.dpo.beta: .*greater than 0.*-1"),
        ("train.arms.dpo.r", 5.0, r"train.arms.dpo: objective `dpo` takes \['beta'\]"),
        ("train.arms.dpo.settings", {"learning_rate": 1}, r"train.arms.dpo.settings.learning_rate: unknown key"),
        ("base.model", "some/model", r"base: give exactly one of `model`"),
        ("pairs.test", 0.9, r"pairs: .*leave nothing to train on"),
        ("clips.short_side", 32, r"clips.short_side: is smaller"),
        ("launch.nodes", 3, r"launch: `nodes` 3 does not divide `processes` 2"),
        ("launch.gpu", "H1000", r"launch.gpu: there is no such GPU .*; there are H100 PCIe, .*'H1000'"),
        ("launch.requeues", -1, r"launch.requeues: .*greater than or equal to 0"),
        ("paths.results", "results {x}", r"paths.results: String should match pattern .* \(got 'results \{x\}'\)"),
        (
            "negatives.sampling.guidance",
            0.5,
            r"sampling.guidance: Input should be greater than or equal to 1, or a valid dictionary \(got 0.5\)",
        ),
        ("negatives.sampling.guidance", True, r"sampling.guidance: true and false are no values of this key"),
        ("train.settings.steps", True, r"train.settings.steps: true and false are no values"),
        ("train.export_formats", [], r"train.export_formats: List should have at least 1 item"),
        (
            "samples.sampling.guidance",
            {"high": 0.5, "low": 3},
            r"sampling.guidance.high: .* equal to 1 \(got 0.5\)",
        ),
        (
            "train.settings.lora",
            {"targets": "ff"},
            r"lora.targets: Input should be 'attention' or 'attention\+ff', or a valid list \(got 'ff'\)",
        ),
        ("launch.scheduler", "lsf", r"launch.scheduler: .*'auto', 'local_cwd' or 'slurm'"),
        ("videos", None, r"^config: videos: is empty; its keys \(root, include, exclude, ...\) go below it, indented$"),
        ("videos", "clips", r"videos: is 'clips'; its keys \(root, .* go below it"),
        ("train.arms.dpo", None, r"train.arms.dpo: is empty; its keys \(objective, "),
        ("clips.frmaes", 9, r"clips.frmaes: unknown key; did you mean frames\? \(config/README.md lists the keys\)"),
        ("train.lr", 1, r"train.lr: unknown key; did you mean train.settings.lr\?"),
        ("train.arms.dpo.bta", 1, r"train.arms.dpo.bta: unknown key; did you mean beta\?"),
        ("train.arms.dpo.settings", {"lora": {"rnk": 1}}, r"settings.lora.rnk: unknown key; did you mean rank\?"),
        ("xyzzy", 1, r"xyzzy: unknown key \(config"),
        ("base.pretrain.seed", 3, r"base: `pretrain.seed` is `seeds` now, beside `pretrain`; write seeds: \[3\]"),
        ("base.seeds", [1, 1], r"base.seeds: one occurs twice"),
        (
            "base",
            {"model": "a/b", "revision": "0" * 40, "seeds": [0, 1]},
            r"base: `seeds` are of what `pretrain` makes",
        ),
        ("train.arms.base3", {"objective": "dpo", "beta": 7}, r"train.arms.base3: that name is taken"),
        ("vae", {"train": {"of": "x"}}, r"vae.train.of: there is no x; there are base"),
        ("vae", {"train": {}}, r"vae.train.of: the autoencoder of base is a codec .* checkpoint of wan, wan22, mugv"),
        ("vae", {"train": {"loss": {"perceptual": 1}}}, r"^config: vae.train.loss.perceptual: needs the weights of"),
        (
            "vae",
            {"train": {"start": "random", "part": "decoder"}},
            r"^config: vae.train: `part: decoder` of `start: random`",
        ),
        ("vae", {"train": {"loss": {"l1": 0}}}, r"^config: vae.train.loss: `mse`, `l1` and `perceptual` are all 0"),
        (
            "train.settings.timesteps.shift",
            "by_sise",
            r"^config: train.settings.timesteps.shift: Input should be a valid number, or 'by_size' \(got 'by_sise'; did "
            r"you mean by_size\?\)$",
        ),
        (
            "train.arms.dpo.sources",
            {"gt": [1, "x"]},
            r"^config: train.arms.dpo.sources.gt.1: Input should be a valid number, unable .* \(got 'x'\)$",
        ),
        (
            "train.arms.dpo.settings.lora",
            {"targets": "query"},
            r"^config: train.arms.dpo.settings.lora.targets: Input should be 'attention' or 'attention\+ff', or a valid "
            r"list \(got 'query'\)$",
        ),
        (
            f"train.arms.{'a' * 300}",
            {"objective": "sft"},
            r"^config: train.arms.a{80}\.\.\.: String should have at most 64 characters \(got 'a{79}\.\.\., 300 ch\w+\)$",
        ),
    ],
)
def test_mistakes_are_refused_with_their_path(path, value, message):
    with pytest.raises(UserError, match=message):
        schema.check(changed(path, value))


def test_ranks_are_shared_out_by_whether_there_are_losers():
    """Two ranks take a pair of dpo together; sft has no losers, so each wants a pair of its own."""
    values = changed("launch.processes", 2)
    values["train"]["settings"] |= {"batch": 1, "parallel": {"pair": 2}}
    values["train"]["arms"] = {"dpo": {"objective": "dpo", "beta": 50}}
    schema.check(values)
    values["train"]["arms"]["sft"] = {"objective": "sft"}
    with pytest.raises(UserError, match=r"train.arms.sft: batch 1 does not divide over 2 data ranks"):
        schema.check(values)


def test_an_autoencoder_that_is_trained_is_measured_beside_the_others():
    values = changed("vae", {"train": {"batch": 3}})
    values["base"] = {"family": "mugv", "model": "some/model", "revision": "0" * 40}
    values["launch"] = {"processes": 1}
    settings = schema.check(values)
    assert settings.autoencoders == ["base", "trained"]
    assert settings.autoencoder("trained").family == "mugv"
    values["launch"] = {"processes": 2}
    with pytest.raises(UserError, match=r"vae.train.batch: 3 does not divide over 2 ranks"):
        schema.check(values)


def test_a_model_name_has_to_be_pinned():
    values = changed("base", {"model": "some/model"})
    with pytest.raises(UserError, match="pin the revision of some/model"):
        schema.check(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("videos:\n  root: [a\nclips: {}", "config.yaml, line 3, column 6: is not YAML"),
        ("videos:\n  root: a: b", "config.yaml, line 2, column 10: is not YAML (mapping values are not allowed here)"),
        ("videos:\n\troot: a", "config.yaml, line 2, column 1: is not YAML (found character '\\t' that cannot start"),
        ("", "config.yaml: is empty"),
        ("- a", "config.yaml: holds no keys"),
        (f"a: {'[' * 3000}", "config.yaml: lists or keys lie too deep within one another"),
    ],
)
def test_a_mistake_in_yaml_is_told_with_its_place(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        schema.load(path)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_a_configuration_that_is_not_there(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=r"confg.yml: there is no such configuration; did you mean .*/config.yaml\?$"):
        schema.load(tmp_path / "confg.yml")
    with pytest.raises(UserError, match=r"other: there is no such configuration$"):
        schema.load(tmp_path / "other")


@pytest.mark.parametrize(
    ("path", "written", "meant"),
    [
        ("train.settings.lr", "5e-6", 5e-6),
        ("train.settings.steps", "6e3", 6000),
        ("train.settings.betas", "[9e-1, .999]", (0.9, 0.999)),
        ("train.arms.dpo.beta", "5e2", 500),
        ("train.arms.reg_dpo.r", "1.5e1", 15),
        ("negatives.sampling.guidance", "5E0", 5),
        ("clips.fps", "3e1", 30),
    ],
)
def test_numbers_that_yaml_1_1_takes_for_text(path, written, meant):
    value = schema.check(changed(path, yaml.safe_load(written)))
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    assert value == meant


def test_text_that_looks_like_a_number_stays_text():
    values = changed("base", {"model": "some/model", "revision": "5e6"})
    assert schema.check(values).base.revision == "5e6"


def test_paths_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / "mine").mkdir(parents=True)
    values = changed("base", {"model": "mine"}) | {"videos": {"root": "footage"}}
    values["captions"] = {"root": "../texts", "python": "python3"}
    (folder / "my.yaml").write_text(yaml.safe_dump(values))

    def read():
        it = schema.load(folder / "my.yaml")
        return it.videos.root, it.base.model, it.captions.root, it.captions.python, it.scores.vbench.python

    vbench = str(ROOT / ".venv-vbench/bin/python")  # a default is the checkout's
    monkeypatch.chdir(folder)
    assert read() == ("footage", "mine", str(tmp_path / "texts"), "python3", vbench)
    monkeypatch.chdir(tmp_path)
    assert read() == ("project/footage", "project/mine", "texts", "python3", vbench)
    monkeypatch.chdir(folder / "mine")
    assert read() == (str(folder / "footage"), ".", str(tmp_path / "texts"), "python3", vbench)
    monkeypatch.chdir(folder)
    for spelled in (folder / "footage", "./footage", "../project/footage"):
        here = {"videos": {"root": str(spelled)}}
        assert locations.located(here, [(folder, here)], schema.Config)["videos"]["root"] == "footage"
    monkeypatch.chdir(folder / "mine")
    hub = {"videos": {"root": "package:x"}, "base": {"model": "some/model", "revision": "main"}}
    assert locations.located(hub, [(folder, hub)], schema.Config)["base"] == hub["base"]
    assert locations.located(hub, [(folder, hub)], schema.Config)["videos"] == hub["videos"]
    given = {"videos": {"root": "other"}}  # on the command line
    both = locations.located(values | given, [(folder, values), (Path(), given)], schema.Config)
    assert both["videos"]["root"] == "other"
    several = {"negatives": {"generators": {"a": {"model": "mine"}, "b": {"model": "some/model"}, "c": {}}}}
    found = locations.located(several, [(folder, several)], schema.Config)["negatives"]["generators"]
    assert found == {"a": {"model": "."}, "b": {"model": "some/model"}, "c": {}}


def test_generated_documents_are_up_to_date():
    schema = json.loads((ROOT / "config/config.schema.json").read_text())
    assert schema == documents.json_schema(), "run `python scripts/config_docs.py`"
    assert documents.markdown() in (ROOT / "config/README.md").read_text(), "run `python scripts/config_docs.py`"


def test_a_stage_is_given_what_it_reads_and_no_more():
    plain = schema.check(DEFAULT)
    other = schema.check(changed("train.arms.dpo.beta", 51))
    for arm in plain.train.arms:
        same = stage_inputs.TrainStage.of(plain, arm, 0) == stage_inputs.TrainStage.of(other, arm, 0)
        assert same == (arm != "dpo")
    for stage in (
        stage_inputs.ClipsStage,
        stage_inputs.MergeStage,
        stage_inputs.BaseStage,
        stage_inputs.PairsStage,
        stage_inputs.SamplesStage,
    ):
        assert stage.of(plain) == stage.of(other)
    assert stage_inputs.NegativesStage.of(plain, "base") == stage_inputs.NegativesStage.of(other, "base")


@pytest.mark.parametrize(
    ("path", "value"),
    [("train.settings.checkpoint_every", 7), ("train.settings.micro_batch", 1), ("launch.processes", 1)],
)
def test_what_changes_no_result_reaches_no_stage(path, value):
    plain, other = schema.check(DEFAULT), schema.check(changed(path, value))
    assert stage_inputs.TrainStage.of(plain, "dpo", 0) == stage_inputs.TrainStage.of(other, "dpo", 0)


def test_an_arm_overrides_what_it_names():
    values = changed("train.arms.dpo.settings", {"lr": 1e-6, "lora": {"rank": 4}})
    settings = schema.check(values).train.arm_settings("dpo")
    assert (settings.lr, settings.lora.rank, settings.lora.alpha) == (1e-6, 4, 32.0)


GENERATORS = {
    "base": {"share": 0.5},
    "fast": {"share": 0.5, "sampling": {"steps": 4}},
    "ltx": {"family": "ltx_video", "model": "Lightricks/LTX-Video", "revision": "1", "task": "t2v", "per_clip": 2},
}


def test_generators_are_the_shared_settings_with_their_own():
    settings = schema.check(changed("negatives.generators", GENERATORS))
    base, fast, ltx = (stage_inputs.NegativesStage.of(settings, name) for name in GENERATORS)
    assert fast == {**base, "generator": "fast", "begin": 0.5, "sampling": {**base["sampling"], "steps": 4}}
    assert ltx == {**base, "generator": "ltx", "begin": 0.0, "share": 1.0, "per_clip": 2}
    assert (settings.negatives.a_clip, settings.generator("fast")) == (3.0, (settings.base, "base"))
    model, key = settings.generator("ltx")
    assert (model.family, model.task, model.pretrain, key) == ("ltx_video", "t2v", None, "negatives.generators.ltx")
    alone = stage_inputs.NegativesStage.of(schema.check(DEFAULT), "base")
    assert base == {**alone, "share": 0.5}  # so that another generator makes nothing of the base's stale


@pytest.mark.parametrize(
    ("generators", "line"),
    [
        ({"a": {"model": "x/y"}}, "negatives.generators.a: .*revision.* is missing"),
        ({"a": {"family": "wan22"}}, "without `model` it is the base"),
        ({"base": {"model": "x/y", "revision": "1"}}, "that name is for the base model"),
        ({"a": {}, "b": {}}, "generators.b: makes the same videos as a"),
        ({"a": {"sampling": {"step": 3}}}, "generators.a.sampling.step: unknown key"),
        ({"own": {}, "a": {"family": "cogvideox", "model": "x/y", "revision": "1", "sampling": {"solver": "dpm++"}}},
         "negatives.generators.a.sampling.solver: cogvideox is no flow"),
    ],
)  # fmt: skip
def test_generators_that_cannot_be(generators, line):
    with pytest.raises(UserError, match=line):
        schema.check(changed("negatives.generators", generators))


def test_comfyui_is_refused_where_its_names_are_not_known():
    values = changed("train.export_formats", ["diffusers", "comfyui"])
    values["train"]["settings"]["tuning"] = "lora"
    assert schema.check(values).lora_arms == list(values["train"]["arms"])
    values["base"] = {"family": "cogvideox", "model": "some/model", "revision": "0" * 40}
    with pytest.raises(
        UserError, match=r"train.export_formats: comfyui's names of cogvideox are not known, only .*wan"
    ):
        schema.check(values)


def test_a_stage_by_hand_and_from_its_rule_are_the_same(tmp_path):
    values = changed("base.seeds", [3, 4])
    values["report"] = {"title": "{shard} " * 20_000}
    whole = tmp_path / "config.yaml"
    whole.write_text(yaml.safe_dump(values, sort_keys=False))
    settings = schema.load(whole)
    run = tmp_path / f"a{SUFFIX}"
    RunFile(parts=stage_inputs.parts(settings)).write(run)
    for stage, *which in [
        (stage_inputs.ReportStage,),
        (stage_inputs.TrainStage, "dpo", 0),
        (stage_inputs.TrainStage, "pretrain", 4),
        (stage_inputs.BaseStage, 4),
    ]:
        assert stage_inputs.read(stage, whole, *which) == stage_inputs.read(stage, run, *which)
    assert stage_inputs.read(stage_inputs.ReportStage, run).config["report"]["title"] == values["report"]["title"]


def test_a_job_finds_out_no_digest_of_code_that_it_was_given():
    settings = schema.check(DEFAULT)
    controlling = Params(settings, ROOT)
    found = controlling.code("clips", "regdpo.data.cut")
    assert controlling.codes == {"clips regdpo.data.cut": found}
    assert Params(settings, Path("nowhere"), controlling.codes).code("clips", "regdpo.data.cut") == found


def test_every_base_model_but_the_first_has_a_folder_and_names_of_its_own():
    values = changed("base.seeds", [5, 1, -2])
    values["train"] |= {"seeds": [0], "arms": {"dpo": {"objective": "dpo", "beta": 50}}}
    settings = schema.check(values)
    assert settings.base.folders == {"": 5, "base1/": 1, "base-2/": -2}
    assert settings.models == ["base", "dpo/seed0", "base1/base", "base1/dpo/seed0", "base-2/base", "base-2/dpo/seed0"]
    names = [ModelName.parse(name) for name in settings.models]
    assert [(name.of, name.arm, name.seed) for name in names[3:5]] == [("base1/", "dpo", 0), ("base-2/", "base", None)]
    assert [name.file for name in names[2:4]] == ["base1/base/model.json", "base1/train/dpo/seed0/model.json"]
    assert names[3].table("samples") == "base1/samples/dpo/seed0.parquet"
    for name in ("base1", "base1/", "../base", "base1/real/seed0/x", "dpo", "dpo/seed"):
        with pytest.raises(UserError, match="is no model's name"):
            ModelName.parse(name)


def test_parts_that_are_not_there_or_not_ours(tmp_path):
    path = tmp_path / f"a{SUFFIX}"
    with pytest.raises(UserError, match="Snakemake writes it when a run starts"):
        stage_inputs.read(stage_inputs.PairsStage, path)
    for text, message in (("[1]", "is not what a run writes"), ("{", "is not what"), ("{}", "holds no PairsStage")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            stage_inputs.read(stage_inputs.PairsStage, path)


def test_footage_counts_by_content_and_not_by_where_it_lies(tmp_path):
    """Nor do its table and the text files beside it."""

    def parameters(folder: str) -> list[str]:
        places = {"videos": {"root": folder, "table": f"{folder}/list.csv"}, "captions": {"root": f"{folder}/texts"}}
        declare = Params(schema.check({**DEFAULT, **places}), ROOT)
        return [declare.reads(stage)(None) for stage in stage_inputs.STAGES]

    assert parameters("footage") == parameters("/mnt/the same")


def test_mistakes_of_which_a_reader_would_notice_nothing(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("clips:\n  fps: 16\n  width: 64\n  fps: 24\nsamples: &a {seeds: [0]}\nother: *a\n")
    with pytest.raises(UserError, match=r"my.yaml: clips.fps is given twice, in lines 2 and 4; keep one"):
        schema.read(path)
    path.write_text("a: &a {x: 1}\nb: {<<: *a, x: 2}\nc: [*a, *a]\n")
    assert schema.read(path)["b"] == {"x": 2}
    with pytest.raises(UserError, match=r"objective: .*did you mean reg_dpo\?"):
        schema.check(changed("train.arms", {"a": {"objective": "regdpo"}}))
    (tmp_path / "tiny-t2v").mkdir()
    with pytest.raises(UserError, match=r"base.model: .* no such folder; did you mean .*/tiny-t2v\?.* OWNER/NAME"):
        schema.check(changed("base", {"model": str(tmp_path / "tiny-t3v")}))
