"""The sections of the configuration that a training reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, create_model, model_validator

from regdpo.config.mistakes import overridden
from regdpo.core.digests import canonical
from regdpo.core.model_names import BASE, FOLDER
from regdpo.core.rows import REAL
from regdpo.core.section import BelowOne, Count, Name, NonNegative, Positive, Section, Share
from regdpo.objectives.registry import OBJECTIVES, all_terms, configurable


class Timesteps(Section):
    """The law that sigma (0 = data, 1 = noise) follows in training."""

    law: Literal["uniform", "logit_normal", "low_half"] = Field(
        "uniform", description="`low_half`: uniform over the half with less noise."
    )
    mean: float = Field(0.0, description="logit_normal: mean.")
    std: Positive = Field(1.0, description="logit_normal: standard deviation.")
    shift: Positive | Literal["by_size"] = Field(
        1.0,
        description="sigma' = s*sigma / (1 + (s-1)*sigma); 1 leaves it as it is. `by_size`: each clip's is that which "
        "the model samples such clips with, of a model that has one for each size (mugv).",
    )


class Lora(Section):
    """Low-rank adapters (peft)."""

    rank: Count = 16
    alpha: Count = 32
    targets: Literal["attention", "attention+ff"] | Annotated[list[str], Field(min_length=1)] = Field(
        "attention",
        description="Linear layers that get one: query, key, value and output of every attention; `attention+ff` also "
        "those of the feed-forward; or names of the model's own. Those of an added condition (`add_k_proj`, of Wan's "
        "first frame) are named or left alone, as in diffusers' own recipes.",
    )


LARGE = 1e9
"""Parameters from which blocks are recomputed unless told otherwise."""


class Parallel(Section):
    """How ranks share one training. It changes no result but for rounding. Ranks not taken here are data parallel."""

    context: Count = Field(1, description="Ranks that split one video's tokens (Ulysses); divides the attention heads.")
    tensor: Count = Field(
        1,
        description="Ranks that split every block's matrices and the tokens between them; with `context` it divides "
        "heads and tokens. For ranks of one machine with fast links.",
    )
    pair: Literal[1, 2] = Field(1, description="2: winner and loser of a pair on different ranks.")
    halves: Literal["joint", "separate", "sequential"] = Field(
        "joint",
        description="Where a rank has both halves. `joint`: one forward pass over both; `separate`: two forward "
        "passes, both graphs alive; `sequential`: one graph at a time, for one more forward pass.",
    )
    replicate: Count = Field(1, description="HSDP: groups of ranks that each hold the whole model between them.")
    activation_checkpointing: Literal["auto", "none", "full"] | Count = Field(
        "auto",
        description="Recompute blocks in the backward pass: none, all (`full`), or every nth. `auto`: all from a "
        "billion parameters on, which fit in no other way, else none.",
    )
    reference: Literal["auto", "adapters", "copy", "offload", "cached"] = Field(
        "auto",
        description="Who gives the reference's errors. `adapters`: the policy without its adapters; `copy`: a frozen "
        "sharded copy; `offload`: that copy in main memory; `cached`: the untrained policy, asked once before step 1. "
        "`auto`: `adapters` with LoRA, else `copy`; with `reference_ema`, and where adapters go on from an earlier "
        "step, always `copy`.",
    )
    attention: Literal["auto", "flash", "_flash_3_hub", "_native_flash", "_native_cudnn", "native"] = Field(
        "auto",
        description="Attention backend by diffusers' name; `auto` takes the fastest that trains here, measured once.",
    )
    compile: bool = Field(False, description="torch.compile of every block.")

    def recompute(self, parameters: float) -> "Literal['none', 'full'] | int":
        """``activation_checkpointing`` of a model of so many parameters."""
        if self.activation_checkpointing == "auto":
            return "full" if parameters >= LARGE else "none"
        return self.activation_checkpointing

    def group(self, losers: bool) -> int:
        """Ranks that work on the same pairs."""
        return self.tensor * self.context * (self.pair if losers else 1)

    def misfit(self, ranks: int, losers: bool, batch: int | None = None) -> str | None:
        """Why so many ranks cannot be laid out so, or not share ``batch`` pairs; None if they can.

        Without losers no rank is set apart for them.
        """
        pair = self.pair if losers else 1
        if self.tensor > 1 and self.compile:
            return f"parallel.tensor {self.tensor} and parallel.compile do not go together; leave one out"
        if ranks % self.group(losers):
            split = f"parallel.tensor {self.tensor} x " if self.tensor > 1 else ""
            return f"{split}parallel.context {self.context} x parallel.pair {pair} does not divide {ranks} ranks"
        if ranks % (self.replicate * self.tensor):
            split = f" x parallel.tensor {self.tensor}" if self.tensor > 1 else ""
            return f"parallel.replicate {self.replicate}{split} does not divide {ranks} ranks"
        data = ranks // self.group(losers)
        if batch is not None and batch % data:
            return f"batch {batch} does not divide over {data} data ranks"
        return None

    def straddles(self, ranks: int, nodes: int) -> str | None:
        """Why a layout that fits is slow on so many machines; None if each video stays within one."""
        here = ranks // nodes
        if nodes == 1:
            return None
        if here % self.tensor:
            return (
                f"parallel.tensor {self.tensor} splits blocks over machines of {here} ranks each: every block "
                f"exchanges all tokens six times over the network; a divisor of {here} would not"
            )
        if here % (self.context * self.tensor) == 0:
            return None
        return (
            f"parallel.context {self.context} splits videos over machines of {here} ranks each: every block exchanges "
            f"all their tokens over the network; a divisor of {here // self.tensor} would not"
        )


class ReferenceEma(Section):
    """A reference that follows the policy (as in RealDPO's code); it is a copy of its own."""

    decay: Share = 0.999
    every: Count = Field(100, description="Steps between updates.")


class Averaging(Section):
    """What `export: average` averages: the weights after every so many steps."""

    every: Count = Field(description="Steps between them; it divides `steps`.")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9,
        description="They count as decay^k, k = 0 for the last, 1 for those before it and so on, divided by the sum; "
        "1: all alike.",
    )


class Guards(Section):
    """When a training stops by itself."""

    nonfinite: Count = Field(5, description="Stop after this many steps in a row were skipped as not finite.")
    drift: Literal["off", "warn", "stop"] = Field(
        "warn", description="What to do when accuracy is near 1 while the win gap stays above 0."
    )
    drift_steps: Count = Field(100, description="Steps over which that is looked at.")


class TrainSettings(Section):
    """What all arms share. An arm may override any of it under `settings`."""

    steps: Count = Field(6000, description="Optimiser steps.")
    batch: Count = Field(2, description="Pairs per optimiser step, over all ranks.")
    micro_batch: Count = Field(1, description="Pairs a rank takes through the model at once; the rest accumulates.")
    optimizer: Literal["adamw", "adamw_8bit"] = Field("adamw", description="`adamw_8bit` needs torchao.")
    lr: Positive = Field(5e-6, description="AdamW's learning rate.")
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NonNegative = 0.01
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up.")
    schedule: Literal["constant", "cosine"] = Field("constant", description="After the warm-up.")
    clip_norm: Positive = Field(1.0, description="Greatest global gradient norm.")
    tuning: Literal["full", "lora"] = "lora"
    lora: Lora = Lora()
    precision: Literal["fp32", "bf16"] = Field("bf16", description="Of the forward pass; master weights stay fp32.")
    timesteps: Timesteps = Timesteps()
    shared_noise: bool = Field(True, description="Winner and loser get the same noise and timestep.")
    pair_weights: Literal["as_given"] | None = Field(
        None,
        description="`as_given`: each pair's loss counts as much as its weight says; empty: weights are scaled to mean "
        "1 over the training pairs, so that they do not change the size of a step.",
    )
    caption_dropout: BelowOne = Field(
        0.1,
        description="Share of pairs, drawn anew each step, whose halves are both given the empty caption, so that "
        "guidance goes on having an answer without caption to lead away from. Set 0 where samples are made without "
        "guidance; models that are given the guidance scale have none dropped.",
    )
    ema: Share | None = Field(
        None,
        description="Decay of an average of the weights, which is evaluated and exported; after step n it is at most "
        "n / (n + 9), so that the untrained start has no share.",
    )
    reference_ema: ReferenceEma | None = Field(None, description="A reference that follows the policy; empty: fixed.")
    guards: Guards = Guards()
    export: Literal["last", "best", "average"] = Field(
        "last",
        description="Weights of the last step, of the evaluation with the least validation error, or the average that "
        "`average` says.",
    )
    average: Averaging | None = Field(None, description="Of `export: average`; empty: there is none.")
    checkpoint_every: Count = Field(300, description="Steps between checkpoints.")
    keep: Count = Field(2, description="Last checkpoints kept.")
    eval_every: Count = Field(300, description="Steps between evaluations on the validation split.")
    parallel: Parallel = Parallel()

    @model_validator(mode="after")
    def _reference_fits(self) -> Self:
        kind = self.parallel.reference
        if kind == "adapters" and self.tuning == "full":
            raise ValueError("parallel.reference: `adapters` needs tuning `lora`; take `copy`, `offload` or `cached`")
        if self.reference_ema and kind in ("adapters", "cached"):
            raise ValueError(
                "reference_ema: needs parallel.reference `copy` or `offload`: other references cannot move"
            )
        if (self.export == "average") != (self.average is not None):
            raise ValueError("export `average` and the section `average` go together: give both or neither")
        if self.average and self.steps % self.average.every:
            raise ValueError(f"average.every: {self.average.every} does not divide steps, {self.steps}")
        if self.average and self.ema:
            raise ValueError("average: `ema` is an average too; leave one of them out")
        if self.parallel.pair == 2 and self.parallel.halves != "joint":
            raise ValueError("parallel.halves: a rank of `pair: 2` has one half; leave it out")
        return self


def reference_kind(settings: TrainSettings, parallel: Parallel, losers: bool, adapted: bool = False) -> str:
    """Who gives the reference's errors: ``none``, or a kind of ``parallel.reference`` other than ``auto``.

    Args:
        adapted: the start has adapters, so that the policy without any is not the reference.
    """
    if not losers:
        return "none"
    if parallel.reference != "auto":
        return parallel.reference
    return "copy" if settings.tuning == "full" or settings.reference_ema or adapted else "adapters"


def unfit(objective: str, parallel: Parallel) -> str | None:
    """Why an objective cannot be trained in such a layout; None if it can."""
    needs = OBJECTIVES[objective].needs
    if "products" in needs and parallel.pair == 2:
        return (
            f"parallel.pair: 2 cannot train {objective}, which compares the residuals of both halves on one rank; take "
            "pair 1"
        )
    if "m" in needs and parallel.reference == "cached":
        return (
            f"parallel.reference: cached cannot train {objective}, which needs the reference's residuals and not its "
            "errors alone; take copy, offload or (with LoRA) adapters"
        )
    return None


class _Terms(Section):
    """The terms of an objective."""

    def given(self) -> dict[str, Any]:
        """The terms that were given, as the configuration has them."""
        return self.model_dump(mode="json", include={*all_terms()}, exclude_none=True)


if TYPE_CHECKING:

    class Terms(_Terms):
        """The terms of an objective."""

        def __getattr__(self, name: str) -> Any: ...

    ObjectiveName = str
else:
    Terms = create_model(
        "Terms",
        __base__=_Terms,
        __module__=__name__,
        __doc__=_Terms.__doc__,
        **{name: (kind | None, Field(None, description=meaning)) for name, (kind, meaning) in all_terms().items()},
    )
    ObjectiveName = Literal[configurable()]


PREVIOUS = "previous"
"""The step before, or in the later rounds of a step the round before."""


Size = Annotated[str, Field(pattern=r"^[1-9]\d*x[1-9]\d*x[1-9]\d*$")]
"""Frames, height and width of clips."""
SourceName = Annotated[str, Field(pattern=r"^(gt\.)?[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""A source of pairs, or its pairs whose losers one generator made."""
Annealed = NonNegative | tuple[NonNegative, NonNegative]
"""A share, or those of the first and the last step."""


def annealed(shares: Mapping[str, Annealed]) -> dict[str, tuple[float, float]]:
    """The shares of the first and the last step."""
    return {name: share if isinstance(share, tuple) else (share, share) for name, share in shares.items()}


class _Named(Section):
    """What has an objective, which comes before its terms."""

    objective: ObjectiveName


class Step(Terms, _Named):
    """One training of an arm that is a chain of them (docs/concepts/chains.md)."""

    settings: dict[str, Any] = Field({}, description="Keys of `train.settings` that this step overrides.")
    start: Name | None = Field(
        None,
        description="What is trained on, and is the reference: `base`, `previous` (the step before), or an arm, of "
        "which it is the last step. Empty: `previous`, or `base` for the first step.",
    )
    adapters: Literal["go_on", "merge"] = Field(
        "go_on",
        description="Where the start has adapters: they are trained on (with the same `lora`), or are merged into its "
        "weights first.",
    )
    generator: Name = Field(
        BASE,
        description="Who makes the losers of source `gt`, and the videos of kind `best_of_n`: `base` (or "
        "`negatives.generators`), `previous` (the start of this step), or an arm, of which it is the last step.",
    )
    sources: dict[SourceName, Annealed] = Field(
        {},
        description="Name of a source of `pairs.sources`, or `gt.GENERATOR` for the pairs whose losers that generator "
        "made -> its share of the steps, of whatever sum; or [from, to], "
        "which changes in a straight line from the first step to the last. Empty: all sources, as many as there are.",
    )
    sizes: dict[Size, Annealed] = Field(
        {},
        description="The same of sizes of clips, written as FRAMESxHEIGHTxWIDTH (`clips.buckets`), such as "
        "`49x480x832`, or `1x480x832` of images.",
    )
    rounds: Count = Field(
        1, description="Times that the step is done, each from the outcome of the last, with negatives of that."
    )

    @model_validator(mode="after")
    def _terms_fit(self) -> Self:
        if not self.objective:
            return self
        terms = OBJECTIVES[self.objective].terms
        needed = {name for name, term in terms.items() if term.needed}
        allowed = set(terms) - needed
        given = set(self.given())
        if needed - given or given - needed - allowed:
            raise ValueError(
                f"objective `{self.objective}` takes {sorted(needed) or 'no terms'}"
                f"{f' and may be given {sorted(allowed)}' if allowed else ''}, got {sorted(given)}"
            )
        if self.r_scale is not None and self.r != "dgr":
            raise ValueError("`r_scale` scales r = dgr; it has no use here")
        return self

    @model_validator(mode="after")
    def _shares_are_some(self) -> Self:
        for key, given in (("sources", self.sources), ("sizes", self.sizes)):
            if given and not all(map(any, zip(*annealed(given).values(), strict=True))):
                raise ValueError(f"{key}: at the first or the last step all shares are 0")
        return self

    @model_validator(mode="after")
    def _rounds_are_fresh(self) -> Self:
        if self.rounds > 1 and self.generator != PREVIOUS:
            raise ValueError("`rounds` are for fresh negatives; give `generator: previous`")
        return self


class Arm(Step):
    """One training, or a chain of them as `steps`."""

    objective: ObjectiveName | None = None  # type: ignore[assignment]
    steps: list[Step] = Field(
        [], description="One training after another, in the place of all the other keys but `settings`."
    )

    @model_validator(mode="after")
    def _one_or_many(self) -> Self:
        if bool(self.objective) == bool(self.steps):
            raise ValueError("give an `objective`, or `steps` that each have one")
        fields = type(self).model_fields.items()
        more = [key for key, it in fields if key not in ("steps", "settings") and getattr(self, key) != it.default]
        if self.steps and more:
            raise ValueError(f"{', '.join(f'`{key}`' for key in more)}: with `steps`, give it to a step")
        return self

    @property
    def parts(self) -> Sequence[Step]:
        """Its steps."""
        return self.steps or [self]


@dataclass(frozen=True)
class Link:
    """One training of an arm, expanded: a step, or a round of it."""

    name: str
    """The arm's for the last, else the arm's with ``.N``, counted from 1."""
    arm: str
    key: str
    """Where it stands in the configuration."""
    step: Step
    settings: TrainSettings
    start: str
    """The link that it starts from; empty: the base."""
    by: str
    """The link that makes its losers; empty: the base."""

    @property
    def adapted(self) -> bool:
        """Whether it trains adapters."""
        return self.settings.tuning == "lora"

    @property
    def asked_first(self) -> bool:
        """Whether all micro-batches of a step are passed once before it, for the reference point of them all."""
        return "reference_point" in OBJECTIVES[self.step.objective].needs and self.step.point_decay is None


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
        for name in self.arms:
            if name in (BASE, PREVIOUS, "pretrain", REAL) or FOLDER.fullmatch(name):
                raise ValueError(f"arms.{name}: that name is taken")
        seen: dict[str, str] = {}
        for name in self.arms:
            mine = [link for link in self.links.values() if link.arm == name]
            for it in mine:
                if reason := unfit(it.step.objective, it.settings.parallel):
                    raise ValueError(f"arms.{name}: {reason}")
            apart = {"settings", "start", "rounds", "steps"}
            steps = [it.step.model_dump(exclude=apart, exclude_none=True) for it in mine]
            starts = ["" if it.start.startswith(f"{name}.") else it.start for it in mine]
            same = canonical([steps, starts, [it.settings.model_dump() for it in mine]])
            if same in seen:
                raise ValueError(f"arms.{name}: is the same as {seen[same]}")
            seen[same] = name
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one occurs twice")
        return self

    @model_validator(mode="after")
    def _starts_fit(self) -> Self:
        for link in self.links.values():
            done, one = [link.name], link
            while one.start:
                one = self.links[one.start]
                if one.name in done:
                    raise ValueError(f"{link.key}.start: goes in a circle ({' <- '.join([*done, one.name])})")
                done.append(one.name)
        left, more = dict(self.links), [""]
        while more:  # those of which all that they need can be made
            more = [name for name, it in left.items() if it.start not in left and it.by not in left]
            left = {name: it for name, it in left.items() if name not in more}
        if circle := [link for link in left.values() if link.step.generator != PREVIOUS and link.by]:
            raise ValueError(f"{circle[0].key}.generator: {circle[0].by} is trained on what this makes itself")
        for link in self.links.values():
            start = self.links.get(link.start)
            has = start is not None and start.adapted
            if link.step.adapters == "merge" and not has:
                raise ValueError(f"{link.key}.adapters: {link.start or BASE} has none to merge; leave it out")
            if start is None or not has or link.step.adapters == "merge":
                continue
            merge = "give `adapters: merge` to have them merged first"
            if not link.adapted:
                raise ValueError(f"{link.key}: tuning `full` cannot go on with the adapters of {link.start}; {merge}")
            if link.settings.lora != start.settings.lora:
                raise ValueError(f"{link.key}: its `lora` is not that of {link.start}, whose adapters go on; {merge}")
            if link.settings.parallel.reference == "adapters":
                raise ValueError(
                    f"{link.key}.settings.parallel.reference: without its adapters it would be the base, and the "
                    "reference is the start; take `copy`, `offload` or `cached`"
                )
        return self

    @cached_property
    def links(self) -> dict[str, Link]:
        """All trainings of all arms by name, in the configuration's order."""
        found: dict[str, Link] = {}
        for arm, row in self.arms.items():
            rounds = [(place, step, number) for place, step in enumerate(row.parts) for number in range(step.rounds)]
            names = [f"{arm}.{number}" for number in range(1, len(rounds))] + [arm]
            for name, before, (place, step, number) in zip(names, ["", *names], rounds, strict=False):
                key = f"arms.{arm}.steps.{place}" if row.steps else f"arms.{arm}"
                settings = overridden(self.settings, row.settings, f"arms.{arm}.settings")
                if row.steps:
                    settings = overridden(settings, step.settings, f"{key}.settings")
                start = before if number else self._start(step, before, key)
                by = start if step.generator == PREVIOUS else self._generator(step, key)
                found[name] = Link(name, arm, key, step, settings, start, by)
        return {name: replace(link, settings=self._with_reference(link, found)) for name, link in found.items()}

    @staticmethod
    def _with_reference(link: Link, links: dict[str, Link]) -> TrainSettings:
        """Its settings, with a copy for the reference where adapters go on."""
        start, settings = links.get(link.start), link.settings
        goes_on = start is not None and start.adapted and link.adapted and link.step.adapters == "go_on"
        if not goes_on or settings.parallel.reference != "auto":
            return settings
        parallel = settings.parallel.model_copy(update={"reference": "copy"})
        return settings.model_copy(update={"parallel": parallel})

    def _generator(self, step: Step, key: str) -> str:
        """The link that is named to make a step's losers, empty for the base."""
        if step.generator != BASE and step.generator not in self.arms:
            raise ValueError(f"{key}.generator: there is no arm {step.generator}; there are {', '.join(self.arms)}")
        return "" if step.generator == BASE else step.generator

    def _start(self, step: Step, before: str, key: str) -> str:
        """The link that a step starts from, empty for the base."""
        if step.start is None or step.start == PREVIOUS:
            if step.start and not before:
                raise ValueError(f"{key}.start: there is no step before; give `base` or an arm")
            return before
        if step.start != BASE and step.start not in self.arms:
            raise ValueError(f"{key}.start: there is no arm {step.start}; there are {', '.join(self.arms)}")
        return "" if step.start == BASE else step.start

    def way(self, name: str) -> list[Link]:
        """All trainings from the base to a link, which is the last."""
        link = self.links[name]
        return [*(self.way(link.start) if link.start else []), link]

    def arm_settings(self, name: str) -> TrainSettings:
        """The settings of a link, such as the last of an arm, which has the arm's name: the shared ones with its
        overrides."""
        return self.links[name].settings
