"""Time and peak memory of one training step, in several ways, side by side in one run.

Every way trains the same pairs with the project's own trainer: `joint` (both halves in one forward pass), `separate`
(two forward passes, both graphs alive), `sequential` (one graph at a time), `pair` (a half a rank), each with and
without activation checkpointing. Weights and latents are random. Ways take turns, round by round; the table holds
medians and ratios to the first row. On the CPU memory is the rise of a process's resident set over the step, by the
kernel's high-water mark; on CUDA it is the allocator's peak, and the plan's figure stands beside it. MFU is what the
step needs by count over what a matrix product of the same run reached, all ranks at once. One GPU alone is for gpu.py.

    python benchmarks/train_step.py --quick                      # two processes on the CPU, some minutes
    python benchmarks/train_step.py --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers --frames 81 --height 480 --width 832 \
        --attention flash,_native_flash,native                   # one rank a GPU, backends side by side
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import rig
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from regdpo.config.training import Parallel, TrainSettings
from regdpo.core import errors
from regdpo.plan.architecture import Architecture, known
from regdpo.plan.layouts import model_flops
from regdpo.plan.memory import Training, memory
from regdpo.runs.job import Job

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
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
        job = _job(Path(folder), args, ranks, device)
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
    parser.add_argument("--ranks", type=int, help="processes; default: one per GPU, or 2 on the CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tuning", choices=("lora", "full"), default="lora")
    parser.add_argument("--out", type=Path, help="where to write the table")
    args = parser.parse_args()
    if args.quick:
        args.rounds = 3
        args.out = args.out or RESULTS / "train_step_quick.md"
    return args


def _job(folder: Path, args: argparse.Namespace, ranks: int, device: str) -> dict[str, Any]:
    made = rig.world(folder, _architecture(args), (args.frames, args.height, args.width), pairs=2 * ranks)
    settings = {"batch": ranks, "tuning": args.tuning, "precision": "bf16" if device == "cuda" else "fp32"}
    return rig.job(made, device, settings).model_dump()


def _architecture(args: argparse.Namespace) -> Architecture:
    return known(args.model) if args.model else rig.small()


def _rank(
    rank: int, ranks: int, name: str, job: dict[str, Any], ways: list[dict[str, Any]], rounds: int, folder: str
) -> None:
    device = torch.device("cuda", rank) if name == "cuda" else torch.device("cpu")
    if name == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    found: list[dict[str, list[float]]] = [{"seconds": [], "bytes": [], "products": []} for _ in ways]
    with rig.ranks(device, Path(folder), rank, ranks):
        for turn in range(rounds + 1):
            for way, figures in zip(ways, found, strict=True):
                parallel = {key: value for key, value in way.items() if key != "way"}
                trainer = rig.trainer(Job.model_validate({**job, "parallel": parallel}), device)
                trainer.step(0)  # warm
                memory = rig.Memory(device)
                dist.barrier()
                seconds = rig.seconds(partial(trainer.step, 1), device)
                most = torch.tensor(float(memory.peak), device=device)
                dist.all_reduce(most, dist.ReduceOp.MAX)
                dist.barrier()
                if turn:
                    figures["seconds"].append(seconds)
                    figures["bytes"].append(float(most))
                    figures["products"].append(rig.matrix_product(device))
                del trainer
                if rank == 0:
                    print(f"round {turn}/{rounds} {list(way.values())}: {seconds:.2f} s", file=sys.stderr)
    if rank == 0:
        (Path(folder) / "found.json").write_text(json.dumps(found))


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
    settings = TrainSettings.model_validate(job["stage"]["settings"] | {"micro_batch": 1})
    training = Training(_architecture(args), settings, args.frames, args.height, args.width, ranks)
    lines = [
        "# One training step, several ways",
        "",
        f"`python benchmarks/train_step.py {' '.join(sys.argv[1:])}`, commit {commit.stdout.strip()}, "
        f"{datetime.now(UTC):%Y-%m-%d}, {where}, {ranks} ranks, torch {torch.__version__}.",
        f"Model: {args.model or f'a small Wan, {rig.TINY}'}; {args.frames} x {args.height} x {args.width}, "
        f"{args.tuning}, {ranks} pairs a step. Median of {args.rounds} rounds in turn; memory is {shown}, "
        "the most of all ranks; MFU is against a matrix product of the same run.",
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
