"""What autoencoders give back of clips: each figure against its formula or another library, and the stage as a whole."""

import math
from pathlib import Path

import jinja2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_pipelines import CASES, FPS, save, video

from regdpo.config.evaluation import Lpips as LpipsFiles
from regdpo.config.schema import Bootstrap, Encode
from regdpo.config.stage_inputs import VaeStage, VaeTotalsStage
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, PlaceRow
from regdpo.core.store import Store
from regdpo.data.video import read_stored, write_frames
from regdpo.evaluate import reconstruction
from regdpo.evaluate.lpips import Lpips
from regdpo.models.family import open_family
from regdpo.models.lpips import LAYERS
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.report import page
from regdpo.report import vae as vae_page
from regdpo.stages import vae, vae_totals

CPU = torch.device("cpu")
FRAMES, HEIGHT, WIDTH = 9, 48, 64


def stage(**keys) -> VaeStage:
    return VaeStage.model_validate({"vae": keys, "split": "test", "precision": "auto", "tiling": "auto"})


def test_figures_are_those_of_their_formulas():
    rng = np.random.default_rng(0)
    real = rng.integers(20, 200, (3, 16, 24, 3)).astype(np.uint8)
    error = np.array([4, -10, 7]).reshape(3, 1, 1, 1) * np.ones_like(real, dtype=np.int64)
    found = reconstruction.likeness(real, (real + error).astype(np.uint8), None)
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / ((16 + 100 + 49) / 3)))
    assert found["flicker"] == pytest.approx((14 + 17) / 2)
    assert found["lpips"] == reconstruction.NO_WEIGHTS
    flat, other = np.full((1, 16, 16, 3), 100, np.uint8), np.full((1, 16, 16, 3), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    still = reconstruction.likeness(flat, other, None)
    assert still["ssim"] == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1))  # no variance is left
    assert still["flicker"] == "one frame"
    assert reconstruction.likeness(flat, flat, None)["psnr"] == reconstruction.EXACT


def test_lpips_is_that_of_its_package(tmp_path):
    """Figures of lpips 0.1.4 (net `alex`, version 0.1) with these weights and pictures."""
    rng = np.random.RandomState(0)
    network, heads = {}, {}
    for number, (place, given, made, kernel, *_) in enumerate(LAYERS):
        shape = made, given, kernel, kernel
        values = rng.standard_normal(shape) * np.sqrt(2 / (given * kernel**2))
        network[f"features.{place}.weight"] = torch.from_numpy(values).float()
        network[f"features.{place}.bias"] = torch.from_numpy(rng.standard_normal(made) * 0.1).float()
        heads[f"lin{number}.model.1.weight"] = torch.from_numpy(rng.random_sample((1, made, 1, 1))).float()
    files = LpipsFiles(network=str(tmp_path / "network.safetensors"), heads=str(tmp_path / "heads.pth"))
    save_file(network, files.network)
    torch.save(heads, files.heads)
    a, b = np.random.RandomState(1).randint(0, 256, (2, 2, 40, 56, 3)).astype(np.uint8)
    lpips = Lpips(files, CPU)
    assert lpips(a, b) == pytest.approx((0.9515382051467896 + 0.9832820892333984) / 2, rel=1e-5)
    assert lpips(a, a // 2 + 64) == pytest.approx((0.07162896543741226 + 0.07023505121469498) / 2, rel=1e-5)
    assert reconstruction.likeness(a, b, lpips)["lpips"] == lpips(a, b)
    assert reconstruction.likeness(a[:, :24], b[:, :24], lpips)["lpips"] == "a side is shorter than 31 pixels"
    with pytest.raises(UserError, match=r"vae.lpips.heads: wants lin0.model.1.weight of shape .*, got none"):
        Lpips(LpipsFiles(network=files.network, heads=files.network), CPU)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """A store with two clips of two videos, which both are of the test split."""
    store, clips = Store(tmp_path_factory.mktemp("vae")), []
    for number in range(2):
        path = store.relative("clips", f"clip{number}", ".mp4")
        with store.writing(path) as file:
            write_frames(file, video((FRAMES, HEIGHT, WIDTH), number), FPS, Encode(crf=0))
        clips.append(
            ClipRow(
                clip_id=f"clip{number}", status="accepted", source=f"{number}.mp4", source_digest="", frames=FRAMES,
                fps=FPS, width=WIDTH, height=HEIGHT, path=path, sha256=file_digest(store.existing(path)),
            )
        )  # fmt: skip
    return store, clips


def model(folder: Path, name: str) -> ModelFile:
    """A tiny checkpoint."""
    save(CASES[name], folder)
    ref = ModelRef(family="wan", task="t2v", where="folder", path=str(folder), fps=FPS, text_length=16, digest="")
    return ModelFile(name="base", ref=ref, digest="")


def error_of(file: ModelFile, frames: np.ndarray) -> np.ndarray:
    """What diffusers' own calls leave of error, 0..255."""
    autoencoder = open_family(file.ref, Store("nowhere"), CPU)._vae
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.no_grad():
        back = autoencoder.decode(autoencoder.encode(pixels).latent_dist.mode()).sample
    return ((back[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 3, 0).numpy() - frames.astype(np.float64)


def test_a_clip_through_an_autoencoder_of_convolutions(footage, tmp_path):
    store, (clip, _) = footage
    wan = model(tmp_path / "model", "wan-t2v")
    found = {it.metric: it for it in vae.measure(stage(frames=[5]), wan, [clip], store, CPU)}
    error = error_of(wan, read_stored(store, clip.path, clip.sha256)[:5])
    assert found["psnr"].value == pytest.approx(10 * math.log10(255**2 / np.mean(error**2)), abs=0.02)
    assert (found["psnr"].resolution, found["psnr"].frames) == (HEIGHT, 5)
    small = vae.measure(stage(resolutions=[4]), wan, [clip], store, CPU)
    assert {it.missing for it in small} == {"a latent is of 8 pixels each way (vae.resolutions)"}


def test_clips_through_the_block_pca_codec(footage, tmp_path):
    """At several sizes, then as means with intervals, and on the page."""
    store, clips = footage
    codec = model(tmp_path / "model", "wan-codec-t2v")
    rows = vae.measure(stage(resolutions=[32, 48, 96], frames=[5, 9, 13]), codec, clips, store, CPU)
    assert len(rows) == 2 * 3 * 3 * len(reconstruction.METRICS)
    found = {(it.clip_id, it.resolution, it.frames, it.metric): it for it in rows}
    for clip in clips:
        error = error_of(codec, read_stored(store, clip.path, clip.sha256))
        psnr, changes = 10 * math.log10(255**2 / np.mean(error**2)), np.abs(error[1:] - error[:-1]).mean()
        assert found[clip.clip_id, 48, 9, "psnr"].value == pytest.approx(psnr, abs=0.02)
        assert found[clip.clip_id, 48, 9, "flicker"].value == pytest.approx(changes, rel=0.01)
        assert found[clip.clip_id, 48, 9, "decode_fps"].value > 0
        small = found[clip.clip_id, 32, 5, "ssim"]
        assert (small.height, small.width) == (32, 40)  # of 43 columns, those that make whole blocks
        assert found[clip.clip_id, 96, 9, "ssim"].missing.startswith("clips of 64x48 would have to be enlarged")
        assert found[clip.clip_id, 48, 13, "ssim"].missing == "clips have 9 frames (clips.frames)"
    with pytest.raises(UserError, match=r"vae.frames: base takes 4k\+1 frames, got 8; 5 would do"):
        vae.measure(stage(frames=[8]), codec, clips, store, CPU)

    totals = vae_totals.totals(VaeTotalsStage(bootstrap=Bootstrap()), rows, clips)
    first = totals.settings[0]
    assert (first.model, first.resolution, first.frames, first.sizes, first.clips) == ("base", 32, 5, ["40x32"], 2)
    values = [found[clip.clip_id, 32, 5, "psnr"].value for clip in clips]
    interval = first.cells["psnr"].mean
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.n == 2
    assert interval.low < min(values) < max(values) < interval.high  # of two videos little is known
    assert first.cells["lpips"].mean is None
    vae_page.write(totals, tmp_path / "vae.json")
    assert vae_page.read(tmp_path / "vae.json") == totals
    assert f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]" in vae_totals.text(totals)
    assert "Decoded: clips have 9 frames (clips.frames)" in vae_totals.text(totals)
    html = drawn(totals)
    assert f"<b>{interval.mean:.2f}</b>" in html
    assert "base, 96, 9 frames" in html
    assert html.count(f"LPIPS: {reconstruction.NO_WEIGHTS}") == 1  # for all sizes together
    alone = vae_totals.totals(
        VaeTotalsStage(bootstrap=Bootstrap()), [row for row in rows if row.clip_id == "clip0"], clips
    )
    assert drawn(alone).count("no interval: ") == 1  # not in every cell


def drawn(totals: vae_page.Reconstruction) -> str:
    """The section of the page."""
    loader = jinja2.PackageLoader("regdpo", "report")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"num": page.number, "span": page.span, "breakable": page.breakable}
    return environment.get_template("vae.html").render(vae=totals, confidence="95 %")


def test_held_out_clips_alone_are_measured_evenly(footage):
    clip = footage[1][0]
    clips = [clip.model_copy(update={"clip_id": f"{number:02d}"}) for number in range(12)]
    places = [PlaceRow(clip_id=it.clip_id, split="test" if int(it.clip_id) % 2 else "train") for it in clips]
    chosen = vae.held_out(stage(limit=3), clips, places)
    assert [it.clip_id for it in chosen] == ["01", "05", "09"]
    assert len(vae.held_out(stage(limit=None), clips, places)) == 6
    with pytest.raises(UserError, match="no clip is in the test split"):
        vae.held_out(stage(), clips, places[::2])
