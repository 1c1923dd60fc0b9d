"""VBench's totals: normalisation, weights and groups of its dimensions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regdpo.config.stage_inputs import SuiteStage
from regdpo.core.errors import UserError
from regdpo.core.rows import SuiteScoreRow
from regdpo.evaluate.suites import DIMENSIONS, SUITES, T2V, WEIGHTS


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

SCALES = T2V_QUALITY | T2V_SEMANTIC | I2V_CONDITION
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
    return [(name, "" if name in measured else _reason(name)) for name in T2V]


def _reason(name: str) -> str:
    """Of a dimension that nobody asked for."""
    declared = DIMENSIONS[name]
    needed = [WEIGHTS[it].what for it in declared.weights] + list(declared.modules)
    own = "" if declared.custom else "is of VBench's own prompts (scores.vbench.suites)"
    return "; ".join(["not asked for", *filter(None, [own, f"needs {', '.join(needed)}" if needed else ""])])


@dataclass(frozen=True)
class Outcome:
    """What the scores of a model in a suite come to."""

    scores: dict[str, float | None]  # by dimension, fractions
    videos: dict[str, int]  # that they are means of
    missing: dict[str, str]  # dimension -> why it has no score
    coverage: str  # such as "5 of 16"
    partial: str  # why there is no total; empty: there is one
    totals: dict[str, float]  # in percent; empty where it is partial

    def values(self) -> dict[str, Any]:
        """For JSON."""
        dimensions = {
            name: {
                "score": score,
                "normalised": None if score is None else SCALES[name].normalised(score),
                "videos": self.videos[name],
                "missing": self.missing.get(name, ""),
            }
            for name, score in self.scores.items()
        }
        totals = self.totals or None
        return {"dimensions": dimensions, "measured": self.coverage, "totals": totals, "partial": self.partial}


def outcome(stage: SuiteStage, rows: Sequence[SuiteScoreRow]) -> Outcome:
    """Dimensions as VBench has them in one process: means over videos, over their frames where it counts frames.

    A total is refused where a dimension is missing, where a part of the prompts was asked for, and where videos that
    should stand still were not looked at.
    """
    scores: dict[str, float | None] = {}
    videos, missing = dict.fromkeys(stage.dimensions, 0), {}
    for name in stage.dimensions:
        mine = [row for row in rows if row.dimension == name]
        valued = [row for row in mine if row.value is not None and math.isfinite(row.value)]
        reasons = sorted({row.missing for row in mine if row.missing})
        reasons += ["not a finite number"] * any(row.value is not None and row not in valued for row in mine)
        scores[name], videos[name] = None, len(valued)
        if valued and not reasons:
            weights = [row.weight for row in valued]
            scores[name] = math.fsum(row.weight * (row.value or 0) for row in valued) / math.fsum(weights)
        else:
            missing[name] = "; ".join(reasons) or "no video counts in it"
    measured = {name: score for name, score in scores.items() if score is not None}
    coverage, suite = f"{len(measured)} of {len(scores)}", SUITES[stage.suite]
    unfiltered = [name for name in suite.static if name not in stage.static]
    parts = [f"{coverage} dimensions"] * bool(missing)
    parts += [f"{stage.limit} prompts a dimension, not all"] * (stage.limit is not None)
    parts += [f"{' and '.join(unfiltered)} also of videos that move"] * bool(unfiltered)
    total = {} if parts else TOTALS[stage.suite](measured)
    return Outcome(scores, videos, missing, coverage, "partial: " + ", ".join(parts) if parts else "", total)


TOTALS: dict[str, Callable[[Mapping[str, float]], dict[str, float]]] = {"t2v": aggregate_t2v, "i2v": aggregate_i2v}
