"""Trainings whose ranks start fast, for tests of what becomes of ranks and not of what they learn."""

import os
from pathlib import Path

import pytest
import tiny
import torch
import toy_family

from regdpo.config import stage_inputs
from regdpo.core import manifests
from regdpo.core.rows import LatentRow
from regdpo.core.store import Store
from regdpo.launch import backends
from regdpo.models.registry import FAMILIES
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.stages import latents

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def toy_world(tmp_path_factory: pytest.TempPathFactory) -> tiny.World:
    folder = tmp_path_factory.mktemp("toys")
    toy_family.save(folder / "model")
    ref = {"family": "toy", "task": "t2v", "where": "folder", "path": str(folder / "model"), "text_length": 8}
    model = ModelFile(name="base", ref=ModelRef(**ref, fps=8.0, digest="toy"), digest="toy")
    store, manifest = Store(folder / "store"), folder / "latents.parquet"
    pairs = tiny.pairs(store, 8)
    stage = stage_inputs.LatentsStage.model_validate({"latents": {"dtype": "fp32"}, "geometry": tiny.GEOMETRY})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "toy", toy_family.DECLARED)
        encoded = latents.encode(stage, model, pairs, store, torch.device("cpu"))
    manifests.write(manifest, encoded, LatentRow)
    return tiny.World(store, model, pairs, encoded, manifest)


@pytest.fixture
def light(toy_world: tiny.World, monkeypatch: pytest.MonkeyPatch) -> tiny.World:
    """What launchers of this process, and of the processes that it starts with ``LIGHT``, have ranks train."""
    monkeypatch.setattr(backends, "MODULE", "light_rank")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    return toy_world
