"""The weights stage: what a training made, in a folder for people, with a README that says how to load it."""

import shutil
from importlib.metadata import version
from pathlib import Path

from regdpo.config.stage_inputs import TrainStage
from regdpo.core.model_names import ModelName
from regdpo.core.rows import Geometry
from regdpo.core.store import Store
from regdpo.core.temporaries import atomic, link_or_copy
from regdpo.models.loading import lines, video_lines
from regdpo.models.registry import FAMILIES
from regdpo.models.spec import ModelFile, ModelRef

ADAPTERS = ("pytorch_lora_weights.safetensors", "comfyui.safetensors")
TRANSFORMER = ("config.json", "*.safetensors.index.json", "diffusion_pytorch_model*.safetensors")
"""Patterns of what earlier weights may have left in a folder; all else in it is somebody's."""


def write(training: TrainStage, geometries: list[Geometry], model: ModelFile, store: Store, readme: Path) -> None:
    """Fill the folder of ``readme``, which comes last.

    Adapters are copied. A tuned transformer, which may have 57 GB, is the store's own files by hard links where the
    file system has them: a link by name would end with the store, and Snakemake would take a linked folder for its own.

    Raises:
        UserError: the store has lost what was trained, or adapters in it were changed.
    """
    ref, folder = model.ref, readme.parent
    source = store.existing(ref.lora or ref.transformer)
    if ref.lora:
        store.digest(ref.lora)
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in (*TRANSFORMER, *(ADAPTERS[:1] if ref.lora else ADAPTERS)):  # a rule of its own writes the second
        for old in folder.glob(pattern):
            old.unlink()
    for path in sorted(path for path in source.iterdir() if path.is_file()):
        if ref.lora:
            with atomic(folder / path.name) as temporary:
                shutil.copyfile(path, temporary)
        else:
            link_or_copy(path, folder / path.name)
    with atomic(readme) as temporary:
        temporary.write_text(text(training, geometries, model, store, folder), encoding="utf-8")


def text(training: TrainStage, geometries: list[Geometry], model: ModelFile, store: Store, folder: Path) -> str:
    """The README: base, revision, strength, and how to load them."""
    ref, settings = model.ref, training.settings
    base, tuned = place_of_base(ref, store)
    facts = [f"base: `{base}`, {f'revision `{ref.revision}`' if ref.revision else 'a folder'}"]
    if tuned:
        facts.append(f"its transformer: `{tuned}`, tuned before")
    if ref.lora:
        lora, loaded = settings.lora, "denoiser" if FAMILIES[ref.family].denoiser else "pipe"
        facts.append(
            f"strength: 1. alpha / rank = {lora.alpha} / {lora.rank} = {lora.alpha / lora.rank:g} is in the weights "
            f'already; half of it is `{loaded}.set_adapters("default_0", 0.5)`'
        )
    if ref.expert:
        facts.append(f"expert: {ref.expert} noise; the other one is the base's")
    terms = ", ".join(f"{name} {_short(value)}" for name, value in training.given().items())
    kept = (
        "best of the evaluations"
        if settings.export == "best"
        else "average"
        if settings.ema or settings.average
        else "last step"
    )
    facts += [
        f"objective: {training.objective}{f' ({terms})' if terms else ''}",
        f"training: {settings.steps} steps of {settings.batch} pairs, rate {settings.lr:g}, seed {model.seed}; {kept}",
        f"clips: {', or '.join(f'{it.frames} frames of {it.width} x {it.height}' for it in geometries)}, "
        f"{geometries[0].fps:g} a second",
        f"digest: `{model.digest}`",
    ]
    packages = f"diffusers {version('diffusers')}{' and peft' if ref.lora else ''}"
    what = "Adapters (LoRA) for" if ref.lora else "A transformer, tuned in full, of"
    parts = [
        f"# {model.arm}, seed {model.seed}{f', of {of}base' if (of := ModelName.parse(model.name).of) else ''}",
        f"{what} a {ref.family} model for {'image' if ref.task == 'i2v' else 'text'}-to-video, in diffusers' layout.",
        "\n".join(f"- {fact}" for fact in facts),
        "## Load it",
        f"With {packages}, in the folder that the workflow ran in:",
        _python(lines(ref, str(folder), base, tuned)),
    ]
    if FAMILIES[ref.family].denoiser:
        parts.append(
            "diffusers has no pipeline of it: have regdpo in the Python that loads it. `scripts/generate.py` samples "
            "with what was trained, and `scripts/convert.py back` writes the trained denoiser as the base was "
            "published, adapters merged in."
        )
        return "\n\n".join(parts) + "\n"
    parts += [
        'On a GPU then `pipe.to("cuda")`, or `pipe.enable_model_cpu_offload()` where memory is short. A video of '
        f"{'a' if len(geometries) > 1 else 'the'} size that was trained on:",
        _python(video_lines(ref, *geometries[0].size)),
    ]
    if ref.where == "store":
        parts.append(
            "The base was made by regdpo, and its autoencoder is regdpo's: have regdpo in the Python that loads it."
        )
    if ref.lora and FAMILIES[ref.family].original_names:
        parts.append(
            "For ComfyUI, `train.export_formats: [diffusers, comfyui]` has `comfyui.safetensors` written here."
        )
    if not ref.lora:
        parts.append(
            "The files may be one with those in the store (hard links). Read them only; save what you change elsewhere."
        )
    return "\n\n".join(parts) + "\n"


def place_of_base(ref: ModelRef, store: Store) -> tuple[str, str]:
    """What a pipeline is loaded from: the checkpoint, and the base's own transformer where adapters need one."""
    checkpoint = ref.path if ref.where != "store" else _near(store.existing(ref.path))
    tuned = _near(store.existing(ref.transformer)) if ref.lora and ref.transformer else ""
    return checkpoint, tuned


def _near(path: Path) -> str:
    """From the working directory, if it is below that."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
