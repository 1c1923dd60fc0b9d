"""What the jobs that would run cost, as far as the plan tells: GPU-hours by stage, and disk."""

import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regdpo.config.schema import Config
from regdpo.core import manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, SplitRow
from regdpo.objectives.registry import OBJECTIVES
from regdpo.runtime.gpu_specs import GIB, gpu_named
from regdpo.workflow.changes import Job

if TYPE_CHECKING:
    from regdpo.plan.cost import Asked

GB = 1e9


def training_pairs(settings: Config) -> int | None:
    """Pairs to train on: by the footage once it is cut, else as many as are allowed; None where neither is known."""
    counted = Path(settings.paths.results, "splits.parquet")
    limit = settings.pairs.limit
    if not counted.exists():
        return limit
    clips = next(row.clips for row in manifests.read(counted, SplitRow) if row.split == "train")
    pairs = round(clips * settings.negatives.a_clip)
    return min(pairs, limit or pairs)


def clips_by_size(settings: Config) -> dict[tuple[int, int, int], float]:
    """Frames, height and width that clips may have -> how many there are; as many of each before they are cut."""
    found = {}
    path = Path(settings.paths.results, "clips.parquet")
    if len(settings.clips.buckets) > 1 and path.exists():
        columns = ["status", "frames", "height", "width"]
        groups = manifests.read_table(path, ClipRow, columns).group_by(columns).aggregate([([], "count_all")])
        for row in groups.to_pylist():
            if row["status"] == "accepted":
                found[row["frames"], row["height"], row["width"]] = float(row["count_all"])
    counts = {it.size: found.get(it.size, 0.0) for it in settings.clips.geometries}
    return counts if any(counts.values()) else dict.fromkeys(counts, 1.0)


def asked(settings: Config, pairs: int) -> "Asked":
    """The question to the plan, whose room loads torch.

    Raises:
        UserError: the plan does not know the model.
    """
    from regdpo.plan.architecture import find
    from regdpo.plan.cost import Asked
    from regdpo.plan.labelled import in_files
    from regdpo.plan.layouts import Machine
    from regdpo.plan.memory import Training

    gpu = gpu_named(settings.launch.gpu or "")
    assert gpu is not None
    links = settings.train.links
    name = next((name for name, it in links.items() if OBJECTIVES[it.step.objective].paired), next(iter(links)))
    own, losers = settings.trainings()[key := f"train.arms.{name}"]
    ranks, labelled = settings.launch.processes, in_files(settings, key)
    training = Training.of(find(settings.base), own, clips_by_size(settings), ranks, 2 if losers else 1, labelled)
    return Asked(settings, training, Machine(gpu.memory, gpu.peak_flops), pairs, 24, None)


def gpu_hours(of: "Asked", jobs: Sequence[Job]) -> dict[str, float]:
    """Stage -> GPU-hours of those of its jobs that would run.

    Raises:
        UserError: no layout fits.
    """
    from regdpo.plan import cost

    arms = Counter(job.wildcards["arm"] for job in jobs if job.rule == "train_arm" and job.runs)
    hours: dict[str, float] = defaultdict(float)
    for part in cost.parts(of):
        mine = [
            job.runs
            for job in jobs
            if job.stage == part.stage and job.counts and part.generator in ("", job.wildcards.get("generator"))
        ]
        share = arms[part.arm] / of.settings.trained if part.arm else sum(mine) / max(1, len(mine))
        hours[part.stage] += part.hours * share
    return hours


def room(settings: Config, of: "Asked | None" = None) -> str:
    """The disk, in a line: what is free where the store lies, and what the latents take."""
    folder = Path(settings.paths.store).absolute()
    while not folder.exists():
        folder = folder.parent
    line = f"disk: {shutil.disk_usage(folder).free / GB:,.0f} GB are free where the store lies ({folder})"
    if of is None:
        return line
    bytes_each = 4 if settings.latents.dtype == "fp32" else 2
    halves = of.clips * (1 + settings.negatives.a_clip) * settings.generations
    each = of.training.mean(math.prod(one.latent) for one in of.training.each) * bytes_each
    return f"{line}; latents take about {halves * each / GB:,.1f} GB"


def autoencoder(settings: Config, jobs: Sequence[Job]) -> list[str]:
    """What the training of an autoencoder needs, where one would run: a line."""
    if not any(job.rule == "train_vae" and job.runs for job in jobs):
        return []
    from regdpo.plan import stages  # here, since it loads torch

    try:
        turn = stages.autoencoder_training(settings, [it.size for it in settings.clips.geometries])
    except UserError as error:
        return [f"vae.train: what it needs is not known: {error}"]
    return [f"vae.train: needs {turn.total / GIB:.1f} GiB on each rank, by the plan; its GPU-hours are not known"]


def estimate(settings: Config, jobs: Sequence[Job]) -> tuple[dict[str, float], list[str]]:
    """GPU-hours by stage, none where they are not known; and what is to be said of them and of the disk."""
    if settings.launch.gpu is None:
        return {}, ["GPU-hours: name the card as launch.gpu, and they are told", room(settings)]
    pairs = training_pairs(settings)
    if pairs is None:
        return {}, ["GPU-hours: known once there are clips, or with pairs.limit", room(settings)]
    try:
        of = asked(settings, pairs)
        hours = gpu_hours(of, jobs)
    except UserError as error:
        return {}, [f"GPU-hours: not known: {error}", room(settings)]
    ranks = settings.launch.processes
    total = sum(hours.values())
    note = (
        f"GPU-hours: by the plan, not measured; {pairs:,} pairs to train on; {total / ranks:,.1f} hours on {ranks} x "
    )
    return hours, [f"{note}{settings.launch.gpu}; captions, VAE and text encoder are not counted", room(settings, of)]
