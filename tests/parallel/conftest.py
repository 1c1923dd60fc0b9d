"""A training whose ranks start fast, for tests of what becomes of ranks and not of what they learn."""

import pytest
import tiny
import torch
import toy_family
from forked import server

from regdpo.config import stage_inputs
from regdpo.core import manifests
from regdpo.core.rows import LatentRow
from regdpo.core.store import Store
from regdpo.models.registry import FAMILIES
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.stages import latents

__all__ = ["server"]


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> tiny.World:
    """What ranks of the module `light_rank` train."""
    folder = tmp_path_factory.mktemp("toys")
    toy_family.save(folder / "model")
    ref = {"family": "toy", "task": "t2v", "where": "folder", "path": str(folder / "model"), "text_length": 8}
    model = ModelFile(name="base", ref=ModelRef(**ref, fps=8.0, digest="toy"), digest="toy")
    store, manifest = Store(folder / "store"), folder / "latents.parquet"
    pairs = tiny.pairs(store, 8)
    stage = stage_inputs.LatentsStage.model_validate({"latents": {"dtype": "fp32"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "toy", toy_family.DECLARED)
        encoded = latents.encode(stage, model, pairs, store, torch.device("cpu"))
    manifests.write(manifest, encoded, LatentRow)
    return tiny.World(store, model, pairs, encoded, manifest)
