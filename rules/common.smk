# What the rules share: names, and what regdpo/workflow/ hands them. No rules here.
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

import regdpo
from regdpo.config import stage_inputs
from regdpo.config.autoencoder import TRAINED
from regdpo.config.run_file import RUN
from regdpo.core import damage
from regdpo.core.errors import EXIT_USER_ERROR, UserError
from regdpo.core.model_names import LINK
from regdpo.data.captioner_registry import CAPTIONERS
from regdpo.data.pair_registry import PAIR_SOURCES
from regdpo.data.registry import of_weights
from regdpo.evaluate.measures import MEASURES, asked
from regdpo.evaluate.suites import OF_PROMPTS
from regdpo.workflow import controllers, early, hooks, reading
from regdpo.workflow.inputs import Inputs
from regdpo.workflow.naming import comment_of, events_of
from regdpo.workflow.params import MODEL_PACKAGES, VIDEO_PACKAGES, Params
from regdpo.workflow.reading import ModelFiles

ROOT = Path(workflow.basedir).parent.resolve()
if Path(regdpo.__file__).resolve().parent != ROOT / "regdpo":
    raise WorkflowError(
        f"this environment has the regdpo of another checkout: {regdpo.__file__}; run `make venv` here"
    )


def refuse(error):
    """End the run, before its first job, with one line."""
    logger.error(f"error: {error}")
    sys.exit(EXIT_USER_ERROR)


# To read the rules, as dry runs, listings and linters do, writes nothing but notes in here and starts no program.
NOTES = Path(".snakemake/regdpo")

try:
    settings = reading.configuration(config, workflow.config_settings, load_configfile)
    run = reading.run_file(NOTES, controls=workflow.is_main_process)
except UserError as error:
    refuse(error)


envvars:
    RUN,


CAPTIONER = CAPTIONERS[settings.captions.source]
reading.set_environment(ROOT, settings)
shell.prefix(reading.shell(settings))

declare = Params(settings, ROOT, run.codes)
found = Inputs(settings, NOTES, logger.info, run.digests or None)
model_files = ModelFiles(settings)

RESULTS = settings.paths.results
LOGS = "logs"
SEEDS = settings.train.seeds
# All trainings of all arms: an arm may be a chain of them.
LINKS = list(settings.train.links)
# Folders of the base models, of which the first has none: what is of another lies in its own, made by the same rules.
BASES = list(settings.base.folders)
# The same of what trained models make for the next training.
ROUNDS = settings.rounds
MODELS = ["base", *(f"{link}/seed{seed}" for link in LINKS for seed in SEEDS)]
FAMILY = declare.family
JUDGES = of_weights(settings.clips.filters)
# Packages that run weights of shots and filters.
WEIGHED = sorted(
    {name for it in JUDGES.values() for name in it.packages}
    | ({"torch"} if "shots" in settings.clips.models else set())
)
# Trainings are Slurm jobs of torchx, which a local rule waits for.
APART = settings.launch.scheduler == "slurm"
# Ranks of a machine, one CPU each; `set-threads` of a profile gives them more.
CPUS = settings.launch.processes // settings.launch.nodes


wildcard_constraints:
    of=f"({'|'.join(map(re.escape, BASES + ROUNDS))})",
    shard=r"\d+",
    arm=LINK,
    generator=r"[A-Za-z0-9_-]+",
    autoencoder=r"[A-Za-z0-9_-]+",
    seed=r"-?\d+",
    model=rf"real|base|{LINK}/seed-?\d+",
    pairs=r"gt|pretrain",
    source=r"[A-Za-z0-9_-]+",
    measure="|".join(MEASURES),
    suite="|".join(OF_PROMPTS),


@cache
def check_early():
    """A run, also a dry one, ends here where what it stands on is missing. What is no run (--unlock, --report,
    --summary) does without."""
    if not workflow.is_main_process or workflow.execution_settings is None:
        return
    deployed = workflow.deployment_settings.deployment_method
    try:
        early.check(settings, DeploymentMethod.CONDA in deployed)
    except UserError as error:
        refuse(error)


def ready(wildcards):
    """What the first jobs take: no file."""
    check_early()
    return []


def begin():
    """Before the first job."""
    folders = [Path(RESULTS), Path(LOGS)]
    jobs = workflow.dag.needrun_jobs()
    try:
        hooks.before(
            settings, declare, found, Path(os.environ[RUN]), folders, jobs, logger
        )
    except UserError as error:
        refuse(error)


def end(failed=()):
    """After the last job, or the first that failed."""
    hooks.draw_timeline(ROOT, RESULTS, LOGS, logger)
    if failed:
        hooks.tell_last(failed, Path(os.environ[RUN]).stat().st_mtime)
