"""The whole workflow through the real launcher, and what it takes to make a part of it stale."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from project import CONFIG, ROOT, Project
from safetensors.numpy import load_file

from regdpo.config.evaluation import Scores
from regdpo.core import manifests
from regdpo.core.rows import ClipRow, NegativeRow, PairRow, ScoreRow, SplitRow
from regdpo.evaluate.measures import asked
from regdpo.workflow.timeline.rows import JobRow

BY_MODEL = [measure for measure in asked(Scores().on).values() if measure.reads != "answers"]
SCORES = sum(3 + (measure.reads == "samples") for measure in BY_MODEL)
"""Of base, two arms and, where videos are measured, real footage."""


@pytest.fixture
def project(finished: Project):
    """The finished project; configuration and code are as they were afterwards."""
    yield finished
    finished.configure(CONFIG)
    for name in ("regdpo/train/trainer.py", "regdpo/train/passes.py", "regdpo/objectives/losses.py"):
        shutil.copy(ROOT / name, finished.folder / name)


def test_everything_was_made(finished: Project):
    results = finished.folder / "results"
    page = (results / "report/index.html").read_text()
    assert page.count("<video") > 6
    assert re.search(r"reg_dpo_lora", page)
    clips = manifests.read(results / "clips.parquet", ClipRow)
    assert {clip.source for clip in clips if clip.status == "accepted"} == {"bigbuckbunny.mp4", "carphone_pristine.mp4"}
    pairs = manifests.read(results / "pairs.parquet", PairRow)
    assert {pair.source for pair in pairs} == {"bigbuckbunny.mp4"}
    assert not (finished.folder / "made").exists(), "the configuration's text was run"
    assert {pair.split for pair in pairs} == {"train", "validation", "test"}
    counted = manifests.read(results / "splits.parquet", SplitRow)
    assert {row.split: row.clips for row in counted} == Counter(pair.split for pair in pairs)
    negatives = manifests.read(results / "negatives.parquet", NegativeRow)
    assert {row.negative_id for row in negatives} == {pair.pair_id for pair in pairs}, "nothing for clips in the gaps"
    assert {row.generator for row in negatives} == {pair.generator for pair in pairs} == {"base"}
    adapters = load_file(results / "weights/reg_dpo_lora/seed0/comfyui.safetensors")
    assert adapters["diffusion_model.blocks.0.self_attn.q.alpha"] == 16
    model = json.loads((results / "train/reg_dpo_lora/seed0/model.json").read_text())
    kept = finished.folder / "store" / model["ref"]["lora"] / "pytorch_lora_weights.safetensors"
    assert (results / "weights/reg_dpo_lora/seed0" / kept.name).read_bytes() == kept.read_bytes()
    assert (
        'pipe.load_lora_weights("results/weights/reg_dpo_lora/seed0")'
        in (results / "weights/reg_dpo_lora/seed0/README.md").read_text()
    )
    scores = manifests.read(results / "scores.parquet", ScoreRow)
    assert {row.model for row in scores} == {"real", "base", "dpo/seed0", "reg_dpo_lora/seed0"}
    for row in scores:
        assert (row.value is None) == bool(row.missing)
        assert row.value is not None or row.metric.startswith(("vbench", "people", "frechet"))


def test_no_network_was_there(finished: Project, alone: list[str]):
    """So a node without one can do every stage; `finished` was made as this looks for one."""
    if not alone:
        pytest.skip("taking the network away takes root, or user namespaces")
    look = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    done = subprocess.run([*alone, sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert "Network is unreachable" in done.stderr


def test_training_ran_as_two_processes_and_left_its_logs(finished: Project):
    model = json.loads((finished.folder / "results/train/dpo/seed0/model.json").read_text())
    assert (model["processes"], model["device"], model["attention"]) == (2, "cpu", "native")
    run = finished.folder / "store" / model["run"]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert first["dpo_loss"] == pytest.approx(0.693147, abs=1e-4)
    assert list((run / "tensorboard").iterdir())
    assert "[1]:" in (finished.folder / "logs/train/dpo/seed0.log").read_text() or (run / "logs").exists()


def test_the_timeline_has_every_job(finished: Project):
    rows = manifests.read(finished.folder / "logs/timeline.parquet", JobRow)
    assert len({row.run for row in rows}) == 1
    assert {row.outcome for row in rows} == {"done"}
    benchmarked = dict.fromkeys(("cut_clips", "caption_clips", "encode_latents", "train_arm"), 2)
    benchmarked |= dict.fromkeys(("base_from_scratch", "pretrain", "render_negatives", "compare_halves"), 1)
    benchmarked |= {"render_samples": 3, "score": SCORES}  # two arms, base; and real
    assert Counter(row.rule for row in rows if row.working_s is not None) == benchmarked
    small = dict.fromkeys(("clips", "captions", "negatives", "scores"), 1) | {"latents": 2}
    local = {f"merge_{name}": count for name, count in small.items()}
    local |= dict.fromkeys(
        ("count_splits", "pretraining_pairs", "gt_pairs", "real_samples", "report_page", "export_comfyui", "answers"), 1
    )
    local |= {"arm_weights": 2, "funnel_page": 1}
    assert Counter(row.rule for row in rows if row.working_s is None) == local
    assert all(row.working_s <= row.running_s + 2 for row in rows if row.working_s is not None)
    page = (finished.folder / "results/report/timeline.html").read_text()
    assert f"<h1>{31 + SCORES} jobs in" in page
    assert "Nothing of it went through Slurm" in page
    assert 'data="timeline.html"' in (finished.folder / "results/report/index.html").read_text()


def test_a_second_run_does_nothing(project: Project):
    drawn = [project.folder / name for name in ("logs/timeline.parquet", "results/report/timeline.html")]
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in drawn]
    assert "Nothing to be done" in project.snakemake("all").stdout
    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in drawn] == before


def test_a_flipped_byte_is_noticed_and_made_again_by_the_same_command(project: Project):
    """Of a generated video, by who measures it; the one shard that made it is made again, to the same bytes."""
    pair = manifests.read(project.folder / "results/pairs.parquet", PairRow)[0]
    loser, halves = project.folder / "store" / pair.loser, project.folder / "results/halves.parquet"
    whole, measured = loser.read_bytes(), halves.read_bytes()
    loser.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    halves.unlink()
    done = project.snakemake("results/halves.parquet")
    assert done.returncode == 1
    line = done.stdout.strip().splitlines()[-1]
    assert line.startswith(f"error: compare_halves: {loser} is damaged (sha256 ")
    assert line.endswith("give the same command again, which makes it anew (logs/halves.log)")
    done = project.snakemake("results/halves.parquet")
    assert done.returncode == 0, done.stdout[-3000:]
    assert loser.read_bytes() == whole
    assert halves.read_bytes() == measured
    assert project.planned() == {}


def test_new_clocks_make_nothing_stale(project: Project):
    """As after a fresh checkout, or a copy of the results: every file newer than what was made from it, or older."""
    tracked = [
        path
        for part in ("results", "config", "rules", "workflow", "scripts", "regdpo")
        for path in (project.folder / part).rglob("*")
    ]
    for number, path in enumerate(sorted(tracked, reverse=True)):
        os.utime(path, (2e9 + number, 2e9 + number))
    assert project.planned() == {}


def test_a_comment_makes_nothing_stale(project: Project):
    loop = project.folder / "regdpo/train/trainer.py"
    loop.write_text(loop.read_text().replace('"""One optimiser step', '"""A single optimiser step') + "\n# the end\n")
    assert project.planned() == {}


def one_arm(arms: int = 1) -> dict[str, int]:
    parts = {"train_arm": arms, "arm_weights": arms, "render_samples": arms, "score": len(BY_MODEL) * arms}
    return {"all": 1, **parts, "answers": 1, "merge_scores": 1, "report_page": 1}


def test_one_arms_beta_makes_that_arm_alone_stale(project: Project):
    values = copy.deepcopy(CONFIG)
    values["train"]["arms"]["dpo"]["beta"] = 51
    project.configure(values)
    assert project.planned() == one_arm()
    command, options = [sys.executable, "scripts/check.py"], project.command()[1]
    said = subprocess.run(command, capture_output=True, check=False, **options)
    assert said.returncode == 0, said.stderr
    lines = [line.split() for line in said.stdout.splitlines()]
    assert ["train", "1", "2"] in lines
    assert (
        "  train.arms.dpo.beta 50 -> 51: one training, its weights, samples, answers, scores, the report\n"
        in said.stdout
    )
    assert said.stdout.endswith("look first at: snakemake --cores 2 train --configfile config/config.yaml\n")


def test_one_loss_makes_its_arms_alone_stale(project: Project):
    losses = project.folder / "regdpo/objectives/losses.py"
    losses.write_text(
        losses.read_text().replace(
            "    return dpo(e_w, e_l, r_w, r_l, beta) + ", "    return 1.0 * dpo(e_w, e_l, r_w, r_l, beta) + "
        )
    )
    assert project.planned() == {**one_arm(), "export_comfyui": 1}


def test_how_a_training_runs_makes_the_page_alone_stale(project: Project):
    values = copy.deepcopy(CONFIG)
    values["launch"]["processes"] = 1
    values["train"]["settings"]["checkpoint_every"] = 3
    project.configure(values)
    assert project.planned() == {"all": 1, "report_page": 1}  # the page shows the configuration


def test_the_trainer_makes_all_trainings_stale(project: Project):
    passes = project.folder / "regdpo/train/passes.py"
    passes.write_text(passes.read_text() + "MORE = 1\n")
    planned = project.planned()
    assert planned["train_arm"] == 2
    assert planned["pretrain"] == 1
    assert planned["gt_pairs"] == planned["compare_halves"] == 1  # other pairs, other halves
    assert "cut_clips" not in planned


def test_snakemakes_own_report(project: Project, tmp_path: Path, alone: list[str]):
    """It has the pages with captions and categories, and is made without a network and though the footage is away."""
    values = copy.deepcopy(CONFIG)
    values["videos"]["root"] = str(tmp_path / "away")
    project.configure(values)
    done = project.snakemake("--report", str(tmp_path / "report.zip"), before=alone)
    assert done.returncode == 0, done.stdout[-2000:]
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    told = files["report.html"].decode()
    assert not re.search(r"<(link|script|img)[^>]* (src|href)=.https?:", told)
    results, categories = (
        json.JSONDecoder().raw_decode("{" + told.partition(f"    var {name} = {{")[2])[0]
        for name in ("results", "categories")
    )
    assert {name: list(those) for name, of in categories.items() for those in of.values()} == {
        "Report": ["results/report/index.html", "results/report/report.json"],
        "Clips": ["results/clips.html"],
    }
    for path, caption in (("report/index", "verdicts"), ("clips", "what each filter took")):
        found = results[f"results/{path}.html"]
        assert caption in found["caption"]
        assert files[found["data_uri"]] == (project.folder / f"results/{path}.html").read_bytes()
    known = project.folder / ".snakemake/metadata"
    shutil.copytree(known, tmp_path / "metadata")
    cleaned = project.snakemake("--cleanup-metadata", "results/report/report.json", before=alone)
    shutil.copytree(tmp_path / "metadata", known, dirs_exist_ok=True)
    assert cleaned.returncode == 0, cleaned.stdout[-2000:]
