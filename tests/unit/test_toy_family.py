"""A family is one file and one line of the registry: all that stands on families takes it up."""

import json
import re
import signal
import typing
from pathlib import Path

import pytest
import tiny
import tiny_pipelines
import torch
import torch.distributed as dist
import toy_family

from regdpo.config import schema, stage_inputs
from regdpo.config.training import Parallel, TrainSettings
from regdpo.core import manifests
from regdpo.core.rows import Geometry, LatentRow
from regdpo.core.store import Store
from regdpo.models import checkpoint_json
from regdpo.models.family import open_family
from regdpo.models.registry import FAMILIES
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.objectives.registry import OBJECTIVES, Objective
from regdpo.parallel.mesh import layout
from regdpo.plan import architecture, layouts, trace, tracker
from regdpo.plan.memory import GIB, Training, memory
from regdpo.runs.stop import SIGNALS
from regdpo.sampling.render import Request, render
from regdpo.stages import latents
from regdpo.train.trainer import Trainer

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def toy(tmp_path, monkeypatch) -> ModelFile:
    monkeypatch.setitem(FAMILIES, "toy", toy_family.DECLARED)
    toy_family.save(tmp_path / "model")
    ref = ModelRef(
        family="toy", task="t2v", where="folder", path=str(tmp_path / "model"), fps=8.0, text_length=8, digest="toy"
    )
    return ModelFile(name="base", ref=ref, digest="toy")


@pytest.fixture
def alone(tmp_path):
    """A process group of one. A training takes signals for requests, so ours are put back."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("alone")
def test_a_family_of_one_file_is_encoded_trained_and_sampled(toy, tmp_path):
    store = Store(tmp_path / "store")
    pairs = tiny.pairs(store, 6)
    stage = stage_inputs.LatentsStage.model_validate({"latents": {"dtype": "fp32"}})
    encoded = latents.encode(stage, toy, pairs, store, CPU)
    manifest, run = tmp_path / "latents.parquet", tmp_path / "run"
    manifests.write(manifest, encoded, LatentRow)
    run.mkdir()
    job = tiny.job(
        tiny.World(store, toy, pairs, encoded, manifest),
        run,
        steps=3,
        lr=1e-2,
        parallel={"activation_checkpointing": "full"},
    )
    Trainer(job, CPU, layout(CPU, job.parallel, pairs=True)).train()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    (run / "export").rename(store.root / "trained")
    after = toy.ref.model_copy(update={"transformer": "trained"})
    model, before = (open_family(ref, store, CPU).load_transformer().state_dict() for ref in (after, toy.ref))
    assert any(not torch.equal(value, before[name]) for name, value in model.items())
    sampling = schema.Sampling.model_validate(tiny.SAMPLING)
    request = Request("a square", pairs[0].winner, pairs[0].winner_sha256, seed=0, geometry=Geometry.of_row(pairs[0]))
    (video,) = render(
        "samples", toy.model_copy(update={"ref": after}), [request], sampling, schema.Encode(), store, CPU
    )
    assert store.existing(video.path).exists()


def hinge(e_w: torch.Tensor, e_l: torch.Tensor, r_w: torch.Tensor, r_l: torch.Tensor) -> torch.Tensor:
    return torch.relu(1 + (e_w - r_w) - (e_l - r_l))


@pytest.mark.usefixtures("alone")
def test_an_objective_of_one_declaration_is_trained(toy, tmp_path, monkeypatch):
    """One without beta, which all of ours have."""
    monkeypatch.setitem(OBJECTIVES, "hinge", Objective(f"{__name__}:hinge", "a toy"))
    store, run, manifest = Store(tmp_path / "store"), tmp_path / "run", tmp_path / "latents.parquet"
    pairs = tiny.pairs(store, 6)
    stage = stage_inputs.LatentsStage.model_validate({"latents": {"dtype": "fp32"}})
    encoded = latents.encode(stage, toy, pairs, store, CPU)
    manifests.write(manifest, encoded, LatentRow)
    run.mkdir()
    job = tiny.job(tiny.World(store, toy, pairs, encoded, manifest), run, "sft", steps=2)
    chosen = job.model_copy(update={"stage": job.stage.model_copy(update={"objective": "hinge"})})
    Trainer(chosen, CPU, layout(CPU, job.parallel, pairs=True)).train()
    first, second = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    assert first["loss"] == pytest.approx(1)  # at the reference
    assert second["loss"] == pytest.approx(1 + second["win_gap"] - second["lose_gap"], abs=1e-5)
    assert "margin" not in first


def test_a_family_of_one_file_is_planned(toy, tmp_path):
    """Its FLOPs by hand, and its memory beside torch's tracker."""
    it = architecture.of_folder("toy", toy.ref.path, toy.ref)
    settings = TrainSettings.model_validate({"tuning": "full", "batch": 8})
    training = Training(it, settings, 81, 480, 832, ranks=8)
    width, channels, tokens = 16, 3, 21 * 60 * 104
    block = 2 * 4 * width**2 * tokens + 4 * tokens**2 * width
    ends = 2 * 2 * channels * width * tokens
    seen = trace.flops(training.a_pass, 21)
    assert seen.forward == pytest.approx(2 * block + ends, rel=1e-4)
    assert seen.blocks == (pytest.approx(2 * block, rel=1e-4),)
    model = toy_family.Denoiser(**toy_family.CONFIG)
    assert training.parameters.total == sum(parameter.numel() for parameter in model.parameters())
    whole = memory(training, settings.parallel).used
    assert whole / tracker.peak(training, it.layers) == pytest.approx(1, abs=0.1)
    found = layouts.estimates(training, layouts.Machine(80 * GIB, 989e12))
    assert found[0].fits
    assert {estimate.parallel.context for estimate in found} == {1}
    assert "cannot be split" in (layouts.impossible(training, Parallel(context=2)) or "")


def test_families_are_listed_as_they_are_declared():
    """In the configuration, in its schema, in the documents, and in the contract tests' checkpoints."""
    names = tuple(FAMILIES)
    assert typing.get_args(schema.Base.model_fields["family"].annotation) == names
    written = json.loads((ROOT / "config/config.schema.json").read_text())
    assert tuple(written["$defs"]["Base"]["properties"]["family"]["enum"]) == names
    (page,) = (ROOT / "docs").rglob("families.md")
    assert tuple(dict.fromkeys(re.findall(r"^\| `(\w+)` \| [A-Z]", page.read_text(), re.MULTILINE))) == names
    assert {case.family for case in tiny_pipelines.CASES.values()} == set(names)
    planned = {json.loads(path.read_text())["family"] for path in checkpoint_json.KNOWN.glob("*.json")}
    assert planned == set(names)
