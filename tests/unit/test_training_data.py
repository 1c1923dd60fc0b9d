"""Batches, order and logs of a training."""

import itertools
import json
import shutil
from collections import Counter
from types import SimpleNamespace

import pytest
import tiny
import torch

from regdpo.config.schema import Encode, Sampling
from regdpo.config.stage_inputs import LatentsStage, TrainStage
from regdpo.config.training import TrainSettings
from regdpo.core.errors import UserError
from regdpo.core.rows import Geometry, LatentRow, SampleRow
from regdpo.core.store import Store
from regdpo.data.latent_files import read_latents
from regdpo.evaluate import proxies
from regdpo.models.errors import mean_squares, residuals
from regdpo.models.family import open_family
from regdpo.objectives.schedule import generator
from regdpo.runs.metrics import Log, terms
from regdpo.sampling.render import Request, render
from regdpo.stages import latents
from regdpo.train import dataset
from regdpo.train.trainer import Trainer, rate

CPU = torch.device("cpu")


def load(
    world: tiny.World, rows: list[LatentRow], *what: object, dropout: float | None = None, **settings: object
) -> dataset.Batch:
    shared = TrainSettings.model_validate(settings)
    return dataset.load(rows, world.store, CPU, dataset.HALVES, shared, (0.0, 1.0), *what, dropout=dropout)


def test_halves_share_noise_and_timestep_unless_told_otherwise(world):
    batch = load(world, world.latents[:3], 0, 5)
    assert torch.equal(batch.noise[:3], batch.noise[3:])
    assert torch.equal(batch.sigma[:3], batch.sigma[3:])
    assert not torch.equal(batch.x0[:3], batch.x0[3:])
    own = load(world, world.latents[:3], 0, 5, shared_noise=False)
    assert torch.equal(own.noise[:3], batch.noise[:3])
    assert not torch.equal(own.noise[:3], own.noise[3:])


def test_a_pairs_noise_does_not_depend_on_its_batch(world):
    together, alone = load(world, world.latents[:3], 0, 5), load(world, world.latents[1:2], 0, 5)
    assert torch.equal(together.noise[1], alone.noise[0])
    assert not torch.equal(load(world, world.latents[1:2], 0, 6).noise, alone.noise)


def test_a_dropped_caption_is_the_empty_one_for_both_halves(world):
    """By the family's own encoding of nothing; a draw of (seed, step, pair) alone, and none in an evaluation."""
    family = open_family(world.model.ref, world.store, CPU)
    empty = family.encode_text([""])["text"][0]
    rows = world.latents
    own = load(world, rows, 0, 5).inputs["text"]
    assert not any(torch.equal(text, empty) for text in own)
    shares = []
    for step in range(60):
        batch = load(world, rows, 0, step, dropout=0.3)
        dropped = [torch.equal(text, empty) for text in batch.inputs["text"]]
        assert dropped[: len(rows)] == dropped[len(rows) :]
        for text, plain, gone in zip(batch.inputs["text"], own, dropped, strict=True):
            assert gone or torch.equal(text, plain)
        alone = load(world, rows[1:2], 0, step, dropout=0.3)
        assert torch.equal(alone.inputs["text"][0], batch.inputs["text"][1])
        assert torch.equal(alone.noise[0], load(world, rows[1:2], 0, step).noise[0])
        shares.append(sum(dropped) / len(dropped))
    assert 0.22 < sum(shares) / len(shares) < 0.38  # 480 draws: four standard deviations
    assert len(set(shares)) > 2


def test_captions_cannot_be_dropped_for_one_that_is_not_there(world):
    rows = [row.model_copy(update={"empty": ""}) for row in world.latents]
    dataset.check(rows, world.model.ref.digest, True, world.store)
    with pytest.raises(
        UserError, match=r"^pair pair0: has no empty caption .* set train.settings.caption_dropout to 0"
    ):
        dataset.check(rows, world.model.ref.digest, True, world.store, 0.1)


def test_what_is_said_of_a_pair_goes_with_its_latents(world):
    sample = {"pair_id": "sample", "label": "bad", "loser": "", "loser_sha256": ""}
    pairs = [world.pairs[0].model_copy(update=what) for what in (sample, {"segments": "-1,0,1"})]
    encode = LatentsStage.model_validate({"latents": {"dtype": "fp32"}})
    rows = latents.encode(encode, world.model, pairs, world.store, CPU)
    assert [(row.label, row.segments, row.has_loser) for row in rows] == [("bad", "", False), ("", "-1,0,1", True)]
    tensors = [read_latents(row, world.store) for row in rows]
    assert "loser" not in tensors[0]
    assert torch.equal(tensors[0]["winner"], tensors[1]["winner"])


def test_every_epoch_takes_every_pair_once(world):
    rows = world.latents
    order = dataset.Order(rows, 4, seed=1)
    steps = [order.step(step) for step in range(4)]
    for epoch in (steps[:2], steps[2:]):
        assert sorted(row.pair_id for step in epoch for row in step) == [row.pair_id for row in rows]
    assert steps[:2] != steps[2:]
    drawn = [torch.randperm(8, generator=generator("order", 1, epoch)).tolist() for epoch in range(4)]
    odd = dataset.Order(rows, 3, seed=1)  # epochs follow without a seam
    found = [rows.index(row) for step in range(10) for row in odd.step(step)]
    assert found == list(itertools.chain(*drawn))[:30]


def sized(**counts: int) -> list[LatentRow]:
    """Pairs of several shapes, mixed."""
    row = {"split": "train", "clip_id": "", "path": "", "sha256": "", "encoder": "", "has_loser": True}
    shapes = sorted((place / count, shape) for shape, count in counts.items() for place in range(count))
    return [LatentRow(pair_id=f"{number}", shape=shape, **row) for number, (_, shape) in enumerate(shapes)]


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_a_step_takes_one_shape_and_every_pair_is_seen_as_often(batch):
    """Also of a shape with fewer pairs than a step; in any order that steps are asked for, as when one goes on."""
    counts = {"wide": 13, "tall": 5, "long": 2}
    rows = sized(**counts)
    drawn = {shape: 11 * count // batch for shape, count in counts.items()}  # steps of eleven epochs; the rest waits
    order, steps = dataset.Order(rows, batch, seed=2), sum(drawn.values())
    taken = [order.step(step) for step in range(steps)]
    again = dataset.Order(rows, batch, seed=2)
    assert [again.step(step) for step in reversed(range(steps))] == taken[::-1]
    assert all(len({row.shape for row in step}) == 1 and len(step) == batch for step in taken)
    assert Counter(step[0].shape for step in taken) == drawn
    seen = Counter[str]()
    for step in taken:
        seen.update(row.pair_id for row in step)
        for shape in counts:
            times = [seen[row.pair_id] for row in rows if row.shape == shape]
            assert max(times) - min(times) <= 1
    turns = [step[0].shape for step in taken]
    other = dataset.Order(rows, batch, seed=3)
    assert turns != [other.step(step)[0].shape for step in range(steps)]
    assert turns[: steps // 2] != turns[steps // 2 :]


def test_a_step_is_of_one_source():
    rows = [row.model_copy(update={"origin": "gt" if int(row.pair_id) % 3 else "other"}) for row in sized(wide=18)]
    order = dataset.Order(rows, 2, seed=2)
    taken = [[row.origin for row in order.step(step)] for step in range(9)]
    assert sorted(taken) == [["gt", "gt"]] * 6 + [["other", "other"]] * 3


@pytest.mark.parametrize("data", [1, 2, 3])
def test_ranks_share_a_step_of_one_shape(data):
    """All ranks find the same step, whatever the layout; each takes its part, in micro-batches."""
    rows = sized(wide=13, tall=5)
    whole = dataset.Order(rows, 6, seed=2)
    for step in range(9):
        positions: dict[int, LatentRow] = {}
        for rank in range(data):
            own = SimpleNamespace(
                order=dataset.Order(rows, 6, seed=2),
                layout=SimpleNamespace(data=data, data_rank=rank),
                job=SimpleNamespace(micro_batch=2),
            )
            chunks, count = Trainer.chunks(own, step)
            assert count == 6 // data
            for taken, places in chunks:
                assert len(taken) <= 2
                positions |= dict(zip(places, taken, strict=True))
        assert [positions[place] for place in range(6)] == whole.step(step)


def test_error_is_the_mean_square_of_noise_less_data_less_prediction(world):
    family = open_family(world.model.ref, world.store, CPU)
    batch = load(world, world.latents[:1], 0)
    model = lambda **inputs: (torch.full_like(inputs["hidden_states"][:, :16], 0.5),)  # noqa: E731
    found = mean_squares(residuals(family, model, batch.x0, batch.noise, batch.sigma, batch.inputs))
    wanted = ((batch.noise - batch.x0 - 0.5) ** 2).mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(found, wanted)


def test_latents_that_cannot_be_trained_on_are_named(world):
    row = world.latents[0]
    digest = world.model.ref.digest
    with pytest.raises(UserError, match=r"pair pair0: encoded by another model"):
        dataset.check([row], "other", True, world.store)
    with pytest.raises(UserError, match=r"pair pair0: has no loser"):
        dataset.check([row.model_copy(update={"has_loser": False})], digest, True, world.store)
    with pytest.raises(UserError, match="missing from the store"):
        dataset.check([row.model_copy(update={"path": "latents/00/none"})], digest, True, world.store)
    path = world.store.relative("latents", "f" * 64, ".safetensors")
    with world.store.writing(path) as temporary:
        temporary.write_bytes(world.store.existing(row.path).read_bytes()[:200])
    with pytest.raises(UserError, match=r"pair pair0: .* is damaged"):
        load(world, [row.model_copy(update={"path": path})], 0)


def test_a_flipped_bit_in_a_latent_or_a_clip_is_refused(world, tmp_path):
    """Where they are used: in training, encoding and scoring."""
    store = Store(tmp_path / "store")
    shutil.copytree(world.store.root, store.root)
    row, pair = world.latents[0], world.pairs[0]
    path = store.existing(row.path)
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 4
    path.write_bytes(whole)
    with pytest.raises(UserError, match=rf"^pair {row.pair_id}: .* is damaged \(sha256 .*--forcerun encode_latents$"):
        read_latents(row, store)
    encoded = LatentsStage.model_validate({"latents": {"dtype": "fp32"}})
    pair, row = (it.model_copy(update={"origin": "others"}) for it in (pair, row))  # where it is from stays with it
    assert latents.encode(encoded, world.model, [pair], Store(store.root), CPU) == [row]  # who makes it puts it aside
    assert path.read_bytes() == world.store.existing(row.path).read_bytes()
    shutil.copy(store.existing(pair.loser), store.existing(pair.winner))
    stage = LatentsStage.model_validate({"latents": {"dtype": "bf16"}})
    with pytest.raises(UserError, match=r"is damaged \(sha256 .*--forcerun cut_clips$"):
        latents.encode(stage, world.model, [pair], store, CPU)
    loser, winner = (pair.loser, pair.loser_sha256), (pair.winner, pair.winner_sha256)
    request = Request(pair.caption, *winner, seed=0, geometry=Geometry.of_row(pair))
    sampling = Sampling(steps=1, guidance=1)
    with pytest.raises(UserError, match=r"is damaged \(sha256 .*--forcerun cut_clips$"):
        render("negatives", world.model, [request], sampling, Encode(), store, CPU)
    for (path, digest), (real, real_digest) in ((winner, loser), (loser, winner)):
        values = {"sample_id": "a", "model": "base", "clip_id": "a", "seed": 0, "steps": 1, "guidance": 1, "shift": 1}
        sample = SampleRow(**values, path=path, sha256=digest, real=real, real_sha256=real_digest)
        with pytest.raises(UserError, match=r"is damaged \(sha256 .*--forcerun cut_clips$"):
            proxies.score([sample], store)


def test_rate_warms_up_and_falls():
    settings = TrainSettings(steps=10, warmup=4, schedule="cosine")
    assert [rate(settings, step) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rate(settings, 7) == pytest.approx(0.5)
    assert rate(settings.model_copy(update={"schedule": "constant"}), 9) == 1.0


def test_logged_terms_by_hand():
    stage = TrainStage(objective="reg_dpo", beta=4.0, r="dgr", seed=0, settings=TrainSettings())
    e_w, e_l, r_w, r_l = (torch.tensor([value]) for value in (0.2, 0.9, 0.5, 0.7))
    e, r = torch.cat([e_w, e_l]), torch.cat([r_w, r_l])
    found = {name: value.item() for name, value in terms(stage, torch.tensor([1.0]), e, r, 1).items()}
    assert found["win_gap"] == pytest.approx(-0.3)
    assert found["lose_gap"] == pytest.approx(0.2)
    assert found["margin"] == pytest.approx(2 * 0.5)
    assert found["accuracy"] == 1
    assert found["loser_dominant_ratio"] == 0
    assert found["dgr"] == found["r"] == pytest.approx(2 / (1 + 2.718281828**1.0), rel=1e-5)


def test_a_resumed_log_drops_what_lies_beyond_the_checkpoint(tmp_path):
    log = Log(tmp_path, 0, 4)
    for step in (1, 2, 3):
        log.step({"step": step, "loss": 0.5})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 4, "lo')  # cut off by a kill
    log = Log(tmp_path, 2, 4)
    log.step({"step": 3, "loss": 0.25})
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, 0.5), (3, 0.25)]
