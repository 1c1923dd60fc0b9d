"""The training of a video autoencoder: what windows it sees, what moves, what comes of it, and its mistakes."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_autoencoder
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tiny_autoencoder import job
from tiny_pipelines import video

from regdpo.config.autoencoder import AutoencoderTraining
from regdpo.config.stage_inputs import TrainVaeStage, VaeStage
from regdpo.core.digests import folder_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow
from regdpo.core.store import Store
from regdpo.launch.options import LaunchOptions
from regdpo.models import lpips, mugv_autoencoder
from regdpo.models.family import open_family
from regdpo.models.live import Live
from regdpo.models.spec import ModelFile
from regdpo.plan import architecture
from regdpo.plan import autoencoder as plan
from regdpo.runs.job import VaeJob
from regdpo.runs.stop import SIGNALS
from regdpo.stages import train_vae, vae
from regdpo.train import autoencoder
from regdpo.train.autoencoder import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> tiny_autoencoder.Footage:
    return tiny_autoencoder.footage(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, ModelFile]:
    return {name: tiny_autoencoder.model(tmp_path_factory.mktemp(name), name) for name in ("wan", "wan22", "mugv")}


@pytest.fixture
def alone(tmp_path):
    """A process group of one. A training takes signals for requests, so ours are put back."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def logged(run: Path, name: str = "metrics") -> list[dict]:
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def psnr(model: ModelFile, store: Store, clips: list[ClipRow]) -> float:
    """Of the held-out clip, as `snakemake vae` measures it."""
    stage = VaeStage.model_validate({"vae": {}, "split": "test", "precision": "auto", "tiling": "auto"})
    (value,) = (row.value for row in vae.measure(stage, model, clips[-1:], store, CPU) if row.metric == "psnr")
    assert value is not None
    return value


def put(trainer: Trainer, store: Store, name: str) -> ModelFile:
    """The model with the autoencoder that a trainer holds now."""
    with store.writing(f"runs/{name}") as folder:
        trainer.autoencoder.save_pretrained(folder)
    model = trainer.job.model
    return model.model_copy(update={"ref": model.ref.model_copy(update={"vae": f"runs/{name}"})})


@pytest.mark.usefixtures("alone")
def test_a_new_one_learns(footage, models, tmp_path):
    """The held-out clip's PSNR is 2 dB and more above that of the untrained one."""
    store, clips = footage.store, footage.clips
    settings = {"steps": 16, "start": "random", "lr": 3e-3, "windows": [1, 1, 2]}
    trainer = Trainer(job(footage, models["wan"], tmp_path / "run", **settings), CPU)
    before = psnr(put(trainer, store, "untrained"), store, clips)
    trainer.train()
    after = psnr(put(trainer, store, "trained"), store, clips)
    assert after > before + 2, (before, after)
    assert {row["latents"] for row in logged(tmp_path / "run")} == {1, 2}
    (evaluation,) = logged(tmp_path / "run", "eval")
    assert evaluation["psnr"] > 0


def test_a_critic_that_is_asked_for_begins_before_the_end():
    short = {"steps": 4, "loss": {"gan": 0.1, "gan_begins": 0.8}}
    assert AutoencoderTraining.model_validate(short).critic_begins == 3


@pytest.mark.usefixtures("alone")
def test_killed_before_the_critic_begins_it_ends_with_the_same_bytes(footage, models, tmp_path, monkeypatch):
    settings = {"windows": [1], "ema": 0.5, "loss": {"gan": 0.1, "gan_begins": 0.75}}
    whole, killed = (job(footage, models["wan"], tmp_path / name, **settings) for name in ("whole", "killed"))
    Trainer(whole, CPU).train()
    rows = logged(tmp_path / "whole")
    assert [("adversarial" in row, "critic" in row) for row in rows] == [(False, False)] * 3 + [(True, True)]
    with monkeypatch.context() as patch:
        step = Trainer.step
        patch.setattr(Trainer, "step", lambda self, number: step(self, number) if number < 3 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Trainer(killed, CPU).train()
    assert max(path.name for path in (tmp_path / "killed/checkpoints").glob("step_*")) == "step_0000002"
    Trainer(killed, CPU).train()
    timeless = [{key: value for key, value in row.items() if key in ("step", "loss", "critic")} for row in rows]
    assert [
        {key: row[key] for key in said} for row, said in zip(logged(tmp_path / "killed"), timeless, strict=True)
    ] == timeless
    assert folder_digest(tmp_path / "killed/export") == folder_digest(tmp_path / "whole/export")


@pytest.mark.usefixtures("alone")
def test_the_decoder_alone_is_trained_of_mug_v(footage, models, tmp_path):
    """In bf16 here, in windows of which each eight frames are encoded by themselves."""
    given = models["mugv"]
    before = open_family(given.ref, Store("nowhere"), CPU)._vae.state_dict()
    trainer = Trainer(job(footage, given, tmp_path / "run", steps=1, part="decoder", batch=1, precision="bf16"), CPU)
    trainer.train()
    moved = {name for name, value in trainer.autoencoder.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rpartition("coder.")[0] for name in moved} == {"spatial_vae.module.de", "temporal_vae.de", ""}
    assert {name for name in moved if "coder." not in name} == {
        "temporal_vae.post_quant_conv.conv.weight",
        "temporal_vae.post_quant_conv.conv.bias",
    }


@pytest.mark.parametrize(("name", "frames"), [("wan", {1: 1, 3: 9}), ("wan22", {2: 5}), ("mugv", {1: 8, 2: 16})])
def test_a_window_comes_back_as_the_autoencoder_itself_has_it(models, name, frames):
    """But for what diffusers cuts off beyond black and white. Of MUG-V no eight frames see the others while they are encoded."""
    family = open_family(models[name].ref, Store("nowhere"), CPU)
    trained: Any = family.autoencoder_to_train(fresh=False, decoder=False).eval()
    for latents, count in frames.items():
        assert family.window_frames(latents) == count
        pixels = torch.from_numpy(video((count, 32, 32))).permute(3, 0, 1, 2)[None] / 40.0  # far beyond white
        with torch.no_grad():
            made, mean, log_variance = family.reconstruct(trained, pixels, lambda mean, log_variance: 9 * mean)
            assert mean.shape[2] == log_variance.shape[2] == latents
            if name == "mugv":
                alone = [trained.encode(eight).latent_dist.mean for eight in pixels.split(8, 2)]
                torch.testing.assert_close(mean, torch.cat(alone, 2))
                features = trained.temporal_vae.decoder(trained.temporal_vae.post_quant_conv(9 * mean))
                torch.testing.assert_close(made, trained._pictures(features))
            else:
                torch.testing.assert_close(mean, trained.encode(pixels).latent_dist.mean)
                torch.testing.assert_close(made.clamp(-1, 1), trained.decode(9 * mean).sample)
                assert made.shape == pixels.shape


def test_a_clip_of_mug_v_is_a_still_and_a_window(models):
    """What training sees, windows of whole latents, and what is measured, a frame more, go the same way."""
    trained: Any = open_family(models["mugv"].ref, Store("nowhere"), CPU)._vae
    clip = torch.from_numpy(video((17, 16, 16))).permute(3, 0, 1, 2)[None] / 127.5 - 1
    still = clip[:, :, :1].expand(-1, -1, 8, -1, -1)
    with torch.no_grad():
        parts = [trained.encode(it).latent_dist.mean for it in (still, clip[:, :, 1:])]
        torch.testing.assert_close(trained.encode(clip).latent_dist.mean, torch.cat(parts, 2))
        made = [trained.decode_frames(part, 8 * part.shape[2]) for part in parts]
        torch.testing.assert_close(
            trained.decode(torch.cat(parts, 2)).sample, torch.cat([made[0][:, :, 7:], made[1]], 2)
        )


@pytest.mark.usefixtures("alone")
def test_a_clip_that_a_step_has_twice_is_seen_in_two_places(footage, models, tmp_path, monkeypatch):
    trainer = Trainer(job(footage, models["wan"], tmp_path / "run", batch=8, crop=8, windows=[1]), CPU)
    seen = []
    real = trainer._window
    monkeypatch.setattr(
        trainer, "_window", lambda clip, *how: seen.append((clip.clip_id, real(clip, *how))) or seen[-1][1]
    )
    trainer.step(0)
    by_clip = [[window for name, window in seen if name == clip.clip_id] for clip in footage.clips[:4]]
    assert [len(windows) for windows in by_clip] == [2] * 4
    assert not any(torch.equal(*windows) for windows in by_clip)


def test_pictures_that_are_computed_again_have_the_same_gradients(models, monkeypatch):
    family = open_family(models["mugv"].ref, Store("nowhere"), CPU)
    pixels, found = torch.from_numpy(video((8, 16, 16))).permute(3, 0, 1, 2)[None] / 127.5 - 1, []
    trained = family.autoencoder_to_train(fresh=False, decoder=False)
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(mugv_autoencoder, "_recomputed", lambda function, x: function(x))
        trained.zero_grad()
        made, *_ = family.reconstruct(trained, pixels, lambda mean, log_variance: mean)
        made.square().mean().backward()
        found.append({name: p.grad for name, p in trained.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*found, rtol=0, atol=0)


def lpips_files(folder: Path) -> dict[str, str]:
    """Of weights that are drawn."""
    rng, files = torch.Generator().manual_seed(0), {}
    for name, shapes in zip(("network", "heads"), lpips.empty(), strict=True):
        tensors = {
            key: torch.rand(it.shape, generator=rng) - (0.5 if it.dim() == 4 else 0) for key, it in shapes.items()
        }
        files[name] = str(folder / f"{name}.safetensors")
        save_file({key: it.abs() if name == "heads" else it / 10 for key, it in tensors.items()}, files[name])
    return files


@pytest.mark.usefixtures("alone")
def test_the_perceptual_term_and_what_a_window_allocates(models, tmp_path):
    """LPIPS' gradients alone bring LPIPS down; and the plan says of all terms and the critic what is allocated."""
    footage = tiny_autoencoder.footage(tmp_path, side=40)
    loss = {"l1": 0, "kl": 0, "perceptual": 1, "gan": 0.1, "gan_begins": 0.9}
    asked = {"loss": loss, "lpips": lpips_files(tmp_path), "windows": [2], "batch": 1, "steps": 10, "crop": 32}
    trainer = Trainer(job(footage, models["wan"], tmp_path / "run", **asked), CPU)
    rows = [trainer.step(number) for number in range(6)]
    assert rows[5]["loss"] == rows[5]["perceptual"]
    assert rows[5]["perceptual"] < 0.9 * rows[0]["perceptual"], rows
    assert all(not p.requires_grad for p in trainer.perceptual.parameters())

    ref = models["wan"].ref
    need = plan.need(architecture.of_folder("wan", ref.path, ref).family, trainer.settings, [(17, 40, 40)])
    own = [*trainer.autoencoder.parameters(), *trainer.critic.parameters()]
    fixed = [*trainer.perceptual.parameters()]
    for parameter in own:
        parameter.register_post_accumulate_grad_hook(lambda it: setattr(it, "grad", None))
    with Live([*own, *fixed]) as live:
        trainer._backward(trainer.clips[0], 2, 9, 0)
    assert need.weights == 4 * sum(it.nbytes for it in own) + sum(it.nbytes for it in fixed)
    assert 0.9 < need.work / live.peak < 1.1


def test_a_run_is_of_what_shapes_it(footage, models, tmp_path, monkeypatch):
    """Weights of LPIPS by their content, wherever they lie; not how often it is evaluated, or on how many ranks."""
    runs = []

    def train(asked: VaeJob, options: LaunchOptions, name: str) -> None:
        (Path(asked.run) / "export").mkdir(parents=True, exist_ok=True)
        (Path(asked.run) / "ran.json").write_text('{"device": "cpu", "attention": "", "places": []}')
        runs.append(asked.run)

    monkeypatch.setattr(train_vae, "train", train)
    files, settings = lpips_files(tmp_path), {"loss": {"perceptual": 1}, "steps": 1}
    given = models["wan"], footage.folder / "clips.parquet", footage.folder / "places.parquet", "code", footage.store

    def run(processes: int = 1, **changed) -> None:
        stage = TrainVaeStage.model_validate({"settings": settings | changed, "lpips": files})
        model, clips, places, code, store = given
        options = LaunchOptions(processes=processes, device="cpu", eval_every=processes)
        train_vae.outcome(stage, "trained", model, clips, places, code, store, options)

    run()
    files = {name: shutil.copy(path, f"{path}.copy.safetensors") for name, path in files.items()}
    run(processes=2)
    run(lr=0.5)
    save_file({"other": torch.zeros(1)}, files["heads"])
    run()
    assert runs[0] == runs[1]
    assert len({*runs}) == 3


def test_a_step_takes_each_clip_once_an_epoch():
    clips = [ClipRow.model_construct(clip_id=str(number)) for number in range(5)]
    taken = [clip.clip_id for step in range(5) for clip in autoencoder.batch(clips, 3, 0, step)]
    assert all(sorted(taken[first : first + 5]) == list("01234") for first in (0, 5, 10))
    assert taken[:5] != taken[5:10]


@pytest.mark.usefixtures("alone")
def test_mistakes_are_told(footage, models, tmp_path):
    for settings, message in (
        ({"windows": [1, 8]}, r"vae.train.windows: 8 latents of base are 29 frames, and clips have at most 17"),
        ({"crop": 4}, r"vae.train.crop: 4 is less than the 8 pixels of a latent"),
    ):
        with pytest.raises(UserError, match=message):
            Trainer(job(footage, models["wan"], tmp_path / "run", **settings), CPU).step(0)
    endless = Trainer(job(footage, models["wan"], tmp_path / "run", windows=[1], batch=1), CPU)
    with torch.no_grad():
        endless.parameters[0].fill_(float("inf"))
    for step in range(4):
        assert endless.step(step)["skipped"]
    with pytest.raises(UserError, match=r"step 5: not finite 5 times in a row; lower vae\.train\.lr"):
        endless.step(4)
