"""VideoCrafter2 and T2V-Turbo against what their original code computed of tiny random weights (tests/golden/): float32
within 5e-5 of the largest value, float64 far closer."""

import json
import runpy
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from regdpo.core.errors import UserError
from regdpo.models.discrete_noise import Consistency, ScaledDDIM, alphas, boundary, noised, scales
from regdpo.models.frame_autoencoder import FrameAutoencoder
from regdpo.models.video_unet import VideoUNet, guidance_embedding
from regdpo.models.video_unet_parts import VideoUNetParts
from regdpo.models.videocrafter_names import lora_layers, merged, text_from, vae_from
from regdpo.objectives.losses import dpo

GOLDEN = Path(__file__).parents[1] / "golden"
SCRIPT = Path(__file__).parents[2] / "scripts/convert.py"
UNET = {
    "model_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "attention_resolutions": (1,),
    "num_head_channels": 16, "context_dim": 24,
}  # fmt: skip
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@cache
def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def part(name: str, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): it for key, it in golden(name).items() if key.startswith(prefix)}


def unet_weights(*more: str) -> dict[str, Tensor]:
    """In float32, with those of T2V-Turbo that are named."""
    turbo = part("t2v_turbo", "weights.unet.")
    found = part("videocrafter2_unet", "weights.unet.") | {f"{name}.weight": turbo[f"{name}.weight"] for name in more}
    return {name: it.float() for name, it in found.items()}


def unet(dtype: torch.dtype, weights: dict[str, Tensor], **config: Any) -> VideoUNet:
    model = VideoUNet(**UNET, **config)
    model.load_state_dict(weights)
    return model.to(dtype)


def near(found: Tensor, wanted: Tensor, single: float = 5e-5, double: float = 1e-9) -> None:
    assert found.shape == wanted.shape
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    assert error <= (double if found.dtype == torch.float64 else single)


def asked(model: nn.Module, data: dict[str, Tensor], of: str, dtype: torch.dtype, **more: Tensor) -> Tensor:
    x = data[f"in.{of}x"].to(dtype)
    text, fps = data[f"in.{of}context"].to(dtype), data[f"in.{of}fps"].expand(len(x))
    return model(x, data[f"in.{of}timesteps"], text, fps, **more)


@BOTH
def test_the_unet_is_the_originals_with_its_gradients(dtype):
    """Three frames, five, and one; sizes that are not square; texts of several lengths."""
    data, model = golden("videocrafter2"), unet(dtype, unet_weights())
    with torch.no_grad():
        for of in ("b.", "c."):
            near(asked(model, data, of, dtype), data[f"ref64.{of}out"])
    answer = asked(model, data, "a.", dtype)
    near(answer, data["ref64.a.out"])
    loss = ((answer - data["in.a.grad_target"].to(dtype)) ** 2).mean()
    near(loss.view(1), data["ref64.a.loss"])
    loss.backward()
    gradients = part("videocrafter2", "ref64.a.grad.")
    assert len(gradients) == 6
    for name, wanted in gradients.items():
        near(model.get_parameter(name).grad, wanted)


@BOTH
@torch.no_grad()
def test_what_is_inside_of_the_unet(dtype):
    """Each kind of layer, so that a mistake is found where it is; ours have all frames one after another."""
    model, found = unet(dtype, unet_weights()), {}
    parts = {
        "time_embed": model.time_embed,
        "fps_embedding": model.fps_embedding,
        "input0": model.input_blocks[0],
        "init_attn": model.init_attn,
        "input1_res": model.input_blocks[1][0],
        "input1_spatial": model.input_blocks[1][1],
        "input1_temporal": model.input_blocks[1][2],
        "input2": model.input_blocks[2],
        "middle": model.middle_block,
        "output1": model.output_blocks[1],
    }
    for name, it in parts.items():
        it.register_forward_hook(lambda m, a, out, name=name: found.__setitem__(name, out))
    asked(model, golden("videocrafter2"), "a.", dtype)
    found["input1_temporal"] = found["input1_temporal"].unflatten(0, (2, 3)).transpose(1, 2)
    found["time_embed"] = found["time_embed"] + found["fps_embedding"]  # in place there, so the vector is the sum
    wanted = part("videocrafter2", "ref64.a.mid.")
    assert wanted.keys() == found.keys()
    for name, it in wanted.items():
        near(found[name], it)


def test_the_unet_has_the_published_weights_and_turbos_the_published_order():
    """Counted by those who published them; the low-rank update has no names in its file, only its order."""
    counts = {
        (): 1_413_284_420,
        (("time_cond_proj_dim", 256),): 1_413_366_340,
        (("time_cond_proj_dim", 256), ("motion_cond_proj_dim", 256)): 1_413_653_060,
    }
    for more, wanted in counts.items():
        with torch.device("meta"):
            model = VideoUNet(**dict(more))
        assert sum(parameter.numel() for parameter in model.parameters()) == wanted
        if not more:
            assert len(model.state_dict()) == 1484
        if len(more) == 1:
            order = json.loads((GOLDEN / "t2v_turbo_lora.json").read_text())
            assert lora_layers(model) == [name for name, _, _ in order]
            for name, up, down in order:
                (rank, *kernel), out = down, up[0]
                weight = model.get_parameter(f"{name}.weight")
                assert (tuple(weight.shape), up[1]) == ((out, *kernel), min(rank, 64))


def test_noise_and_its_scale_are_the_originals():
    data = golden("videocrafter2")
    wanted = part("videocrafter2", "ref64.sched.")
    torch.testing.assert_close(alphas(), wanted["alphas_cumprod"], rtol=1e-14, atol=0)
    torch.testing.assert_close(scales(), wanted["scale_arr"][:1000], rtol=1e-14, atol=0)
    torch.testing.assert_close(scales()[-400:], wanted["scale_arr"][1000:], rtol=1e-14, atol=0)
    near(1 - alphas()[1:] / alphas()[:-1], wanted["betas"][1:])
    near(alphas().sqrt(), wanted["sqrt_alphas_cumprod"])
    near((1 - alphas()).sqrt(), wanted["sqrt_one_minus_alphas_cumprod"])
    for dtype in (torch.float32, torch.float64):
        x0, noise = (data[f"in.q_sample.{name}"].to(dtype) for name in ("x0", "noise"))
        near(noised(x0, noise, data["in.q_sample.t"], alphas(), scales()), data["ref64.q_sample.x_t"])
    turbo = part("t2v_turbo", "ref64.sched.")
    products = alphas(exact=False)
    assert torch.equal(products.float(), golden("t2v_turbo")["out.sched.alphas_cumprod"])
    near(products, turbo["alphas_cumprod"], double=1e-6)
    torch.testing.assert_close(1 - products[1:] / products[:-1], turbo["betas"][1:], rtol=0, atol=1e-5)  # float32
    for steps, eta in ((50, 1), (4, 1), (7, 0)):
        theirs = part("videocrafter2", f"ref64.sched.ddim{steps}_eta{eta}.")
        times = golden("videocrafter2")[f"out.sched.ddim{steps}_eta{eta}.ddim_timesteps"]
        ours = ScaledDDIM(steps, eta)
        assert ours.timesteps.tolist() == times.flip(0).tolist()
        before = torch.tensor([ours.before[int(t)] for t in times])
        near(alphas()[times], theirs["ddim_alphas"])
        near(scales()[times], theirs["ddim_scale_arr"])
        near((1 - alphas()[times]).sqrt(), theirs["ddim_sqrt_one_minus_alphas"])
        near(alphas()[before], theirs["ddim_alphas_prev"])
        near(scales()[before], theirs["ddim_scale_arr_prev"])
        nothing = torch.zeros(1, dtype=torch.float64)
        drawn = torch.cat([ours.step(nothing, t, nothing, nothing + 1)[0] for t in times])
        torch.testing.assert_close(drawn, theirs["ddim_sigmas"], rtol=1e-9, atol=0)
    for name, wanted in part("t2v_turbo", "out.sched.timesteps_").items():
        steps, origin = map(int, name.split("_"))
        assert Consistency(steps, origin).timesteps.tolist() == wanted.tolist()
    ends = [boundary(int(t)) for t in golden("t2v_turbo")["in.sched.c_t"]]
    for place, name in enumerate(("c_skip", "c_out")):
        near(torch.tensor([end[place] for end in ends], dtype=torch.float64), turbo[name])


@BOTH
@pytest.mark.parametrize(
    ("name", "steps", "eta", "guidance"), [("ddim_eta1", 4, 1.0, 12.0), ("ddim_eta0", 7, 0.0, 5.0)]
)
@torch.no_grad()
def test_ddim_walks_as_the_original_does(name, steps, eta, guidance, dtype):
    """Every step's latents and data, with guidance; seven steps make eight."""
    model, given = unet(dtype, unet_weights()), part("videocrafter2", f"in.{name}.")
    wanted, sampler = part("videocrafter2", f"ref64.{name}."), ScaledDDIM(steps, eta)
    x = given["x_T"].to(dtype)
    for step, t in enumerate(sampler.timesteps):
        plain, told = (model(x, t[None], given[text].to(dtype), given["fps"]) for text in ("uncond", "context"))
        answer = plain + guidance * (told - plain)
        x, data = sampler.step(answer, t, x, given[f"noise.{step}"].to(dtype))
        near(x, wanted[f"step{step}.x_prev"], 1e-4, 1e-6)
        near(data, wanted[f"step{step}.pred_x0"], 1e-4, 1e-6)
    near(x, wanted["final"], 1e-4, 1e-6)
    assert step == (7 if steps == 7 else 3)


TURBO = {"time_cond_proj_dim": 256}


def turbo_weights() -> dict[str, Tensor]:
    """VideoCrafter2's with the low-rank update."""
    halves = [it for _, it in sorted(part("t2v_turbo", "weights.lora.").items())]
    weights = unet_weights("time_cond_proj")
    return merged(weights, lora_layers(VideoUNet(**UNET, **TURBO)), halves)


@BOTH
def test_turbos_update_and_conditions_are_the_originals(dtype):
    data, cond = golden("t2v_turbo"), golden("t2v_turbo")["in.timestep_cond"].to(dtype)
    with torch.no_grad():
        plain = unet(dtype, unet_weights("time_cond_proj"), **TURBO)
        near(asked(plain, data, "", dtype), data["ref64.v1.no_lora_no_cond"])
        near(asked(plain, data, "", dtype, guidance=cond), data["ref64.v1.no_lora"])
        motion = data["in.v2.motion_cond"].to(dtype)
        weights = unet_weights("time_cond_proj", "motion_cond_proj", "combine_proj")
        second = unet(dtype, weights, **TURBO, motion_cond_proj_dim=256)
        near(asked(second, data, "", dtype, guidance=cond, motion=motion), data["ref64.v2.out"])
        near(asked(second, data, "", dtype, guidance=cond), data["ref64.v2.out_no_motion"])
    names = lora_layers(plain)
    halves = [it.to(dtype, copy=True).requires_grad_() for _, it in sorted(part("t2v_turbo", "weights.lora.").items())]
    base = {
        name: it.detach().requires_grad_(name == "time_cond_proj.weight") for name, it in plain.state_dict().items()
    }
    tuned = merged(base, names, halves)
    answer = functional_call(plain, tuned, (data["in.x"].to(dtype), data["in.timesteps"], data["in.context"].to(dtype), data["in.fps"].expand(2), cond))  # fmt: skip
    near(answer, data["ref64.v1.lora"])
    near(answer, data["ref64.v1.lora_collapsed"])
    loss = ((answer - data["in.grad_target"].to(dtype)) ** 2).mean()
    near(loss.view(1), data["ref64.v1.loss"])
    loss.backward()
    gradients = part("t2v_turbo", "ref64.v1.grad.")
    assert len(gradients) == 5
    for name, wanted in gradients.items():
        layer, _, end = name.removesuffix(".weight").rpartition(".")
        found = (
            base["time_cond_proj.weight"] if end == "linear" else halves[2 * names.index(layer) + (end == "lora_down")]
        )
        near(found.grad, wanted)


def test_the_guidance_is_embedded_as_in_the_original():
    """Exactly as its float64; to a thousandth, which phases of 10,000 leave of float32, as its float32."""
    data = golden("t2v_turbo")
    cases = {
        "in.timestep_cond": data["in.w"],
        "in.v2.motion_cond": data["in.v2.motion_w"],
        "ref64.w_embedding": data["in.w"],
        "ref64.w_embedding_2_5_15": torch.tensor([2.0, 5.0, 15.0]),
        "ref64.train_w_embedding_5_15": torch.tensor([5.0, 15.0]),
    }
    for name, weights in cases.items():
        torch.testing.assert_close(
            guidance_embedding(weights, 256),
            data[name].double(),
            rtol=0,
            atol=1e-9 if name == "ref64.w_embedding_2_5_15" else 1e-3,
        )


@BOTH
@pytest.mark.parametrize(
    ("name", "steps", "origin"), [("v1_4_50", 4, 50), ("v1_4_200", 4, 200), ("v1_1", 1, 50), ("v2_mg", 4, 200)]
)
@torch.no_grad()
def test_turbo_walks_as_the_original_does(name, steps, origin, dtype):
    """Every step's answer, data and latents; of the last only the data go on."""
    given, wanted = part("t2v_turbo", f"in.traj_{name}."), part("t2v_turbo", f"ref64.traj_{name}.")
    if name == "v2_mg":
        weights = unet_weights("time_cond_proj", "motion_cond_proj", "combine_proj")
        model = unet(dtype, weights, **TURBO, motion_cond_proj_dim=256)
    else:
        model = unet(dtype, turbo_weights(), **TURBO)
    sampler, x = Consistency(steps, origin), given["latents"].to(dtype)
    scale = guidance_embedding(torch.tensor([7.5]), 256)
    for step, t in enumerate(sampler.timesteps):
        motion = guidance_embedding(torch.tensor([0.05 if t >= 500 else 0.0]), 256) if name == "v2_mg" else None
        answer = model(x, t[None], given["prompt_embeds"].to(dtype), torch.tensor([16]), scale, motion)
        near(answer, wanted[f"step{step}.eps"], 1e-4, 1e-6)
        noise = given.get(f"noise.{step}", torch.zeros_like(x)).to(dtype)
        x, data = sampler.step(answer, t, x, noise)
        near(data, wanted[f"step{step}.denoised"], 1e-4, 1e-6)
        if step < steps - 1 or steps == 1:  # else the last is noised once more there, and thrown away
            near(x, wanted[f"step{step}.prev_sample"], 1e-4, 1e-6)
    near(x, wanted["final"], 1e-4, 1e-6)


@BOTH
@torch.no_grad()
def test_the_autoencoder_of_frames_is_the_originals(dtype):
    model = FrameAutoencoder(
        block_out_channels=(32, 32, 64), layers_per_block=1, latent_channels=4, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip
    model.load_state_dict(vae_from(part("videocrafter2_vae", "weights.vae."), levels=3))
    model.to(dtype)
    data = golden("videocrafter2_vae")
    for of in ("v3", "v2"):
        video = data[f"in.{of}.video"].to(dtype)
        posterior = model.encode(video).latent_dist
        near(posterior.parameters[:, :, 0], data[f"ref64.{of}.moments_frame0"])
        noise = data[f"in.{of}.noise.0"].to(dtype).unflatten(0, (len(video), -1)).transpose(1, 2)
        near(0.18215 * (posterior.mean + posterior.std * noise), data[f"ref64.{of}.latent"])
        near(model.decode(data[f"in.{of}.z"].to(dtype) / 0.18215).sample, data[f"ref64.{of}.decoded"])


@BOTH
@torch.no_grad()
def test_the_text_tower_but_its_last_layer_is_the_originals(dtype):
    data, weights = golden("videocrafter2_text"), part("videocrafter2_text", "weights.text.")
    for layers, wanted in ((2, "penultimate"), (3, "last")):
        config = CLIPTextConfig(
            hidden_size=32, num_attention_heads=4, intermediate_size=128, num_hidden_layers=layers, vocab_size=64,
            max_position_embeddings=77, hidden_act="gelu", bos_token_id=62, eos_token_id=63, pad_token_id=0,
        )  # fmt: skip
        model = CLIPTextModel(config)
        model.load_state_dict(text_from(weights, layers))
        found = model.to(dtype).eval()(input_ids=data["in.tokens"]).last_hidden_state
        near(found, data[f"ref64.{wanted}"])


@BOTH
@torch.no_grad()
def test_a_step_of_distillation_is_the_originals(dtype):
    """The parts of T2V-Turbo's training put together as its authors do: the teacher's step of 20 timesteps, guided by
    1 + w, and the student's answers before and after it with their pseudo-Huber distance."""
    data, given = golden("t2v_turbo"), part("t2v_turbo", "in.cd.")
    wanted = part("t2v_turbo", "ref64.cd.")
    student, teacher = unet(dtype, turbo_weights(), **TURBO), unet(dtype, unet_weights())
    x0, noise, empty = (given[name].to(dtype) for name in ("latents", "noise", "uncond"))
    text, fps, scale = data["in.context"].to(dtype), torch.tensor([16, 16]), data["in.w"]
    cond, products = data["in.timestep_cond"].to(dtype), alphas(exact=False)
    every = torch.arange(50)
    assert torch.equal(20 * every + 19, data["out.solver.ddim_timesteps"])
    near(torch.cat([products[:1], products[20 * every[:-1] + 19]]), data["ref64.solver.alpha_prev"], double=1e-6)
    start = 20 * given["index"] + 19
    end = (start - 20).clamp_min(0)
    x_t = noised(x0, noise, start, products)

    def wide(numbers: Tensor) -> Tensor:
        return numbers.to(dtype).view(-1, 1, 1, 1, 1)

    def answered(x: Tensor, t: Tensor) -> Tensor:
        answer = student(x, t, text, fps, cond)
        shares = torch.tensor([boundary(int(at)) for at in t], dtype=torch.float64)
        keep, take = (wide(share) for share in shares.unbind(1))
        return take * (x - wide((1 - products[t]).sqrt()) * answer) / wide(products[t].sqrt()) + keep * x

    told, plain = (teacher(x_t, start, given_text, fps) for given_text in (text, empty))
    guided = told + wide(scale) * (told - plain)
    last = torch.where(given["index"] > 0, products[end], products[0])
    data_there = (x_t - wide((1 - products[start]).sqrt()) * guided) / wide(products[start].sqrt())
    x_prev = wide(last.sqrt()) * data_there + wide((1 - last).sqrt()) * guided
    near(x_prev, wanted["x_prev"], double=1e-6)
    before, after = answered(x_t, start), answered(x_prev, end)
    near(before, wanted["model_pred"], double=1e-6)
    near(after, wanted["target"], double=1e-6)
    distance = ((before - after) ** 2 + 0.001**2).sqrt() - 0.001
    near(distance.mean().view(1), wanted["huber"], double=1e-6)


@BOTH
@pytest.mark.parametrize("drawn", ["same_t", "own_t"])
def test_a_step_of_videodpo_is_the_originals_but_for_its_columns(drawn, dtype):
    """VideoDPO takes the logistic of every column of latents, our ``dpo`` of the whole sample. Given the errors of columns
    (dim 4 left out of the mean) it is VideoDPO's loss and gradients, with the losses and weights of its code."""
    data, weights = golden("videodpo_step"), unet_weights()
    reference = unet(dtype, weights)
    policy = unet(dtype, weights | {"out.2.weight": weights["out.2.weight"] * 1.02})
    z, noise = data["in.z"].to(dtype), data["in.noise"].to(dtype)
    t = data[f"in.{drawn}.t"]
    x_t, text = noised(z, noise, t, alphas(), scales()), data["in.cond"].to(dtype).expand(2, -1, -1)

    def errors(model: nn.Module, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        winner, loser = ((model(x_t, t, text, torch.tensor([16, 16])) - noise) ** 2).mean(dims)
        return winner, loser

    def loss(dims: tuple[int, ...]) -> Tensor:
        with torch.no_grad():
            known = errors(reference, dims)
        return dpo(*errors(policy, dims), *known, beta=5000).mean()

    columns, whole = loss((1, 2, 3)), loss((1, 2, 3, 4))
    near(columns.view(1), data[f"ref64.{drawn}.loss"], 1e-3, 1e-7)  # which its code rounds to float32
    columns.backward()
    for name, wanted in part("videodpo_step", f"ref64.{drawn}.grad.").items():
        near(policy.get_parameter(name).grad, wanted, 1e-3)
    values = {"same_t": (2.2728, 0.0150), "own_t": (1.5637, 0.0007)}[drawn]  # docs/concepts/methods.md
    assert (columns.item(), whole.item()) == pytest.approx(values, abs=1e-4)


@torch.no_grad()
def test_a_plan_that_takes_the_stages_apart_counts_what_the_unet_computes():
    """FLOPs and parameters of the stages one by one, as a plan runs them, beside those of the UNet with its skips."""
    with torch.device("meta"):
        whole = VideoUNet(**UNET)
        parts = VideoUNetParts((1,) * len(whole.stages()), whole)
        counts = []
        for model in (whole, parts):
            with FlopCounterMode(display=False) as counter:
                ids = torch.ones(2, dtype=torch.long)
                answer = model(torch.empty(2, 4, 3, 8, 8), ids, torch.empty(2, 7, 24), ids)
            counts.append(counter.get_total_flops())
        assert answer.shape == (2, 4, 3, 8, 8)
    assert sum(it.numel() for it in parts.parameters()) == sum(it.numel() for it in whole.parameters())
    assert counts[0] == counts[1] > 0


def published() -> dict[str, Tensor]:
    """As VideoCrafter2's file has it, small."""
    parts = {
        "model.diffusion_model.": unet_weights(),
        "first_stage_model.": {name: it.float() for name, it in part("videocrafter2_vae", "weights.vae.").items()},
        "cond_stage_model.model.": part("videocrafter2_text", "weights.text."),
    }
    found = {f"{prefix}{name}": it for prefix, tensors in parts.items() for name, it in tensors.items()}
    return schedule() | found


def schedule() -> dict[str, Tensor]:
    """Its buffers; of the longer one nobody reads the end."""
    return {"alphas_cumprod": alphas().float(), "scale_arr": torch.cat([scales(), scales()[-400:]]).float()}


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder with the published files and a tokenizer."""
    torch.save({"state_dict": published()}, tmp_path / "model.ckpt")
    torch.save([it for _, it in sorted(part("t2v_turbo", "weights.lora.").items())], tmp_path / "unet_lora.pt")
    tokenizer = tiny_pipelines.tokenizer(77)
    tokenizer.add_tokens([f"word{number}" for number in range(64 - len(tokenizer))])
    tokenizer.save_pretrained(tmp_path / "words")
    return tmp_path


def converted(files: Path, monkeypatch: pytest.MonkeyPatch, *given: str) -> None:
    words = () if given[0] == "back" else ("--tokenizer", "words")
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "argv", ["convert.py", *given, *words])
    runpy.run_path(str(SCRIPT))["main"]()


def bits(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: it.contiguous().numpy().tobytes() for name, it in tensors.items()}


def test_the_published_file_is_converted_there_and_back(files, monkeypatch):
    """Bit for bit and in its order; with a tuned denoiser, that one."""
    converted(files, monkeypatch, "videocrafter2", "model.ckpt", "out")
    wanted = published()
    converted(files, monkeypatch, "back", "out", "again.ckpt")
    again = torch.load(files / "again.ckpt", weights_only=True)["state_dict"]
    assert list(again) == list(wanted)
    assert bits(again) == bits(wanted)
    tuned = VideoUNet.from_pretrained(files / "out/transformer")
    assert {name: getattr(tuned.config, name) for name in UNET} == {**UNET, "channel_mult": [1, 2], "attention_resolutions": [1]}  # fmt: skip
    with torch.no_grad():
        tuned.out[2].bias.add_(1)
    tuned.save_pretrained(files / "tuned")
    converted(files, monkeypatch, "back", "out", "tuned.ckpt", "--denoiser", "tuned")
    found = torch.load(files / "tuned.ckpt", weights_only=True)["state_dict"]
    changed = {name for name, it in found.items() if not torch.equal(it, wanted[name])}
    assert changed == {"model.diffusion_model.out.2.bias"}


def test_turbo_is_converted_of_its_update_and_back_as_a_denoiser(files, monkeypatch):
    """The base that no file has is zero; v2's denoiser goes through as it is."""
    converted(files, monkeypatch, "t2v_turbo", "unet_lora.pt", "model.ckpt", "out")
    found = load_file(files / "out/transformer/diffusion_pytorch_model.safetensors")
    wanted = turbo_weights()
    wanted["time_cond_proj.weight"] -= part("t2v_turbo", "weights.unet.")["time_cond_proj.weight"]
    assert found.keys() == wanted.keys()
    for name, it in wanted.items():
        torch.testing.assert_close(found[name], it, rtol=0, atol=1e-6)
    converted(files, monkeypatch, "back", "out", "unet.pt")
    converted(files, monkeypatch, "t2v_turbo", "unet.pt", "model.ckpt", "second")
    converted(files, monkeypatch, "back", "second", "again.pt")
    both = [torch.load(files / name, weights_only=True) for name in ("unet.pt", "again.pt")]
    assert bits(both[0]) == bits(both[1]) == bits({name: found[name] for name in both[0]})


def test_a_wrong_file_is_one_line(files, monkeypatch):
    """And nothing is written."""
    (files / "text.ckpt").write_text("no tensors")
    torch.save({"other": torch.ones(1)}, files / "other.ckpt")
    torch.save({"state_dict": {"model.diffusion_model.x": torch.ones(1)}}, files / "part.ckpt")
    lacking = published()
    del lacking["model.diffusion_model.middle_block.0.emb_layers.1.bias"]
    torch.save({"state_dict": lacking}, files / "lacking.ckpt")
    torch.save(torch.load(files / "unet_lora.pt", weights_only=True)[:-2], files / "short.pt")
    cases = {
        ("videocrafter2", "missing.ckpt"): "missing.ckpt: cannot be read",
        ("videocrafter2", "text.ckpt"): "text.ckpt: cannot be read as a file of tensors",
        ("videocrafter2", "other.ckpt"): "has no state_dict",
        ("videocrafter2", "part.ckpt"): r"has no first_stage_model.\*",
        ("videocrafter2", "lacking.ckpt"): "lacks middle_block.0.emb_layers.1.bias; it is not the published file",
        ("t2v_turbo", "short.pt", "model.ckpt"): "update of T2V-Turbo .*: .* tensors for .* layers",
        ("t2v_turbo", "model.ckpt", "model.ckpt"): "it is not T2V-Turbo's list of .* nor the denoiser",
    }
    for given, message in cases.items():
        with pytest.raises(UserError, match=message):
            converted(files, monkeypatch, *given, "out")
        assert not (files / "out").exists()
    (files / "out").mkdir()
    for given, message in ((("videocrafter2", "model.ckpt", "out"), "is there already"), (("back", "out", "x.pt"), "was not written by")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            converted(files, monkeypatch, *given)
