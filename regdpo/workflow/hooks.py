"""What a run of the workflow does before its first job, and when it has ended."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
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
from regdpo.workflow import preflight
from regdpo.workflow.inputs import Inputs
from regdpo.workflow.params import Params

TRAININGS = {"train_arm": "train.arms.{arm}", "pretrain": "base.pretrain"}
"""Rule of a training -> its key in ``Config.trainings``, with the rule's wildcards."""


def before(
    settings: Config, declare: Params, found: Inputs, path: Path, folders: list[Path], jobs: Iterable[Any], log: Logger
) -> None:
    """Check what the jobs will need, and write what they are given.

    Args:
        path: of the run's file. folders: that the run writes into. jobs: Snakemake's, those that are to run.

    Raises:
        UserError: there is no footage, a folder cannot be written to, a training cannot be laid out or cannot fit.
    """
    footage.list_videos(settings.videos)
    if overlooked := footage.overlooked(settings.videos):
        log.warning(f"note: {overlooked}")
    for folder in (*folders, Path(settings.paths.store)):
        check_writable(folder)
    jobs = list(jobs)
    if dated := preflight.mend_dates({Path(file) for job in jobs for file in job.input}):
        log.warning(f"note: {dated}")
    asked = trainings(jobs)
    for note in preflight.fit(settings, asked):
        log.warning(f"note: {note}")
    version = [declare.code("plan"), declare.env("torch", "diffusers", "peft"), found.weights(settings.base.model)]
    preflight.ask_plan(
        settings,
        asked,
        [sys.executable, str(declare.root / "scripts/plan.py")],
        path.parent / "plan",
        "-".join(version),
        log.info,
    )
    RunFile(
        parts=stage_inputs.parts(settings),
        store=settings.paths.store,
        store_identity=Store(settings.paths.store).identity(),
        environment=environment(),
        device=settings.launch.device,
        vbench=settings.scores.vbench.python,
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


def say_where(results: str, arms: Sequence[str], seeds: Sequence[int], log: Logger) -> None:
    """Where a finished run has left what it was for."""
    log.info(f"report:  {results}/report/index.html")
    for arm in arms:
        folders = ", ".join(f"{results}/weights/{arm}/seed{seed}" for seed in seeds)
        log.info(f"weights: {folders} (README.md there says how to load them)")
