"""What portable numbers cost (`deterministic: portable` beside `on`), on one core: steps of the embedded default's
training and of its sampling, a clip written and read, a large matrix product.

Two processes that differ in their environment alone take turns, work by work; the table holds medians.

    python benchmarks/portable.py --rounds 15 --out benchmarks/results/portable.md
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regdpo.config import schema
from regdpo.core import portable

ROOT = Path(__file__).resolve().parent.parent
MODES = ("on", "portable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="where to write the table")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work()
        return
    given = {"on": {**os.environ, "OMP_NUM_THREADS": "1"}, "portable": portable.environment()}
    command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = {mode: subprocess.Popen(command, env=given[mode], **pipes) for mode in MODES}
    *_, names = [_told(worker) for worker in workers.values()]
    found: dict[str, dict[str, list[float]]] = {name: {mode: [] for mode in MODES} for name in names}
    for turn in range(args.rounds + 1):
        for name in names:
            for mode in MODES if turn % 2 else MODES[::-1]:
                print(name, file=workers[mode].stdin, flush=True)
                seconds = _told(workers[mode])
                if turn:  # the first is warm-up
                    found[name][mode].append(seconds)
    for worker in workers.values():
        worker.communicate()
    text = _page(found, args.rounds)
    print(text)
    if args.out:
        args.out.write_text(text)


def _told(worker: "subprocess.Popen[str]") -> Any:
    assert worker.stdout
    return json.loads(worker.stdout.readline())


def _page(found: dict[str, dict[str, list[float]]], rounds: int) -> str:
    lines = [
        "# What portable numbers cost",
        "",
        f"{portable.processor()}, one core each; medians of {rounds} turns, side by side, by "
        "`python benchmarks/portable.py`.",
        "",
        "| work | `on`, ms | `portable`, ms | ratio |",
        "|---|---|---|---|",
    ]
    for name, modes in found.items():
        on, portably = (1000 * statistics.median(modes[mode]) for mode in MODES)
        lines.append(f"| {name} | {on:.1f} | {portably:.1f} | {portably / on:.2f} |")
    return "\n".join(lines) + "\n"


def work() -> None:
    """Do what is asked for, line by line, and say how long it took."""
    import numpy as np
    import rig
    import torch

    from regdpo.data.video import read_frames, write_frames
    from regdpo.models import device
    from regdpo.plan.architecture import find

    default, cpu = schema.load(ROOT / "config/config.yaml"), device.cpu()
    clips, settings = default.clips, default.train.arm_settings("reg_dpo")
    with tempfile.TemporaryDirectory() as folder:
        size = clips.frames, clips.height, clips.width
        made = rig.world(Path(folder), find(default.base), size, pairs=8)
        job = rig.job(made, "cpu", settings.model_dump()).model_copy(update={"micro_batch": settings.micro_batch})
        with rig.ranks(cpu, Path(folder), 0, 1):
            trainer = rig.trainer(job, cpu)
            architecture = find(default.base)
            latents = torch.randn(default.samples.sampling.batch, *architecture.latent_shape(*size))
            inputs = architecture.family.example_inputs(latents.shape[1:])
            inputs = {name: torch.randn(len(latents), *one.shape[1:]) for name, one in inputs.items()}
            sigma = torch.full((len(latents),), 0.5)
            frames = np.random.default_rng(0).integers(0, 255, (clips.frames, 64, 64, 3), np.uint8)
            matrix = torch.randn(1024, 1024)

            def denoise() -> None:
                with torch.no_grad():
                    architecture.family.predict(trainer.policy, latents, sigma, inputs)

            def clip() -> None:
                path = Path(folder, "clip.mp4")
                write_frames(path, frames, clips.fps, clips.encode)
                read_frames(path)

            works: dict[str, Callable[[], object]] = {
                "a step of Reg-DPO, 4 pairs": lambda: trainer.step(1),
                "a step of sampling, 16 videos": denoise,
                "a clip written and read": clip,
                "a matrix product of 1024": lambda: matrix @ matrix,
            }
            print(json.dumps(list(works)), flush=True)
            for line in sys.stdin:
                print(json.dumps(rig.seconds(works[line.strip()], cpu)), flush=True)


if __name__ == "__main__":
    main()
