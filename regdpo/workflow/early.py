"""While jobs are planned, so that a dry run tells it too: is what they stand on there, and can the model take it?

Nothing is written, no program is started and no torch is loaded.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regdpo.config.autoencoder import TRAINED
from regdpo.config.schema import Base, Config
from regdpo.core import portable
from regdpo.core.errors import UserError, first_line
from regdpo.core.packaged import package_of, weights_file
from regdpo.data import footage, pair_lists, prompt_lists
from regdpo.data.captioner_registry import CAPTIONERS
from regdpo.data.pair_registry import PAIR_SOURCES
from regdpo.data.registry import FILTERS
from regdpo.evaluate import prompts
from regdpo.evaluate.measures import ITSELF, MEASURES, OMNISCORE, VBENCH, Metric, columns, measures_of
from regdpo.evaluate.suites import SUITES
from regdpo.evaluate.vbench_weights import sites
from regdpo.models import checkpoint_json
from regdpo.models.registry import FAMILIES
from regdpo.models.sizes import check_size
from regdpo.models.windows import check_frames, check_windows
from regdpo.objectives.registry import OBJECTIVES
from regdpo.parallel.sharing import check_context, check_tensor

VAE, TRANSFORMER, INDEX = "vae/config.json", "transformer/config.json", "model_index.json"
HEADS = "num_attention_heads"
ONNX = "onnxruntime"
CAPTIONING = ("transformers", "torchvision", "num2words")
"""Packages that a captioning model needs."""


def check(settings: Config, conda: bool = False) -> None:
    """Refuse what no job has to be started for to know.

    Args:
        conda: Snakemake makes the rules' environments.

    Raises:
        UserError: there is no footage; a list of prompts or pairs cannot be read, or has what an arm cannot take; the
            base cannot take clips of that size, or not be shared by ranks as a training asks; the captioner's
            environment is missing; the weights of a filter, or what runs them, are missing; the primary measure is
            none; the processor cannot make portable numbers.
    """
    if settings.portable:
        portable.check()
    ranked(settings, columns(settings.scores, settings.base.task), conda)
    imported(settings)
    geometry(settings)
    shared(settings)
    autoencoders(settings)
    scored(settings)
    suites(settings)
    if settings.footage:
        footage.list_videos(settings.videos)
        judges(settings, conda)
        if not conda:
            captioner(settings)


def ranked(settings: Config, measured: Mapping[str, Metric], conda: bool) -> None:
    """Refuse lists of prompts that cannot be read, and scores that no video would get.

    Args:
        measured: the metrics of samples. conda: as of ``check``.

    Raises:
        UserError: naming the source.
    """
    for name, it in settings.pairs.ranked.items():
        key, vbench = f"pairs.sources.{name}.candidates", settings.scores.vbench
        measures_of(f"{key}.score", it.score, settings.scores.on, settings.base.task)
        for metric in it.score:
            by_vbench = metric == OMNISCORE or metric.startswith(VBENCH)
            if metric not in measured:
                where = "give scores.omniscore" if metric == OMNISCORE else "name it in scores.vbench.dimensions"
                raise UserError(f"{key}.score: {metric} is not measured; {where}")
            if it.prompts and measured[metric].footage == ITSELF:
                raise UserError(
                    f"{key}.score: {metric} compares with a real clip, and `prompts` have none; take another"
                )
            if by_vbench and not conda and not any((site / "vbench").is_dir() for site in sites(vbench.python)):
                raise UserError(
                    f"{key}.score: {metric} is made by VBench, which {vbench.python} lacks; run `make vbench`"
                )
        if it.prompts:
            try:
                prompt_lists.read(it.prompts)
            except UserError as error:
                raise UserError(f"{key}.prompts: {error}") from None


def imported(settings: Config) -> None:
    """Refuse lists of pairs that cannot be read, and labelled samples for a training that has no use for them.

    Raises:
        UserError: naming the source.
    """
    labelled = set[str]()
    for name, it in settings.pairs.sources.items():
        if PAIR_SOURCES[it.kind].imported:
            try:
                rows = pair_lists.pairs_of(name, it)
            except OSError as error:
                raise UserError(f"pairs.sources.{name}: {it.path} cannot be read ({first_line(error)})") from None
            labelled |= {name} if any(row.label for row in rows) else set()
    for link in settings.train.links.values():
        objective, takes = OBJECTIVES[link.step.objective], link.step.sources or settings.pairs.sources
        alone = next((name for name in takes if name in labelled), None)
        if alone is None or not objective.paired:
            continue
        if not objective.labelled:
            raise UserError(
                f"train.{link.key}: {link.step.objective} compares winner and loser, and pairs.sources.{alone} has "
                "single videos with labels; name others as `sources`, or take kto, ddo or nft"
            )
        if link.settings.parallel.pair == 2:
            raise UserError(
                f"train.{link.key}: `parallel.pair: 2` splits winner and loser, and pairs.sources.{alone} has single "
                "videos with labels; take pair 1"
            )


def suites(settings: Config) -> None:
    """Refuse suites of VBench whose prompts or first frames are not there.

    Raises:
        UserError: naming them.
    """
    vbench, first = settings.scores.vbench, settings.clips.geometries[0]
    for suite in vbench.suites:
        listed = prompts.file_of(suite, vbench.python, vbench.i2v_prompts)
        static = SUITES[suite].static if vbench.static else ()
        every = prompts.read(suite, listed, SUITES[suite].dimensions, static, vbench.prompts)
        prompts.images_of(every, Path(vbench.images) if vbench.images else None, first)


def geometry(settings: Config) -> None:
    """Hold the size of the clips against the base and all generators, as far as the JSON files say that are here; a
    checkpoint that is not here yet is taken for one of its family's usual ones.

    Raises:
        UserError: naming a size that it can take.
    """
    _takes(settings.base, settings)
    for name in settings.negatives.named:
        model, key = settings.generator(name)
        try:
            _takes(model, settings)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None


def _takes(base: Base, settings: Config) -> None:
    clips = settings.clips
    cut = FAMILIES[base.family].cut
    if cut is None:
        return
    if base.pretrain:
        codec = base.pretrain.codec
        compression, patch = (codec.temporal, codec.spatial), cut.patch({})
    else:
        files = _files(base)
        _is_of_the_task(base, files)
        try:
            compression, patch = cut.compression(files.get(VAE, {})), cut.patch(files.get(TRANSFORMER, {}))
        except (TypeError, ValueError, ZeroDivisionError):
            return  # a damaged checkpoint, of which the base's stage tells more
    for number, geometry in enumerate(clips.geometries):
        try:
            check_size(base.family, geometry.size, compression, patch)
        except (TypeError, ValueError, ZeroDivisionError):
            return  # the same
        except UserError as error:
            key = str(error).partition(":")[0].removeprefix("clips.")
            own = clips.buckets and getattr(clips.buckets[number], key) is not None
            where = f"clips.buckets.{number}." if own else "clips."
            raise UserError(str(error).replace("clips.", where, 1)) from None


def shared(settings: Config) -> None:
    """Refuse trainings whose ranks cannot share the denoiser so, as far as the JSON files say that are here.

    Raises:
        UserError: naming what can be.
    """
    base, declared = settings.base, FAMILIES[settings.base.family].shared
    for key, (training, _) in settings.trainings().items():
        context, tensor = training.parallel.context, training.parallel.tensor
        if context == tensor == 1:
            continue
        heads = base.pretrain.transformer.heads if base.pretrain else _files(base).get(TRANSFORMER, {}).get(HEADS)
        heads = heads if isinstance(heads, int) and heads > 0 else None
        try:
            check_context(context, heads, None, "context" in declared, base.family)
            check_tensor(tensor, context, heads, None, "tensor" in declared, base.family)
        except UserError as error:
            raise UserError(f"{key}: {str(error).removeprefix('train.settings.')}") from None


def autoencoders(settings: Config) -> None:
    """Hold what ``vae`` measures and trains against the clips and the autoencoders, as far as the same files say.

    Raises:
        UserError: naming what to change.
    """
    for name in settings.autoencoders:
        base, training = settings.autoencoder(name), settings.vae.train if name == TRAINED else None
        cut, compression = FAMILIES[base.family].cut, _compression(base)
        if cut is None or compression is None:
            continue  # the stage tells
        check_frames(name, settings.vae.frames, compression[0])
        if training:
            frames = cut.window(max(training.windows), compression[0])
            check_windows(training, training.of, frames, compression[1], (it.size for it in settings.clips.geometries))


def _compression(base: Base) -> tuple[int, int] | None:
    """Frames and pixels of a latent, where they are known."""
    cut = FAMILIES[base.family].cut
    if base.pretrain:
        return base.pretrain.codec.temporal, base.pretrain.codec.spatial
    with suppress(TypeError, ValueError, ZeroDivisionError):  # of a damaged checkpoint
        found = cut.compression(_files(base).get(VAE, {})) if cut else ()
        if found and all(isinstance(it, int) and it > 0 for it in found):
            return found
    return None


def _is_of_the_task(base: Base, files: Mapping[str, Any]) -> None:
    """Refuse a checkpoint for image-to-video whose task is to be text-to-video, and the other way round."""
    cut, transformer = FAMILIES[base.family].cut, files.get(TRANSFORMER, {})
    takes, makes = transformer.get("in_channels"), transformer.get("out_channels")
    both = not cut or not cut.stacks or files.get(INDEX, {}).get("expand_timesteps")
    if both or not isinstance(takes, int) or not isinstance(makes, int):
        return
    task = "i2v" if takes > makes else "t2v"
    if task != base.task:
        raise UserError(
            f"base.task: {base.task}, and {base.model} is for {task} (its transformer takes {takes} channels and makes "
            f"{makes}); set task: {task}, or take a checkpoint for {base.task}"
        )


def judges(settings: Config, conda: bool = False) -> None:
    """Refuse filters and shots whose weights are not there; of the hub's the first job tells.

    Raises:
        UserError: naming what is missing.
    """
    shots = settings.clips.shots
    if "shots" in settings.clips.models and not (conda and package_of(shots.weights)):
        weights_file("clips.shots.weights", shots.weights)
    for key in settings.clips.weights:
        section = getattr(settings.clips, key)
        asks = f"clips.{key}"
        for name, path in section.files.items():
            if not (conda and package_of(path)):
                weights_file(f"{asks}.{name}", path)
        asked = {package for it in FILTERS.values() if it.weights == key for package in it.packages}
        if not conda and ONNX in asked and find_spec(ONNX) is None:
            raise UserError(f"{asks}: {ONNX} is not installed here; run `make filters`")


def scored(settings: Config) -> None:
    """Refuse measures whose files are not there, or that have no environment to run in; of the hub's models the job
    tells.

    Raises:
        UserError: naming what is missing.
    """
    for name, path in (settings.vae.lpips.files if settings.vae.lpips else {}).items():
        weights_file(f"vae.lpips.{name}", path)
    for key, section in settings.scores.judges.items():
        for name, path in section.files.items():
            weights_file(f"scores.{key}.{name}", path)
        needs = any(it.environment for it in MEASURES.values() if it.on == key)
        if needs and not shutil.which(settings.captions.python) and not all(map(find_spec, CAPTIONING)):
            raise UserError(
                f"scores.{key}: needs the environment of vision-language models, and there is no program "
                f"{settings.captions.python} (captions.python); run `make captioning`"
            )


def captioner(settings: Config) -> None:
    """Refuse a captioning model without an environment to run in, unless all is captioned.

    Raises:
        UserError: saying how to make it.
    """
    captions = settings.captions
    needs = CAPTIONERS[captions.source].environment
    if not needs or shutil.which(captions.python) or all(map(find_spec, CAPTIONING)):
        return
    if not Path(settings.paths.results, "captions.parquet").exists():
        raise UserError(
            f"captions.python: there is no program {captions.python}; run `make captioning` (it makes "
            ".venv-captioning), or write the captions yourself and set captions.source to sidecar"
        )


def _files(base: Base) -> Mapping[str, Any]:
    """Those of the checkpoint that are on this machine, or that are known of a published one."""
    assert base.model is not None
    folder = Path(base.model)
    if not folder.exists():
        if base.model in checkpoint_json.known():
            files: dict[str, Any] = json.loads(checkpoint_json.known()[base.model].read_text())["files"]
            return files
        from huggingface_hub import try_to_load_from_cache  # here, since it takes long to load

        found = try_to_load_from_cache(base.model, TRANSFORMER, revision=base.revision)
        if not isinstance(found, str):
            return {}
        folder = Path(found).parents[1]
    return {
        name: checkpoint_json.read_json(folder / name)
        for name in (VAE, TRANSFORMER, INDEX)
        if (folder / name).is_file()
    }
