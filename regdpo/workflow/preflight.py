"""Before the first job: ranks, machines and GPUs of the trainings that are to run, against each other and the plan."""

import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from regdpo.config.autoencoder import TRAINED
from regdpo.config.schema import Config
from regdpo.core.digests import canonical, text_digest
from regdpo.core.errors import UserError
from regdpo.core.section import Section
from regdpo.data.captioners import text_files
from regdpo.evaluate import vbench_weights
from regdpo.evaluate.suites import SUITES
from regdpo.models import checkpoint_json
from regdpo.runs.planned import Planned


def mend_dates(files: Iterable[Path]) -> str:
    """Date inputs of the future, as a clock that was set back leaves them, to now: Snakemake takes no output that is
    older than its input, and content is what counts here. A line of what was done; empty if nothing."""
    mended = []
    for path in files:
        with suppress(OSError):  # it is made later; or may not be dated, and Snakemake tells
            if path.stat().st_mtime > time.time():
                os.utime(path)
                mended.append(path)
    if not mended:
        return ""
    many = f" and {len(mended) - 1} more" if len(mended) > 1 else ""
    return f"{min(mended)}{many}: dated in the future, as after a clock was set back; dated to now"


@dataclass(frozen=True, order=True)
class Asked:
    """A training that is to run, and the resources that its job asks for, which a profile may have changed."""

    key: str  # as in Config.trainings
    processes: int
    nodes: int
    gpus: int  # of all machines together; 0 where the site counts them otherwise


def fit(settings: Config, asked: list[Asked]) -> list[str]:
    """Check ranks, machines, GPUs and layout against each other.

    Returns:
        What is slow or odd, a line each.

    Raises:
        UserError: they cannot be.
    """
    notes: dict[str, list[str]] = defaultdict(list)
    for it in asked:
        training, losers = settings.trainings()[it.key]
        if it.processes % it.nodes:
            line = f"nodes={it.nodes} does not divide processes={it.processes}"
            raise UserError(f"{it.key}: {line}, its job's resources")
        if it.nodes != settings.launch.nodes:
            raise UserError(
                f"{it.key}: nodes={it.nodes}, its job's resources; set launch.nodes, which its tasks follow"
            )
        if reason := training.parallel.misfit(it.processes, losers, training.batch):
            raise UserError(f"{it.key}: {reason} (processes={it.processes}, its job's resources)")
        if it.gpus and it.gpus != it.processes and settings.launch.device != "cpu":
            line = f"gpu={it.gpus} for processes={it.processes}, its job's resources; a rank takes one GPU"
            if settings.launch.device == "cuda":
                raise UserError(f"{it.key}: {line}")
            notes[line].append(it.key)
        if slow := training.parallel.straddles(it.processes, it.nodes):
            notes[slow].append(it.key)
    return [f"{', '.join(keys)}: {line}" for line, keys in notes.items()]


def lacking(settings: Config, jobs: Iterable[tuple[str, Mapping[str, str]]]) -> list[str]:
    """What VBench's dimensions need that is not there, a table for the held-out samples and for each suite.

    Args:
        jobs: rule and wildcards of those that are to run.
    """
    vbench = settings.scores.vbench
    asked: dict[str, tuple[list[str], tuple[str, ...]]] = {}
    for rule, wildcards in jobs:
        if rule == "score" and wildcards.get("measure") == "vbench":
            asked[""] = vbench.measured, ()
        elif rule in ("render_suite", "score_suite"):
            suite = SUITES[wildcards["suite"]]
            asked[wildcards["suite"]] = list(suite.dimensions), suite.static * vbench.static
    tables = [
        vbench_weights.told(names, vbench.python, Path(vbench.weights), static) for names, static in asked.values()
    ]
    return list(filter(None, tables))


def described(settings: Config, jobs: Iterable[tuple[str, Mapping[str, str]]]) -> None:
    """Refuse a folder of captions that is not there, where clips get captions from text files.

    Args:
        jobs: as of ``lacking``.

    Raises:
        UserError: saying how to make it.
    """
    captions = settings.captions
    if captions.source == "sidecar" and any(rule == "caption_clips" for rule, _ in jobs):
        text_files.folder(captions.root, settings.videos.root)


def unconverted(settings: Config, jobs: Iterable[tuple[str, Mapping[str, str]]]) -> None:
    """Refuse published checkpoints that are to be converted first, before the first job and by their names.

    Args:
        jobs: as of ``lacking``.

    Raises:
        UserError: saying how.
    """
    from regdpo.models.conversions import converted  # here, since it loads the hub's library

    for rule, wildcards in jobs:
        if rule not in ("base_by_name", "generator_by_name"):
            continue
        base, key = settings.generator(wildcards["generator"]) if "generator" in wildcards else (settings.base, "base")
        published = base.model in checkpoint_json.known() and not Path(base.model).exists()
        if published and (how := converted(base.family)):
            raise UserError(f"{key}.model: {base.model} is no checkpoint in diffusers' layout{how}")


def ask_plan(
    settings: Config,
    asked: list[Asked],
    stages: Sequence[str],
    command: list[str],
    remembered: Path,
    version: str,
    say: Callable[[str], None],
) -> None:
    """Ask the plan whether trainings and stages fit ``launch.gpu``; without that, or with ``launch.force``, it is not
    asked.

    Another process asks, which takes a while; what fits is remembered and not asked again.

    Args:
        stages: keys of those that keep a model on a GPU. command: scripts/plan.py. remembered: a folder.
        version: of what shapes the answer beside the configuration. say: to the reader.

    Raises:
        UserError: the plan says that one cannot fit.
    """
    gpu = settings.launch.gpu
    if gpu is None or settings.launch.force:
        return
    marks: dict[int, dict[str, Path]] = defaultdict(dict)
    wanted = [(it.processes, it.key, _shape(settings, it)) for it in asked]
    wanted += [(settings.launch.processes, key, _shape_of_stage(settings, key)) for key in stages]
    for processes, key, shape in wanted:
        mark = remembered / text_digest(shape, version)
        if not mark.exists():
            marks[processes][key] = mark
    for processes, new in marks.items():
        say(f"asking the plan whether {', '.join(new)} fit {processes} x {gpu}; that takes a moment, once")
        done = subprocess.run(
            [*command, "--config", "/dev/stdin", "--gpus", str(processes), "--json", "--check", *new],
            input=canonical(settings.model_dump(mode="json")),
            capture_output=True,
            text=True,
        )
        try:
            planned = Planned.model_validate_json(done.stdout)
        except ValidationError:
            why = done.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
            raise UserError(why or f"the plan failed: {' '.join(command)}") from None
        if planned.unknown:  # it knows nothing of such a model, and may tomorrow
            say(f"not checked against the plan: {planned.unknown}")
        for answer in planned.answers:
            if answer.fits:
                say(answer.said)
                new[answer.key].parent.mkdir(parents=True, exist_ok=True)
                new[answer.key].touch()
        if planned.refused:
            first, *others = planned.refused
            for line in others:
                say(line)
            raise UserError(first)


def _shape_of_stage(settings: Config, key: str) -> str:
    """The same for a stage: its own settings, and the adapters that samples are made with."""
    own: Section = settings
    for name in key.split("."):
        own = getattr(own, name)
    arms = [link.settings.model_dump(mode="json") for link in settings.train.links.values()]
    model = settings.autoencoder(TRAINED) if settings.vae.train and own is settings.vae.train else settings.base
    base = model.model_dump(mode="json", exclude={"pretrain": {"settings"}})
    sizes = [it.size for it in settings.clips.geometries]
    return canonical([key, own.model_dump(mode="json"), arms, base, sizes, settings.launch.gpu])


def _shape(settings: Config, asked: Asked) -> str:
    """All of the configuration that may shape the plan's answer."""
    training, losers = settings.trainings()[asked.key]
    base = settings.base.model_dump(mode="json", exclude={"pretrain": {"settings"}})
    sizes = [it.size for it in settings.clips.geometries]
    shape = [training.model_dump(mode="json"), losers, base, sizes, asked.processes, settings.launch.gpu]
    labels = [Path(it.path) for it in settings.pairs.sources.values() if it.kind == "labels" and it.path]
    if labels and losers:  # their files say which samples have none, if the objective does without
        step = settings.train.links[asked.key.removeprefix("train.arms.")].step
        files = [(str(path), path.stat().st_mtime_ns) for path in labels if path.is_file()]
        shape += [step.objective, step.model_dump(mode="json", include={"sources"}), files]
    return canonical(shape)
