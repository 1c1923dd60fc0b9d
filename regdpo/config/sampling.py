"""The sections of the configuration for how videos are rendered."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from regdpo.core.section import AtLeastOne, Count, Fraction, Positive, Section
from regdpo.models.registry import CACHES, FAMILIES

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
    negative_prompt: str = Field(
        "", description="What guidance leads away from; empty: nothing, or with `mugv` the fixed text of its authors."
    )
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
