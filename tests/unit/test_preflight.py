"""What is looked at before the first job: ranks, machines, GPUs and layout against each other, and the plan."""

import copy
import os
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from regdpo.config import command_line, schema
from regdpo.core.errors import UserError
from regdpo.core.temporaries import check_writable
from regdpo.workflow import hooks
from regdpo.workflow.preflight import Asked, ask_plan, described, fit, lacking, mend_dates, unconverted

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
PLAN = [sys.executable, str(ROOT / "scripts/plan.py")]
DPO = "train.arms.dpo"


def settings(context: int = 1, tensor: int = 1, **launch: object) -> schema.Config:
    values = copy.deepcopy(DEFAULT)
    values["train"]["settings"] |= {"batch": 4, "parallel": {"context": context, "tensor": tensor}}
    values["launch"] |= {"device": "auto", **launch}
    return schema.check(values)


def test_what_fits_is_not_spoken_of():
    assert fit(settings(), [Asked(DPO, 2, 1, 2), Asked("train.arms.sft", 2, 1, 0)]) == []
    assert fit(settings(nodes=2), [Asked("base.pretrain", 2, 2, 2)]) == []


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (Asked(DPO, 4, 3, 0), "train.arms.dpo: nodes=3 does not divide processes=4, its job's resources"),
        (Asked(DPO, 4, 2, 0), "train.arms.dpo: nodes=2, its job's resources; set launch.nodes"),
        (Asked(DPO, 8, 1, 0), "train.arms.dpo: batch 4 does not divide over 8 data ranks (processes=8, its job's"),
        (Asked(DPO, 4, 1, 2), "train.arms.dpo: gpu=2 for processes=4, its job's resources; a rank takes one GPU"),
    ],
)
def test_what_a_profile_made_of_it_is_refused(asked, line):
    with pytest.raises(UserError) as caught:
        fit(settings(device="cuda"), [asked])
    assert str(caught.value).startswith(line)


def test_gpus_that_ranks_may_not_use_are_a_note():
    assert fit(settings(), [Asked(DPO, 2, 1, 1)]) == [
        "train.arms.dpo: gpu=1 for processes=2, its job's resources; a rank takes one GPU"
    ]
    assert fit(settings(device="cpu"), [Asked(DPO, 2, 1, 1)]) == []


def test_weights_that_vbench_lacks_are_a_table_for_what_runs(tmp_path):
    values = copy.deepcopy(DEFAULT)
    values["base"]["task"] = "t2v"
    values["scores"]["vbench"] = {
        "suites": ["t2v"],
        "weights": str(tmp_path),
        "python": "none",
        "dimensions": ["custom"],
    }
    configured = schema.check(values)
    flickering = schema.check(DEFAULT)
    scored = ("score", {"measure": "vbench", "model": "base"})
    rendered = ("render_suite", {"suite": "t2v", "model": "base", "shard": "0"})
    six, sixteen = lacking(configured, [scored, rendered, rendered, ("score", {"measure": "proxies"})])
    assert six.startswith("VBench: 0 of 6 dimensions can run; the others will be missing. They need, below ")
    assert sixteen.startswith("VBench: 0 of 16 ")
    assert "grit_b_densecap_objectdet.pth" in sixteen
    assert "raft-things.pth                      missing                      temporal_flickering, dynamic" in sixteen
    assert lacking(configured, []) == lacking(flickering, [scored]) == []


@pytest.mark.parametrize("path", ["mugv_alignment", "videodpo_vc2", "videodpo_t2v_turbo"])
def test_what_is_to_be_converted_first_is_told_by_its_name(path):
    """Of the papers' models; a folder is none of them, nor is a checkpoint that is published in diffusers' layout."""
    values = schema.load(str(ROOT / f"config/recipes/{path}.yaml"))
    family, model = values.base.family, values.base.model
    wanted = rf"^base.model: {model} is no checkpoint in diffusers' layout. .*python scripts/convert.py {family} "
    with pytest.raises(UserError, match=wanted):
        unconverted(values, [("base_by_name", {"seed": "0"})])
    unconverted(values, [("train_arm", {})])
    generators = {"base": {}, "other": {"family": family, "model": model, "revision": "main"}}
    others = schema.check({**DEFAULT, "negatives": {"generators": generators}})
    with pytest.raises(UserError, match=r"^negatives.generators.other.model: .* is no checkpoint in diffusers' layout"):
        unconverted(others, [("generator_by_name", {"generator": "other"})])
    folder = values.base.model_copy(update={"model": str(ROOT)})
    unconverted(values.model_copy(update={"base": folder}), [("base_by_name", {})])
    unconverted(schema.load(str(ROOT / "config/recipes/videodpo_cogvideox.yaml")), [("base_by_name", {})])


def test_a_folder_of_captions_that_is_not_there_is_told_where_clips_get_captions(tmp_path):
    values = schema.check({**DEFAULT, "captions": {"source": "sidecar", "root": str(tmp_path / "texts")}})
    described(values, [("cut_clips", {})])
    with pytest.raises(UserError, match=r"^captions.root: .*/texts: there is no such folder; .*--write-templates"):
        described(values, [("cut_clips", {}), ("caption_clips", {"shard": "0"})])
    (tmp_path / "texts").mkdir()
    described(values, [("caption_clips", {"shard": "0"})])


def test_videos_split_over_machines_are_a_note():
    asked = [Asked(DPO, 4, 2, 4), Asked("train.arms.sft", 4, 2, 4)]
    assert fit(settings(context=2, processes=4, nodes=2), asked) == []
    (note,) = fit(settings(context=4, processes=4, nodes=2), asked)
    assert note.startswith("train.arms.dpo, train.arms.sft: parallel.context 4 splits videos over machines of 2 ranks")
    (note,) = fit(settings(tensor=4, processes=4, nodes=2), asked)
    assert "parallel.tensor 4 splits blocks over machines of 2 ranks each: every block exchanges all tokens" in note


@pytest.mark.slow
def test_the_plan_is_asked_once(tmp_path):
    """The real plan; `false` in its place shows whether it is asked at all."""
    said: list[str] = []
    asked = [Asked("base.pretrain", 2, 1, 2)]
    ask_plan(settings(), asked, ["latents"], ["false"], tmp_path, "", said.append)
    assert said == []  # no GPU is named
    known = settings(gpu="RTX 4090")
    ask_plan(known, asked, ["latents"], PLAN, tmp_path, "", said.append)
    assert said[0].startswith("asking the plan whether base.pretrain, latents fit 2 x RTX 4090")
    assert said[1] == "base.pretrain: needs 3.1 of 23.5 GiB per rank: fits, by the plan"
    assert re.fullmatch(r"latents: needs 3\.\d of 23\.5 GiB, for the text encoder: fits, by the plan", said[2])
    ask_plan(known, asked, ["latents"], ["false"], tmp_path, "", said.append)
    assert len(said) == 3
    force = settings(gpu="RTX 4090", force=True)
    ask_plan(force, [Asked(DPO, 2, 1, 2)], ["samples"], ["false"], tmp_path, "", said.append)
    for other in (
        (settings(gpu="L40S"), asked, [], "code"),
        (known, asked, [], "other code"),
        (known, [Asked("base.pretrain", 4, 1, 4)], [], ""),
        (known, [Asked(DPO, 2, 1, 2)], [], ""),
        (known, asked, ["samples"], ""),
    ):
        with pytest.raises(UserError, match="the plan failed: false"):
            ask_plan(*other[:3], ["false"], tmp_path, other[3], said.append)


@pytest.mark.slow
def test_what_cannot_be_planned_is_said_and_not_remembered(tmp_path):
    values = copy.deepcopy(DEFAULT)
    values["base"] = {"model": "some/model", "revision": "main"}
    values["launch"]["gpu"] = "H100 SXM"
    said: list[str] = []
    ask_plan(schema.check(values), [Asked(DPO, 2, 1, 2)], [], PLAN, tmp_path, "", said.append)
    assert said[1].startswith("not checked against the plan: base.model: the architecture of some/model is not known")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written_to(tmp_path):
    """/proc takes no folder and no file, whoever asks."""
    check_writable(tmp_path / "new/results")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for folder in (Path("/proc"), Path("/proc/results"), tmp_path / "file"):
        with pytest.raises(UserError, match=rf"^{folder}: cannot be written to \(.*\); mend that, or set `paths`$"):
            check_writable(folder)
        with pytest.raises(UserError, match=rf"^{folder}: cannot be written to"):  # before a stage begins
            command_line.parser("").parse_args(["--config", "it.yaml", "--out", str(folder / "clips.parquet")])


def failed(rule: str, log: Path, *wildcards: str) -> SimpleNamespace:
    return SimpleNamespace(rule=SimpleNamespace(name=rule), wildcards=list(wildcards), log=[str(log)])


def test_why_jobs_failed_is_told_by_what_their_logs_say_last(tmp_path):
    """Once for each cause; an older log is of another run, and a traceback ends with what was raised."""
    logs = [tmp_path / name for name in ("0", "1", "train", "old")]
    said = "frames: 3\nerror: no such thing\nerror: no space left\nbye\n"
    for log, text in zip(logs, [said, said, "Traceback\n  x\nValueError: broken\n\n", said], strict=True):
        log.write_text(text)
    os.utime(logs[3], (1, 1))
    shards = [failed("cut_clips", logs[index], str(index)) for index in (1, 0)]
    group = SimpleNamespace(jobs=[failed("train_arm", logs[2], "dpo", "0")])
    assert hooks.causes([*shards, group, failed("score", logs[3]), failed("other", tmp_path / "none")], 2) == [
        f"error: cut_clips 0 and 1 more jobs: no space left ({logs[0]})",
        f"error: other and 1 more jobs: ended before it said anything; what is above may tell ({tmp_path}/none)",
        f"error: train_arm dpo 0: ValueError: broken ({logs[2]})",
    ]


def test_inputs_of_the_future_are_dated_to_now(tmp_path):
    """As a clock that was set back leaves them; what is older keeps its time."""
    old, new, none = (tmp_path / name for name in ("old", "new", "none"))
    for path, seconds in ((old, -3600), (new, 3600)):
        path.touch()
        os.utime(path, (time.time() + seconds,) * 2)
    before = old.stat().st_mtime_ns
    assert mend_dates([old, new, none]) == f"{new}: dated in the future, as after a clock was set back; dated to now"
    assert new.stat().st_mtime <= time.time()
    assert old.stat().st_mtime_ns == before
    assert mend_dates([old, new, none]) == ""
