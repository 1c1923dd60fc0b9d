"""Grown models compute what the small ones did, and train on in their own directions."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor

from regdpo.core.digests import folder_digest
from regdpo.core.errors import UserError
from regdpo.models import growth, weights
from regdpo.models.growth import Asked
from regdpo.models.mugv_transformer import MugVTransformer3DModel
from regdpo.models.weights import FILE, INDEX

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
"""Of the greatest output."""
TINY = {
    "num_attention_heads": 3,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 10,
    "freq_dim": 16,
    "ffn_dim": 40,
    "num_layers": 2,
}
WANS: dict[str, dict] = {
    "as the default's": {**TINY, "cross_attn_norm": False},
    "with a timestep for each token": TINY,
    "with image tokens": {**TINY, "image_dim": 14, "added_kv_proj_dim": 36, "pos_embed_seq_len": 6},
}


@pytest.fixture(params=TOLERANCE, ids=["float32", "float64"])
def dtype(request, monkeypatch) -> torch.dtype:
    """Models cast up by ``.float()``, which has to mean float64 before they are built."""
    if request.param == torch.float64:
        monkeypatch.setattr(Tensor, "float", Tensor.double)
    return request.param


def small(kind: type, config: dict, folder: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A model none of whose tensors is constant, in a folder."""
    torch.manual_seed(0)
    model = kind(**config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model.eval()


def opened(kind: Any, folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """As ``from_pretrained`` does, which rounds some of a Wan's weights to float32 whatever type it is asked for."""
    model = kind.from_config(kind.load_config(folder)).to(dtype)
    model.load_state_dict(load_file(folder / FILE))
    return model.eval()


def given(case: str, dtype: torch.dtype) -> dict:
    inputs = {
        "hidden_states": torch.randn(2, 4, 3, 4, 6, dtype=dtype),
        "timestep": torch.rand(2, dtype=dtype) * 1000,
        "encoder_hidden_states": torch.randn(2, 512 if "image" in case else 5, 10, dtype=dtype),
    }
    if "each token" in case:
        inputs["timestep"] = torch.rand(2, 18, dtype=dtype) * 1000
    if "image" in case:
        inputs["encoder_hidden_states_image"] = torch.randn(4, 3, 14, dtype=dtype)
    return inputs


def far(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("asked", [Asked(), Asked(noise=0.5, seed=1), Asked(times=3, noise=0.5)], ids=str)
@pytest.mark.parametrize("case", WANS)
def test_a_grown_wan_answers_as_the_small_one(case, asked, dtype, tmp_path):
    before = small(WanTransformer3DModel, WANS[case], tmp_path / "small", dtype)
    growth.grow_denoiser(tmp_path / "small", tmp_path / "grown", asked)
    after = opened(WanTransformer3DModel, tmp_path / "grown", dtype)
    assert after.config.num_attention_heads == 3 * asked.times
    assert after.config.attention_head_dim == 12
    assert after.blocks[0].ffn.net[0].proj.weight.shape == (40 * asked.times, 36 * asked.times)
    inputs = given(case, dtype)
    with torch.no_grad():
        answer, wanted = after(**inputs).sample, before(**inputs).sample
    assert far(answer, wanted) <= TOLERANCE[dtype]


@pytest.mark.parametrize("asked", [Asked(), Asked(times=3, noise=0.5)], ids=str)
def test_a_grown_mug_v_answers_as_its_published_code(asked, dtype, tmp_path):
    """The vectors are what the published code made of the small weights, in float64 or in float32."""
    vectors = load_file(ROOT / "tests/golden/mugv_dit.safetensors")
    config = {"in_channels": 6, "num_attention_heads": 4, "attention_head_dim": 12, "num_layers": 2, "text_dim": 20}
    before = MugVTransformer3DModel(**config).to(dtype)
    before.load_state_dict({name[12:]: it.to(dtype) for name, it in vectors.items() if name.startswith("weights.dit.")})
    before.save_pretrained(tmp_path / "small")
    growth.grow_denoiser(tmp_path / "small", tmp_path / "grown", asked)
    after = opened(MugVTransformer3DModel, tmp_path / "grown", dtype)
    kind = "ref64" if dtype == torch.float64 else "out"
    for case in ("t2v", "i2v", "odd", "mix"):
        names = ("x", "timestep", "fps", "y", "mask", "x_mask", "frame_indice")
        x, time, rate, text, *rest = (vectors.get(f"in.{case}.{name}") for name in names)
        with torch.no_grad():
            answer = after(x.to(dtype), time.to(dtype), rate.to(dtype), text.to(dtype).squeeze(1), *rest)[0]
        assert far(answer, vectors[f"{kind}.{case}.out"]) <= TOLERANCE[dtype]


def test_noise_alone_makes_the_gradients_of_copies_differ(tmp_path):
    small(WanTransformer3DModel, TINY, tmp_path / "small")
    inputs = given("", torch.float32)
    for noise, alike in ((0.0, True), (0.1, False)):
        growth.grow_denoiser(tmp_path / "small", tmp_path / f"grown{noise}", Asked(noise=noise))
        model = WanTransformer3DModel.from_pretrained(tmp_path / f"grown{noise}")
        model(**inputs).sample.square().mean().backward()
        for layer in (model.patch_embedding, model.blocks[0].attn1.to_q, model.blocks[1].ffn.net[2]):
            assert (far(*layer.weight.grad.chunk(2)) < 1e-4) == alike


def wan(width: int, ffn: int, layers: int) -> int:
    """Parameters of a text-to-video model of Wan 2.1, counted by hand."""
    linear = width**2 + width
    attention = 4 * linear + 2 * width
    block = 2 * attention + 2 * width + 2 * width * ffn + ffn + width + 6 * width
    ends = 64 * width + width + 64 * width + 64 + 2 * width
    embedders = (256 * width + width + linear) + (4096 * width + width + linear) + 6 * linear
    return layers * block + ends + embedders


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("wan21_t2v_1_3b", wan(1536, 8960, 30), wan(3072, 17920, 30)),
        ("wan21_t2v_14b", wan(5120, 13824, 40), wan(10240, 27648, 40)),
    ],
)
def test_how_large_published_models_become(name, before, after, monkeypatch, capsys):
    command(monkeypatch, name)
    assert capsys.readouterr().out == f"{name}: {before:,} parameters before, {after:,} after\n"


def test_every_tensor_of_mug_v_10b_has_a_rule():
    """Its half was what it was grown from: 24 heads of 72."""
    growing = growth.GROWTHS["MugVTransformer3DModel"]
    ten = {"_class_name": "MugVTransformer3DModel", "num_attention_heads": 24}
    assert growth.sizes("config.json", ten, Asked())[1] == 10_830_321_984
    assert {growing.rule(name).rows for name in growing.empty(ten).state_dict()} == {0, 1, 2, 3, 6}


def test_weights_keep_their_type_and_come_in_several_files(tmp_path, monkeypatch):
    small(WanTransformer3DModel, TINY, tmp_path / "small", torch.bfloat16)
    growth.grow_denoiser(tmp_path / "small", tmp_path / "one", Asked(noise=0.1))
    monkeypatch.setattr(weights, "FILE_BYTES", 50_000)
    growth.grow_denoiser(tmp_path / "small", tmp_path / "many", Asked(noise=0.1))
    parts = set(json.loads((tmp_path / "many" / INDEX).read_text())["weight_map"].values())
    assert {path.name for path in (tmp_path / "many").glob("*.safetensors")} == parts
    assert len(parts) > 2
    one = load_file(tmp_path / "one" / FILE)
    assert {it.dtype for it in one.values()} == {torch.bfloat16}
    many = WanTransformer3DModel.from_pretrained(tmp_path / "many", dtype=torch.bfloat16).state_dict()
    for name, tensor in one.items():
        assert torch.equal(many[name].to(torch.bfloat16), tensor), name


def command(monkeypatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["grow.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "scripts/grow.py"))["main"]()


def test_a_denoiser_alone_is_grown_by_the_command(tmp_path, monkeypatch, capsys):
    before = growth.parameters(small(WanTransformer3DModel, TINY, tmp_path / "small"))
    command(monkeypatch, tmp_path / "small", tmp_path / "grown", "--noise", "0.02", "--seed", "3")
    after = growth.parameters(WanTransformer3DModel.from_pretrained(tmp_path / "grown"))
    assert f"{before:,} parameters before, {after:,} after" in capsys.readouterr().out
    origin = json.loads((tmp_path / "grown" / growth.ORIGIN).read_text())
    assert (origin["name"], origin["times"], origin["noise"], origin["seed"]) == ("small", 2, 0.02, 3)
    part = {"source": folder_digest(tmp_path / "small"), "parameters_before": before, "parameters": after}
    assert origin["parts"] == {"": part}


def test_mistakes_are_told(tmp_path, monkeypatch):
    folder, out = tmp_path / "small", tmp_path / "out"
    small(WanTransformer3DModel, TINY, folder)

    def told(message: str, *arguments: str | Path) -> None:
        with pytest.raises(UserError, match=message):
            command(monkeypatch, *(arguments or (folder, out)))
        assert not out.exists()

    told("--times: 1 does not make it wider", folder, out, "--times", "1")
    told("--noise: nan is no part", folder, out, "--noise", "nan")
    told("small: is there already", folder, folder)
    told("small/wide: lies in what it would be grown from", folder, folder / "wide")
    told("nowhere: there is no such folder", tmp_path / "nowhere", out)
    told("has neither model_index.json nor config.json", tmp_path, out)
    (tmp_path / "model.json").write_text("{}")
    told("is not a model file of regdpo", tmp_path / "model.json", out)
    config = json.loads((folder / growth.CONFIG).read_text())
    (folder / growth.CONFIG).write_text(json.dumps({**config, "ffn_dim": 44}))
    told("its config.json makes it")
    (folder / growth.CONFIG).write_text(json.dumps({**config, "_class_name": "UNet3D"}))
    told("is of the class UNet3D; what has rules to grow by is Wan")
    (folder / growth.CONFIG).write_text(json.dumps(config))
    (folder / FILE).write_bytes(b"no weights")
    told("cannot be read")
