"""What each stage reads of the configuration.

The workflow writes what its stages read to one file (regdpo/config/run_file.py), and a script reads its own part alone.
By hand, ``--config`` is the path of a whole configuration.
"""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from regdpo.config import schema as c
from regdpo.config.run_file import SUFFIX, RunFile
from regdpo.config.training import Terms, TrainSettings, annealed
from regdpo.core.errors import UserError
from regdpo.core.rows import REAL, Geometry
from regdpo.core.section import Section
from regdpo.data.pair_registry import PAIR_SOURCES
from regdpo.data.registry import WEIGHTS
from regdpo.evaluate.suites import SUITES
from regdpo.objectives.registry import OBJECTIVES


class ClipsStage(Section):
    videos: c.Videos
    clips: c.Clips

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        clips = _dump(config.clips, exclude={"shards", *(WEIGHTS - set(config.clips.weights))})
        if "shots" not in config.clips.models:
            del clips["shots"]["weights"]
        return {"videos": _dump(config.videos), "clips": clips}


class MergeStage(Section):
    same_footage: float
    pairs: c.Pairs  # of the same footage the held-out clips are kept
    known: list[str]  # glob patterns of sources the base model was trained on: they are in no split
    max_similar: float | None = None  # as in clips.filters

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        pairs = _dump(config.pairs, exclude={"limit", "sources"})
        limits = {key: getattr(config.clips.filters, key) for key in ("same_footage", "max_similar")}
        return {**limits, "pairs": pairs, "known": _known(config)}


class CaptionsStage(Section):
    captions: c.Captions
    videos_root: str  # where sidecars lie unless captions.root says otherwise
    videos_table: str | None = None  # whose column has the captions, if it has them

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        captions = _dump(config.captions, exclude={"python", "server", "too_long"})
        table = config.videos.table if config.captions.source == "table" else None
        return {"captions": captions, "videos_root": config.videos.root, "videos_table": table}


class CaptionServerStage(Section):
    """No rule's parameter: it shapes no caption."""

    server: c.CaptionServer | None

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        return {"server": _dump(config.captions.server) if config.captions.server else None}


class BaseStage(Section):
    base: c.Base
    geometries: list[Geometry]  # of the clips
    shift: float | None  # of the scheduler that a pipeline made here carries
    seed: int = 0  # of the weights of one made here

    @classmethod
    def of(cls, config: c.Config, seed: int = 0) -> dict[str, Any]:
        base = _dump(config.base, exclude={"seeds"})
        if base["pretrain"]:
            base["pretrain"]["settings"] = {"tuning": "full"}  # training has a stage of its own
        return {"base": base, "geometries": _geometries(config), "shift": config.negatives.sampling.shift, "seed": seed}


class GeneratorStage(BaseStage):
    """Another model that makes negatives."""

    key: str  # where it stands in the configuration

    @classmethod
    def of(cls, config: c.Config, generator: str) -> dict[str, Any]:  # type: ignore[override]
        model, key = config.generator(generator)
        base = _dump(model, exclude={"seeds"})
        return {"base": base, "geometries": _geometries(config), "shift": None, "key": key}


class Asked(Section):
    """Which negatives a generator makes."""

    generator: str
    per_clip: int
    begin: float  # where its share of the clips begins, on a circle of length 1 that their hashes lie on
    share: float


class NegativesStage(Asked):
    sampling: c.Sampling
    seed: int
    encode: c.Encode
    known: list[str]  # glob patterns of sources the base model was trained on: no negatives for those
    strength: tuple[float, float] | None = None  # from and to which sigma clips are noised to begin with
    too_long: str = "cut"  # what becomes of a caption that the text encoder does not read to its end

    @classmethod
    def of(cls, config: c.Config, generator: str) -> dict[str, Any]:
        negatives, names = config.negatives, list(config.negatives.named)
        one, before = negatives.named[generator], names[: names.index(generator)]
        return {
            "generator": generator,
            "sampling": _dump(negatives.sampling_of(generator)),
            "per_clip": one.per_clip or negatives.per_clip,
            "seed": negatives.seed if one.seed is None else one.seed,
            "begin": round(sum(negatives.named[name].share for name in before) % 1, 9),
            "share": one.share,
            "encode": _dump(config.clips.encode),
            "known": _known(config),
            "too_long": config.captions.too_long,
            **({"strength": list(one.strength)} if one.strength else {}),
        }


class PairsStage(Section):
    pairs: c.Pairs
    frames: int  # of the longest clip that there may be
    known: list[str]  # glob patterns of sources the base model was trained on: no pairs from those
    alone: bool = True  # whether all pairs are of this footage
    same_footage: float | None = None  # as in clips.filters, where there are pairs that others made
    ranked: dict[str, c.PairSource] = Field({})  # sources whose pairs are chosen by score

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        without: Any = {"candidates": {"shards", "prompts", "sampling", "seed", "limit"}}
        ranked = {name: _dump(config.pairs.sources[name], exclude=without) for name in config.pairs.ranked}
        return {
            **({"ranked": ranked} if ranked else {}),
            "pairs": _dump(config.pairs, exclude={"sources"}),
            "frames": max(it.frames for it in config.clips.geometries),
            "known": _known(config),
            "alone": (alone := list(config.pairs.sources) == ["gt"]),
            "same_footage": None if alone else config.clips.filters.same_footage,
        }


class SplitsStage(PairsStage):
    """What tells the split of a clip, and with a limit of the pairs, which are needed for those."""

    generators: list[Asked]

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        limited = config.negatives.named if config.pairs.limit else {}
        stages = [NegativesStage.of(config, name) for name in limited]
        asked = [{key: stage[key] for key in Asked.model_fields} for stage in stages]
        return {**_unranked(config), "generators": asked}


class ImportsStage(Section):
    sources: dict[str, c.PairSource]
    clips: c.Clips  # what either half is brought to

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        sources = {name: _dump(it) for name, it in config.pairs.sources.items() if PAIR_SOURCES[it.kind].imported}
        return {
            "sources": sources,
            "clips": _dump(config.clips, exclude={"shards", "filters", "remove_bars", *WEIGHTS}),
        }


class CandidatesStage(Section):
    """What a model makes of the prompts of a source."""

    source: str
    candidates: c.Candidates
    sampling: c.Sampling
    encode: c.Encode
    geometry: Geometry  # of videos of prompts that are of no clip
    pairs: c.Pairs  # which split a prompt is in that is of no clip
    known: list[str]  # glob patterns of sources the base model was trained on: no videos for those

    @classmethod
    def of(cls, config: c.Config, source: str) -> dict[str, Any]:
        of_pairs = {"seed", "validation", "test"} if config.pairs.ranked[source].prompts else set[str]()
        candidates = _dump(config.pairs.ranked[source], include={"count", "prompts", "limit", "seed"})
        return {
            "source": source,
            "candidates": {**candidates, "score": {"any": 1.0}},
            "sampling": _dump(config.sampling_of_candidates(source)),
            "encode": _dump(config.clips.encode),
            "geometry": _geometries(config)[0],
            "pairs": _dump(config.pairs, include=of_pairs),
            "known": _known(config),
        }


class MinimumStage(Section):
    """No rule's parameter: it shapes a line for the reader."""

    minimum: c.Minimum
    split: str

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        return {"minimum": _dump(config.report.minimum), "split": config.samples.split}


class FunnelStage(PairsStage):
    """The page of the clips counts the splits too."""

    filters: c.Filters

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        return {**_unranked(config), "filters": _dump(config.clips.filters)}


class LatentsStage(Section):
    latents: c.Latents
    too_long: str = "cut"  # what becomes of a caption that the text encoder does not read to its end

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        return {"latents": _dump(config.latents, exclude={"shards"}), "too_long": config.captions.too_long}


class TrainStage(Terms):
    objective: str  # pretrain, or an arm's objective
    seed: int
    settings: TrainSettings
    sources: dict[str, tuple[float, float]] = Field({})  # name -> share of the first step and of the last; empty: all
    sizes: dict[str, tuple[float, float]] = Field({})  # the same of FRAMESxHEIGHTxWIDTH

    def of_loss(self) -> dict[str, Any]:
        """The terms that the objective's function takes."""
        terms = OBJECTIVES[self.objective].terms
        return {name: value for name, value in self.given().items() if terms[name].of_loss}

    @classmethod
    def of(cls, config: c.Config, arm: str, seed: int) -> dict[str, Any]:
        if arm == "pretrain":
            pretrain = config.base.pretrain
            assert pretrain is not None
            return {"objective": "pretrain", "seed": seed, "settings": _training(pretrain.settings)}
        if arm not in config.train.links:
            raise UserError(f"train.arms: there is no {arm}; there are {', '.join(config.train.links)}")
        link = config.train.links[arm]
        return {
            "objective": link.step.objective,
            **link.step.given(),
            **{key: given for key in ("sources", "sizes") if (given := annealed(getattr(link.step, key)))},
            "seed": seed,
            "settings": _training(link.settings),
        }


class WeightsStage(Section):
    geometries: list[Geometry]

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        return {"geometries": _geometries(config)}


class SamplesStage(Section):
    samples: c.Samples
    encode: c.Encode
    ranked: list[str] = Field([])  # sources of pairs whose winners are no clips

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        ranked = list(config.pairs.ranked)
        made = {"ranked": ranked} if ranked else {}
        return {"samples": _dump(config.samples), "encode": _dump(config.clips.encode), **made}


class ErrorsStage(Section):
    error: c.HeldOutError
    split: str

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        return {"error": _dump(config.scores.error), "split": config.samples.split}


class VBenchStage(Section):
    dimensions: list[str]
    omniscore: dict[str, float] | None = None  # weights of dimensions; none: it is not made

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        omniscore = config.scores.omniscore
        made = {"omniscore": omniscore.weighing} if omniscore else {}
        return {"dimensions": config.scores.vbench.measured, **made}


class SuiteStage(Section):
    """What the scores of a suite are of."""

    suite: str
    dimensions: list[str]
    static: list[str]  # dimensions of which only videos count that stand still
    limit: int | None  # most prompts of a dimension
    seed: int
    geometry: Geometry  # of its videos

    @classmethod
    def of(cls, config: c.Config, suite: str) -> dict[str, Any]:
        vbench, declared = config.scores.vbench, SUITES[suite]
        return {
            "suite": suite,
            "dimensions": list(declared.dimensions),
            "static": list(declared.static) if vbench.static else [],
            "limit": vbench.prompts,
            "seed": vbench.seed,
            "geometry": _geometries(config)[0],
        }


class SuiteTotalsStage(SuiteStage):
    """How its totals have intervals."""

    bootstrap: c.Bootstrap

    @classmethod
    def of(cls, config: c.Config, suite: str) -> dict[str, Any]:
        return {**SuiteStage.of(config, suite), "bootstrap": _dump(config.scores.bootstrap)}


class SuiteSamplesStage(SuiteStage):
    """How its videos are rendered."""

    sampling: c.Sampling
    encode: c.Encode

    @classmethod
    def of(cls, config: c.Config, suite: str) -> dict[str, Any]:
        how = {"sampling": _dump(config.samples.sampling), "encode": _dump(config.clips.encode)}
        return {**SuiteStage.of(config, suite), **how}


class VaeStage(Section):
    vae: c.Reconstruction
    split: str
    precision: c.Precision  # of encoding, as of the latents that are trained on
    tiling: c.Tiling

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        how = {"precision": config.latents.precision, "tiling": config.latents.tiling}
        return {"vae": _dump(config.vae, exclude={"report", "train"}), "split": config.samples.split, **how}


class TrainVaeStage(Section):
    """Of ``vae.train``, without what shapes no result."""

    settings: c.AutoencoderTraining
    lpips: c.Lpips | None = None  # of its perceptual term

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        training = config.vae.train
        if training is None:
            raise UserError("vae.train: is empty, so no autoencoder is to be trained")
        settings = _dump(training, exclude={"of", "checkpoint_every", "keep", "eval_every"})
        lpips = config.vae.lpips if training.loss.perceptual else None
        return {"settings": settings, **({"lpips": _dump(lpips)} if lpips else {})}


class VaeTotalsStage(Section):
    bootstrap: c.Bootstrap

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        return {"bootstrap": _dump(config.scores.bootstrap)}


class AnswersStage(Section):
    attention: float
    ratings: str  # where answers lie, which count by content

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        return {"attention": config.rating.attention, "ratings": config.paths.ratings}


class JudgeStage(Section):
    """Of a measure that a section of ``scores`` turns on: that section alone."""

    scores: c.Scores

    @classmethod
    def of(cls, config: c.Config, key: str) -> dict[str, Any]:
        return {"scores": {key: _dump(getattr(config.scores, key))}}


class RateStage(Section):
    """No rule's parameter: the page makes nothing that could be stale."""

    rating: c.Rating
    task: str
    arms: list[str]
    models: list[str]  # that there are samples of, with the real clips
    encode: c.Encode
    paths: c.Paths

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        return {
            "rating": _dump(config.rating),
            "task": config.base.task,
            "arms": list(config.train.arms),
            "models": [REAL, *config.models],
            "encode": _dump(config.clips.encode),
            "paths": _dump(config.paths),
        }


class ReportStage(Section):
    """The page shows the whole configuration, but for where things lie and who runs them."""

    config: dict[str, Any]
    arms: list[str]  # their order, which canonical JSON does not keep

    @classmethod
    def of(cls, config: c.Config) -> dict[str, Any]:
        without: Any = {"paths": True, "launch": True, "captions": {"server", "root", "python"}}
        without["scores"] = {"vbench": {"python"}}
        shown = config.model_dump(mode="json", exclude=without)
        shown["videos"] |= {key: "…" for key in ("root", "table") if shown["videos"][key]}
        return {"config": shown, "arms": list(config.train.arms)}

    def ordered(self) -> dict[str, Any]:
        """The configuration with its arms in the order they were written in."""
        train = self.config["train"]
        return {**self.config, "train": {**train, "arms": {name: train["arms"][name] for name in self.arms}}}


OF_ONE = (
    *(BaseStage, TrainStage, NegativesStage, GeneratorStage, CandidatesStage),
    *(JudgeStage, SuiteStage, SuiteTotalsStage, SuiteSamplesStage, TrainVaeStage),
)
"""Those that are asked for by seed, by arm and seed, by generator, by a measure's section, by suite, or not at all."""
STAGES: tuple[Any, ...] = tuple(
    it for it in list(vars().values()) if isinstance(it, type) and hasattr(it, "of") and it not in OF_ONE
)
"""All others."""
S = TypeVar("S", bound=Section)


def part_name(stage: type[Section], *which: Any) -> str:
    """Name of a stage's part, of a training by its arm and seed."""
    return " ".join([stage.__name__, *map(str, which)])


def parts(config: c.Config) -> dict[str, dict[str, Any]]:
    """What every stage reads, by ``part_name``."""
    found = {part_name(stage): stage.of(config) for stage in STAGES}
    trained = [(link, seed) for link in config.train.links for seed in config.train.seeds]
    for seed in config.base.seeds:
        found[part_name(BaseStage, seed)] = BaseStage.of(config, seed)
        if config.base.pretrain:
            trained.append(("pretrain", seed))
    for name, generator in config.negatives.named.items():
        found[part_name(NegativesStage, name)] = NegativesStage.of(config, name)
        if generator.model:
            found[part_name(GeneratorStage, name)] = GeneratorStage.of(config, name)
    for name in config.pairs.ranked:
        found[part_name(CandidatesStage, name)] = CandidatesStage.of(config, name)
    for name in config.scores.judges:
        found[part_name(JudgeStage, name)] = JudgeStage.of(config, name)
    if config.vae.train:
        found[part_name(TrainVaeStage)] = TrainVaeStage.of(config)
    for suite in config.scores.vbench.suites:
        found |= {
            part_name(stage, suite): stage.of(config, suite)
            for stage in (SuiteStage, SuiteTotalsStage, SuiteSamplesStage)
        }
    return found | {part_name(TrainStage, *which): TrainStage.of(config, *which) for which in trained}


def read(stage: type[S], path: str | Path, *which: Any) -> S:
    """The stage's part of the configuration.

    Args:
        stage: one of ``STAGES`` or ``OF_ONE``.
        path: of a whole configuration, or of a run's file.
        which: what ``stage.of`` wants beside the configuration (seed of a base, arm and seed of a training, name of a
            generator, a measure's section).

    Raises:
        UserError: it cannot be read or does not fit.
    """
    if Path(path).suffix != SUFFIX:
        return stage.model_validate(stage.of(c.load(path), *which))  # type: ignore[attr-defined]
    name, run = part_name(stage, *which), RunFile.read(path)
    if name not in run.parts:
        raise UserError(f"{path}: holds no {name}; start Snakemake again")
    try:
        return stage.model_validate(run.parts[name])
    except ValidationError as error:
        item = error.errors()[0]
        raise UserError(f"{path}: {name}.{'.'.join(map(str, item['loc']))}: {item['msg']}") from None


def portable(path: str | Path) -> bool:
    """Whether a configuration, or a run's file, asks for portable numbers.

    Raises:
        UserError: it cannot be read.
    """
    return RunFile.read(path).portable if Path(path).suffix == SUFFIX else c.load(path).portable


def _dump(section: Section, include: set[str] | None = None, exclude: set[str] | None = None) -> dict[str, Any]:
    return section.model_dump(mode="json", include=include, exclude=exclude)


def _geometries(config: c.Config) -> list[dict[str, Any]]:
    return [_dump(geometry) for geometry in config.clips.geometries]


def _unranked(config: c.Config) -> dict[str, Any]:
    """What the pairs stage reads, without what has nothing to do with clips."""
    return {key: value for key, value in PairsStage.of(config).items() if key != "ranked"}


def _known(config: c.Config) -> list[str]:
    return list(config.base.pretrain.sources) if config.base.pretrain else []


def _training(settings: TrainSettings) -> dict[str, Any]:
    """Settings without those that change no result: how often to save, and how ranks share the work.

    What is empty is left out, so that a new key which is empty by default makes no training stale.
    """
    without = {"checkpoint_every", "keep", "parallel", "micro_batch"}
    if settings.export == "last":
        without.add("eval_every")
    return settings.model_dump(mode="json", exclude=without, exclude_none=True)
