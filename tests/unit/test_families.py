"""The contract of every family, on tiny random checkpoints, against diffusers' own pipelines and schedulers."""

import inspect
import itertools
import json
import re
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.loaders import lora_conversion_utils as conversion
from diffusers.loaders import single_file_utils as single_file
from huggingface_hub import HfApi, constants
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_pipelines import CAPTION, CASES, FPS, NEGATIVE, Case, save, video
from torch import Tensor, nn

from regdpo.config import schema, stage_inputs
from regdpo.config.schema import Sampling
from regdpo.config.training import Lora
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import PairRow
from regdpo.core.store import Store
from regdpo.data.latent_files import read_empty_caption, read_latents
from regdpo.data.video import read_stored, write_frames
from regdpo.models import adapters, loading
from regdpo.models.checkpoint_json import completed
from regdpo.models.codec import BlockPCACodec
from regdpo.models.device import DTYPES
from regdpo.models.diffusers_family import DiffusersFamily
from regdpo.models.discrete_noise import boundary
from regdpo.models.errors import mean_squares, residuals
from regdpo.models.family import Family, family_class, open_family
from regdpo.models.original_names import original
from regdpo.models.registry import FAMILIES
from regdpo.models.spec import ModelRef
from regdpo.sampling.denoise import denoise
from regdpo.stages import base, latents

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SAMPLING = Sampling(steps=4, guidance=3.0, negative_prompt=NEGATIVE)
LORA = Lora(rank=2, alpha=8)


PIPED = pytest.mark.parametrize("made", [name for name, case in CASES.items() if case.piped], indirect=True)
"""For what is held to diffusers' pipeline."""


@dataclass(frozen=True)
class Made:
    case: Case
    folder: Path
    store: Store

    def ref(self, **changes: Any) -> ModelRef:
        values = {
            "family": self.case.family,
            "task": self.case.task,
            "where": "folder",
            "path": str(self.folder),
            "expert": self.case.expert,
            "fps": FPS,
            "text_length": self.case.text_length,
            "digest": "",
        }
        return ModelRef.model_validate(values | changes)

    def open(self, **changes: Any) -> Family:
        return open_family(self.ref(**changes), self.store, CPU)

    def pipeline(self) -> DiffusionPipeline:
        pipeline = DiffusionPipeline.from_pretrained(self.folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def run(self, pipeline: DiffusionPipeline, noise: Tensor, guidance: float, steps: int, **options: Any) -> Any:
        """The pipeline's own run from our noise."""
        frames, height, width = self.case.size
        if self.case.task == "i2v":
            options["image"] = Image.fromarray(video(self.case.size)[0])
        negative = {} if self.case.family == "hunyuan_video" else {"negative_prompt": NEGATIVE}
        return pipeline(
            prompt=CAPTION,
            height=height,
            width=width,
            num_frames=frames,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=self.case.text_length,
            latents=self.case.lay(noise),
            **{"output_type": "latent", **negative, **dict(self.case.options), **options},
        ).frames

    def inputs(self, family: Family) -> dict[str, Tensor]:
        first = torch.from_numpy(video(self.case.size)[:1])
        return family.encode_text([CAPTION]) | family.encode_first_frame(first, self.case.size[0])

    def noise(self, family: Family, inputs: dict[str, Tensor]) -> Tensor:
        """What sampling starts from. LTX's pipeline wants the clean first frame in place if it is given latents."""
        noise = torch.randn(1, *family.latent_shape(*self.case.size), generator=torch.Generator().manual_seed(1))
        if self.case.family == "ltx_video" and "first" in inputs:
            noise[:, :, :1] = inputs["first"]
        return noise


@pytest.fixture(scope="module", params=CASES)
def made(request, tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    save(CASES[request.param], folder / "model")
    return Made(CASES[request.param], folder / "model", Store(folder / "store"))


def test_tokens_are_counted_as_the_text_encoder_reads_them(made):
    """Of a caption that is just as long as may be the last word is read; of a longer one it is not."""
    family = made.open()
    (ends,) = family.text_tokens([""])
    words = made.case.text_length - ends
    after = {"hunyuan_video": 3, "mugv": 7}.get(made.case.family, 0)  # of what follows a caption, which is cut first

    def counted(words: int, last: str) -> tuple[int, Tensor]:
        caption = " ".join(["square"] * (words - 1) + [last])
        return family.text_tokens([caption])[0], family.encode_text([caption])["text"]

    (tokens, one), (_, other) = counted(words, "square"), counted(words, "ground")
    assert tokens == made.case.text_length
    assert not torch.equal(one, other)
    (tokens, one), (_, other) = counted(words + 1 + after, "square"), counted(words + 1 + after, "ground")
    assert tokens == made.case.text_length + 1 + after
    assert torch.equal(one, other)


class Calls:
    """What a module is called with, and what it answers."""

    def __init__(self, *modules: nn.Module | None):
        self.inputs: list[dict[str, Any]] = []
        self.outputs: list[Tensor] = []
        self.by: list[int] = []
        for number, module in enumerate(modules):
            if module is not None:
                module.register_forward_hook(lambda m, a, k, out, n=number: self._add(k, out, n), with_kwargs=True)

    def _add(self, inputs: dict[str, Any], output: Any, number: int) -> None:
        self.inputs.append(inputs)
        self.outputs.append(output[0])
        self.by.append(number)


def same(ours: Any, theirs: Any) -> None:
    if theirs is None or ours is None:
        assert ours is theirs
    elif isinstance(theirs, tuple):
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    elif isinstance(theirs, Tensor):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-4, atol=1e-5)
    else:
        assert ours == pytest.approx(theirs)


@PIPED
def test_latents_are_the_pipelines(made):
    """vae.encode and the normalisation that the pipeline undoes before it decodes."""
    family, vae = made.open(), made.pipeline().vae
    frames = video(made.case.size)
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].double().div(255).mul(2).sub(1).float()
    with torch.no_grad():
        theirs = vae.encode(pixels).latent_dist.mode()
    shape = (1, -1, 1, 1, 1)
    if "wan" in made.case.family:
        mean, std = (torch.tensor(v).view(shape) for v in (vae.config.latents_mean, vae.config.latents_std))
        theirs = (theirs - mean) / std
    elif made.case.family == "ltx_video":
        theirs = (theirs - vae.latents_mean.view(shape)) * vae.config.scaling_factor / vae.latents_std.view(shape)
    else:
        theirs = theirs * vae.config.scaling_factor
    ours = family.encode_video(torch.from_numpy(frames)[None])
    assert ours.shape == (1, *family.latent_shape(*made.case.size))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@PIPED
def test_the_denoiser_is_given_what_the_pipeline_gives_it(made):
    """Every argument (text, masks, condition, timestep, positions, guidance) and the answer, at every step."""
    family, pipeline = made.open(), made.pipeline()
    inputs = made.inputs(family)
    theirs = Calls(pipeline.transformer, getattr(pipeline, "transformer_2", None))
    made.run(pipeline, made.noise(family, inputs), guidance=1.0, steps=4)
    denoiser = family.load_denoiser().eval()
    ours = Calls(*(getattr(denoiser, name, None) for name in ("high", "low")) if made.case.expert else [denoiser])
    shape = family.latent_shape(*made.case.size)
    assert len(theirs.inputs) == 4
    for given, answer in zip(theirs.inputs, theirs.outputs, strict=True):
        x_t = made.case.unlay(given["hidden_states"], shape).clone()
        if "first" in inputs:
            x_t[:, :, :1] = 100  # whatever is noised there must not matter
        t = given["timestep"].flatten()[-1:]
        sigma = (t + 0.5) / 1000 if made.case.family == "cogvideox" else t / 1000
        with torch.no_grad():
            same(family.predict(denoiser, x_t, sigma, inputs), made.case.unlay(answer, shape))
        for name in given.keys() - {"attention_kwargs", "return_dict"}:
            same(ours.inputs[-1].get(name), given[name])
    assert ours.by == theirs.by
    if made.case.expert:
        assert set(ours.by) == {0, 1}, "both experts were asked"


@PIPED
def test_target_is_the_schedulers(made):
    """From x_t, along the exact target, the scheduler's own step arrives at the data; formulas are written out anew."""
    family = made.open()
    rng = torch.Generator().manual_seed(2)
    x0, noise = (torch.randn(2, *family.latent_shape(*made.case.size), generator=rng) for _ in range(2))
    sigma = torch.tensor([0.2504, 0.9996])
    x_t, target = family.noised(x0, noise, sigma), family.target(x0, noise, sigma)
    if made.case.family == "cogvideox":
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        alpha = np.cumprod(1 - betas)
        alpha = alpha / (3 - 2 * alpha)
        root = np.sqrt(alpha)
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        a = torch.from_numpy(root[[250, 999]]).float().view(-1, 1, 1, 1, 1)
        s = (1 - a**2).sqrt()
        torch.testing.assert_close(x_t, a * x0 + s * noise, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(target, a * noise - s * x0, rtol=1e-4, atol=1e-5)
        timesteps = [250, 999]
    else:
        s = sigma.view(-1, 1, 1, 1, 1)
        torch.testing.assert_close(x_t, (1 - s) * x0 + s * noise)
        torch.testing.assert_close(target, noise - x0)
        timesteps = [250.4, 999.6]
    for number, t in enumerate(timesteps):
        scheduler = made.pipeline().scheduler
        if made.case.family == "cogvideox":
            scheduler.set_timesteps(1)  # any step is the last one
        else:
            scheduler = FlowMatchEulerDiscreteScheduler()
            scheduler.set_timesteps(sigmas=[t / 1000])
            t = scheduler.timesteps[0]
        step = scheduler.step(target[number], t, x_t[number], return_dict=False)[0]
        torch.testing.assert_close(step, x0[number], rtol=1e-3, atol=1e-3)


def test_samplers_that_draw_noise_go_from_the_noised_to_the_data(made):
    """Told the very noise, each step finds the data; and a sample is the same alone and in company, by its own seed."""
    if made.case.family not in ("videocrafter2", "t2v_turbo"):
        return
    family, inputs = made.open(), made.inputs(made.open())
    shape, draw = family.latent_shape(*made.case.size), torch.Generator().manual_seed(5)
    x0, noise = (torch.randn(1, *shape, generator=draw) for _ in range(2))
    sampler = family.sampler(4, None, shape)
    for t in sampler.timesteps:
        sigma = family.sigma_of(t)[None]
        x_t = family.noised(x0, noise, sigma)
        data = sampler.step(family.target(x0, noise, sigma), t, x_t, noise)[1]
        keep = boundary(int(t))[0] if made.case.family == "t2v_turbo" else 0.0
        torch.testing.assert_close(data, x0, rtol=1e-3, atol=1e-3 + 10 * keep)

    def sampled(count: int) -> Tensor:
        seeds = [torch.Generator().manual_seed(seed) for seed in range(count)]
        start = torch.cat([torch.randn(1, *shape, generator=seed) for seed in seeds])
        given = {name: it.expand(count, *it.shape[1:]) for name, it in inputs.items()}
        with torch.no_grad():
            return denoise(family, denoiser, given, start, SAMPLING, seeds=seeds)

    denoiser = family.load_denoiser().eval()
    alone, together = sampled(1), sampled(2)
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


def tuned(made: Made) -> tuple[Family, nn.Module, Path]:
    """The trained denoiser with adapters that matter, and where they were saved."""
    family = made.open()
    model = family.load_transformer().eval()
    family.add_lora(model, LORA)
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=rng))
    path = made.store.relative("models", "1" * 64)
    if not made.store.resolve(path).exists():
        with made.store.writing(path) as folder:
            folder.mkdir()
            family.save_lora(model, {n: p for n, p in model.state_dict().items() if "lora_" in n}, folder)
    return family, model, Path(path)


def test_adapters_off_is_the_base(made):
    family = made.open()
    inputs = made.inputs(family)
    x, sigma = made.noise(family, inputs), torch.tensor([sum(family.sigma_range) / 2])
    _, model, _ = tuned(made)
    with torch.no_grad():
        plain = family.predict(family.load_transformer().eval(), x, sigma, inputs)
        assert not torch.allclose(family.predict(model, x, sigma, inputs), plain)
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module._disable_adapters = True
        off = family.predict(model, x, sigma, inputs)
    torch.testing.assert_close(off, plain, rtol=0, atol=0 if made.case.piped else 1e-5)  # MKL minds where weights lie
    query, out = ("qkv", "proj") if made.case.family == "mugv" else ("to_q", "to_out.0")
    missing = LORA.model_copy(update={"targets": [query, "q_proj"]})
    with pytest.raises(UserError, match=rf"lora.targets: .* no layer q_proj; a block has .*{query}.*{out}"):
        family.add_lora(family.load_transformer(), missing)


@PIPED
def test_sampling_with_saved_adapters_is_the_pipelines(made):
    """Our loop with the adapters that we saved, against the plain pipeline that loads them."""
    plain = made.open()
    inputs = made.inputs(plain)
    noise = made.noise(plain, inputs)
    _, model, path = tuned(made)
    family = made.open(lora=str(path))
    sigma = torch.tensor([sum(family.sigma_range) / 2])
    with torch.no_grad():
        loaded, trained = (plain.predict(m, noise, sigma, inputs) for m in (family.load_transformer().eval(), model))
    torch.testing.assert_close(loaded, trained, rtol=1e-4, atol=1e-5)
    ours = denoise(family, family.load_denoiser().eval(), inputs, noise, SAMPLING)
    without = denoise(plain, plain.load_denoiser().eval(), inputs, noise, SAMPLING)
    assert (ours - without).abs().max() > 0.01
    pipeline = made.pipeline()
    into = {"load_into_transformer_2": True} if made.case.expert == "low" else {}
    pipeline.load_lora_weights(str(made.store.existing(str(path))), **into)
    answer = made.run(pipeline, noise, SAMPLING.guidance, SAMPLING.steps)
    theirs = made.case.unlay(answer, family.latent_shape(*made.case.size))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    frames = made.run(pipeline, noise, SAMPLING.guidance, SAMPLING.steps, output_type="np")[0]
    assert np.abs(family.decode_video(ours)[0].numpy() - frames * 255).max() < 1.01


def effective(model: nn.Module) -> dict[str, Tensor]:
    """Its tensors, by the names that they have without adapters. diffusers adds adapters that are 0 for what Wan's
    image-to-video models have beside the text-to-video ones."""
    tensors = {re.sub(r"default(_\d)?\.|base_layer\.", "", name): it for name, it in model.state_dict().items()}
    idle = {name.rpartition(".lora_")[0] for name, it in tensors.items() if ".lora_B" in name and not it.any()}
    return {name: it for name, it in tensors.items() if name.rpartition(".lora_")[0] not in idle}


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_lines_for_people_load_what_was_trained(made, tuning):
    """Those of the READMEs beside the weights, with the pipeline of the task."""
    plain, _, path = tuned(made)
    folder = made.store.relative("models", "2" * 64)
    if not made.store.resolve(folder).exists():
        with made.store.writing(folder) as full:
            plain.save_transformer({k: 2 * v for k, v in plain.load_transformer().state_dict().items()}, full)
    ref = made.ref(**{"lora": str(path)} if tuning == "lora" else {"transformer": folder})
    given: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(an inconsistency was discovered|torch_dtype)")
        exec(loading.lines(ref, str(made.store.existing(ref.lora or ref.transformer)), str(made.folder)), given)
        open_family(ref, made.store, CPU).load_transformer()
    if not made.case.piped:
        found, wanted = (
            effective(it) for it in (given["denoiser"], open_family(ref, made.store, CPU).load_transformer())
        )
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in found)
        assert any("lora_B" in name for name in found) == (tuning == "lora")
        return
    pipe = given["pipe"]
    found = effective(getattr(pipe, "transformer_2" if ref.expert == "low" else "transformer"))
    wanted = effective(open_family(ref, made.store, CPU, torch.bfloat16).load_transformer())
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    assert any("lora_B" in name for name in found) == (tuning == "lora")
    taken = inspect.signature(pipe.__call__).parameters
    assert set(re.findall(r"^    (\w+)=", loading.video_lines(ref, 9, 32, 32), re.M)) <= set(taken)
    assert FAMILIES[ref.family].told_rate == ("frame_rate" in taken)
    assert pipe.vae.dtype == (plain.decode_dtype if isinstance(plain, DiffusersFamily) else None)


def deltas(
    tensors: dict[str, Tensor], halves: tuple[str, str], alpha: Callable[[str, int], float]
) -> dict[str, Tensor]:
    """What adapters add to each layer's weight, ``alpha / rank * B A``."""
    down, up = (f".{half}.weight" for half in halves)
    layers = [name.removesuffix(down) for name in tensors if name.endswith(down)]
    return {
        name: alpha(name, len(tensors[name + down]))
        / len(tensors[name + down])
        * tensors[name + up]
        @ tensors[name + down]
        for name in layers
    }


def test_the_noise_on_a_condition_is_that_of_the_models_training(made):
    """Of what goes into the autoencoder, over many draws: ln of its deviation is N(-3, 1/2)."""
    if (made.case.family, made.case.task) != ("cogvideox", "i2v"):
        return
    family = made.open()
    family._encode = lambda pixels: pixels
    factor = family._vae_config["scaling_factor"] ** 2 if family._vae_config["invert_scale_latents"] else 1
    frame = torch.from_numpy(video((1, 64, 64)))
    clean = family.encode_first_frame(frame, made.case.size[0])["condition"]
    generator = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(100):
        noise = (family.draws_of_first_frame(frame, generator)["condition"][0] - clean[0]) * factor
        assert noise.mean().abs() < 0.01
        seen += noise.flatten(1).std(1).log().tolist()
    assert np.mean(seen) == pytest.approx(-3, abs=0.1)
    assert np.std(seen) == pytest.approx(0.5, abs=0.07)


def test_adapters_on_the_feed_forward_too(made):
    """By one word: every linear layer that a block's attention and feed-forward have, none of its modulation, and none of
    the embeddings', such as the feed-forward of Wan's image condition."""
    family = made.open()
    unet = not made.case.piped and made.case.family != "mugv"
    first = ("input_blocks.1.",) if unet else ("blocks.0.", "transformer_blocks.0.")
    found = {}
    for word in ("attention", "attention+ff"):
        model = family.empty_transformer()
        family.add_lora(model, Lora(rank=2, targets=word))
        adapted = [name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
        assert all("blocks." in name for name in adapted)
        block = "blocks.0."
        found[word] = {
            name.partition(block)[2]
            for name, module in model.named_modules()
            if isinstance(module, BaseTunerLayer) and name.startswith(first)
        }
    attentions = {family: ("attn1", "attn2") for family in FAMILIES if family not in ("cogvideox", "hunyuan_video")}
    every = {
        f"{attention}.{layer}"
        for attention in attentions.get(made.case.family, ("attn1",))
        for layer in ("to_q", "to_k", "to_v", "to_out.0")
    }
    if made.case.family == "hunyuan_video":
        every = {name.replace("attn1", "attn") for name in every}
    if made.case.family == "mugv":
        every = {"attn.qkv", "attn.proj", "cross_attn.q_linear", "cross_attn.kv_linear", "cross_attn.proj"}
        assert found == {"attention": every, "attention+ff": every | {"mlp.fc1", "mlp.fc2"}}
        return
    assert found["attention"] == every
    within = "ffn" if "wan" in made.case.family else "ff"
    ends = {f"{part}.{layer}" for part in (within, "ff_context") for layer in ("net.0.proj", "net.2")}
    assert found["attention+ff"] == every | {
        e for e in ends if made.case.family == "hunyuan_video" or e.startswith(within + ".")
    }


def test_every_reader_of_saved_adapters_finds_what_was_trained(made, tmp_path):
    """Readers by their own rules: diffusers with and without the header, musubi's converter, ComfyUI."""
    _, model, path = tuned(made)
    trained = {
        name: (module.scaling["default"] * module.lora_B["default"].weight @ module.lora_A["default"].weight).detach()
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }
    folder = made.store.existing(str(path))
    with safe_open(folder / "pytorch_lora_weights.safetensors", "pt") as file:
        tensors = {name.removeprefix("transformer."): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["lora_adapter_metadata"])
    ab = ("lora_A", "lora_B")
    found = [
        deltas(tensors, ab, lambda name, rank: header["transformer.lora_alpha"]),
        deltas(tensors, ab, lambda name, rank: rank),
    ]
    if original_names := FAMILIES[made.case.family].original_names:
        adapters.save_for_comfyui(folder, made.case.family, tmp_path / "comfyui.safetensors")
        written = load_file(tmp_path / "comfyui.safetensors")
        comfyui = deltas(written, ("lora_down", "lora_up"), lambda name, rank: written[f"{name}.alpha"].item())
        names = {f"diffusion_model.{original(original_names, name)}": name for name in trained}
        found.append({names[name]: delta for name, delta in comfyui.items()})
        if "wan" in made.case.family:
            back = conversion._convert_non_diffusers_wan_lora_to_diffusers(dict(written))
            back = {name.removeprefix("transformer."): tensor for name, tensor in back.items()}
            found.append(deltas(back, ab, lambda name, rank: rank))
    for read in found:
        assert read.keys() == trained.keys()
        for name, delta in read.items():
            torch.testing.assert_close(delta, trained[name])


def test_original_names_are_those_that_diffusers_converts(made):
    """Of every linear layer, with diffusers' own conversion of original checkpoints as the way back."""
    back = {
        "wan": single_file.convert_wan_transformer_to_diffusers,
        "ltx_video": single_file.convert_ltx_transformer_checkpoint_to_diffusers,
    }
    if made.case.family not in back:
        return
    model = made.open().empty_transformer()
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    names = FAMILIES[made.case.family].original_names
    assert names is not None
    checkpoint = {f"{original(names, name)}.weight": name for name in layers}
    assert len(checkpoint) == len(layers)
    assert back[made.case.family](checkpoint) == {f"{name}.weight": name for name in layers}


def test_each_expert_has_its_own_guidance(made):
    if made.case.expert is None:
        return
    family, pipeline = made.open(), made.pipeline()
    inputs = made.inputs(family)
    noise = made.noise(family, inputs)
    each = SAMPLING.model_copy(update={"guidance": {"high": 4.0, "low": 1.5}})
    ours = denoise(family, family.load_denoiser().eval(), inputs, noise, each)
    theirs = made.run(pipeline, noise, 4.0, SAMPLING.steps, guidance_scale_2=1.5)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(ours, made.run(pipeline, noise, 4.0, SAMPLING.steps), atol=0.01)


def test_the_empty_transformer_is_the_loaded_one(made, tmp_path):
    """Without any weights on disk, and with as many blocks as asked for."""
    family = made.open()
    loaded = family.load_transformer()
    bare = tmp_path / "model"
    for file in made.folder.rglob("*.json"):
        (bare / file.relative_to(made.folder)).parent.mkdir(parents=True, exist_ok=True)
        (bare / file.relative_to(made.folder)).write_bytes(file.read_bytes())
    planned = made.open(path=str(bare))
    planned.check()
    planned.check_geometry(*made.case.size)
    empty = planned.empty_transformer()
    assert {n: v.shape for n, v in empty.state_dict().items()} == {n: v.shape for n, v in loaded.state_dict().items()}
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    kinds = planned.layers
    assert len(planned.blocks(empty)) == sum(kinds)
    for layers in ((2,) * len(kinds), (3, *(0,) * (len(kinds) - 1))):
        blocks = planned.blocks(planned.empty_transformer(layers))
        names = [str([(name, it.shape) for name, it in block.named_parameters()]) for block in blocks]
        wanted = [index for index, depth in enumerate(layers) for _ in range(depth)]
        assert len(names) == len(wanted)
        assert all(a == b for (a, b), (i, j) in zip(pairwise(names), pairwise(wanted), strict=True) if i == j)
    if made.case.piped:
        assert (planned.heads, planned.width) == (
            empty.config.num_attention_heads,
            empty.config.num_attention_heads * empty.config.attention_head_dim,
        )
    assert planned.latent_shape(*made.case.size) == family.latent_shape(*made.case.size)
    if planned.context:
        assert hasattr(empty, "_cp_plan")
    weights, parameters = family.weights(), dict(loaded.named_parameters())
    weights.check({name: tuple(value.shape) for name, value in loaded.state_dict().items()})
    for name, value in weights.read(dict.fromkeys(parameters, ())):
        assert torch.equal(value, parameters[name])
    buffers = planned.buffers()  # those in a checkpoint are read from it
    assert buffers.keys() == dict(loaded.named_buffers()).keys()
    for name, buffer in loaded.named_buffers():
        assert name in loaded.state_dict() or torch.equal(buffers[name], buffer)


def test_tokens_are_the_denoisers(made):
    """The length of the sequence that the blocks are given; of a UNet it is another at each level."""
    if made.case.family in ("videocrafter2", "t2v_turbo"):
        return
    family = made.open()
    inputs = made.inputs(family)
    model = family.load_transformer().eval()
    seen: list[int] = []
    family.blocks(model)[0].register_forward_hook(
        lambda m, a, k, out: seen.append((a[0] if a else k["hidden_states"]).shape[1]), with_kwargs=True
    )
    with torch.no_grad():
        family.predict(model, made.noise(family, inputs), torch.tensor([sum(family.sigma_range) / 2]), inputs)
    assert seen == [family.tokens(family.latent_shape(*made.case.size))]


def test_full_weights_survive_saving(made):
    family = made.open()
    torch.manual_seed(0)
    state = {n: v + 0.05 * torch.randn_like(v) for n, v in family.load_transformer().state_dict().items()}
    path = made.store.relative("models", "0" * 64)
    with made.store.writing(path) as folder:
        folder.mkdir()
        family.save_transformer(state, folder)
    for name, value in made.open(transformer=path).load_transformer().state_dict().items():
        assert torch.equal(value, state[name])


def test_errors_leave_out_what_is_given_clean(made):
    """The error is the plain mean over what is denoised, of answers that bf16 inputs change little."""
    family = made.open()
    inputs = made.inputs(family)
    x0 = family.encode_video(torch.from_numpy(video(made.case.size))[None])
    noise, sigma = torch.randn_like(x0), torch.tensor([sum(family.sigma_range) / 2])
    model = family.load_transformer().eval()
    with torch.no_grad():
        found = mean_squares(residuals(family, model, x0, noise, sigma, inputs))
        answer = family.predict(model, family.noised(x0, noise, sigma), sigma, inputs)
        stored = {name: value.to(torch.bfloat16).float() for name, value in inputs.items()}
        rounded = mean_squares(residuals(family, model, x0, noise, sigma, stored))
    first = 1 if "first" in inputs else 0
    assert (first == 1) == (made.case.both_tasks and made.case.task == "i2v")
    wanted = ((answer - family.target(x0, noise, sigma))[:, :, first:] ** 2).mean()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert rounded.item() == pytest.approx(found.item(), rel=0.02)
    if "text_mask" in inputs:
        assert torch.equal(stored["text_mask"], inputs["text_mask"].float())
        assert 0 < stored["text_mask"].sum() < stored["text_mask"].numel()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_pairs_are_encoded_with_all_that_the_denoiser_needs(made, dtype):
    """Written once for both halves, read again, and the same as asked of the family directly."""
    frames, height, width = made.case.size
    paths = [made.store.relative("clips", str(seed) * 64, ".mp4") for seed in (0, 1)]
    for seed, path in enumerate(paths):
        if not made.store.resolve(path).exists():
            with made.store.writing(path) as temporary:
                write_frames(temporary, video(made.case.size, seed), FPS, schema.Encode(crf=0))
    winner, loser = paths
    pair = PairRow(
        pair_id="pair", split="train", clip_id="clip", source="source", shot=0, start=0, caption=CAPTION, winner=winner,
        winner_sha256=file_digest(made.store.existing(winner)), loser=loser,
        loser_sha256=file_digest(made.store.existing(loser)), frames=frames, fps=FPS, width=width, height=height,
    )  # fmt: skip
    model = base.by_name(stage_of(made), made.store)
    stage = stage_inputs.LatentsStage.model_validate({"latents": {"dtype": dtype}})
    (row,) = latents.encode(stage, model, [pair], made.store, CPU)
    tensors = read_latents(row, made.store)
    family = made.open()
    first = torch.from_numpy(read_stored(made.store, winner, pair.winner_sha256)[:1])
    wanted = family.encode_text([CAPTION]) | family.encode_first_frame(first, frames)
    example = family.example_inputs(family.latent_shape(frames, height, width))
    assert {name: value.shape for name, value in example.items() if name != "image"} == {
        name: value.shape for name, value in wanted.items() if name != "image"
    }
    assert ("image" in example, {value.device.type for value in example.values()}) == ("image" in wanted, {"meta"})
    noised = {"condition.draws"} if (made.case.family, made.case.task) == ("cogvideox", "i2v") else set()
    assert tensors.keys() == wanted.keys() | {"winner", "loser"} | noised
    for name in noised:
        draws, clean = tensors[name].float(), tensors["condition"].float()
        assert draws.shape == (4, *clean.shape)
        assert all(not torch.equal(a, b) for a, b in itertools.combinations([*draws, clean], 2))
    if made.open().embeds_guidance:
        assert not row.empty
    else:
        empty = read_empty_caption(row, made.store)
        for name, value in made.open().encode_text([""]).items():
            torch.testing.assert_close(empty[name].float(), value[0].to(DTYPES[dtype]).float())
    for name, value in wanted.items():
        torch.testing.assert_close(tensors[name].float(), value[0].to(DTYPES[dtype]).float())
    assert row.shape == ",".join(map(str, tensors["winner"].shape))
    assert not torch.equal(tensors["winner"], tensors["loser"])


def stage_of(made: Made, **changes: Any) -> stage_inputs.BaseStage:
    case = made.case
    frames, height, width = case.size
    values = {"family": case.family, "task": case.task, "model": str(made.folder), "expert": case.expert}
    geometry = {"frames": frames, "fps": FPS, "width": width, "height": height}
    return stage_inputs.BaseStage.model_validate(
        {"base": values | {"text_length": case.text_length} | changes, "geometries": [geometry], "shift": 1.0}
    )


def test_checkpoints_are_checked_before_anything_runs(made):
    file = base.by_name(stage_of(made), made.store)
    assert (file.ref.expert, file.ref.text_length, file.ref.fps) == (made.case.expert, made.case.text_length, FPS)
    pads = {"wan": 512, "wan22": 512, "cogvideox": 226, "hunyuan_video": 256, "ltx_video": 128, "mugv": 300}.get(
        made.case.family, 77
    )
    if made.case.fixed_text:
        with pytest.raises(UserError, match=rf"base.text_length: .* wants {made.case.text_length}, got 17"):
            base.by_name(stage_of(made, text_length=17), made.store)
    else:
        assert base.by_name(stage_of(made, text_length=None), made.store).ref.text_length == pads
    if made.case.expert:
        with pytest.raises(UserError, match=r"base.expert: .* two experts"):
            base.by_name(stage_of(made, expert=None), made.store)
        other = base.by_name(stage_of(made, expert={"high": "low", "low": "high"}[made.case.expert]), made.store)
        assert (other.ref.digest, other.digest != file.digest) == (file.ref.digest, True)
        with pytest.raises(UserError, match=r"base.family: .* take `wan22`"):
            base.by_name(stage_of(made, family="wan"), made.store)
    else:
        with pytest.raises(UserError, match=r"base.expert: .* one transformer"):
            base.by_name(stage_of(made, expert="low"), made.store)
    if not made.case.both_tasks:
        other = {"i2v": "t2v", "t2v": "i2v"}[made.case.task]
        with pytest.raises(UserError, match=r"base.task: "):
            base.by_name(stage_of(made, task=other), made.store)


def test_experts_share_the_sigmas_between_them(made):
    low, high = made.open().sigma_range
    assert (low, high) == {"low": (0.0, 0.7), "high": (0.7, 1.0), None: (0.0, 1.0)}[made.case.expert]


SIZES = {
    "wan-t2v": (82, 480, 840, "4k.1 frames, got 82; 81 would do"),
    "wan22-5b-t2v": (81, 480, 848, "clips.width: .* multiples of 32, got 848; 832 would do"),
    "cogvideox15-i2v": (81, 480, 720, "8k.5 frames, got 81; 77 would do"),
    "cogvideox-5b-i2v": (49, 480, 720, "knows positions of 32 x 48 alone, got 480 x 720"),
    "hunyuan_video-t2v": (61, 724, 1280, "clips.height: .* multiples of 16, got 724; 720 would do"),
    "ltx_video-t2v": (60, 480, 704, "2k.1 frames, got 60; 59 would do"),
    "mugv-i2v": (104, 720, 1280, "8k.1 frames, got 104; 97 would do"),
    "videocrafter2-t2v": (16, 320, 520, "clips.width: .* multiples of 16, got 520; 512 would do"),
}


def test_sizes_that_cannot_be_had(made):
    name = next(name for name in CASES if made.folder.parent.name.startswith(name))
    if name in SIZES:
        *size, message = SIZES[name]
        with pytest.raises(UserError, match=message):
            made.open().check_geometry(*size)


@pytest.mark.parametrize("name", FAMILIES)
def test_whose_blocks_can_be_split_is_declared(name):
    assert ("tensor" in FAMILIES[name].shared) == bool(family_class(name).tensor)


@pytest.mark.parametrize("name", ["wan", "cogvideox", "hunyuan_video", "ltx_video", "mugv"])
def test_what_a_checkpoint_does_not_say_of_its_sizes_is_as_in_diffusers(name):
    """Older ones leave it out, and they are asked before diffusers is loaded."""
    family, cut = family_class(name), FAMILIES[name].cut
    (autoencoder,) = (kind for kind in family.autoencoders.values() if kind is not BlockPCACodec)
    for given, kind in ((cut.compression, autoencoder), (cut.patch, family.transformer_class)):
        assert given({}) == given(completed("it", {}, kind))


def test_adapters_have_the_same_bytes_in_another_process(tmp_path):
    """Of one family with two experts; what is saved passes through sets and hash tables whose order is not fixed."""
    case = CASES["wan22-14b-t2v-low"]
    save(case, tmp_path / "model")
    made = Made(case, tmp_path / "model", Store(tmp_path / "store"))
    family, model, path = tuned(made)
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = ['tests', 'tests/unit']; import test_families as f; "
        f"f.tuned(f.Made(f.CASES['wan22-14b-t2v-low'], Path({str(made.folder)!r}), f.Store({str(tmp_path / 'again')!r})))"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=root, env={"PYTHONPATH": str(root), "PYTHONHASHSEED": "7"}
    )
    folders = [made.store.existing(str(path)), Store(tmp_path / "again").existing(str(path))]
    state = {n: p for n, p in model.state_dict().items() if "lora_" in n}
    for number in range(6):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        family.save_lora(model, state, folders[-1])
    assert len({file.read_bytes() for folder in folders for file in folder.iterdir()}) == 1


def test_a_base_folder_without_a_transformer(tmp_path):
    save(CASES["wan-t2v"], tmp_path / "model")
    (tmp_path / "model/transformer/config.json").unlink()
    made = Made(CASES["wan-t2v"], tmp_path / "model", Store(tmp_path / "store"))
    with pytest.raises(UserError, match=r"base.model: .* has no transformer/config.json"):
        base.by_name(stage_of(made), made.store)


def test_only_the_base_stage_asks_the_hub(tmp_path, monkeypatch):
    """From a filled cache, where no name is resolved: later stages, on whichever node, do not even try."""
    made = Made(CASES["wan-i2v"], tmp_path / "model", Store(tmp_path / "store"))
    save(made.case, made.folder)
    commit, asked = "0" * 40, []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments[0])
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub = stage_of(made, model="some/model", revision=commit)
    with monkeypatch.context() as offline:  # else it tries again for half a minute
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(UserError, match=r"base.model: some/model at 0+ cannot be had"):
            base.by_name(hub, made.store)
        files = ["README.md", "dit.pt", "vae.pt"]
        offline.setattr(HfApi, "list_repo_files", lambda self, name, revision: files)
        with pytest.raises(UserError, match=r"^base.model: some/model has no model_index.json; it is not a checkpoint"):
            base.by_name(hub, made.store)
        converted = hub.model_copy(update={"base": hub.base.model_copy(update={"family": "mugv"})})
        with pytest.raises(UserError, match=r"has no model_index.json; .*`python scripts/convert.py mugv DIT VAE OUT`"):
            base.by_name(converted, made.store)
        shutil.copytree(made.folder, tmp_path / "hub/models--some--model/snapshots" / commit)
        ref = base.by_name(hub, made.store).ref
    family = open_family(ref, made.store, CPU)
    frames = torch.from_numpy(video(made.case.size))
    family.load_denoiser()
    family.encode_text([CAPTION])
    family.encode_video(frames[None])
    family.encode_first_frame(frames[:1], len(frames))
    assert not asked
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "another"))
    with pytest.raises(UserError, match=rf"not whole, in the hub's cache of {socket.gethostname()} .*another"):
        open_family(ref, made.store, CPU).load_transformer()


def test_only_wan_is_made_here():
    pretrain = {"sources": ["*"], "settings": {"tuning": "full"}}
    with pytest.raises(ValueError, match=r"`pretrain` makes a `wan`"):
        schema.Base.model_validate({"family": "ltx_video", "pretrain": pretrain})
    with pytest.raises(ValueError, match=r"`expert`: what `pretrain` makes"):
        schema.Base.model_validate({"expert": "low", "pretrain": pretrain})
