"""What makes sampling faster, and what it changes: each setting alone, side by side in one run.

Videos of a project's own clips and captions are rendered by its base, once as `negatives.sampling` says and once with
each setting of docs/how-to/negatives.md that the family can take. Settings take turns, round by round; seconds are
medians of a video's denoising, without text encoder and autoencoder. PSNR (dB, over all frames) is to the video of the
first row with the same noise, and to that of many steps (--reference) with the first row's solver, which tells error
from mere change; the row of another seed shows what videos have in common that have nothing to do with each other.

    make demo && python benchmarks/sampling.py --config config/config.yaml --guidance 3     # a tiny model on a CPU
    snakemake captions --configfile my.yaml && python benchmarks/sampling.py --config my.yaml --videos 8
"""

import argparse
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from regdpo.config import schema
from regdpo.config.schema import Sampling
from regdpo.core import errors, manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow, Geometry
from regdpo.core.store import Store
from regdpo.data.splits import is_known
from regdpo.data.video import read_stored
from regdpo.models import device as devices
from regdpo.models.family import Family, open_family
from regdpo.models.spec import ModelFile
from regdpo.plan.faster import choices
from regdpo.sampling.denoise import check, denoise, negatives_of, prepared

ROOT = Path(__file__).resolve().parent.parent
FIRST = "as configured"


@dataclass
class Way:
    """One setting, and what came of it."""

    sampling: Sampling
    seconds: list[float] = field(default_factory=list)
    warm_up: float = 0.0  # of the first video, once
    videos: list[np.ndarray] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a whole configuration, of a project with clips and captions")
    parser.add_argument("--videos", type=int, default=4, help="rendered by each; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--steps", type=int, help="in the place of negatives.sampling.steps")
    parser.add_argument("--guidance", type=float, help="in the place of negatives.sampling.guidance")
    parser.add_argument("--reference", type=int, default=200, help="steps of the reference, 0: none; %(default)s")
    parser.add_argument("--compile", action="store_true", help="with compiled blocks too, which takes minutes")
    args = parser.parse_args()
    settings = schema.load(args.config)
    store = Store(settings.paths.store)
    where = devices.pick(settings.launch.device)
    model = ModelFile.read(Path(settings.paths.results, "base/model.json"), store)
    family = open_family(model.ref, store, where, devices.compute_dtype(where))
    clips, inputs = _inputs(settings, family, store, args.videos)
    ways = _ways(settings, family, args)
    plain = negatives_of(family, ways[FIRST].sampling, 1)
    denoiser = prepared(family.load_denoiser(), ways[FIRST].sampling)

    def rendered(sampling: Sampling, number: int, seed: int, by: nn.Module = denoiser) -> Tensor:
        noise = torch.randn(1, *family.latent_shape(*clips[number].size), generator=torch.Generator().manual_seed(seed))
        return denoise(family, by, inputs[number], noise, sampling, plain if sampling.guided else {})

    for name, way in ways.items():
        own = prepared(family.load_denoiser(), way.sampling) if way.sampling.compile else denoiser
        one = lambda number, way=way, own=own: rendered(way.sampling, number, number, own)  # noqa: E731
        way.warm_up = _seconds(lambda one=one: one(0), where)
        way.videos = [family.decode_video(one(number))[0].numpy() for number in range(args.videos)]
        print(f"{name}: rendered", file=sys.stderr)
        if way.sampling.compile:  # its blocks are not the others'
            way.seconds = [_seconds(lambda n=n, one=one: one(n), where) for n in range(args.videos)]
    for _ in range(args.rounds):
        for way in ways.values():
            if not way.sampling.compile:
                for number in range(args.videos):
                    way.seconds.append(_seconds(lambda n=number, it=way: rendered(it.sampling, n, n), where))
    reference = []
    if args.reference:
        many = ways[FIRST].sampling.model_copy(update={"steps": args.reference})
        reference = [family.decode_video(rendered(many, n, n))[0].numpy() for n in range(args.videos)]
    others = [family.decode_video(rendered(ways[FIRST].sampling, n, 1000 + n))[0].numpy() for n in range(args.videos)]
    print(_markdown(family, ways, reference, others, model, clips[0], where, args))


def _inputs(
    settings: schema.Config, family: Family, store: Store, count: int
) -> tuple[list[Geometry], list[dict[str, Tensor]]]:
    """The size and what the denoiser is given of some clips, evenly chosen."""
    results = Path(settings.paths.results)
    known = list(settings.base.pretrain.sources) if settings.base.pretrain else []
    texts = {row.clip_id: row.caption for row in manifests.read(results / "captions.parquet", CaptionRow)}
    clips = [
        clip
        for clip in manifests.read(results / "clips.parquet", ClipRow)
        if clip.status == "accepted" and clip.clip_id in texts and not is_known(clip.source, known)
    ]
    if len(clips) < count:
        raise UserError(f"--videos: {count}, and there are {len(clips)} clips with captions")
    chosen = [clips[index * len(clips) // count] for index in range(count)]
    inputs = []
    for clip in chosen:
        first = torch.from_numpy(read_stored(store, clip.path, clip.sha256)[:1])
        inputs.append(family.encode_text([texts[clip.clip_id]]) | family.encode_first_frame(first, clip.frames))
    return [Geometry.of_row(clip) for clip in chosen], inputs


def _ways(settings: schema.Config, family: Family, args: argparse.Namespace) -> dict[str, Way]:
    changed = {"batch": 1} | {key: getattr(args, key) for key in ("steps", "guidance") if getattr(args, key)}
    first = Sampling.model_validate({**settings.negatives.sampling.model_dump(), **changed})
    ways = {FIRST: Way(first)}
    for name, sampling in choices(first, settings.base.family).items():
        if sampling.compile and not args.compile:
            continue
        try:
            check(family, sampling)
        except UserError:
            continue
        ways[name] = Way(sampling)
    return ways


def _seconds(work: Callable[[], object], where: torch.device) -> float:
    begun = time.perf_counter()
    work()
    if where.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _psnr(videos: list[np.ndarray], others: list[np.ndarray]) -> str:
    """Mean over videos; `same` where all are."""
    errors_ = [float(np.mean((a.astype(np.float64) - b) ** 2)) for a, b in zip(videos, others, strict=True)]
    if not any(errors_):
        return "same"
    return f"{statistics.fmean(10 * math.log10(255**2 / max(error, 1e-9)) for error in errors_):.1f}"


def _markdown(
    family: Family,
    ways: dict[str, Way],
    reference: list[np.ndarray],
    others: list[np.ndarray],
    model: ModelFile,
    size: Geometry,
    where: torch.device,
    args: argparse.Namespace,
) -> str:
    first = ways[FIRST]
    base = statistics.median(first.seconds)
    machine = torch.cuda.get_device_name() if where.type == "cuda" else f"{platform.machine()} CPU"
    git = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    scale = first.sampling.guidance
    lines = [
        f"`python benchmarks/sampling.py {' '.join(sys.argv[1:])}`, commit {git.stdout.strip() or 'unknown'}, "
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}, torch {torch.__version__}. {model.ref.family} {model.ref.task}, "
        f"{size.frames} frames of {size.height}x{size.width}, {first.sampling.steps} steps, guidance {scale}, one "
        f"video at a time; {args.videos} videos, {args.rounds} rounds in turn.",
        "",
        f"| `sampling` | passes | seconds | of the first | PSNR to the first | to {args.reference or 'many'} steps |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, way in ways.items():
        counted = str(way.sampling.passes(family.embeds_guidance)) if way.sampling.counted else ""
        took = statistics.median(way.seconds)
        told = f"{took:.2f} (first {way.warm_up:.0f})" if way.sampling.compile else f"{took:.2f}"
        change = "" if way is first else _psnr(way.videos, first.videos)
        error = _psnr(way.videos, reference) if reference else ""
        lines.append(
            f"| {name if way is first else f'`{name}`'} | {counted} | {told} | {took / base:.2f} | {change} | {error} |"
        )
    unlike = _psnr(others, reference) if reference else ""
    lines.append(f"| as configured, another seed |  |  |  | {_psnr(others, first.videos)} | {unlike} |")
    return "\n".join(lines)


if __name__ == "__main__":
    errors.run(main)
