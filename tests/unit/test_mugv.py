"""MUG-V's denoiser and autoencoder against vectors that its published code gave on small random weights
(tests/golden/README.md), in fp32 and in float64."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_pipelines import tokenizer
from torch import Tensor

from regdpo.config.schema import Sampling
from regdpo.config.training import Lora, TrainSettings
from regdpo.core.errors import UserError
from regdpo.core.store import Store
from regdpo.models import conversions
from regdpo.models import mugv_transformer as denoiser
from regdpo.models.family import Family, open_family
from regdpo.models.mugv_autoencoder import AutoencoderMugV
from regdpo.models.mugv_transformer import MugVTransformer3DModel
from regdpo.models.spec import ModelRef
from regdpo.models.weights import FILE
from regdpo.sampling.denoise import denoise
from regdpo.train import dataset
from regdpo.train.passes import Passes

GOLDEN = Path(__file__).parents[1] / "golden"
NEAR = {"out": 5e-5, "ref64": 1e-9}
"""Of the greatest value of a tensor, as the vectors' makers say of a fair implementation."""
DENOISER = {
    "in_channels": 6,
    "num_attention_heads": 4,
    "attention_head_dim": 12,
    "num_layers": 2,
    "text_dim": 20,
}
AUTOENCODER = {
    "latent_channels": 6,
    "block_out_channels": (8, 8, 16, 16),
    "norm_num_groups": 4,
    "temporal_filters": 8,
    "temporal_multipliers": (1, 2, 2, 3),
    "temporal_layers": 2,
    "temporal_norm_num_groups": 4,
    "micro_frames": 16,
    "latents_mean": (0.0,) * 6,
    "latents_std": (1.0,) * 6,
}
GRADIENTS = (
    "blocks.0.attn.qkv.weight",
    "blocks.0.scale_shift_table",
    "blocks.1.attn.k_norm.weight",
    "blocks.1.cross_attn.kv_linear.bias",
    "final_layer.scale_shift_table",
    "fps_embedder.mlp.2.bias",
    "start_token",
)


class Vectors:
    """One file of them in one precision."""

    def __init__(self, name: str, kind: str):
        self.kind, self.tensors = kind, load_file(GOLDEN / f"{name}.safetensors")
        self.dtype = torch.float64 if kind == "ref64" else torch.float32

    def given(self, name: str) -> Tensor | None:
        tensor = self.tensors.get(f"in.{name}")
        return tensor.to(self.dtype) if tensor is not None and tensor.is_floating_point() else tensor

    def weights(self, part: str) -> dict[str, Tensor]:
        start = f"weights.{part}."
        return {name.removeprefix(start): it.to(self.dtype) for name, it in self.tensors.items() if start in name}

    def wanted(self, name: str) -> Tensor:
        """Tensors that have no twin in float64 (masks) are the same in both."""
        return self.tensors.get(f"{self.kind}.{name}", self.tensors[f"out.{name}"])

    def same(self, name: str, ours: Tensor, exact: float = 0.0) -> None:
        """exact: what is allowed in float64 where a part of ours is float32."""
        theirs = self.wanted(name)
        assert ours.shape == theirs.shape, name
        worst = (ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()
        allowed = exact or NEAR[self.kind] if self.kind == "ref64" else NEAR["out"]
        assert worst <= allowed, f"{name}: {worst:.1e}"


@pytest.fixture(params=NEAR)
def kind(request, monkeypatch) -> str:
    if request.param == "ref64":
        monkeypatch.setattr(Tensor, "float", Tensor.double)
    return request.param


@pytest.fixture
def dit(kind) -> tuple[Vectors, MugVTransformer3DModel]:
    vectors = Vectors("mugv_dit", kind)
    model = MugVTransformer3DModel(**DENOISER).to(vectors.dtype).eval()
    model.load_state_dict(vectors.weights("dit"))
    return vectors, model


def asked(vectors: Vectors, model: MugVTransformer3DModel, case: str) -> Tensor:
    text = vectors.given(f"{case}.y")
    assert text is not None
    return model(
        vectors.given(f"{case}.x"),
        vectors.given(f"{case}.timestep"),
        vectors.given(f"{case}.fps"),
        text.squeeze(1),
        vectors.given(f"{case}.mask"),
        vectors.given(f"{case}.x_mask"),
        vectors.given(f"{case}.frame_indice"),
    )[0]


@pytest.mark.parametrize("case", ["t2v", "i2v", "odd", "mix"])
def test_the_denoisers_answers(dit, case):
    """Text of several lengths; a clean frame; a patch that has to be filled up; places beyond the table."""
    vectors, model = dit
    with torch.no_grad():
        vectors.same(f"{case}.out", asked(vectors, model, case))


@pytest.mark.parametrize("case", ["t2v", "i2v"])
def test_the_denoisers_gradients(dit, case):
    vectors, model = dit
    target = vectors.given(f"{case}.grad_target")
    loss = ((asked(vectors, model, case)[:, :6] - target) ** 2).mean()
    loss.backward()
    vectors.same(f"{case}.loss", loss.detach().view(1))
    parameters = dict(model.named_parameters())
    for name in GRADIENTS:
        vectors.same(f"{case}.grad.{name}", parameters[name].grad)


def test_what_is_inside_of_the_denoiser(dit):
    """Embeddings, rotary tables and each part of a block, so that a mistake is found where it is."""
    vectors, model = dit
    found: dict[str, Tensor] = {}
    parts = {
        "t_emb": model.t_embedder,
        "t_mlp": model.t_block,
        "fps_emb": model.fps_embedder,
        "y_emb": model.y_embedder,
        "b0_attn": model.blocks[0].attn,
        "b0_cross": model.blocks[0].cross_attn,
        "b0": model.blocks[0],
        "b1": model.blocks[1],
    }
    hooks = [
        part.register_forward_hook(lambda m, a, out, name=name: found.__setitem__(name, out))
        for name, part in parts.items()
    ]
    with torch.no_grad():
        asked(vectors, model, "i2v")
    for name, ours in found.items():
        if name == "t_mlp":
            ours = ours[1]
        vectors.same(f"i2v.mid.{name}", ours.unsqueeze(1) if name == "y_emb" else ours)
    with torch.no_grad():
        asked(vectors, model, "t2v")
        vectors.same("t2v.mid.t_emb", model.t_embedder(vectors.given("t2v.timestep")))
    mask = vectors.given("t2v.mask")
    vectors.same("t2v.mid.y_lens", mask.sum(1))
    vectors.same("t2v.mid.y_packed", found["y_emb"][mask != 0].unsqueeze(0))
    for hook in hooks:
        hook.remove()
    places = denoiser.positions(vectors.given("t2v.frame_indice"), [3, 2, 3])
    vectors.same("t2v.mid.freq_cis", denoiser.rotary(places, 12).squeeze(2))
    steps = torch.arange(9)
    alike = torch.stack([steps, steps, steps], 1).unsqueeze(0)
    table = denoiser.rotary(alike, 12)[0, :, 0]  # (9, 6, 2): two frequencies of each axis
    vectors.same("rope.space", table[:, :2])
    vectors.same("rope.time", table[:, 4:])
    last = denoiser.positions(torch.tensor([[0, 478, 479, 500]]), [2, 1, 1])
    assert last[0, :, 2].tolist() == [0, 478, 479, 479]
    vectors.same("rope.time_last", denoiser.rotary(last[:, 1:3], 12)[0, :, 0, 4:])


def test_the_denoiser_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = MugVTransformer3DModel()
    assert sum(parameter.numel() for parameter in model.parameters()) == 10_830_321_984
    assert len(model.state_dict()) == 1197
    assert sum(parameter.numel() for parameter in model.blocks[0].parameters()) == 191_175_840


@pytest.fixture
def vae(kind) -> tuple[Vectors, AutoencoderMugV]:
    vectors = Vectors("mugv_vae", kind)
    model = AutoencoderMugV(**AUTOENCODER).to(vectors.dtype).eval()
    model.load_state_dict(vectors.weights("vae"))
    return vectors, model


@pytest.mark.parametrize("frames", [8, 12, 16, 17, 24])
def test_the_autoencoder_encodes(vae, frames):
    """Eight by eight, whatever is not a multiple of that; draws as those of the vectors."""
    vectors, model = vae
    with torch.no_grad():
        posterior = model.encode(vectors.given(f"enc{frames}.video")).latent_dist
        vectors.same(f"enc{frames}.moments", posterior.parameters)
        noise = [vectors.given(f"enc{frames}.noise.{i}") for i in range(2)]
        drawn = posterior.mean + posterior.std * torch.cat([it for it in noise if it is not None], 2)
        vectors.same(f"enc{frames}.latent", (drawn - model.shift) / model.scale)
        if frames == 8:
            vectors.same("enc8.spatial_feature", model._features(vectors.given("enc8.video")))


@pytest.mark.parametrize("frames", [8, 16, 17, 20, 24])
def test_the_autoencoder_decodes(vae, frames):
    vectors, model = vae
    found: list[Tensor] = []
    model.temporal_vae.decoder.register_forward_hook(lambda m, a, out: found.append(out))
    with torch.no_grad():
        latents = vectors.given(f"dec{frames}.latent") * model.scale + model.shift
        vectors.same(f"dec{frames}.video", model.decode_frames(latents, frames))
    if frames == 16:
        vectors.same("dec16.temporal_feature", found[0])


def test_the_autoencoders_gradients(vae):
    vectors, model = vae
    latents = vectors.given("dec8.latent") * model.scale + model.shift
    loss = ((model.decode_frames(latents, 8) - vectors.given("grad_target")) ** 2).mean()
    loss.backward()
    vectors.same("grad.loss", loss.detach().view(1))
    parameters = dict(model.named_parameters())
    for name in [name.removeprefix("out.grad.") for name in vectors.tensors if name.startswith("out.grad.")]:
        if name != "loss":
            vectors.same(f"grad.{name}", parameters[name].grad)


def test_the_autoencoder_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = AutoencoderMugV()
    count = {name: sum(it.numel() for it in part.parameters()) for name, part in model.named_children()}
    assert count == {"spatial_vae": 83_653_771, "temporal_vae": 328_099_128}


@pytest.fixture
def family(tmp_path) -> Family:
    """Of a checkpoint without weights and text encoder."""
    files = {
        "model_index.json": {"vae": ["regdpo", "AutoencoderMugV"]},
        "transformer/config.json": {"_class_name": "MugVTransformer3DModel", **DENOISER},
        "vae/config.json": AUTOENCODER,
        "scheduler/scheduler_config.json": {"_class_name": "FlowMatchEulerDiscreteScheduler"},
    }
    for path, values in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(json.dumps(values))
    ref = ModelRef(family="mugv", task="i2v", where="folder", path=str(tmp_path), fps=30.0, text_length=7, digest="")
    return open_family(ref, Store(tmp_path), torch.device("cpu"))


TRAJECTORIES = {"traj_t2v": 0, "traj_i2v": 1}
"""And how many of their frames are given clean."""


@pytest.mark.parametrize("case", [*TRAJECTORIES, "traj_frac"])
def test_every_answer_of_a_trajectory(dit, case):
    """Of the vectors' own latents, timesteps and masks, with the caption and with the negative text."""
    vectors, model = dit
    text = vectors.given(f"{case}.y").squeeze(1)
    for step in range(4):
        z, t, mask = (vectors.wanted(f"{case}.step{step}.{name}") for name in ("z_in", "t", "x_mask"))
        both = [torch.cat([it, it]) for it in (z, t, mask)]
        with torch.no_grad():
            answer = model(both[0], both[1], torch.full((1,), 30.0), text, vectors.given(f"{case}.mask_text"), both[2])
        vectors.same(f"{case}.step{step}.pred", answer[0])


def tell(scheduler: Any, times: Tensor) -> Any:
    """The scheduler, with other timesteps of the same sigmas."""
    assert torch.allclose(scheduler.timesteps.double(), times, rtol=1e-6)
    scheduler.timesteps = times
    return scheduler


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_a_video_is_sampled_as_there(family, dit, case, monkeypatch):
    """Our loop from the same noise to the end: guidance, shift, sign, and a first frame that stays. The timesteps that
    the denoiser is told are fp32; in float64 the vectors' are taken."""
    vectors, model = dit
    if vectors.kind == "ref64":
        times = torch.cat([vectors.wanted(f"{case}.step{step}.t") for step in range(4)])
        ours = family.sampler
        monkeypatch.setattr(family, "sampler", lambda *of: tell(ours(*of), times))
        family.dtype = torch.float64
    text, mask, z = (vectors.given(f"{case}.{name}") for name in ("y", "mask_text", "z"))
    inputs, negative = ({"text": text[i : i + 1, 0], "text_mask": mask[i : i + 1]} for i in (0, 1))
    if given := TRAJECTORIES[case]:
        inputs["first"] = z[:, :, :given]
    shift = math.sqrt(64 * 96) / 512 * math.sqrt(z.shape[2])  # of the pixels that the vectors name
    sampling = Sampling(steps=4, guidance=4.0, shift=shift)
    made = denoise(family, model, inputs, vectors.given(f"{case}.noise.0"), sampling, negative)
    vectors.same(f"{case}.final", made, exact=1e-6)


@pytest.mark.parametrize("case", [*TRAJECTORIES, "traj_frac"])
def test_every_step_of_a_trajectory(family, case, kind):
    """On our sampler's levels, by the vectors' answers: what goes into each step and what comes out at the end. There a
    frame whose mask is a fraction is noise until its timestep, and is noised anew then; and where rounding puts the first
    timestep above 1000, no frame takes part in the first step. Ours are given clean or not, from the first step on."""
    vectors = Vectors("mugv_dit", kind)
    clean, mask, fresh = (vectors.given(f"{case}.{name}") for name in ("z", "mask", "noise.0"))
    given = mask[:, None, :, None, None] == 0
    shift = math.sqrt(64 * 96) / 512 * math.sqrt(clean.shape[2])
    scheduler = family.sampler(4, shift, tuple(clean.shape[1:]))
    x, began = torch.where(given, clean, fresh), mask * 1000 >= vectors.wanted(f"{case}.step0.t")
    for step, t in enumerate(scheduler.timesteps):
        vectors.same(f"{case}.step{step}.t", t.view(1), exact=1e-6)
        begins = mask * 1000 >= vectors.wanted(f"{case}.step{step}.t")
        assert torch.equal(begins, vectors.wanted(f"{case}.step{step}.x_mask"))
        late, drawn = (begins & ~began)[:, None, :, None, None], vectors.given(f"{case}.noise.{step + 1}")
        x, began = torch.where(late, family.noised(x, drawn, t.to(x).view(1) / 1000), x), began | begins
        vectors.same(f"{case}.step{step}.z_in", x, exact=1e-6)
        told, plain = vectors.wanted(f"{case}.step{step}.pred")[:, :6].chunk(2)
        after = scheduler.step(-(plain + 4 * (told - plain)), t, x, return_dict=False)[0]
        x = torch.where(begins[:, None, :, None, None], after, x)
    vectors.same(f"{case}.final", x, exact=1e-6)


def test_timesteps_are_shifted_by_the_size(family, kind):
    """As published with exact numbers, and with those that its pipeline rounds to bf16. Ours are fp32."""
    vectors = Vectors("mugv_dit", kind)
    for name, steps, shape in (
        ("720p_5s_25", 25, (14, 1280, 720)),
        ("image_512_1_10", 10, (1, 512, 512)),
        ("tiny_64x96_3_4", 4, (3, 64, 96)),
    ):
        frames, *sides = shape
        scheduler = family.sampler(steps, None, (6, frames, *(side // 8 for side in sides)))
        vectors.same(f"sched.{name}.f32args", scheduler.timesteps, exact=1e-6)
    for name, frames in (("720p_5s_25", 14), ("720p_3s_25", 10)):
        high, wide, long = (torch.tensor(it, dtype=torch.bfloat16) for it in (1280, 720, frames))
        shift = (high * wide / 512**2).sqrt() * long.sqrt()
        scheduler = family.sampler(25, shift.item(), (6, frames, 160, 90))
        vectors.same(f"sched.{name}.bf16args", scheduler.timesteps, exact=1e-6)


def test_training_shifts_by_the_size_of_its_clips(family, monkeypatch):
    """105 frames of 1280 x 720, and a picture of 512 x 512, which is not shifted."""
    taken = []
    monkeypatch.setattr(dataset, "load", lambda *given, **_: taken.append(given[4].timesteps))
    settings = TrainSettings.model_validate({"timesteps": {"law": "logit_normal", "shift": "by_size"}})
    stage = SimpleNamespace(settings=settings, seed=0)
    passes = SimpleNamespace(stage=stage, family=family, store=None, device=None, halves=(), dropout=0.1)
    for shape in ("24,14,160,90", "24,1,64,64"):
        Passes.load(passes, [SimpleNamespace(shape=shape)], 0)
    assert [law.shift for law in taken] == pytest.approx([7.0156, 1.0], abs=1e-4)
    assert {law.law for law in taken} == {"logit_normal"}


def test_a_clip_whose_one_latent_frame_is_given_is_not_trained_on(monkeypatch):
    given = {"first": (24, 1, 8, 8), "winner": (24, 2, 8, 8)}
    row = SimpleNamespace(pair_id="a", path="a", encoder="e", label="", has_loser=False, shape="24,2,8,8")
    monkeypatch.setattr(dataset, "latent_shapes", lambda row, store: given)
    dataset.check([row], "e", False, Store("."))
    row.shape, given["winner"] = "24,1,8,8", (24, 1, 8, 8)
    with pytest.raises(UserError, match=r"^pair a: .*nothing to learn; take base.task t2v"):
        dataset.check([row], "e", False, Store("."))


def test_noise_is_mixed_in_as_there(family, kind):
    vectors = Vectors("mugv_dit", kind)
    x0, noise = (vectors.given(f"add_noise.{name}") for name in ("x0", "noise"))
    sigma = 1 - (1 - vectors.tensors["in.add_noise.t"] / 1000)  # rounded to fp32 twice, as there
    vectors.same("add_noise.x_t", family.noised(x0, noise, sigma))


@pytest.fixture
def published(tmp_path) -> Path:
    """A folder with files as they are published, of small models, and a text encoder beside them."""
    torch.manual_seed(0)
    small = {
        "latent_channels": 6,
        "block_out_channels": (32,) * 4,
        "temporal_filters": 32,
        "temporal_multipliers": (1, 1, 2, 2),
        "temporal_layers": 1,
        "latents_mean": tuple(range(6)),
        "latents_std": (2.0,) * 6,
    }
    for name, model in {"dit": MugVTransformer3DModel(**DENOISER), "vae": AutoencoderMugV(**small)}.items():
        weights = {key: it.bfloat16() for key, it in reversed(model.state_dict().items())}
        torch.save(weights, tmp_path / f"{name}.pt")
    text = transformers.T5Config(d_model=20, d_kv=8, d_ff=37, num_layers=1, num_heads=2, vocab_size=64)
    transformers.T5EncoderModel(text).save_pretrained(tmp_path / "t5")
    tokenizer().save_pretrained(tmp_path / "t5")
    return tmp_path


def alike(one: Path, other: Path) -> bool:
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    same = all(it.dtype == second[name].dtype and torch.equal(it, second[name]) for name, it in first.items())
    return list(first) == list(second) and same


def test_the_published_files_are_converted_and_back_bit_for_bit(published):
    """Also with a denoiser that was tuned in full, as training exports it, and with adapters merged in."""
    options = {"text_encoder": str(published / "t5")}
    files = [published / "dit.pt", published / "vae.pt"]
    conversions.run("mugv", files, published / "model", options)
    ref = ModelRef(family="mugv", task="i2v", where="folder", path=str(published / "model"), text_length=9, digest="")
    store = Store(published)
    family = open_family(ref, store, torch.device("cpu"))
    family.check()
    frames = torch.randint(0, 255, (1, 9, 16, 16, 3), dtype=torch.uint8)
    assert family.encode_video(frames).shape == (1, 6, 2, 2, 2)
    assert family.encode_text(["a square"])["text"].shape == (1, 9, 20)

    conversions.run_back(published / "model", None, published / "back")
    assert all(alike(published / "back" / file.name, file) for file in files)
    state = {name: it + 1 for name, it in family.load_transformer().state_dict().items()}
    (published / "tuned").mkdir()
    family.save_transformer(state, published / "tuned")
    conversions.run_back(published / "model", published / "tuned", published / "after")
    after = torch.load(published / "after/dit.pt", weights_only=True)
    assert all(torch.equal(it, state[name]) for name, it in after.items())
    assert alike(published / "after/vae.pt", files[1])
    assert (published / "tuned" / FILE).exists()

    model = family.load_transformer()
    family.add_lora(model, Lora(rank=2, alpha=8))  # of strength 4
    torch.nn.init.normal_(model.blocks[1].attn.qkv.lora_B.default.weight)
    (published / "lora").mkdir()
    family.save_lora(model, {name: it.detach() for name, it in model.state_dict().items()}, published / "lora")
    conversions.run_back(published / "model", published / "lora", published / "merged")
    merged, base = (torch.load(published / name, weights_only=True) for name in ("merged/dit.pt", "dit.pt"))
    assert list(merged) == list(base)
    assert {name for name, it in merged.items() if not torch.equal(it, base[name])} == {"blocks.1.attn.qkv.weight"}
    down, up = (getattr(model.blocks[1].attn.qkv, name).default.weight for name in ("lora_A", "lora_B"))
    wanted = base["blocks.1.attn.qkv.weight"] + 4 * up @ down
    torch.testing.assert_close(merged["blocks.1.attn.qkv.weight"], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "holds", "said"),
    [
        (
            "dit.pt",
            "vae.pt",
            r"dit.pt: lacks x_embedder.proj.weight \(its first tensor is logvar\); it is not MUG-V's dit.pt",
        ),
        ("vae.pt", "dit.pt", r"vae.pt: lacks .*; it is not MUG-V's vae.pt"),
        ("dit.pt", {"a": 1}, "dit.pt: holds int as 'a' and not tensors by name"),
        ("dit.pt", "less", "dit.pt: lacks end_token; it is not MUG-V's dit.pt"),
        (
            "dit.pt",
            b"nothing",
            r"dit.pt: cannot be read as a file of tensors \(it is damaged, or holds more than tensors\)",
        ),
    ],
)
def test_a_wrong_file_is_told_in_one_line(published, file, holds, said):
    path = published / file
    if isinstance(holds, bytes):
        path.write_bytes(holds)
    elif isinstance(holds, dict):
        torch.save(holds, path)
    else:
        other = torch.load(published / ("dit.pt" if holds == "less" else holds), weights_only=True)
        if holds == "less":
            del other["end_token"]
        torch.save(other, path)
    files, options = [published / "dit.pt", published / "vae.pt"], {"text_encoder": str(published / "t5")}
    with pytest.raises(UserError, match=said) as told:
        conversions.run("mugv", files, published / "model", options)
    assert "\n" not in str(told.value)
    assert not (published / "model").exists()


def test_weights_that_are_not_the_published_ones_are_told_in_one_line(published):
    """And nothing is written, not even before the text encoder is found to be another one. Nobody's code is run."""
    given = torch.load(published / "dit.pt", weights_only=True)
    first, scalar = "blocks.0.attn.q_norm.weight", torch.ones(())
    vae = torch.load(published / "vae.pt", weights_only=True)
    cases = [
        ({"state_dict": given}, "holds dict as 'state_dict'"),
        ({f"module.{name}": it for name, it in given.items()}, r"lacks x_embedder.*\(its first tensor is module\."),
        ({**given, "more": scalar}, "holds, unasked, more"),
        ({**given, 5: scalar}, "holds Tensor as 5"),
        ({**given, first: scalar}, "is of other values or shapes"),
        ({**given, first: given[first][:0]}, "is of other values or shapes"),
        ({name: it.to(torch.int8) for name, it in given.items()}, "stored as torch.int8"),
        ({name: it.to_sparse() for name, it in given.items()}, "is a torch.sparse_coo tensor"),
        ({**given, "x": exit}, "it is damaged, or holds more than tensors"),
    ]
    options = {"text_encoder": str(published / "t5")}

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message) as told:
            conversions.run("mugv", [published / "dit.pt", published / "vae.pt"], published / "model", options)
        assert "\n" not in str(told.value)
        assert not (published / "model").exists()

    for held, message in cases:
        torch.save(held, published / "dit.pt")
        refused(f"dit.pt: .*{message}")
    torch.save(given, published / "dit.pt")
    whole = (published / "dit.pt").read_bytes()
    (published / "dit.pt").write_bytes(whole[: len(whole) // 2])
    refused("dit.pt: cannot be read")
    torch.save({**given, "end_token": given["start_token"]}, published / "dit.pt")  # in one piece of memory
    torch.save({**vae, "scale": 0 * vae["scale"]}, published / "vae.pt")
    refused("vae.pt: .*scale is not above zero")
    torch.save(vae, published / "vae.pt")
    options["text_encoder"] = str(published / "none")
    refused("--text-encoder: .*none cannot be loaded")
    options["text_encoder"] = str(published / "t5")
    conversions.run("mugv", [published / "dit.pt", published / "vae.pt"], published / "model", options)
    with pytest.raises(UserError, match="model: is there already; name a new one"):
        conversions.run_back(published / "model", None, published / "model")
