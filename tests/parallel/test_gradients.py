"""Every layout is the same training: gradients of every parameter on real processes against one process, in float64."""

import json
import time
from pathlib import Path

import pytest
import ranks
import tiny
import torch

from regdpo.config.training import Lora

TOLERANCE = 1e-9
LORA = {"targets": ["to_q", "to_v"]}
LAYOUTS = {  # name -> (ranks, parallel, settings)
    "accumulated": (1, {}, {"micro_batch": 1}),
    "separate": (1, {"halves": "separate"}, {}),
    "sequential": (1, {"halves": "sequential"}, {}),
    "fsdp2": (2, {}, {}),
    "context2": (2, {"context": 2}, {}),
    "pair2": (2, {"pair": 2}, {}),
    "fsdp2 sequential": (2, {"halves": "sequential"}, {"micro_batch": 1}),
    "fsdp4": (4, {}, {}),
    "hsdp 2x2": (4, {"replicate": 2}, {}),
    "context4": (4, {"context": 4}, {}),
    "pair2 x context2": (4, {"pair": 2, "context": 2}, {}),
    "dp2 x pair2": (4, {"pair": 2}, {}),
    "tensor2": (2, {"tensor": 2}, {}),
    "dp2 x tensor2": (4, {"tensor": 2}, {}),
    "pair2 x tensor2": (4, {"pair": 2, "tensor": 2}, {}),
    "context2 x tensor2": (4, {"context": 2, "tensor": 2}, {}),
    "dp2 x pair2 x context2": (8, {"pair": 2, "context": 2}, {}),
}
RECOMPUTED = (
    *("sequential", "fsdp2", "context2", "pair2", "pair2 x context2", "dp2 x pair2 x context2"),
    "context2 x tensor2",
)
COMBINED = [(name, tuning, "none") for tuning in ("full", "lora") for name in LAYOUTS]
COMBINED += [(name, "full", "full") for name in RECOMPUTED]
"""Layout, tuning, recomputed blocks."""
OTHERS = {  # name -> (ranks, parallel, settings), against the same settings in the plain layout
    "every 2nd block recomputed": (2, {"activation_checkpointing": 2}, {}),
    "reference offloaded": (2, {"reference": "offload"}, {}),
    "reference cached, pair2": (2, {"reference": "cached", "pair": 2}, {}),
    "reference copied, lora": (2, {"reference": "copy"}, {"tuning": "lora"}),
    "all blocks recomputed, lora": (2, {"activation_checkpointing": "full", "pair": 2}, {"tuning": "lora"}),
    "reference cached, lora": (1, {"reference": "cached"}, {"tuning": "lora"}),
    "adapters go on, reference offloaded": (2, {"reference": "offload"}, {"tuning": "lora", "goes_on": True}),
    "adapters go on, reference cached, pair2": (
        2,
        {"reference": "cached", "pair": 2},
        {"tuning": "lora", "goes_on": True},
    ),
    "own noise, pair2": (2, {"pair": 2}, {"shared_noise": False}),
    "captions dropped, pair2": (2, {"pair": 2}, {"caption_dropout": 0.6}),
    "captions dropped, reference cached": (2, {"reference": "cached"}, {"caption_dropout": 0.6}),
    "sft": (4, {"pair": 2, "context": 2}, {"objective": "sft"}),
    "dpop, pair2": (2, {"pair": 2}, {"objective": "dpop"}),
    "ipo, sequential": (2, {"halves": "sequential"}, {"objective": "ipo"}),
    "sdpo, fsdp2": (2, {}, {"objective": "sdpo"}),
    "sdpo, sequential": (1, {"halves": "sequential"}, {"objective": "sdpo"}),
    "sdpo, context2": (2, {"context": 2}, {"objective": "sdpo"}),
    "kto, dp2 x pair2": (4, {"pair": 2}, {"objective": "kto"}),
    "kto, accumulated": (2, {"context": 2}, {"objective": "kto", "micro_batch": 1}),
    "ddo with sft, dp2 x pair2": (4, {"pair": 2}, {"objective": "ddo", "terms": {"sft": {"r": "dgr"}}}),
    "nft, dp2 x pair2 x context2": (8, {"pair": 2, "context": 2}, {"objective": "nft"}),
    "nft with sft, sequential": (2, {"halves": "sequential"}, {"objective": "nft", "terms": {"sft": {"r": 2.0}}}),
    "nft, separate, offloaded": (1, {"halves": "separate", "reference": "offload"}, {"objective": "nft"}),
    "nft, adapters, accumulated": (2, {"context": 2}, {"objective": "nft", "tuning": "lora", "micro_batch": 1}),
    "dense_dpo, dp2 x pair2 x context2": (8, {"pair": 2, "context": 2}, {"objective": "dense_dpo", "segments": True}),
    "dense_dpo with sft, sequential, cached": (
        1,
        {"halves": "sequential", "reference": "cached"},
        {"objective": "dense_dpo", "segments": True, "terms": {"sft": {"r": "dgr"}}},
    ),
    "kto of labels, dp2 x context2": (4, {"context": 2}, {"objective": "kto", "labelled": True, "micro_batch": 1}),
    "ddo of labels, cached": (2, {"reference": "cached"}, {"objective": "ddo", "labelled": True}),
    "nft of labels with sft": (2, {}, {"objective": "nft", "labelled": True, "terms": {"sft": {"r": "dgr"}}}),
    "two sizes, pair2 x context2": (4, {"pair": 2, "context": 2}, {"two_sizes": True, "batch": 2, "steps": 3}),
}
WORLDS = {"two_sizes": tiny.with_narrow_pairs, "labelled": tiny.with_labels, "segments": tiny.with_segments}
FAULTS = {  # fault -> a layout that must show it
    "divide": (2, {}, {}),
    "noise": (2, {"pair": 2}, {}),
    "heads": (2, {"context": 2}, {}),
}
Gradients = dict[str, torch.Tensor]


class Cases:
    """What is asked of the worker, each question once."""

    def __init__(self, world: tiny.World, folder: Path):
        self.world, self.folder = world, folder
        self.asked: list[dict] = []
        self.number: dict[str, int] = {}

    def ask(self, count: int, parallel: dict, settings: dict, fault: str = "") -> str:
        key = json.dumps([count, parallel, settings, fault], sort_keys=True)
        if key not in self.number:
            run = self.folder / f"run{len(self.asked)}"
            run.mkdir()
            own = {"micro_batch": 4, "steps": 1, **settings}
            world = self.world
            for key_of, changed in WORLDS.items():
                world = changed(world, run) if own.pop(key_of, False) else world
            if own.pop("goes_on", False):
                world = tiny.with_adapters(world, Lora.model_validate(LORA))
            job = tiny.job(world, run, lora=LORA, parallel=parallel, **own)
            self.number[key] = len(self.asked)
            self.asked.append({"ranks": count, "job": job.model_dump(mode="json"), "fault": fault})
        return key

    def answer(self) -> dict[str, Gradients]:
        by_ranks = sorted(self.number.items(), key=lambda item: self.asked[item[1]]["ranks"])
        answers = ranks.run([self.asked[number] for _, number in by_ranks], self.folder)
        return {key: answer for (key, _), answer in zip(by_ranks, answers, strict=True)}


@pytest.fixture(scope="module")
def differences(world: tiny.World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Name of a case -> worst relative difference to one process."""
    cases = Cases(world, tmp_path_factory.mktemp("gradients"))
    asked: dict[str, tuple[str, str]] = {}
    for name, tuning, recompute in COMBINED:
        count, parallel, settings = LAYOUTS[name]
        parallel = {**parallel, "activation_checkpointing": recompute}
        key = cases.ask(count, parallel, {"tuning": tuning, **settings})
        asked[f"{name} | {tuning} | {recompute}"] = key, cases.ask(1, {}, {"tuning": tuning})
    for name, (count, parallel, settings) in OTHERS.items():
        plain = cases.ask(1, {}, {"tuning": "full", **settings, "micro_batch": 4})
        asked[name] = cases.ask(count, parallel, {"tuning": "full", **settings}), plain
    for fault, (count, parallel, settings) in FAULTS.items():
        plain = cases.ask(1, {}, {"tuning": "full"})
        asked[f"fault: {fault}"] = cases.ask(count, parallel, {"tuning": "full", **settings}, fault), plain
    begun = time.monotonic()
    found = cases.answer()
    print(f"\n{len(cases.asked)} cases in {time.monotonic() - begun:.0f} s; worst relative difference to one process")
    result = {name: ranks.worst(found[key], found[plain]) for name, (key, plain) in asked.items()}
    for name, difference in result.items():
        print(f"{name:42} {difference:.1e}")
    return result


@pytest.mark.parametrize(("name", "tuning", "recompute"), COMBINED)
def test_layouts_agree(differences, name, tuning, recompute):
    assert differences[f"{name} | {tuning} | {recompute}"] < TOLERANCE


@pytest.mark.parametrize("name", OTHERS)
def test_references_and_objectives_agree(differences, name):
    assert differences[name] < TOLERANCE


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(differences, fault):
    assert differences[f"fault: {fault}"] > 1e-3
