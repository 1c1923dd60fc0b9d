"""The numbers of a run, held against a table of their digests: `deterministic: portable` is the same bits on any x86-64
machine with AVX2.

    python -m pytest tests/workflow/test_portable.py --write-golden

writes the tables anew, after a change of results that was meant, or lists this machine in them. A machine that is not
listed and makes other numbers is told so, and fails nothing: send us what is printed.
"""

import hashlib
import json
import subprocess
import sys

import pytest
from project import ROOT, Project

from regdpo.core import manifests, portable
from regdpo.core.golden import Table
from regdpo.core.rows import ClipRow, LatentRow, NegativeRow, SampleRow, ScoreRow
from regdpo.models.spec import ModelFile

GOLDEN = ROOT / "tests/golden"
METRICS = ("held_out_error", "spectrum", "psnr", "ssim", "motion", "sharpness")

pytestmark = pytest.mark.skipif(not portable.possible(), reason="the processor has no AVX2")


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def made(project: Project) -> dict[str, str]:
    """What a run has made, from the footage to the verdicts, in that order."""
    results = project.folder / "results"
    clips = manifests.read(results / "clips.parquet", ClipRow)
    negatives = manifests.read(results / "negatives.parquet", NegativeRow)
    latents = manifests.read(results / "latents/gt.parquet", LatentRow)
    models = {path: ModelFile.read(results / path / "model.json").ref for path in ("base", "train/dpo/seed0")}
    lora = ModelFile.read(results / "train/reg_dpo_lora/seed0/model.json").ref
    samples = manifests.read(results / "samples/dpo/seed0.parquet", SampleRow)
    found = {
        "clips": digest(*sorted(row.sha256 for row in clips)),
        "what was measured of them": digest(*sorted(json.dumps(row.scores, sort_keys=True) for row in clips)),
        "base model": models["base"].transformer_content[:16],
        "negatives": digest(*sorted(row.sha256 for row in negatives)),
        "latents": digest(*sorted(row.sha256 for row in latents)),
        "dpo": models["train/dpo/seed0"].transformer_content[:16],
        "reg_dpo_lora": lora.lora_content[:16],
        "samples of dpo": digest(*sorted(row.sha256 for row in samples)),
    }
    scores = manifests.read(results / "scores.parquet", ScoreRow)
    for metric in METRICS:
        found[metric] = digest(*sorted(((row.model, row.value) for row in scores if row.metric == metric), key=str))
    report = json.loads((results / "report/report.json").read_text())
    said = [(verdict["arm"], verdict["word"]) for verdict in report["verdicts"]]
    for row, cells in report["table"].items():
        for key in METRICS:
            spans = [cells[key][kind] or {} for kind in ("mean", "delta")]
            said.append((row, key, *(span.get(end) for span in spans for end in ("mean", "low", "high"))))
    found["verdicts"] = digest(*sorted(said, key=str))
    return found


def compare(name: str, found: dict[str, str], request: pytest.FixtureRequest) -> None:
    path = GOLDEN / f"{name}.json"
    table = Table.read(path)
    if request.config.getoption("--write-golden"):
        table.seen(found).write(path)
    elif differs := table.differ(found):
        told = f"{portable.processor()} makes other numbers than {', '.join(table.machines)}:\n{differs}"
        if portable.processor() in table.machines:
            pytest.fail(told)
        pytest.xfail(told)


def test_kernels_give_the_bits_of_the_table(finished: Project, request: pytest.FixtureRequest):
    table = finished.folder / "kernels.json"
    given = {**portable.environment(), "PYTHONPATH": str(finished.folder)}
    command = [sys.executable, str(ROOT / "scripts/portable.py"), "--write", "--table", str(table)]
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    compare("kernels", Table.read(table).digests, request)


def test_a_run_gives_the_bits_of_the_table(finished: Project, request: pytest.FixtureRequest):
    compare("run", made(finished), request)
