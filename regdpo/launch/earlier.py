"""What a training takes over from one that differs from it in the number of steps alone.

With a constant schedule no step knows how many there will be: noise, timesteps, order, warm-up and averages derive from
(seed, step, pair). So a training of more steps may begin with the checkpoint of one that had fewer, and ends with the
bytes of one that did them all.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from regdpo.core.temporaries import atomic, link_or_copy
from regdpo.runs.job import Job
from regdpo.runtime.lease import living

CHECKPOINT, BEST = "step_", "best_"
LOGS = ("metrics.jsonl", "eval.jsonl")
CACHE = "reference.safetensors"  # what a cached reference said of the first steps
BOARD = "tensorboard"


def take_over(job: Job, say: Callable[[str], None]) -> None:
    """Have a run folder that has no checkpoint yet begin with the last one of another, that nobody trains in now.

    Args:
        say: to the reader, what is taken over, or why not.
    """
    run, settings = Path(job.run), job.stage.settings
    if not job.but_for_steps or any(_steps(run, CHECKPOINT)):
        return
    others = sorted(_others(job), key=lambda found: found[:2], reverse=True)
    for step, steps, other in others:
        what = f"a training of {steps} steps, that differs in train.settings.steps alone"
        if settings.schedule != "constant":
            say(
                f"{what}, cannot be gone on with, since its learning rate followed their number (schedule "
                f"{settings.schedule}): starting anew"
            )
            return
        if any(first != last for given in (job.stage.sources, job.stage.sizes) for first, last in given.values()):
            say(f"{what}, cannot be gone on with, since its shares followed their number: starting anew")
            return
        rows = [row for row in _rows(other / "eval.jsonl") if row["step"] <= step and row["step"] % job.eval_every == 0]
        best = _best(rows) if settings.export == "best" else 0
        if best and best not in _steps(other, BEST):
            say(
                f"{what}, cannot be gone on with: the weights of step {best}, the best that one of {settings.steps} "
                "steps would have evaluated so far, were not kept"
            )
            continue
        say(f"{what}, had come to step {step}: going on from there")
        if steps < settings.steps:  # else it knows of steps that there will not be, and is asked anew
            _copy(other / CACHE, run / CACHE)
        _take(other, run, step, best, rows)
        return


def _others(job: Job) -> Iterator[tuple[int, int, Path]]:
    """Last checkpoint below the number of steps, number of steps, and run folder of each such training."""
    run = Path(job.run)
    for path in Path(job.store, "runs").glob("*/*/job.json"):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # of another version, or just removed
            found = json.loads(path.read_text())
            if found.get("but_for_steps") != job.but_for_steps or path.parent == run or living(path.parent):
                continue
            steps = int(found["stage"]["settings"]["steps"])
            if below := [step for step in _steps(path.parent, CHECKPOINT) if step < job.stage.settings.steps]:
                yield max(below), steps, path.parent


def _take(other: Path, run: Path, step: int, best: int, evaluated: list[dict[str, Any]]) -> None:
    """The checkpoint last: without it nothing of the rest counts."""
    run.mkdir(parents=True, exist_ok=True)
    for name in LOGS:
        rows = evaluated if name == "eval.jsonl" else _rows(other / name)
        with atomic(run / name) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
    if (other / BOARD).is_dir():
        with atomic(run / BOARD) as temporary:
            shutil.copytree(other / BOARD, temporary)
    names = [f"{BEST}{best:07d}"] * bool(best) + [f"{CHECKPOINT}{step:07d}"]
    for name in names:
        with atomic(run / "checkpoints" / name) as folder:
            folder.mkdir()
            for file in (other / "checkpoints" / name).iterdir():
                link_or_copy(file, folder / file.name)


def _copy(source: Path, path: Path) -> None:
    if source.exists():
        with atomic(path) as temporary:
            shutil.copyfile(source, temporary)


def _steps(run: Path, kind: str) -> list[int]:
    return [int(folder.name.removeprefix(kind)) for folder in (run / "checkpoints").glob(f"{kind}*")]


def _best(rows: list[dict[str, Any]]) -> int:
    """The step of the least error, the first of several; 0 if there is none."""
    known = [row for row in rows if row["error"] is not None]
    return min(known, key=lambda row: row["error"])["step"] if known else 0


def _rows(path: Path) -> list[dict[str, Any]]:
    """Of a log; a line that was cut off by a kill is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found
