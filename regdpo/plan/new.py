"""A configuration for somebody's footage, model and GPUs, as commented YAML to go on from."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import jinja2

from regdpo.config.schema import Base
from regdpo.config.training import Parallel, TrainSettings
from regdpo.core.errors import UserError
from regdpo.data.names import shown
from regdpo.models.registry import FAMILIES
from regdpo.plan import architecture, layouts
from regdpo.plan.memory import Training
from regdpo.runtime.gpu_specs import GIB

SIZES = ((81, 480, 832), (49, 480, 832), (49, 480, 720), (33, 480, 832), (33, 320, 576), (17, 320, 576))
"""Frames, height and width of a clip; the first that fits is taken."""
SMALL = ((9, 64, 64), (9, 128, 128), (9, 256, 256))
"""The same without a GPU."""
FPS = {"cogvideox": 8, "hunyuan_video": 24, "ltx_video": 24}
"""Frames a second that a family's published checkpoints were trained with, where that is not 16 as of Wan."""
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


@dataclass(frozen=True)
class Chosen:
    """What fits."""

    base: Base
    size: tuple[int, int, int]
    upright: bool  # whether clips of that size turned round may stand beside it
    settings: TrainSettings
    said: str


def choose(wish: Wish) -> Chosen:
    """Family, task, size of the clips and layout.

    Raises:
        UserError: no family knows the model, or nothing fits.
    """
    base, found = recognised(wish)
    machine = layouts.Machine(wish.memory, wish.peak_flops)
    for size in SIZES if wish.gpu else SMALL:
        try:
            found.family.check_geometry(*size)
        except UserError:
            continue
        settings = TrainSettings(batch=wish.gpus, precision="bf16" if wish.gpu else "fp32")
        fitting = [it for it in layouts.estimates(Training(found, settings, *size, wish.gpus, 2), machine) if it.fits]
        if fitting:
            it = fitting[0]
            parallel = it.parallel.model_copy(update={"reference": "auto"})  # with LoRA there is but one
            said = f"by the plan {it.memory.total / GIB:.1f} of {wish.memory / GIB:.1f} GiB" if wish.gpu else ""
            return Chosen(base, size, _upright(found, size), settings.model_copy(update={"parallel": parallel}), said)
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


def recognised(wish: Wish) -> tuple[Base, architecture.Architecture]:
    """The section of the configuration and the denoiser: of a folder by the first family and task that take it."""
    values = {"model": wish.model, "revision": wish.revision or "main"}
    if not Path(wish.model).is_dir():
        ref = architecture.known(wish.model).ref
        experts = {"family": "wan22", "expert": "high"} if EXPERTS in wish.model else {"family": ref.family}
        base = Base.model_validate({**values, **experts, "task": wish.task or ref.task})
        return base, architecture.find(base)
    reasons = []
    for family, task, expert in product(FAMILIES, [wish.task] if wish.task else ["t2v", "i2v"], [None, "high"]):
        base = Base.model_validate({**values, "family": family, "task": task, "expert": expert})
        try:
            found = architecture.find(base)
            found.family.check()
        except UserError as error:
            reasons.append(f"{family}: {error}".replace(wish.model, ""))
            continue
        return base, found
    raise UserError(f"--model: {wish.model} is taken by no family ({'; '.join(dict.fromkeys(reasons))})")


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
