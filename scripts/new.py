"""Begin a project: write a commented configuration for your footage, your model and the GPUs at hand.

What the model is (its family, image-to-video or text-to-video) is read from the checkpoint; the size of the clips and
how GPUs share a training are what the plan says fits, in memory of every stage and in --days. Nothing is downloaded.

    python scripts/new.py ~/street --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers --videos ~/footage
    python scripts/new.py ~/street --model checkpoints/mine --videos ~/footage --gpu "RTX 4090"
"""

import argparse
import math
import os
import shlex
import sys
from pathlib import Path

from regdpo.config import schema
from regdpo.core import errors
from regdpo.core.errors import UserError
from regdpo.core.temporaries import atomic
from regdpo.data import footage
from regdpo.plan import new
from regdpo.runtime.gpu_specs import GPUS, gpu_named, parse_memory, table_name

ROOT = Path(__file__).resolve().parents[1]
NONE = "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the project; config.yaml is written there")
    parser.add_argument("--model", required=True, help="diffusers checkpoint: hub name or folder")
    parser.add_argument("--videos", required=True, type=Path, help="folder of videos")
    parser.add_argument("--revision", default="", help="of a hub name: a commit")
    parser.add_argument("--task", choices=["i2v", "t2v"], help="default: what the checkpoint is for")
    parser.add_argument(
        "--gpu", help=f"of the GPUs that will train ({', '.join(GPUS)}, {NONE}); default: this machine's"
    )
    parser.add_argument("--gpus", type=int, help="how many; default: this machine's, with --gpu 1")
    parser.add_argument("--gpu-memory", help="of one, as 24GB; default: that of --gpu")
    parser.add_argument(
        "--days",
        type=float,
        default=1,
        help=f"that these GPUs may be busy with {new.PAIRS} training pairs, by the plan: the longest clips are taken "
        "that fit into memory and time; default: %(default)s",
    )
    args = parser.parse_args()
    file = args.folder / "config.yaml"
    if file.exists():
        raise UserError(f"{file}: is there already; name another folder, or remove it")
    videos = footage.list_videos(schema.Videos(root=str(args.videos)))
    name, count, memory, peak = _machine(args)
    local = Path(args.model).is_dir()
    wish = new.Wish(
        model=os.path.abspath(args.model) if local else args.model,
        revision=args.revision,
        task=args.task,
        videos=os.path.relpath(args.videos, args.folder),
        count=len(videos),
        gpu=name,
        gpus=count,
        memory=memory,
        peak_flops=peak,
        days=args.days,
    )
    chosen = new.choose(wish)
    args.folder.mkdir(parents=True, exist_ok=True)
    with atomic(file) as temporary:
        temporary.write_text(new.written(wish, chosen), encoding="utf-8")
    settings = schema.load(file)
    clips = settings.clips
    sizes = " or ".join(f"{it.height}x{it.width}" for it in clips.geometries)
    made = f"{settings.base.family} {settings.base.task}, clips of {clips.frames} frames of {sizes}"
    print(f"{file}: {made}, for {count} x {name or 'CPU'}{f'; {chosen.said}' if chosen.said else ''}")
    snakefile = shlex.quote(str(ROOT / "workflow/Snakefile"))
    options = f"-s {snakefile} --configfile config.yaml --cores all"
    captions = f"python {shlex.quote(str(ROOT / 'scripts/captions.py'))} --config config.yaml"
    if chosen.days:
        print(f"by the plan {chosen.days:.1f} days for {new.PAIRS} training pairs, captions not counted; not measured")
    if chosen.longer:
        print(chosen.longer)
    print(f"next: cd {shlex.quote(str(args.folder))}")
    print(f"      python {shlex.quote(str(ROOT / 'scripts/check.py'))} --config config.yaml")
    print(f"      snakemake clips {options}")
    print(f"      {captions} --write-templates captions     # and fill them in")
    print(f"      snakemake all {options}{f' --resources gpu={count}' if name else ''}")


def _machine(args: argparse.Namespace) -> tuple[str, int, float, float]:
    """Name (empty: none), number, bytes and peak of the GPUs that will train."""
    name, count = args.gpu or "", args.gpus or 1
    if not args.gpu:
        import torch

        if torch.cuda.is_available():
            seen, total = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
            known = table_name(seen)
            if known is None:
                raise UserError(f"--gpu: {seen} is not in the table; name the nearest of {', '.join(GPUS)}")
            alike = [it for it, gpu in GPUS.items() if gpu.peak_flops == GPUS[known].peak_flops]
            name = min(alike, key=lambda it: abs(GPUS[it].memory - total))
            return name, args.gpus or torch.cuda.device_count(), float(total), GPUS[name].peak_flops
        print(f"no GPU is seen here: for a CPU and a tiny model (--gpu plans for {', '.join(GPUS)})", file=sys.stderr)
        name = NONE
    if name.lower() == NONE:
        return "", count, math.inf, 1e12
    gpu = gpu_named(name)
    if gpu is None:
        raise UserError(f"--gpu: {name} is not known; there are {', '.join([*GPUS, NONE])}")
    memory = parse_memory(args.gpu_memory) if args.gpu_memory else gpu.memory
    return next(known for known, it in GPUS.items() if it is gpu), count, memory, gpu.peak_flops


if __name__ == "__main__":
    errors.run(main)
