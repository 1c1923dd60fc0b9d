"""What would run, and why, in the words of the configuration: what Snakemake recorded of each job's parameters when it
ran, against what they are now."""

import ast
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from regdpo.config.schema import Config

NEW = "not made yet"
CODE, PACKAGES, RULE = "regdpo's own code", "locked packages (envs/)", "the rules"
BOOKKEEPING = ("merge_", "count_", "export_")
"""How the names of rules begin that only gather what other jobs of their stage made, or write it otherwise."""
LONGEST = 40
"""Characters of a value."""


@dataclass(frozen=True)
class Job:
    """A job as Snakemake plans it. The parameters are given as it records them: by their repr."""

    number: int
    rule: str
    stage: str  # the name of its file in rules/
    wildcards: Mapping[str, str] = field(default_factory=dict)
    runs: bool = True
    missing: bool = False  # an output is not there
    changed: Mapping[str, str] = field(default_factory=dict)  # name of a parameter that differs -> what it is now
    recorded: frozenset[str] = frozenset()  # the parameters that differ, as they were; without names
    others: tuple[str, ...] = ()  # why else
    above: frozenset[int] = frozenset()  # jobs whose outputs it reads

    @property
    def counts(self) -> bool:
        """Whether it is spoken of."""
        return not self.rule.startswith(BOOKKEEPING)


PLACES = {
    "geometries": "clips.buckets",
    "encode": "clips.encode",
    "known": "base.pretrain.sources",
    "same_footage": "clips.filters.same_footage",
    "max_similar": "clips.filters.max_similar",
    "videos_root": "videos.root",
    "videos_table": "videos.table",
    "server": "captions.server",
    "too_long": "captions.too_long",
    "filters": "clips.filters",
    "sources": "pairs.sources",
    "alone": "pairs.sources",
    "ranked": "pairs.sources",
    "source": "pairs.sources",
    "candidates": "pairs.sources",
    "generators": "negatives.generators",
    "shift": "negatives.sampling.shift",
    "frames": "clips.frames",
    "error": "scores.error",
    "split": "samples.split",
    "minimum": "report.minimum",
    "dimensions": "scores.vbench.dimensions",
    "attention": "rating.attention",
    "ratings": "paths.ratings",
    "static": "scores.vbench.static",
    "limit": "scores.vbench.prompts",
    "geometry": "clips.buckets",
    "omniscore": "scores.omniscore.weights",
    "settings": "vae.train",
    "lpips": "vae.lpips",
    "precision": "latents.precision",
    "tiling": "latents.tiling",
    "bootstrap": "scores.bootstrap",
}
"""What parts of the configuration are called by ``stage_inputs`` -> where they stand in it."""
OF_SUITES = {"seed": "scores.vbench.seed", "sampling": "samples.sampling"}
"""The same for VBench's suites."""
FILES = {
    "videos": "the videos",
    "sidecars": "the captions' text files",
    "weights": "the files of the model",
    "ratings": "people's answers",
    "template": "the page's template",
    "prompts": "VBench's prompts, or their first frames",
    "available": "which of VBench's dimensions can run",
    "damage": "what was found damaged or missing in the store",
}
"""Parameters that are digests of what the workflow does not make."""

SHARDS = {"captions": "clips", "suite_samples": "scores.vbench", "suite_scores": "scores.vbench"}
"""Stages whose shards are those of another section."""


def causes(jobs: Iterable[Job], settings: Config) -> dict[str, list[Job]]:
    """Why jobs would run -> those that would run for it: what it touches itself, and what follows from that."""
    jobs = [job for job in jobs if job.runs]
    below: dict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        for number in job.above:
            below[number].append(job)
    own = {job.number: _own(job, settings) for job in jobs}
    told = {_key(cause) for job in jobs if job.stage != "report" for cause in own[job.number]}
    found: dict[str, dict[int, Job]] = defaultdict(dict)
    for job in jobs:
        # The page shows the whole configuration, so what others run for changes it too, if by another name
        for cause in (it for it in own[job.number] if job.stage != "report" or _key(it) not in told or it in found):
            pending = [job]
            while pending:
                one = pending.pop()
                if one.number not in found[cause]:
                    found[cause][one.number] = one
                    pending += below[one.number]
    return {cause: [those[number] for number in sorted(those)] for cause, those in found.items()}


def _key(cause: str) -> str:
    return cause.partition(" ")[0]


def _own(job: Job, settings: Config) -> list[str]:
    """What a job would run for by itself."""
    if job.missing:
        return [NEW]
    found = list(job.others)
    for name, value in job.changed.items():
        if name == "config":
            found += _keys(job, value, settings)
        elif name in ("code", "env"):
            found.append(CODE if name == "code" else PACKAGES)
        elif name == "shards":
            found.append(f"{SHARDS.get(job.stage, job.stage)}.shards -> {value}")
        elif name in FILES and "shards" in job.changed:
            continue  # its shard has others of the same
        elif name != "seed":  # the configuration tells it too
            found.append(FILES.get(name, f"{name} of {job.rule}"))
    return list(dict.fromkeys(found))


def _keys(job: Job, now: str, settings: Config) -> list[str]:
    """The keys of the configuration that differ, each with what it was and is."""
    before = next((values for text in sorted(job.recorded) if isinstance(values := _read(text), dict)), None)
    after = _read(now)
    if before is None or not isinstance(after, dict):
        return ["the configuration"]
    return [
        f"{_place(path, job, settings)} {_shown(old)} -> {_shown(new)}" for path, old, new in _differ(before, after)
    ]


def _read(text: str) -> Any:
    """A parameter of JSON, from its repr; None of another one."""
    try:
        value = ast.literal_eval(text)
        return json.loads(value) if isinstance(value, str) else None
    except (ValueError, SyntaxError, RecursionError):
        return None


def _differ(before: Mapping[str, Any], after: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[Any]:
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        if _rows(old) and _rows(new) and len(old) == len(new):
            old, new = ({str(number): row for number, row in enumerate(rows)} for rows in (old, new))
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differ(old, new, (*above, name))
        elif old != new:
            yield (*above, name), old, new


def _rows(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _place(path: tuple[str, ...], job: Job, settings: Config) -> str:
    """Where a key of a stage's part stands in the configuration."""
    first, *rest = path
    if first == "geometries" and len(rest) == 2:
        buckets, (number, key) = settings.clips.buckets, rest
        if not buckets or getattr(buckets[int(number)], key, None) is None:
            return f"clips.{key}"
    if job.stage == "report":
        return ".".join(rest) if first == "config" else f"train.{first}"
    if first == "seed" and job.stage == "base":
        return "base.seeds"
    if job.rule == "pretrain":
        return ".".join(["base.pretrain", *path])
    if job.stage == "train":
        link = settings.train.links[job.wildcards["arm"]]
        if first == "settings" and rest[0] not in link.step.settings:
            of_arm = rest[0] in settings.train.arms[link.arm].settings
            return ".".join(["train.arms", link.arm, *path] if of_arm else ["train", *path])
        return ".".join(["train", link.key, *path])
    if "suite" in job.wildcards and first in OF_SUITES:
        return ".".join([OF_SUITES[first], *rest])
    if (name := job.wildcards.get("generator")) and first not in PLACES:
        return _of_generator(path, name, settings)
    return ".".join([PLACES.get(first, first), *rest])


def _of_generator(path: tuple[str, ...], name: str, settings: Config) -> str:
    """Where a key of a generator's part stands: with the generator, or for all of them."""
    first, *rest = path
    generator = settings.negatives.generators.get(name)
    if first == "base":
        return ".".join(["negatives.generators", name, *rest])
    if first in ("generator", "begin", "share"):
        return f"negatives.generators.{name}.share"
    of_its_own = generator is not None and (
        rest[0] in generator.sampling if first == "sampling" and rest else getattr(generator, first) is not None
    )
    return ".".join(["negatives.generators", name, *path] if of_its_own else ["negatives", *path])


def _shown(value: Any) -> str:
    if value is None:
        return "(nothing)"
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def touched(jobs: Iterable[Job]) -> str:
    """Jobs in words: how many trainings, shards and so on."""
    jobs = [job for job in jobs if job.counts]
    numbers = Counter(job.stage for job in jobs)
    own = "its " if numbers["train"] == 1 else "their "
    words = []
    for stage, number in numbers.items():
        shards = sum(1 for job in jobs if job.stage == stage and "shard" in job.wildcards)
        if stage == "train":
            words.append("one training" if number == 1 else f"{number} trainings")
        elif stage in ("weights", "samples", "scores") and numbers["train"]:
            words.append(f"{own}{stage}")
            own = ""
        elif stage == "base":
            bases = len({job.wildcards["of"] for job in jobs if job.stage == stage and "of" in job.wildcards})
            words.append("the base model" if bases < 2 else f"{bases} base models")
        elif stage == "report":
            words.append("the report")
        elif shards:
            words.append(f"{shards} shard{'s' if shards > 1 else ''} of {stage}")
        else:
            words.append(stage)
    return ", ".join(words) or "what is collected of it"


def table(jobs: Iterable[Job], hours: Mapping[str, float]) -> list[str]:
    """Jobs by stage, aligned: those that would run, of all, and GPU-hours where they are known.

    Args:
        hours: stage -> GPU-hours of those that would run.
    """
    everything: Counter[str] = Counter()
    running: Counter[str] = Counter()
    for job in jobs:
        if job.counts:
            everything[job.stage] += 1
            running[job.stage] += job.runs
    head = ("stage", "to run", "of", *(["GPU-hours"] if hours else []))
    rows = [head]
    for stage, number in everything.items():
        told = [f"{hours[stage]:,.1f}" if stage in hours else ""] if hours else []
        rows.append((stage, str(running[stage]), str(number), *told))
    total = [f"{sum(hours.values()):,.1f}"] if hours else []
    rows.append(("all", str(running.total()), str(everything.total()), *total))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def uncounted(jobs: Iterable[Job], targets: int = 1) -> str:
    """A line that leads from the total of ``table`` to Snakemake's, which counts targets too; empty if nothing runs."""
    running = [job for job in jobs if job.runs]
    others = sum(not job.counts for job in running)
    if not running:
        return ""
    return f"Snakemake counts {len(running) + targets}: also {others} that only merge, count or export, and the target"


def first_target(jobs: Iterable[Job], targets: Mapping[str, str]) -> str:
    """The target to make and look at first: of the first stage that has something to run, or the next with a target.

    Args:
        jobs: in the order of the stages. targets: stage -> the rule that stands for it.
    """
    stages = list(dict.fromkeys(job.stage for job in jobs if job.runs))
    return next((targets[stage] for stage in stages if stage in targets), "")
