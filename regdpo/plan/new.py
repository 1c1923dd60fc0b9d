"""A configuration for somebody's footage, model and GPUs, as commented YAML to go on from."""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import jinja2
import yaml

from regdpo.config import schema
from regdpo.config.schema import Base
from regdpo.config.training import Parallel, TrainSettings
from regdpo.core.errors import UserError
from regdpo.data.names import shown
from regdpo.models import checkpoint_json
from regdpo.models.registry import FAMILIES
from regdpo.plan import architecture, cost, layouts, stages
from regdpo.plan.memory import Size, Training
from regdpo.runtime.gpu_specs import GIB

SIZES = ((81, 480, 832), (49, 480, 832), (33, 480, 832), (33, 320, 576), (17, 320, 576), (49, 480, 720))
"""Frames, height and width of a clip; the first that fits, in memory and in time, is taken."""
SMALL = ((9, 64, 64), (9, 128, 128), (9, 256, 256))
"""The same without a GPU."""
FPS = {"cogvideox": 8, "hunyuan_video": 24, "ltx_video": 24}
"""Frames a second that a family's published checkpoints were trained with, where that is not 16 as of Wan."""
PAIRS = 200
"""To train on, by which time is reckoned: how many clips there will be, nobody knows before they are cut."""
PAIRED = "reg_dpo"
"""The arm that has losers."""
EXPERTS = "A14B"
"""In the names of Wan 2.2's checkpoints with two experts, whose denoisers are Wan 2.1's."""


@dataclass(frozen=True)
class Wish:
    """What somebody has."""

    model: str  # hub name, or folder
    revision: str
    task: Literal["i2v", "t2v"] | None  # none: what the checkpoint is for
    videos: str  # as the configuration is to name it
    count: int  # of videos
    gpu: str  # its name in the table; empty: none
    gpus: int
    memory: float  # bytes of one
    peak_flops: float
    days: float = 1  # that the whole may take, of these GPUs


@dataclass(frozen=True)
class Chosen:
    """What fits."""

    base: Base
    size: tuple[int, int, int]
    upright: bool  # whether clips of that size turned round may stand beside it
    settings: TrainSettings
    said: str  # of its memory
    days: float = 0  # that the plan reckons with; 0: nothing is reckoned
    longer: str = ""  # what would take longer


def choose(wish: Wish) -> Chosen:
    """Family, task, size of the clips and layout.

    Raises:
        UserError: no family knows the model, or nothing fits.
    """
    base, found = recognised(wish)
    slower: list[Chosen] = []
    for size in SIZES if wish.gpu else SMALL:
        chosen = _laid_out(wish, base, found, size)
        if chosen and chosen.days <= wish.days and _renders(wish, chosen, found):
            return replace(chosen, longer=_said(slower[:1]))
        if chosen and chosen.days > wish.days:
            slower.append(chosen)
    for chosen in sorted(slower, key=lambda it: it.days):
        if _renders(wish, chosen, found):
            return replace(chosen, longer=_said([it for it in slower[:1] if it is not chosen]))
    raise UserError(
        f"--model: by the plan no clip of {wish.model} fits {wish.gpus} x {wish.gpu or 'CPU'} "
        f"({wish.memory / GIB:.1f} GiB each); take a smaller model or more GPUs"
    )


def _upright(found: architecture.Architecture, size: tuple[int, int, int]) -> bool:
    """Whether the model takes clips of that size turned round, which need as much memory and time."""
    frames, height, width = size
    try:
        found.family.check_geometry(frames, width, height)
    except UserError:
        return False
    return height != width


def _laid_out(wish: Wish, base: Base, found: architecture.Architecture, size: Size) -> Chosen | None:
    """The fastest layout of a training on such clips, and how long all takes; none where none fits."""
    try:
        found.family.check_geometry(*size)
    except UserError:
        return None
    settings = TrainSettings(batch=wish.gpus, precision="bf16" if wish.gpu else "fp32")
    machine = layouts.Machine(wish.memory, wish.peak_flops)
    fitting = [it for it in layouts.estimates(Training(found, settings, *size, wish.gpus, 2), machine) if it.fits]
    if not fitting:
        return None
    it = fitting[0]
    parallel = it.parallel.model_copy(update={"reference": "auto"})  # with LoRA there is but one
    settings = settings.model_copy(update={"parallel": parallel})
    if not wish.gpu:
        return Chosen(base, size, _upright(found, size), settings, "")
    upright = _upright(found, size)
    chosen = Chosen(
        base, size, upright, settings, f"by the plan {it.memory.total / GIB:.1f} of {wish.memory / GIB:.1f} GiB"
    )
    values = _configured(wish, chosen)
    training = Training(found, values.train.arm_settings(PAIRED), *size, wish.gpus, 2)
    return replace(chosen, days=_days(cost.Asked(values, training, machine, PAIRS, 24, None)))


def _configured(wish: Wish, chosen: Chosen) -> schema.Config:
    return schema.check(yaml.safe_load(written(wish, chosen)))


def _renders(wish: Wish, chosen: Chosen, found: architecture.Architecture) -> bool:
    """Whether the stages around the training fit one of the GPUs, too."""
    if not wish.gpu:
        return True
    values = _configured(wish, chosen)
    needed = stages.stages(values, found, [it.size for it in values.clips.geometries], wish.memory).values()
    return all(stage.fullest.total <= wish.memory for stage in needed)


def _days(asked: cost.Asked) -> float:
    """Of all GPUs, for every stage that the plan can tell the time of."""
    return sum(part.hours for part in cost.parts(asked)) / asked.training.ranks / 24


def _said(longer: list[Chosen]) -> str:
    """Clips that would take too long."""
    return "".join(
        f"clips of {it.size[0]} frames of {it.size[1]}x{it.size[2]} would take {it.days:.1f} days (--days)"
        for it in longer
    )


def recognised(wish: Wish) -> tuple[Base, architecture.Architecture]:
    """The section of the configuration and the denoiser: of a folder by the first family and task that take it."""
    values = {"model": wish.model, "revision": wish.revision or "main"}
    if not Path(wish.model).is_dir():
        ref = architecture.known(wish.model).ref
        experts = {"family": "wan22", "expert": "high"} if EXPERTS in wish.model else {"family": ref.family}
        base = Base.model_validate({**values, **experts, "task": wish.task or ref.task})
        return base, architecture.find(base)
    if not (Path(wish.model) / "transformer/config.json").is_file():
        raise UserError(
            f"--model: {wish.model} has no transformer/config.json, so it is no checkpoint in diffusers' layout"
        )
    pipeline = _pipeline(Path(wish.model))
    named = [name for name, it in FAMILIES.items() if pipeline in it.pipelines.values()]
    reasons = []
    for family, task, expert in product(
        named or FAMILIES, [wish.task] if wish.task else ["t2v", "i2v"], [None, "high"]
    ):
        base = Base.model_validate({**values, "family": family, "task": task, "expert": expert})
        try:
            found = architecture.find(base)
            found.family.check()
        except UserError as error:
            reasons.append(str(error).removeprefix("base.task: "))
            continue
        return base, found
    if named:
        raise UserError(f"--model: {wish.model} is a {pipeline} of the family {named[0]}, and {reasons[0]}")
    raise UserError(
        f"--model: {wish.model} is taken by no family ({', '.join(FAMILIES)}); its model_index.json "
        f"{f'names {shown(pipeline)}' if pipeline else 'is missing or names no pipeline'}"
    )


def _pipeline(folder: Path) -> str:
    """The class that a checkpoint's model_index.json names; empty if none."""
    path = folder / "model_index.json"
    named = checkpoint_json.read_json(path).get("_class_name") if path.is_file() else None
    return named if isinstance(named, str) else ""


def written(wish: Wish, chosen: Chosen) -> str:
    """The configuration as YAML with comments."""
    frames, height, width = chosen.size
    parallel = chosen.settings.parallel.model_dump()
    template = Path(__file__).with_name("new.yaml.jinja").read_text()
    strict = jinja2.StrictUndefined
    return jinja2.Template(template, undefined=strict, trim_blocks=True, keep_trailing_newline=True).render(
        wish=wish,
        base=chosen.base,
        settings=chosen.settings,
        said=chosen.said,
        name=shown(Path(wish.model).name),
        local=Path(wish.model).is_dir(),
        frames=frames,
        height=height,
        width=width,
        upright=chosen.upright,
        fps=FPS.get(chosen.base.family, 16),
        shards=max(1, min(8, wish.count)),
        layout={key: value for key, value in parallel.items() if value != Parallel.model_fields[key].default},
    )
