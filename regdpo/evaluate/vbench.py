"""VBench, run in an environment of its own: its pins are not ours, and they end at Python 3.11.

Only dimensions that need no weights are run. What could not be measured is a row without a value and with the reason.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Scale:
    """Where a dimension's raw scores lie, so that ``low`` becomes 0 and ``high`` 1, and its share in its group."""

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0

    def normalised(self, raw: float) -> float:
        """On the scale, not cut off at its ends."""
        return (raw - self.low) / (self.high - self.low)


T2V_QUALITY = {
    "subject_consistency": Scale(0.1462),
    "background_consistency": Scale(0.2615),
    "temporal_flickering": Scale(0.6293),
    "motion_smoothness": Scale(0.706, 0.9975),
    "aesthetic_quality": Scale(),
    "imaging_quality": Scale(),
    "dynamic_degree": Scale(weight=0.5),
}
T2V_SEMANTIC = {
    "object_class": Scale(),
    "multiple_objects": Scale(),
    "human_action": Scale(),
    "color": Scale(),
    "spatial_relationship": Scale(),
    "scene": Scale(high=0.8222),
    "appearance_style": Scale(0.0009, 0.2855),
    "temporal_style": Scale(high=0.364),
    "overall_consistency": Scale(high=0.364),
}
I2V_QUALITY = {name: scale for name, scale in T2V_QUALITY.items() if name != "temporal_flickering"}
I2V_CONDITION = {
    "camera_motion": Scale(weight=0.1),
    "i2v_subject": T2V_QUALITY["subject_consistency"],
    "i2v_background": T2V_QUALITY["background_consistency"],
}
"""Groups of dimensions, from ``scripts/constant.py`` of VBench's repository at 45e79ec (2026-03-23)."""

LEADERBOARD = {
    "video-text_camera_motion": "camera_motion",
    "video-image_subject_consistency": "i2v_subject",
    "video-image_background_consistency": "i2v_background",
}
"""The leaderboard's names of dimensions that are others than those of VBench's files."""


def aggregate_t2v(scores: Mapping[str, float]) -> dict[str, float]:
    """``quality``, ``semantic`` and ``total`` of VBench, in percent, from the raw scores of its 16 dimensions.

    Each score is normalised by its scale; quality and semantic are weighted means, and ``total = (4 quality +
    semantic) / 5`` (arXiv 2311.17982, as VBench's ``scripts/cal_final_score.py`` has it, but for a dimension that is
    missing, which is 0 there).

    Args:
        scores: by dimension, as fractions; names as in VBench's files (``object_class``) or tables ("object class").

    Raises:
        UserError: a dimension is missing or unknown, a score is no fraction.
    """
    quality, semantic = _groups("VBench's total", scores, T2V_QUALITY, T2V_SEMANTIC)
    return {"quality": quality, "semantic": semantic, "total": (4 * quality + semantic) / 5}


def aggregate_i2v(scores: Mapping[str, float]) -> dict[str, float]:
    """``quality``, ``i2v`` and ``total`` of VBench-I2V, in percent, from the raw scores of its nine dimensions.

    As ``aggregate_t2v``, but that ``total = (quality + i2v) / 2``; names may be the leaderboard's too
    ("Video-Text Camera Motion").
    """
    quality, i2v = _groups("VBench-I2V's total", scores, I2V_QUALITY, I2V_CONDITION)
    return {"quality": quality, "i2v": i2v, "total": (quality + i2v) / 2}


def _groups(what: str, scores: Mapping[str, float], *groups: Mapping[str, Scale]) -> list[float]:
    """The weighted mean of each group's normalised scores, in percent."""
    named: dict[str, float] = {}
    for given, raw in scores.items():
        plain = given.strip().lower().replace(" ", "_")
        name = LEADERBOARD.get(plain, plain)
        if name in named:
            raise UserError(f"{what}: {given} is given twice, under two spellings")
        if not -1 <= raw <= 1 + 1e-6:  # nan too; similarities of embeddings may be below 0
            raise UserError(f"{what}: {given} is {raw}; scores are fractions, such as 0.9685 for 96.85 %")
        named[name] = raw
    asked = [name for group in groups for name in group]
    if unknown := [name for name in named if name not in asked]:
        raise UserError(f"{what}: there is no dimension {', '.join(unknown)}; there are {', '.join(asked)}")
    if missing := [name for name in asked if name not in named]:
        raise UserError(f"{what}: {len(named)} of {len(asked)} dimensions are there; missing: {', '.join(missing)}")
    return [
        100
        * sum(scale.weight * scale.normalised(named[name]) for name, scale in group.items())
        / sum(scale.weight for scale in group.values())
        for group in groups
    ]


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
                "TQDM_DELAY": "60",  # seconds that something has to take to have a bar
                "TQDM_MININTERVAL": "10",
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
