"""What each change makes stale: the rules' parameters before and after it, of every job, and what follows from those.

Nothing runs. docs/concepts/staleness.md has the table that is proven here; what a run finds to be the same stops there.
"""

import copy
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import CONFIG, ROOT, Project
from rate_inputs import answer

from regdpo.core import manifests
from regdpo.core.rows import AnswerRow

READ = """
import json, os, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings
from regdpo.core.digests import file_digest
import snakemake.dag, snakemake.scheduling, regdpo.workflow.hooks, regdpo.workflow.inputs, regdpo.workflow.early

def given(job):
    return {str(path): file_digest(path) for path in job.input if os.path.isfile(path)}

def read(resources):
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        settings = ResourceSettings(**({"cores": 1} | resources))
        config = ConfigSettings(configfiles=[Path("config/config.yaml")])
        workflow = api.workflow(settings, config, snakefile=Path("workflow/Snakefile"))
        workflow.dag(DAGSettings(targets={"all"})).summary()
        dag = workflow._workflow_store.dag
        name = lambda job: " ".join([job.rule.name, *job.wildcards])
        params = lambda job: {"params": [str(value) for value in job.non_derived_params]} | given(job)
        return {name(job): [params(job), [name(it) for it in dag.dependencies[job]]] for job in dag.jobs}

for line in sys.stdin:
    if pid := os.fork():
        os.waitpid(pid, 0)
        continue
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        found = read(json.loads(line))
        os.write(answer, b"")
        with os.fdopen(answer, "w") as out:
            out.write(json.dumps(found) + chr(10))
    finally:
        os._exit(0)
"""
"""Answers each line of resources with every job's parameters, the content of its inputs that no rule makes, and the jobs
that it depends on. What is derived of resources, inputs or outputs makes nothing stale, so Snakemake has it apart."""


class Rules:
    """A copy of the checkout with footage of its own, and a process that reads its rules."""

    def __init__(self, folder: Path):
        self.project = Project(folder)
        self.folder = folder
        (folder / "footage").mkdir()
        for name in ("a.mp4", "b.mp4", "c.mp4"):
            (folder / "footage" / name).write_text(name)
        self.configure(())
        environment = self.project.command()[1]["env"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", READ],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "errors").open("w"),
            text=True,
        )

    def configure(self, changes: tuple[tuple[str, Any], ...]) -> None:
        values = copy.deepcopy(CONFIG)
        values["videos"] = {"root": "../footage", "include": ["**"]}
        for path, value in changes:
            *sections, key = path.split(".")
            place = values
            for section in sections:
                place = place.setdefault(section, {})
            place[key] = value
        (self.folder / "config/config.yaml").write_text(yaml.safe_dump(values))

    def read(self, **resources: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(resources) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, (self.folder / "errors").read_text()[-3000:]
        return json.loads(line)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rules]:
    made = Rules(tmp_path_factory.mktemp("rules"))
    yield made
    made.process.stdin.close()
    made.process.wait()


@pytest.fixture(scope="module")
def plain(rules: Rules) -> dict[str, Any]:
    return rules.read()


def stale(before: dict[str, Any], after: dict[str, Any]) -> tuple[dict[str, int], set[str]]:
    """How many jobs of each rule have other parameters, or are new, but for pages, which show the configuration; and the
    rules of all that follows from them."""
    direct = {job for job, (params, _) in after.items() if job not in before or params != before[job][0]}
    reached, more = set(direct), True
    while more:
        more = {job for job, (_, above) in after.items() if job not in reached and reached & set(above)}
        reached |= more
    counts = Counter(rule for job in direct if not (rule := job.split()[0]).endswith("_page"))
    return dict(counts), {job.split()[0] for job in reached}


def test_what_changes_no_result_makes_nothing_stale(rules, plain):
    for path in (rules.folder / "footage").iterdir():
        os.utime(path, (1e9, 1e9))  # touched
    rules.edit("regdpo/stages/pairs.py", "    rows = []\n", "    rows = []  # of pairs\n")
    rules.configure((("paths.store", "../elsewhere"), ("launch.processes", 1)))
    found = rules.read(cores=3, overwrite_threads={"train_arm": 3}, overwrite_resources={"cut_clips": {"mem_mb": 77}})
    rules.configure(())
    direct, _ = stale(plain, found)
    assert direct == {}


def test_the_place_of_the_checkout_makes_nothing_stale(rules, plain):
    for job, (found, _) in plain.items():
        assert not [place for place in (rules.folder, ROOT) if str(place) in json.dumps(found)], job


MODEL = (("base", {"task": "i2v", "model": "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "revision": "1" * 40}),)
ASKED = (("captions", {"source": "transformers", "model": "Qwen/Qwen3-VL-2B-Instruct", "revision": "2" * 40}),)
ASKED += (("captions.python", sys.executable),)
TRAINED = {"train_arm", "arm_weights", "render_samples", "score", "merge_scores", "report_page", "all"}


@pytest.mark.parametrize(
    ("before", "after", "direct", "reached", "spared"),
    [
        pytest.param(
            (),
            (("clips.filters.min_motion", 3.0),),
            {"cut_clips": 2},
            {"caption_clips", "gt_pairs", *TRAINED},
            set(),
            id="a threshold",
        ),
        pytest.param(
            ASKED,
            (*ASKED, ("captions.prompt", "What is seen?")),
            {"caption_clips": 2},
            {"render_negatives", *TRAINED},
            {"cut_clips", "merge_clips", "count_splits"},
            id="the caption prompt",
        ),
        pytest.param(
            (),
            (("train.arms.dpo.beta", 51),),
            {"train_arm": 1},
            TRAINED,
            {"cut_clips", "caption_clips", "render_negatives", "encode_latents", "pretrain"},
            id="beta of one arm",
        ),
        pytest.param(
            MODEL,
            (("base", {**MODEL[0][1], "revision": "3" * 40}),),
            {"base_by_name": 1},
            {"render_negatives", "encode_latents", *TRAINED},
            {"cut_clips", "caption_clips", "count_splits"},
            id="the model's revision",
        ),
    ],
)
def test_a_change_of_the_configuration(rules, plain, before, after, direct, reached, spared):
    rules.configure(before)
    known = rules.read() if before else plain
    rules.configure(after)
    found = rules.read()
    rules.configure(())
    changed, all_of_them = stale(known, found)
    assert changed == direct
    assert reached <= all_of_them
    assert not spared & all_of_them


def test_one_video_more_makes_its_shard_stale(rules, plain):
    (rules.folder / "footage/d.mp4").write_text("d")
    found = rules.read()
    (rules.folder / "footage/d.mp4").unlink()
    assert stale(plain, found)[0] == {"cut_clips": 1}
    assert stale(plain, rules.read())[0] == {}


def test_answers_make_stale_what_is_made_of_them(rules, plain):
    """By what they say: given once more at another time they are the same."""
    row = answer("ann", "clip0", "a")
    table = rules.folder / "ratings/answers.parquet"
    table.parent.mkdir()
    manifests.write(table, [row], AnswerRow)
    found = rules.read()
    direct, all_of_them = stale(plain, found)
    assert direct == {"answers": 1}
    assert all_of_them == {"answers", "merge_scores", "report_page", "all"}
    manifests.write(table, [row.model_copy(update={"when": "2027-01-01T00:00:00+00:00"})], AnswerRow)
    assert stale(found, rules.read())[0] == {}
    table.unlink()
    assert stale(plain, rules.read())[0] == {}


def changed_file(name: str, old: str, new: str) -> Callable[[Rules], None]:
    return lambda rules: rules.edit(name, old, new)


@pytest.mark.parametrize(
    ("name", "old", "new", "direct", "spared"),
    [
        pytest.param(
            "regdpo/evaluate/held_out.py",
            "import torch\n",
            "import torch\n\nMORE = 1\n",
            {"score": 3},
            {"train_arm", "render_samples", "compare_halves"},
            id="a function of evaluation",
        ),
        pytest.param(
            "regdpo/report/template.html",
            "</body>",
            " </body>",
            {},
            {"merge_scores"},
            id="the page's template",
        ),
        pytest.param(
            "envs/torch.lock",
            "torch==",
            "torch==9.",
            {
                *("render_negatives", "encode_latents", "base_from_scratch", "pretrain"),
                *("train_arm", "render_samples", "score"),
            },
            {"cut_clips", "caption_clips"},
            id="the locked torch",
        ),
    ],
)
def test_a_change_of_a_file(rules, plain, name, old, new, direct, spared):
    rules.edit(name, old, new)
    found = rules.read()
    rules.edit(name, new, old)
    changed, all_of_them = stale(plain, found)
    assert changed == direct if isinstance(direct, dict) else direct <= set(changed)
    assert {"report_page"} <= all_of_them
    assert not spared & all_of_them


def test_what_was_found_damaged_makes_its_shard_stale(rules, plain):
    note = rules.folder / "results/negatives/base/0.parquet.damaged"
    note.parent.mkdir(parents=True)
    note.write_text("negatives/ab/ab.mp4\n")
    found = rules.read()
    note.unlink()
    changed, all_of_them = stale(plain, found)
    assert changed == {"render_negatives": 1}
    assert not {"cut_clips", "caption_clips", "pretrain"} & all_of_them
