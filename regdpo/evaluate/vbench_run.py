"""VBench, run in an environment of its own: its pins are not ours, and they end at Python 3.11.

A dimension of some videos is one process there. What it found is kept in the store, so that a job that was killed goes
on with the dimension that it was at. What could not be measured is a row without a value and with the reason.
"""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regdpo.config.stage_inputs import VBenchStage
from regdpo.core import code_digest
from regdpo.core.digests import DigestCache, canonical, text_digest
from regdpo.core.errors import UserError
from regdpo.core.processes import bounded
from regdpo.core.progress import track
from regdpo.core.rows import SampleRow, ScoreRow
from regdpo.core.store import DIGESTS, Store
from regdpo.core.temporaries import scratch
from regdpo.evaluate import omniscore, vbench_weights, vbench_worker
from regdpo.evaluate.measures import VBENCH, Given
from regdpo.evaluate.suites import VIDEOS, needs

PYTHONS = ((3, 10), (3, 11))
"""Versions of Python that VBench's pins have wheels for."""
KIND = "vbench"
"""Folder of the store."""


@dataclass(frozen=True)
class Video:
    """A video as VBench is given it."""

    name: str  # of its file; some dimensions read what it should show out of it
    path: str  # in the store
    sha256: str
    prompt: str = ""
    auxiliary: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of VBench's list, by dimension
    image: Path | None = None  # first frame that the model was given
    image_sha256: str = ""


@dataclass(frozen=True)
class Found:
    """What VBench says of a video, as a fraction, and how much it counts in the mean."""

    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Setting:
    """Where and with what."""

    python: str  # interpreter of VBench's environment
    weights: Path
    device: str  # as `launch.device`
    store: Store
    static: tuple[str, ...] = ()  # dimensions of which only videos count that stand still
    ratio: str = ""  # folder of VBench-I2V's images


def installed(python: str) -> bool:
    """Whether VBench lies in the environment of an interpreter; looked for, with nothing run."""
    return any(any(site.glob("vbench-*.dist-info")) for site in vbench_weights.sites(python))


def unavailable(python: str) -> str:
    """Why VBench cannot run with this interpreter; "" if it can."""
    if shutil.which(python) is None:
        newer = sys.version_info[:2] > PYTHONS[-1]
        remedy = "rm -r .venv && make vbench PYTHON=python3.11" if newer else "make vbench"
        hint = f"VBench needs Python 3.11 and this is {sys.version_info[0]}.{sys.version_info[1]}: " if newer else ""
        return f"{hint}{python} is not there: run `{remedy}`"
    asked = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
    )
    version = tuple(map(int, asked.stdout.split()))
    if version not in PYTHONS:
        found = ".".join(map(str, version)) or "broken"
        return f"VBench needs Python 3.11 and {python} is {found}: run `make vbench`"
    return ""


def ready(dimensions: Sequence[str], python: str, weights: str) -> str:
    """The dimensions that can run: where that changes, what was measured is stale."""
    return " ".join(vbench_weights.available(dimensions, python, Path(weights))) if installed(python) else ""


def measure(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``."""
    setting = Setting(given.python, Path(given.weights), given.device, given.store)
    stage: VBenchStage = given.stage
    rows = score(stage, setting, list(given.samples))
    return rows + (omniscore.rows(given.samples, rows, stage.omniscore) if stage.omniscore else [])


def score(stage: VBenchStage, setting: Setting, samples: list[SampleRow]) -> list[ScoreRow]:
    """One row a sample and dimension, metric ``vbench_DIMENSION``; VBench's own scale, higher is better.

    Raises:
        UserError: a sample is missing from the store; VBench failed.
    """
    named = {f"{number:06d}-0.mp4": sample for number, sample in enumerate(samples)}
    videos = [Video(name, sample.path, sample.sha256, sample.caption) for name, sample in named.items()]
    rows = []
    for dimension, (found, reason) in measured(stage.dimensions, videos, setting).items():
        for name, sample in named.items():
            metric, value = f"{VBENCH}{dimension}", found.get(name)
            rows.append(
                ScoreRow(
                    score_id=f"{sample.model}|{metric}|{sample.clip_id}|{sample.seed}",
                    model=sample.model,
                    metric=metric,
                    clip_id=sample.clip_id,
                    seed=sample.seed,
                    value=value.value if value else None,
                    missing="" if value else reason or "VBench could not read the video",
                )
            )
    return rows


def measured(
    dimensions: Sequence[str], videos: Sequence[Video], setting: Setting, of: Mapping[str, set[str]] | None = None
) -> dict[str, tuple[dict[str, Found], str]]:
    """Dimension -> what was found by the name of a video, and why the dimension could not run; then nothing was found.

    Args:
        of: dimension -> names of the videos that it is about; without it, all.

    Raises:
        UserError: a video is missing from the store; VBench failed.
    """
    reason = unavailable(setting.python) if videos else ""
    results: dict[str, tuple[dict[str, Found], str]] = {}
    asked = {name: [it for it in videos if of is None or it.name in of[name]] for name in dimensions}
    table = "" if reason else vbench_weights.told(dimensions, setting.python, setting.weights, setting.static)
    if table:
        print(table, file=sys.stderr)
    for name in dimensions:
        why = reason or vbench_weights.lacking(name, setting.python, setting.weights, name in setting.static)
        results[name] = {}, why
    todo = [name for name, (_, why) in results.items() if asked[name] and not why]
    for name in track(todo, "VBench's dimensions"):
        values, why = run(name, asked[name], setting), ""
        if needs(name, name in setting.static).weights and (setting.weights / vbench_weights.RANDOM).exists():
            values, why = {}, "weights are random numbers, with which nothing is a score"
        results[name] = values, why
    return results


def run(dimension: str, videos: Sequence[Video], setting: Setting) -> dict[str, Found]:
    """What VBench says of the videos, by name; taken from the store where it was asked before.

    A video that it says nothing of has no entry: it could not read it, saw no object whose colour counts, or it does
    not stand still where only such count.

    Raises:
        UserError: a video is missing from the store; VBench failed.
    """
    store, static = setting.store, dimension in setting.static
    cache = DigestCache(store.root / DIGESTS)
    key = text_digest(
        code_digest.code_digest(__name__, vbench_worker.__name__),
        _packages(setting.python),
        vbench_weights.digest(dimension, setting.weights, cache, static),
        canonical([dimension, static, setting.ratio]),
        *(canonical([it.name, it.sha256, it.prompt, dict(it.auxiliary), it.image_sha256]) for it in videos),
    )
    cache.save()
    path = store.relative(KIND, key, ".json")
    if not store.has(path):
        entries = _asked(dimension, videos, setting)
        with store.writing(path) as temporary:
            temporary.write_text(json.dumps(entries))
    try:
        return {name: Found(*pair) for name, pair in json.loads(store.existing(path).read_text()).items()}
    except (ValueError, TypeError, AttributeError):
        raise store.damaged(path, "is no result of VBench", "score") from None


def _packages(python: str) -> str:
    """The packages of VBench's environment, by the names of their folders."""
    return " ".join(sorted({path.name for site in vbench_weights.sites(python) for path in site.glob("*.dist-info")}))


def _asked(dimension: str, videos: Sequence[Video], setting: Setting) -> dict[str, tuple[float, float]]:
    """Name -> value and weight, from a process in VBench's environment."""
    declared = needs(dimension)
    with scratch() as folder:
        (folder / "videos").mkdir()
        for video in videos:
            (folder / "videos" / video.name).symlink_to(setting.store.checked(video.path, video.sha256).absolute())
        job = vbench_worker.Job(
            dimension,
            declared.package,
            setting.device,
            "info.json",
            setting.ratio if declared.package != "vbench" else "",
            dimension in setting.static,
            VIDEOS,
            declared.leaves_out,
        )
        (folder / "info.json").write_text(json.dumps(_info(dimension, videos, folder)), encoding="utf-8")
        if job.ratio:
            images = folder / "vbench2_beta_i2v/data/crop" / job.ratio
            images.mkdir(parents=True)
            for image in {video.image for video in videos if video.image}:
                (images / image.name).symlink_to(image.absolute())
        (folder / "job.json").write_text(json.dumps(dataclasses.asdict(job)), encoding="utf-8")
        done = subprocess.run(
            [
                os.path.abspath(shutil.which(setting.python) or setting.python),
                *("-m", vbench_worker.__name__, "job.json", "results.json"),
            ],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(code_digest.ROOT.parent),
                "TQDM_DELAY": "60",  # seconds that something has to take to have a bar
                "TQDM_MININTERVAL": "10",
                "VBENCH_CACHE_DIR": str(setting.weights.absolute()),
                "TORCH_HOME": str(folder / "torch"),
                "HF_HUB_CACHE": str(folder / "huggingface"),
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
            },
            stdout=sys.stderr,
            check=False,
            preexec_fn=bounded(),
        )
        if done.returncode:
            raise UserError(
                f"VBench ({setting.python}) failed at {dimension} with exit code {done.returncode}, see the lines "
                "above; `rm -r .venv-vbench && make vbench` makes its environment anew"
            )
        entries = json.loads((folder / "results.json").read_text())
    found = {}
    for entry in entries:
        value = float(entry["video_results"]) / declared.scale
        if math.isfinite(value):
            found[Path(entry["video_path"]).name] = (value, _weight(entry.get(declared.counts, 1)))
    return found


def _info(dimension: str, videos: Sequence[Video], folder: Path) -> list[dict[str, Any]]:
    """VBench's list of prompts and their videos, as its ``build_full_info_json`` writes it."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for video in videos:
        image = video.image.name if video.image else ""
        row: dict[str, Any] = {"prompt_en": video.prompt, "dimension": [dimension], "video_list": []}
        if dimension in video.auxiliary:
            row["auxiliary_info"] = {dimension: video.auxiliary[dimension]}
        if image:
            row["image_name"] = image
        rows.setdefault((video.prompt, image), row)["video_list"].append(str(folder / "videos" / video.name))
    return list(rows.values())


def _weight(counted: Any) -> float:
    return float(len(counted) if isinstance(counted, list) else counted)
