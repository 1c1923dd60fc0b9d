"""A tiny VideoCrafter2 goes the whole way, from footage to the page, as VideoDPO does: it is trained in full on the best and the worst of
its own videos, and on real clips against its negatives and those of a tiny T2V-Turbo."""

import copy

import pytest
import tiny_pipelines
from project import CONFIG, Project
from safetensors.torch import load_file

from regdpo.core import manifests
from regdpo.core.rows import CandidateRow, NegativeRow, PairRow, ScoreRow
from regdpo.models.spec import ModelFile

TURBO = {"model": "turbo", "family": "t2v_turbo", "text_length": 16, "sampling": {"guidance": 7.5}, "share": 0.5}


def configured() -> dict:
    values = copy.deepcopy(CONFIG)
    values["clips"] |= {"shards": 1, "crops": [1, 1]}
    values["base"] = {"family": "videocrafter2", "task": "t2v", "model": "model", "text_length": 16}
    sampling = {"steps": 2, "guidance": 4.0, "batch": 8}
    values["negatives"] = {"sampling": sampling, "generators": {"base": {"share": 0.5}, "turbo": TURBO}, "shards": 1}
    candidates = {"count": 2, "limit": 4, "score": {"sharpness": 1.0}, "scale": "min_max", "shards": 1}
    values["pairs"]["sources"] = {"gt": {"kind": "gt"}, "best": {"kind": "best_of_n", "candidates": candidates}}
    settings = {"steps": 2, "batch": 2, "micro_batch": 2, "precision": "fp32", "tuning": "full", "shared_noise": False}
    settings |= {"checkpoint_every": 2, "eval_every": 2, "lr": 1e-4}
    arm = {"objective": "dpo", "beta": 50, "sources": {"best": 1, "gt": 1}}
    values["train"] = {"seeds": [0], "settings": settings, "arms": {"dpo": arm}}
    values["samples"] = {"limit": 1, "sampling": sampling}
    values["scores"]["vbench"] = None
    values["launch"]["processes"] = 1
    return values


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("videocrafter2"))
    for name, case in {"model": "videocrafter2-t2v", "turbo": "t2v_turbo-t2v"}.items():
        tiny_pipelines.save(tiny_pipelines.CASES[case], project.folder / "config" / name)
    project.configure(configured())
    done = project.snakemake("all")
    assert done.returncode == 0, done.stdout[-6000:]
    return project


def test_both_families_make_losers_and_the_base_what_is_chosen_from(project: Project):
    results = project.folder / "results"
    base = ModelFile.read(results / "base/model.json")
    negatives = manifests.read(results / "negatives.parquet", NegativeRow)
    assert {row.generator for row in negatives} == {"base", "turbo"}
    assert len({row.model for row in negatives}) == 2
    made = manifests.read(results / "candidates/best/0.parquet", CandidateRow)
    assert {row.model for row in made} == {base.digest}
    pairs = manifests.read(results / "pairs.parquet", PairRow)
    assert {row.origin for row in pairs} == {"gt", "best"}
    scored = {row.model for row in manifests.read(results / "scores.parquet", ScoreRow)}
    assert scored == {"real", "base", "dpo/seed0"}
    assert not [*results.glob("scores/*/vbench.parquet")]


def test_all_of_it_is_trained(project: Project):
    model = ModelFile.read(project.folder / "results/train/dpo/seed0/model.json")
    (file,) = (project.folder / "store" / model.ref.transformer).glob("*.safetensors")
    after = load_file(file)
    before = load_file(project.folder / "config/model/transformer/diffusion_pytorch_model.safetensors")
    assert after.keys() == before.keys()
    assert all((tensor != before[name]).any() for name, tensor in after.items() if name.endswith(".weight"))
