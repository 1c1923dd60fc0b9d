"""What one GPU says, in one command of at most eight minutes: a training that is killed and resumed, steps of Wan 2.1's
architectures beside the plan, attention backends, one rank's share of eight, the longest video that fits, the VAE.

    python benchmarks/gpu.py                        # results in benchmarks/results/gpu_NAME_DATE/, written as they come
    python benchmarks/gpu.py --parts attention,vae --budget 120
    python benchmarks/gpu.py --dry                  # all of it in miniature on the CPU
    python benchmarks/gpu.py --wheels > wheels.txt  # what it needs beside torch (docs/how-to/environments.md)

Each part runs in a process of its own with a time limit: running out of memory, a hang or a crash is an entry in the
results, and the others go on. Weights and latents are random. Nothing is downloaded; Snakemake, torchx and an
installed regdpo are not needed. torch 2.11 to 2.13, Python 3.11 and newer.
"""

import argparse
import importlib
import json
import multiprocessing as mp
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

if TYPE_CHECKING:
    from gpu_parts.runner import Part

RESULTS = ROOT / "benchmarks/results"
ENVIRONMENT = {
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",  # as regdpo has it
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # else imports that ask for CUDA forbid to fork
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
NAMED = ("torch", "diffusers", "peft", "transformers", "flash-attn", "triton")


def main() -> int:
    return command("gpu", __doc__, 480, _parts)


def command(name: str, about: str, budget: float, parts_of: Callable[[], "list[Part]"]) -> int:
    """Measure some parts, as it is asked for on the command line; answers the exit code.

    Args:
        name: of the file and, with the machine's, of the folder of results. budget: seconds, if none is asked for.
    """
    begun = time.monotonic()
    args = _arguments(about, budget)
    if args.wheels:
        from gpu_parts.wheels import requirements

        print(requirements(ROOT / "envs/regdpo.lock"), end="")
        return 0
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    print("loading torch and diffusers", file=sys.stderr)
    try:
        parts = parts_of()
    except (ImportError, RuntimeError) as error:  # diffusers makes one of the other
        missing = str(error).splitlines()[-1]
        print(f"error: {missing}; --wheels lists what is needed, docs/how-to/environments.md says how", file=sys.stderr)
        return 2
    from gpu_parts.results import Results
    from gpu_parts.runner import run

    names = [part.name for part in parts]
    wanted = args.parts.split(",") if args.parts else names
    if unknown := set(wanted) - set(names):
        print(
            f"error: --parts: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}", file=sys.stderr
        )
        return 2
    machine = _asked("fork", args.dry)
    if spawn := bool(machine.pop("spawn")):
        print("CUDA was asked before the parts began: each loads torch anew", file=sys.stderr)
        machine = _asked("spawn", args.dry)
        machine.pop("spawn")
    if not args.dry and "GPU" not in machine:
        print("error: torch sees no GPU here; --dry runs all of it in miniature on the CPU", file=sys.stderr)
        return 2
    now = datetime.now(UTC)
    if args.out:
        out = args.out
    elif args.dry:
        out = Path(tempfile.mkdtemp(prefix=f"regdpo_{name}_dry_"))
    else:
        out = RESULTS / f"{name}_{'_'.join(machine['GPU'].lower().split())}_{now:%Y-%m-%d}"
    said = {
        "title": "In miniature, on the CPU" if args.dry else f"On one {machine['GPU']}",
        "command": f"python benchmarks/{name}.py {' '.join(sys.argv[1:])}".strip(),
        "commit": _commit(),
        "date": f"{now:%Y-%m-%d}",
        "budget_s": args.budget,
        "machine": machine,
    }
    chosen = [part for part in parts if part.name in wanted]
    run(chosen, args.budget - (time.monotonic() - begun), args.dry, spawn, Results(out, said))
    print(out)
    return 0


def _arguments(about: str, budget: float) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", help="which, with commas between; default: all that there is time for")
    parser.add_argument("--budget", type=float, default=budget, help="seconds, all in all; default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--dry", action="store_true", help="in miniature on the CPU")
    parser.add_argument("--wheels", action="store_true", help="print the packages that are needed beside torch, pinned")
    return parser.parse_args()


def _parts() -> "list[Part]":
    """In order of value."""
    from gpu_parts import attention, longest, resume, share, steps, vae
    from gpu_parts.runner import Part

    with suppress(ImportError):
        importlib.import_module("pandas")  # pyarrow does it where it is there; here it is once for all parts

    measures = {
        "resume": (85, resume.measure, resume),
        "steps_1.3B": (50, steps.small, steps),
        "steps_14B": (95, steps.large, steps),
        "attention": (35, attention.measure, attention),
        "share": (60, share.measure, share),
        "longest": (60, longest.measure, longest),
        "vae": (45, vae.measure, vae),
        "compiled": (50, steps.compiled, steps),
        "others": (40, steps.others, steps),
    }
    return [
        Part(name, " ".join((module.__doc__ or "").split()), limit, measure)
        for name, (limit, measure, module) in measures.items()
    ]


def _asked(way: str, dry: bool) -> dict[str, Any]:
    """What machine this is, by another process: who asks CUDA anything may not fork any more."""
    with tempfile.NamedTemporaryFile("r") as file:
        process = mp.get_context(way).Process(target=_ask, args=(file.name, dry))
        process.start()
        process.join()
        said = file.read()
    if not said:
        raise SystemExit("error: torch does not start here; see above")
    return json.loads(said)


def _ask(path: str, dry: bool) -> None:
    import torch

    poisoned = getattr(torch._C, "_cuda_isInBadFork", lambda: False)()
    found: dict[str, Any] = {"spawn": poisoned, "python": platform.python_version()}
    if not poisoned:
        found |= _versions()
        found["CPUs"] = len(os.sched_getaffinity(0))
        if not dry and torch.cuda.is_available():
            found |= _gpu()
    Path(path).write_text(json.dumps(found))


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in NAMED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _gpu() -> dict[str, Any]:
    import rig
    import torch

    it = torch.cuda.get_device_properties(0)
    device = torch.device("cuda", 0)
    block = torch.empty(2**30, dtype=torch.uint8, device=device)
    copied = 2 * block.numel() / rig.median(lambda: block.clone(), device, 5)
    return {
        "GPU": it.name,
        "memory, GiB": it.total_memory / 2**30,
        "driver": _driver(),
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "NCCL": ".".join(map(str, torch.cuda.nccl.version())),
        "matrix product, TFLOP/s": rig.matrix_product(device) / 1e12,
        "copy, TB/s": copied / 1e12,
    }


def _driver() -> str:
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _commit() -> str:
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    return said.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
