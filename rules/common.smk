# What the rules share: names, and what regdpo/workflow/ hands them. No rules here.
import os
import shlex
import shutil
import sys
import uuid
from functools import cache
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

import regdpo
from regdpo.config import schema, stage_inputs
from regdpo.config.locations import located
from regdpo.config.run_file import RUN, SUFFIX, RunFile
from regdpo.core import damage, environment
from regdpo.core.errors import UserError
from regdpo.data.captioner_registry import CAPTIONERS
from regdpo.data.pair_registry import PAIR_SOURCES
from regdpo.evaluate.measures import MEASURES
from regdpo.workflow import controllers, early, hooks
from regdpo.workflow.inputs import Inputs
from regdpo.workflow.naming import comment_of, events_of
from regdpo.workflow.params import MODEL_PACKAGES, VIDEO_PACKAGES, Params

ROOT = Path(workflow.basedir).parent.resolve()
if Path(regdpo.__file__).resolve().parent != ROOT / "regdpo":
    raise WorkflowError(
        f"this environment has the regdpo of another checkout: {regdpo.__file__}; run `make venv` here"
    )


def refuse(error):
    """End the run, before its first job, with one line."""
    logger.error(f"error: {error}")
    sys.exit(1)


# To read the rules, as dry runs, listings and linters do, writes nothing but notes in here and starts no program.
NOTES = Path(".snakemake/regdpo")

# What of the configuration was named where: in its files, and on the command line here.
configfiles = workflow.config_settings.configfiles or [Path("config/config.yaml")]
named = [(Path(file).parent, load_configfile(file)) for file in configfiles]
named.append((Path(), workflow.config_settings.config))

try:
    settings = schema.check(located(config, named, schema.Config))
    known, codes = None, {}
    if workflow.is_main_process:
        os.environ[RUN] = str(NOTES / f"{uuid.uuid4().hex}{SUFFIX}")
    elif RUN in os.environ and Path(os.environ[RUN]).exists():
        # A job has to see the environment and the footage that the controlling process sees.
        run = RunFile.read(os.environ[RUN])
        environment.check_environment(run.environment)
        known, codes = run.digests, run.codes
except UserError as error:
    refuse(error)


envvars:
    RUN,


# Where the captioner's environment is not there, `python` has its packages: of the rule's conda environment, or of this.
captioner = "python"
CAPTIONER = CAPTIONERS[settings.captions.source]
if CAPTIONER.environment and shutil.which(settings.captions.python):
    captioner = settings.captions.python

# Rules call `python`: the one that runs Snakemake, or that of the rule's conda environment. `stage NAME` is
# scripts/NAME.py, `stage_in PYTHON NAME` the same by another interpreter.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
    PYTHONPATH=str(ROOT),
    REGDPO_SCRIPTS=str(ROOT / "scripts"),
    REGDPO_CAPTIONER=captioner,
)
shell.prefix(
    'stage_in() {{ "$1" "$REGDPO_SCRIPTS/$2.py" "${{@:3}}"; }}; stage() {{ stage_in python "$@"; }}; '
    "set -euo pipefail; "
)

declare = Params(settings, ROOT, codes)
found = Inputs(settings, NOTES, logger.info, known)

RESULTS = settings.paths.results
LOGS = "logs"
SEEDS = settings.train.seeds
ARMS = list(settings.train.arms)
TRAINED = [f"{arm}/seed{seed}" for arm in ARMS for seed in SEEDS]
MODELS = ["base", *TRAINED]
FAMILY = declare.family
# Trainings are Slurm jobs of torchx, which a local rule waits for.
APART = settings.launch.scheduler == "slurm"
# Ranks of a machine, one CPU each; `set-threads` of a profile gives them more.
CPUS = settings.launch.processes // settings.launch.nodes


wildcard_constraints:
    shard=r"\d+",
    arm=r"[A-Za-z0-9_-]+",
    generator=r"[A-Za-z0-9_-]+",
    seed=r"-?\d+",
    model=r"real|base|[A-Za-z0-9_-]+/seed-?\d+",
    pairs=r"gt|pretrain",
    source=r"[A-Za-z0-9_-]+",
    measure="|".join(MEASURES),


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


def model_file(wildcards):
    """The model.json behind a name among the models."""
    folder = "base" if wildcards.model == "base" else f"train/{wildcards.model}"
    return f"{RESULTS}/{folder}/model.json"


def generator_model(wildcards):
    """The model.json of a generator."""
    of_its_own = settings.negatives.named[wildcards.generator].model
    return f"{RESULTS}/{f'generators/{wildcards.generator}' if of_its_own else 'base'}/model.json"


def scored(wildcards):
    """What a measure reads of a model."""
    if MEASURES[wildcards.measure].reads == "samples":
        return {"samples": f"{RESULTS}/samples/{wildcards.model}.parquet"}
    return {"model": model_file(wildcards), "latents": f"{RESULTS}/latents/gt.parquet"}


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
