"""VBench, run in an environment of its own: its pins are not ours, and they end at Python 3.11.

Only dimensions that need no weights are run. What could not be measured is a row without a value and with the reason.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

from regdpo.config.stage_inputs import VBenchStage
from regdpo.core import code_digest
from regdpo.core.errors import UserError
from regdpo.core.processes import bounded
from regdpo.core.rows import SampleRow, ScoreRow
from regdpo.core.store import Store
from regdpo.core.temporaries import scratch
from regdpo.evaluate import vbench_worker
from regdpo.evaluate.measures import Given

PYTHONS = ((3, 10), (3, 11))
"""Versions of Python that VBench's pins have wheels for."""

DIMENSIONS = {
    "subject_consistency": "needs the weights of DINO ViT-B/16",
    "background_consistency": "needs the weights of CLIP ViT-B/32",
    "temporal_flickering": "",
    "motion_smoothness": "needs the weights of AMT-S",
    "dynamic_degree": "needs the weights of RAFT",
    "aesthetic_quality": "needs the weights of CLIP ViT-L/14 and of the LAION aesthetic head",
    "imaging_quality": "needs the weights of MUSIQ",
    "object_class": "needs VBench's own prompts, the weights of GRiT, and detectron2",
    "multiple_objects": "needs VBench's own prompts, the weights of GRiT, and detectron2",
    "human_action": "needs VBench's own prompts and the weights of UMT",
    "color": "needs VBench's own prompts, the weights of GRiT, and detectron2",
    "spatial_relationship": "needs VBench's own prompts, the weights of GRiT, and detectron2",
    "scene": "needs VBench's own prompts and the weights of Tag2Text",
    "appearance_style": "needs VBench's own prompts and the weights of CLIP ViT-B/32",
    "temporal_style": "needs VBench's own prompts and the weights of ViCLIP",
    "overall_consistency": "needs VBench's own prompts and the weights of ViCLIP",
}
"""VBench's 16 dimensions, and what each needs that is not there."""


def coverage(measured: list[str]) -> list[tuple[str, str]]:
    """All 16 dimensions in VBench's order, each with the reason why it is not measured; "" where it is."""
    return [(name, "" if name in measured else reason or "not asked for") for name, reason in DIMENSIONS.items()]


def installed(python: str) -> bool:
    """Whether VBench lies in the environment of an interpreter; looked for, with nothing run."""
    found = shutil.which(python)
    root = Path(os.path.abspath(found or "")).parent.parent
    return found is not None and any(root.glob("lib/python3.*/site-packages/vbench-*.dist-info"))


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


def measure(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``."""
    return score(given.stage, given.python, given.device, list(given.samples), given.store)


def score(stage: VBenchStage, python: str, device: str, samples: list[SampleRow], store: Store) -> list[ScoreRow]:
    """One row a sample and dimension, metric ``vbench_DIMENSION``; VBench's own scale, higher is better.

    Args:
        stage: the dimensions.
        python: interpreter of VBench's environment. device: as ``launch.device``.
        samples: the videos.
        store: where they lie.

    Raises:
        UserError: a sample is missing from the store; VBench failed.
    """
    reason = unavailable(python)
    found: dict[str, dict[str, float]] = {} if reason or not samples else _run(stage, python, device, samples, store)
    rows = []
    for dimension in stage.dimensions:
        for sample in samples:
            value = found.get(dimension, {}).get(sample.sample_id)
            metric = f"vbench_{dimension}"
            rows.append(
                ScoreRow(
                    score_id=f"{sample.model}|{metric}|{sample.clip_id}|{sample.seed}",
                    model=sample.model,
                    metric=metric,
                    clip_id=sample.clip_id,
                    seed=sample.seed,
                    value=value,
                    missing="" if value is not None else reason or "VBench could not read the video",
                )
            )
    return rows


def _run(
    stage: VBenchStage, python: str, device: str, samples: list[SampleRow], store: Store
) -> dict[str, dict[str, float]]:
    """dimension -> sample_id -> score. VBench skips silently what it cannot read: such a sample has no entry."""
    with scratch() as temporary:
        videos, results = temporary / "videos", temporary / "results.json"
        videos.mkdir()
        names = {f"{number:06d}.mp4": sample.sample_id for number, sample in enumerate(samples)}
        for name, sample in zip(names, samples, strict=True):
            (videos / name).symlink_to(store.checked(sample.path, sample.sha256))
        done = subprocess.run(
            [
                os.path.abspath(shutil.which(python) or python),
                "-m",
                vbench_worker.__name__,
                videos,
                results,
                device,
                *stage.dimensions,
            ],
            cwd=temporary,
            env={
                **os.environ,
                "PYTHONPATH": str(code_digest.ROOT.parent),
                "VBENCH_CACHE_DIR": os.path.join(temporary, "cache"),
            },
            stdout=sys.stderr,
            check=False,
            preexec_fn=bounded(),
        )
        if done.returncode:
            raise UserError(
                f"VBench ({python}) failed with exit code {done.returncode}, see the lines above; "
                "`rm -r .venv-vbench && make vbench` makes its environment anew"
            )
        raw = json.loads(results.read_text())
    found = {}
    for dimension in stage.dimensions:
        scores = {names[Path(item["video_path"]).name]: float(item["video_results"]) for item in raw[dimension][1]}
        found[dimension] = {sample: value for sample, value in scores.items() if math.isfinite(value)}
    return found
