"""The folder of a trained model: what lies in it, and that the README's lines load what regdpo loads."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from regdpo.config.schema import Sampling
from regdpo.config.stage_inputs import TrainStage
from regdpo.config.training import Lora
from regdpo.core.rows import Geometry
from regdpo.data.video import read_frames
from regdpo.models.family import open_family
from regdpo.models.loading import lines, video_lines
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.sampling.denoise import denoise
from regdpo.stages import weights

CPU = torch.device("cpu")
GEOMETRY = Geometry.model_validate(tiny.GEOMETRY)
SETTINGS = {"lora": {"rank": 2, "alpha": 8}}
README = Path("results/weights/dpo/seed3/README.md")


def training(tuning: str) -> TrainStage:
    settings = {**SETTINGS, "tuning": tuning}
    return TrainStage.model_validate({"objective": "dpo", "beta": 500, "seed": 3, "settings": settings})


def changed(model: torch.nn.Module, part: str) -> dict[str, torch.Tensor]:
    """The tensors of a model that a training changed."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if part in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng))
    return {name: tensor for name, tensor in model.state_dict().items() if part in name}


@pytest.fixture(scope="module", params=["lora", "full"])
def trained(request, world: tiny.World) -> ModelFile:
    """A fully tuned transformer; or adapters, on one that was tuned in full before, as the embedded default's are."""
    ref, store = world.model.ref, world.store
    tuned = store.relative("runs", "1" * 64) + "/export"
    if not store.resolve(tuned).exists():
        family = open_family(ref, store, CPU)
        with store.writing(tuned) as folder:
            family.save_transformer(changed(family.load_transformer(), ""), folder)
    ref = ref.model_copy(update={"transformer": tuned})
    if request.param == "lora":
        family, adapters = open_family(ref, store, CPU), store.relative("runs", "2" * 64) + "/export"
        model = family.load_transformer()
        family.add_lora(model, Lora(rank=2, alpha=8))
        with store.writing(adapters) as folder:
            folder.mkdir()
            family.save_lora(model, changed(model, "lora_"), folder)
        ref = ref.model_copy(update={"lora": adapters})
    return ModelFile(name="dpo/seed3", ref=ref, digest="d" * 64, arm="dpo", seed=3, objective="dpo")


@pytest.fixture
def written(trained, world, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    weights.write(training("lora" if trained.ref.lora else "full"), [GEOMETRY], trained, world.store, README)
    return README.parent


def test_the_readmes_lines_give_what_regdpo_gives(trained, world, written):
    load, make = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    first = tiny.clip(1)[:1]
    Image.fromarray(first[0]).save("first_frame.png")
    theirs: dict = {}
    exec(load, theirs)
    family = open_family(trained.ref, world.store, CPU, torch.bfloat16)
    ours = family.load_denoiser().eval()
    assert same_tensors(theirs["pipe"].transformer, ours)

    theirs["pipe"].set_progress_bar_config(disable=True)
    torch.manual_seed(5)
    exec(make, theirs)
    torch.manual_seed(5)
    noise = torch.randn(1, *family.latent_shape(9, 32, 32))
    inputs = family.encode_text(["What the video shows"]) | family.encode_first_frame(torch.from_numpy(first), 9)
    sampling = Sampling(steps=50, guidance=5.0, shift=None)  # the pipeline's own
    with torch.no_grad():
        frames = family.decode_video(denoise(family, ours, inputs, noise, sampling))[0].numpy()
    assert np.abs(theirs["video"] * 255 - frames).mean() < 1.5
    assert read_frames("video.mp4").shape == (9, 32, 32, 3)


def same_tensors(theirs: torch.nn.Module, ours: torch.nn.Module) -> bool:
    """Adapters go by another name in each."""
    found, wanted = (
        {re.sub(r"default(_\d)?\.", "", name): tensor for name, tensor in model.state_dict().items()}
        for model in (theirs, ours)
    )
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_adapters_are_copied_and_a_transformer_is_linked(trained, world, written):
    """To write into a copy harms nothing; 57 GB of a transformer are not written twice."""
    source = world.store.existing(trained.ref.lora or trained.ref.transformer)
    names = {path.name for path in source.iterdir()}
    assert {path.name for path in written.iterdir()} == names | {"README.md"}
    for name in names:
        assert (written / name).read_bytes() == (source / name).read_bytes()
        assert (written / name).samefile(source / name) == (not trained.ref.lora)
        assert not (written / name).is_symlink()


def test_a_folder_is_written_again(trained, world, written, monkeypatch):
    """What it had of other weights goes, what is not ours stays; where there are no links there are copies."""
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    for name in ("pytorch_lora_weights.safetensors", "diffusion_pytorch_model-00001-of-00002.safetensors", "my.txt"):
        (written / name).unlink(missing_ok=True)
        (written / name).write_text("old")

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    weights.write(training("lora" if trained.ref.lora else "full"), [GEOMETRY], trained, world.store, README)
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before | {"my.txt": b"old"}


def test_the_readme_names_base_and_strength(trained, world, written):
    text = README.read_text()
    assert f"base: `{world.store.existing(trained.ref.path)}`" in text
    assert ("alpha / rank = 8 / 2 = 4 is in the weights already" in text) == bool(trained.ref.lora)
    assert "objective: dpo (beta 500)" in text
    assert "comfyui.safetensors" in text or not trained.ref.lora


HUB = {"family": "wan", "task": "t2v", "where": "hub", "text_length": 512, "digest": "", "fps": 16}
HUB |= {"path": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "revision": "a1b2"}


def test_readme_of_the_project_has_the_lines():
    """As they are for the model of the smallest recipe."""
    ref = ModelRef(**HUB | {"revision": None}, lora="runs/11/1111/export")
    shown = lines(ref, "results/weights/reg_dpo/seed0", ref.path)
    text = (Path(__file__).parents[2] / "README.md").read_text()
    assert "\n".join(f"    {line}".rstrip() for line in shown.splitlines()) in text


def test_lines_of_a_hubs_model_of_two_experts_and_of_strange_names():
    ref = ModelRef(**HUB | {"family": "wan22"}, expert="low", lora="a/b")
    code = lines(ref, 'a"b\n\udc80', "x'y")
    assert "pipe.load_lora_weights('a\"b\\n\\udc80', load_into_transformer_2=True)" in code
    assert 'WanPipeline.from_pretrained(\n    "x\'y",\n    revision="a1b2",\n' in code
    full = lines(ref.model_copy(update={"lora": "", "transformer": "c"}), "w", "base")
    assert 'transformer_2 = AutoModel.from_pretrained("w", ' in full
    assert "    transformer_2=transformer_2,\n" in full
    assert "frame_rate=16" in video_lines(ref.model_copy(update={"family": "ltx_video"}), 9, 32, 32)
