"""Memory of the stages that run on one GPU: rendering, encoding and the held-out error.

Text encoder, autoencoder and denoiser take turns there (regdpo/models/turns.py), so a stage needs what the fullest turn
does. Weights are counted, what is computed is run on the meta device; docs/concepts/plan.md has the table.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from regdpo.config.schema import BASE, Config, Sampling
from regdpo.config.training import Lora
from regdpo.core.errors import UserError
from regdpo.models.family import Family
from regdpo.models.live import Need
from regdpo.models.spec import Autoencoding
from regdpo.models.tiling import SHARE, Direction
from regdpo.plan import autoencoder, layouts, trace
from regdpo.plan.architecture import Architecture, find
from regdpo.plan.labelled import in_files
from regdpo.plan.memory import FRAGMENTATION, RESERVED, Size
from regdpo.runs.planned import Answer
from regdpo.runtime.gpu_specs import GIB

FIRST = ("condition", "first")
"""Entries of a family's inputs that are latents of the first frame."""
DENOISER = "denoiser"
TRAINED_VAE = "VAE, training"
STAGES = ("negatives", "latents", "samples", "scores.error")
"""Keys of the stages that keep a model on a GPU beside the trainings."""
AUTOENCODER = "vae.train"
"""Key of a training that is none of a denoiser, where there is one: of each of its ranks."""


@dataclass(frozen=True)
class Turn:
    """What is on the device at one time, in bytes."""

    part: str
    weights: float
    work: float  # what it is given and what it computes
    margin: float
    tiles: bool = False

    @property
    def total(self) -> float:
        return self.weights + self.work + self.margin


@dataclass(frozen=True)
class Stage:
    """The turns of a stage, in their order."""

    key: str  # of its settings
    turns: tuple[Turn, ...]

    @property
    def fullest(self) -> Turn:
        return max(self.turns, key=lambda turn: turn.total, default=Turn("model, which is not known", 0, 0, 0))


def stages(settings: Config, architecture: Architecture, sizes: Sequence[Size], memory: float) -> dict[str, Stage]:
    """``STAGES`` and, where it is configured, ``AUTOENCODER``; of clips of several sizes those that need the most.

    Args:
        memory: bytes of a GPU, by which an autoencoder that may choose takes tiles.
    """
    every = [_stages(settings, architecture, size, memory) for size in _largest(sizes)]
    found = {key: max((one[key] for one in every), key=lambda stage: stage.fullest.total) for key in STAGES}
    if settings.vae.train:
        turns: tuple[Turn, ...] = ()
        with suppress(UserError):  # one whose architecture is not known counts nothing
            turns = (autoencoder_training(settings, sizes, architecture),)
        found[AUTOENCODER] = Stage(AUTOENCODER, turns)
    return found


def _largest(sizes: Sequence[Size]) -> list[Size]:
    """Without those that another covers, turned round where it has to be: they need no more."""
    turned = dict.fromkeys((frames, min(sides), max(sides)) for frames, *sides in sizes)

    def covered(one: Size, other: Size) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    return [one for one in turned if not any(covered(one, other) for other in turned)]


def _stages(settings: Config, architecture: Architecture, size: Size, memory: float) -> dict[str, Stage]:
    lora = _trained(settings)
    samples, latents = settings.samples.sampling, settings.latents
    how = Autoencoding(encode=latents.precision, tiling=latents.tiling)
    family = architecture.family.on_gpu(memory, how)
    encoding = [*_encoders(family, 1), *_encoded(family, size), *_autoencoder(family, "encode", size)]
    error = _denoiser(architecture, size, lora, settings.scores.error.batch, texts=1)
    found = [
        Stage("negatives", _negatives(settings, architecture, size, memory)),
        Stage("latents", tuple(encoding)),
        Stage("samples", _rendered(architecture, samples, size, lora, memory)),
        Stage("scores.error", (error,)),
    ]
    return {stage.key: stage for stage in found}


def autoencoder_training(settings: Config, sizes: Sequence[Size], base: Architecture | None = None) -> Turn:
    """A rank of ``vae.train``, which has to be configured.

    Args:
        base: in the place of the configured one.

    Raises:
        UserError: its architecture is not known.
    """
    training = settings.vae.train
    assert training is not None
    it = base if base and training.of == BASE else find(settings.autoencoder(training.of))
    need = autoencoder.need(it.family, training, sizes)
    return Turn(TRAINED_VAE, need.weights, need.work, _rest(need))


def check(stage: Stage, memory: float) -> Turn:
    """The fullest turn of a stage.

    Raises:
        UserError: it needs more than a GPU has.
    """
    turn = stage.fullest
    if turn.total <= memory:
        return turn
    raise UserError(
        f"{stage.key}: the {turn.part} needs {turn.total / GIB:.1f} of {memory / GIB:.1f} GiB on one GPU "
        f"({turn.weights / GIB:.1f} of weights, {turn.work / GIB:.1f} of what it computes); {_advice(turn)}; "
        "launch.force: true to try anyway"
    )


def ask(
    settings: Config,
    architecture: Architecture,
    sizes: Sequence[Size],
    ranks: int,
    memory: float,
    keys: Sequence[str] = (),
) -> list[Answer]:
    """What the plan says of trainings and stages as they are configured.

    Args:
        memory: bytes of a GPU. keys: as in ``Config.trainings`` and ``stages``; none for all.

    Raises:
        UserError: there is no such training or stage.
    """
    trainings = settings.trainings()
    known = [*trainings, *STAGES, *([AUTOENCODER] if settings.vae.train else [])]
    if other := [key for key in keys if key not in known]:
        raise UserError(f"--check: there is no {other[0]}; there are {', '.join(known)}")
    found = stages(settings, architecture, sizes, memory) if not {*keys} <= {*trainings} or not keys else {}
    answers = []
    for key in keys or known:
        try:
            if key in trainings:
                one, losers = trainings[key]
                need = layouts.check(one, architecture, sizes, ranks, memory, losers, key, in_files(settings, key))
                said = f"{need / GIB:.1f} of {memory / GIB:.1f} GiB per rank"
            else:
                turn = check(found[key], memory)
                said = f"{turn.total / GIB:.1f} of {memory / GIB:.1f} GiB, for the {turn.part}"
            answers.append(Answer(key=key, fits=True, said=f"{key}: needs {said}: fits, by the plan"))
        except UserError as error:
            answers.append(Answer(key=key, fits=False, said=str(error)))
    return answers


def _rest(need: Need) -> float:
    return (1 / SHARE - 1) * need.total


def _advice(turn: Turn) -> str:
    if turn.part == TRAINED_VAE and turn.work > turn.weights / 2:
        return "lower vae.train.crop or vae.train.windows"
    if turn.weights > turn.work:
        return "take a GPU with more memory, or a smaller model"
    if turn.part == DENOISER:
        return "lower clips.frames, the size of the clips or `batch` there"
    return "lower clips.frames or the size of the clips" + ("" if turn.tiles else ", or leave `tiling` at auto")


def _trained(settings: Config) -> Lora | None:
    """The adapters that samples are rendered with, those of the greatest rank; none where no arm has any."""
    trainings = [link.settings for link in settings.train.links.values()]
    return max((it.lora for it in trainings if it.tuning == "lora"), key=lambda lora: lora.rank, default=None)


def _negatives(settings: Config, architecture: Architecture, size: Size, memory: float) -> tuple[Turn, ...]:
    """Of all generators, each in jobs of its own; one whose architecture is not known counts nothing."""
    turns: list[Turn] = []
    for name in settings.negatives.named:
        base, key = settings.generator(name)
        with suppress(UserError):
            it = architecture if key == "base" else find(base)
            found = _rendered(it, settings.negatives.sampling_of(name), size, None, memory)
            many = len(settings.negatives.named) > 1
            turns += [replace(turn, part=f"{turn.part} of {name}") if many else turn for turn in found]
    return tuple(turns)


def _rendered(
    architecture: Architecture, sampling: Sampling, size: Size, lora: Lora | None, memory: float
) -> tuple[Turn, ...]:
    family = architecture.family.on_gpu(memory, Autoencoding(decode=sampling.decode, tiling=sampling.tiling))
    texts = 2 if sampling.guided and not family.embeds_guidance else 1
    return (
        *_encoders(family, sampling.batch),
        *_encoded(family, size),
        _denoiser(architecture, size, lora, sampling.batch, texts),
        *_autoencoder(family, "decode", size),
    )


def _encoders(family: Family, captions: int) -> list[Turn]:
    return [_turn(part, need) for part, need in family.encoder_needs(captions).items()]


def _encoded(family: Family, size: Size) -> list[Turn]:
    """The autoencoder at the first frame, which some families encode as a whole clip."""
    inputs = family.example_inputs(family.latent_shape(*size))
    latents = [inputs[name].shape[2] for name in FIRST if name in inputs]
    if family.ref.task != "i2v" or not latents:
        return []
    return _autoencoder(family, "encode", ((max(latents) - 1) * family.compression[0] + 1, *size[1:]))


def _autoencoder(family: Family, direction: Direction, size: Size) -> list[Turn]:
    tiles = family.tiled(direction, *size)
    need = family.autoencoder_need(direction, *size, tiles)
    if need is None:
        return []
    part = f"VAE, {direction[:-1]}ing" + (" in tiles" if tiles else "")
    return [Turn(part, need.weights, need.work, _rest(need), tiles)]


def _denoiser(architecture: Architecture, size: Size, lora: Lora | None, batch: int, texts: int) -> Turn:
    """
    Args:
        texts: that it is given with each clip, one after another: guidance has two.
    """
    _, frames, *latent = architecture.latent_shape(*size)
    a_pass = trace.Pass(architecture, latent[0], latent[1], lora, torch.bfloat16)
    return _turn(DENOISER, trace.inference(a_pass, frames, batch, texts))


def _turn(part: str, need: Need) -> Turn:
    return Turn(part, need.weights, need.work, RESERVED + FRAGMENTATION * need.work)
