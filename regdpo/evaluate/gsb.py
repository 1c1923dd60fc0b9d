"""What people's blind comparisons say: Good, Same, Bad (GSB) of one arm against another, and MUG-V's three questions.

A rater sees two videos of one prompt and says whether the first arm's is better (good), as good (same) or worse (bad).
Answers about one prompt are not independent of each other, so it is prompts that are resampled.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from regdpo.config.schema import Bootstrap
from regdpo.evaluate.stats import Interval

Answer = Literal["good", "same", "bad"]
ANSWERS: tuple[Answer, ...] = ("good", "same", "bad")


@dataclass(frozen=True)
class Judgement:
    """One rater's answer about one pair of videos, on one axis (VQ or PF; axes are never mixed)."""

    item: str  # the pair of videos; the same for all its raters, and when it is shown again
    prompt: str
    rater: str
    arm: str
    other: str
    answer: Answer  # of ``arm``'s video against ``other``'s


@dataclass(frozen=True)
class Comparison:
    """An arm against another; ``n`` of intervals are prompts, and a bound is null where prompts show none."""

    good: int
    """Answers: the first arm's video is better."""
    same: int
    """As good."""
    bad: int
    """Worse."""
    prompts: int
    """That were answered about."""
    ratio: Interval | None
    """GSB as (G+S)/(S+B), around 1; null where that divides by 0."""
    net: Interval | None
    """GSB as (G-B)/(G+S+B), -1 to 1; null without answers."""
    win_rate: Interval | None
    """A tie as half; null without answers."""
    better: int
    """Prompts with more good than bad answers."""
    worse: int
    """Prompts with fewer."""
    p: float
    """Exact two-sided sign test of better against worse."""


def score(good: int, same: int, bad: int) -> dict[str, float | None]:
    """The two GSB formulas in use: ``ratio`` = (G+S)/(S+B), around 1 (arXiv 2511.01450), and ``net`` = (G-B)/(G+S+B).

    None where the denominator is 0.

    Raises:
        ValueError: a count is negative.
    """
    if min(good, same, bad) < 0:
        raise ValueError(f"counts of answers are not negative: {good}, {same}, {bad}")
    total = good + same + bad
    return {
        "ratio": (good + same) / (same + bad) if same + bad else None,
        "net": (good - bad) / total if total else None,
    }


def win_rate(good: float, same: float, bad: float) -> float | None:
    """Share of comparisons won, a tie as half; None without any."""
    total = good + same + bad
    return (good + same / 2) / total if total else None


def share(counts: np.ndarray, bootstrap: Bootstrap) -> Interval:
    """A share over all prompts, with its bootstrap over prompts.

    Args:
        counts: (prompts, 2), how many of a prompt's are so, and how many there are; float64.
    """
    drawn = _resampled(len(counts), bootstrap) @ counts
    with np.errstate(invalid="ignore"):
        return _interval(
            float(counts[:, 0].sum() / counts[:, 1].sum()), drawn[:, 0] / drawn[:, 1], len(counts), bootstrap
        )


def sign_test(good: int, bad: int) -> float:
    """Exact two-sided p of as uneven a split, were good and bad equally likely; ties do not count. 1 without any."""
    from scipy.stats import binomtest  # here, since who makes no test should not wait for it

    return float(binomtest(good, good + bad).pvalue) if good + bad else 1.0


def compare(judgements: Iterable[Judgement], arm: str, other: str, bootstrap: Bootstrap) -> Comparison:
    """All answers about two arms, whichever of them was named first.

    Intervals are percentile bootstraps over prompts; the sign test gives each prompt one vote.
    """
    turned: dict[Answer, Answer] = {"good": "bad", "same": "same", "bad": "good"}
    by_prompt: dict[str, Counter[Answer]] = defaultdict(Counter)
    for one in judgements:
        if (one.arm, one.other) == (arm, other):
            by_prompt[one.prompt][one.answer] += 1
        elif (one.arm, one.other) == (other, arm):
            by_prompt[one.prompt][turned[one.answer]] += 1
    counts = np.array([[by_prompt[prompt][answer] for answer in ANSWERS] for prompt in sorted(by_prompt)], np.float64)
    counts = counts.reshape(-1, len(ANSWERS))
    good, same, bad = (int(total) for total in counts.sum(axis=0))
    better, worse = int((counts[:, 0] > counts[:, 2]).sum()), int((counts[:, 0] < counts[:, 2]).sum())
    g, s, b = (_resampled(len(counts), bootstrap) @ counts).T
    formulas = score(good, same, bad)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, net, won = (g + s) / (s + b), (g - b) / (g + s + b), (g + s / 2) / (g + s + b)

    def interval(value: float | None, drawn: np.ndarray) -> Interval | None:
        return None if value is None else _interval(value, drawn, len(counts), bootstrap)

    return Comparison(
        good, same, bad, len(counts),
        interval(formulas["ratio"], ratio), interval(formulas["net"], net), interval(win_rate(good, same, bad), won),
        better, worse, sign_test(better, worse),
    )  # fmt: skip


def krippendorff_alpha(units: Iterable[Mapping[str, Answer]]) -> float | None:
    """Agreement of raters, 1 whole and 0 as by chance: Krippendorff's alpha (2011), ordered bad < same < good.

    Args:
        units: per pair of videos, rater -> answer.

    Returns:
        None where no unit has two answers, or all answers are the same: then there is nothing to disagree about.
    """
    return ordinal_alpha([[ANSWERS.index(answer) for answer in unit.values()] for unit in units])


def ordinal_alpha(units: Iterable[Sequence[float]]) -> float | None:
    """Krippendorff's alpha of ordered values, a sequence per unit; as ``krippendorff_alpha``."""
    rated = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in rated for value in unit})
    together = np.zeros((len(values), len(values)))
    for unit in rated:
        counts = np.array([sum(value == given for given in unit) for value in values], np.float64)
        together += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    totals = together.sum(axis=0)
    reach = np.cumsum(totals) - totals / 2  # ranks: two values are as far apart as there are answers between them
    distance = (reach[:, None] - reach[None, :]) ** 2
    expected = (np.outer(totals, totals) * distance).sum()
    return float(1 - (totals.sum() - 1) * (together * distance).sum() / expected) if expected else None


def bradley_terry(judgements: Iterable[Judgement], bootstrap: Bootstrap) -> dict[str, Interval] | None:
    """Strength of every arm from all comparisons at once (Bradley and Terry, 1952), ties as half a win for both.

    A difference of strengths is the log of the odds that the one wins over the other; they sum to 0. Intervals are
    bootstraps over prompts; a bound is None where too many resamples have no finite strengths.

    Returns:
        None where there are none: some arms were never compared, directly or through others, or won or lost all.
    """
    every = list(judgements)
    arms = {name: index for index, name in enumerate(sorted({arm for one in every for arm in (one.arm, one.other)}))}
    prompts = {name: index for index, name in enumerate(sorted({one.prompt for one in every}))}
    wins = np.zeros((len(prompts), len(arms), len(arms)))
    for one in every:
        i, j, share = arms[one.arm], arms[one.other], {"good": 1.0, "same": 0.5, "bad": 0.0}[one.answer]
        wins[prompts[one.prompt], i, j] += share
        wins[prompts[one.prompt], j, i] += 1 - share
    weights = np.vstack([np.ones(len(prompts)), _resampled(len(prompts), bootstrap)])
    whole, *drawn = strengths(np.tensordot(weights, wins, axes=1))
    if not np.isfinite(whole).all():
        return None
    resampled = np.array(drawn)
    return {arm: _interval(whole[i], resampled[:, i], len(prompts), bootstrap) for arm, i in arms.items()}


def strengths(wins: np.ndarray) -> np.ndarray:
    """Maximum-likelihood strengths, by Newton's method.

    Args:
        wins: (..., arms, arms), how often the row's arm won over the column's.

    Returns:
        (..., arms), sums 0; nan where the likelihood has no maximum (Ford, 1957: some arms never lost to any of the
        others).
    """
    arms = wins.shape[-1]
    met = wins + np.swapaxes(wins, -1, -2)
    reach = (wins > 0) | np.eye(arms, dtype=np.bool_)
    for _ in range(max(1, math.ceil(math.log2(max(arms, 2))))):
        reach = np.greater(reach.astype(np.float64) @ reach.astype(np.float64), 0)
    there = np.asarray(reach.all(axis=(-1, -2)))
    found = np.zeros(wins.shape[:-1])
    if arms < 2:
        return found
    met = np.where(there[..., None, None], met, 1 - np.eye(arms))
    won = np.where(there[..., None], wins.sum(axis=-1), (arms - 1) / 2)
    for _ in range(50):
        odds = 1 / (1 + np.exp(found[..., None, :] - found[..., :, None]))
        gradient = won - (met * odds).sum(axis=-1)
        curvature = -met * odds * (1 - odds)
        diagonal = -curvature.sum(axis=-1)
        # The likelihood does not know their sum: + 1 everywhere fixes it at 0.
        hessian = curvature + diagonal[..., None] * np.eye(arms) + 1
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        found = found + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-12:
            break
    return np.where(there[..., None], found - found.mean(axis=-1, keepdims=True), np.nan)


@dataclass(frozen=True)
class Attention:
    """How a rater did on the gold pairs, whose answer is known."""

    right: int
    shown: int
    dropped: bool


def attentive(
    judgements: Iterable[Judgement], gold: Mapping[str, Answer], least: float
) -> tuple[list[Judgement], dict[str, Attention]]:
    """The answers that count, and how each rater did on the gold pairs.

    Answers about gold pairs never count. A rater who gets less than ``least`` of them right is dropped; one who has
    seen none stays.

    Args:
        gold: item -> the right answer, of its ``arm``.
        least: share, 0 to 1.
    """
    right: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    every = list(judgements)
    for one in every:
        if one.item in gold:
            shown[one.rater] += 1
            right[one.rater] += one.answer == gold[one.item]
    raters = {
        rater: Attention(right[rater], shown[rater], right[rater] < least * shown[rater])
        for rater in sorted({one.rater for one in every})
    }
    return [one for one in every if one.item not in gold and not raters[one.rater].dropped], raters


@dataclass(frozen=True)
class ClipAnswer:
    """One rater's answers about a single clip, to the questions of MUG-V (arXiv 2510.17519)."""

    clip: str
    rater: str
    generated: bool  # it looks generated
    kept: bool  # the product is as in the reference
    professional: bool


@dataclass(frozen=True)
class Share:
    """Of clips, with Wilson's interval."""

    count: int
    """Clips that are so."""
    n: int
    """All of them."""
    low: float
    """Share, 0 to 1."""
    high: float
    """The other end."""

    @property
    def rate(self) -> float:
        """0 to 1."""
        return self.count / self.n


def wilson(count: int, n: int, confidence: float) -> Share:
    """A share with Wilson's score interval (1927).

    Raises:
        ValueError: there is nothing to count, or more was counted than there is.
    """
    from scipy.stats import binomtest  # see ``sign_test``

    found = binomtest(count, n).proportion_ci(confidence, method="wilson")
    return Share(count, n, float(found.low), float(found.high))


def mugv_rates(answers: Collection[ClipAnswer], confidence: float) -> dict[str, Share]:
    """MUG-V's ``pass`` (looks not generated, product kept) and ``high_quality`` (passes, and looks professional).

    Each question is answered for a clip when at least two thirds of its raters say so.

    Raises:
        ValueError: there are no answers.
    """
    by_clip: dict[str, list[ClipAnswer]] = defaultdict(list)
    for answer in answers:
        by_clip[answer.clip].append(answer)

    def agreed(said: list[bool]) -> bool:
        return 3 * sum(said) >= 2 * len(said)

    passed = {
        clip: agreed([not one.generated for one in every]) and agreed([one.kept for one in every])
        for clip, every in by_clip.items()
    }
    high = sum(passed[clip] and agreed([one.professional for one in every]) for clip, every in by_clip.items())
    return {
        "pass": wilson(sum(passed.values()), len(passed), confidence),
        "high_quality": wilson(high, len(passed), confidence),
    }


def _resampled(n: int, bootstrap: Bootstrap) -> np.ndarray:
    """(resamples, n): how often each of n prompts is drawn."""
    if not n:
        return np.zeros((bootstrap.resamples, 0))
    return (
        np.random.default_rng(bootstrap.seed).multinomial(n, np.full(n, 1 / n), bootstrap.resamples).astype(np.float64)
    )


def _interval(value: float, drawn: np.ndarray, n: int, bootstrap: Bootstrap) -> Interval:
    """Percentiles of the resamples; those without a figure (nan) lie beyond both ends."""
    spread = drawn[np.isfinite(drawn)]
    if n < 2 or not spread.size or np.ptp(spread) <= 1e-12 * max(1.0, np.abs(spread).max()):
        return Interval(value, None, None, n, why="one prompt" if n < 2 else "all prompts agree")
    tail = (1 - bootstrap.confidence) / 2
    bounds = [
        np.quantile(np.where(np.isnan(drawn), beyond, drawn), at, method="inverted_cdf")
        for at, beyond in ((tail, -math.inf), (1 - tail, math.inf))
    ]
    low, high = (float(bound) if math.isfinite(bound) else None for bound in bounds)
    return Interval(value, low, high, n, why="too few prompts" if low is None and high is None else "")
