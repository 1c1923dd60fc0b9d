"""The recipes of other papers: each is read whole; and small ones of them run from footage to the page, in one run.

An arm is trained on the best and the worst of four videos a prompt with weights (VideoDPO); another goes by SFT with averaged
checkpoints, KTO on labels and DPO with SFT on comparisons (MUG-V); a third does two rounds of Reg-DPO whose losers begin with
the winner; a fourth goes by DDO, NFT and DenseDPO. The machine goes down in the middle of it.
"""

import copy
import json
import re
import subprocess
import sys
import time
from contextlib import chdir, suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from project import CONFIG, Project
from safetensors.numpy import load_file

from regdpo.config.evaluation import Scores
from regdpo.config.footage import Encode
from regdpo.core import manifests
from regdpo.core.rows import CandidateRow, NegativeRow, PairRow, ScoreRow
from regdpo.data.video import write_frames
from regdpo.evaluate.measures import asked
from regdpo.evaluate.suites import SUITES
from regdpo.models.spec import ModelFile

STEPS = 12
CHAIN = ("aligned.1", "aligned.2", "aligned")
NEWER = {
    "newer.1": {"objective": "ddo", "beta": 5, "alpha": 1},
    "newer.2": {"objective": "nft", "mix": 1},
    "newer": {"objective": "dense_dpo", "beta": 5},
}
LINKS = ("videodpo", *CHAIN, "rounds.1", "rounds", *NEWER)
LORA = "pytorch_lora_weights.safetensors"
BY_MODEL = [measure for measure in asked(Scores().on).values() if measure.reads != "answers"]
LABELS = """video,label,caption,group
0.mp4,pass,a still picture,e
1.mp4,fail,a still picture,b
2.mp4,pass,a still picture,c
3.mp4,fail,a still picture,d
"""
COMPARED = """a,b,answer,rater,caption,group
0.mp4,1.mp4,a,r1,a still picture,e
0.mp4,1.mp4,a,r2,a still picture,e
2.mp4,3.mp4,b,r1,a still picture,c
2.mp4,3.mp4,b,r2,a still picture,c
"""


def configured() -> dict:
    values = copy.deepcopy(CONFIG)
    quick = {"steps": 2, "eval_every": 2, "checkpoint_every": 1}
    values["base"]["pretrain"]["settings"] |= quick
    values["negatives"] = {
        "sampling": CONFIG["samples"]["sampling"],
        "generators": {"base": {}, "near": {"strength": [0.4, 0.8]}},
        "shards": 1,
    }
    values["clips"] |= {"shards": 1, "crops": [1, 1]}
    candidates = {"count": 4, "score": {"sharpness": 1.0}, "scale": "min_max", "shards": 1}
    values["pairs"]["sources"] = {
        "gt": {"kind": "gt"},
        "ranked": {"kind": "best_of_n", "candidates": candidates, "weights": {"alpha": 0.72, "beta": 1, "bin": 0.25}},
        "passed": {"kind": "labels", "path": "said/passed.csv"},
        "preferred": {"kind": "labels", "path": "said/preferred.csv"},
    }
    averaged = {"export": "average", "average": {"every": 1, "decay": 0.8}}
    values["train"] |= {
        "settings": values["train"]["settings"] | quick,
        "export_formats": ["diffusers"],
        "arms": {
            "videodpo": {"objective": "dpo", "beta": 50, "sources": {"ranked": 1}},
            "aligned": {
                "settings": {"tuning": "lora"},
                "steps": [
                    {"objective": "sft", "sources": {"gt": 1}, "settings": averaged},
                    {"objective": "kto", "beta": 5, "sft": {"r": 1}, "sources": {"passed": 3, "gt": 1}, "settings": {"steps": STEPS}},
                    {"objective": "dpo", "beta": 5, "sft": {"r": 1}, "sources": {"preferred": 3, "gt": 1}},
                ],
            },
            "newer": {"steps": [step | {"sources": {"gt.base": 1}} for step in NEWER.values()]},
            "rounds": {
                "objective": "reg_dpo", "beta": 5, "r": 2.5, "generator": "previous", "rounds": 2, "sources": {"gt.near": 1},
            },
        },
    }  # fmt: skip
    values["samples"]["limit"] = 1
    values["scores"]["vbench"] = {"python": "none"}
    values["launch"]["processes"] = 1
    return values


PLANNED = {
    "videodpo_cogvideox": {"train_arm": 2, "render_candidates": 64, "score_candidates": 64, "render_suite": 3 * 8},
    "mugv_curriculum": {"train_arm": 3, "render_negatives": 256},
    "videodpo_vc2": {"train_arm": 2, "render_candidates": 64, "score_candidates": 64},
    "videodpo_t2v_turbo": {"train_arm": 2, "render_candidates": 64, "score_candidates": 64},
    "mugv_alignment": {"train_arm": 4, "import_pairs": 2 * 64, "render_negatives": 64, "render_samples": 5},
}


@pytest.mark.parametrize("recipe", PLANNED)
def test_a_recipe_is_read_whole_where_its_footage_is(tmp_path: Path, recipe: str):
    """As `snakemake -n` does; the model is none of this machine."""
    project = Project(tmp_path)
    folder = tmp_path / "config/recipes"
    (folder / "videos").mkdir()
    (folder / "videos/a.mp4").touch()
    (folder / "vidprom.csv").write_text("uuid,prompt\n1,a dog\n2,a cat\n")
    (folder / "labels").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / "labels" / name).touch()
    for name in ("passed", "preferred"):
        said = (
            {"video": ["a.mp4"], "label": ["pass"]}
            if name == "passed"
            else {"a": ["a.mp4"], "b": ["b.mp4"], "answer": ["a"]}
        ) | {"caption": ["a dog"]}
        pq.write_table(pa.table(said), folder / f"labels/{name}.parquet")
    for name in (".venv-captioning", ".venv-vbench"):
        program = tmp_path / name / "bin/python"
        program.parent.mkdir(parents=True)
        program.touch(0o755)
    listed = tmp_path / ".venv-vbench/lib/python3.11/site-packages/vbench/VBench_full_info.json"
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps([{"prompt_en": "a dog", "dimension": list(SUITES["t2v"].dimensions)}]))
    planned = project.planned("--configfile", f"config/recipes/{recipe}.yaml")
    assert {rule: planned[rule] for rule in PLANNED[recipe]} == PLANNED[recipe]


def kto_run(project: Project) -> Path | None:
    """The run folder of KTO, once it has saved something."""
    for job in project.folder.glob("store/runs/*/*/job.json"):
        if json.loads(job.read_text())["stage"]["objective"] == "kto" and [*job.parent.glob("checkpoints/step_*")]:
            return job.parent
    return None


def everything_is_killed(project: Project) -> None:
    """As where a machine goes down."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(project.folder):
                process.kill()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """From footage to the page, where all was killed as the second of three steps had saved something."""
    project = Project(tmp_path_factory.mktemp("recipes"))
    said = project.folder / "config/said"
    said.mkdir()
    for number in range(4):
        write_frames(said / f"{number}.mp4", np.full((6, 32, 32, 3), 60 * number, np.uint8), 25, Encode())
    (said / "passed.csv").write_text(LABELS)
    (said / "preferred.csv").write_text(COMPARED)
    project.configure(configured())
    command, options = project.command("results/train/aligned.2/seed0/model.json")
    log = project.folder / "out.log"
    with log.open("w") as out:
        running = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, **options)
    while not kto_run(project):
        assert running.poll() is None, log.read_text()[-6000:]
        time.sleep(0.02)
    everything_is_killed(project)
    running.wait()
    run = kto_run(project)
    assert run
    assert not (run / "export").exists(), "killed too late"
    freed = subprocess.run(
        [sys.executable, "scripts/unlock.py"], capture_output=True, check=False, **project.command()[1]
    )
    assert freed.returncode == 0, freed.stdout + freed.stderr
    done = project.snakemake("all")
    assert done.returncode == 0, done.stdout[-6000:]
    return project


def model(project: Project, link: str) -> ModelFile:
    return ModelFile.read(project.folder / f"results/train/{link}/seed0/model.json")


def lines(project: Project, link: str) -> list[dict]:
    """What a training logged, a step each."""
    run = model(project, link).run
    assert run
    return [json.loads(line) for line in (project.folder / "store" / run / "metrics.jsonl").read_text().splitlines()]


def test_pairs_of_the_best_and_the_worst_weigh_by_how_rare_their_scores_are(ran: Project):
    """The manifest beside a histogram of numpy's; the page shows how they lie."""
    results = ran.folder / "results"
    place = results / "candidates/ranked/0"
    made = {row.candidate_id: row for row in manifests.read(place.with_suffix(".parquet"), CandidateRow)}
    scores = manifests.read(place / "proxies.parquet", ScoreRow)
    sharp = {f"{row.clip_id}.c{row.seed}": row.value for row in scores if row.metric == "sharpness"}
    assert sharp.keys() == made.keys()
    least, most = min(sharp.values()), max(sharp.values())
    shared = {name: (value - least) / (most - least) for name, value in sharp.items()}
    counts, _ = np.histogram([*shared.values()], bins=[0, 0.25, 0.5, 0.75, 1, 1.25])
    of = {name: counts[int(value * 4)] / len(shared) for name, value in shared.items()}
    by_prompt: dict[str, list[str]] = {}
    for name in sorted(shared, key=lambda it: shared[it]):
        by_prompt.setdefault(made[name].prompt_id, []).append(name)
    assert {len(names) for names in by_prompt.values()} == {4}
    wanted = {
        (made[names[-1]].sha256, made[names[0]].sha256): (1 / np.sqrt(of[names[-1]] * of[names[0]])) ** 0.72
        for names in by_prompt.values()
    }
    pairs = [row for row in manifests.read(results / "pairs.parquet", PairRow) if row.origin == "ranked"]
    assert {(row.winner_sha256, row.loser_sha256): row.weight for row in pairs} == pytest.approx(wanted)
    weights = [row.weight for row in pairs if row.split == "train"]
    assert len({*weights}) > 1
    every = [row for row in manifests.read(results / "pairs.parquet", PairRow) if row.split == "train"]
    shown = json.loads((results / "report/report.json").read_text())["weights"]
    assert {*shown} == {row.origin for row in every}
    assert shown["ranked"]["share"] == pytest.approx(sum(weights) / sum(row.weight for row in every))
    assert shown["ranked"]["mean"] == pytest.approx(np.mean(weights))
    assert sum(shown["ranked"]["counts"]) == len(weights)


def test_labels_are_learnt_from_then_comparisons_by_adapters_that_go_on(ran: Project):
    """KTO's steps are of labelled samples or of pairs, by their shares; after it the same adapters are trained further."""
    steps = lines(ran, "aligned.2")
    labelled = [row for row in steps if "good" in row]
    assert STEPS / 2 < len(labelled) < STEPS
    assert all("margin" in row for row in steps if row not in labelled)
    assert all("reference_point" in row for row in steps)
    assert all(row["r"] for row in lines(ran, "aligned")), "DPO has its SFT term"
    trained = [load_file(ran.folder / "store" / model(ran, link).ref.lora / LORA) for link in CHAIN]
    assert {len(tensors) for tensors in trained} == {len(trained[0])}
    for before, after in pairwise(trained):
        assert any((before[name] != after[name]).any() for name in before)
    assert lines(ran, "aligned.2")[0]["win_gap"] == pytest.approx(0, abs=1e-6), "it is its own reference at first"


def test_each_objective_moves_its_model(ran: Project):
    """On pairs, each from where the step before it ended; at its first step the losses have their fixed values."""
    for link, step in NEWER.items():
        assert model(ran, link).objective == step["objective"]
        assert lines(ran, link)[0]["win_gap"] == pytest.approx(0, abs=1e-6)
        assert lines(ran, link)[-1]["win_gap"] != 0
    assert lines(ran, "newer")[0]["loss"] == pytest.approx(np.log(2), rel=1e-3)


def test_a_chain_that_was_killed_went_on_where_it_was(ran: Project, tmp_path: Path):
    """To the bytes of one that was not; the step before it was done and stays."""
    kto, before = model(ran, "aligned.2"), model(ran, "aligned.1")
    assert kto.run
    assert before.run
    run = ran.folder / "store" / kto.run
    started = re.findall(r"from step (\d+)", (run / "log.txt").read_text())
    assert started[0] == "0"
    assert 0 < int(started[1]) < STEPS
    assert re.findall(r"from step (\d+)", (ran.folder / "store" / before.run / "log.txt").read_text()) == ["0"]
    assert [row["step"] for row in lines(ran, "aligned.2")] == [*range(1, STEPS + 1)]
    file = ran.folder / "results/train/aligned.2/seed0/model.json"
    kept = file.read_bytes(), (ran.folder / "store" / kto.ref.lora / LORA).read_bytes()
    run.rename(tmp_path / "run")
    file.unlink()
    done = ran.snakemake(str(file.relative_to(ran.folder)))
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.findall(r"from step (\d+)", (run / "log.txt").read_text()) == ["0"]
    assert (file.read_bytes(), (ran.folder / "store" / kto.ref.lora / LORA).read_bytes()) == kept


def test_a_round_has_losers_of_what_was_just_trained(ran: Project):
    """From the same clips, each noised to a sigma of its own; the base's are not taken."""
    results = ran.folder / "results"
    first = manifests.read(results / "negatives.parquet", NegativeRow)
    second = manifests.read(results / "by/rounds.1/seed0/negatives.parquet", NegativeRow)
    assert {row.model for row in second} == {model(ran, "rounds.1").digest}
    assert {row.model for row in first} == {ModelFile.read(results / "base/model.json").digest}
    near = [row for row in first if row.generator == "near"]
    assert [(row.clip_id, row.seed) for row in near] == [(row.clip_id, row.seed) for row in second]
    assert all(one.sha256 != other.sha256 for one, other in zip(near, second, strict=True))
    pairs = manifests.read(results / "by/rounds.1/seed0/pairs.parquet", PairRow)
    made = {row.loser_sha256 for row in pairs if row.origin == "gt"}
    assert made == {row.sha256 for row in second}


def test_the_weights_of_every_step_load_in_plain_diffusers(ran: Project):
    loaded = {}
    with chdir(ran.folder):
        for link in LINKS:
            readme = Path(f"results/weights/{link}/seed0/README.md").read_text()
            theirs: dict = {}
            exec(re.findall(r"```python\n(.*?)```", readme, re.S)[0], theirs)
            tensors = theirs["pipe"].transformer.state_dict()
            loaded[link] = sum(float(tensor.double().abs().sum()) for tensor in tensors.values())
    assert len({*loaded.values()}) == len(LINKS), "each has weights of its own"


def test_all_steps_are_on_the_page(ran: Project):
    report = json.loads((ran.folder / "results/report/report.json").read_text())
    assert {it["name"] for it in report["models"]} == {"base", *(f"{link}/seed0" for link in LINKS)}
    (drawn,) = [curve for curve in report["curves"] if curve["key"] == "error"]
    assert {line["arm"] for line in drawn["lines"]} == {*LINKS}
    assert "reference_point" in {curve["key"] for curve in report["curves"]}
    assert {name: it["judged"] for name, it in report["raters"].items()} == {"passed": 4, "preferred": 2}
    assert report["captioners"] == ["text files beside the videos", "the pairs of passed", "the pairs of preferred"]


def test_a_changed_third_step_leaves_those_before_it_alone(ran: Project):
    assert ran.planned() == {}, "a second run does nothing"
    values = configured()
    values["train"]["arms"]["aligned"]["steps"][2]["beta"] = 6
    ran.configure(values)
    parts = {"train_arm": 1, "arm_weights": 1, "render_samples": 1, "score": len(BY_MODEL)}
    assert ran.planned() == {"all": 1, **parts, "answers": 1, "merge_scores": 1, "report_page": 1}
    ran.configure(configured())
