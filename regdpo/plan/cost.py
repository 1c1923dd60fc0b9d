"""What a configuration costs in GPU-hours, stage by stage, as far as FLOPs tell; as Markdown."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from regdpo.config.schema import Config, Sampling
from regdpo.config.training import annealed
from regdpo.core.errors import UserError
from regdpo.data import prompt_lists
from regdpo.evaluate.suites import SUITES
from regdpo.objectives.schedule import EVAL_PAIRS, EVAL_SIGMAS
from regdpo.plan import faster, trace
from regdpo.plan.architecture import find
from regdpo.plan.labelled import in_files
from regdpo.plan.layouts import Estimate, Machine, estimate, estimates, impossible
from regdpo.plan.memory import Training
from regdpo.plan.table import assumptions
from regdpo.runtime.gpu_specs import GIB
from regdpo.sampling.denoise import nearest_step

HOUR = 3600
NOT_COUNTED = (
    "Not counted: captions, the VAE and the text encoder (latents; the ends of every rendering), VBench, loading, "
    "checkpoints, talk between ranks, the queue, what a failure repeats."
)


@dataclass(frozen=True)
class Asked:
    """What is wanted, by whom it is paid, and how long a Slurm job may take."""

    settings: Config
    training: Training  # of one arm: the model, the clips, the ranks
    machine: Machine
    pairs: int  # to train on
    job_hours: float
    price: float | None  # of a GPU-hour

    @property
    def clips(self) -> int:
        """Of all splits."""
        shares = self.settings.pairs
        return math.ceil(self.pairs / self.settings.negatives.a_clip / (1 - shares.validation - shares.test))

    @property
    def sampled(self) -> int:
        """Clips that samples are made of."""
        samples, shares = self.settings.samples, self.settings.pairs
        found = round(self.clips * (shares.test if samples.split == "test" else shares.validation))
        return min(found, samples.limit or found)

    @cached_property
    def forward(self) -> float:
        """GPU-hours of a pass over a clip, without adapters; the mean, where there are several sizes."""
        flops = self.training.mean(
            trace.flops(replace(one.a_pass, lora=None, dtype=torch.bfloat16), one.latent[1]).forward
            for one in self.training.each
        )
        return flops / (self.machine.peak_flops * self.machine.mfu) / HOUR

    @property
    def job_seconds(self) -> float:
        """In which a Slurm job trains, but for loading; regdpo/launch/launcher.py leaves at most half of it."""
        return HOUR * self.job_hours - min(self.settings.launch.leave, HOUR * self.job_hours / 2)


def markdown(asked: Asked) -> str:
    """GPU-hours by stage, and the layouts of the training."""
    training, machine, ranks = asked.training, asked.machine, asked.training.ranks
    return "\n\n".join(
        [
            f"{training.architecture.name}, {asked.pairs:,} pairs to train on, of {asked.clips:,} clips of "
            f"{training.shown}, "
            f"{ranks} x {machine.memory / GIB:.1f} GiB; {assumptions(machine)}.",
            _stages(asked),
            NOT_COUNTED,
            *_faster(asked),
            _layouts(asked),
            _jobs(asked),
        ]
    )


@dataclass(frozen=True)
class Part:
    """Of the whole cost."""

    stage: str  # in whose rules it falls
    name: str
    what: str  # is counted
    hours: float  # of a GPU
    arm: str = ""  # of a training
    generator: str = ""  # of negatives


def parts(asked: Asked) -> list[Part]:
    """Of every stage whose GPU-hours FLOPs tell."""
    settings, ranks = asked.settings, asked.training.ranks
    found = [_negatives(asked, name) for name in settings.negatives.named] if "gt" in settings.pairs.sources else []
    found += [_candidates(asked, name) for name in settings.pairs.ranked]
    if settings.base.pretrain:
        found.append(Part("base", "base", "made here, on other footage: not counted", 0.0))
    for name in settings.train.links:
        arm = _of_arm(asked, name)
        it = chosen(arm, asked.machine)
        trained = settings.trained
        what = f"{arm.settings.steps:,} steps of {it.seconds + it.seconds_before:.1f} s"
        what += f" x {trained} trainings" if trained > 1 else ""
        what += f" ({it.name})" if it.parallel != arm.settings.parallel else ""
        hours = trained * training_seconds(asked, arm, it) * ranks / HOUR
        found.append(Part("train", f"training, {name}", what, hours, name))
    models = len(settings.models)
    videos = models * asked.sampled * len(settings.samples.seeds)
    what, hours = _sampling(asked, settings.samples.sampling, videos)
    found.append(Part("samples", f"samples of {models} models", what, hours))
    for suite in settings.scores.vbench.suites:
        many = models * SUITES[suite].rendered(settings.scores.vbench.static, settings.scores.vbench.prompts)
        what, hours = _sampling(asked, settings.samples.sampling, many)
        found.append(Part("suite_samples", f"VBench's {suite} of {models} models", f"at most {what}", hours))
    passes = models * asked.sampled * settings.scores.error.timesteps
    found.append(Part("scores", "held-out error", f"{passes:,} passes", passes * asked.forward))
    return found


def _faster(asked: Asked) -> list[str]:
    """What would make the base's negatives cheaper; nothing where it makes none."""
    negatives, family = asked.settings.negatives, asked.settings.base.family
    name = next((name for name, it in negatives.named.items() if not it.model), None)
    if name is None or "gt" not in asked.settings.pairs.sources:
        return []
    one, embedded = negatives.named[name], asked.training.architecture.family.embeds_guidance
    videos = math.ceil(asked.clips * one.share) * (one.per_clip or negatives.per_clip) * asked.settings.times_made(name)
    rows = faster.table(negatives.sampling_of(name), family, embedded, videos * asked.forward)
    return ["What would make the negatives cheaper, each alone (docs/how-to/negatives.md; blank: not countable):", rows]


def _negatives(asked: Asked, name: str) -> Part:
    """Of one generator."""
    negatives = asked.settings.negatives
    one, (base, key) = negatives.named[name], asked.settings.generator(name)
    title = f"negatives, {name}" if negatives.generators else "negatives"
    try:
        other = asked if key == "base" else replace(asked, training=replace(asked.training, architecture=find(base)))
    except UserError:
        return Part("negatives", title, f"the architecture of {base.model} is not known: not counted", 0.0, "", name)
    videos = math.ceil(asked.clips * one.share) * (one.per_clip or negatives.per_clip)
    videos *= 1 if one.model else asked.settings.times_made(name)
    sampling = negatives.sampling_of(name)
    what, hours = _sampling(other, sampling, videos)
    if one.strength:
        made = _steps_from_winners(other.training, sampling, one.strength)
        what += f", from the winner {made:.1f} of the steps" if made else ", fewer of the steps from the winner"
        hours *= (made or sampling.steps) / sampling.steps
    return Part("negatives", title, what, hours, generator=name)


def _steps_from_winners(training: Training, sampling: Sampling, strength: tuple[float, float]) -> float:
    """How many of the steps are made of a video that begins with a clip, the mean over the sigmas that are drawn and
    over sizes; 0 if the grid of the checkpoint is not known here.
    """
    low, high = strength
    drawn = [low + (high - low) * (number + 0.5) / 16 for number in range(16)]
    family = training.architecture.family
    if not (Path(family.ref.path) / "scheduler").is_dir():
        return 0
    begun = [nearest_step(family, sampling, one.latent, sigma)[0] for one in training.each for sigma in drawn]
    return sampling.steps - sum(begun) / len(begun)


def _candidates(asked: Asked, name: str) -> Part:
    """Of one source of kind ``best_of_n``: the videos that pairs are chosen from."""
    one = asked.settings.pairs.ranked[name]
    most = ""
    if one.prompts and one.limit and not Path(one.prompts).exists():  # the list is to come
        prompts, most = one.limit, "at most "
    else:
        prompts = len(prompt_lists.read(one.prompts)) if one.prompts else asked.clips
    videos = min(prompts, one.limit or prompts) * one.count * asked.settings.times_made(name)
    what, hours = _sampling(asked, asked.settings.sampling_of_candidates(name), videos)
    return Part("candidates", f"videos to choose from, {name}", most + what, hours)


def _stages(asked: Asked) -> str:
    ranks, price = asked.training.ranks, asked.price
    found = parts(asked)
    rows = [*found, Part("", "**all**", "", sum(part.hours for part in found))]
    lines = [
        f"| stage | what is counted | GPU-hours | hours on {ranks} GPUs |" + (" price |" if price else ""),
        "|---|---|---:|---:|" + ("---:|" if price else ""),
    ]
    for part in rows:
        paid = f" {price * part.hours:,.0f} |" if price else ""
        lines.append(f"| {part.name} | {part.what} | {part.hours:,.0f} | {part.hours / ranks:,.1f} |{paid}")
    return "\n".join(lines)


def _sampling(asked: Asked, sampling: Sampling, videos: int) -> tuple[str, float]:
    """What is counted, and GPU-hours."""
    passes = sampling.passes(asked.training.architecture.family.embeds_guidance)
    more = " x 2 (guidance)" if passes == 2 * sampling.steps else f", {passes} passes" * (passes > sampling.steps)
    return f"{videos:,} videos x {sampling.steps} steps{more}", videos * passes * asked.forward


def _layouts(asked: Asked) -> str:
    arm = asked.training
    found = [it for it in estimates(arm, asked.machine) if it.fits]
    taken = chosen(arm, asked.machine)
    what = "samples" if arm.alone else "pairs with losers"
    lines = [
        f"| layout ({what}, {arm.settings.batch} a step) | GiB | s/step | hours | GPU-hours | "
        f"jobs of {asked.job_hours:g} h |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for it in [taken, *(it for it in found if it.name != taken.name)]:
        seconds = training_seconds(asked, arm, it)
        hours = seconds / HOUR
        name = f"**{it.name}**" if it is taken else it.name
        step = it.seconds + it.seconds_before
        lines.append(
            f"| {name} | {it.memory.total / GIB:.0f} | {step:.1f} | {hours:.1f} | {hours * arm.ranks:,.0f} | "
            f"{jobs(asked, seconds)} |"
        )
    return "\n".join(lines)


def _jobs(asked: Asked) -> str:
    settings, own = asked.settings, asked.training.settings.parallel
    it = chosen(asked.training, asked.machine)
    configured = "the configured layout" if it.parallel == own else f"the fastest that fits, since {_why_not(asked)}"
    requeues = jobs(asked, training_seconds(asked, asked.training, it)) - 1
    return (
        f"Bold: {configured}. A training leaves its Slurm job {settings.launch.leave:g} s before the limit and goes on "
        f"in the next; that takes `launch.requeues: {requeues}` at least, and it is {settings.launch.requeues}."
    )


def _why_not(asked: Asked) -> str:
    training = asked.training
    reason = impossible(training, training.settings.parallel)
    return f"the configured one cannot be ({reason})" if reason else "the configured one does not fit"


def times(asked: Asked) -> list[str]:
    """How long every arm trains in its layout, in a person's units; one line each, and one for all."""
    trained, ranks = asked.settings.trained, asked.training.ranks
    lines, whole = [], 0.0
    for name in asked.settings.train.links:
        arm = _of_arm(asked, name)
        it = chosen(arm, asked.machine)
        seconds = trained * training_seconds(asked, arm, it)
        whole += seconds
        many = f" x {trained} trainings" if trained > 1 else ""
        lines.append(f"{name}: {arm.settings.steps:,} steps{many}, {_long(seconds, ranks)} ({it.name})")
    return [*lines, f"all arms one after another: {_long(whole, ranks)}"]


def _long(seconds: float, ranks: int) -> str:
    hours = seconds / HOUR
    span = f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"
    return f"{span} on {ranks} GPU{'s' * (ranks > 1)}, {hours * ranks:,.0f} GPU-hours"


def _of_arm(asked: Asked, name: str) -> Training:
    """On all clips, or on those of its sizes: by the mean of their shares at the first step and at the last."""
    settings, losers = asked.settings.trainings()[f"train.arms.{name}"]
    labelled = in_files(asked.settings, f"train.arms.{name}")
    link = asked.settings.train.links[name]
    of_losses: dict[str, Any] = {"halves": 2 if losers else 1, "labelled": labelled, "asked_first": link.asked_first}
    found = replace(asked.training, settings=settings, **of_losses)
    given = annealed(link.step.sizes)
    first, last = (sum(ends) for ends in zip(*given.values(), strict=True)) if given else (1.0, 1.0)
    shares = {size: one / first + other / last for size, (one, other) in given.items()}
    here = {"x".join(map(str, one.size)): one.size for one in found.each}
    if not shares or shares.keys() - here.keys():  # or the clips are others than configured
        return found
    many = {here[size]: share for size, share in shares.items()}
    return replace(Training.of(found.architecture, settings, many, found.ranks), **of_losses)


def chosen(training: Training, machine: Machine) -> Estimate:
    """The configured layout if that can be and fits, else the fastest that does.

    Raises:
        UserError: none fits.
    """
    own = training.settings.parallel
    if impossible(training, own) is None and (it := estimate(training, own, machine)).fits:
        return it
    best = next(iter(estimates(training, machine)), None)
    if best is None or not best.fits:
        raise UserError(f"--gpus: no layout of {training.ranks} ranks fits; without --cost it is told by how much")
    return best


def training_seconds(asked: Asked, training: Training, it: Estimate) -> float:
    """Of a whole training, with its evaluations."""
    settings = training.settings
    pairs = min(EVAL_PAIRS, round(asked.clips * asked.settings.pairs.validation))
    asks = math.ceil(settings.steps / settings.eval_every) + (training.halves - 1)  # once the reference
    passes = asks * pairs * EVAL_SIGMAS * training.a_sample
    return settings.steps * (it.seconds + it.seconds_before) + passes * asked.forward * HOUR / training.ranks


def jobs(asked: Asked, seconds: float) -> int:
    """Slurm jobs that a training takes, one after another."""
    return math.ceil(seconds / asked.job_seconds)
