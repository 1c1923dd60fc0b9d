"""One small run of the whole way, for `make test-quick`; test_end_to_end.py looks at more, and has its place in `make test`."""

import copy
from pathlib import Path

import pytest
from project import CONFIG, Project

from regdpo.core import manifests
from regdpo.core.rows import NegativeRow, PairRow, ScoreRow
from regdpo.models.spec import ModelFile
from regdpo.workflow.timeline.rows import JobRow

OF = ("", "base7/")


@pytest.mark.quick
def test_from_footage_to_the_page_over_two_base_models(tmp_path: Path):
    """The second base has losers, pairs and a training of its own, by the same rules; footage is shared."""
    project = Project(tmp_path)
    values = copy.deepcopy(CONFIG)
    settings = values["train"]["settings"] | {"steps": 2, "eval_every": 2, "checkpoint_every": 2}
    values["base"]["pretrain"]["settings"] = settings
    values["base"]["seeds"] = [0, 7]
    values["train"] |= {"settings": settings, "export_formats": ["diffusers"]}
    values["train"]["arms"] = {"dpo": {"objective": "dpo", "beta": 50}}
    values["clips"] |= {"shards": 1, "crops": [1, 1]}
    values["samples"]["limit"] = 1
    values["scores"]["vbench"] = {"python": "none"}  # its scores are missing, with the reason
    values["launch"]["processes"] = 1
    project.configure(values)
    done = project.snakemake("all")
    assert done.returncode == 0, done.stdout[-6000:]
    results = tmp_path / "results"
    where = "weights: results/weights/dpo/seed0, results/base7/weights/dpo/seed0 (README.md"
    assert f"report:  results/report/index.html\n{where}" in done.stdout
    assert (results / "weights/dpo/seed0/README.md").read_text().startswith("# dpo, seed 0\n")
    assert (results / "base7/weights/dpo/seed0/README.md").read_text().startswith("# dpo, seed 0, of base7/base\n")
    html = (results / "report/index.html").read_text()
    assert "Intervals are over 2 base models" in html
    assert "this base model alone" not in html
    base, other = (ModelFile.read(results / name / "base/model.json") for name in (".", "base7"))
    assert (base.name, base.seed, other.name, other.seed) == ("base", 0, "base7/base", 7)
    arm = ModelFile.read(results / "base7/train/dpo/seed0/model.json")
    assert (arm.name, arm.arm, arm.base_digest) == ("base7/dpo/seed0", "dpo", other.digest)
    losers = [{row.model for row in manifests.read(results / f"{of}negatives.parquet", NegativeRow)} for of in OF]
    assert losers == [{base.digest}, {other.digest}]
    pairs = [manifests.read(results / f"{of}pairs.parquet", PairRow) for of in OF]
    assert [row.winner_sha256 for row in pairs[0]] == [row.winner_sha256 for row in pairs[1]]
    assert not {row.loser_sha256 for row in pairs[0]} & {row.loser_sha256 for row in pairs[1]}
    scored = {row.model for row in manifests.read(results / "scores.parquet", ScoreRow)}
    assert scored == {"real", *(f"{of}{name}" for of in OF for name in ("base", "dpo/seed0"))}
    assert not [path for path in (results / "base7").rglob("*") if path.name in ("clips.parquet", "captions.parquet")]
    rows = manifests.read(tmp_path / "logs/timeline.parquet", JobRow)
    assert {row.wildcards for row in rows if row.rule == "train_arm"} == {
        "arm=dpo, seed=0",
        "of=base7/, arm=dpo, seed=0",
    }
    assert project.planned() == {}
    values["base"]["seeds"] = [0]
    project.configure(values)
    footage = {"real_samples": 1, "score": len([*(results / "scores/real").glob("*.parquet")])}
    assert project.planned() == {"all": 1, **footage, "answers": 1, "merge_scores": 1, "report_page": 1}
