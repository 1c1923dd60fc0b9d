"""What the benchmarks train in the place of a checkpoint on footage: an architecture with random weights, made where
they lie, on random latents. All else is the project's own trainer."""

import gc
import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from regdpo.core import manifests
from regdpo.core.digests import file_digest
from regdpo.core.rows import LatentRow
from regdpo.core.store import Store
from regdpo.models.checkpoint_json import KNOWN
from regdpo.models.family import Family
from regdpo.models.spec import ModelFile
from regdpo.objectives.registry import OBJECTIVES
from regdpo.parallel.mesh import layout
from regdpo.plan.architecture import Architecture, described
from regdpo.plan.memory import Training
from regdpo.runs.job import Job
from regdpo.train import build as trained
from regdpo.train.trainer import Trainer

TINY: dict[str, Any] = {
    "_class_name": "WanTransformer3DModel",
    "patch_size": [1, 2, 2],
    "in_channels": 16,
    "out_channels": 16,
    "rope_max_seq_len": 1024,
    "num_attention_heads": 4,
    "attention_head_dim": 48,
    "ffn_dim": 768,
    "num_layers": 6,
    "text_dim": 64,
    "freq_dim": 64,
}
SHRUNK: dict[str, dict[str, Any]] = {
    "mugv_10b": {"num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 3, "text_dim": 16},
    "cogvideox_5b": {"num_attention_heads": 4, "attention_head_dim": 48, "num_layers": 3, "text_embed_dim": 16},
}
"""Of config/architectures, the denoiser's values for a CPU."""
SCALE = 0.02
"""Standard deviation of random weights."""


def small(name: str = "small", **changes: Any) -> Architecture:
    """A Wan for a CPU."""
    files = {
        "model_index.json": {"vae": ["diffusers", "AutoencoderKLWan"]},
        "transformer/config.json": TINY | changes,
        "vae/config.json": {"z_dim": 16, "scale_factor_temporal": 4, "scale_factor_spatial": 8},
    }
    return described(name, "benchmarks/rig.py", files, family="wan", task="t2v", text_length=512)


def shrunk(name: str) -> Architecture:
    """An architecture of config/architectures with a small denoiser."""
    values = json.loads((KNOWN / f"{name}.json").read_text())
    denoiser = values["files"]["transformer/config.json"] | SHRUNK[name]
    files = values["files"] | {"transformer/config.json": denoiser}
    files["text_encoder/config.json"] |= {"d_model": 16}
    return described(name, "benchmarks/rig.py", files, values["family"], values["task"], text_length=16)


def world(
    folder: Path,
    architecture: Architecture,
    size: tuple[int, int, int],
    pairs: int,
    validation: int = 0,
    weights: bool = False,
) -> dict[str, Any]:
    """A checkpoint without weights and random latents; what a ``Job`` has to be told of them.

    Args:
        size: frames, height and width of a clip. validation: pairs of that split, after the others.
        weights: the checkpoint has some, as the architecture starts.
    """
    shutil.copytree(architecture.ref.path, folder / "model")
    if weights:
        torch.manual_seed(0)
        kind: Any = type(architecture.empty())
        kind.from_config(kind.load_config(folder / "model/transformer")).save_pretrained(folder / "model/transformer")
    (folder / "run").mkdir()
    store = Store(folder / "store")
    shape = architecture.latent_shape(*size)
    given = {name: one.shape[1:] for name, one in architecture.family.example_inputs(shape).items()}
    source = torch.Generator().manual_seed(0)
    rows = []
    for number in range(pairs + validation):
        tensors = {name: torch.randn(wanted, generator=source) for name, wanted in given.items()}
        tensors |= {half: torch.randn(shape, generator=source) for half in ("winner", "loser")}
        path = store.relative("latents", f"{number:064d}", ".safetensors")
        with store.writing(path) as temporary:
            save_file(tensors, temporary)
        rows.append(
            LatentRow(
                pair_id=f"pair{number}",
                split="train" if number < pairs else "validation",
                clip_id=f"clip{number}",
                path=path,
                sha256=file_digest(store.resolve(path)),
                encoder="random",
                shape=",".join(map(str, shape)),
                has_loser=True,
            )
        )
    manifests.write(folder / "latents.parquet", rows, LatentRow)
    ref = architecture.ref.model_copy(update={"path": str(folder / "model"), "digest": "random"})
    return {
        "model": ModelFile(name="base", ref=ref, digest="random").model_dump(),
        "latents": str(folder / "latents.parquet"),
        "store": str(folder / "store"),
        "run": str(folder / "run"),
    }


def job(made: dict[str, Any], device: str, settings: dict[str, Any], parallel: dict[str, Any] | None = None) -> Job:
    """A Reg-DPO training of what ``world`` made."""
    settings = settings | {"caption_dropout": 0}  # there is no empty caption
    stage = {"objective": "reg_dpo", "beta": 500.0, "r": "dgr", "seed": 0, "settings": settings}
    never = 10**6
    rest = {"micro_batch": 1, "checkpoint_every": never, "eval_every": never, "keep": 1}
    return Job.model_validate({**made, "stage": stage, "device": device, "parallel": parallel or {}, **rest})


def planned(folder: Path, training: Training, device: torch.device, pairs: int) -> Job:
    """The job of a training that was planned for, on a world of its own."""
    size = training.frames, training.height, training.width
    made = world(folder, training.architecture, size, pairs)
    settings = training.settings
    return job(made, device.type, settings.model_dump(exclude={"parallel"}), settings.parallel.model_dump())


def trainer(of: Job, device: torch.device) -> Trainer:
    """The trainer of a job with random weights. There has to be a process group."""
    with random_weights():
        return Trainer(of, device, layout(device, of.parallel, OBJECTIVES[of.stage.objective].paired))


@contextmanager
def random_weights() -> Iterator[None]:
    """The trainer's models are filled with random weights where they lie."""
    with patch.object(trained, "fill", _fill):
        yield


@torch.no_grad()
def _fill(model: nn.Module, family: Family, device: torch.device, compute: torch.device, *_: object) -> None:
    model.to_empty(device=device)
    for parameter in model.parameters():
        local: Any = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        local.normal_(0, SCALE)
    buffers = family.buffers()
    for path, module in model.named_modules():
        for name, _ in module.named_buffers(recurse=False):
            module._buffers[name] = buffers[f"{path}.{name}".lstrip(".")].to(compute)


def matrix_product(device: torch.device) -> float:
    """FLOP/s of a matrix product on one rank, in a step's precision; the median of ten."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / median(lambda: matrix @ matrix, device, 10)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one call, until the device is done with it."""
    if device.type != "cuda":
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def median(work: Callable[[], object], device: torch.device, times: int) -> float:
    """Seconds of a call, the median of some after one that warms up."""
    work()
    return statistics.median(seconds(work, device) for _ in range(times))


class Memory:
    """Peaks of memory in bytes since the last ``reset``: the allocator's on CUDA, all that is held included; on the CPU
    the rise of the process's resident set, by the kernel's high-water mark."""

    def __init__(self, device: torch.device):
        self.cuda, self.before = device.type == "cuda", 0
        self.reset()

    def reset(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
            self.before = _status("VmRSS")

    @property
    def peak(self) -> int:
        """Of tensors."""
        return torch.cuda.max_memory_allocated() if self.cuda else _status("VmHWM") - self.before

    @property
    def reserved(self) -> int:
        """With the holes in the allocator's memory."""
        return torch.cuda.max_memory_reserved() if self.cuda else self.peak

    @property
    def held(self) -> int:
        """Now."""
        return torch.cuda.memory_allocated() if self.cuda else _status("VmRSS") - self.before


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def out_of_memory(error: BaseException) -> bool:
    """Of the device: torch says it, and so do CUDA and its libraries in their ways."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in said or "ALLOC_FAILED" in said


@contextmanager
def ranks(device: torch.device, folder: Path, rank: int = 0, count: int = 1) -> Iterator[None]:
    """A process group, by default of this process alone."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()


def relative(found: Tensor, wanted: Tensor) -> float:
    """The error of ``found``, as a share of what was wanted, by their norms."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())
