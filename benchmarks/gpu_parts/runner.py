"""Parts one after another, each in a process of its own with a time limit: what one of them does to itself is an entry
in the results, and the others go on."""

import faulthandler
import multiprocessing as mp
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpu_parts.bench import Bench, read
from gpu_parts.results import Results
from regdpo.core.processes import die_with_parent

LOOK_EVERY = 0.1


@dataclass(frozen=True)
class Part:
    """One measurement.

    Args:
        share: of the time, as seconds of all parts' together. What a part leaves is the later ones'.
    """

    name: str
    what: str
    share: float
    measure: Callable[[Bench], None]


def run(parts: Sequence[Part], seconds: float, dry: bool, spawn: bool, results: Results) -> None:
    """Measure all of them within so many seconds, the most valuable first."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(parts):
            rest = sum(other.share for other in parts[number:])
            limit = max(0.0, end - time.monotonic()) * part.share / rest
            here = Path(folder, part.name)
            here.mkdir()
            _one(part, here, limit, dry, spawn, results)


def _one(part: Part, here: Path, limit: float, dry: bool, spawn: bool, results: Results) -> None:
    entry: dict[str, Any] = {"name": part.name, "what": part.what, "state": "running", "limit_s": round(limit, 1)}
    results.begin(entry)
    rows, log, begun = here / "rows.jsonl", results.folder / f"{part.name}.log", time.monotonic()
    bench = Bench(rows, here, dry, begun + limit, spawn)
    process = mp.get_context("spawn" if spawn else "fork").Process(target=_inside, args=(part.measure, bench, log))
    process.start()
    assert process.pid
    late = True
    try:
        while process.is_alive() and time.monotonic() < bench.end:
            process.join(LOOK_EVERY)
            results.rows(read(rows)[0])
        late = process.is_alive()
    finally:
        if late:
            process.kill()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has started
        process.join()
    found, open_ = read(rows)
    if late:
        entry["state"] = "time limit"
    elif process.exitcode == 0:
        entry["state"] = "done"
    elif process.exitcode and process.exitcode < 0:
        entry["state"] = f"killed by {signal.Signals(-process.exitcode).name}"
    else:
        entry["state"] = f"failed: {_last_line(log)}"
    if open_ is not None:
        found.append({**open_, "failed": entry["state"]})
    entry["seconds"] = round(time.monotonic() - begun, 1)
    results.rows(found)
    results.end()


def _inside(measure: Callable[[Bench], None], bench: Bench, log: Path) -> None:
    os.setsid()
    die_with_parent()
    if bench.dry:
        torch.set_num_threads(1)
    file = log.open("w", buffering=1)  # to the end of the process
    for number in (1, 2):
        os.dup2(file.fileno(), number)
    sys.stdout = sys.stderr = file
    faulthandler.dump_traceback_later(max(1.0, bench.left - 1), file=file)  # what took too long
    measure(bench)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
