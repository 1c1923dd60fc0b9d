"""OmniScore: one number for a video, of how it looks and of how it fits its text, from VBench's dimensions.

VideoDPO (arXiv 2412.14167) ranks videos by a score of this name, and neither its normalisation nor its weights were
published, so this is a definition of our own: VBench's seven dimensions of quality and overall consistency, each on
VBench's scale, their mean with the weights of the configuration, in percent.
"""

from collections.abc import Iterable, Mapping

from regdpo.core.rows import SampleRow, ScoreRow
from regdpo.evaluate.measures import OMNISCORE, VBENCH
from regdpo.evaluate.vbench import SCALES


def omniscore(scores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """In percent.

    Args:
        scores: by dimension, as fractions. weights: by dimension; all of them have a score.
    """
    total = sum(weight * SCALES[name].normalised(scores[name]) for name, weight in weights.items())
    return 100 * total / sum(weights.values())


def rows(samples: Iterable[SampleRow], scores: Iterable[ScoreRow], weights: Mapping[str, float]) -> list[ScoreRow]:
    """Of every sample, from the rows of VBench's dimensions; partial, and so missing, where one has no value."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for score in scores:
        if score.value is not None:
            found.setdefault((score.clip_id, score.seed), {})[score.metric.removeprefix(VBENCH)] = score.value
    made = []
    for sample in samples:
        here = found.get((sample.clip_id, sample.seed), {})
        lacking = [name for name in weights if name not in here]
        there = f"partial: {len(weights) - len(lacking)} of {len(weights)} dimensions, without {', '.join(lacking)}"
        made.append(
            ScoreRow(
                score_id=f"{sample.model}|{OMNISCORE}|{sample.clip_id}|{sample.seed}",
                model=sample.model,
                metric=OMNISCORE,
                clip_id=sample.clip_id,
                seed=sample.seed,
                value=None if lacking else omniscore(here, weights),
                missing=there if lacking else "",
            )
        )
    return made
