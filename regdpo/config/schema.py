"""The configuration: pydantic models that are its one source.

The JSON Schema which Snakemake validates (config/config.schema.json) and the tables in config/README.md are
generated from these models. regdpo/config/stage_inputs.py gives the part that one stage reads; a rule passes exactly
that part to its script, so what a stage has not been given cannot shape its result.
"""

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_origin

import yaml
from pydantic import Field, ValidationError, create_model, field_validator, model_validator

from regdpo.config.locations import located
from regdpo.config.training import Arm, TrainSettings
from regdpo.core.errors import UserError
from regdpo.core.rows import Geometry
from regdpo.core.section import AtLeastOne, Count, Even, Fraction, InputPath, Name, Positive, Section, Share, kinds
from regdpo.data.captioner_registry import CAPTIONERS
from regdpo.data.pair_registry import PAIR_SOURCES
from regdpo.data.registry import FILTERS
from regdpo.models.registry import CACHES, FAMILIES, in_comfyui
from regdpo.objectives.registry import OBJECTIVES
from regdpo.runtime.gpu_specs import GPUS, gpu_named

if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal[tuple(FAMILIES)]


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


class Videos(Section):
    """The footage."""

    root: Annotated[str, InputPath()] = Field(
        description="Folder of videos, searched recursively; or `package:NAME/FOLDER` for videos inside an "
        "installed Python package."
    )
    include: list[str] = Field(["**"], min_length=1, description="Glob patterns under `root` of videos to use.")
    exclude: list[str] = Field([], description="Glob patterns under `root` of videos to leave out.")
    table: Annotated[str, InputPath()] | None = Field(
        None,
        description="CSV or parquet file of the videos to use: `path` below `root`, and where it says so `start` and "
        "`end` in seconds (several rows give several stretches), `caption`, `licence` and `group` "
        "(docs/reference/footage.md).",
    )


class Shots(Section):
    """Shot detection: cuts by PySceneDetect, gradual transitions, jumps of the clock."""

    detector: Literal["content", "adaptive"] = Field("adaptive", description="PySceneDetect's detector.")
    threshold: Positive | None = Field(None, description="Its threshold; empty takes PySceneDetect's default.")
    gradual: bool = Field(
        True,
        description="Dissolves and fades end a shot too, and their frames are in none (docs/reference/footage.md).",
    )
    margin: int = Field(1, ge=0, description="Frames dropped at both ends of a shot, for cuts found one frame off.")
    gap: Positive = Field(
        2.0,
        description="Seconds without a frame beyond which the video's clock has jumped, as it has when it goes back: "
        "the shot ends there, and nothing is filled in.",
    )


class _Filters(Section):
    """Filters. A clip that fails one is kept as a rejected row with the reason."""

    max_repeated: Fraction = Field(
        0.22,
        description="Greatest share of frames that show the source's frame before once more, since the source shows "
        "fewer frames a second than `fps`; above: repeated. From 24 to 30 a second it is 0.2, from 12 to 16 0.25.",
    )
    same_footage: Share = Field(
        0.85,
        description="Least correlation, of the pictures and of what moves in them, at which two shots show the same "
        "footage. Clips of it are kept from one source.",
    )


if TYPE_CHECKING:

    class Filters(_Filters):
        """Filters. A clip that fails one is kept as a rejected row with the reason."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Filters = create_model(
        "Filters",
        __base__=_Filters,
        __module__=__name__,
        __doc__=_Filters.__doc__,
        **{it.key: (it.kind, Field(it.default, description=it.description)) for it in FILTERS.values()},
    )


class Encode(Section):
    """How every clip is written, winner and loser alike (H.264, yuv420p, one thread, bit-exact)."""

    crf: int = Field(12, ge=0, le=51, description="x264's constant rate factor.")
    preset: str = Field("veryfast", pattern=r"^[a-z]+$", description="x264's preset.")


class Limits(Section):
    """What one video may ask of this machine. One that asks for more is a rejected row with the reason."""

    pixels: Count = Field(
        36_000_000, description="Most pixels of a frame, as it is stored and as it is scaled; 8192 x 4320 passes."
    )
    frames: Count = Field(1_000_000, description="Most frames of a video at `fps`.")
    seconds: Positive = Field(3600, description="Longest time of one run of ffmpeg; a whole video is decoded in one.")
    memory_mb: Count = Field(3000, description="Most main memory of one ffmpeg, in MB (RLIMIT_DATA).")


class Bucket(Section):
    """One of several sizes and lengths; what it leaves out is as in `clips`."""

    frames: Count | None = Field(None, description="Frames per clip.")
    width: Even | None = Field(None, description="Pixels.")
    height: Even | None = Field(None, description="Pixels.")


class Clips(Section):
    """Clips cut from shots and normalised."""

    frames: Count = Field(81, description="Frames per clip. Wan wants 4k+1, LTX-Video 8k+1.")
    fps: Positive = Field(16.0, description="Frames a second after normalisation.")
    width: Even = Field(1280, description="Pixels.")
    height: Even = Field(720, description="Pixels.")
    buckets: list[Bucket] = Field(
        [],
        description="Several sizes and lengths in the place of one, such as landscape and portrait: each its `frames`, "
        "`width` and `height`. A shot's clips are of one of them, by the shape of its picture, its length and its size "
        "(docs/reference/footage.md), and all that is made from a clip is of the same; a training step takes pairs of "
        "one.",
    )
    short_side: Count | None = Field(
        None,
        description="Shorter side after scaling and before the crop, in pixels; empty scales just enough to "
        "cover width x height.",
    )
    stride: Count | None = Field(None, description="Frames between the starts of clips; empty: no overlap.")
    crops: tuple[Count, Count] = Field(
        (1, 1), description="Rows and columns of crop windows spread over the scaled frame; (1, 1) is the centre crop."
    )
    hdr: Literal["tonemap", "reject"] = Field(
        "tonemap", description="HLG and PQ footage: tone-mapped to SDR (docs/reference/footage.md), or rejected."
    )
    shots: Shots = Shots()
    filters: Filters = Filters()
    encode: Encode = Encode()
    limits: Limits = Limits()
    shards: Count = Field(8, description="Jobs the footage is spread over, by hash of the video's path.")

    @property
    def geometries(self) -> list[Geometry]:
        """The sizes and lengths that clips may have."""
        own = Geometry(frames=self.frames, fps=self.fps, width=self.width, height=self.height)
        return [own.model_copy(update=it.model_dump(exclude_none=True)) for it in self.buckets] or [own]

    def only(self, geometry: Geometry) -> "Clips":
        """The same for clips of one size and length."""
        return self.model_copy(update={**geometry.model_dump(exclude={"fps"}), "buckets": []})

    @model_validator(mode="after")
    def _sizes_differ(self) -> Self:
        sizes = self.geometries
        for number, one in enumerate(sizes):
            if one in sizes[:number]:
                twice = f"{one.frames} frames of {one.width} x {one.height}"
                raise ValueError(f"buckets: two are of {twice}")
        return self


class CaptionServer(Section):
    """The server that the captioner `endpoint` asks. Where it is and how patient one is with it shapes no caption."""

    url: str = Field(
        pattern=r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$",
        description="Its address up to the version, such as `http://node7:8000/v1`; without a user or a key.",
    )
    key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that holds its key; empty: it wants none. The key itself is in "
        "no file and no log.",
    )
    concurrency: Count = Field(16, description="Requests at once, of each job; the jobs are `clips.shards`.")
    timeout: Positive = Field(180, description="Seconds that a request may take, up to the last byte of its answer.")
    attempts: Count = Field(
        6, description="Times that a clip is asked about, where the server is busy, fails, is late or answers nonsense."
    )
    longest_wait: Positive = Field(
        60, description="Most seconds between two tries; they double from one, and `Retry-After` is heeded up to this."
    )


if TYPE_CHECKING:
    CaptionerName = str
else:
    CaptionerName = Literal[tuple(CAPTIONERS)]


class Captions(Section):
    """One caption per clip."""

    source: CaptionerName = Field(
        "sidecar", description="; ".join(f"`{name}`: {it.description}" for name, it in CAPTIONERS.items()) + "."
    )
    root: Annotated[str, InputPath()] | None = Field(
        None,
        description="sidecar: folder of text files; empty: beside the videos. The caption of `a.mp4` is `a.mp4.txt` or "
        "`a.txt`, that of its first shot alone `a.shot000.txt`.",
    )
    model: Annotated[str, InputPath(always=False)] | None = Field(
        None, description="transformers: hub name or local folder; endpoint: the name by which the server has it."
    )
    revision: str | None = Field(
        None,
        description="Pinned revision of the model; needed for a hub name. endpoint: the one that the server was "
        "started with, which nothing else can tell.",
    )
    prompt: str = Field(
        "Describe this video in one paragraph: the subject, what it does, the setting, the camera.",
        min_length=1,
        description="The instruction to a model.",
    )
    frames: Count = Field(8, description="Frames shown to the model.")
    send: Literal["frames", "video"] = Field(
        "frames", description="endpoint: `frames`: as pictures, which every server takes; `video`: the clip itself."
    )
    max_new_tokens: Count = Field(400, description="Longest caption of a model, in its tokens.")
    batch: Count = Field(4, description="transformers: clips per forward pass.")
    python: Annotated[str, InputPath(program=True)] = Field(
        ".venv-captioning/bin/python",
        description="transformers: interpreter of its environment (`make captioning`). It is a program "
        "that jobs run: whoever sets this key runs code.",
    )
    script: str | None = Field(
        None,
        pattern=r"^[A-Z]+$",
        description="Script that most letters of a caption have to be in, by their names in Unicode (`LATIN`, `CJK`, "
        "`CYRILLIC`), as the base model reads it; empty: any.",
    )
    unusable: Literal["stop", "leave_out"] = Field(
        "stop",
        description="What becomes of a caption that is empty, cut off, a refusal or not in `script`: `stop` ends the "
        "run with all of them, `leave_out` leaves their clips out of the pairs, with the reason in `captions.parquet`.",
    )
    too_long: Literal["cut", "leave_out", "stop"] = Field(
        "cut",
        description="What becomes of a caption of more tokens than the text encoder reads (`base.text_length`). `cut`: "
        "its end is not seen, and a line says so. `leave_out`: no negative is made of it, with the reason in the "
        "manifest of negatives. `stop`: it ends the run.",
    )
    server: CaptionServer | None = None

    @model_validator(mode="after")
    def _model_is_pinned(self) -> Self:
        for needed in CAPTIONERS[self.source].needs:
            if not getattr(self, needed):
                raise ValueError(f"source `{self.source}` needs `{needed}`")
        if self.model and not self.revision and not Path(self.model).exists():
            raise ValueError(f"`revision` is missing: pin the revision of {self.model}")
        return self


class TinyWan(Section):
    """The transformer that is trained from scratch: diffusers' WanTransformer3DModel."""

    layers: Annotated[int, Field(ge=1, le=1000)] = 4
    heads: Count = 4
    head_dim: Count = 32
    ffn_dim: Count = 384
    text_dim: Count = 32
    freq_dim: Count = 64


class TinyCodec(Section):
    """The linear block-PCA video codec that stands in for the VAE."""

    channels: Count = Field(16, description="Latent channels.")
    spatial: Count = Field(8, description="Pixels a latent, each way.")
    temporal: Count = Field(4, description="Frames a latent, after the first.")


class Pretrain(Section):
    """A base model made here: codec, text encoder and transformer from scratch, on other footage than the user's."""

    sources: list[str] = Field(min_length=1, description="Glob patterns of the videos that the base model knows.")
    seed: int = Field(0, description="Seed of its initial weights and of its training.")
    transformer: TinyWan = TinyWan()
    codec: TinyCodec = TinyCodec()
    settings: TrainSettings = Field(description="Its training; objective `pretrain` (flow matching), full tuning.")

    @model_validator(mode="after")
    def _from_scratch_is_full(self) -> Self:
        if self.settings.tuning != "full":
            raise ValueError("settings.tuning must be `full`: adapters on random weights learn nothing")
        return self


class Base(Section):
    """The model that is to get better: `model` by name, or `pretrain` to make one."""

    family: FamilyName = Field(
        "wan", description="Architecture (docs/reference/families.md). Only `wan` can be made by `pretrain`."
    )
    task: Literal["i2v", "t2v"] = Field("i2v", description="Condition: caption and first frame, or caption alone.")
    model: Annotated[str, InputPath(always=False)] | None = Field(
        None, description="diffusers checkpoint: hub name or local folder."
    )
    revision: str | None = Field(None, description="Pinned revision; needed for a hub name.")
    expert: Literal["high", "low"] | None = Field(
        None, description="Of a checkpoint with two experts the one that is trained: for `high` or for `low` noise."
    )
    text_length: Count | None = Field(
        None, description="Tokens that a caption is padded to; empty: what the family's pipeline pads to."
    )
    pretrain: Pretrain | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.model is None) == (self.pretrain is None):
            raise ValueError("give exactly one of `model` (a checkpoint) and `pretrain` (make a small one)")
        if self.model and not self.revision and not Path(self.model).exists():
            raise ValueError(f"`revision` is missing: pin the revision of {self.model}")
        if self.pretrain and self.family != "wan":
            raise ValueError(f"`pretrain` makes a `wan`; give the {self.family} checkpoint as `model`")
        if self.pretrain and self.expert:
            raise ValueError("`expert`: what `pretrain` makes has no experts; leave it out")
        return self


Precision = Literal["auto", "fp32", "bf16"]
Tiling = Literal["auto", "on", "off"]
Solver = Literal["checkpoint", "unipc", "dpm++"]
"""``checkpoint``: the scheduler that the checkpoint names."""


if TYPE_CHECKING:
    CacheKind = str
else:
    CacheKind = Literal[("off", *CACHES)]


class Cache(Section):
    """What of earlier steps is used again in the place of computing it, by diffusers (docs/how-to/negatives.md)."""

    kind: CacheKind = Field(
        "off",
        description="`first_block`: the other blocks' change is used again where the first block's differs little; "
        "`taylorseer`: whole passes are extrapolated; `pyramid_attention`: attention is used again.",
    )
    threshold: Positive = Field(
        0.05, description="first_block: mean change, as a share, up to which a pass ends behind the first block."
    )
    interval: int = Field(
        4, ge=2, description="taylorseer, pyramid_attention: steps from one that is computed to the next."
    )
    warmup: Count = Field(3, description="taylorseer: first steps that are computed.")
    order: int = Field(1, ge=0, le=3, description="taylorseer: of the extrapolation; 0 repeats.")

    def computed(self, calls: int) -> int | None:
        """Of so many calls of the denoiser those that run its blocks; None where that is known afterwards alone."""
        if self.kind == "off":
            return calls
        if self.kind != "taylorseer":
            return None
        return sum(n < self.warmup or (n - self.warmup - 1) % self.interval == 0 for n in range(calls))


class Sampling(Section):
    """The sampler: the steps of the checkpoint's own scheduler, with guidance (docs/reference/families.md)."""

    steps: Count = Field(40, description="Denoising steps.")
    guidance: AtLeastOne | dict[Literal["high", "low"], AtLeastOne] = Field(
        5.0,
        description="Guidance scale; 1 switches it off. Of a checkpoint with two experts also one each: "
        "`{high: 4, low: 3}`.",
    )
    guidance_interval: tuple[Fraction, Fraction] = Field(
        (0.0, 1.0),
        description="Guidance in this part of the steps alone, from and to as shares of them; outside, the second pass "
        "is left out (arXiv 2404.07724). `[0, 0.5]`: in the first half.",
    )
    shift: Positive | None = Field(None, description="Shift of a flow's sigmas; empty: the checkpoint's own.")
    solver: Solver = Field(
        "checkpoint",
        description="Who makes the steps, on the sigmas of the checkpoint's own scheduler: itself, or diffusers' UniPC "
        "or DPM-Solver++ (`dpm++`), both of second order. For flows; Wan's own is UniPC.",
    )
    negative_prompt: str = Field("", description="What guidance leads away from.")
    batch: Count = Field(1, description="Videos rendered at once.")
    cache: Cache = Cache()
    compile: bool = Field(
        False,
        description="Compile the denoiser's blocks (torch.compile), once a job and size of clips; takes minutes.",
    )
    decode: Precision = Field(
        "auto",
        description="Of the autoencoder while it decodes; `auto`: fp32 for Wan and on a CPU, bf16 for others.",
    )
    tiling: Tiling = Field("auto", description="As `latents.tiling`, for the first frame and for decoding.")

    @field_validator("guidance")
    @classmethod
    def _both_experts(cls, guidance: float | dict[str, float]) -> float | dict[str, float]:
        if isinstance(guidance, dict) and len(guidance) < 2:
            raise ValueError("give a number, or one each for `high` and `low`")
        return guidance

    @field_validator("guidance_interval")
    @classmethod
    def _forward(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] >= interval[1]:
            raise ValueError("the second has to be more than the first; guidance: 1 is without")
        return interval

    def guides(self, step: int) -> bool:
        """Whether guidance is given in a step, from 0 on: the middle of the step counts."""
        first, last = self.guidance_interval
        return first <= (step + 0.5) / self.steps < last

    def scale(self, expert: Literal["high", "low"] | None) -> float:
        """The guidance scale while an expert answers; None for a denoiser that has none."""
        if isinstance(self.guidance, float):
            return self.guidance
        assert expert is not None, "the configuration is refused that has scales for experts and no experts"
        return self.guidance[expert]

    def passes(self, embedded: bool = False) -> int:
        """Of the denoiser for a video, those that a cache leaves out not counted as far as that is known before.

        Args:
            embedded: the denoiser is given the guidance scale, which takes no second pass.
        """
        twice = self.guided and not embedded
        calls = [self.steps, twice * sum(self.guides(step) for step in range(self.steps))]
        counted = [self.cache.computed(number) for number in calls]
        return sum(number if of is None else of for number, of in zip(calls, counted, strict=True))

    @property
    def counted(self) -> bool:
        """Whether the passes are known before."""
        return self.cache.computed(1) is not None

    def misfit(self, family: str) -> str:
        """What of it a family cannot do, with its key; empty if nothing."""
        solvers = FAMILIES[family].solvers
        if self.solver != "checkpoint" and self.solver not in solvers:
            known = f"takes {', '.join(solvers)}" if solvers else "is no flow, and takes no other"
            return f"solver: {family} {known} beside `checkpoint`"
        kind, caches = self.cache.kind, FAMILIES[family].caches
        if kind != "off" and kind not in caches:
            return f"cache.kind: {kind} does not work with {family}; {', '.join(caches) or 'no cache'} does"
        if kind == "first_block" and self.batch > 1:
            return (
                "cache.kind: first_block decides for a batch as a whole, which videos must not depend on; set batch: 1"
            )
        if self.compile and not FAMILIES[family].compiles:
            return f"compile: diffusers does not say which blocks of {family} repeat; leave it out"
        if self.compile and kind != "off":
            return "compile: not together with a cache, which decides anew in every step; leave one of them out"
        return ""

    @property
    def scales(self) -> tuple[float, ...]:
        """All guidance scales."""
        return (self.guidance,) if isinstance(self.guidance, float) else tuple(self.guidance.values())

    @property
    def guided(self) -> bool:
        """Whether any step asks the denoiser twice."""
        return max(self.scales) > 1


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

    @model_validator(mode="after")
    def _model_is_pinned(self) -> Self:
        if self.model and not self.revision and not Path(self.model).exists():
            raise ValueError(f"`revision` is missing: pin the revision of {self.model}")
        if not self.model and (self.family or self.task or self.revision or self.expert or self.text_length):
            raise ValueError("without `model` it is the base, of which only `sampling` and what follows can differ")
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
        try:
            return Sampling.model_validate(_merge(self.sampling.model_dump(), self.named[name].sampling))
        except ValidationError as error:
            raise ValueError(f"generators.{name}.sampling.{_lines(error, Sampling)[0]}") from None


if TYPE_CHECKING:
    PairKindName = str
else:
    PairKindName = Literal[tuple(PAIR_SOURCES)]


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
        None, description="csv: the folder that its paths are below; empty: that of the file."
    )

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        kind = PAIR_SOURCES[self.kind]
        given = {key for key in ("path", "losers", "captions", "root") if getattr(self, key)}
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
        "`min_sources` videos on, or where segments would leave a split empty, with a seed that leaves none empty; "
        "decided once (`split.json` among the results).",
    )
    min_sources: Count = Field(10, description="auto: videos, or groups of them, needed for a split by source.")
    validation: Share = Field(0.1, description="Share of videos (expected), or of a shot's frames.")
    test: Share = Field(0.1, description="Share of videos (expected), or of a shot's frames.")
    limit: Count | None = Field(None, description="Most training pairs, chosen by seed; empty: all.")
    seed: int = 0
    sources: dict[Name, PairSource] = Field(
        {"gt": PairSource(kind="gt")},
        min_length=1,
        description="Name of a source -> where its pairs come from. All go into one manifest, that name as `origin`.",
    )

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


class Train(Section):
    """The arms, side by side on the same pairs and seeds."""

    settings: TrainSettings = TrainSettings()
    seeds: list[int] = Field([0], min_length=1, description="Every arm is trained once per seed.")
    arms: dict[Name, Arm] = Field(min_length=1, description="Name of an arm -> its objective.")
    export_formats: list[Literal["diffusers", "comfyui"]] = Field(
        ["diffusers"],
        min_length=1,
        description="How adapters of LoRA arms are written. `diffusers` is what sampling loads and always there; "
        "`comfyui` adds `results/weights/ARM/seedN/comfyui.safetensors`, for families whose names there are known.",
    )

    @model_validator(mode="after")
    def _overrides_fit(self) -> Self:
        seen: dict[str, str] = {}
        for name, arm in self.arms.items():
            same = canonical([arm.model_dump(exclude={"settings"}), self.arm_settings(name).model_dump()])
            if same in seen:
                raise ValueError(f"arms.{name}: is the same as {seen[same]}")
            seen[same] = name
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one occurs twice")
        for reserved in {"base", "pretrain", "real"} & set(self.arms):
            raise ValueError(f"arms.{reserved}: that name is taken")
        return self

    def arm_settings(self, name: str) -> TrainSettings:
        """The settings of one arm: the shared ones with its overrides."""
        try:
            return TrainSettings.model_validate(_merge(self.settings.model_dump(), self.arms[name].settings))
        except ValidationError as error:
            raise ValueError(f"arms.{name}.settings.{_lines(error, TrainSettings)[0]}") from None


class Samples(Section):
    """Held-out first frames rendered by base and every arm with the same seeds."""

    split: Literal["test", "validation"] = Field(
        "test", description="`validation` while settings are being chosen, `test` once they are frozen."
    )
    sampling: Sampling = Sampling()
    seeds: list[int] = Field([0], min_length=1)
    limit: Count | None = Field(None, description="Most clips; empty: all of the split.")


class HeldOutError(Section):
    """Denoising error on fixed noise and timesteps."""

    timesteps: Count = Field(8, description="Sigmas, spread evenly over (0, 1).")
    seed: int = 0
    batch: Count = 8


class Bootstrap(Section):
    """Intervals by bootstrap over clips (scipy, percentile)."""

    resamples: Count = 2000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: int = 0


class VBench(Section):
    """VBench, in an environment of its own."""

    python: Annotated[str, InputPath(program=True)] = Field(
        ".venv-vbench/bin/python",
        description="Interpreter of that environment (`make vbench`). It is a program that jobs run: whoever sets this "
        "key runs code.",
    )
    dimensions: list[Literal["temporal_flickering"]] = Field(
        ["temporal_flickering"], description="Dimensions to run; those that need weights come with the full suite."
    )


class Scores(Section):
    """What is measured on the samples."""

    error: HeldOutError = HeldOutError()
    vbench: VBench = VBench()
    bootstrap: Bootstrap = Bootstrap()


class Minimum(Section):
    """Evidence that the page asks for before it uses a word like better; with less it says "too little to say"."""

    sources: Count = Field(3, description="Videos that the held-out clips are of.")
    clips: Count = Field(10, description="Held-out clips that both sides of a comparison have.")
    seeds: Count = Field(2, description="Trainings of an arm (`train.seeds`).")
    pairs: Count = Field(10, description="Pairs, for how far winners and losers differ in standard deviations.")


class Report(Section):
    """The page."""

    title: str = "regdpo report"
    examples: Count = Field(6, description="Clips shown as videos side by side.")
    minimum: Minimum = Minimum()


class Launch(Section):
    """How torchx starts the ranks. It shapes no result."""

    scheduler: Literal["auto", "local_cwd", "slurm"] = Field(
        "auto",
        description="How torchx starts the ranks. `auto`: where the job is, on one machine or on all machines of its "
        "Slurm allocation. `local_cwd`: on this machine. `slurm`: torchx's own Slurm scheduler, from a local rule.",
    )
    processes: Count = Field(1, description="Ranks of a training: one per GPU, or processes on gloo without GPUs.")
    nodes: Count = Field(1, description="Machines that the ranks of a training are spread over, evenly.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto`: cuda where there is one.")
    grace: Positive = Field(60, description="Seconds that ranks have to save and leave once they are asked to.")
    leave: Positive = Field(
        300, description="Seconds before the time limit of its Slurm job at which a training saves and leaves."
    )
    requeues: int = Field(
        20, ge=0, description="Times that a Slurm job whose time limit came goes back into the queue, to go on."
    )
    gpu: str | None = Field(
        None,
        description="Name of the GPUs that train, render and encode (table in regdpo/runtime/gpu_specs.py), so that "
        "the plan is asked before the first job; empty: it is not.",
    )
    force: bool = Field(False, description="Start even if the plan says that it does not fit.")

    @field_validator("gpu")
    @classmethod
    def _gpu_is_known(cls, name: str | None) -> str | None:
        if name is not None and gpu_named(name) is None:
            raise ValueError(f"there is no such GPU in regdpo/runtime/gpu_specs.py; there are {', '.join(GPUS)}")
        return name

    @model_validator(mode="after")
    def _ranks_spread_evenly(self) -> Self:
        if self.processes % self.nodes:
            raise ValueError(f"`nodes` {self.nodes} does not divide `processes` {self.processes}")
        return self


class Config(Section):
    """Configuration of the workflow."""

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
    report: Report = Report()
    launch: Launch = Launch()

    @model_validator(mode="after")
    def _captions_are_somewhere(self) -> Self:
        if self.captions.source == "table" and not self.videos.table:
            raise ValueError("captions.source `table` needs `videos.table`")
        return self

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        least = self.clips.short_side
        if least and any(least < min(it.width, it.height) for it in self.clips.geometries):
            raise ValueError("clips.short_side is smaller than the crop")
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
        for where, (sampling, model, key) in asked.items():
            if isinstance(sampling.guidance, dict) and not model.expert:
                raise ValueError(f"{where}.sampling.guidance: a scale for each expert needs `{key}.expert`")
            if reason := sampling.misfit(model.family):
                raise ValueError(f"{where}.sampling.{reason}")
        return self

    @property
    def footage(self) -> bool:
        """Whether ``videos`` are used: for pairs, or for a base that is made here."""
        return "gt" in self.pairs.sources or self.base.pretrain is not None

    @property
    def lora_arms(self) -> list[str]:
        """Arms that train adapters."""
        return [name for name in self.train.arms if self.train.arm_settings(name).tuning == "lora"]

    def generator(self, name: str) -> tuple[Base, str]:
        """The model that makes negatives by a name, and the key that it stands under."""
        given = self.negatives.named[name]
        if not given.model:
            return self.base, "base"
        asked = given.model_dump(include={"model", "revision", "expert", "text_length"})
        whole = {"family": given.family or self.base.family, "task": given.task or self.base.task, **asked}
        return Base.model_validate(whole), f"negatives.generators.{name}"

    def trainings(self) -> dict[str, tuple[TrainSettings, bool]]:
        """Key of every training -> its settings, and whether it has losers."""
        found = {
            f"train.arms.{name}": (self.train.arm_settings(name), OBJECTIVES[arm.objective].paired)
            for name, arm in self.train.arms.items()
        }
        if self.base.pretrain:
            found["base.pretrain"] = self.base.pretrain.settings, False
        return found


def _merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


ALTERNATIVE = re.compile(r"^constrained-|\[")
"""What pydantic puts between the keys where a value may be of several kinds."""


def _lines(error: ValidationError, model: type[Section]) -> list[str]:
    """A line a mistake, with the path of its key.

    Args:
        model: of which the values are.
    """
    lines = []
    for item in error.errors():
        names = [str(part) for part in item["loc"] if not ALTERNATIVE.search(str(part))]
        where = ".".join(names)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{_meant(model, names)} (config/README.md lists the keys)"
        elif item["type"] == "missing":
            message = "is missing (config/README.md says what it is)"
        elif item["type"] in ("model_type", "dict_type") and not isinstance(item["input"], list):
            keys = f" ({', '.join(_keys(model, [*names, ''])[:3])}, ...)" if item["type"] == "model_type" else ""
            given = "is empty" if item["input"] is None else f"is {item['input']!r}"
            message = f"{given}; its keys{keys} go below it, indented"
        elif not isinstance(item["input"], dict | list):
            message += f" (got {item['input']!r})"
        lines.append(f"{where}: {message}" if where else message)
    return lines


def _meant(model: type[Section], names: list[str]) -> str:
    """What an unknown key may have been meant for: its namesake elsewhere, or one beside it that is written alike."""
    *above, key = names
    namesakes = [path for path in _paths(model) if path.rpartition(".")[2] == key]
    near = [path for path in namesakes if above and path.startswith(f"{above[0]}.")]
    meant = near or namesakes or difflib.get_close_matches(key, _keys(model, names), n=1)
    return f"; did you mean {meant[0]}?" if meant else ""


def _keys(model: type[Section], names: list[str]) -> list[str]:
    """The keys that may stand where the last of ``names`` does, those first that have to."""
    sections = [model]
    for name in names[:-1]:
        found = [section.model_fields[name] for section in sections if name in section.model_fields]
        # else it is a name of the user's own, as of an arm
        sections = [it for field in found for it in _below(field.annotation)] if found else sections
    fields = [(name, field) for section in sections for name, field in section.model_fields.items()]
    return [name for name, field in sorted(fields, key=lambda it: not it[1].is_required())]


def _paths(model: type[Section], above: str = "") -> Iterator[str]:
    """Every key that is not within a table of the user's own names."""
    for name, field in model.model_fields.items():
        yield f"{above}{name}"
        if get_origin(field.annotation) is not dict:
            for section in _below(field.annotation):
                yield from _paths(section, f"{above}{name}.")


def _below(annotation: Any) -> list[type[Section]]:
    return [kind for kind in kinds(annotation) if isinstance(kind, type) and issubclass(kind, Section)]


def check(values: dict[str, Any], origin: str = "config") -> Config:
    """Validate a whole configuration.

    Raises:
        UserError: one line a mistake, each with the path of its key.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{origin}: " + "; ".join(_lines(error, Config))) from None


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
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = [other.name for other in Path(path).parent.glob("*.y*ml")]
        alike = difflib.get_close_matches(Path(path).name, there, n=1)
        meant = f"; did you mean {Path(path).with_name(alike[0])}?" if alike else ""
        raise UserError(f"{path}: there is no such configuration{meant}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8") from None
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


def canonical(values: Any) -> str:
    """Equal values as equal text: JSON with sorted keys."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
