"""The recipes of other papers: each is read whole where its footage is."""

import json
from pathlib import Path

import pytest
from project import Project

from regdpo.evaluate.suites import SUITES

PLANNED = {
    "videodpo_cogvideox": {"train_arm": 2, "render_candidates": 64, "score_candidates": 64, "render_suite": 3 * 8},
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
    for name in (".venv-captioning", ".venv-vbench"):
        program = tmp_path / name / "bin/python"
        program.parent.mkdir(parents=True)
        program.touch(0o755)
    listed = tmp_path / ".venv-vbench/lib/python3.11/site-packages/vbench/VBench_full_info.json"
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps([{"prompt_en": "a dog", "dimension": list(SUITES["t2v"].dimensions)}]))
    planned = project.planned("--configfile", f"config/recipes/{recipe}.yaml")
    assert {rule: planned[rule] for rule in PLANNED[recipe]} == PLANNED[recipe]
