"""The embedded default's training on the device, one rank, deterministic: killed with -9 and resumed it has to end with
the bytes of one that was let be. Ranks are started as torchrun starts them, by its environment variables."""

import faulthandler
import hashlib
import multiprocessing as mp
import os
import signal
import sys
import time
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import rig

from gpu_parts.bench import Bench
from regdpo.config import schema
from regdpo.core.environment import environment
from regdpo.plan.architecture import find
from regdpo.runs import rendezvous
from regdpo.runs.job import EXPORT, Job
from regdpo.runs.metrics import logged
from regdpo.train import rank
from regdpo.train.checkpoint import complete

CONFIG = Path(__file__).resolve().parents[2] / "config/config.yaml"
STEPS, EVERY = 40, 5
STEPS_DRY = 4
CASES: list[dict[str, Any]] = [
    {"tuning": "full", "precision": "fp32"},
    {"tuning": "lora", "precision": "bf16", "ema": 0.9},
]


def measure(bench: Bench) -> None:
    """Full tuning as the embedded default has it, and LoRA in bf16."""
    start = _way_to_start(bench)
    environment()  # it is remembered, and so the ranks need not look
    for settings in bench.some(CASES):
        bench.row(partial(_case, bench, start, settings), needs=5, **settings)


def _way_to_start(bench: Bench) -> Any:
    """Processes are forked from one that has loaded the trainer and done nothing yet: one forked from this process,
    where libraries have threads by then, was seen to hang before its first line (torch 2.11, Python 3.12, 16 CPUs)."""
    if bench.spawn:
        return mp.get_context("spawn")
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["regdpo.train.rank", "regdpo.models.wan"])
    forkserver.ensure_running()  # it loads while the jobs are made
    return context


def _case(bench: Bench, context: Any, settings: dict[str, Any]) -> dict[str, Any]:
    jobs = {name: _job(bench, name, settings) for name in ("whole", "killed")}
    begun = time.monotonic()
    running = {name: _start(job, bench, context) for name, job in jobs.items()}
    killed, run = running["killed"], Path(jobs["killed"].run)
    while killed.is_alive() and not complete(run):
        time.sleep(0.005)
    killed.kill()
    killed.join()
    last = complete(run)[-1].name if complete(run) else "nothing"
    if killed.exitcode != -signal.SIGKILL or (run / EXPORT).exists():
        raise RuntimeError(f"the training was to be killed and had ended, with exit code {killed.exitcode}")
    again = _start(jobs["killed"], bench, context)
    for name, process in {"whole": running["whole"], "resumed": again}.items():
        process.join()
        if process.exitcode:
            raise RuntimeError(f"the {name} training ended with exit code {process.exitcode}")
    whole, killed_then = ({**_weights(Path(job.run)), "losses": _losses(Path(job.run))} for job in jobs.values())
    row: dict[str, Any] = {
        "steps": jobs["whole"].stage.settings.steps,
        "resumed from": last,
        "same bytes": whole == killed_then,
    }
    if whole != killed_then:
        row["differ"] = ", ".join(sorted(name for name in whole if whole[name] != killed_then.get(name)))
    return row | {"seconds": time.monotonic() - begun}


def _job(bench: Bench, name: str, changed: dict[str, Any]) -> Job:
    default = schema.load(CONFIG)
    folder = bench.folder / f"{changed['tuning']}_{name}"
    folder.mkdir()
    clips, arm = default.clips, default.train.arm_settings("reg_dpo").model_dump()
    size = (9, 32, 32) if bench.dry else (clips.frames, clips.height, clips.width)
    made = rig.world(folder, find(default.base), size, pairs=8, validation=2, weights=True)
    steps = STEPS_DRY if bench.dry else STEPS
    job = rig.job(made, bench.device.type, {**arm, "steps": steps, "lr": 1e-3, **changed})
    every = 2 if bench.dry else EVERY
    update = {"micro_batch": 2, "checkpoint_every": every, "eval_every": every, "keep": 2, "deterministic": True}
    return job.model_copy(update=update)


def _start(job: Job, bench: Bench, context: Any) -> Any:
    path = Path(job.run, "job.json")
    path.write_text(job.model_dump_json())
    meet = f"{path}.{time.monotonic_ns()}"
    process = context.Process(target=_rank, args=(str(path), meet, bench.left))
    process.start()
    return process


def _rank(path: str, meet: str, left: float) -> None:
    faulthandler.dump_traceback_later(max(1.0, left - 0.5))  # where it hangs, if it does
    one = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {
        **one,
        **rendezvous.QUIET,
        rendezvous.FILE: meet,
        **dict.fromkeys(rendezvous.INTERFACES, rendezvous.loopback()),
    }
    sys.argv = ["regdpo.train.rank", path]
    rank.main()


def _weights(run: Path) -> dict[str, str]:
    files = [path for path in sorted((run / EXPORT).rglob("*")) if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _losses(run: Path) -> list[Any]:
    return [(row["step"], row["loss"], row["grad_norm"]) for row in logged(run, "metrics")]
