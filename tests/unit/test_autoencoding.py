"""Who is on the device, in which precision the autoencoder runs, and when it works in tiles."""

import weakref

import pytest
import torch
from tiny_pipelines import CAPTION, CASES, FPS, NEGATIVE, save, video
from torch import Tensor, nn

from regdpo.config.schema import Sampling
from regdpo.core import code_digest
from regdpo.core.store import Store
from regdpo.models.diffusers_family import DiffusersFamily
from regdpo.models.family import Family, open_family
from regdpo.models.live import Live
from regdpo.models.spec import Autoencoding, ModelRef
from regdpo.models.turns import Turns
from regdpo.models.wan import Wan
from regdpo.models.wan22 import Experts
from regdpo.sampling.denoise import denoise

CPU, BF16 = torch.device("cpu"), torch.bfloat16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan22")
    save(CASES["wan22-14b-i2v-high"], folder / "model")
    return folder


def opened(folder, dtype=torch.float32, **how) -> Family:
    ref = ModelRef(
        family="wan22", task="i2v", where="folder", path=str(folder / "model"), expert="high", fps=FPS, text_length=16,
        digest="",
    )  # fmt: skip
    return open_family(ref, Store(folder / "store"), CPU, dtype, Autoencoding(**how))


class Device:
    """A device by its bytes: copies on it that are alive, and the most there were."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def copy(self, tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        there = tensor.detach().to(dtype, copy=True)
        size = there.nbytes
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(there.untyped_storage(), self.free, size)
        return there

    def free(self, size: int) -> None:
        self.now -= size


def size_of(*modules: nn.Module) -> int:
    return sum(t.nbytes for module in modules for t in [*module.parameters(), *module.buffers()])


def test_one_part_is_on_the_device_at_a_time(folder):
    """Through text, first frame, both experts and the decoder the device holds the largest of them, and no two."""
    family, device = opened(folder), Device()
    family.turns = Turns(CPU, device.copy)
    frames, height, width = CASES["wan22-14b-i2v-high"].size
    inputs = family.encode_text([CAPTION]) | family.encode_first_frame(
        torch.from_numpy(video((frames, height, width))[:1]), frames
    )
    denoiser = family.load_denoiser().eval()
    assert isinstance(denoiser, Experts)
    asked: list[str] = []
    denoiser.high.register_forward_hook(lambda *_: asked.append("high"))
    denoiser.low.register_forward_hook(lambda *_: asked.append("low"))
    noise = torch.randn(1, *family.latent_shape(frames, height, width))
    sampling = Sampling(steps=4, guidance=3.0, negative_prompt=NEGATIVE)
    family.decode_video(denoise(family, denoiser, inputs, noise, sampling))
    assert sorted(set(asked), key=asked.index) == ["high", "low"], "the switch was made"
    parts = [denoiser.high, denoiser.low, family._text.text_encoder, family._vae]  # type: ignore[attr-defined]
    assert device.most == max(size_of(part) for part in parts)
    family.turns.clear()
    assert device.now == 0


def test_weights_come_home_as_they_were():
    """Tied weights too; the device's dtype is for parameters alone."""
    layer, tied = nn.Linear(4, 4), nn.Linear(4, 4)
    tied.weight = layer.weight
    layer.register_buffer("table", torch.arange(3.0))
    homes = {id(p): p.data_ptr() for p in [*layer.parameters(), *tied.parameters()]}
    device = Device()
    turns = Turns(CPU, device.copy)
    turns.bring(layer, tied, dtype=BF16)
    assert {p.dtype for p in layer.parameters()} == {BF16}
    assert layer.table.dtype == torch.float32
    turns.bring(layer, dtype=BF16)
    turns.bring(layer)
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    turns.clear()
    assert {id(p): p.data_ptr() for p in [*layer.parameters(), *tied.parameters()]} == homes
    assert device.now == 0


def test_what_is_trained_on_is_encoded_in_fp32(folder):
    """Also where models that are not trained run in bf16, as on a GPU; the configuration can ask for less."""
    clip = torch.from_numpy(video(CASES["wan22-14b-i2v-high"].size))[None]
    exact, on_gpu = opened(folder), opened(folder, BF16)
    assert torch.equal(on_gpu.encode_video(clip), exact.encode_video(clip))
    condition = on_gpu.encode_first_frame(clip[:, 0], len(clip[0]))["condition"]
    assert torch.equal(condition, exact.encode_first_frame(clip[:, 0], len(clip[0]))["condition"])
    rough = opened(folder, BF16, encode="bf16").encode_video(clip)
    assert 1e-4 < (rough - exact.encode_video(clip)).abs().max() < 0.1


def test_each_family_says_how_it_decodes(folder):
    family = opened(folder, BF16)
    assert family.vae_dtype("decode") == torch.float32, "on a CPU"
    family.device = torch.device("cuda")
    assert (family.vae_dtype("encode"), family.vae_dtype("decode")) == (torch.float32, torch.float32)
    family.decode_dtype = DiffusersFamily.decode_dtype  # type: ignore[misc]
    assert (family.vae_dtype("encode"), family.vae_dtype("decode")) == (torch.float32, BF16)
    family.autoencoding = Autoencoding(encode="bf16", decode="fp32")
    assert (family.vae_dtype("encode"), family.vae_dtype("decode")) == (BF16, torch.float32)


@pytest.mark.parametrize("name", ["encode_dtype", "decode_dtype", "vae_dtype", "tiled"])
def test_how_the_autoencoder_runs_counts(name):
    """What shapes latents stands in a module of which all counts, not in the table of families."""
    owner = next(kind for kind in Wan.__mro__ if name in vars(kind))
    assert owner.__module__ not in code_digest.TABLES
    assert owner.__module__.split(".")[1] not in code_digest.PLUMBING


def test_a_video_is_encoded_the_same_in_any_company(folder):
    family = opened(folder)
    clips = torch.stack([torch.from_numpy(video(CASES["wan22-14b-i2v-high"].size, seed)) for seed in (0, 1)])
    both = family.encode_video(clips)
    assert all(torch.equal(both[number], family.encode_video(clips[number : number + 1])[0]) for number in (0, 1))
    pixels = family.decode_video(both)
    assert torch.equal(pixels[1:], family.decode_video(both[1:]))


def test_tiles_are_for_what_does_not_fit(folder):
    """The need is counted by shapes; the same computation on real tensors allocates as much."""
    family = opened(folder)
    size = (9, 64, 64)
    vae = family._vae  # type: ignore[attr-defined]
    pixels, latents = torch.zeros(1, 3, *size), torch.zeros(1, *family.latent_shape(*size))
    for direction, run, given in (("encode", vae.encode, pixels), ("decode", vae.decode, latents)):
        weights = [*vae.parameters(), *vae.buffers()]
        with torch.no_grad(), Live([*weights, given]) as live:
            run(given)
        need = size_of(vae) + given.nbytes + live.peak
        family.memory = None
        assert not family.tiled(direction, *size), "nothing is known of a CPU"
        for spare, tiled in ((1.02, False), (0.98, True)):
            family.memory = int(need / 0.85 * spare)
            assert family.tiled(direction, *size) is tiled
    assert opened(folder, tiling="on").tiled("encode", *size)
    family.autoencoding = Autoencoding(tiling="off")
    assert not family.tiled("encode", *size)


def test_tiles_change_values_a_little(folder):
    clip = torch.from_numpy(video((1, 64, 320)))[None]
    whole, tiles = (opened(folder, tiling=tiling).encode_video(clip) for tiling in ("off", "on"))
    assert whole.shape == tiles.shape
    difference = (tiles - whole).pow(2).mean().sqrt() / whole.std()
    print(f"tiles of 256 pixels, a tiny random autoencoder: {difference:.2%} of the latents' deviation")
    assert 0 < difference < 0.5
