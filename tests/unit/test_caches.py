"""diffusers' caches in our loop, on a tiny checkpoint of each family."""

from pathlib import Path

import pytest
import torch
from tiny_pipelines import CAPTION, CASES, FPS, NEGATIVE, Case, save, video
from torch import Tensor, nn

from regdpo.config.schema import Cache, Sampling
from regdpo.core.errors import UserError
from regdpo.core.store import Store
from regdpo.models.family import Family, open_family
from regdpo.models.registry import CACHES, FAMILIES
from regdpo.models.spec import ModelRef
from regdpo.sampling import denoise as sampler
from regdpo.sampling.denoise import denoise

pytestmark = pytest.mark.slow
CHOSEN = ("wan-codec-t2v", "wan22-14b-t2v-low", "cogvideox-2b-t2v", "hunyuan_video-t2v", "ltx_video-i2v")
STEPS = 5


def test_every_family_is_tried():
    assert {CASES[name].family for name in CHOSEN} == {name for name, it in FAMILIES.items() if it.caches}


@pytest.fixture(scope="module", params=CHOSEN)
def made(request, tmp_path_factory) -> tuple[Case, Family]:
    case, folder = CASES[request.param], tmp_path_factory.mktemp(request.param)
    save(case, folder / "model")
    ref = ModelRef(
        family=case.family, task=case.task, where="folder", path=str(folder / "model"), expert=case.expert, fps=FPS,
        text_length=case.text_length, digest="",
    )  # fmt: skip
    return case, open_family(ref, Store(folder / "store"), torch.device("cpu"))


def projections(denoiser: nn.Module, family: Family) -> list[nn.Module]:
    """The projection to queries in the last block of each transformer: it runs where attention is computed."""
    parts = [denoiser.high, denoiser.low] if hasattr(denoiser, "high") else [denoiser]
    return [
        next(layer for name, layer in family.blocks(part)[-1].named_modules() if name.endswith("to_q"))  # type: ignore[arg-type]
        for part in parts
    ]


@pytest.mark.parametrize("kind", CACHES)
def test_a_cache_leaves_out_what_is_counted_and_nothing_behind(made, kind):
    """The same bytes alone and after another video, and without it as ever."""
    case, family = made
    sampling = Sampling.model_validate(
        {"steps": STEPS, "guidance": 1.0 if kind == "pyramid_attention" else 3.0, "negative_prompt": NEGATIVE,
         "cache": {"kind": kind, "threshold": 0.9, "interval": 3, "warmup": 1}}
    )  # fmt: skip
    assert not sampling.misfit(case.family)
    off = sampling.model_copy(update={"cache": Cache()})
    inputs = family.encode_text([CAPTION])
    inputs |= family.encode_first_frame(torch.from_numpy(video(case.size)[:1]), case.size[0])
    denoiser, shape = family.load_denoiser().eval(), family.latent_shape(*case.size)
    noise, other = (torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    calls = [0]
    for layer in projections(denoiser, family):
        layer.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))

    def counted(noise: Tensor, sampling: Sampling, inputs: dict[str, Tensor] = inputs) -> tuple[Tensor, int]:
        calls[0] = 0
        return denoise(family, denoiser, inputs, noise, sampling), calls[0]

    plain, every = counted(noise, off)
    alone, some = counted(noise, sampling)
    counted(other, sampling)
    after, again = counted(noise, sampling)
    assert torch.equal(after, alone)
    assert alone.isfinite().all()
    assert not torch.equal(alone, plain)
    assert again == some < every == off.passes(family.embeds_guidance)
    if kind == "taylorseer" and not case.expert:
        assert some == sampling.passes(family.embeds_guidance)
    if kind == "first_block":
        assert "set batch: 1" in sampling.model_copy(update={"batch": 2}).misfit(case.family)
    else:
        two = {name: torch.cat([value, value]) for name, value in inputs.items()}
        both, _ = counted(torch.cat([other, noise]), sampling, two)
        torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-3)
    if kind == "pyramid_attention" and not family.embeds_guidance:
        with pytest.raises(UserError, match="keeps one state for both passes of guidance"):
            sampler.check(family, sampling.model_copy(update={"guidance": 3.0}))


def test_steps_in_full_are_diffusers(tmp_path: Path):
    """Of 12 calls with 3 first steps and every fourth: 0, 1, 2, then 4, 8."""
    assert Cache(kind="taylorseer", interval=4).computed(12) == 5
    assert Cache().computed(12) == 12
    assert Cache(kind="first_block").computed(12) is None
    sampling = Sampling.model_validate({"steps": 12, "guidance": 5, "cache": {"kind": "taylorseer"}})
    assert (sampling.passes(), sampling.passes(embedded=True)) == (10, 5)


def test_a_cache_that_a_family_has_not_is_refused(monkeypatch):
    sampling = Sampling.model_validate({"cache": {"kind": "first_block"}})
    assert sampling.misfit("wan") == ""
    declared = FAMILIES["wan"]
    monkeypatch.setitem(FAMILIES, "wan", type(declared)(declared.family))
    assert sampling.misfit("wan") == "cache.kind: first_block does not work with wan; no cache does"


def test_compiled_blocks_are_those_that_repeat(made, monkeypatch):
    """In both experts; not together with a cache, and not where diffusers names none."""
    case, family = made
    wanted = Sampling(compile=True)
    if case.family == "cogvideox":
        assert "diffusers does not say which blocks of cogvideox repeat" in wanted.misfit(case.family)
        return
    assert wanted.misfit(case.family) == ""
    assert wanted.model_copy(update={"cache": Cache(kind="taylorseer")}).misfit(case.family).startswith("compile: not")
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, *args, **options: compiled.append(module))
    denoiser = sampler.prepared(family.load_denoiser(), Sampling())
    assert compiled == []
    sampler.prepared(denoiser, wanted)
    parts = [denoiser.high, denoiser.low] if case.expert else [denoiser]
    assert {block for part in parts for block in family.blocks(part)} <= set(compiled)
