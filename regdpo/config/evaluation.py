"""The sections of the configuration for samples, scores and the report."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from regdpo.config.autoencoder import AutoencoderTraining
from regdpo.config.footage import HubModel, Weights
from regdpo.config.sampling import Sampling
from regdpo.core.section import Count, InputPath, NonNegative, Positive, Section
from regdpo.evaluate.suites import CUSTOM, OF_PROMPTS, expanded


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
    """Intervals by a hierarchical bootstrap over models and footage, with Student's t."""

    resamples: Count = 2000
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.95, description="Of the intervals; a word like better needs a p of at most the rest, after Holm's correction."
    )
    seed: int = 0


if TYPE_CHECKING:
    Dimension = str
    Suite = str
else:
    Dimension = Literal[("custom", *CUSTOM)]
    Suite = Literal[OF_PROMPTS]


class VBench(Section):
    """VBench, in an environment of its own (docs/how-to/vbench.md)."""

    python: Annotated[str, InputPath(program=True)] = Field(
        ".venv-vbench/bin/python",
        description="Interpreter of that environment (`make vbench`). It is a program that jobs run: whoever sets this "
        "key runs code.",
    )
    weights: Annotated[str, InputPath()] = Field(
        "weights/vbench",
        min_length=1,
        description="Folder of the weights that dimensions need. No job downloads one: `scripts/vbench_weights.py` "
        "lists them, and with `--fetch` gets what is missing. `dino_model` and `cotracker` in it are code that is run, "
        "so whoever writes there runs code.",
    )
    dimensions: list[Dimension] = Field(
        ["temporal_flickering"],
        description="Of the samples of held-out clips; `custom` stands for the six of Reg-DPO's tables. Only "
        "flickering needs no weights. `[]`: these samples are not asked about.",
    )
    suites: list[Suite] = Field(
        [],
        description="VBench's own prompts, which base and every arm render for it: `t2v` (16 dimensions, 5 videos a "
        "prompt, about 6,200 a model), `i2v` (VBench-I2V, about 5,600).",
    )
    prompts: Count | None = Field(
        None,
        description="Most prompts of a dimension of a suite, for a try; empty: all, without which there is no total.",
    )
    static: bool = Field(
        True,
        description="Flickering of `t2v` as VBench has it: of 25 videos a prompt those that stand still, which RAFT "
        "tells. false: of 5 as they are, without RAFT and without a total.",
    )
    seed: int = Field(0, description="Of the videos of suites.")
    shards: Count = Field(8, description="Jobs that a model's videos of a suite are divided into.")
    images: Annotated[str | None, InputPath()] = Field(
        None,
        description="VBench-I2V's images, a folder for each aspect ratio (`1-1`, `8-5`, `7-4`, `16-9`); the one that "
        "is nearest to the clips' is used.",
    )
    i2v_prompts: Annotated[str | None, InputPath()] = Field(
        None, description="`vbench2_i2v_full_info.json` of VBench's repository, which its package lacks."
    )

    @field_validator("suites")
    @classmethod
    def _each_once(cls, suites: list[str]) -> list[str]:
        if len({*suites}) < len(suites):
            raise ValueError("a suite occurs twice")
        return suites

    @model_validator(mode="after")
    def _images_are_named(self) -> Self:
        if "i2v" in self.suites and not (self.images and self.i2v_prompts):
            raise ValueError("suites: i2v needs `images` and `i2v_prompts`, which VBench's package lacks")
        return self

    @property
    def measured(self) -> list[str]:
        """The dimensions of held-out samples."""
        return expanded(self.dimensions)


class OmniScore(Section):
    """One number of how a video looks and fits its text (docs/reference/scores.md): our definition, of VBench's
    dimensions. `vbench.dimensions` has to name those that weigh something."""

    weights: dict[Dimension, NonNegative] = Field(
        {name: 0.5 if name == "dynamic_degree" else 1.0 for name in CUSTOM},
        description="Dimension -> weight; the default is VBench's own of quality, and 1 of overall consistency.",
    )

    @model_validator(mode="after")
    def _something_weighs(self) -> Self:
        if not self.weighing or "custom" in self.weights:
            raise ValueError(f"weights: of {', '.join(CUSTOM)}, at least one above 0")
        return self

    @property
    def weighing(self) -> dict[str, float]:
        """Those above 0."""
        return {name: weight for name, weight in self.weights.items() if weight}


class TextImage(HubModel):
    """A model of CLIP's form, asked of frames and their prompt."""

    frames: Count = Field(8, description="Frames of a video that are scored; the score is their mean.")


class VideoScore2(HubModel):
    """VideoScore2 (arXiv 2509.22799), a vision-language model that writes what it sees and then three scores."""

    prompt: Annotated[str, InputPath()] = Field(
        description="Text file of what it is asked, as its card has it, with `{prompt}` in the place of the caption."
    )
    fps: Positive = Field(2.0, description="Frames a second that it is shown.")
    max_new_tokens: Count = Field(1024, description="Longest answer; one that ends before its scores is `missing`.")


class Reward(HubModel):
    """A reward model: Qwen2-VL with a head that reads one number at each of its own tokens."""

    model: Annotated[str, InputPath(always=False)] = Field(
        description="The Qwen2-VL that it was made from: hub name or local folder."
    )
    weights: Annotated[str, InputPath()] = Field(
        description="File of the published weights: safetensors, or torch's, of which tensors alone are read. Adapters "
        "in it are merged by the rank and alpha of `model_config.json` beside it."
    )
    prompt: Annotated[str, InputPath()] = Field(
        description="Text file of what it is asked, as its repository has it, with `{prompt}` in the place of the "
        "caption, and with its tokens."
    )
    max_pixels: Count = Field(200704, description="Most pixels of a frame that it is shown.")


class VideoReward(Reward):
    """VideoReward (Liu et al., Improving Video Generation with Human Feedback, arXiv 2501.13918)."""

    fps: Positive = Field(2.0, description="Frames a second that it is shown.")


class Hps3(Reward):
    """HPS v3 (Ma et al., arXiv 2508.03789), which was made for pictures."""

    frames: Count = Field(4, description="Frames of a video that are scored; the score is their mean.")


class Frechet(Weights):
    """Distance of a model's samples to the real clips, as sets."""

    features: Literal["random", "video_mae"] = Field(
        "random",
        description="Of what a video is told by: of a random network with fixed weights, which needs none and knows "
        "nothing of what videos show, or of a VideoMAE.",
    )
    model: Annotated[str | None, InputPath(always=False)] = Field(
        None, description="`video_mae`: hub name or local folder."
    )
    revision: str | None = Field(None, description="Its pinned revision; needed for a hub name.")

    @model_validator(mode="after")
    def _model_is_pinned(self) -> Self:
        if (self.features == "video_mae") != bool(self.model):
            raise ValueError("`model` belongs to `features: video_mae`, which needs it")
        if self.model and not self.revision and not Path(self.model).exists():
            raise ValueError(f"`revision` is missing: pin the revision of {self.model}")
        return self


def _or_off(given: Any) -> Any:
    return VBench(dimensions=[]) if given is None else given


class Scores(Section):
    """What is measured on the samples."""

    primary: str = Field(
        "spectrum",
        description="The metric that the report's verdicts are about, and that its page leads with (docs/reference/"
        "scores.md has them). Declare it before you look. The default needs no weights and is what no objective "
        "minimises; held-out error is what `sft` minimises.",
    )
    error: HeldOutError = HeldOutError()
    vbench: Annotated[VBench, BeforeValidator(_or_off, json_schema_input_type=VBench | None)] = Field(
        VBench(), description="Empty: not measured."
    )
    omniscore: OmniScore | None = Field(None, description="Empty: not made.")
    frechet: Frechet | None = Field(Frechet(), description="Empty: not measured.")
    clip_score: TextImage | None = Field(
        None, description="CLIP score, a proxy of how well a prompt is followed; empty: not measured, as of the next."
    )
    pick_score: TextImage | None = Field(None, description="PickScore, a proxy of what people prefer.")
    hps: TextImage | None = Field(None, description="HPS v2, in the layout of transformers' CLIP; such a proxy.")
    hps3: Hps3 | None = Field(None, description="HPS v3; such a proxy.")
    video_score2: VideoScore2 | None = Field(None, description="A proxy of people's VQ and PF.")
    video_reward: VideoReward | None = Field(None, description="A proxy of people's VQ, motion quality and PF.")
    bootstrap: Bootstrap = Bootstrap()

    @model_validator(mode="after")
    def _omniscore_is_measured(self) -> Self:
        lacking = set(self.omniscore.weighing) - set(self.vbench.measured) if self.omniscore else set()
        if lacking:
            raise ValueError(f"omniscore: vbench.dimensions lacks {', '.join(sorted(lacking))}")
        return self

    @property
    def on(self) -> set[str]:
        """Keys of the sections whose measures are made."""
        return {*self.judges, *(["vbench"] if self.vbench.dimensions else [])}

    @property
    def judges(self) -> dict[str, Weights]:
        """The measures that a section of their own turns on, of those that are, by its key."""
        found = {key: getattr(self, key) for key in type(self).model_fields}
        return {key: it for key, it in found.items() if isinstance(it, Weights)}


class Lpips(Weights):
    """LPIPS (Zhang et al., arXiv 1801.03924) over AlexNet, version 0.1. Files are safetensors, or torch's, of which
    tensors alone are read."""

    network: Annotated[str, InputPath()] = Field(
        description="AlexNet's weights, as torchvision publishes them (`alexnet-owt-7be5be79.pth`)."
    )
    heads: Annotated[str, InputPath()] = Field(
        description="What LPIPS weighs its features by (`lpips/weights/v0.1/alex.pth` of its package)."
    )


class Reconstruction(Section):
    """What the autoencoders lose of held-out clips (`snakemake vae`, docs/reference/scores.md): those of the base and
    of generators with a model of their own."""

    resolutions: list[Count] = Field(
        [],
        description="Short sides in pixels that clips are made smaller to, such as `[256, 480, 720]`; empty: as they "
        "are. No clip is enlarged, so for 720 `clips` has to have such.",
    )
    frames: list[Count] = Field([], description="Frames of a clip that are taken from its first on; empty: all.")
    limit: Count | None = Field(64, description="Most clips, evenly over those of `samples.split`; empty: all.")
    lpips: Lpips | None = Field(None, description="Empty: it is `missing`.")
    train: AutoencoderTraining | None = Field(None, description="Empty: none is trained.")
    report: bool = Field(False, description="Whether the report has a section of it, and so waits for it.")


class Rating(Section):
    """What the blind rating page shows (`snakemake rate`, docs/how-to/rate.md)."""

    comparisons: list[tuple[str, str]] = Field(
        [],
        description="Two of `base`, `real` and the arms each, such as `[reg_dpo, dpo]`; empty: every arm against the "
        "base.",
    )
    prompts: Count | None = Field(
        100, description="Most prompts of a comparison, chosen by `seed`; empty: all that were sampled."
    )
    repeats: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.1, description="Share of them that every rater is shown once more, the other way round."
    )
    gold: Annotated[int, Field(ge=0)] = Field(
        5, description="Pairs with a known answer: a real clip against the mosaic of another."
    )
    attention: Annotated[float, Field(ge=0, le=1)] = Field(
        0.8,
        description="Share of answers about gold pairs that have to be right; of raters with less no answer counts.",
    )
    seed: int = Field(0, description="Of what is chosen, of every rater's order and of the sides.")

    def compared(self, arms: Iterable[str]) -> list[tuple[str, str]]:
        """The comparisons: those that are named, or every arm against the base."""
        return list(self.comparisons) or [(arm, "base") for arm in arms]


class Minimum(Section):
    """Evidence that the page asks for before it uses a word like better; with less it says "too little to say"."""

    sources: Count = Field(3, description="Videos that the held-out clips are of.")
    clips: Count = Field(
        10,
        description="Held-out clips that both sides of a comparison have; those of one shot that overlap in time lie "
        "on one stretch of footage, and count as one.",
    )
    seeds: Count = Field(2, description="Trainings of an arm, over all base models (`base.seeds`, `train.seeds`).")
    pairs: Count = Field(10, description="Pairs, for how far winners and losers differ in standard deviations.")


class Report(Section):
    """The page."""

    title: str = "regdpo report"
    examples: Count = Field(6, description="Clips shown as videos side by side.")
    minimum: Minimum = Minimum()
