"""A tiny MUG-V goes the whole way, from footage to the page, in three stages: images and small clips, longer ones,
larger ones; the last by DPO, with losers of its base. Its autoencoder is trained and measured beside."""

import copy
import subprocess
from itertools import pairwise

import pytest
import tiny_pipelines
from imageio_ffmpeg import get_ffmpeg_exe
from project import CONFIG, Project
from safetensors.torch import load_file

from regdpo.core import manifests
from regdpo.core.rows import LatentRow, NegativeRow, ScoreRow
from regdpo.models.spec import ModelFile
from regdpo.report import vae

FILMS = {"image.mp4": (1, 48, 32), "low.mp4": (9, 32, 32), "high.mp4": (17, 32, 48)}
"""Upright, square and wide footage, and the frames, height and width of its clips."""
IMAGE, LOW, HIGH = ("x".join(map(str, size)) for size in FILMS.values())
LINKS = ("curriculum.1", "curriculum.2", "curriculum")


def configured() -> dict:
    values = copy.deepcopy(CONFIG)
    values["videos"] = {"root": "footage"}
    sizes = [{"frames": frames, "height": height, "width": width} for frames, height, width in FILMS.values()]
    filters = {"max_border": None, "max_flow": None, "max_frozen": 1, "min_motion": 0}
    values["clips"] = {"fps": 8, "buckets": sizes, "stride": 8, "shots": {"gradual": False}, "filters": filters}
    values["clips"]["shards"] = 1
    values["base"] = {"family": "mugv", "task": "t2v", "model": "model", "text_length": 16}
    sampling = {"steps": 2, "guidance": 4.0, "batch": 8}
    values["negatives"] = {"sampling": sampling, "shards": 1}
    settings = {"steps": 2, "batch": 2, "micro_batch": 2, "precision": "fp32", "tuning": "lora", "lora": {"rank": 2}}
    settings |= {"checkpoint_every": 2, "eval_every": 2, "timesteps": {"law": "logit_normal", "shift": "by_size"}}
    steps = [
        {"objective": "sft", "sizes": {IMAGE: [1, 0], LOW: [0, 1]}},
        {"objective": "sft", "sizes": {LOW: [1, 0], HIGH: [0, 1]}},
        {"objective": "dpo", "beta": 50, "sft": {"r": 1}, "sizes": {HIGH: 1}},
    ]
    values["train"] = {"seeds": [0], "settings": settings, "arms": {"curriculum": {"steps": steps}}}
    values["samples"] = {"limit": 1, "sampling": sampling}
    values["scores"]["vbench"] = {"python": "none"}
    values["launch"]["processes"] = 1
    training = {"steps": 2, "batch": 1, "windows": [1, 2], "crop": 16, "precision": "fp32", "lr": 1e-3}
    values["vae"] = {"report": True, "train": training | {"checkpoint_every": 2, "eval_every": 2}}
    return values


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("mugv"))
    tiny_pipelines.save(tiny_pipelines.CASES["mugv-t2v"], project.folder / "config/model")
    footage = project.folder / "config/footage"
    footage.mkdir()
    for name, (_, height, width) in FILMS.items():
        stripes = f"color=s={width}x{height}:r=8:d=21,geq=lum='mod(8*X+3*Y+6*N+N*N/7,256)':cb=128:cr=128"
        command = [get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", stripes, "-pix_fmt", "yuv420p"]
        subprocess.run([*command, str(footage / name)], check=True)
        (footage / f"{name}.txt").write_text("stripes move over the ground")
    values = configured()
    values["captions"] = {"source": "sidecar"}
    project.configure(values)
    done = project.snakemake("all")
    assert done.returncode == 0, done.stdout[-6000:]
    return project


def test_each_stage_is_trained_on_its_sizes(project: Project):
    results = project.folder / "results"
    shapes = {",".join(map(str, (4, (f - 1) // 8 + 1, h // 8, w // 8))) for f, h, w in FILMS.values()}
    assert {row.shape for row in manifests.read(results / "latents/gt.parquet", LatentRow)} == shapes
    assert {row.generator for row in manifests.read(results / "negatives.parquet", NegativeRow)} == {"base"}
    scored = {row.model for row in manifests.read(results / "scores.parquet", ScoreRow)}
    assert scored == {"real", "base", *(f"{link}/seed0" for link in LINKS)}


def test_its_adapters_move_in_every_stage(project: Project):
    found = []
    for link in LINKS:
        model = ModelFile.read(project.folder / f"results/train/{link}/seed0/model.json")
        (file,) = (project.folder / "store" / model.ref.lora).glob("*.safetensors")
        found.append(load_file(file))
    assert all("transformer.blocks.0.attn.qkv.lora_B.weight" in it for it in found)
    for before, after in pairwise(found):
        assert any(not tensor.equal(before[name]) for name, tensor in after.items())


def test_its_autoencoder_is_trained_and_has_a_section(project: Project):
    results = project.folder / "results"
    found = vae.read(results / "vae.json")
    cells = {(it.model, it.frames): it.cells["psnr"].mean for it in found.settings}
    assert cells.keys() == {(model, frames) for model in ("base", "trained") for frames, *_ in FILMS.values()}
    assert all(cells.values())
    assert cells["base", 17] != cells["trained", 17]
    page = (results / "report/index.html").read_text()
    section = page.partition('<section id="vae">')[2].partition("</section>")[0]
    assert section.count('<th scope="row">trained</th>') == len(FILMS)
    moved = load_file(results / "vae/trained/diffusion_pytorch_model.safetensors")
    before = load_file(project.folder / "config/model/vae/diffusion_pytorch_model.safetensors")
    assert moved.keys() == before.keys()
    assert any(not tensor.equal(before[name]) for name, tensor in moved.items())
