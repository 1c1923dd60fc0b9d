"""Every family trains alike in the layouts it can take: gradients of every parameter against one process, in float64."""

import pytest
import ranks
import tiny
import torch
from tiny_pipelines import CASES, FPS, save, video

from regdpo.config import stage_inputs
from regdpo.config.schema import Base
from regdpo.core import manifests
from regdpo.core.rows import LatentRow
from regdpo.core.store import Store
from regdpo.models.family import open_family
from regdpo.stages import base, latents

CHOSEN = [name for name in CASES if "codec" not in name]
CONTEXT = [name for name in CHOSEN if name.startswith(("wan", "mugv"))]
FULL = ["mugv-i2v"]
"""Tuned in full, so that what stands around the blocks has gradients too: its sequence is filled up by code of our own."""
LAYOUTS = {
    "plain": (1, {}),
    "recomputed": (1, {"activation_checkpointing": "full"}),
    "pair2": (2, {"pair": 2}),
    "context2": (2, {"context": 2}),
    "tensor2": (2, {"tensor": 2}),
    "context2 x tensor2": (4, {"context": 2, "tensor": 2}),
}
WITH = {
    "context2": CONTEXT,
    "tensor2": ["wan-i2v", "wan22-5b-i2v", "mugv-i2v", "mugv-t2v"],
    "context2 x tensor2": ["mugv-i2v"],
}
"""Layout -> families that it is tried with, where not with all: blocks are split with an image beside the text, with a
timestep for every token, and with layers that are stored as one, in full and with adapters; tokens filled up for both."""


def world_of(name, folder) -> tiny.World:
    case = CASES[name]
    save(case, folder / "model")
    frames, height, width = case.size
    geometry = {"frames": frames, "fps": FPS, "width": width, "height": height}
    model = Base(
        family=case.family,
        task=case.task,
        model=str(folder / "model"),
        expert=case.expert,
        text_length=case.text_length,
    )
    stage = {"base": model.model_dump(), "geometries": [geometry], "shift": 1.0}
    store = Store(folder / "store")
    file = base.by_name(stage_inputs.BaseStage.model_validate(stage), store)
    pairs = tiny.pairs(store, 4, lambda seed: video(case.size, seed), geometry)
    encode = stage_inputs.LatentsStage.model_validate({"latents": {"dtype": "fp32"}})
    rows = latents.encode(encode, file, pairs, store, torch.device("cpu"))
    manifests.write(folder / "latents.parquet", rows, LatentRow)
    return tiny.World(store, file, pairs, rows, folder / "latents.parquet")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """(family, layout) -> gradients; (family, "loaded") -> weights before the first step, beside from_pretrained's."""
    cases, stored = [], {}
    for name in CHOSEN:
        folder = tmp_path_factory.mktemp(name)
        world = world_of(name, folder)
        for layout, (count, parallel) in LAYOUTS.items():
            if name not in WITH.get(layout, CHOSEN):
                continue
            run = folder / layout
            run.mkdir()
            tuning = "full" if name in FULL else "lora"
            job = tiny.job(world, run, parallel=parallel, batch=2, lora={"rank": 2}, tuning=tuning, steps=1)
            cases.append((name, layout, {"ranks": count, "job": job.model_dump(mode="json")}))
        (folder / "loaded").mkdir()
        job = tiny.job(world, folder / "loaded", objective="sft", batch=2)
        cases.append((name, "loaded", {"ranks": 2, "job": job.model_dump(mode="json"), "until": 0}))
        family = open_family(world.model.ref, world.store, torch.device("cpu"))
        stored[name] = {name: value.double() for name, value in family.load_transformer().named_parameters()}
    cases.sort(key=lambda case: case[2]["ranks"])
    answers = ranks.run([case for *_, case in cases], tmp_path_factory.mktemp("answers"))
    return {(name, layout): answer for (name, layout, _), answer in zip(cases, answers, strict=True)}, stored


@pytest.fixture(scope="module")
def differences(found):
    answers, _ = found
    result = {key: ranks.worst(answers[key], answers[key[0], "plain"]) for key in answers if key[1] != "loaded"}
    for (name, layout), difference in result.items():
        print(f"{name:20} {layout:12} {difference:.1e}")
    return result


@pytest.mark.parametrize("name", CHOSEN)
def test_two_ranks_load_what_diffusers_loads(found, name):
    answers, stored = found
    assert answers[name, "loaded"].keys() == stored[name].keys()
    assert all(torch.equal(value, stored[name][key]) for key, value in answers[name, "loaded"].items())


@pytest.mark.parametrize("layout", ["recomputed", "pair2"])
@pytest.mark.parametrize("name", CHOSEN)
def test_a_family_is_the_same_training(differences, name, layout):
    assert differences[name, layout] < 1e-9


@pytest.mark.parametrize(("layout", "name"), [(layout, name) for layout, names in WITH.items() for name in names])
def test_a_family_whose_sequence_or_blocks_are_split(differences, layout, name):
    assert differences[name, layout] < 1e-9
