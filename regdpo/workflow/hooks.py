"""What a run of the workflow does before its first job, and when it has ended."""

import atexit
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from logging import Logger
from pathlib import Path
from typing import Any

from regdpo.config import stage_inputs
from regdpo.config.run_file import RunFile
from regdpo.config.schema import Config
from regdpo.core.environment import environment
from regdpo.core.store import Store
from regdpo.core.temporaries import check_writable
from regdpo.data import footage
from regdpo.evaluate.measures import MEASURES
from regdpo.workflow import preflight
from regdpo.workflow.inputs import Inputs
from regdpo.workflow.params import Params

TRAININGS = {"train_arm": "train.arms.{arm}", "pretrain": "base.pretrain"}
"""Rule of a training -> its key in ``Config.trainings``, with the rule's wildcards."""
ON_A_GPU = {
    "render_negatives": "negatives",
    "encode_latents": "latents",
    "render_samples": "samples",
    "render_suite": "samples",
    "score": "scores.error",
    "train_vae": "vae.train",
}
"""Rule of a stage that keeps a model on a GPU -> the key of its settings."""
LOOKED_AT = 2**16
"""Bytes of a log's end."""


def before(
    settings: Config, declare: Params, found: Inputs, path: Path, folders: list[Path], jobs: Iterable[Any], log: Logger
) -> None:
    """Check what the jobs will need, and write what they are given.

    Args:
        path: of the run's file. folders: that the run writes into. jobs: Snakemake's, those that are to run.

    Raises:
        UserError: a folder cannot be written to, that of captions is missing, a checkpoint is to be converted first, a
            training cannot be laid out or cannot fit.
    """
    if settings.footage and (overlooked := footage.overlooked(settings.videos)):
        log.warning(f"note: {overlooked}")
    for folder in (*folders, Path(settings.paths.store)):
        check_writable(folder)
    jobs = list(jobs)
    if dated := preflight.mend_dates({Path(file) for job in jobs for file in job.input}):
        log.warning(f"note: {dated}")
    named = [(job.rule.name, job.wildcards_dict) for job in jobs]
    preflight.described(settings, named)
    preflight.unconverted(settings, named)
    for table in preflight.lacking(settings, named):
        log.warning(table)
    asked = trainings(jobs)
    for note in preflight.fit(settings, asked):
        log.warning(f"note: {note}")
    version = [declare.code("plan"), declare.env("torch", "diffusers", "peft"), found.weights(settings.base.model)]
    preflight.ask_plan(
        settings,
        asked,
        on_a_gpu(jobs),
        [sys.executable, str(declare.root / "scripts/plan.py")],
        path.parent / "plan",
        "-".join(version),
        log.info,
    )
    Store(settings.paths.store).used_by(Path.cwd(), Path(settings.paths.results))
    RunFile(
        parts=stage_inputs.parts(settings),
        store=settings.paths.store,
        results=str(Path(settings.paths.results).resolve()),
        store_identity=Store(settings.paths.store).identity(),
        environment=environment(),
        device=settings.launch.device,
        portable=settings.portable,
        vbench=settings.scores.vbench.python,
        vbench_weights=settings.scores.vbench.weights,
        images=settings.scores.vbench.images or "",
        i2v_prompts=settings.scores.vbench.i2v_prompts or "",
        digests=found.all(),
        codes=declare.codes,
    ).write(path)
    found.remember()


def trainings(jobs: Iterable[Any]) -> list[preflight.Asked]:
    """What the jobs of trainings ask for, as a profile may have changed it."""
    asked = {
        preflight.Asked(
            TRAININGS[job.rule.name].format(**job.wildcards_dict),
            processes=int(job.resources.processes),
            nodes=int(job.resources.get("nodes", 1)),
            gpus=int(job.resources.get("gpu", 0)),
        )
        for job in jobs
        if job.rule.name in TRAININGS
    }
    return sorted(asked)


def on_a_gpu(jobs: Iterable[Any]) -> list[str]:
    """Keys of the stages whose jobs keep a model on a GPU."""
    return sorted({ON_A_GPU[job.rule.name] for job in jobs if job.rule.name in ON_A_GPU and _asks_a_model(job)})


def _asks_a_model(job: Any) -> bool:
    """Of measures those that are not about samples."""
    measure = job.wildcards_dict.get("measure")
    return measure is None or MEASURES[measure].reads == "model"


def tell_last(failed: Iterable[Any], begun: float) -> None:
    """Say why jobs failed once Snakemake has said all it has to say: it ends with a listing of its own.

    Args:
        failed: Snakemake's jobs. begun: when the run began; what older logs tell is of another run.
    """
    atexit.register(print, "\n".join(causes(failed, begun)), file=sys.stderr)


def causes(failed: Iterable[Any], begun: float) -> list[str]:
    """One line for each cause, with the jobs that it ended, by what their logs say last.

    Args:
        failed: Snakemake's jobs. begun: when the run began.
    """
    jobs = [one for job in failed for one in getattr(job, "jobs", [job])]  # a group has several
    found: dict[str, list[Any]] = defaultdict(list)
    for job in sorted(jobs, key=lambda job: (job.rule.name, *job.wildcards)):
        found[_said_last(job.log, begun)].append(job)
    lines = []
    for cause, those in found.items():
        name = " ".join(filter(None, [those[0].rule.name, *those[0].wildcards]))
        more = f" and {len(those) - 1} more jobs" if len(those) > 1 else ""
        log = f" ({those[0].log[0]})" if those[0].log else ""
        lines.append(f"error: {name}{more}: {cause}{log}")
    return lines


def _said_last(logs: Iterable[str], begun: float) -> str:
    """The last error of a log, or its last line."""
    for log in logs:
        with suppress(OSError):
            path = Path(log)
            if path.stat().st_mtime < begun:
                continue
            with path.open("rb") as file:
                file.seek(-min(LOOKED_AT, path.stat().st_size), os.SEEK_END)
                lines = file.read().decode(errors="replace").split("\n")
            lines = [line.strip() for line in lines if line.strip()]
            errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            if errors or lines:
                return (errors or lines)[-1]
    return "ended before it said anything; what is above may tell"


def draw_timeline(root: Path, results: str, logs: str, log: Logger) -> None:
    """Where the time of the run went, beside the report. A run does not fail for it.

    Args:
        root: of the checkout.
    """
    command = [sys.executable, str(root / "scripts/timeline.py")]
    command += ["--table", f"{logs}/timeline.parquet", "--out", f"{results}/report/timeline.html"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    said = done.stderr.strip().rpartition("\n")[2]
    if said or done.returncode:
        log.warning(f"timeline: {said or f'exit code {done.returncode}'}")


def say_where(settings: Config, log: Logger) -> None:
    """Where a finished run has left what it was for."""
    results, seeds = settings.paths.results, settings.train.seeds
    log.info(f"report:  {results}/report/index.html")
    for arm in settings.train.arms:
        folders = ", ".join(f"{results}/{of}weights/{arm}/seed{seed}" for of in settings.base.folders for seed in seeds)
        log.info(f"weights: {folders} (README.md there says how to load them)")
