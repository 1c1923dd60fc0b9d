"""The grid of every family's sampler against the scheduler that its published checkpoints name, asked as the family's
pipeline asks it, and against its formula. Nothing here needs weights."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from regdpo.config.schema import Sampling, check
from regdpo.core.errors import UserError
from regdpo.core.store import Store
from regdpo.models.family import Family, open_family
from regdpo.models.spec import ModelRef
from regdpo.sampling.denoise import denoise, nearest_step

STEPS = (4, 20, 40, 50)
SHIFTS = (None, 3.0, 5.0, 12.0)
LTX_LATENT = (128, 13, 16, 22)  # 97 frames of 512x704: 4576 tokens
UNIPC = {
    "_class_name": "UniPCMultistepScheduler", "final_sigmas_type": "zero", "lower_order_final": True,
    "num_train_timesteps": 1000, "predict_x0": True, "prediction_type": "flow_prediction", "solver_order": 2,
    "solver_type": "bh2", "timestep_spacing": "linspace", "use_flow_sigmas": True,
}  # fmt: skip
EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "invert_sigmas": False}
DYNAMIC = {
    "base_image_seq_len": 1024, "base_shift": 0.95, "max_image_seq_len": 4096, "max_shift": 2.05, "shift": 1.0,
    "shift_terminal": 0.1, "use_dynamic_shifting": True,
}  # fmt: skip
COGVIDEOX = {
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False,
    "num_train_timesteps": 1000, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True, "timestep_spacing": "trailing",
}  # fmt: skip
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    # As scripts/convert_wan_to_diffusers.py of huggingface/diffusers writes it, and the model cards set it for 720p.
    "wan": ("wan", {**UNIPC, "flow_shift": 3.0}),
    "wan-720p": ("wan", {**UNIPC, "flow_shift": 5.0}),
    # hunyuanvideo-community/HunyuanVideo and Lightricks/LTX-Video, scheduler/scheduler_config.json.
    "hunyuan_video": ("hunyuan_video", {**EULER, "shift": 7.0, "use_dynamic_shifting": False}),
    "ltx_video": ("ltx_video", {**EULER, **DYNAMIC}),
    # zai-org/CogVideoX-2b and -5b.
    "cogvideox-2b": ("cogvideox", {**COGVIDEOX, "_class_name": "CogVideoXDDIMScheduler", "snr_shift_scale": 3.0}),
    "cogvideox-5b": ("cogvideox", {**COGVIDEOX, "_class_name": "CogVideoXDPMScheduler", "snr_shift_scale": 1.0}),
}
CLASSES = {
    "wan": ("WanTransformer3DModel", "AutoencoderKLWan"),
    "hunyuan_video": ("HunyuanVideoTransformer3DModel", "AutoencoderKLHunyuanVideo"),
    "ltx_video": ("LTXVideoTransformer3DModel", "AutoencoderKLLTXVideo"),
    "cogvideox": ("CogVideoXTransformer3DModel", "AutoencoderKLCogVideoX"),
}


def bare(folder: Path, name: str, scheduler: dict[str, Any]) -> Family:
    """A checkpoint of configurations alone."""
    transformer, vae = CLASSES[name]
    files = {
        "model_index.json": {"vae": ["diffusers", vae]},
        "transformer/config.json": {"_class_name": transformer},
        "vae/config.json": {"_class_name": vae},
        "scheduler/scheduler_config.json": scheduler,
    }
    for file, values in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(values))
    ref = ModelRef(family=name, task="t2v", where="folder", path=str(folder), text_length=16, digest="")
    return open_family(ref, Store(folder / "store"), torch.device("cpu"))


def seen(family: Family, steps: int, shift: float | None, latent: tuple[int, ...]) -> Tensor:
    """The timesteps that the denoiser is given in sampling, recorded where it would be called."""
    sigmas: list[Tensor] = []

    def predict(model: Any, x_t: Tensor, sigma: Tensor, inputs: Any) -> Tensor:
        sigmas.append(sigma[0])
        return torch.zeros_like(x_t)

    family.predict = predict  # type: ignore[method-assign]
    sampling = Sampling(steps=steps, guidance=1.0, shift=shift)
    denoise(family, torch.nn.Identity(), {}, torch.zeros(1, *latent), sampling)
    return torch.stack(sigmas) * 1000


def published(name: str, config: dict[str, Any], steps: int, shift: float | None, latent: tuple[int, ...]) -> Any:
    """The scheduler of the checkpoint as its pipeline sets it up, our shift in the place of its own."""
    kind = getattr(diffusers, config["_class_name"])
    if name == "cogvideox":
        scheduler = kind.from_config(config)
        scheduler.set_timesteps(steps)
    elif name == "wan":
        scheduler = kind.from_config({**config, **({"flow_shift": shift} if shift else {})})
        scheduler.set_timesteps(steps)
    else:
        scheduler = kind.from_config({**config, **({"shift": shift, "use_dynamic_shifting": False} if shift else {})})
        mu = None
        if scheduler.config.use_dynamic_shifting:
            mu = diffusers.pipelines.ltx.pipeline_ltx.calculate_shift(
                int(np.prod(latent[1:])), *(DYNAMIC[key] for key in ("base_image_seq_len", "max_image_seq_len")),
                *(DYNAMIC[key] for key in ("base_shift", "max_shift")),
            )  # fmt: skip
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    return scheduler


def formula(name: str, config: dict[str, Any], steps: int, shift: float | None, tokens: int) -> np.ndarray:
    """The sigmas of a flow, or the timesteps of CogVideoX, written out anew."""
    if name == "cogvideox":  # trailing: from the last timestep down
        return np.round(1000 - np.arange(steps) * 1000 / steps) - 1
    grid = 1 - np.arange(steps) / steps * (0.999 if name == "wan" else 1)
    s = shift or config.get("flow_shift") or config["shift"]
    if name == "ltx_video" and shift is None:
        s = np.exp(0.95 + (2.05 - 0.95) * (tokens - 1024) / (4096 - 1024))
    grid = s * grid / (1 + (s - 1) * grid)
    if name == "ltx_video":  # stretched so that the last is .1
        grid = 1 - (1 - grid) * 0.9 / (1 - grid[-1])
    return grid


@pytest.mark.parametrize("which", PUBLISHED)
def test_the_grid_is_the_published_schedulers(which, tmp_path):
    name, config = PUBLISHED[which]
    family = bare(tmp_path, name, config)
    latent = LTX_LATENT if name == "ltx_video" else (4, 2, 4, 4)
    for steps in STEPS:
        for shift in SHIFTS:
            ours = family.sampler(steps, shift, latent)
            theirs = published(name, config, steps, shift, latent)
            assert torch.equal(ours.timesteps, theirs.timesteps)
            given = seen(family, steps, shift, latent)
            torch.testing.assert_close(
                given, theirs.timesteps.float() + (0.5 if name == "cogvideox" else 0.0), rtol=1e-6, atol=1e-4
            )
            wanted = formula(name, config, steps, shift, int(np.prod(latent[1:])))
            if name == "cogvideox":
                assert ours.timesteps.tolist() == wanted.tolist()
                continue
            assert torch.equal(ours.sigmas, theirs.sigmas)
            assert ours.sigmas[:-1].numpy() == pytest.approx(wanted, abs=3e-6)
            assert ours.sigmas[-1] == 0


def test_the_steps_are_the_published_schedulers(tmp_path):
    """Along the same answers both arrive at the same latents: UniPC is not Euler on UniPC's grid."""
    name, config = PUBLISHED["wan-720p"]
    latent = (4, 2, 4, 4)
    ours, theirs = bare(tmp_path, name, config).sampler(8, None, latent), published(name, config, 8, None, latent)
    rng = torch.Generator().manual_seed(0)
    x = y = euler = torch.randn(2, *latent, generator=rng)
    for number, t in enumerate(theirs.timesteps):
        answer = torch.randn(2, *latent, generator=rng)
        x, y = (it.step(answer, t, value, return_dict=False)[0] for it, value in ((ours, x), (theirs, y)))
        euler = euler + (theirs.sigmas[number + 1] - theirs.sigmas[number]) * answer
    assert torch.equal(x, y)
    assert (x - euler).abs().max() > 0.01


def test_wans_grid_ends_where_wans_does(tmp_path):
    """40 steps with shift 5: what diffusers' UniPC gives the denoiser, near .289 .208 .114 of Wan's own code."""
    given = seen(bare(tmp_path, *PUBLISHED["wan"]), 40, 5.0, (4, 2, 4, 4))
    assert given[-3:].tolist() == pytest.approx([291, 211, 117], abs=0.01)


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_wan_that_names_euler_is_shifted_once(shift, tmp_path):
    family = bare(tmp_path, "wan", {**EULER, "shift": 4.0})
    grid, s = 1 - np.arange(10) / 10 * 0.999, shift or 4.0
    assert seen(family, 10, shift, (4, 2, 4, 4)).numpy() == pytest.approx(1000 * s * grid / (1 + (s - 1) * grid), 1e-5)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"_class_name": "DDIMScheduler"}, "names DDIMScheduler, known are UniPC"),
        ({**UNIPC, "use_flow_sigmas": False}, "a flow needs flow_prediction"),
        ({**UNIPC, "prediction_type": "epsilon"}, "predicts epsilon, a flow needs flow_prediction"),
    ],
)
def test_another_kinds_scheduler_is_refused(config, line, tmp_path):
    with pytest.raises(UserError, match=line):
        bare(tmp_path, "wan", config).check_scheduler()  # type: ignore[attr-defined]


def test_guidance_for_each_expert_is_read():
    both = Sampling.model_validate({"guidance": {"high": 4, "low": 3}})
    assert (both.scale("high"), both.scale("low"), both.guided) == (4.0, 3.0, True)
    assert Sampling(guidance=5).scale(None) == 5.0
    with pytest.raises(ValueError, match="one each for `high` and `low`"):
        Sampling.model_validate({"guidance": {"high": 4}})


def test_a_single_step_where_there_has_to_be_a_last_one(tmp_path):
    """Stretching a grid of one step to its end divides by nothing."""
    (name, config) = next(it for it in PUBLISHED.values() if it[1].get("shift_terminal"))
    with pytest.raises(UserError, match=r"sampling.steps: 1 is too few"):
        bare(tmp_path, name, config).sampler(1, None, LTX_LATENT)


@pytest.mark.parametrize("case", PUBLISHED)
def test_sampling_from_a_noised_video_comes_back_to_it_where_the_denoiser_knows_it(case, tmp_path):
    """Given the exact target at every level, a solver that begins at the right level and step ends at the video; the
    first thing the denoiser sees is the video noised by the formula of its kind."""
    name, config = PUBLISHED[case]
    family = bare(tmp_path, name, config)
    draws = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 2, 4, 4, generator=draws), torch.randn(2, 4, 2, 4, 4, generator=draws)
    assert nearest_step(family, Sampling(steps=2), (4, 2, 4, 4), 0.98)[1] < 0.999, "something is left of the video"
    first, strength = nearest_step(family, Sampling(steps=10), (4, 2, 4, 4), 0.6)
    seen: list[tuple[Tensor, Tensor]] = []

    def predict(model: Any, x_t: Tensor, sigma: Tensor, inputs: Any) -> Tensor:
        seen.append((x_t, sigma))
        return family.target(x0, noise, sigma)

    family.predict = predict  # type: ignore[method-assign]
    sampling = Sampling(steps=10, guidance=1.0)
    end = denoise(family, torch.nn.Identity(), {}, noise, sampling, video=x0, first=first)
    assert len(seen) == 10 - first < 10
    if name == "cogvideox":
        kept = family._scheduler.alphas_cumprod[int(seen[0][1][0] * 1000)]
        assert torch.allclose(seen[0][0], kept.sqrt() * x0 + (1 - kept).sqrt() * noise, atol=1e-6)
    else:
        assert torch.allclose(seen[0][0], (1 - strength) * x0 + strength * noise, atol=1e-6)
    assert torch.allclose(end, x0, atol=1e-4)


MEAN, SPREAD = 0.7, 0.4
"""Of the data of a problem whose flow is known: they are normal."""


def velocity(x: Tensor, sigma: float) -> Tensor:
    """E[noise - x0 | x] where x0 is normal: with m = (1 - s) mean and v = (1 - s)^2 spread^2 + s^2, m' + v' / 2v (x - m).
    Along it ``x = m + sqrt(v) z`` for a fixed z, since mean and variance have to be those of every s."""
    v = (1 - sigma) ** 2 * SPREAD**2 + sigma**2
    slope = sigma - (1 - sigma) * SPREAD**2
    return -MEAN + slope / v * (x - (1 - sigma) * MEAN)


def error_of(family: Family, solver: str, steps: int, shift: float) -> float:
    """Root mean square distance from the known end."""
    exact = family.sampler(steps, shift, (4, 2, 4, 4)).sigmas  # not what timesteps round it to

    def predict(model: Any, x_t: Tensor, sigma: Tensor, inputs: Any) -> Tensor:
        s = float(exact[(exact - sigma[0]).abs().argmin()])
        return velocity(x_t, s)

    family.predict = predict  # type: ignore[method-assign]
    z = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    sampling = Sampling.model_validate({"steps": steps, "guidance": 1.0, "solver": solver, "shift": shift})
    end = denoise(family, torch.nn.Identity(), {}, z, sampling)
    return float((end - (MEAN + SPREAD * z)).square().mean().sqrt())


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
def test_a_multistep_solver_needs_half_of_eulers_steps_where_the_last_one_is_short(solver, tmp_path):
    """The last step is of first order for every solver. A shift of 7 leaves it a sigma of .15 of 40 steps and .27 of 20,
    which then is the whole error, and half the steps are worse."""
    family = bare(tmp_path, *PUBLISHED["hunyuan_video"])
    for steps in (20, 40, 80):
        euler = error_of(family, "checkpoint", steps, 1.0)
        assert error_of(family, solver, steps // 2, 1.0) <= 0.5 * euler
        assert error_of(family, solver, steps, 1.0) <= 0.25 * euler
        for shift in (3.0, 5.0, 7.0):
            assert error_of(family, solver, steps, shift) <= error_of(family, "checkpoint", steps, shift)
    assert error_of(family, solver, 20, 7.0) > error_of(family, "checkpoint", 40, 7.0)


@pytest.mark.parametrize("which", ["wan-720p", "hunyuan_video", "ltx_video"])
def test_a_solver_steps_on_the_checkpoints_grid(which, tmp_path):
    """DPM-Solver++(2M), algorithm 2 of arXiv 2211.01095, written out for ``x = (1 - s) x0 + s noise``; its last step is
    of first order. UniPC by diffusers, which is Wan's own."""
    name, config = PUBLISHED[which]
    latent = LTX_LATENT if name == "ltx_video" else (4, 2, 4, 4)
    family, steps = bare(tmp_path, name, config), 6
    own, dpm, unipc = (family.sampler(steps, None, latent, kind) for kind in ("checkpoint", "dpm++", "unipc"))
    for other in (dpm, unipc):
        assert torch.equal(other.timesteps, own.timesteps)
        torch.testing.assert_close(other.sigmas, own.sigmas.cpu(), rtol=0, atol=2e-6)
    if name == "wan":
        assert type(unipc) is type(own)
    else:
        theirs = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
        theirs.set_timesteps(sigmas=own.sigmas[:-1].double().numpy())
    rng = torch.Generator().manual_seed(0)
    x = y = z = w = torch.randn(1, 4, 2, 4, 4, generator=rng)
    sigmas, before, h_before = dpm.sigmas.double(), None, 0.0
    for step in range(steps):
        answer = torch.randn(1, 4, 2, 4, 4, generator=rng)
        x = dpm.step(answer, dpm.timesteps[step], x, return_dict=False)[0]
        s, t = sigmas[step], sigmas[step + 1]
        x0 = y - s * answer
        h = torch.log((1 - t) / t) - torch.log((1 - s) / s)
        slope = 0.0 if before is None or t == 0 else (x0 - before) * h / (2 * h_before)
        y = t / s * y - (1 - t) * torch.expm1(-h) * (x0 + slope)
        before, h_before = x0, h
        if name != "wan":
            z = unipc.step(answer, unipc.timesteps[step], z, return_dict=False)[0]
            w = theirs.step(answer, theirs.timesteps[step], w, return_dict=False)[0]
    torch.testing.assert_close(x.double(), y.double(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(z, w, rtol=1e-4, atol=1e-4)


def test_a_solver_that_a_family_cannot_take_is_refused():
    base = {"family": "cogvideox", "model": "a/b", "revision": "1"}
    values = {"videos": {"root": "."}, "base": base, "train": {"arms": {"sft": {"objective": "sft"}}}}
    with pytest.raises(UserError, match=r"negatives.sampling.solver: cogvideox is no flow, and takes no other beside"):
        check({**values, "negatives": {"sampling": {"solver": "unipc"}}})
    check({**values, "base": {**base, "family": "wan"}, "negatives": {"sampling": {"solver": "unipc"}}})
