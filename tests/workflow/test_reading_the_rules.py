"""What Snakemake is told when it reads the rules: text as it was written; and that reading writes and starts nothing."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from project import CONFIG, ROOT, TEXT, Project
from snakemake.cli import parse_args

from regdpo.config import stage_inputs
from regdpo.config.locations import located
from regdpo.config.run_file import SUFFIX, RunFile
from regdpo.config.schema import Config, check
from regdpo.core.digests import canonical
from regdpo.evaluate.suites import SUITES
from regdpo.workflow.params import placeless

JOBS = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
    config = ConfigSettings(configfiles=[Path(sys.argv[2])])
    workflow = api.workflow(ResourceSettings(cores=1), config, snakefile=Path(sys.argv[1]))
    workflow.dag(DAGSettings(targets={"all"})).summary()
    jobs = workflow._workflow_store.dag.jobs
    print(json.dumps([job.params.get("config") for job in jobs]))
"""
"""Prints `params.config` of every job."""


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    return Project(tmp_path)


def written(project: Project) -> set[str]:
    files = (path for path in project.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(project.folder).as_posix() for path in files}


def test_a_dry_run_writes_nothing_and_starts_nothing(fresh: Project):
    """VBench's Python is named by the configuration, which may be a stranger's. What was read is known to the next."""
    values = copy.deepcopy(CONFIG)
    program = fresh.folder / "vbench/bin/python"
    prompts = program.parents[1] / "lib/python3.11/site-packages/vbench/VBench_full_info.json"
    for path in (program, prompts):
        path.parent.mkdir(parents=True)
    prompts.write_text(json.dumps([{"prompt_en": "a dog", "dimension": list(SUITES["t2v"].dimensions)}]))
    values["base"]["task"] = "t2v"
    values["scores"]["vbench"] |= {"suites": ["t2v"], "shards": 3}
    program.write_text(f"#!/bin/sh\ntouch {fresh.folder}/started\necho 3 11\n")
    program.chmod(0o755)
    values["scores"]["vbench"]["python"] = str(program)
    (fresh.folder / "other").mkdir()
    values["vae"] = {"report": True, "train": {"of": "other", "batch": 2, "windows": [2]}}
    chain = [{"objective": "sft", "settings": {"tuning": "lora"}}]
    chain.append({"objective": "dpo", "beta": 5, "adapters": "merge", "generator": "previous"})
    values["train"]["arms"]["way"] = {"steps": chain}
    (fresh.folder / "config/prompts.csv").write_text("uuid,prompt\n1,a dog\n2,a cat\n")
    (fresh.folder / "config/said.csv").write_text("a,b,answer,caption\nsaid.csv,prompts.csv,a,c\n")
    ranked = {"kind": "best_of_n", "candidates": {"score": {"sharpness": 1}, "shards": 2}}
    listed = {"kind": "best_of_n", "candidates": {**ranked["candidates"], "prompts": "prompts.csv"}, "weights": {}}
    said = {"kind": "labels", "path": "said.csv"}
    values["pairs"] = values.get("pairs", {}) | {
        "sources": {"gt": {"kind": "gt"}, "ranked": ranked, "listed": listed, "said": said}
    }
    other = {"model": "../other"}
    values["negatives"]["generators"] = {"base": {}, "near": {"strength": [0.4, 0.8]}, "other": other}
    fresh.configure(values)
    before = written(fresh)
    planned = fresh.planned()
    assert planned["import_pairs"] == 2
    assert planned["cut_clips"] == 2
    assert planned["total_vae"] == planned["train_vae"] == 1
    assert planned["measure_vae"] == 3  # of the base, the other model, and what is trained of that
    assert planned["train_arm"] == planned["arm_weights"] == 4  # two arms and a chain of two steps
    assert planned["merge_adapters"] == 1
    assert planned["gt_pairs"] == 2  # by the base, and by the first step
    assert planned["render_negatives"] == 2 * 2 + 1  # by each from noise, and from the winner; and by the other
    assert planned["render_candidates"] == planned["score_candidates"] == 2 * 2 * 2  # shards of two sources
    assert planned["render_suite"] == planned["score_suite"] == 3 * 5  # shards of the base and all trainings
    notes = fresh.folder / ".snakemake/regdpo/digests.json"
    known = dict.fromkeys(json.loads(notes.read_text()), "0" * 64)
    assert len(known) == 2 + 2  # of the footage, and of the list
    notes.write_text(json.dumps(known))
    assert fresh.snakemake("--summary", "all").returncode == 0
    assert json.loads(notes.read_text()) == known
    assert {name for name in written(fresh) - before if not name.startswith(".snakemake/")} == set()


def test_a_mistake_on_the_command_line_is_one_line(fresh: Project):
    done = fresh.snakemake("--list", "--config", "clips={fps: fast, width: 64}")
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith("error: config: clips.fps: Input should be a valid number")
    assert "schema" not in done.stdout


def free_text(node: dict, schema: dict, path: str = "") -> Iterator[str]:
    """The keys that take any text; `[]` and `.*` stand for what a list or a table holds."""
    node = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    if node.get("type") == "string" and not {"enum", "const", "pattern"} & node.keys():
        yield path
    below = [(choice, "") for choice in node.get("anyOf", [])]
    below += [(node[key], "[]") for key in ("items",) if key in node]
    below += [(value, f".{key}") for key, value in node.get("properties", {}).items()]
    for choice, step in below:
        yield from free_text(choice, schema, f"{path}{step}".lstrip("."))


def placed(values: dict, path: str, text: str) -> None:
    *folders, key = path.removesuffix("[]").split(".")
    for folder in folders:
        values = values.setdefault(folder, {})
    values[key] = [text] if path.endswith("[]") else text


def test_text_reaches_the_stages_as_it_was_written(fresh: Project):
    """From a project folder of one's own, to which the paths in its configuration are relative."""
    own = fresh.folder / "own"
    values = copy.deepcopy(CONFIG)
    (own / "settings" / TEXT).mkdir(parents=True)
    schema = Config.model_json_schema()
    paths = set(free_text(schema, schema))
    assert {"negatives.sampling.negative_prompt", "report.title", "videos.include[]"} < paths
    for path in paths - {"launch.gpu", "base.model", "base.revision"}:  # known names; what is made here has none
        placed(values, path, TEXT)
    values["scores"]["frechet"]["features"] = "video_mae"
    values["vae"]["report"] = True
    values["videos"]["include"].append("**")
    (own / "settings" / TEXT / "a.mp4").touch()
    (own / "settings/my.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-c", JOBS, fresh.folder / "workflow/Snakefile", "settings/my.yaml"]
    done = subprocess.run(command, cwd=own, env=fresh.command()[1]["env"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = {text for text in json.loads(done.stdout.splitlines()[-1]) if text}

    with chdir(own):
        checked = check(located(values, [(Path("settings"), values)], Config))
        assert checked.videos.root == f"settings/{TEXT}"
        parts = stage_inputs.parts(checked)
        path = Path(f"notes/a{SUFFIX}")
        RunFile(parts=parts).write(path)
    # in no parameter: where footage lies, who writes captions, what raters see, what only a log tells; and of pairs there
    # are no other sources to import
    of_none = (
        *(stage_inputs.CaptionServerStage, stage_inputs.RateStage),
        stage_inputs.MinimumStage,
        stage_inputs.ImportsStage,
    )
    unread = {stage.__name__ for stage in of_none}
    assert told == {canonical(placeless(part)) for name, part in parts.items() if name not in unread}
    for stage in stage_inputs.STAGES:
        assert stage_inputs.read(stage, own / path) == stage.model_validate(stage.of(checked))
    assert not list(fresh.folder.rglob("made"))


@pytest.mark.parametrize("there", ["a project's folder", "the checkout"])
def test_the_default_profile_is_found_from_everywhere(tmp_path, there):
    """Without it a manifest of a megabyte counts by its clock, and what a killed run left is an error."""
    place, named = (tmp_path, ["-s", f"{ROOT}/workflow/Snakefile"]) if there != "the checkout" else (ROOT, [])
    with chdir(place):
        _, found = parse_args([*named, "--cores", "2"])
    assert (found.rerun_incomplete, found.max_checksum_file_size, found.keep_going) == (True, 10**9, True)
