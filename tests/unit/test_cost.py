"""Cost: figures of the paper's setting against arithmetic of our own, and what the listing says."""

import os
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from regdpo.config import schema
from regdpo.core import manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import LatentRow, SplitRow
from regdpo.plan import cost, labelled, layouts
from regdpo.plan.architecture import find
from regdpo.plan.memory import GIB, Training
from regdpo.runtime.gpu_specs import GPUS
from regdpo.workflow import outlook
from regdpo.workflow.changes import Job

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "config/recipes/reg_dpo_wan21_i2v_14b.yaml")


def asked(**changed: object) -> cost.Asked:
    settings = schema.load(RECIPE)
    training = Training(find(settings.base), settings.train.arm_settings("dpo"), 81, 720, 1280, 8)
    machine = layouts.Machine(80 * GIB, GPUS["H100 SXM"].peak_flops)
    values = {"settings": settings, "training": training, "machine": machine, "pairs": 12000}
    return cost.Asked(**{**values, "job_hours": 24, "price": None, **changed})


def rows(text: str) -> dict[str, list[str]]:
    lines = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|"))
    return {cells[0]: cells[1:] for cells in lines}


def number(text: str) -> float:
    return float(text.strip().replace(",", ""))


def test_gpu_hours_by_hand():
    """Wan 2.1 14B: 40 blocks of width 5120, feed-forward 13824; 21 x 45 x 80 tokens, 512 of text and 257 of the image."""
    width, hidden, tokens, context = 5120, 13824, 21 * 45 * 80, 512 + 257
    projections = 2 * tokens * width * (6 * width + 2 * hidden) + 2 * context * width * 2 * width
    attention = 4 * tokens * (tokens + context) * width
    forward = 40 * (projections + attention)
    rate = 0.4 * 989e12 * 3600  # FLOPs a GPU-hour
    backward = 40 * (projections + 2.5 * attention)  # gradients of activations alone; the scores once more
    a_pair = 2 * (forward + backward + forward) + 2 * forward  # every block recomputed; adapters off for the reference
    evaluations = (6000 // 300 + 1) * 32 * 4 * 2 * forward

    values = schema.load(RECIPE).model_dump()
    values["scores"]["vbench"] |= {"suites": ["i2v"], "images": "crops", "i2v_prompts": "list.json"}
    values["train"]["arms"]["twice"] = {
        "objective": "dpo",
        "beta": 9,
        "generator": "previous",
        "start": "dpo",
        "rounds": 2,
    }
    values["train"]["arms"]["twice"]["sources"] = {"gt": 1}
    best_of_4 = {"kind": "best_of_n", "candidates": {"score": {"sharpness": 1}, "limit": 1000}}
    values["pairs"]["sources"]["ranked"] = best_of_4
    listed = rows(cost.markdown(asked(settings=schema.check(values))))
    chosen_from = number(listed["videos to choose from, ranked"][1])
    assert chosen_from == pytest.approx(1000 * 4 * 40 * 2 * forward / rate, rel=0.01)  # by the base alone
    assert number(listed["VBench's i2v of 7 models"][1]) == pytest.approx(7 * 5590 * 80 * forward / rate, rel=0.01)
    clips = 12000 / 0.94
    assert number(listed["negatives"][1]) == pytest.approx(3 * clips * 40 * 2 * forward / rate, rel=0.01)
    assert number(listed["training, twice.1"][1]) == number(listed["training, dpo"][1])
    assert number(listed["training, dpo"][1]) == pytest.approx((12000 * a_pair + evaluations) / rate, rel=0.02)
    assert number(listed["samples of 7 models"][1]) == pytest.approx(7 * 0.04 * clips * 80 * forward / rate, rel=0.01)
    assert number(listed["held-out error"][1]) == pytest.approx(7 * 0.04 * clips * 8 * forward / rate, rel=0.02)
    names = list(listed)
    stages = names[names.index("negatives") : names.index("**all**")]
    whole = number(listed["negatives"][1])
    for key, passes in {
        "`guidance_interval: [0, 0.5]`": 60,  # 40 and 20
        "`steps: 20, solver: dpm++`": 40,
        "`cache: {kind: taylorseer}`": 24,  # of either pass 0, 1, 2, then 4, 8, ..., 36
    }.items():
        assert number(listed[key][0]) == passes
        assert number(listed[key][1]) == pytest.approx(whole * passes / 80, rel=0.01)
    assert listed["`cache: {kind: first_block}`"] == []  # blank: not countable
    assert number(listed["**all**"][1]) == pytest.approx(sum(number(listed[stage][1]) for stage in stages), abs=4)


def test_every_base_model_has_its_negatives_and_arms():
    settings = schema.load(RECIPE)
    several = settings.model_copy(update={"base": settings.base.model_copy(update={"seeds": [0, 1, 2]})})
    one, three = ({part.name: part.hours for part in cost.parts(asked(settings=it))} for it in (settings, several))
    assert three.pop("samples of 15 models") == pytest.approx(3 * one.pop("samples of 5 models"))
    assert three == pytest.approx({name: 3 * hours for name, hours in one.items()})
    arms = [Job(n, "train_arm", "train", {"of": of, "arm": "dpo"}) for n, of in enumerate(several.base.folders)]
    hours = outlook.gpu_hours(asked(settings=several), [*arms[:2], replace(arms[2], runs=False)])
    assert hours["train"] == pytest.approx(2 * one["training, dpo"])


def test_each_generator_has_its_cost():
    """A second model of the same architecture with half the steps, for half of the clips; one of which nothing is known."""
    base = schema.load(RECIPE).base
    other = {"model": base.model, "revision": base.revision, "share": 0.5, "sampling": {"steps": 20}}
    generators = {"base": {}, "other": other, "own": {"model": "some/model", "revision": "1", "share": 0.5}}
    values = schema.load(RECIPE).model_dump()
    values["negatives"]["generators"] = generators
    settings = schema.check(values)
    several = {part.generator: part for part in cost.parts(asked(settings=settings)) if part.stage == "negatives"}
    alone = next(part for part in cost.parts(asked()) if part.stage == "negatives")
    assert several["base"].hours == pytest.approx(alone.hours / 2, rel=0.01)  # a clip makes two pairs
    assert several["other"].hours == pytest.approx(alone.hours / 8, rel=0.01)
    assert (several["own"].hours, several["own"].name) == (0, "negatives, own")
    assert several["own"].what == "the architecture of some/model is not known: not counted"
    shards = [
        Job(n, "render_negatives", "negatives", {"generator": name, "shard": "0"}, runs=name == "other")
        for n, name in enumerate(several)
    ]
    hours = outlook.gpu_hours(asked(settings=settings), shards)
    assert hours["negatives"] == pytest.approx(several["other"].hours)


def test_gpu_hours_of_what_would_run():
    """All of it is what the listing says; of one arm's training and two of 64 shards, their parts."""
    of = asked()
    hours = {part.name: part.hours for part in cost.parts(of)}
    shards = [Job(n, "render_negatives", "negatives", {"generator": "base", "shard": str(n)}) for n in range(64)]
    arms = [Job(64 + n, "train_arm", "train", {"arm": arm}) for n, arm in enumerate(of.settings.train.arms)]
    every = outlook.gpu_hours(of, [*shards, *arms])
    assert every["negatives"] == pytest.approx(hours["negatives"])
    assert every["train"] == pytest.approx(sum(it for name, it in hours.items() if name.startswith("training, ")))
    some = [replace(job, runs=job.number < 2) for job in shards]
    some += [replace(job, runs=job.wildcards["arm"] == "dpo") for job in arms]
    part = outlook.gpu_hours(of, some)
    assert part["negatives"] == pytest.approx(hours["negatives"] / 32)
    assert part["train"] == pytest.approx(hours["training, dpo"])


def test_pairs_to_train_on_are_known_once_the_clips_are_counted(tmp_path):
    paths = schema.Paths(results=str(tmp_path), store=str(tmp_path / "store"))
    settings = schema.load(RECIPE).model_copy(update={"paths": paths})
    limited = settings.model_copy(update={"pairs": schema.Pairs(limit=50)})
    assert [outlook.training_pairs(it) for it in (settings, limited)] == [None, 50]
    rows = [SplitRow(split=split, clips=clips, sources=1) for split, clips in (("train", 70), ("test", 9))]
    manifests.write(tmp_path / "splits.parquet", rows, SplitRow)
    assert [outlook.training_pairs(it) for it in (settings, limited)] == [70, 50]
    assert outlook.room(settings).endswith(f" GB are free where the store lies ({tmp_path})")


def test_what_files_label_has_no_loser(tmp_path):
    """MUG-V's second step: of four batches three are of what people passed or failed; a tie is no sample."""
    values = schema.load(str(ROOT / "config/recipes/mugv_alignment.yaml")).model_dump()
    table = tmp_path / "passed.csv"
    values["pairs"]["sources"]["passed"]["path"] = str(table)
    settings = schema.check(values)
    key = "train.arms.aligned.2"
    assert labelled.in_files(settings, key) == 0, "a file that is not there counts as pairs, which take the most"
    table.write_text("video,label\na.mp4,pass\nb.mp4,fail\nc.mp4,pass\nc.mp4,fail\n")
    assert labelled.in_files(settings, key) == 0.75
    assert [labelled.in_files(settings, it) for it in settings.trainings() if it != key] == [0, 0, 0]
    table.write_text("a,b,answer\na.mp4,b.mp4,a\nc.mp4,d.mp4,b\n")
    os.utime(table, (1, 1))
    assert labelled.in_files(settings, key) == 0, "comparisons are pairs"


def test_people_alone_need_no_negatives(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("video,label\na.mp4,pass\nb.mp4,fail\n")
    values = schema.load(RECIPE).model_dump()
    values["pairs"]["sources"] = {"people": {"kind": "labels", "path": str(table)}}
    values["train"]["arms"] |= {"kto": {"objective": "kto", "beta": 500}}
    of = asked(settings=schema.check(values))
    assert [cost._of_arm(of, name).a_sample for name in ("sft", "dpo", "kto")] == [1, 2, 1]
    assert [cost._of_arm(of, name).asked_first for name in ("sft", "dpo", "kto")] == [False, False, True]
    assert cost._faster(of) == []


def test_labels_of_latents_are_counted_by_source():
    def rows(origin: str, label: str, many: int, split: str = "train") -> list[LatentRow]:
        common = {"clip_id": "", "path": "", "sha256": "", "encoder": "", "shape": "1,1,1,1", "has_loser": not label}
        return [
            LatentRow(pair_id=f"{origin}{n}", split=split, origin=origin, label=label, **common) for n in range(many)
        ]

    every = [*rows("gt", "", 6), *rows("people", "good", 1), *rows("people", "", 1), *rows("gt", "", 9, "test")]
    assert labelled.in_rows(every, "kto", {}) == pytest.approx(1 / 8)
    assert labelled.in_rows(every, "kto", {"people": (1, 0), "gt": (1, 1)}) == pytest.approx((1 / 2 + 0) / 2 / 2)
    assert labelled.in_rows(every, "dpo", {}) == 0


def test_jobs_and_requeues():
    """73 hours of training in jobs of 24 hours, of which five minutes are for leaving."""
    it = asked()
    assert it.job_seconds == 24 * 3600 - 300
    assert [cost.jobs(it, hours * 3600) for hours in (23.9, 24, 73)] == [1, 2, 4]
    assert "takes `launch.requeues: 3` at least, and it is 20." in cost.markdown(it)
    assert asked(job_hours=0.1).job_seconds == 180, "at most half of a short job is for leaving"


def test_price():
    listed = rows(cost.markdown(asked(price=2.0)))
    assert number(listed["negatives"][3]) == pytest.approx(2 * number(listed["negatives"][1]), abs=1)


def test_a_layout_that_cannot_be_is_replaced_and_said():
    it = asked()
    text = cost.markdown(asked(training=Training(it.training.architecture, it.training.settings, 81, 720, 1280, 16)))
    assert "since the configured one cannot be (batch 2 does not divide over 4 data ranks)" in text
    assert "steps of 19.0 s (context 8, pair 2, checkpointing 2, reference adapters)" in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "--pairs: how many training pairs? pairs.limit does not say"),
        (["--pairs", "0"], "--pairs: 0 is not more than 0"),
        (["--pairs", "1", "--gpu", "RTX 4090", "--gpus", "2"], "--gpus: no layout of 2 ranks fits"),
    ],
)
def test_mistakes_are_one_line(arguments, line, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["plan.py", "--config", RECIPE, "--cost", *arguments])
    with pytest.raises(UserError) as caught:
        runpy.run_path(str(ROOT / "scripts/plan.py"))["main"]()
    assert str(caught.value).startswith(line)


def test_a_step_is_planned_on_the_sizes_that_it_takes():
    """MUG-V's stages: images and 49 frames as often on the whole, 49 frames that become 105, 720p alone."""
    settings = schema.load(str(ROOT / "config/recipes/mugv_curriculum.yaml"))
    sizes = [it.size for it in settings.clips.geometries]
    whole = Training.of(find(settings.base), settings.train.arm_settings("curriculum"), sizes, 8, 1)
    steps = [cost._of_arm(asked(settings=settings, training=whole), name) for name in settings.train.links]
    small, longer, large = sizes[1:]
    assert [(it.size, it.others) for it in steps] == [(small, (sizes[0],)), (longer, (small,)), (large, ())]
    assert [it.weights for it in steps] == [pytest.approx(each) for each in ((1, 1), (1, 1), (2,))]
    assert [it.settings.steps for it in steps] == [20000, 12000, 3000]


def test_losers_from_the_winner_are_made_by_the_last_steps_alone():
    """MUG-V's sigmas by hand: r = sqrt(720 x 1280 / 512^2) sqrt(14), sigma_i = r u / (1 + (r - 1) u) of u = 1 - i / 25."""
    settings = schema.load(str(ROOT / "config/recipes/mugv_alignment.yaml"))
    training = Training(find(settings.base), settings.train.arm_settings("sft"), 105, 720, 1280, 8)
    whole = cost._negatives(asked(settings=settings, training=training), "base")
    r = 7.0156
    sigmas = [r * (1 - i / 25) / (1 + (r - 1) * (1 - i / 25)) for i in range(25)]
    for strength in (0.8, 0.05):
        left = 25 - min(range(25), key=lambda i: abs(sigmas[i] - strength))
        values = settings.model_dump()
        values["negatives"]["generators"] = {"near": {"strength": [strength, strength]}}
        near = cost._negatives(asked(settings=schema.Config.model_validate(values), training=training), "near")
        assert near.hours == pytest.approx(whole.hours * left / 25)
        assert near.what.endswith(f"from the winner {left}.0 of the steps")
    assert left == 1


def test_a_list_of_prompts_that_is_to_come_counts_as_its_limit():
    settings = schema.load(str(ROOT / "config/recipes/videodpo_vc2.yaml"))
    assert not Path(settings.pairs.ranked["best_of_4"].prompts).exists()
    assert (
        cost._candidates(asked(settings=settings), "best_of_4").what
        == "at most 40,000 videos x 50 steps x 2 (guidance)"
    )
