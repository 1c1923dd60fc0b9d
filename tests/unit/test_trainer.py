"""The trainer in one process: averages, the best checkpoint, guards, what it refuses, what it recomputes."""

import json
import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.distributed as dist
from diffusers import WanTransformer3DModel
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file

from regdpo.config import stage_inputs
from regdpo.config.training import Guards, Lora
from regdpo.core import manifests
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import LatentRow
from regdpo.models import growth
from regdpo.models.errors import residuals
from regdpo.models.family import open_family
from regdpo.models.weights import FILE
from regdpo.objectives.registry import OBJECTIVES
from regdpo.parallel.attention import choose
from regdpo.parallel.mesh import layout
from regdpo.parallel.sharing import check_context, check_tensor
from regdpo.runs.job import Job
from regdpo.runs.stop import SIGNALS
from regdpo.stages import base, merged
from regdpo.train import dataset, segments
from regdpo.train.checkpoint import complete
from regdpo.train.ema import Ema, ramped
from regdpo.train.guards import Watch
from regdpo.train.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory):
    """A process group of one. A training takes signals for requests, so ours are put back."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    dist.init_process_group("gloo", init_method=f"file://{tmp_path_factory.mktemp('meet')}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def opened(job: Job) -> Trainer:
    Path(job.run).mkdir(exist_ok=True)
    return Trainer(job, CPU, layout(CPU, job.parallel, OBJECTIVES[job.stage.objective].paired))


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: parameter.full_tensor().detach().clone() for name, parameter in trainer.parameters.items()}


def rows(run: Path, name: str = "metrics") -> list[dict]:
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def exported(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "export/diffusion_pytorch_model.safetensors")


def test_the_average_is_exported(world, tmp_path, monkeypatch):
    """Beside diffusers' EMAModel over the same weights, and by the formula with its decays 0, 2/11, 3/12, 4/13."""
    trainer = opened(tiny.job(world, tmp_path / "run", ema=0.3))
    theirs = EMAModel([value.clone() for value in weights(trainer).values()], decay=0.3)
    seen = []
    follow = trainer._follow

    def watch(done):
        follow(done)
        seen.append(weights(trainer))
        theirs.step([torch.nn.Parameter(value) for value in seen[-1].values()])

    monkeypatch.setattr(trainer, "_follow", watch)
    trainer.train()
    found = exported(tmp_path / "run")
    assert len(seen) == 4
    for (name, last), average in zip(seen[-1].items(), theirs.shadow_params, strict=True):
        wanted = seen[0][name]
        for decay, now in zip((2 / 11, 3 / 12, 0.3), seen[1:], strict=True):
            wanted = decay * wanted + (1 - decay) * now[name]
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(found[name], average, rtol=1e-5, atol=1e-7)
        assert not torch.equal(found[name], last) or not last.any()
    for name, now in weights(trainer).items():
        assert torch.equal(now, seen[-1][name]), "the average was not swapped out again"


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_checkpoints_are_averaged(world, tmp_path, tuning):
    """By the closed formula over the weights of steps 2, 4 and 6; the same from a training that goes on at step 3."""
    settings = {"export": "average", "average": {"every": 2, "decay": 0.5}, "tuning": tuning, "objective": "sft"}
    settings |= {"steps": 6, "checkpoint_every": 3, "lora": {"rank": 2, "alpha": 2, "targets": ["to_q"]}}
    trainer, seen = opened(tiny.job(world, tmp_path / "run", **settings)), []
    for step in range(3):
        trainer.step(step)
        seen.append(weights(trainer))
    trainer.checkpoints.save(3)
    trainer.checkpoints.finish()
    again = opened(tiny.job(world, tmp_path / "run", **settings))
    for step in range(again.checkpoints.load(), 6):
        again.step(step)
        seen.append(weights(again))
    again.export()
    name = "pytorch_lora_weights" if tuning == "lora" else "diffusion_pytorch_model"
    found = load_file(tmp_path / f"run/export/{name}.safetensors")
    for key, last in seen[5].items():
        wanted = (0.25 * seen[1][key] + 0.5 * seen[3][key] + last) / 1.75
        there = f"transformer.{key.replace('.default.', '.')}" if tuning == "lora" else key
        torch.testing.assert_close(found[there], wanted, rtol=1e-5, atol=1e-7)
    assert len(seen) == 6


def test_the_untrained_start_has_no_share_in_the_average():
    """The average of a start of 1 that is 0 ever after: its value is the share. Without a ramp it would be .55."""
    weight = torch.nn.Parameter(torch.ones(()))
    ema = Ema({"weight": weight}, 0.9999)
    theirs = EMAModel([torch.ones(())], decay=0.9999)
    with torch.no_grad():
        weight.zero_()
    for step in range(1, 6001):
        ema.update(step)
        theirs.optimization_step = step
        assert ramped(0.9999, step) == theirs.get_decay(step)
    assert ema.average["weight"] == 0
    assert ramped(0.9, 1000) == 0.9


def test_the_best_evaluation_is_exported(world, tmp_path, monkeypatch):
    trainer = opened(tiny.job(world, tmp_path / "run", export="best", eval_every=1, objective="sft"))
    errors, seen = iter([3.0, 1.0, 2.0, 1.5]), []

    def evaluate(step):
        seen.append(weights(trainer))
        return {"step": step, "error": next(errors)}

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    trainer.train()
    for name, value in exported(tmp_path / "run").items():
        assert torch.equal(value, seen[1][name])
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("best_*")] == ["best_0000002"]
    assert [path.name for path in complete(tmp_path / "run")] == ["step_0000002", "step_0000004"]


def test_a_grown_model_goes_on_where_the_small_one_was(world, tmp_path):
    """Its first loss is what the small one's next would have been on the same clips and noise, and then it falls."""
    small = opened(tiny.job(world, tmp_path / "small", objective="sft"))
    small.step(0), small.step(1)
    small.family.save_transformer(weights(small), tmp_path / "tuned")
    source, tuned = Path(world.model.ref.location(world.store)), {"transformer": tmp_path / "tuned"}
    growth.grow_checkpoint(source, tuned, tmp_path / "grown", growth.Asked(noise=0.1))
    given = {"base": {"model": str(tmp_path / "grown"), "task": "i2v", "text_length": 8}, "geometries": [tiny.GEOMETRY]}
    model = base.by_name(stage_inputs.BaseStage.model_validate({**given, "shift": 1.0}), world.store)
    ref = model.ref.model_copy(update={"digest": world.model.ref.digest})  # what encodes is the small one's
    wide = replace(world, model=model.model_copy(update={"ref": ref}))
    large = opened(tiny.job(wide, tmp_path / "large", objective="sft"))
    first = large.step(2)["loss"]
    assert first == pytest.approx(small.step(2)["loss"], rel=1e-5)
    assert large.step(2)["loss"] < first


def test_only_the_last_checkpoints_are_kept(world, tmp_path):
    opened(tiny.job(world, tmp_path / "run", objective="sft", steps=6, checkpoint_every=1)).train()
    assert [path.name for path in complete(tmp_path / "run")] == ["step_0000005", "step_0000006"]


def test_a_resumed_average_reference_and_optimiser_go_on(world, tmp_path):
    settings = {"ema": 0.9, "reference_ema": {"decay": 0.5, "every": 2}, "steps": 5, "checkpoint_every": 3}
    whole = opened(tiny.job(world, tmp_path / "whole", **settings))
    whole.train()
    (tmp_path / "again").mkdir()
    (tmp_path / "again/checkpoints").mkdir()
    (tmp_path / "whole/checkpoints/step_0000003").rename(tmp_path / "again/checkpoints/step_0000003")
    (tmp_path / "again/metrics.jsonl").write_text((tmp_path / "whole/metrics.jsonl").read_text())
    again = opened(tiny.job(world, tmp_path / "again", **settings))
    again.train()
    assert [row["loss"] for row in rows(tmp_path / "again")] == [row["loss"] for row in rows(tmp_path / "whole")]
    for name, value in exported(tmp_path / "whole").items():
        assert torch.equal(exported(tmp_path / "again")[name], value)
    copies = [dict(trainer.copy.named_parameters()) for trainer in (whole, again)]
    assert all(torch.equal(value.full_tensor(), copies[1][name].full_tensor()) for name, value in copies[0].items())


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_moving_reference_is_the_average_of_the_policy(world, tmp_path, tuning):
    """It starts as the policy, adapters too: after n updates ``d^n w_0 + (1 - d) sum over k of d^(n - k) w_k``."""
    moving = {"decay": 0.75, "every": 1}
    lora = {"rank": 2, "targets": ["to_q", "to_v"]}
    trainer = opened(tiny.job(world, tmp_path / "run", reference_ema=moving, tuning=tuning, lora=lora))
    copied = dict(trainer.copy.named_parameters())
    seen = [weights(trainer)]
    for name, start in seen[0].items():
        assert torch.equal(copied[name].full_tensor(), start)
    for step in range(3):
        trainer.step(step)
        seen.append(weights(trainer))
    for name, start in seen[0].items():
        wanted = 0.75**3 * start + sum(0.25 * 0.75 ** (3 - k) * seen[k][name] for k in (1, 2, 3))
        torch.testing.assert_close(copied[name].full_tensor(), wanted)
    if tuning == "lora":
        pairs = [name for name in seen[0] if ".lora_A." in name]
        delta = lambda of: torch.cat(  # noqa: E731
            [(of[name.replace(".lora_A.", ".lora_B.")] @ of[name]).flatten() for name in pairs]
        )
        policy, reference = delta(seen[-1]), delta({name: copied[name].full_tensor() for name in seen[0]})
        assert torch.nn.functional.cosine_similarity(policy, reference, dim=0) > 0.9


@pytest.fixture
def poisoned(world, tmp_path):
    """The world with one training pair's winner not finite."""
    found = manifests.read(world.manifest, LatentRow)
    row = next(row for row in found if row.split == "train")
    tensors = load_file(world.store.existing(row.path))
    tensors["winner"][0, 0, 0, 0] = math.nan
    path = world.store.relative("latents", "f" * 64, ".safetensors")
    with world.store.writing(path) as temporary:
        save_file(tensors, temporary)
    named = {"path": path, "sha256": file_digest(world.store.existing(path))}
    changed = [other.model_copy(update=named) if other is row else other for other in found]
    manifest = tmp_path / "latents.parquet"
    manifests.write(manifest, changed, LatentRow)
    return row.pair_id, manifest


def test_a_pair_that_is_not_finite_is_named_and_skipped(world, tmp_path, poisoned):
    pair, manifest = poisoned
    job = tiny.job(world, tmp_path / "run", objective="dpo", batch=2, steps=6, guards={"nonfinite": 4})
    trainer = opened(job.model_copy(update={"latents": str(manifest)}))
    trainer.train()
    found = rows(tmp_path / "run")
    skipped = [row for row in found if "skipped" in row]
    assert skipped
    assert all(row["skipped"] == [pair] and row["loss"] is None for row in skipped)
    assert all(math.isfinite(row["loss"]) for row in found if "skipped" not in row)
    assert all(value.isfinite().all() for value in exported(tmp_path / "run").values())


def test_too_many_skipped_steps_end_it(world, tmp_path, poisoned):
    pair, manifest = poisoned
    train = [row for row in manifests.read(manifest, LatentRow) if row.split == "train"]
    job = tiny.job(world, tmp_path / "run", objective="dpo", batch=len(train), guards={"nonfinite": 2})
    with pytest.raises(
        UserError, match=rf"^step 2: not finite 2 times in a row \(pairs {pair}\); .*checkpoint is intact"
    ):
        opened(job.model_copy(update={"latents": str(manifest)})).train()
    assert not (tmp_path / "run/export").exists()


def test_drift_is_told_once_or_stops():
    ill = {"accuracy": 1.0, "win_gap": 0.1}
    watch = Watch(Guards(drift_steps=3))
    said = [watch.look({"step": step, **ill}) for step in range(1, 6)]
    assert [bool(line) for line in said] == [False, False, True, False, False]
    assert said[2].startswith("step 3: drift: over 3 steps accuracy is 1.000 while the win gap is +0.1")
    well = Watch(Guards(drift_steps=3))
    assert not any(well.look({"step": step, "accuracy": 1.0, "win_gap": -0.1}) for step in range(1, 9))
    strict = Watch(Guards(drift_steps=2, drift="stop"))
    strict.look({"step": 1, **ill})
    with pytest.raises(UserError, match=r"drift.*guards.drift: stop"):
        strict.look({"step": 2, **ill})


@pytest.mark.parametrize(("every", "again"), [("none", 0), ("full", 2), (2, 1)])
def test_blocks_are_recomputed(world, tmp_path, every, again):
    """Of two blocks: none, both, every second."""
    job = tiny.job(
        world, tmp_path / "run", objective="sft", parallel={"activation_checkpointing": every}, micro_batch=4
    )
    trainer = opened(job)
    calls = []
    for block in trainer.policy.blocks:
        block.attn1.register_forward_hook(lambda *_: calls.append(1))
    trainer.step(0)
    assert len(calls) == 2 + again


def test_blocks_are_compiled_without_the_sums_that_lose_gradients(world, tmp_path, monkeypatch):
    """By an option that torch still has: it refuses others."""
    given = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda _, **options: given.append(options))
    opened(tiny.job(world, tmp_path / "run", objective="sft", parallel={"compile": True}))
    assert given == 2 * [{"options": {"triton.mix_order_reduction": False}}]
    torch.compile(lambda x: x, **given[0])


def test_step_one_of_dpo_is_ln_two(world, tmp_path):
    row = opened(tiny.job(world, tmp_path / "run", objective="dpo")).step(0)
    assert row["dpo_loss"] == pytest.approx(math.log(2))
    assert row["dgr"] == pytest.approx(20 / 4)
    assert row["win_gap"] == row["lose_gap"] == 0
    assert row["peak_memory_bytes"] > 1e8


def test_mfu_is_what_was_needed_over_what_was_possible(world, tmp_path):
    known = {"step_flops": {world.latents[0].shape: 6e9}, "peak_flops": 2e12}
    row = opened(tiny.job(world, tmp_path / "run", objective="sft").model_copy(update=known)).step(0)
    assert row["mfu"] == pytest.approx(6e9 / 2e12 / row["seconds"])
    assert opened(tiny.job(world, tmp_path / "run", objective="sft")).step(0)["mfu"] is None


def test_pairs_of_several_sizes_are_evaluated_as_each_alone(world, tmp_path):
    mixed = tiny.with_narrow_pairs(world, tmp_path)
    trainer = opened(tiny.job(mixed, tmp_path / "run"))
    rows = mixed.latents[2:7]
    assert [row.shape == rows[0].shape for row in rows] == [True, True, False, False, False]
    found = trainer.passes.validation_errors(trainer.policy, rows, 2)
    alone = [trainer.passes.validation_errors(trainer.policy, [row], 2) for row in rows]
    torch.testing.assert_close(found.view(2, -1), torch.stack(alone, 1))


def test_a_clip_that_ranks_cannot_share_is_refused_before_the_first_step(world, tmp_path):
    """Of any size: here 12 tokens divide by four, and the 6 of the narrow ones do not."""
    job = tiny.job(tiny.with_narrow_pairs(world, tmp_path), tmp_path / "run")
    shared = replace(layout(CPU, job.parallel, True), context=4)
    with pytest.raises(UserError, match=r"context: 4 does not divide both the 4 attention heads and the 6 tokens"):
        Trainer(job, CPU, shared)


def test_a_pairs_weight_multiplies_its_loss(world, tmp_path):
    found = manifests.read(world.manifest, LatentRow)
    manifest = tmp_path / "latents.parquet"
    manifests.write(manifest, [row.model_copy(update={"weight": 1.0 + n}) for n, row in enumerate(found)], LatentRow)
    job = tiny.job(world, tmp_path / "run", batch=6)
    losses = []
    for changed in (job, job.model_copy(update={"latents": str(manifest)})):
        trainer = opened(changed)
        losses.append(trainer.passes.backward(trainer.rows, [*range(6)], 6, 0)["loss"])
    mean = sum(1.0 + n for n, row in enumerate(found) if row.split == "train") / 6
    wanted = [(1.0 + n) / mean for n, row in enumerate(found) if row.split == "train"]
    torch.testing.assert_close(losses[1] / losses[0], torch.tensor(wanted))


def test_latents_are_checked_by_their_headers(world, tmp_path):
    found = manifests.read(world.manifest, LatentRow)
    whole = world.store.existing(found[0].path).read_bytes()
    path = world.store.relative("latents", "e" * 64, ".safetensors")
    with world.store.writing(path) as temporary:
        temporary.write_bytes(whole[:-100])
    cut = [found[0].model_copy(update={"path": path}), *found[1:]]
    with pytest.raises(UserError, match=rf"^pair {found[0].pair_id}: .* is damaged .*--forcerun encode_latents$"):
        dataset.check(cut, found[0].encoder, True, world.store)
    other = [found[0].model_copy(update={"shape": "16,3,8,8"}), *found[1:]]
    with pytest.raises(
        UserError, match=rf"^pair {found[0].pair_id}: .* holds a winner of shape .*manifest says \(16,3,8,8\)"
    ):
        dataset.check(other, found[0].encoder, True, world.store)
    gone = [*found[:-1], found[-1].model_copy(update={"path": path.replace("e", "d")})]
    with pytest.raises(UserError, match=rf"^pair {found[-1].pair_id}: .*missing from the store"):
        dataset.check(gone, found[0].encoder, True, world.store)


def test_impossible_layouts_are_refused_with_their_numbers(world, tmp_path):
    with pytest.raises(UserError, match=r"context 3.*does not divide 1 ranks"):
        layout(CPU, tiny.job(world, tmp_path / "run", parallel={"context": 3}).parallel, True)
    with pytest.raises(
        UserError, match=r"context: 16 does not divide both the 40 .* 32760 tokens .*: \[1, 2, 4, 5, 8, 10, 20, 40\]"
    ):
        check_context(16, 40, 32760, True, "wan")
    with pytest.raises(UserError, match=r"context: 2, but cogvideox's sequence cannot be split"):
        check_context(2, 48, 17550, False, "cogvideox")
    with pytest.raises(
        UserError, match=r"context: 5 does not divide the 48 attention heads; these do: \[1, 2, 3, 4, 6"
    ):
        check_context(5, 48, None, True, "mugv")
    check_context(8, 40, 32760, True, "wan")
    check_context(8, 48, None, True, "mugv")
    with pytest.raises(UserError, match=r"tensor: 2, but cogvideox's blocks cannot be split"):
        check_tensor(2, 1, 48, 17550, False, "cogvideox")
    with pytest.raises(
        UserError, match=r"tensor: 4 x context 4 does not divide both the 40 .* 32760 .*: \[1, 2, 5, 10\]"
    ):
        check_tensor(4, 4, 40, 32760, True, "wan")
    check_tensor(2, 4, 40, 32760, True, "wan")
    with pytest.raises(UserError, match=r"parallel.tensor 2 and parallel.compile do not go together"):
        layout(CPU, tiny.job(world, tmp_path / "run", parallel={"tensor": 2, "compile": True}).parallel, True)


@pytest.mark.parametrize(("tuning", "reference"), [("lora", "copy"), ("full", "offload")])
def test_what_moves_is_fp32_and_so_are_rotary_tables(world, tmp_path, tuning, reference):
    """In bf16: frozen weights are stored in it; rotary tables and what the optimiser moves are not."""
    lora = {"rank": 2, "targets": ["to_q"]}
    parallel = {"reference": reference}
    job = tiny.job(world, tmp_path / "run", tuning=tuning, precision="bf16", lora=lora, parallel=parallel)
    trainer = opened(job)
    assert {parameter.dtype for parameter in trainer.parameters.values()} == {torch.float32}
    frozen = [p for p in trainer.policy.parameters() if not p.requires_grad]
    assert {p.dtype for p in (*frozen, *trainer.copy.parameters())} == {torch.bfloat16}
    exact = trainer.family.load_transformer()
    for name, weight in exact.named_parameters():
        for model in (trainer.policy, trainer.copy):
            found = {n.replace(".base_layer.", "."): p for n, p in model.named_parameters()}[name].full_tensor()
            assert torch.equal(found, weight.to(found.dtype)), name
    for model in (trainer.policy, trainer.copy):
        for name, buffer in exact.named_buffers():
            assert torch.equal(dict(model.named_buffers())[name], buffer)
    row = trainer.step(0)
    assert row["dpo_loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert math.isfinite(row["grad_norm"])
    assert row["grad_norm"] > 0


def test_the_copy_has_the_policys_attention(world, tmp_path, monkeypatch):
    """Measured once: two measurements may name two backends, and then the policy would not start as its reference."""
    asked = []
    choosing = lambda model, device, dtype, wanted, *_: asked.append(wanted) or "native"  # noqa: E731
    monkeypatch.setattr("regdpo.parallel.attention.choose", choosing)
    opened(tiny.job(world, tmp_path / "run", tuning="full", parallel={"reference": "copy"}))
    assert asked == ["auto", "native"]


def test_adapters_start_as_peft_starts_them(world, tmp_path):
    """A uniform within 1 / sqrt(inputs), B zero; other ones with another seed, in each layer its own."""
    lora = {"rank": 64, "targets": ["to_q", "to_v"]}
    job = tiny.job(world, tmp_path / "run", tuning="lora", lora=lora)
    found = weights(opened(job))
    halves = {half: [value for name, value in found.items() if f".lora_{half}." in name] for half in "AB"}
    assert len(halves["A"]) == len(halves["B"]) == 8
    assert not any(value.any() for value in halves["B"])
    for value in halves["A"]:
        bound = value.shape[1] ** -0.5
        assert value.abs().max() <= bound
        assert value.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    other = weights(opened(job.model_copy(update={"stage": job.stage.model_copy(update={"seed": 4})})))
    different = [*halves["A"], *(value for name, value in other.items() if ".lora_A." in name)]
    assert len({tuple(value.flatten().tolist()) for value in different}) == 16


LORA = {"rank": 4, "alpha": 16, "targets": ["to_q", "to_v"]}


def test_adapters_go_on_from_their_start(world, tmp_path):
    """The model begins as the file has it, the reference is the same at step 1, and what comes out loads."""
    start = tiny.with_adapters(world, Lora.model_validate(LORA))
    stored = load_file(world.store.existing(start.model.ref.lora) / "pytorch_lora_weights.safetensors")
    job = tiny.job(start, tmp_path / "run", tuning="lora", lora=LORA, steps=2)
    trainer = opened(job)
    assert trainer.copy is not None
    for name, value in weights(trainer).items():
        wanted = stored["transformer." + name.replace(".default.", ".")]
        assert torch.equal(value, wanted / 4 if ".lora_B." in name else wanted)
    trainer.train()
    first, second = rows(tmp_path / "run")
    assert first["win_gap"] == first["lose_gap"] == 0
    assert second["win_gap"] != 0
    family = open_family(start.model.ref, world.store, CPU)
    model = family.load_transformer()
    found = load_file(tmp_path / "run/export/pytorch_lora_weights.safetensors")
    assert found.keys() == stored.keys()
    model.load_lora_adapter(found, adapter_name="trained")


def test_adapters_that_cannot_go_on_are_refused(world, tmp_path):
    start = tiny.with_adapters(world, Lora.model_validate(LORA))
    for settings, line in (
        ({"tuning": "full"}, r"^model sft/seed0: has adapters, which tuning `full` would lose"),
        ({"lora": {**LORA, "rank": 8}}, r"lora: the adapters go on, and .* is \(4, 48\) at their start, not \(8, 48\)"),
        ({"lora": {**LORA, "targets": ["to_q"]}}, r"lora: the adapters go on, and their start has one there: .*to_v"),
        ({"parallel": {"reference": "adapters"}}, r"reference: without its adapters the model is not what it started"),
    ):
        with pytest.raises(UserError, match=line):
            opened(tiny.job(start, tmp_path / "run", **{"tuning": "lora", "lora": LORA, **settings}))


def test_merged_adapters_are_part_of_the_weights(world, tmp_path, monkeypatch):
    """To rounding those that peft merges; in several files too. What is trained on them begins as they are."""
    start = tiny.with_adapters(world, Lora.model_validate(LORA))
    model: Any = open_family(start.model.ref, world.store, CPU).load_transformer()
    model.fuse_lora()
    wanted = {name.replace(".base_layer", ""): it for name, it in model.state_dict().items() if ".lora_" not in name}
    monkeypatch.setattr("regdpo.models.weights.FILE_BYTES", 1e5)
    made = merged.merged(start.model, world.store)
    assert not made.ref.lora
    assert made.ref.digest != start.model.ref.digest
    folder = world.store.existing(made.ref.transformer)
    assert len(list(folder.glob("*.safetensors"))) > 2
    theirs = WanTransformer3DModel.from_pretrained(folder).state_dict()
    assert theirs.keys() == wanted.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-7)
    trainer = opened(tiny.job(replace(start, model=made), tmp_path / "run", objective="sft"))
    for name, value in weights(trainer).items():
        assert torch.equal(value, theirs[name])
    assert merged.merged(start.model, world.store) == made


def test_weights_of_another_architecture_are_told(world, tmp_path):
    trainer = opened(tiny.job(world, tmp_path / "run"))
    state = {name: value.full_tensor() for name, value in trainer.policy.state_dict().items()}
    path = world.store.relative("models", "a" * 64)
    with world.store.writing(path) as folder:
        folder.mkdir()
        save_file({name: value for name, value in state.items() if "blocks.1." not in name}, folder / FILE)
    ref = world.model.ref.model_copy(update={"transformer": path})
    model = world.model.model_copy(update={"ref": ref})
    with pytest.raises(UserError, match=r"lacks blocks\.1\..* more; it is not the checkpoint of its config.json$"):
        opened(tiny.job(world, tmp_path / "run").model_copy(update={"model": model}))


def test_a_model_that_masks_its_attention_takes_sdpa_alone():
    assert choose(torch.nn.Identity(), torch.device("cuda"), torch.bfloat16, flash=False) == "native"
    with pytest.raises(UserError, match=r"attention: this model takes `native` alone, not flash"):
        choose(torch.nn.Identity(), torch.device("cuda"), torch.bfloat16, "flash", flash=False)


def test_a_best_one_goes_when_a_better_one_is_safe(world, tmp_path):
    """A kill before the next step checkpoint drops the newest best, so the one before must still be there."""
    trainer = opened(tiny.job(world, tmp_path / "run", objective="sft"))
    names = lambda: sorted(path.name for path in trainer.checkpoints.folder.iterdir())  # noqa: E731
    for save, step in (("save_best", 1), ("save", 2), ("save_best", 3), ("finish", None)):
        getattr(trainer.checkpoints, save)(*([step] if step else []))
    assert names() == ["best_0000001", "best_0000003", "step_0000002"]
    assert trainer.checkpoints.load() == 2
    assert names() == ["best_0000001", "step_0000002"]
    for save, step in (("save_best", 3), ("save", 4), ("finish", None)):
        getattr(trainer.checkpoints, save)(*([step] if step else []))
    assert names() == ["best_0000003", "step_0000002", "step_0000004"]
    assert trainer.checkpoints.load_best() == 3


def test_a_missing_optimiser_is_told(world, tmp_path):
    with pytest.raises(UserError, match=r"adamw_8bit needs the package torchao"):
        opened(tiny.job(world, tmp_path / "run", objective="sft", optimizer="adamw_8bit"))


def test_labelled_samples_are_trained_on(world, tmp_path):
    """By themselves, in balance; gaps are of good or of bad ones, and an evaluation counts both."""
    labelled = tiny.with_labels(world, tmp_path)
    sft = {"sft": {"r": "dgr"}}
    trainer = opened(tiny.job(labelled, tmp_path / "run", "kto", terms=sft, steps=3, eval_every=3))
    weights = {row.label: row.weight for row in trainer.rows}
    good = sum(row.label == "good" for row in trainer.rows)
    assert weights["good"] * good == pytest.approx(weights["bad"] * (len(trainer.rows) - good))
    trainer.train()
    for step, row in enumerate(rows(tmp_path / "run")):
        labels = [it.label for it in trainer.order.step(step)]
        assert row["good"] == labels.count("good") / 4
        assert ("win_gap" in row, "lose_gap" in row) == ("good" in labels, "bad" in labels)
        assert not {"dgr", "margin", "dpo_loss"} & row.keys()
    (last,) = rows(tmp_path / "run", "eval")
    (held_out,) = (it for it in labelled.latents if it.split == "validation")
    assert held_out.label == "good"
    assert last["win_gap"] == pytest.approx(last["error"] - float(trainer.reference_errors[0]), abs=1e-6)
    assert "lose_gap" not in last
    assert last["accuracy"] == (last["win_gap"] < 0)


def test_a_labelled_batchs_gradient_is_the_losses_own(world, tmp_path):
    """NFT by autograd through the implicit policies' answers, which our loss never forms. Its slope in the error is the
    mix, of bad samples too, but the SFT term is of good ones alone."""
    labelled = tiny.with_labels(world, tmp_path)
    trainer = opened(tiny.job(labelled, tmp_path / "run", "nft", micro_batch=4, terms={"sft": {"r": "dgr"}}))
    with torch.no_grad():
        for number, parameter in enumerate(trainer.parameters.values()):
            local = parameter.to_local()
            local.add_(0.02 * torch.sin(torch.arange(local.numel()) + number).view(local.shape))
    passes = trainer.passes
    ((batch_rows, places),), count = trainer.chunks(0)
    found = passes.backward(batch_rows, places, count, 0)
    ours = {name: parameter.grad.full_tensor().clone() for name, parameter in trainer.parameters.items()}
    trainer.optimizer.zero_grad()
    batch = passes.load(batch_rows, 0)
    with torch.no_grad():
        reference = residuals(passes.family, passes.copy, batch.x0, batch.noise, batch.sigma, batch.inputs)
    policy = residuals(passes.family, passes.policy, batch.x0, batch.noise, batch.sigma, batch.inputs)
    signed = torch.where(batch.good, 0.5, -0.5).view(-1, 1, 1, 1, 1)
    loss = batch.weight * (((1 - signed) * reference + signed * policy) ** 2).mean((1, 2, 3, 4)) / 0.5
    loss = loss + 0.5 * batch.weight * batch.good * (policy**2).mean((1, 2, 3, 4))
    assert 0 < batch.good.sum() < len(batch.good)
    loss.mean().backward()
    torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-4, atol=1e-6)
    scale = max(float(gradient.abs().max()) for gradient in ours.values())
    for name, parameter in trainer.parameters.items():
        torch.testing.assert_close(ours[name], parameter.grad.full_tensor(), rtol=1e-3, atol=1e-4 * scale)


def test_a_running_reference_point_goes_on_from_a_checkpoint(world, tmp_path):
    """z of a step is the mean of the gains before it, at least 0."""
    terms = {"point_decay": 0.5}
    whole = opened(tiny.job(world, tmp_path / "whole", "kto", terms=terms, micro_batch=1))
    whole.train()
    point, found = 0.0, rows(tmp_path / "whole")
    for row in found:
        assert row["reference_point"] == pytest.approx(max(0.0, point), abs=1e-7)
        point = 0.5 * point - 0.5 * (row["win_gap"] + row["lose_gap"]) / 2
    assert point != 0
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/step_0000004")
    again = opened(tiny.job(world, tmp_path / "cut", "kto", terms=terms, micro_batch=1))
    again.train()
    assert [(row["loss"], row["reference_point"]) for row in rows(tmp_path / "cut")] == [
        (row["loss"], row["reference_point"]) for row in found
    ]


def test_what_an_objective_cannot_be_given_is_refused(world, tmp_path):
    labelled = tiny.with_labels(world, tmp_path)
    with pytest.raises(UserError, match=r"pair pair0: is a sample with the label `good`, .* take kto, ddo or nft"):
        opened(tiny.job(labelled, tmp_path / "run", "dpo"))
    with pytest.raises(UserError, match=r"parallel.reference: cached cannot train nft"):
        opened(tiny.job(world, tmp_path / "run", "nft", {"reference": "cached"}))
    for said, message in (("1,2", "segments `1,2`: '2' is none"), ("1,1,1,0", "has 4 segments and 3 latent frames")):
        one = [row.model_copy(update={"segments": said}) for row in world.latents]
        with pytest.raises(UserError, match=f"^pair pair0: {message}"):
            dataset.check(one, world.model.ref.digest, True, world.store, temporal=4)
    good = opened(tiny.job(labelled, tmp_path / "run", "sft"))
    assert {row.label for row in good.rows} == {"good"}


def test_segments_lie_on_latent_frames():
    """Of 81 frames in 21 latents, four a latent but for the first: by the middles in frames, written out."""
    found = segments.of_frames(5, 21, 4)
    middles = [0.5, *(4 * latent - 1 for latent in range(1, 21))]
    assert found == [int(5 * middle / 81) for middle in middles]
    assert segments.of_frames(3, 3, 1) == [0, 1, 2]
