"""The sections of the configuration for negatives, pairs and latents."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from regdpo.config.base import FamilyName
from regdpo.config.mistakes import overridden
from regdpo.config.sampling import Precision, Sampling, Tiling
from regdpo.core.digests import canonical
from regdpo.core.section import Count, InputPath, Name, Positive, Section, Share
from regdpo.data.pair_registry import PAIR_SOURCES

Sigma = Annotated[float, Field(gt=0, le=1)]


class Generator(Section):
    """One model that makes negatives: the base, or another checkpoint."""

    family: FamilyName | None = Field(None, description="Architecture of `model`; empty: the base's.")
    task: Literal["i2v", "t2v"] | None = Field(
        None, description="Condition of `model`: caption and first frame, or caption alone; empty: the base's."
    )
    model: Annotated[str, InputPath(always=False)] | None = Field(
        None, description="diffusers checkpoint: hub name or local folder; empty: the base model."
    )
    revision: str | None = Field(None, description="Pinned revision; needed for a hub name.")
    expert: Literal["high", "low"] | None = Field(None, description="Of a checkpoint with two experts either.")
    text_length: Count | None = Field(None, description="Tokens that a caption is padded to; as `base.text_length`.")
    sampling: dict[str, Any] = Field({}, description="Keys of `negatives.sampling` that this generator overrides.")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="Of the clips, by hash of their id. Shares are laid end to end: two of 0.5 part the clips between "
        "them, one of 1 takes all.",
    )
    per_clip: Count | None = Field(None, description="In the place of `negatives.per_clip`.")
    seed: int | None = Field(None, description="In the place of `negatives.seed`.")
    strength: tuple[Sigma, Sigma] | None = Field(
        None,
        description="Begin with the clip itself, noised to a sigma that is drawn between these two for each negative: "
        "`[0.4, 0.8]`. The sampler goes on from its nearest step. Both halves then share layout and motion; empty: "
        "begin with noise.",
    )

    @model_validator(mode="after")
    def _model_is_pinned(self) -> Self:
        if self.model and not self.revision and not Path(self.model).exists():
            raise ValueError(f"`revision` is missing: pin the revision of {self.model}")
        if not self.model and (self.family or self.task or self.revision or self.expert or self.text_length):
            raise ValueError("without `model` it is the base, of which only `sampling` and what follows can differ")
        if self.strength and self.strength[0] > self.strength[1]:
            raise ValueError("`strength` goes from the smaller sigma to the larger")
        return self


BASE = "base"
"""The generator that is there where none is named."""


class Negatives(Section):
    """Losers: what the base model makes of the clip's caption (and first frame), or what several models do."""

    sampling: Sampling = Sampling()
    generators: dict[Name, Generator] = Field(
        {},
        description="Several models, by names of your own (docs/how-to/negatives.md); empty: the base alone, by the "
        "name `base`.",
    )
    per_clip: Count = Field(1, description="Negatives a clip and generator, each with its own seed.")
    seed: int = Field(0, description="Every row's seed derives from this one and the clip's id.")
    shards: Count = Field(8, description="Jobs of a generator.")

    @model_validator(mode="after")
    def _generators_differ(self) -> Self:
        seen: dict[str, str] = {}
        for name, generator in self.generators.items():
            if name == BASE and generator.model:
                raise ValueError(f"generators.{BASE}: that name is for the base model; give {generator.model} another")
            same = canonical([generator.model_dump(exclude={"sampling"}), self.sampling_of(name).model_dump()])
            if same in seen:
                raise ValueError(f"generators.{name}: makes the same videos as {seen[same]}; give it a seed of its own")
            seen[same] = name
        return self

    @property
    def named(self) -> dict[str, Generator]:
        """Name -> generator, the base where none is named."""
        return self.generators or {BASE: Generator()}

    @property
    def a_clip(self) -> float:
        """Negatives that a clip gets on average."""
        return sum(it.share * (it.per_clip or self.per_clip) for it in self.named.values())

    def sampling_of(self, name: str) -> Sampling:
        """The shared sampling with a generator's overrides."""
        return overridden(self.sampling, self.named[name].sampling, f"generators.{name}.sampling")


if TYPE_CHECKING:
    PairKindName = str
else:
    PairKindName = Literal[tuple(PAIR_SOURCES)]


class Candidates(Section):
    """What a model makes of each prompt, and which of it become winner and loser."""

    count: int = Field(4, ge=2, description="Videos a prompt, each with its own seed.")
    prompts: Annotated[str, InputPath()] | None = Field(
        None,
        description="A text file with one prompt a line, or a CSV or parquet table with a column `prompt` (as "
        "VidProM's); each prompt counts once, and its hash says in which split. For a base of task t2v. Empty: the "
        "captions (and first frames) of the clips of `videos`.",
    )
    limit: Count | None = Field(None, description="Most prompts, chosen by seed; empty: all.")
    seed: int = Field(0, description="Every video's seed derives from this one, its prompt and its number.")
    sampling: dict[str, Any] = Field({}, description="Keys of `negatives.sampling` that are other here.")
    score: dict[Name, float] = Field(
        min_length=1,
        description="Metric -> weight, of measures of samples (docs/reference/scores.md): `{omniscore: 1}`, or a sum.",
    )
    scale: Literal["as_is", "min_max", "z"] = Field(
        "as_is",
        description="Each metric before it is weighed: as it is, from 0 to 1 between the least and the greatest of all "
        "videos of the source, or in standard deviations from their mean.",
    )
    policy: Literal["best_worst", "best_random", "adjacent"] | list[tuple[int, int] | int] = Field(
        "best_worst",
        description="Which of a prompt's videos, ordered by score, make pairs: the best and the worst; the best and "
        "one drawn from the others; each and the next; two ranks, such as `[0, 2]` (0 is the best); or a list of such.",
    )
    margin: float = Field(0.0, ge=0, description="Least difference of both scores. Equal scores make no pair.")
    least: float | None = Field(None, description="Least score of a winner.")
    most: float | None = Field(None, description="Greatest score of a loser.")
    shards: Count = Field(8, description="Jobs.")

    @model_validator(mode="after")
    def _ranks_are_there(self) -> Self:
        for better, worse in self.ranks or ():
            if not 0 <= better < worse < self.count:
                raise ValueError(
                    f"policy: ranks [{better}, {worse}] are no two of {self.count} videos; 0 is the best, and the "
                    "first of both is the better one"
                )
        if len(set(self.ranks or ())) < len(self.ranks or ()):
            raise ValueError("policy: two ranks are given twice; keep one of them")
        if not any(self.score.values()):
            raise ValueError("score: no metric has a weight")
        return self

    @property
    def ranks(self) -> list[tuple[int, int]] | None:
        """Of a policy by ranks those of each pair; None of another."""
        if isinstance(self.policy, str):
            return None
        if all(isinstance(it, int) for it in self.policy):
            if len(self.policy) != 2:
                raise ValueError("policy: two ranks make a pair; several pairs are a list of such lists")
            return [(self.policy[0], self.policy[1])]  # type: ignore[list-item]
        if any(isinstance(it, int) for it in self.policy):
            raise ValueError("policy: two ranks make a pair; several pairs are a list of such lists")
        return list(self.policy)  # type: ignore[arg-type]


class PairWeights(Section):
    """VideoDPO's weights: ``(beta / prob) ** alpha`` with ``prob = sqrt(p(winner) p(loser))``, where p is the share of
    all videos of the source whose score is in the same bin (docs/concepts/methods.md)."""

    alpha: float = Field(1.0, ge=0, description="0: all pairs weigh the same.")
    beta: Positive | Literal["auto"] = Field("auto", description="`auto`: the share of the fullest bin.")
    bin: Positive = Field(0.01, description="Width of a bin, in units of the score.")


class PairSource(Section):
    """A source of pairs (docs/how-to/pairs.md)."""

    kind: PairKindName = Field(
        description="; ".join(f"`{name}`: {it.description}" for name, it in PAIR_SOURCES.items()) + "."
    )
    path: Annotated[str, InputPath()] | None = Field(
        None, description="The folder that holds the list; folders: of the winners; csv: the file."
    )
    losers: Annotated[str, InputPath()] | None = Field(
        None, description="folders, fastvideo, cosmos: the folder of losers, with the winners' names."
    )
    captions: Annotated[str, InputPath()] | None = Field(
        None, description="folders: the folder of text files; empty: beside the winners."
    )
    root: Annotated[str, InputPath()] | None = Field(
        None, description="csv, labels: the folder that its paths are below; empty: that of the file."
    )
    axis: str | None = Field(None, description="labels: of several questions the one that counts.")
    threshold: float | None = Field(None, description="labels: the grade from which on a video is good.")

    candidates: Candidates | None = Field(None, description="best_of_n: what is made, scored and chosen.")
    weights: PairWeights | None = Field(
        None, description="best_of_n: weights of pairs by how rare their scores are; empty: all weigh the same."
    )

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        kind = PAIR_SOURCES[self.kind]
        keys = ("path", "losers", "captions", "root", "axis", "threshold", "candidates", "weights")
        given = {key for key in keys if getattr(self, key) not in (None, "")}
        if lacking := [key for key in kind.needs if key not in given]:
            raise ValueError(f"kind `{self.kind}` needs {' and '.join(f'`{key}`' for key in lacking)}")
        if more := sorted(given - {*kind.needs, *kind.takes}):
            raise ValueError(f"kind `{self.kind}` reads no {' and '.join(f'`{key}`' for key in more)}; leave it out")
        return self


class Pairs(Section):
    """The manifest of pairs and its split. Train, validation and test share no footage that is found to be the same."""

    split: Literal["auto", "source", "segment"] = Field(
        "auto",
        description="`source`: a video, or a group of them, belongs to one split by the hash of its bytes. `segment`: "
        "every shot is cut in time into train, validation and test with gaps wider than a clip. `auto`: by source from "
        "`min_sources` videos on, or where segments would leave a split empty, with a seed that leaves none empty and, "
        "if one does, gives the test three; decided once (`split.json` among the results).",
    )
    min_sources: Count = Field(10, description="auto: videos, or groups of them, needed for a split by source.")
    validation: Share = Field(0.1, description="Share of videos (expected), or of a shot's frames.")
    test: Share = Field(0.1, description="Share of videos (expected), or of a shot's frames.")
    limit: Count | None = Field(
        None, description="Most training pairs, chosen by seed before negatives are made; empty: all."
    )
    seed: int = 0
    sources: dict[Name, PairSource] = Field(
        {"gt": PairSource(kind="gt")},
        min_length=1,
        description="Name of a source -> where its pairs come from. All go into one manifest, that name as `origin`.",
    )

    @property
    def ranked(self) -> dict[str, Candidates]:
        """Name -> what is made and chosen, of sources of kind `best_of_n`."""
        return {name: it.candidates for name, it in self.sources.items() if it.candidates}

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("`validation` + `test` leave nothing to train on")
        if [name for name, it in self.sources.items() if it.kind == "gt"] not in ([], ["gt"]):
            raise ValueError("sources: the one of kind `gt` is called gt, and there is one at most")
        if "gt" in self.sources and self.sources["gt"].kind != "gt":
            raise ValueError("sources.gt: that name is taken for kind `gt`")
        return self


class Latents(Section):
    """Winner, loser, text and condition, encoded once."""

    dtype: Literal["fp32", "bf16"] = "bf16"
    precision: Precision = Field(
        "auto", description="Of the autoencoder while it encodes; `auto`: as the family has it, fp32 for all."
    )
    tiling: Tiling = Field(
        "auto",
        description="Encode in tiles, which changes values at their seams (docs/reference/families.md); `auto`: only "
        "what does not fit on the GPU otherwise.",
    )
    shards: Count = Field(8, description="Jobs.")
