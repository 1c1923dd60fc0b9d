"""Does any training on up to 64 GPUs need pipeline parallelism? By the plan's arithmetic, as Markdown.

    python benchmarks/plan_pipeline.py > benchmarks/results/plan_pipeline.md

Full tuning on pairs, GPUs of 80 GB, videos of the size and length that a model was published for; the largest model
also twice as wide (scripts/grow.py). Of the layouts whose context stays within a machine the one that needs the least
memory is taken. Runs on a CPU, without weights, in a minute or two.
"""

import argparse
import json
import subprocess
from dataclasses import replace
from pathlib import Path

from regdpo.config.training import Parallel, TrainSettings
from regdpo.models import growth
from regdpo.models.checkpoint_json import known as files_of
from regdpo.models.family import family_class
from regdpo.plan.architecture import Architecture, described, known
from regdpo.plan.layouts import Machine, estimate, impossible
from regdpo.plan.memory import Memory, Size, Training, memory
from regdpo.runtime.gpu_specs import GIB, GPUS

MODELS: dict[str, Size] = {
    "wan22_ti2v_5b": (121, 704, 1280),
    "hunyuan_video": (129, 720, 1280),
    "mugv_10b": (105, 720, 1280),
    "wan21_i2v_14b": (81, 720, 1280),
}
GROWN = "wan21_i2v_14b"
RANKS = (8, 16, 32, 64)
A_MACHINE = 8
LINK = 50e9
"""Bytes a second of a GPU between machines, 400 Gb/s. An assumption."""
GPU = GPUS["H100 SXM"]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    print("# Pipeline parallelism: what it could save\n")
    print(f"Command: `python benchmarks/plan_pipeline.py`  \nCommit: {commit.stdout.strip()}\n")
    print(
        f"GPUs with {GPU.memory / GIB:.1f} GiB, full tuning on pairs, bf16, 1 pair a rank and pass, reference cached."
    )
    print("docs/concepts/layouts.md explains the columns. Arithmetic: nothing here ran on a GPU.\n")
    print("| model | frames | GPUs | leanest layout | GiB/rank | weights, optimiser, gradients | activations |", end="")
    print(" a full pipeline saves | an idle one at most | fits | with AdamW in 8 bit | step, s | talk of FSDP, s |")
    print("|---|---:|---:|---|---:|---:|---:|---:|---:|---|---|---:|---:|")
    for name, size in MODELS.items():
        for architecture in [known(name), *([grown(name)] if name == GROWN else [])]:
            for ranks in RANKS:
                print(row(architecture, size, ranks), flush=True)


def grown(name: str) -> Architecture:
    """An architecture of config/architectures, twice as wide."""
    values = json.loads(files_of()[name].read_text())
    files, part = values["files"], "transformer/config.json"
    growing, config = growth.growth_of(name, files[part])
    files = files | {part: growing.wider(config, 2)}
    family = values["family"]
    return described(f"{name}, grown", "", files, family, values["task"], family_class(family).text_length)


def row(architecture: Architecture, size: Size, ranks: int) -> str:
    """Of the table."""
    training, parallel = leanest(architecture, size, ranks)
    need = memory(training, parallel)
    saved = saves(training, parallel, need)
    at = estimate(training, parallel, Machine(GPU.memory, GPU.peak_flops))
    layout = f"context {parallel.context}, {'pair 2' if parallel.pair == 2 else 'sequential'}"
    figures = (need.total, need.weights + need.optimizer + need.gradients, need.activations, need.buffers, saved)
    cells = [architecture.name, str(size[0]), str(ranks), layout, *(f"{it / GIB:.1f}" for it in figures)]
    lean = replace(training, settings=training.settings.model_copy(update={"optimizer": "adamw_8bit"}))
    cells += ["yes" if it <= GPU.memory else "no" for it in (need.total, memory(lean, parallel).total)]
    talk = gathered(training, parallel) / LINK if ranks > A_MACHINE else 0
    return f"| {' | '.join([*cells, f'{at.seconds:.0f}', f'{talk:.1f}' if talk else ''])} |"


def leanest(architecture: Architecture, size: Size, ranks: int) -> tuple[Training, Parallel]:
    """The training with the layout that needs the least memory."""
    found = []
    for context in (1, 2, 4, A_MACHINE):
        for halves in ({"pair": 2}, {"pair": 1, "halves": "sequential"}):
            shape = {"context": context, **halves, "activation_checkpointing": "full", "reference": "cached"}
            parallel = Parallel.model_validate(shape)
            data = max(1, ranks // (context * parallel.pair))
            given = {"tuning": "full", "batch": data, "parallel": shape}
            training = Training(architecture, TrainSettings.model_validate(given), *size, ranks)
            if impossible(training, parallel) is None:
                found.append((training, parallel))
    return min(found, key=lambda one: memory(*one).total)


def saves(training: Training, parallel: Parallel, need: Memory) -> float:
    """Bytes of a rank that a pipeline over as many GPUs could save, at the very most: what FSDP gathers and scatters,
    and all that other blocks keep, as though a stage had one block, and one video were in all of the pipeline."""
    one = tuple(min(1, depth) for depth in training.architecture.layers)
    kept = need.activations - memory(training, parallel, one).activations
    return need.buffers + max(0.0, kept)


def gathered(training: Training, parallel: Parallel) -> float:
    """Bytes that a rank receives and sends for FSDP in a step: bf16 weights for every forward and backward pass, fp32
    gradients after a backward pass."""
    count = training.parameters
    forward, backward = (1, 1) if parallel.pair == 2 else (3, 2)
    return 2.0 * count.total * (forward + backward) + 4.0 * count.trained * backward


if __name__ == "__main__":
    main()
