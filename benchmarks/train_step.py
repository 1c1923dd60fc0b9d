"""Time and peak memory of one training step, in several ways, side by side in one run.

Every way trains the same pairs with the project's own trainer: `joint` (both halves in one forward pass), `separate`
(two forward passes, both graphs alive), `sequential` (one graph at a time), `pair` (a half a rank), each with and
without activation checkpointing. Weights and latents are random. Ways take turns, round by round; the table holds
medians and ratios to the first row. On the CPU memory is the rise of a process's resident set over the step, by the
kernel's high-water mark; on CUDA it is the allocator's peak, and the plan's figure stands beside it. MFU is what the
step needs by count over what a matrix product of the same run reached, all ranks at once.

    python benchmarks/train_step.py --quick                      # two processes on the CPU, some minutes
    python benchmarks/train_step.py --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers --frames 81 --height 480 --width 832 \
        --attention flash,_native_flash,native                   # one rank a GPU, backends side by side

With `--share N` one rank does the work of one rank of N: it has the weights of all, but the tokens of 1/N of a video
(fewer frames). That is an emulation and the table says so: no communication is in it.
"""

import argparse
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file

from regdpo import errors, tables
from regdpo.config_train import PREFERENCE, Parallel, TrainSettings
from regdpo.models.family import ModelFile, ModelRef
from regdpo.models.wan import Wan
from regdpo.parallel.mesh import layout
from regdpo.plan.architecture import Architecture, known
from regdpo.plan.layouts import model_flops
from regdpo.plan.memory import Training, memory
from regdpo.provenance import file_digest
from regdpo.store import Store
from regdpo.tables import LatentRow
from regdpo.train.job import Job
from regdpo.train.loop import Trainer

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
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
WAYS = ("joint", "separate", "sequential", "pair")


def main() -> None:
    args = _arguments()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ranks = args.ranks or (torch.cuda.device_count() if device == "cuda" else 2)
    ways = [
        {
            "way": way,
            "halves": "joint" if way == "pair" else way,
            "pair": 2 if way == "pair" else 1,
            "activation_checkpointing": recompute,
            "attention": attention,
        }
        for attention in args.attention.split(",")
        for recompute in ("none", "full")
        for way in WAYS
        if way != "pair" or ranks > 1
    ]
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # freed memory goes back
    with tempfile.TemporaryDirectory() as folder:
        job = _world(Path(folder), args, ranks, device)
        mp.spawn(_rank, (ranks, device, job, ways, args.rounds, folder), nprocs=ranks)
        found = json.loads((Path(folder) / "found.json").read_text())
    text = _page(args, device, ranks, job, ways, found)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a small model, few rounds; writes results/train_step_quick.md"
    )
    parser.add_argument("--model", help="a Wan 2.1 of config/architectures by its hub name; default: a small Wan")
    parser.add_argument("--attention", default="auto", help="backends to compare, with commas (parallel.attention)")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--ranks", type=int, help="processes; default: one a GPU, or 2 on the CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tuning", choices=("lora", "full"), default="lora")
    parser.add_argument("--share", type=int, default=1, help="emulate one rank of so many that split a video's tokens")
    parser.add_argument("--out", type=Path, help="where to write the table")
    args = parser.parse_args()
    if args.quick:
        args.rounds = 3
        args.out = args.out or RESULTS / "train_step_quick.md"
    return args


def _world(folder: Path, args: argparse.Namespace, ranks: int, device: str) -> dict[str, Any]:
    """A checkpoint without weights, random latents, and the job that trains on them."""
    architecture = _architecture(args)
    spec = architecture.transformer
    (folder / "model/transformer").mkdir(parents=True)
    (folder / "model/transformer/config.json").write_text(json.dumps(spec))
    (folder / "model/model_index.json").write_text(json.dumps({"vae": ["diffusers", "AutoencoderKLWan"]}))
    store = Store(folder / "store")
    shape = architecture.latent_shape(_frames(args), args.height, args.width)
    rows = []
    for number in range(2 * ranks):
        tensors = {name: torch.randn(shape) for name in ("winner", "loser")}
        tensors["text"] = torch.randn(architecture.text_length, spec["text_dim"])
        if spec["in_channels"] > shape[0]:
            tensors["condition"] = torch.randn(spec["in_channels"] - shape[0], *shape[1:])
        if spec.get("image_dim"):
            tensors["image"] = torch.randn(257, spec["image_dim"])
        path = store.relative("latents", f"{number:064d}", ".safetensors")
        with store.writing(path) as temporary:
            save_file(tensors, temporary)
        rows.append(
            LatentRow(
                pair_id=f"pair{number}",
                split="train",
                clip_id=f"clip{number}",
                path=path,
                sha256=file_digest(store.resolve(path)),
                encoder="random",
                shape=",".join(map(str, shape)),
                has_loser=True,
            )
        )
    tables.write(folder / "latents.parquet", rows, LatentRow)
    ref = ModelRef(
        family="wan", task="t2v", where="folder", path=str(folder / "model"), text_length=512, digest="random"
    )
    (folder / "run").mkdir()
    settings = {
        "batch": ranks,
        "caption_dropout": 0,
        "tuning": args.tuning,
        "precision": "bf16" if device == "cuda" else "fp32",
    }
    return {
        "stage": {"objective": "reg_dpo", "beta": 500.0, "r": "dgr", "seed": 0, "settings": settings},
        "model": ModelFile(name="base", ref=ref, digest="random").model_dump(),
        "latents": str(folder / "latents.parquet"),
        "store": str(folder / "store"),
        "run": str(folder / "run"),
        "device": device,
        "parallel": {},
        "micro_batch": 1,
        "checkpoint_every": 10**6,
        "eval_every": 10**6,
        "keep": 1,
    }


def _architecture(args: argparse.Namespace) -> Architecture:
    return known(args.model) if args.model else Architecture("small", "", TINY, 16, 4, 8, 512)


def _frames(args: argparse.Namespace) -> int:
    return (args.frames - 1) // 4 // args.share * 4 + 1


def _rank(
    rank: int, ranks: int, name: str, job: dict[str, Any], ways: list[dict[str, Any]], rounds: int, folder: str
) -> None:
    device = torch.device("cuda", rank) if name == "cuda" else torch.device("cpu")
    if name == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if name == "cuda" else "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=ranks,
    )
    Wan.weights = lambda self: _Random()  # type: ignore[method-assign]
    found: list[dict[str, list[float]]] = [{"seconds": [], "bytes": [], "products": []} for _ in ways]
    for turn in range(rounds + 1):
        for way, figures in zip(ways, found, strict=True):
            parallel = {key: value for key, value in way.items() if key != "way"}
            asked = Job.model_validate({**job, "parallel": parallel})
            trainer = Trainer(asked, device, layout(device, asked.parallel, asked.stage.objective in PREFERENCE))
            trainer.step(0)  # warm
            seconds, peak = _measure(trainer, device)
            if turn:
                figures["seconds"].append(seconds)
                figures["bytes"].append(peak)
                figures["products"].append(_products(device))
            del trainer
            gc.collect()
            if name == "cuda":
                torch.cuda.empty_cache()
            if rank == 0:
                print(f"round {turn}/{rounds} {list(way.values())}: {seconds:.2f} s", file=sys.stderr)
    if rank == 0:
        (Path(folder) / "found.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def _measure(trainer: Trainer, device: torch.device) -> tuple[float, float]:
    """Seconds of a step, and its peak of memory: on the CPU above what was held before it, the most of all ranks."""
    gc.collect()
    if device.type == "cuda":
        before = 0
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = _status("VmRSS")
    dist.barrier()
    begun = time.monotonic()
    trainer.step(1)
    seconds = time.monotonic() - begun
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM") - before
    most = torch.tensor(float(peak), device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return seconds, float(most)


def _products(device: torch.device) -> float:
    """FLOP/s of a matrix product, all ranks at once, in the step's precision."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    matrix @ matrix
    dist.barrier()
    begun = time.monotonic()
    for _ in range(5):
        result = matrix @ matrix
    result.sum().item()  # waits for the device
    return 5 * 2 * size**3 / (time.monotonic() - begun)


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


class _Random:
    """Weights that no file holds: the same million numbers again and again, since 14 billion take long to draw."""

    def __init__(self) -> None:
        self.pattern = 0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0))

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Whatever is asked for is there."""

    def read(self, wanted: Mapping[str, tuple[slice, ...]]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, where in wanted.items():
            shape = [part.stop - part.start for part in where]
            count = math.prod(shape)
            yield name, self.pattern.repeat(-(-count // len(self.pattern)))[:count].view(shape)


def _page(
    args: argparse.Namespace,
    device: str,
    ranks: int,
    job: dict[str, Any],
    ways: list[dict[str, Any]],
    found: list[dict[str, list[float]]],
) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    where = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU, {os.cpu_count()} cores"
    shown = "a step's rise of the resident set" if device == "cpu" else "peak of the allocator"
    share = f"; one rank's share of {args.share}, emulated, no communication" if args.share > 1 else ""
    settings = TrainSettings.model_validate(job["stage"]["settings"] | {"micro_batch": 1})
    training = Training(_architecture(args), settings, _frames(args), args.height, args.width, ranks)
    if args.share > 1:
        training = replace(training, ranks=1)
    lines = [
        "# One training step, several ways",
        "",
        f"`python benchmarks/train_step.py {' '.join(sys.argv[1:])}`, commit {commit.stdout.strip()}, "
        f"{datetime.now(UTC):%Y-%m-%d}, {where}, {ranks} ranks, torch {torch.__version__}.",
        f"Model: {args.model or f'a small Wan, {TINY}'}; {args.frames} x {args.height} x {args.width}, {args.tuning}, "
        f"{ranks} pairs a step{share}. Median of {args.rounds} rounds in turn; memory is {shown}, the most of all "
        "ranks; MFU is against a matrix product of the same run.",
        "",
        "| halves | checkpointing | attention | seconds | ratio | MiB | ratio | plan, MiB | MFU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    medians = [[statistics.median(row[name]) for name in ("seconds", "bytes", "products")] for row in found]
    for way, (seconds, size, products) in zip(ways, medians, strict=True):
        parallel = Parallel.model_validate({key: value for key, value in way.items() if key != "way"})
        plan = f"{memory(training, parallel).used / 2**20:.0f}" if device == "cuda" else ""
        mfu = model_flops(training, parallel) / (seconds * ranks * products)
        lines.append(
            f"| {way['way']} | {way['activation_checkpointing']} | {way['attention']} | {seconds:.2f} | "
            f"{seconds / medians[0][0]:.2f} | {size / 2**20:.0f} | {size / medians[0][1]:.2f} | {plan} | {mfu:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    errors.run(main)
