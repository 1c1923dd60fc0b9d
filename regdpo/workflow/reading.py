"""What rules are read with: the configuration as it was named, and what the shells of jobs find."""

import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from regdpo.config import schema
from regdpo.config.autoencoder import TRAINED
from regdpo.config.locations import located
from regdpo.config.mistakes import refuse_twice
from regdpo.config.run_file import RUN, SUFFIX, RunFile
from regdpo.core import environment, portable
from regdpo.core.model_names import BASE, FOLDER, LINK, ModelName
from regdpo.data.captioner_registry import CAPTIONERS
from regdpo.evaluate.measures import MEASURES, measures_of

SHELL = (
    'stage_in() {{ "$1" "$REGDPO_SCRIPTS/$2.py" "${{@:3}}"; }}; stage() {{ stage_in python "$@"; }}; '
    "set -euo pipefail; "
)
"""Before every command. Rules call ``python``: the one that runs Snakemake, or that of the rule's conda environment.
``stage NAME`` is scripts/NAME.py, ``stage_in PYTHON NAME`` the same by another interpreter."""


def shell(settings: schema.Config) -> str:
    """``SHELL``, and the numbers of threads that portable numbers take, for which Snakemake sets those of the rule."""
    given = {name: value for name, value in portable.switches().items() if name in portable.ONE}
    return SHELL + (f"export {' '.join(map('='.join, given.items()))}; " if settings.portable else "")


def configuration(values: dict[str, Any], given: Any, load: Callable[[Path], dict[str, Any]]) -> schema.Config:
    """The configuration, its paths relative to the file that names each.

    Args:
        values: as Snakemake merged them. given: its settings of the configuration: files, and what the command line
            names. load: reads a file.

    Raises:
        UserError: it holds mistakes.
    """
    files = given.configfiles or [Path("config/config.yaml")]
    named = [(Path(file).parent, load(file)) for file in files]
    for file in map(Path, files):
        if file.suffix in (".yaml", ".yml") and file.is_file():
            refuse_twice(file.read_text(encoding="utf-8"), str(file))
    return schema.check(located(values, [*named, (Path(), given.config)], schema.Config))


def run_file(notes: Path, controls: bool) -> RunFile:
    """What this run knows: nothing yet in the controlling process, which gets a file to write it to; in a job what that
    found out, for it has to see the same environment and footage.

    Raises:
        UserError: the file cannot be read, or this is another environment.
    """
    if controls:
        os.environ[RUN] = str(notes / f"{uuid.uuid4().hex}{SUFFIX}")
    elif RUN in os.environ and Path(os.environ[RUN]).exists():
        run = RunFile.read(os.environ[RUN])
        environment.check_environment(run.environment)
        return run
    return RunFile()


def set_environment(root: Path, settings: schema.Config) -> None:
    """That of jobs' shells. ``python`` has what vision-language models need where their environment is not."""
    vision = settings.captions.python if shutil.which(settings.captions.python) else "python"
    os.environ.update(
        PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
        PYTHONPATH=str(root),
        REGDPO_SCRIPTS=str(root / "scripts"),
        REGDPO_VISION=vision,
        REGDPO_CAPTIONER=vision if CAPTIONERS[settings.captions.source].environment else "python",
    )
    if settings.portable:
        portable.adopt()


class ModelFiles:
    """Where the files of models lie that rules take, by their wildcards."""

    def __init__(self, settings: schema.Config):
        self.settings, self.results = settings, settings.paths.results

    def of(self, wildcards: Any) -> str:
        """The model.json behind a name among the models."""
        return f"{self.results}/{ModelName.parse(f'{wildcards.of}{wildcards.model}').file}"

    def of_generator(self, wildcards: Any) -> str:
        """The model.json of a generator."""
        if self.settings.negatives.named[wildcards.generator].model:
            return f"{self.results}/generators/{wildcards.generator}/model.json"
        of, link = by(wildcards.of)
        return f"{self.results}/{of}{f'train/{link}' if link else 'base'}/model.json"

    def autoencoder(self, wildcards: Any) -> str:
        """The model.json of an autoencoder. That of a base made here is there before the base is trained."""
        if wildcards.autoencoder == TRAINED:
            return f"{self.results}/vae/{TRAINED}/model.json"
        return self._untrained(wildcards.autoencoder)

    def autoencoder_to_train(self, wildcards: Any) -> str:
        """The model.json of the one that ``vae.train`` starts from."""
        assert self.settings.vae.train is not None
        return self._untrained(self.settings.vae.train.of)

    def _untrained(self, name: str) -> str:
        if name != BASE:
            return f"{self.results}/generators/{name}/model.json"
        return f"{self.results}/base/{'untrained' if self.settings.base.pretrain else 'model'}.json"

    def negatives(self, wildcards: Any) -> list[str]:
        """The shards of all losers for the pairs of a base model. What other models make is the same for all bases."""
        return [
            f"{self.results}/{'' if generator.model else wildcards.of}negatives/{name}/{shard}.parquet"
            for name, generator in self.settings.generators_in(wildcards.of).items()
            for shard in range(self.settings.negatives.shards)
        ]

    def of_candidates(self, wildcards: Any) -> Mapping[str, Any]:
        """What videos of prompts are made by, and of: the clips, unless the source has a list of prompts."""
        of, link = by(wildcards.of)
        tables = {"clips": "clips", "captions": "captions", "places": "places"}
        of_clips = not self.settings.pairs.ranked[wildcards.source].prompts
        return {
            "model": f"{self.results}/{of}{f'train/{link}' if link else 'base'}/model.json",
            **{key: f"{self.results}/{name}.parquet" if of_clips else [] for key, name in tables.items()},
        }

    def ranked(self, wildcards: Any, what: Literal["candidates", "scores"]) -> list[str]:
        """The shards of all videos that pairs are chosen from by score, or of those scores."""
        settings, found = self.settings, []
        for name, it in settings.candidates_in(wildcards.of).items():
            measures = measures_of(
                f"pairs.sources.{name}.candidates.score", it.score, settings.scores.on, settings.base.task
            )
            for shard in range(it.shards):
                place = f"{self.results}/{wildcards.of}candidates/{name}/{shard}"
                found += (
                    [f"{place}/{measure}.parquet" for measure in measures] if what == "scores" else [f"{place}.parquet"]
                )
        return found

    def encoded(self, wildcards: Any) -> Mapping[str, str]:
        """What is encoded, the pairs or the clips that a base made here learns from, and by which model."""
        of, _ = by(wildcards.of)
        made = wildcards.pairs == "gt"
        pairs, model = (wildcards.of, "base/model.json") if made else ("base/", "base/untrained.json")
        return {"pairs": f"{self.results}/{pairs}pairs.parquet", "model": f"{self.results}/{of}{model}"}

    def trained_on(self, wildcards: Any) -> Mapping[str, str]:
        """What a training starts from, and what it learns from."""
        link = self.settings.train.links[wildcards.arm]
        folder = "merged" if link.step.adapters == "merge" else "train"
        model = f"{folder}/{link.start}/seed{wildcards.seed}" if link.start else "base"
        latents = self.settings.folder_of(wildcards.of, wildcards.arm, int(wildcards.seed))
        return {
            "model": f"{self.results}/{wildcards.of}{model}/model.json",
            "latents": f"{self.results}/{latents}latents/gt.parquet",
        }

    def scored(self, wildcards: Any) -> Mapping[str, str]:
        """What a measure reads of a model."""
        if MEASURES[wildcards.measure].reads == "samples":
            samples = {"samples": f"{self.results}/{wildcards.of}samples/{wildcards.model}.parquet"}
            pairs = {"pairs": f"{self.results}/{wildcards.of}pairs.parquet"}
            return samples | (pairs if MEASURES[wildcards.measure].captions else {})
        return {"model": self.of(wildcards), "latents": f"{self.results}/{wildcards.of}latents/gt.parquet"}


def by(of: str) -> tuple[str, str]:
    """Of wildcard ``of`` the base model's folder, and the training whose negatives lie in it, as ``LINK/seedN``; none
    of the base's own."""
    found = re.fullmatch(rf"((?:{FOLDER.pattern}/)?)by/({LINK}/seed-?\d+)/", of)
    return (found[1], found[2]) if found else (of, "")
