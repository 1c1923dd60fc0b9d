"""The configuration: pydantic models that are its one source.

The sections are declared in the modules beside this one, and are taken from here. The JSON Schema which Snakemake
validates (config/config.schema.json) and the tables in config/README.md are generated from them.
regdpo/config/stage_inputs.py gives the part that one stage reads; a rule passes exactly that part to its script, so
what a stage has not been given cannot shape its result.
"""

import difflib
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from regdpo.config.autoencoder import TRAINED, AutoencoderTraining
from regdpo.config.base import Base, Pretrain, TinyCodec, TinyWan
from regdpo.config.captions import Captions, CaptionServer
from regdpo.config.evaluation import (
    Bootstrap,
    HeldOutError,
    Lpips,
    Minimum,
    Rating,
    Reconstruction,
    Report,
    Samples,
    Scores,
    VBench,
)
from regdpo.config.footage import (
    Aesthetic,
    Bucket,
    Clips,
    Dover,
    Embeddings,
    Encode,
    Filters,
    Limits,
    Ocr,
    Shots,
    Videos,
    Weights,
)
from regdpo.config.launch import Launch
from regdpo.config.locations import located
from regdpo.config.mistakes import lines, overridden, refuse_twice
from regdpo.config.pairs import BASE, Candidates, Generator, Latents, Negatives, Pairs, PairSource, PairWeights
from regdpo.config.sampling import Cache, Precision, Sampling, Solver, Tiling
from regdpo.config.training import Train, TrainSettings
from regdpo.core import portable
from regdpo.core.errors import UserError
from regdpo.core.section import Section
from regdpo.evaluate.suites import SUITES
from regdpo.models.registry import FAMILIES, in_comfyui
from regdpo.objectives.registry import OBJECTIVES

__all__ = [
    "BASE",
    "Aesthetic",
    "AutoencoderTraining",
    "Base",
    "Bootstrap",
    "Bucket",
    "Cache",
    "Candidates",
    "CaptionServer",
    "Captions",
    "Clips",
    "Config",
    "Dover",
    "Embeddings",
    "Encode",
    "Filters",
    "Generator",
    "HeldOutError",
    "Latents",
    "Launch",
    "Limits",
    "Lpips",
    "Minimum",
    "Negatives",
    "Ocr",
    "PairSource",
    "PairWeights",
    "Pairs",
    "Paths",
    "Precision",
    "Pretrain",
    "Rating",
    "Reconstruction",
    "Report",
    "Samples",
    "Sampling",
    "Scores",
    "Shots",
    "Solver",
    "Tiling",
    "TinyCodec",
    "TinyWan",
    "Train",
    "TrainSettings",
    "VBench",
    "Videos",
    "Weights",
    "check",
    "load",
    "read",
]


class Paths(Section):
    """Where results lie, relative to the working directory; all other paths are so to the file that names them."""

    results: str = Field(
        "results",
        pattern=r"^[^{}\x00-\x1f]+$",
        description="Manifests, scores and the report: small, declared to Snakemake, which wants no braces.",
    )
    store: str = Field(
        "store", min_length=1, description="Clips, latents, models: large, kept by content, never deleted by a rerun."
    )
    ratings: str = Field(
        "ratings",
        min_length=1,
        description="What people answered: the database of the rating page and the table made of it. No rerun touches "
        "it; on a disk of the machine that serves the page.",
    )


class Config(Section):
    """Configuration of the workflow."""

    deterministic: Literal["auto", "portable"] | bool = Field(
        "auto",
        description="Which bits are always the same. `portable`: on the CPU those of all x86-64 machines with AVX2 "
        "(docs/reference/portable.md has what it costs), on a GPU as `on`. `on`: on the CPU those of one machine, at "
        "full speed, and on a GPU only deterministic kernels, so that a resumed training is equal bit for bit. `off`: "
        "on a GPU whatever is fastest. `auto`: `portable` with `launch.device: cpu` where the processor can, else "
        "`off`.",
    )
    paths: Paths = Paths()
    videos: Videos
    clips: Clips = Clips()
    captions: Captions = Captions()
    base: Base
    negatives: Negatives = Negatives()
    pairs: Pairs = Pairs()
    latents: Latents = Latents()
    train: Train
    samples: Samples = Samples()
    scores: Scores = Scores()
    vae: Reconstruction = Reconstruction()
    rating: Rating = Rating()
    report: Report = Report()
    launch: Launch = Launch()

    @model_validator(mode="after")
    def _captions_are_somewhere(self) -> Self:
        if self.captions.source == "table" and not self.videos.table:
            raise ValueError("captions.source: `table` needs `videos.table`")
        return self

    @model_validator(mode="after")
    def _who_is_compared(self) -> Self:
        there, seen = ["base", "real", *self.train.arms], set[frozenset[str]]()
        for both in self.rating.comparisons:
            if unknown := [name for name in both if name not in there]:
                raise ValueError(f"rating.comparisons: there is no {unknown[0]}; there are {', '.join(there)}")
            if len({*both}) < 2 or frozenset(both) in seen:
                raise ValueError(f"rating.comparisons: [{', '.join(both)}] compares nothing, or occurs twice")
            seen.add(frozenset(both))
        return self

    @model_validator(mode="after")
    def _steps_take_what_there_is(self) -> Self:
        sizes = ["x".join(map(str, it.size)) for it in self.clips.geometries]
        for link in self.train.links.values():
            for key, given, there in (
                ("sources", link.step.sources, [*self.pairs.sources, *self._of_generators]),
                ("sizes", link.step.sizes, sizes),
            ):
                if unknown := [name for name in given if name not in there]:
                    raise ValueError(f"train.{link.key}.{key}: there is no {unknown[0]}; there are {', '.join(there)}")
            made = {"gt", *self._of_generators, *self.pairs.ranked}
            if link.by and link.step.sources and not made & {*link.step.sources}:
                raise ValueError(
                    f"train.{link.key}.generator: it makes losers of `gt` and videos of `best_of_n`, and its `sources` "
                    "are of neither"
                )
        return self

    @model_validator(mode="after")
    def _shifts_are_known(self) -> Self:
        for name, (settings, _) in self.trainings().items():
            if settings.timesteps.shift == "by_size" and not FAMILIES[self.base.family].shifts_by_size:
                some = ", ".join(family for family, it in FAMILIES.items() if it.shifts_by_size)
                raise ValueError(
                    f"{name}.settings.timesteps.shift: `by_size` is of {some}; {self.base.family} has none, give a "
                    "number"
                )
        return self

    @model_validator(mode="after")
    def _rounds_have_negatives(self) -> Self:
        for link in self.train.links.values():
            if link.step.generator == BASE:
                continue
            if "gt" not in self.pairs.sources and not self.pairs.ranked:
                raise ValueError(
                    f"train.{link.key}.generator: it makes losers of `gt` and videos of `best_of_n`, and pairs.sources "
                    "has neither"
                )
            if not self.pairs.ranked and all(it.model for it in self.negatives.named.values()):
                raise ValueError(
                    f"train.{link.key}.generator: all of negatives.generators are other models, and would make the "
                    "same again; add one without `model`"
                )
        return self

    @model_validator(mode="after")
    def _an_autoencoder_can_be_trained(self) -> Self:
        training = self.vae.train
        if training is None:
            return self
        if training.loss.perceptual and not self.vae.lpips:
            raise ValueError("vae.train.loss.perceptual: needs the weights of vae.lpips; name them, or set it to 0")
        there = [name for name in self.autoencoders if name != TRAINED]
        if training.of not in there:
            raise ValueError(f"vae.train.of: there is no {training.of}; there are {', '.join(there)}")
        if TRAINED in self.negatives.named:
            raise ValueError(f"negatives.generators.{TRAINED}: that name is taken by what vae.train trains")
        model, key = (self.base, "base") if training.of == BASE else self.generator(training.of)
        known = [name for name, it in FAMILIES.items() if it.autoencoder_trains]
        if model.pretrain or model.family not in known:
            what = "a codec that is fitted" if model.pretrain else f"that of {model.family}"
            raise ValueError(
                f"vae.train.of: the autoencoder of {key} is {what}, which is not trained here; name a checkpoint of "
                f"{', '.join(known)} (base.model or negatives.generators)"
            )
        if training.batch % self.launch.processes:
            raise ValueError(
                f"vae.train.batch: {training.batch} does not divide over {self.launch.processes} ranks "
                "(launch.processes)"
            )
        return self

    @model_validator(mode="after")
    def _suites_are_of_the_task(self) -> Self:
        if other := [name for name in self.scores.vbench.suites if SUITES[name].task != self.base.task]:
            raise ValueError(f"scores.vbench.suites: {other[0]} is for other models than base.task {self.base.task}")
        return self

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        least = self.clips.short_side
        if least and any(least < min(it.width, it.height) for it in self.clips.geometries):
            raise ValueError("clips.short_side: is smaller than the crop")
        for name, (settings, losers) in self.trainings().items():
            if reason := settings.parallel.misfit(self.launch.processes, losers, settings.batch):
                raise ValueError(f"{name}: {reason} (launch.processes)")
        if "comfyui" in self.train.export_formats:
            if self.base.family not in in_comfyui():
                raise ValueError(
                    f"train.export_formats: comfyui's names of {self.base.family} are not known, only those of "
                    f"{', '.join(in_comfyui())}; leave it out"
                )
            if not self.lora_arms:
                raise ValueError(
                    "train.export_formats: comfyui is for adapters, and no arm has tuning `lora`; leave it out"
                )
        asked = {"samples": (self.samples.sampling, self.base, "base")}
        for name in self.negatives.named:
            model, key = self.generator(name)
            where = f"negatives.generators.{name}" if self.negatives.generators else "negatives"
            asked[where] = self.negatives.sampling_of(name), model, key
        for name, it in self.pairs.ranked.items():
            if it.prompts and self.base.task != "t2v":
                raise ValueError(
                    f"pairs.sources.{name}.candidates.prompts: the base makes videos from first frames, which prompts "
                    "do not have; leave it out, and the clips are asked for"
                )
            asked[f"pairs.sources.{name}.candidates"] = self.sampling_of_candidates(name), self.base, "base"
        for where, (sampling, model, key) in asked.items():
            if isinstance(sampling.guidance, dict) and not model.expert:
                raise ValueError(f"{where}.sampling.guidance: a scale for each expert needs `{key}.expert`")
            if reason := sampling.misfit(model.family):
                raise ValueError(f"{where}.sampling.{reason}")
        return self

    @property
    def portable(self) -> bool:
        """Whether numbers made on the CPU are to be those of other machines too."""
        if self.deterministic == "auto":
            return self.launch.device == "cpu" and portable.possible()
        return self.deterministic == "portable"

    @property
    def fixed_kernels(self) -> bool:
        """Whether a GPU is to use deterministic kernels alone."""
        return self.deterministic in (True, "portable")

    @property
    def footage(self) -> bool:
        """Whether ``videos`` are used: for pairs, or for a base that is made here."""
        return self.paired_footage or self.base.pretrain is not None

    @property
    def paired_footage(self) -> bool:
        """Whether pairs are made of clips or of their captions."""
        return "gt" in self.pairs.sources or any(not it.prompts for it in self.pairs.ranked.values())

    def sampling_of_candidates(self, source: str) -> Sampling:
        """How a source of kind `best_of_n` makes its videos."""
        key = f"pairs.sources.{source}.candidates.sampling"
        return overridden(self.negatives.sampling, self.pairs.ranked[source].sampling, key)

    @property
    def lora_arms(self) -> list[str]:
        """Trainings of arms that have adapters."""
        return [name for name, link in self.train.links.items() if link.adapted]

    def generator(self, name: str) -> tuple[Base, str]:
        """The model that makes negatives by a name, and the key that it stands under."""
        given = self.negatives.named[name]
        if not given.model:
            return self.base, "base"
        asked = given.model_dump(include={"model", "revision", "expert", "text_length"})
        whole = {"family": given.family or self.base.family, "task": given.task or self.base.task, **asked}
        return Base.model_validate(whole), f"negatives.generators.{name}"

    @property
    def autoencoders(self) -> list[str]:
        """The base, generators with a model of their own, and what ``vae.train`` trains."""
        named = [BASE, *(name for name, it in self.negatives.named.items() if it.model)]
        return [*named, *([TRAINED] if self.vae.train else [])]

    def autoencoder(self, name: str) -> Base:
        """The model whose autoencoder has a name among ``autoencoders``."""
        if name == TRAINED:
            assert self.vae.train is not None
            name = self.vae.train.of
        return self.base if name == BASE else self.generator(name)[0]

    @property
    def trained(self) -> int:
        """Trainings of each link of an arm."""
        return len(self.base.seeds) * len(self.train.seeds)

    @property
    def models(self) -> list[str]:
        """Names of all models that are compared, of each base model the base first."""
        trained = [f"{link}/seed{seed}" for link in self.train.links for seed in self.train.seeds]
        return [f"{of}{name}" for of in self.base.folders for name in (BASE, *trained)]

    def folder_of(self, of: str, link: str, seed: int) -> str:
        """The folder below the results of the negatives, pairs and latents that a training reads, with a slash: its
        base model's, or that of what its start makes.

        Args:
            of: of the base model.
        """
        it = self.train.links[link]
        return f"{of}by/{it.by}/seed{seed}/" if it.by else of

    @property
    def _of_generators(self) -> dict[str, str]:
        """Names of the parts of source ``gt`` -> of the generator that made the losers."""
        return {f"gt.{name}": name for name in self.negatives.named} if "gt" in self.pairs.sources else {}

    def generators_in(self, folder: str) -> dict[str, Generator]:
        """The generators whose losers are wanted in a folder of negatives."""
        wanted = self._wanted_in(folder)
        return {name: it for name, it in self.negatives.named.items() if {"gt", f"gt.{name}"} & wanted}

    def candidates_in(self, folder: str) -> dict[str, Candidates]:
        """The sources of kind `best_of_n` whose videos are wanted in such a folder."""
        wanted = self._wanted_in(folder)
        return {name: it for name, it in self.pairs.ranked.items() if name in wanted}

    def times_made(self, name: str) -> int:
        """In how many folders of negatives the losers of a generator, or the videos of a source, are made."""
        folders = [*self.base.folders, *self.rounds]
        return sum(name in {**self.generators_in(folder), **self.candidates_in(folder)} for folder in folders)

    def _wanted_in(self, folder: str) -> set[str]:
        """The sources whose pairs are wanted in a folder of negatives: all in a base model's, and in one of ``rounds``
        those that its trainings take."""
        every = {"gt", *self.pairs.sources}
        if folder not in self.rounds:
            return every
        reading = [
            link.step
            for link in self.train.links.values()
            if any(
                self.folder_of(of, link.name, seed) == folder for of in self.base.folders for seed in self.train.seeds
            )
        ]
        return {name for step in reading for name in step.sources or every}

    @property
    def rounds(self) -> list[str]:
        """All such folders of what a trained model makes."""
        fresh = [link.name for link in self.train.links.values() if link.by]
        every = [self.folder_of(of, it, seed) for of in self.base.folders for it in fresh for seed in self.train.seeds]
        return list(dict.fromkeys(every))

    @property
    def generations(self) -> int:
        """Times that losers are made of all clips: by every base model, and for every round."""
        return len(self.base.seeds) + len(self.rounds)

    def trainings(self) -> dict[str, tuple[TrainSettings, bool]]:
        """Key of every training -> its settings, and whether it has losers."""
        found = {
            f"train.arms.{name}": (link.settings, OBJECTIVES[link.step.objective].paired)
            for name, link in self.train.links.items()
        }
        if self.base.pretrain:
            found["base.pretrain"] = self.base.pretrain.settings, False
        return found


def check(values: dict[str, Any], origin: str = "config") -> Config:
    """Validate a whole configuration.

    Raises:
        UserError: one line a mistake, each with the path of its key.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{origin}: " + "; ".join(lines(error, Config))) from None


def load(path: str | Path) -> Config:
    """Read and validate a YAML file; its paths are relative to it.

    Raises:
        UserError: the file is missing, is not YAML, or holds mistakes.
    """
    values = read(path)
    if Path(path).is_file():  # not a pipe
        values = located(values, [(Path(path).parent, values)], Config)
    return check(values, str(path))


def read(path: str | Path) -> dict[str, Any]:
    """A configuration as it is written.

    Raises:
        UserError: the file is missing or is not YAML, with line and column.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        values = yaml.safe_load(text)
        refuse_twice(text, str(path))
    except FileNotFoundError:
        there = [other.name for other in Path(path).parent.glob("*.y*ml")]
        alike = difflib.get_close_matches(Path(path).name, there, n=1)
        meant = f"; did you mean {Path(path).with_name(alike[0])}?" if alike else ""
        raise UserError(f"{path}: there is no such configuration{meant}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8") from None
    except RecursionError:
        raise UserError(f"{path}: lists or keys lie too deep within one another") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        about = " ".join(f"{error.problem or ''}{f' {error.context}' if error.context else ''}".split())
        raise UserError(f"{path}{where}: is not YAML ({about})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: {'is empty' if values is None else 'holds no keys'}")
    return values
