"""Pairs of several videos of one prompt, by score (VideoDPO, arXiv 2412.14167), and their weights."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from regdpo.config.schema import Candidates, PairSource, PairWeights
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError

COLUMNS = (
    *("candidate_id", "prompt_id", "status", "origin", "split", "source", "shot", "start", "caption", "number"),
    *("seed", "generator", "frames", "fps", "width", "height", "path", "sha256"),
)
"""Columns of the candidates that are read."""
SHARED = ("split", "source", "shot", "start", "caption", "frames", "fps", "width", "height", "origin")
"""That both halves of a pair have in common."""


def choose(name: str, source: PairSource, candidates: pd.DataFrame, scores: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The pairs of a source of kind ``best_of_n``, as rows of the manifest of pairs; and a line about them.

    Args:
        name: of the source. candidates: with the columns ``COLUMNS``. scores: rows of scores of the same.

    Raises:
        UserError: a score is missing, or no two videos of a prompt make a pair.
    """
    settings = source.candidates
    assert settings is not None
    taken = candidates[candidates["status"] == "accepted"].reset_index(drop=True)
    taken = taken.assign(score=totals(name, settings, taken, scores))
    ordered = taken.sort_values(["prompt_id", "score", "candidate_id"], ascending=[True, False, True])
    found: list[tuple[int, int]] = []
    for prompt, rows in ordered.groupby("prompt_id", sort=True):
        places, marks = rows.index.to_numpy(), rows["score"].to_numpy()
        for better, worse in _ranks(settings, str(prompt), len(places)):
            if _apart(settings, marks[better], marks[worse]):
                found.append((places[better], places[worse]))
    if not found:
        raise UserError(
            f"pairs.sources.{name}: of {len(taken)} videos no two of a prompt make a pair (candidates.margin, least, "
            "most)"
        )
    winners, losers = (taken.loc[list(half)].reset_index(drop=True) for half in zip(*found, strict=True))
    rows = winners[[*SHARED, "generator"]].assign(
        pair_id=winners["candidate_id"] + "-" + losers["number"].astype(str),
        clip_id=winners["prompt_id"],
        winner=winners["path"],
        winner_sha256=winners["sha256"],
        loser=losers["path"],
        loser_sha256=losers["sha256"],
        loser_seed=losers["seed"],
        weight=1.0,
    )
    if source.weights:
        rows["weight"] = weights(source.weights, taken["score"], winners["score"], losers["score"])
    rejected = len(candidates) - len(taken)
    line = f"{len(rows)} pairs of {name}, of {len(taken)} videos of {taken['prompt_id'].nunique()} prompts"
    return rows, line + (f"; {rejected} videos are rejected" if rejected else "")


def totals(name: str, settings: Candidates, candidates: pd.DataFrame, scores: pd.DataFrame) -> np.ndarray:
    """The weighted sum of the metrics of each video, each scaled as is configured.

    Raises:
        UserError: a video lacks one.
    """
    there = scores.set_index(["metric", "clip_id", "seed"])["value"]
    total = np.zeros(len(candidates))
    for metric, weight in settings.score.items():
        keys = zip([metric] * len(candidates), candidates["prompt_id"], candidates["number"], strict=True)
        values = there.reindex(pd.MultiIndex.from_tuples(list(keys), names=there.index.names)).to_numpy(float)
        if not np.isfinite(values).all():
            first = candidates["candidate_id"].iloc[int(np.argmin(np.isfinite(values)))]
            told = scores.loc[(scores["metric"] == metric) & (scores["missing"] != ""), "missing"]
            why = f" ({told.iloc[0]})" if len(told) else ""
            raise UserError(f"pairs.sources.{name}.candidates.score: {first} has no {metric}{why}")
        total += weight * SCALES[settings.scale](values)
    return total


def _shared_out(values: np.ndarray) -> np.ndarray:
    width = np.ptp(values) if len(values) else 0.0
    return (values - values.min()) / width if width else np.zeros_like(values)


def _standardised(values: np.ndarray) -> np.ndarray:
    spread = values.std() if len(values) else 0.0
    return (values - values.mean()) / spread if spread else np.zeros_like(values)


SCALES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as_is": lambda values: values,
    "min_max": _shared_out,
    "z": _standardised,
}
"""Word of ``candidates.scale`` -> what becomes of a metric's values."""


def weights(settings: PairWeights, every: pd.Series, winners: pd.Series, losers: pd.Series) -> np.ndarray:
    """``(beta / sqrt(p(winner) p(loser))) ** alpha``, where p is the share of all videos whose score is in the same bin
    ``[n bin, (n + 1) bin)`` (VideoDPO, arXiv 2412.14167, section on re-weighting).

    Args:
        every: the scores of all videos. winners, losers: those of the pairs, which are among them.
    """
    shares = _bins(settings, every).value_counts(normalize=True)
    both = _bins(settings, winners).map(shares).to_numpy() * _bins(settings, losers).map(shares).to_numpy()
    beta = shares.max() if settings.beta == "auto" else settings.beta
    return np.asarray((beta / np.sqrt(both)) ** settings.alpha)


def _bins(settings: PairWeights, scores: pd.Series) -> pd.Series:
    return pd.Series(np.floor(scores.to_numpy() / settings.bin + 1e-9))  # .29 / .01 is 28.999...


def _ranks(settings: Candidates, prompt: str, count: int) -> Iterator[tuple[int, int]]:
    """Ranks of the pairs of a prompt that has so many videos, 0 the best."""
    if settings.ranks is not None:
        yield from ((better, worse) for better, worse in settings.ranks if worse < count)
    elif count > 1 and settings.policy == "best_worst":
        yield 0, count - 1
    elif count > 1 and settings.policy == "best_random":
        yield 0, 1 + int(text_digest("best_random", prompt)[:13], 16) % (count - 1)
    elif settings.policy == "adjacent":
        yield from ((rank, rank + 1) for rank in range(count - 1))


def _apart(settings: Candidates, winner: float, loser: float) -> bool:
    enough = winner > loser and winner - loser >= settings.margin
    least = settings.least is None or winner >= settings.least
    return bool(enough and least and (settings.most is None or loser <= settings.most))
