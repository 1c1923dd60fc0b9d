# Configuration, digests and paths that the rules share; no rules here.
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

import regdpo
from regdpo import config as configuration
from regdpo import controller, preflight, provenance, stages, temporaries
from regdpo.data import clips as footage
from regdpo.data import sidecars, video
from regdpo.errors import UserError
from regdpo.evaluate import vbench
from regdpo.models import FAMILIES
from regdpo.objectives import FUNCTIONS
from regdpo.store import DIGESTS, Store

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

try:
    settings = configuration.check(config)
    # A worker has to see the environment and the configuration that the controlling process sees.
    if workflow.is_main_process:
        os.environ["REGDPO_ENVIRONMENT"] = provenance.environment()
    if workflow.is_main_process or "REGDPO_CONFIG" not in os.environ:
        os.environ["REGDPO_CONFIG"] = str(stages.parts_path(settings, NOTES))
    provenance.check_environment(os.environ.get("REGDPO_ENVIRONMENT", ""))
except UserError as error:
    refuse(error)


envvars:
    "REGDPO_ENVIRONMENT",
    "REGDPO_CONFIG",


# Rules call `python`: the one that runs Snakemake, or that of the rule's conda environment. `stage NAME` is scripts/NAME.py.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
    PYTHONPATH=str(ROOT),
    REGDPO_SCRIPTS=str(ROOT / "scripts"),
)
shell.prefix(
    'stage() {{ "${{REGDPO_PYTHON:-python}}" "$REGDPO_SCRIPTS/$1.py" "${{@:2}}"; }}; set -euo pipefail; '
)

RESULTS = settings.paths.results
STORE = settings.paths.store
# A captioner's environment that is not there is told by the stage, in the one that is.
captioner = "python"
if settings.captions.source == "qwen_vl" and shutil.which(settings.captions.python):
    captioner = settings.captions.python
# What shapes no result reaches the scripts by the environment.
os.environ.update(
    REGDPO_STORE=STORE,
    REGDPO_DEVICE=settings.launch.device,
    REGDPO_CAPTIONER=captioner,
    REGDPO_VBENCH=settings.scores.vbench.python,
)
LOGS = "logs"
SEEDS = settings.train.seeds
ARMS = list(settings.train.arms)
TRAINED = [f"{arm}/seed{seed}" for arm in ARMS for seed in SEEDS]
MODELS = ["base", *TRAINED]


wildcard_constraints:
    shard=r"\d+",
    arm=r"[A-Za-z0-9_-]+",
    seed=r"-?\d+",
    model=r"real|base|[A-Za-z0-9_-]+/seed-?\d+",
    pairs=r"gt|pretrain",


def stage(of, which=lambda wildcards: ()):
    """`params.config` of a rule: what the stage reads of the configuration, as JSON.

    A function, since Snakemake takes braces in text for wildcards.
    """
    return lambda wildcards: configuration.canonical(of.of(settings, *which(wildcards)))


def code(script, *chosen):
    """`params.code` of a rule: digest of its script, of what that imports, and of what a table chooses for it."""
    return provenance.code_digest(str(ROOT / "scripts" / f"{script}.py"), *chosen)[:16]


def env(*packages, lock="regdpo"):
    """`params.env` of a rule: digest of the locked packages that shape its result."""
    return provenance.environment_digest(
        [ROOT / "envs" / f"{name}.lock" for name in (lock, "torch")], *packages
    )[:16]


FAMILY = FAMILIES[settings.base.family].partition(":")[0]
MODEL_PACKAGES = ["torch", "diffusers", "transformers", "ftfy", "numpy", "av"]
VIDEO_PACKAGES = [
    "av",
    "imageio-ffmpeg",
    "ffmpeg-python",
    "numpy",
    "opencv-python-headless",
]


def objective_code(objective):
    """The trainer as torchx starts it, with the one loss that the objective chooses."""
    return [
        "regdpo.train.rank",
        FAMILY,
        f"regdpo.objectives.losses:{FUNCTIONS[objective]}",
    ]


def model_file(wildcards):
    """The model.json behind a name among the models."""
    name = wildcards.model
    return (
        f"{RESULTS}/base/model.json"
        if name == "base"
        else f"{RESULTS}/train/{name}/model.json"
    )


def memory(small, checkpoint=None):
    """`mem_mb` of a rule: beside the base made here, or beside a checkpoint (estimates for 14B); more with each retry."""
    if settings.base.pretrain or not checkpoint:
        return lambda wildcards, attempt: small * attempt
    return lambda wildcards, attempt: checkpoint + checkpoint // 4 * (attempt - 1)


def pairs_to_encode(wildcards):
    """What there is to encode: the pairs (gt), or the clips that a base made here learns from."""
    return {
        "gt": {
            "pairs": f"{RESULTS}/pairs.parquet",
            "model": f"{RESULTS}/base/model.json",
        },
        "pretrain": {
            "pairs": f"{RESULTS}/base/pairs.parquet",
            "model": f"{RESULTS}/base/untrained.json",
        },
    }[wildcards.pairs]


# Trainings are Slurm jobs of torchx, which a local rule waits for.
APART = settings.launch.scheduler == "slurm"
# Ranks of a machine, one CPU each; `set-threads` of a profile gives them more.
CPUS = settings.launch.processes // settings.launch.nodes
# Over several machines the rule's job is on the first, unwrapped, and starts a launcher on each: the Slurm plugin's words.
MACHINES = {}
if settings.launch.nodes > 1 and not APART:
    MACHINES = {"mpi": "srun", "tasks": settings.launch.nodes, "tasks_per_gpu": 0}


def launch_options(training, resources, threads):
    """How a training runs. It goes through `resources`, so it makes nothing stale."""
    launch = settings.launch
    return configuration.canonical(
        {
            "scheduler": launch.scheduler,
            "processes": int(resources.processes),
            "nodes": int(resources.nodes),
            "device": launch.device,
            "grace": launch.grace,
            "leave": launch.leave,
            "requeues": launch.requeues,
            "cpus": CPUS if APART else threads,
            "gpus": int(resources.get("gpu", 0)) // launch.nodes,
            "mem_mb": int(resources.mem_mb),
            "runtime": int(resources.runtime),
            "partition": str(resources.get("slurm_partition", "")),
            "constraint": str(resources.get("constraint", "")),
            "force": launch.force,
            "frames": settings.clips.frames,
            "height": settings.clips.height,
            "width": settings.clips.width,
            "parallel": training.parallel.model_dump(mode="json"),
            "micro_batch": training.micro_batch,
            "checkpoint_every": training.checkpoint_every,
            "eval_every": training.eval_every,
            "keep": training.keep,
            "deterministic": training.deterministic,
        }
    )


@functools.cache
def digest_cache():
    """Known digests: the store's, and what runs have read that started no job."""
    return provenance.DigestCache(NOTES / DIGESTS, Path(STORE) / DIGESTS)


@functools.cache
def source_digests():
    """Relative path -> sha256 of the source videos, which count by content; read again only if size or time changed."""
    cache = digest_cache()
    try:
        root = video.footage_root(settings.videos.root)
        names = video.list_videos(settings.videos)
        new = [
            root / name
            for name in names
            if not video.refusal(root, name) and not cache.knows(root / name)
        ]
        size = sum(path.stat().st_size for path in new) / 1e9
        if size > 1:
            logger.info(
                f"reading {len(new)} videos, {size:.0f} GB, to know them again by content; once, and Ctrl-C loses little"
            )
        return footage.source_digests(settings.videos, cache)
    except (OSError, UserError):
        return {}  # check_footage tells, once jobs are to run
    finally:
        cache.save()


def videos_of(shard):
    """Digest of the videos of a shard; it changes with their names and bytes alone."""
    mine = {
        name: digest
        for name, digest in source_digests().items()
        if footage.shard_of(name, settings.clips.shards) == int(shard)
    }
    return provenance.text_digest(json.dumps(mine, sort_keys=True))[:16]


def sidecars_of(shard):
    """Digest of the text files beside (or in captions.root for) the videos of a shard."""
    if settings.captions.source != "sidecar":
        return ""
    try:
        root = video.footage_root(settings.captions.root or settings.videos.root)
    except UserError:
        return ""  # the stage tells
    mine = [
        name
        for name in source_digests()
        if footage.shard_of(name, settings.clips.shards) == int(shard)
    ]
    return sidecars.Sidecars(root, ()).digest(mine)[:16]


@functools.cache
def weights_of(model):
    """Digest of a local model folder, which may change under its name; a hub name is pinned by its revision."""
    if not model or not Path(model).is_dir():
        return ""
    digest = provenance.folder_digest(model, digest_cache())
    digest_cache().save()
    return digest[:16]


def begin():
    """What a run writes before its first job."""
    try:
        for folder in (RESULTS, LOGS, STORE):
            temporaries.check_writable(Path(folder))
        os.environ.update(REGDPO_STORE_IDENTITY=Store(STORE).identity())
        stages.write_parts(settings, NOTES)
        known = provenance.DigestCache(Path(STORE) / DIGESTS, NOTES / DIGESTS)
        known.save()
    except UserError as error:
        refuse(error)


def check_footage():
    """Say before the first job that there is nothing to work on."""
    try:
        video.list_videos(settings.videos)
        if overlooked := video.overlooked(settings.videos):
            logger.warning(f"note: {overlooked}")
    except UserError as error:
        refuse(error)


def check_dates():
    """Have no job refused because its inputs are of the future."""
    jobs = workflow.dag.needrun_jobs()
    if note := preflight.mend_dates({Path(file) for job in jobs for file in job.input}):
        logger.warning(f"note: {note}")


def trainings_to_run():
    """What the jobs of trainings that are to run ask for, as a profile may have changed it."""
    jobs = [
        job
        for job in workflow.dag.needrun_jobs()
        if job.rule.name in ("train_arm", "pretrain")
    ]
    asked = [
        preflight.Asked(
            (
                f"train.arms.{job.wildcards.arm}"
                if job.rule.name == "train_arm"
                else "base.pretrain"
            ),
            processes=int(job.resources.processes),
            nodes=int(job.resources.get("nodes", 1)),
            gpus=int(job.resources.get("gpu", 0)),
        )
        for job in jobs
    ]
    return sorted(set(asked))


def check_trainings():
    """Say before the first job that a training cannot be laid out as asked, or cannot fit."""
    asked = trainings_to_run()
    version = [
        code("plan"),
        env("torch", "diffusers", "peft"),
        weights_of(settings.base.model),
    ]
    try:
        for note in preflight.fit(settings, asked):
            logger.warning(f"note: {note}")
        preflight.ask_plan(
            settings,
            asked,
            [sys.executable, f"{ROOT}/scripts/plan.py"],
            Path(".snakemake/regdpo/plan"),
            "-".join(version),
            logger.info,
        )
    except UserError as error:
        refuse(error)


def draw_timeline():
    """Where the time of the run went, beside the report. A run does not fail for it."""
    command = [sys.executable, str(ROOT / "scripts/timeline.py")]
    command += ["--table", f"{LOGS}/timeline.parquet"]
    command += ["--out", f"{RESULTS}/report/timeline.html"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    said = done.stderr.strip().rpartition("\n")[2]
    if said or done.returncode:
        logger.warning(f"timeline: {said or f'exit code {done.returncode}'}")
