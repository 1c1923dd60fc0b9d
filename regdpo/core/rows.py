"""The rows of the manifests: one pydantic model each, every row with where it came from."""

from collections import Counter
from collections.abc import Container, Iterable
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from regdpo.core.section import Section

CANDIDATES = "candidates"
"""Name under which videos stand among the models that are scored to be chosen from."""
REAL = "real"
"""Name under which the real clips stand among the models, as the yardstick."""


class Row(BaseModel):
    """Base of all rows; the first field is the id that rows are ordered by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def key(self) -> str:
        return getattr(self, next(iter(type(self).model_fields)))


class ClipRow(Row):
    """A clip, or what was rejected instead of one."""

    clip_id: str
    status: Literal["accepted", "rejected"]
    reason: str = ""
    source: str  # path below videos.root
    source_digest: str
    group: str = ""  # footage of one origin, as the table of videos names it; it is never divided between splits
    licence: str = ""  # of the source, as the table of videos has it
    source_pixels: int = 0  # of one frame of the chosen stream, without bars
    bar_left: int = 0  # pixels of the source that are black bars beside the picture, and were cut away
    bar_top: int = 0
    bar_right: int = 0
    bar_bottom: int = 0
    source_rate: float = 0.0  # bits of the file a second
    stream: int = -1  # index of the video stream in the container
    conversion: str = ""  # what was assumed of its picture or changed in it, such as "deinterlaced"
    shot: int = -1
    shot_frames: int = 0  # length of the shot at the normalised fps
    start: int = -1  # first frame, counted from the shot's first at the normalised fps
    start_s: float = 0.0  # the same in seconds of the source
    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    crop_x: int = 0  # pixels of the scaled frame
    crop_y: int = 0
    scores: dict[str, float] = {}  # of each filter that regdpo/data/registry.py declares, by name
    measured: str = ""  # what was measured of all windows of its span, in the store: scores, and small pictures
    fingerprint: str = ""  # what the shot looks like; only in a shard's manifest, in the row of its first clip
    embedding: str = ""  # what the clip shows, by a model (base64 of float16); only in a shard's manifest
    path: str = ""  # in the store; what is rejected by its scores is not encoded
    sha256: str = ""

    @property
    def kind(self) -> str:
        """Of a rejection, the word before the colon of its reason, such as ``short``."""
        return self.reason.partition(":")[0]


class CopyRow(Row):
    """Two shots that show the same footage, of two sources or of one. Frames at the normalised fps."""

    copy_id: str
    source: str
    shot: int
    start: int  # first common frame, counted from the shot's first
    frames: int  # that they have in common
    other_source: str
    other_shot: int
    other_start: int


class SplitRow(Row):
    """How much footage a split gets."""

    split: str
    clips: int
    sources: int  # videos that they are of
    stretches: int = 0  # of footage, that they lie on; clips of one shot that overlap in time lie on one
    way: str = ""  # "source": a video belongs to one split; "segment": shots are cut in time


class PlaceRow(Row):
    """A clip that pairs are made of."""

    clip_id: str
    split: Literal["train", "validation", "test"]


class CaptionRow(Row):
    """A clip's caption and who wrote it."""

    clip_id: str
    caption: str
    captioner: str  # "sidecar:FILE" or "MODEL@REVISION"
    cut: bool = False  # it ran into the limit of tokens
    reason: str = ""  # why it cannot be used, and so neither can its clip; empty: it can

    @property
    def kind(self) -> str:
        """Of what is wrong with it, the word before the colon, such as ``refusal``."""
        return self.reason.partition(":")[0]


class NegativeRow(Row):
    """A generated clip and everything that made it, or what was rejected instead of one."""

    negative_id: str
    clip_id: str
    status: Literal["accepted", "rejected"] = "accepted"
    reason: str = ""
    generator: str  # its name: of negatives.generators, or base
    family: str
    model: str  # digest of the generator
    revision: str = ""  # of a hub's model the commit
    caption: str
    task: str
    seed: int
    steps: int
    solver: str = "checkpoint"  # who made the steps: the checkpoint's own scheduler, or another
    cache: str = "off"  # kind of the cache that steps were made with
    guidance: float  # of the expert for high noise, where there are two
    guidance_low: float | None = None  # of the other
    shift: float | None  # none: the checkpoint's own
    strength: float | None = None  # sigma that the clip was noised to, to begin with; none: it began with noise alone
    frames: int
    fps: float
    width: int
    height: int
    path: str  # in the store; of a rejected one the file that says why
    sha256: str

    @property
    def kind(self) -> str:
        """Of a rejection, the word before the colon of its reason, such as ``black``."""
        return self.reason.partition(":")[0]


def rejections(kinds: Iterable[str], negatives: int) -> str:
    """How many negatives make no pair, and why, in a line; empty if none.

    Args:
        kinds: of those that are rejected.
        negatives: how many there are.
    """
    counts = Counter(kinds)
    if not counts:
        return ""
    told = ", ".join(f"{kind} {count}" for kind, count in counts.most_common())
    return f"{counts.total()} of {negatives} negatives are rejected and make no pair: {told}"


Label = Literal["", "good", "bad"]
"""Of a sample by itself, which lies where a winner does, without loser. Empty: a pair, or a clip to pretrain on."""


class PairRow(Row):
    """Winner (real) and loser (generated) of the same caption; a labelled sample and pretraining rows have no loser."""

    pair_id: str
    split: Literal["train", "validation", "test"]
    clip_id: str
    source: str
    shot: int
    start: int
    frames: int  # of either half, as all that follows
    fps: float
    width: int
    height: int
    caption: str
    winner: str  # path in the store
    winner_sha256: str
    loser: str = ""
    loser_sha256: str = ""
    loser_seed: int = -1
    origin: str = "gt"  # its source, by name in pairs.sources
    generator: str = ""  # the name of who made the loser
    weight: float = 1.0  # of the pair's loss
    label: Label = ""
    segments: str = ""  # comma-joined, of equal time each: 1 winner better, -1 loser better, 0 neither; empty: all 1


class Geometry(Section):
    """Size of a clip, winner or loser, and its frames a second."""

    frames: int
    fps: float
    width: int
    height: int

    @classmethod
    def of_row(cls, row: ClipRow | PairRow) -> "Geometry":
        return cls(frames=row.frames, fps=row.fps, width=row.width, height=row.height)

    @property
    def size(self) -> tuple[int, int, int]:
        """Frames, height and width."""
        return self.frames, self.height, self.width


class ImportedRow(Row):
    """A pair that others made, brought to what clips are, or what was rejected instead of one."""

    pair_id: str
    status: Literal["accepted", "rejected"]
    reason: str = ""
    origin: str  # its source, by name in pairs.sources
    source: str  # its name in there
    source_digest: str = ""  # of the winner's file
    group: str = ""  # what it shares with others of one origin
    caption: str = ""
    frames: int = 0  # of either half, as all that follows
    fps: float = 0.0
    width: int = 0
    height: int = 0
    winner: str = ""  # path in the store
    winner_sha256: str = ""
    loser: str = ""
    loser_sha256: str = ""
    fingerprint: str = ""  # what the winner looks like
    label: Label = ""  # of a winner that stands alone
    votes: str = ""  # of labels, a sign a rater: + for the winner, or for good; - against; 0 neither

    @property
    def kind(self) -> str:
        """Of a rejection, the word before the colon of its reason, such as ``winner``."""
        return self.reason.partition(":")[0]

    def clip(self) -> ClipRow:
        """The winner as a clip."""
        return ClipRow(
            clip_id=self.pair_id,
            status=self.status,
            reason=self.reason,
            source=self.source,
            source_digest=self.source_digest,
            group=self.group,
            shot=0,
            shot_frames=self.frames,
            start=0,
            frames=self.frames,
            fps=self.fps,
            width=self.width,
            height=self.height,
            path=self.winner,
            sha256=self.winner_sha256,
        )


class CandidateRow(Row):
    """One of several videos that a model makes of a prompt, to be scored against the others, or what was rejected."""

    candidate_id: str
    prompt_id: str
    status: Literal["accepted", "rejected"] = "accepted"
    reason: str = ""
    origin: str  # its source, by name in pairs.sources
    split: Literal["train", "validation", "test"]
    source: str  # of the clip whose caption the prompt is; or a name of the list of prompts
    shot: int = 0
    start: int = 0
    caption: str
    number: int  # among those of the prompt
    seed: int
    generator: str
    model: str  # digest of the generator
    frames: int
    fps: float
    width: int
    height: int
    path: str  # in the store; of a rejected one the file that says why
    sha256: str
    real: str = ""  # the clip whose caption the prompt is
    real_sha256: str = ""

    @property
    def kind(self) -> str:
        """Of a rejection, the word before the colon of its reason, such as ``black``."""
        return self.reason.partition(":")[0]

    def sample(self) -> "SampleRow":
        """As what is measured."""
        return SampleRow(
            sample_id=self.candidate_id,
            model=CANDIDATES,
            clip_id=self.prompt_id,
            seed=self.number,
            steps=0,
            guidance=1.0,
            shift=None,
            caption=self.caption,
            path=self.path,
            sha256=self.sha256,
            real=self.real,
            real_sha256=self.real_sha256,
        )

    def prompt(self) -> PairRow:
        """What measures of samples are told of its prompt."""
        return PairRow(
            pair_id=self.candidate_id,
            split=self.split,
            clip_id=self.prompt_id,
            source=self.source,
            shot=self.shot,
            start=self.start,
            frames=self.frames,
            fps=self.fps,
            width=self.width,
            height=self.height,
            caption=self.caption,
            winner=self.path,
            winner_sha256=self.sha256,
            origin=self.origin,
        )


class HalfRow(Row):
    """One half of a pair, in figures that know nothing of quality; the page describes them in the words used here."""

    half_id: str
    pair_id: str
    half: Literal["winner", "loser"]
    path: str  # in the store
    sha256: str
    brightness: float = Field(description="mean luma, 0..255")
    contrast: float = Field(description="standard deviation of luma")
    motion: float = Field(description="mean absolute difference of neighbouring frames")
    sharpness: float = Field(description="variance of the Laplacian")
    file_size: int = Field(description="bytes")

    @classmethod
    def statistics(cls) -> dict[str, str]:
        """Column -> what it is, of those that compare both halves."""
        return {name: field.description for name, field in cls.model_fields.items() if field.description}


class LatentRow(Row):
    """The encoded pair: one safetensors file with `winner`, `loser`, `text` and the condition."""

    pair_id: str
    split: Literal["train", "validation", "test"]
    clip_id: str
    path: str
    sha256: str
    encoder: str  # digest of the model whose codec and text encoder were used
    shape: str  # of `winner`, C,F,H,W
    has_loser: bool
    origin: str = "gt"  # as of the pair
    generator: str = ""  # as of the pair
    weight: float = 1.0  # of the pair's loss
    label: Label = ""
    segments: str = ""  # comma-joined, of equal time each: 1 winner better, -1 loser better, 0 neither; empty: all 1
    empty: str = ""  # file of the empty caption's `text`; none for models that are given the guidance scale
    empty_sha256: str = ""

    def source_in(self, names: Container[str]) -> str:
        """The one of the names that it goes by, its source with its loser's generator before its source alone; empty
        if none."""
        return next((name for name in (f"{self.origin}.{self.generator}", self.origin) if name in names), "")


class SampleRow(Row):
    """A held-out first frame rendered by one model."""

    sample_id: str
    model: str  # base, or ARM/seedN
    clip_id: str
    seed: int
    steps: int
    guidance: float  # of the expert for high noise, where there are two
    guidance_low: float | None = None  # of the other
    shift: float | None  # none: the checkpoint's own
    solver: str = "checkpoint"  # as of negatives
    cache: str = "off"
    caption: str = ""
    path: str
    sha256: str
    real: str  # the real clip, in the store
    real_sha256: str


class ScoreRow(Row):
    """One number about one clip or sample, or the reason why there is none."""

    score_id: str
    model: str
    metric: str
    clip_id: str = ""
    seed: int = -1
    value: float | None = None
    missing: str = ""


class ReconstructionRow(Row):
    """One number about what an autoencoder gives back of a clip, or the reason why there is none."""

    row_id: str
    model: str  # base, or the name of a generator
    metric: str
    clip_id: str
    resolution: int  # short side that was asked for, or that the clip has
    frames: int  # that were asked for, or that the clip has
    height: int = 0  # of what was encoded; 0: nothing was
    width: int = 0
    value: float | None = None
    missing: str = ""


class SuiteSampleRow(Row):
    """A video of a suite of prompts, rendered by one model."""

    sample_id: str
    suite: str
    model: str  # base, or ARM/seedN
    name: str  # of its file, as VBench wants it: PROMPT-INDEX.mp4
    prompt: str
    index: int  # among the videos of the prompt
    image: str = ""  # first frame that it was given, by its name among VBench's images
    image_sha256: str = ""
    seed: int
    steps: int
    guidance: float  # of the expert for high noise, where there are two
    guidance_low: float | None = None  # of the other
    shift: float | None  # none: the checkpoint's own
    solver: str = "checkpoint"
    cache: str = "off"
    frames: int
    fps: float
    width: int
    height: int
    path: str  # in the store
    sha256: str


class SuiteScoreRow(Row):
    """What VBench says of a video of a suite in a dimension, or the reason why that is not known."""

    score_id: str
    suite: str
    model: str
    dimension: str
    name: str = ""  # of the video; empty: no video was measured, for the reason that is given
    value: float | None = None  # a fraction
    weight: float = 1.0  # how much it counts in the dimension's mean
    missing: str = ""  # empty with no value: VBench leaves it out on purpose, since no object of the colour is in it


class AnswerRow(Row):
    """What a person answered about two videos, or about one: a line of `answers.parquet`.

    ``a`` and ``b`` are always the same two of a comparison, whichever of them was shown on the left. Two videos of one
    prompt are a pair for training (the better one as the winner), a single one with its answers is labelled.
    """

    answer_id: str
    form: Literal["pair", "clip"]
    rater: str
    axis: Literal["VQ", "PF", "generated", "product", "professional"]  # the last three of a single clip
    prompt_id: str  # the clip whose caption (and first frame) was given
    caption: str
    task: Literal["i2v", "t2v"]
    arm_a: str  # base, an arm, or real
    arm_b: str = ""  # of a gold pair `spoiled`; of a single clip none, as all of b
    model_a: str  # base, ARM/seedN, or real
    model_b: str = ""
    seed: int = -1  # of the noise that both began with
    path_a: str  # in the store
    path_b: str = ""
    sha256_a: str
    sha256_b: str = ""
    answer: Literal["a", "same", "b", "yes", "no"]  # which is better; of a single clip whether it is so
    left: Literal["a", "b", ""] = ""  # which was shown on the left
    gold: Literal["a", "b", ""] = ""  # the answer that is known to be right: such a pair checks attention alone
    repeat: int = 0  # 1: the rater was shown the same before, the other way round; it checks agreement with oneself
    when: str  # UTC, ISO 8601
    seconds: float | None = None  # that it took
    origin: str = "page"  # or the file that it was imported from


class LabelRow(Row):
    """What people say of a single video: a line of `labels.parquet`, which training may take for labels."""

    label_id: str  # its bytes, and the question
    path: str  # in the store
    sha256: str
    model: str  # base, ARM/seedN, or real
    prompt_id: str  # the clip whose caption (and first frame) was given
    caption: str
    task: Literal["i2v", "t2v"]
    question: Literal["generated", "product", "professional"]
    yes: int  # raters who said yes
    raters: int  # who answered


R = TypeVar("R", bound=Row)
