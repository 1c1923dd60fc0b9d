"""Memory of rendering and encoding by the plan, against what the stages' own functions allocate, and published sizes."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_pipelines import CAPTION, CASES, FPS, NEGATIVE, save, video
from torch import nn

from regdpo.config import schema
from regdpo.config.schema import Sampling
from regdpo.core.errors import UserError
from regdpo.core.store import Store
from regdpo.models import encoders
from regdpo.models.family import Family, open_family
from regdpo.models.live import Live
from regdpo.models.spec import Autoencoding, ModelRef
from regdpo.models.tiling import SHARE
from regdpo.plan import architecture, stages, trace
from regdpo.plan.memory import RESERVED
from regdpo.runtime.gpu_specs import GIB, GPUS
from regdpo.sampling import render

pytestmark = pytest.mark.slow

RECIPE = "config/recipes/wan21_t2v_1_3b_24gb.yaml"
SIZE = (9, 96, 64)
SHORT = (5, 480, 832)


def opened(folder, name: str) -> tuple[Family, architecture.Architecture]:
    case = CASES[name]
    save(case, folder / "model")
    ref = ModelRef(
        family=case.family, task=case.task, where="folder", path=str(folder / "model"), expert=case.expert, fps=FPS,
        text_length=case.text_length, digest="",
    )  # fmt: skip
    return open_family(ref, Store(folder), torch.device("cpu")), architecture.of_folder(name, folder / "model", ref)


def weights_of(*modules: nn.Module) -> list[torch.Tensor]:
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


def allocated(known: list[torch.Tensor], work) -> int:
    """Bytes at the peak, of real tensors."""
    with torch.no_grad(), Live(known) as live:
        work()
    return live.peak


@pytest.mark.parametrize(("name", "encoded"), [("wan-i2v", 9), ("hunyuan_video-t2v", 0), ("ltx_video-i2v", 1)])
def test_turns_need_what_is_allocated(name, encoded, tmp_path):
    """The stage's functions on the CPU, every allocation counted, beside what is said of them without any weights."""
    family, it = opened(tmp_path, name)
    pixels = torch.from_numpy(video(SIZE))
    denoiser = family.load_denoiser().eval()
    inputs = family.encode_text([CAPTION]) | family.encode_first_frame(pixels[:1], SIZE[0])  # and all is loaded
    vae = family._vae  # type: ignore[attr-defined]
    parts = {"text encoder": family._text, "image encoder": getattr(family, "_image", None)}  # type: ignore[attr-defined]
    modules = {
        part: [it for it in pipeline.components.values() if isinstance(it, nn.Module)]
        for part, pipeline in parts.items()
        if pipeline is not None
    }
    known = weights_of(denoiser, vae, *(module for found in modules.values() for module in found))

    needs = family.encoder_needs(1)
    assert needs.keys() == modules.keys()
    for part, need in needs.items():
        assert need.weights == sum(tensor.nbytes for tensor in weights_of(*modules[part])), part
    text, seen = needs["text encoder"], allocated(known, lambda: family.encode_text([CAPTION]))
    assert 0.8 < text.total / (text.weights + seen) < 1.3

    turns = stages._encoded(family, SIZE)
    assert len(turns) == bool(encoded)
    for encoding in turns:
        first = torch.zeros(1, 3, encoded, *SIZE[1:])
        seen = allocated([*known, first], lambda: family._encode(first)) + first.nbytes  # type: ignore[attr-defined]  # noqa: B023
        assert encoding.weights == sum(tensor.nbytes for tensor in weights_of(vae))
        assert 0.9 < encoding.work / seen < 1.2
        assert encoding.total == pytest.approx((encoding.weights + encoding.work) / SHARE)
    shape = family.latent_shape(*SIZE)
    latents = torch.randn(1, *shape)
    (decoding,) = stages._autoencoder(family, "decode", SIZE)
    assert 0.9 < decoding.work / allocated([*known, latents], lambda: family.decode_video(latents)) < 1.2

    sampling = Sampling(steps=3, guidance=3.0, negative_prompt=NEGATIVE)
    negative = render.negatives_of(family, sampling, 1)
    texts = 2 if negative else 1
    need = trace.inference(trace.Pass(it, *shape[2:], None, torch.float32), shape[1], 1, texts)
    assert need.weights == sum(tensor.nbytes for tensor in weights_of(denoiser))
    given = [latents, *inputs.values(), *negative.values()]
    seen = allocated([*known, *given], lambda: render.denoise(family, denoiser, inputs, latents, sampling, negative))
    ratio = need.work / (seen + sum(tensor.nbytes for tensor in given))
    assert 0.9 < ratio < 1.25, ratio


def test_weights_are_those_that_are_loaded(tmp_path):
    """Some of a denoiser's layers stay in fp32 beside bf16; all of the text encoder's are bf16."""
    family, it = opened(tmp_path, "wan-t2v")
    family.dtype = torch.bfloat16
    family.encode_text([CAPTION])
    loaded = family.load_denoiser()
    need = trace.inference(trace.Pass(it, 8, 8, None, torch.bfloat16), 3, 1)
    assert need.weights == sum(tensor.nbytes for tensor in weights_of(loaded))
    encoder = family._text.text_encoder  # type: ignore[attr-defined]
    assert family.encoder_needs(1)["text encoder"].weights == sum(tensor.nbytes for tensor in weights_of(encoder))


@pytest.mark.parametrize(
    ("model", "part", "parameters"),
    [  # bytes of the published files, by the width of a number in them
        ("wan21_t2v_1_3b", "text_encoder", 11_361_920_418 / 2),  # models_t5_umt5-xxl-enc-bf16.pth
        ("wan21_t2v_1_3b", "vae", 507_609_880 / 4),  # Wan2.1_VAE.pth
        ("wan22_ti2v_5b", "vae", 704_688_668),  # Wan2.2_VAE.pth
        ("cogvideox_5b", "text_encoder", 4.762e9),  # T5 v1.1 XXL's encoder: 24 (4 4096^2 + 3 4096 10240) + 32128 4096
        ("hunyuan_video", "text_encoder_2", 123.06e6),  # CLIP ViT-L/14's text model
        ("hunyuan_video", "text_encoder", 7.505e9),  # Llama 3 8B: 8.030e9 without the head, 4096 x 128256
        ("wan21_i2v_14b", "image_encoder", 630.8e6),  # CLIP ViT-H/14's vision model, 632.1e6 with the projection
    ],
)
def test_parts_have_their_published_size(model, part, parameters):
    family = architecture.known(model).family
    if part == "vae":
        need = family.autoencoder_need("encode", 1, 64, 64, False)
        assert need is not None
        counted = need.weights / 4
    else:
        names = dict(zip([part], family._parts([part]), strict=True))  # type: ignore[attr-defined]
        counted = sum(p.numel() for p in encoders.empty(*names[part], torch.bfloat16).parameters())
    assert counted == pytest.approx(parameters, rel=0.003)


def test_the_training_of_an_autoencoder_is_told():
    """What is kept grows with the window, of MUG-V by far less, whose pictures are computed again."""
    settings = schema.load(RECIPE)
    base = settings.base.model_copy(update={"family": "mugv", "model": "MUG-V/MUG-V-inference"})

    def turn(latents: int, base: schema.Base, **changed) -> stages.Turn:
        training = schema.AutoencoderTraining(windows=[1, latents], crop=64, **changed)
        vae = settings.vae.model_copy(update={"train": training})
        return stages.autoencoder_training(settings.model_copy(update={"base": base, "vae": vae}), [SHORT])

    short, long = (turn(latents, settings.base) for latents in (1, 4))
    assert short.weights == long.weights == pytest.approx(16 * 507_609_880 / 4, rel=0.003)  # of the published file
    assert long.work / short.work > 3
    assert turn(1, settings.base, ema=0.9).weights == pytest.approx(20 / 16 * short.weights)
    assert turn(1, settings.base, part="decoder").weights < 0.8 * short.weights
    assert turn(4, settings.base, precision="fp32").work > 1.2 * long.work
    assert turn(4, base).work < long.work  # 32 frames beside 13

    vae = settings.vae.model_copy(update={"train": schema.AutoencoderTraining(windows=[2], crop=64)})
    asked = settings.model_copy(update={"vae": vae})
    (answer,) = stages.ask(asked, architecture.find(settings.base), [SHORT], 2, GIB, ["vae.train"])
    assert not answer.fits
    assert answer.said.startswith("vae.train: the VAE, training needs ")
    assert f"of 1.0 GiB on one GPU ({short.weights / GIB:.1f} of weights, " in answer.said


def test_a_stage_that_does_not_fit_is_told():
    settings = schema.load(RECIPE)
    it, memory = architecture.find(settings.base), GPUS["RTX 4090"].memory
    found = stages.stages(settings, it, [SHORT], memory)
    assert tuple(found) == stages.STAGES
    text = next(turn for turn in found["negatives"].turns if turn.part == "text encoder")
    assert text.weights == pytest.approx(11.36e9, rel=0.003)
    assert text.margin > RESERVED
    assert stages.check(found["negatives"], memory) is found["negatives"].fullest
    with pytest.raises(UserError, match=r"^negatives: the text encoder needs .* of 12.0 GiB on one GPU .*launch.force"):
        stages.check(found["negatives"], 12 * GIB)
    answers = stages.ask(settings, it, [SHORT], 1, 12 * GIB, ["latents", "train.arms.sft"])
    assert [(answer.key, answer.fits) for answer in answers] == [("latents", False), ("train.arms.sft", True)]
    with pytest.raises(UserError, match=r"there is no nothing; there are train\.arms\.sft"):
        stages.ask(settings, it, [SHORT], 1, memory, ["nothing"])


def test_configurations_of_encoders_come_from_strangers(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"num_layers": 100000}))
    with pytest.raises(UserError, match="num_layers is 100000"):
        encoders.empty("T5EncoderModel", str(tmp_path), torch.float32)
    (tmp_path / "config.json").write_text(json.dumps({"d_model": "wide"}))
    with pytest.raises(UserError, match="no T5EncoderModel can be made of it"):
        encoders.empty("T5EncoderModel", str(tmp_path), torch.float32)
    with pytest.raises(UserError, match="which is no model of transformers"):
        encoders.empty("pipeline", str(tmp_path), torch.float32)
    with pytest.raises(UserError, match="cannot be read as JSON"):
        encoders.empty("T5EncoderModel", str(tmp_path / "none"), torch.float32)


def test_an_autoencoder_that_may_choose_takes_tiles_where_the_whole_does_not_fit(tmp_path):
    family, _ = opened(tmp_path, "wan-t2v")
    whole = family.autoencoder_need("decode", 9, 320, 320, False)
    assert whole is not None
    roomy, tight = (family.on_gpu(whole.total / SHARE * spare, Autoencoding(decode="fp32")) for spare in (1.01, 0.99))
    (free,), (tiled,) = (stages._autoencoder(it, "decode", (9, 320, 320)) for it in (roomy, tight))
    assert (free.part, tiled.part) == ("VAE, decoding", "VAE, decoding in tiles")
    assert tiled.total < free.total
    assert stages._advice(replace(free, weights=0)).endswith("or leave `tiling` at auto")


def test_of_several_sizes_the_largest_count():
    assert stages._largest([(81, 480, 832), (81, 832, 480), (49, 480, 480)]) == [(81, 480, 832)]
    assert stages._largest([(81, 256, 256), (17, 480, 832)]) == [(81, 256, 256), (17, 480, 832)]
