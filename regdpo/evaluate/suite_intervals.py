"""Intervals of a suite's totals: a bootstrap over its prompts.

A prompt is drawn with all its videos and for all dimensions that it belongs to at once, and the same prompts for all
models, so that the difference to the base is paired. Prompts are the one level: of another training, or of another base
model, these intervals say nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regdpo.config.evaluation import Bootstrap
from regdpo.core.rows import SuiteScoreRow
from regdpo.evaluate.vbench import TOTALS


@dataclass(frozen=True)
class TotalInterval:
    """Of one total of one model, in percent."""

    low: float
    high: float
    delta: float | None = None  # to the base; none: it is a base, or the base has no total
    delta_low: float | None = None
    delta_high: float | None = None


def intervals(
    suite: str, rows: Mapping[str, Sequence[SuiteScoreRow]], bases: Mapping[str, str], bootstrap: Bootstrap
) -> dict[str, dict[str, TotalInterval]]:
    """Model -> total -> interval.

    Args:
        rows: of every model that has totals, of all dimensions.
        bases: model -> the base that it is held against, where that has totals too.
    """
    prompts = sorted({_prompt(row) for those in rows.values() for row in those})
    rng = np.random.default_rng((bootstrap.seed, len(prompts)))
    drawn = rng.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)), size=bootstrap.resamples)
    counts = np.vstack([np.ones(len(prompts)), drawn])  # the first draw has every prompt once
    totals = {model: _totals(suite, those, prompts, counts) for model, those in rows.items()}
    ends = (1 - bootstrap.confidence) / 2, (1 + bootstrap.confidence) / 2
    found: dict[str, dict[str, TotalInterval]] = {}
    for model, mine in totals.items():
        found[model] = {}
        for name, values in mine.items():
            low, high = np.nanquantile(values[1:], ends)
            delta: tuple[float, ...] = ()
            if model in bases:
                apart = values - totals[bases[model]][name]
                delta = (float(apart[0]), *map(float, np.nanquantile(apart[1:], ends)))
            found[model][name] = TotalInterval(float(low), float(high), *delta)
    return found


def _prompt(row: SuiteScoreRow) -> str:
    """Names are PROMPT-INDEX.mp4."""
    return row.name.rpartition("-")[0]


def _totals(
    suite: str, rows: Sequence[SuiteScoreRow], prompts: Sequence[str], counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Total -> its value of each draw; NaN of a draw in which a dimension has no prompt."""
    place = {prompt: number for number, prompt in enumerate(prompts)}
    dimensions: dict[str, np.ndarray] = {}
    for row in rows:
        if row.value is not None:
            sums = dimensions.setdefault(row.dimension, np.zeros((2, len(prompts))))
            sums[:, place[_prompt(row)]] += row.weight * row.value, row.weight
    with np.errstate(invalid="ignore"):
        scores = {name: (counts @ value) / (counts @ weight) for name, (value, weight) in dimensions.items()}
    whole = np.isfinite(np.vstack([*scores.values()])).all(axis=0)
    each = [TOTALS[suite]({name: float(of[at]) for name, of in scores.items()}) for at in np.flatnonzero(whole)]
    found = {name: np.full(len(counts), np.nan) for name in each[0]}
    for name, values in found.items():
        values[whole] = [one[name] for one in each]
    return found
