"""Arms that are chains: how the configuration is expanded, what is refused, and what each training reads."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from regdpo.config import schema
from regdpo.config.stage_inputs import TrainStage, parts
from regdpo.core.errors import UserError
from regdpo.core.model_names import ModelName
from regdpo.workflow.reading import ModelFiles

SMALL = yaml.safe_load((Path(__file__).parents[2] / "config/small.yaml").read_text())
REG_DPO: dict[str, Any] = {"objective": "reg_dpo", "beta": 5, "r": 2.5}


def checked(arms: dict[str, Any], **others: Any) -> schema.Config:
    values = copy.deepcopy(SMALL) | others
    values["videos"]["root"] = values["captions"]["root"] = "."
    values["train"] = values["train"] | {"arms": arms}
    return schema.check(values)


def files(settings: schema.Config, arm: str, of: str = "") -> tuple[str, str]:
    """What a training reads: model and latents."""
    found = ModelFiles(settings).trained_on(SimpleNamespace(of=of, arm=arm, seed="0"))
    return found["model"].removeprefix("results/"), found["latents"].removeprefix("results/")


CHAIN = {
    "sft": {"objective": "sft"},
    "spin": {**REG_DPO, "start": "sft", "generator": "previous", "rounds": 3, "settings": {"lr": 1e-5}},
    "way": {
        "settings": {"batch": 8},
        "steps": [{"objective": "sft", "settings": {"steps": 2}}, {**REG_DPO, "generator": "previous"}],
    },
}


def test_steps_and_rounds_are_trainings_of_their_own():
    settings = checked(CHAIN)
    assert list(settings.train.links) == ["sft", "spin.1", "spin.2", "spin", "way.1", "way"]
    assert settings.models[:3] == ["base", "sft/seed0", "spin.1/seed0"]
    assert {ModelName.parse(name).table("samples") for name in settings.models} >= {"samples/spin.2/seed0.parquet"}
    links = settings.train.links
    assert (links["way.1"].settings.steps, links["way.1"].settings.batch, links["way"].settings.steps) == (2, 8, 4)
    assert {name: it.settings.lr for name, it in links.items() if it.arm == "spin"} == dict.fromkeys(
        ["spin.1", "spin.2", "spin"], 1e-5
    )
    assert set(settings.trainings()) == {f"train.arms.{name}" for name in links} | {"base.pretrain"}


def test_a_training_reads_its_start_and_what_that_has_generated():
    settings = checked(CHAIN)
    assert files(settings, "sft") == ("base/model.json", "latents/gt.parquet")
    assert files(settings, "spin.1") == ("train/sft/seed0/model.json", "by/sft/seed0/latents/gt.parquet")
    assert files(settings, "spin.2") == ("train/spin.1/seed0/model.json", "by/spin.1/seed0/latents/gt.parquet")
    assert files(settings, "way") == ("train/way.1/seed0/model.json", "by/way.1/seed0/latents/gt.parquet")
    assert settings.rounds == [f"by/{name}/seed0/" for name in ("sft", "spin.1", "spin.2", "way.1")]
    rules = ModelFiles(settings)
    round_ = SimpleNamespace(of="by/spin.1/seed0/", generator="base", pairs="gt")
    assert rules.of_generator(round_) == "results/train/spin.1/seed0/model.json"
    assert rules.encoded(round_) == {
        "pairs": "results/by/spin.1/seed0/pairs.parquet",
        "model": "results/base/model.json",
    }


def test_rounds_of_another_base_model_are_beside_it():
    base = copy.deepcopy(SMALL["base"]) | {"seeds": [0, 1]}
    settings = checked(CHAIN, base=base)
    assert files(settings, "spin.1", "base1/")[1] == "base1/by/sft/seed0/latents/gt.parquet"
    assert "base1/by/sft/seed0/" in settings.rounds
    wildcards = SimpleNamespace(of="base1/by/sft/seed0/", generator="base", pairs="gt")
    assert ModelFiles(settings).of_generator(wildcards) == "results/base1/train/sft/seed0/model.json"
    assert ModelFiles(settings).encoded(wildcards)["model"] == "results/base1/base/model.json"


def test_a_changed_step_leaves_those_before_it_alone():
    """Their parts are the same, and none reads what the changed one makes."""
    other = copy.deepcopy(CHAIN)
    other["way"]["steps"][1]["beta"] = 1
    before, after = (parts(checked(arms)) for arms in (CHAIN, other))
    changed = {name for name in before if before[name] != after[name]} - {"ReportStage"}
    assert changed == {"TrainStage way 0"}
    longer = copy.deepcopy(CHAIN)
    longer["way"]["steps"].append({"objective": "sft"})
    assert TrainStage.of(checked(longer), "way.1", 0) == TrainStage.of(checked(CHAIN), "way.1", 0)


def test_an_arm_of_one_step_reads_what_it_always_did():
    alone, step = checked({"a": REG_DPO}), checked({"a": {"steps": [REG_DPO]}})
    assert TrainStage.of(alone, "a", 0) == TrainStage.of(step, "a", 0)
    assert set(TrainStage.of(alone, "a", 0)) == {"objective", "beta", "r", "seed", "settings"}
    assert files(alone, "a") == ("base/model.json", "latents/gt.parquet")


LORA = {"tuning": "lora"}


@pytest.mark.parametrize(
    ("arms", "line"),
    [
        (
            {"a": {**REG_DPO, "start": "b"}, "b": {"objective": "sft", "start": "a"}},
            r"arms\.a\.start: goes in a circle",
        ),
        ({"a": {**REG_DPO, "start": "sfd"}, "sft": {"objective": "sft"}}, r"there is no arm sfd; there are a, sft"),
        ({"a": {**REG_DPO, "start": "previous"}}, r"arms\.a\.start: there is no step before"),
        ({"a": {**REG_DPO, "rounds": 2}}, r"`rounds` are for fresh negatives"),
        ({"a": {**REG_DPO, "generator": "b"}}, r"arms\.a\.generator: there is no arm b; there are a"),
        (
            {"a": {**REG_DPO, "generator": "b"}, "b": {**REG_DPO, "start": "a"}},
            r"arms\.a\.generator: b is trained on what this makes itself",
        ),
        ({"a": {"steps": [REG_DPO], "beta": 1}}, r"`beta`: with `steps`, give it to a step"),
        ({"a": {}}, r"give an `objective`, or `steps`"),
        ({"a": {"steps": [{"objective": "dpo"}]}}, r"arms\.a\.steps\.0: objective `dpo` takes \['beta'\]"),
        ({"a": REG_DPO, "b": {"steps": [REG_DPO]}}, r"arms\.b: is the same as a"),
        ({"previous": REG_DPO}, r"that name is taken"),
        (
            {"a": {"steps": [{"objective": "sft", "settings": LORA}, REG_DPO]}},
            r"arms\.a\.steps\.1: tuning `full` cannot go on with the adapters of a\.1",
        ),
        (
            {"a": {"settings": LORA, "steps": [{"objective": "sft"}, {**REG_DPO, "settings": {"lora": {"rank": 4}}}]}},
            r"arms\.a\.steps\.1: its `lora` is not that of a\.1",
        ),
        ({"a": {"steps": [{"objective": "sft"}, {**REG_DPO, "adapters": "merge"}]}}, r"a\.1 has none to merge"),
        (
            {
                "a": {
                    "settings": LORA,
                    "steps": [
                        {"objective": "sft"},
                        {**REG_DPO, "settings": {"parallel": {"reference": "adapters"}}},
                    ],
                }
            },
            r"without its adapters it would be the base",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(arms, line):
    with pytest.raises(UserError, match=line) as error:
        checked(arms)
    assert "\n" not in str(error.value)


def test_adapters_that_go_on_have_a_copy_for_their_reference():
    settings = checked({"a": {"settings": LORA, "steps": [{"objective": "sft"}, REG_DPO]}})
    assert settings.train.links["a"].settings.parallel.reference == "copy"
    assert settings.train.links["a.1"].settings.parallel.reference == "auto"


def test_merged_adapters_are_what_is_started_from():
    steps = [{"objective": "sft", "settings": LORA}, {**REG_DPO, "adapters": "merge"}]
    assert files(checked({"a": {"steps": steps}}), "a")[0] == "merged/a.1/seed0/model.json"


def test_new_negatives_need_a_generator_that_can_change(tmp_path):
    arms = {"a": {"steps": [{"objective": "sft"}, {**REG_DPO, "generator": "previous"}]}}
    other = {"generators": {"other": {"model": str(tmp_path)}}}
    with pytest.raises(UserError, match=r"arms\.a\.steps\.1\.generator: all of negatives\.generators are other models"):
        checked(arms, negatives=SMALL["negatives"] | other)


def test_any_arm_may_make_what_a_step_learns_from():
    """Losers and best-of-N videos of another arm than the one that is started from; both make their own once."""
    ranked = {"kind": "best_of_n", "candidates": {"score": {"sharpness": 1}, "shards": 1}}
    pairs = SMALL["pairs"] | {"sources": {"gt": {"kind": "gt"}, "ranked": ranked}}
    taught = {**REG_DPO, "generator": "spin"}
    arms = {
        **CHAIN,
        "taught": {**taught, "sources": {"ranked": 1}},
        "more": {**taught, "start": "way", "sources": {"gt": 1}},
    }
    settings = checked(arms, pairs=pairs)
    assert files(settings, "taught") == ("base/model.json", "by/spin/seed0/latents/gt.parquet")
    assert files(settings, "more") == ("train/way/seed0/model.json", "by/spin/seed0/latents/gt.parquet")
    assert settings.rounds.count("by/spin/seed0/") == 1
    rules = ModelFiles(settings)
    made = rules.of_candidates(SimpleNamespace(of="by/spin/seed0/", source="ranked"))
    assert made["model"] == "results/train/spin/seed0/model.json"
    assert rules.ranked(SimpleNamespace(of="by/spin/seed0/"), "candidates")


def test_a_configuration_that_was_written_out_is_the_same():
    """The report and the plan are given it so."""
    settings = checked(CHAIN)
    again = schema.check(settings.model_dump(mode="json"))
    assert again.train.links == settings.train.links


def test_shares_are_of_what_there_is():
    own = {"sources": {"gt": 3}, "sizes": {"5x32x32": [1, 0.5]}}
    settings = checked({"a": {**REG_DPO, **own}})
    read = TrainStage.of(settings, "a", 0)
    assert read["sources"] == {"gt": (3, 3)}
    assert read["sizes"] == {"5x32x32": (1, 0.5)}
    for wrong, line in (
        ({"sources": {"labels": 1}}, r"arms\.a\.sources: there is no labels; there are gt"),
        ({"sizes": {"9x64x64": 1}}, r"arms\.a\.sizes: there is no 9x64x64; there are 5x32x32"),
        ({"sources": {"gt": [0, 1]}}, r"sources: at the first or the last step all shares are 0"),
    ):
        with pytest.raises(UserError, match=line):
            checked({"a": {**REG_DPO, **wrong}})


def test_a_step_may_take_the_losers_of_one_generator():
    """Then no other makes any of its start's."""
    negatives = SMALL["negatives"] | {"generators": {"noise": {}, "winner": {"strength": [0.4, 0.8]}}}
    fresh = {**REG_DPO, "start": "sft", "generator": "previous"}
    arms = {
        "sft": {"objective": "sft"},
        "near": {**fresh, "sources": {"gt.winner": 1}},
        "far": {**fresh, "start": "near", "sources": {"gt": 1}},
    }
    settings = checked(arms, negatives=negatives)
    assert [[*settings.generators_in(folder)] for folder in ("", "by/sft/seed0/", "by/near/seed0/")] == [
        ["noise", "winner"], ["winner"], ["noise", "winner"],
    ]  # fmt: skip
    shards = ModelFiles(settings).negatives(SimpleNamespace(of="by/sft/seed0/"))
    assert {shard.split("negatives/")[1].split("/")[0] for shard in shards} == {"winner"}
    with pytest.raises(
        UserError, match=r"arms\.near\.sources: there is no gt\.far; there are gt, gt\.noise, gt\.winner"
    ):
        checked(arms | {"near": {**fresh, "sources": {"gt.far": 1}}}, negatives=negatives)


def test_a_round_makes_only_what_its_trainings_take():
    ranked = {"kind": "best_of_n", "candidates": {"score": {"sharpness": 1}, "shards": 1}}
    pairs = SMALL["pairs"] | {"sources": {"gt": {"kind": "gt"}, "ranked": ranked}}
    fresh = {**REG_DPO, "start": "sft", "generator": "previous"}
    arms = {
        "sft": {"objective": "sft"},
        "a": {**fresh, "sources": {"ranked": 1}},
        "b": {**fresh, "start": "a", "sources": {"gt": 1}},
    }
    settings = checked(arms, pairs=pairs)
    made = [
        (len(settings.generators_in(folder)), len(settings.candidates_in(folder)))
        for folder in ("", "by/sft/seed0/", "by/a/seed0/")
    ]
    assert made == [(1, 1), (0, 1), (1, 0)]
    assert ModelFiles(settings).ranked(SimpleNamespace(of="by/a/seed0/"), "candidates") == []
