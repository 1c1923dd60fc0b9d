"""One small run of the whole way, for `make test-quick`; test_end_to_end.py looks at more, and has its place in `make test`."""

import copy
from pathlib import Path

import pytest
from project import CONFIG, Project


@pytest.mark.quick
def test_from_footage_to_the_page(tmp_path: Path):
    project = Project(tmp_path)
    values = copy.deepcopy(CONFIG)
    settings = values["train"]["settings"] | {"steps": 2, "eval_every": 2, "checkpoint_every": 2}
    values["base"]["pretrain"]["settings"] = settings
    values["train"] |= {"settings": settings, "export_formats": ["diffusers"]}
    values["train"]["arms"] = {"dpo": {"objective": "dpo", "beta": 50}}
    values["clips"] |= {"shards": 1, "crops": [1, 1]}
    values["samples"]["limit"] = 1
    values["scores"]["vbench"] = {"python": "none"}  # its scores are missing, with the reason
    values["launch"]["processes"] = 1
    project.configure(values)
    done = project.snakemake("all")
    assert done.returncode == 0, done.stdout[-6000:]
    assert "dpo" in (tmp_path / "results/report/index.html").read_text()
    assert "report:  results/report/index.html\nweights: results/weights/dpo/seed0 (README.md" in done.stdout
    assert (tmp_path / "results/weights/dpo/seed0/README.md").exists()
