"""The plan's memory beside torch's own tracker (FSDPMemTracker in fake mode), and the constants that the plan measured.

    python benchmarks/plan_calibration.py > benchmarks/results/plan_calibration.md

Runs on a CPU, without weights, in a few minutes. Two and four blocks of each kind stand for
all: memory is a straight line in their number.
"""

import argparse
import subprocess
import time
from itertools import product
from pathlib import Path
from typing import Any

from regdpo.config.training import Parallel, TrainSettings
from regdpo.plan import trace, tracker
from regdpo.plan.architecture import known
from regdpo.plan.layouts import impossible
from regdpo.plan.memory import GIB, Training, memory

MODELS = {
    "Wan2.1-I2V-14B": "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
    "Wan2.1-T2V-1.3B": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "LTX-Video": "Lightricks/LTX-Video",
    "CogVideoX-5B": "zai-org/CogVideoX-5b",
    "HunyuanVideo": "hunyuanvideo-community/HunyuanVideo",
    "MUG-V-10B": "MUG-V/MUG-V-inference",
}
FULL, NONE = {"activation_checkpointing": "full"}, {"activation_checkpointing": "none"}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("Wan2.1-I2V-14B", "lora", {"pair": 2, **FULL}),
    ("Wan2.1-I2V-14B", "lora", FULL),
    ("Wan2.1-I2V-14B", "lora", {"halves": "separate", **FULL}),
    ("Wan2.1-I2V-14B", "lora", {"pair": 2, **NONE}),
    ("Wan2.1-I2V-14B", "lora", {"pair": 2, "activation_checkpointing": 2}),
    ("Wan2.1-I2V-14B", "lora", {"pair": 2, "context": 2, **FULL}),
    ("Wan2.1-I2V-14B", "lora", {"context": 8, **FULL}),
    ("Wan2.1-I2V-14B", "lora", {"context": 8, **NONE}),
    ("Wan2.1-I2V-14B", "full", {"pair": 2, **FULL}),
    ("Wan2.1-I2V-14B", "full", {"pair": 2, **NONE}),
    ("Wan2.1-I2V-14B", "full", {"context": 8, **FULL}),
    ("Wan2.1-I2V-14B", "full", {"replicate": 2, "context": 2, **FULL}),
    ("Wan2.1-T2V-1.3B", "lora", FULL),
    ("Wan2.1-T2V-1.3B", "full", {"context": 4, **FULL}),
    ("LTX-Video", "lora", {"pair": 2, **FULL}),
    ("LTX-Video", "full", {"pair": 2, **NONE}),
    ("CogVideoX-5B", "lora", {"pair": 2, **FULL}),
    ("CogVideoX-5B", "full", {"pair": 2, **FULL}),
    ("HunyuanVideo", "lora", {"pair": 2, **FULL}),
    ("HunyuanVideo", "lora", {"pair": 2, "activation_checkpointing": 2}),
    ("HunyuanVideo", "full", {"pair": 2, **NONE}),
    ("HunyuanVideo", "full", {"pair": 2, **FULL}),
    ("MUG-V-10B", "lora", {"context": 4, **FULL}),
    ("Wan2.1-I2V-14B", "lora", {"context": 4, "tensor": 2, **FULL}),
    ("Wan2.1-I2V-14B", "full", {"pair": 2, "tensor": 4, **FULL}),
    ("Wan2.1-I2V-14B", "full", {"tensor": 8, **NONE}),
    ("MUG-V-10B", "lora", {"tensor": 4, **FULL}),
    ("MUG-V-10B", "full", {"pair": 2, "tensor": 2, **FULL}),
]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    print("# The plan beside torch's tracker\n")
    print(f"Command: `python benchmarks/plan_calibration.py`  \nCommit: {commit.stdout.strip()}\n")
    print("8 ranks, 81 frames of 480x832, bf16; the plan is without its margin.\n")
    print("| model | tuning | layout | blocks | plan, GiB | tracker, GiB | plan/tracker | tracker took, s |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for name, tuning, parallel in CASES:
        batch = 8 // Parallel.model_validate(parallel).group(losers=True)  # one pair a rank: nothing accumulates
        asked = {"reference": "cached" if tuning == "full" else "auto", **parallel}  # the tracker has the policy alone
        settings = TrainSettings.model_validate({"tuning": tuning, "batch": batch, "parallel": asked})
        training = Training(known(MODELS[name]), settings, 81, 480, 832, 8)
        for depth in (2, 4):
            layers = (depth,) * len(training.architecture.layers)
            started = time.monotonic()
            seen = tracker.peak(training, layers)
            took = time.monotonic() - started
            plan = memory(training, settings.parallel, layers).used
            layout = ", ".join(f"{key} {value}" for key, value in parallel.items())
            cells = [name, tuning, layout, sum(layers), f"{plan / GIB:.2f}", f"{seen / GIB:.2f}", f"{plan / seen:.3f}"]
            print("|", " | ".join(map(str, [*cells, f"{took:.0f}"])), "|", flush=True)
    print("\nConstants that the plan measures, in units of tokens/context x width x 2 bytes: `block` is kept of every")
    print("block, `fixed` comes on top at the peak.\n")
    print("| model | blocks | tuning | checkpointing | context | fixed | block |\n|---|---:|---|---|---:|---:|---:|")
    for name, tuning, every, context in product(MODELS, ("lora", "full"), ("full", "none"), (1, 2, 4, 8)):
        training = Training(known(MODELS[name]), TrainSettings(tuning=tuning, batch=8), 81, 480, 832, 8)
        if impossible(training, Parallel(context=context)):
            continue
        unit = training.tokens / context * training.architecture.family.width * 2
        for kind, depth in enumerate(training.architecture.layers):
            one = trace.activations(training.a_pass, kind, training.latent[1], context, every == "full")
            figures = f"{one.fixed / unit:.1f} | {one.block / unit:.2f}"
            print(f"| {name} | {depth} | {tuning} | {every} | {context} | {figures} |")


if __name__ == "__main__":
    main()
