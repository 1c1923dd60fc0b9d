"""Intervals against formulas, against simulated experiments of known truth, and against other libraries."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from regdpo.config.evaluation import Bootstrap
from regdpo.core.rows import ClipRow
from regdpo.evaluate import stats
from regdpo.evaluate.stats import Levels, Look, Place

SETTINGS = Bootstrap(resamples=4000, confidence=0.95, seed=3)
APART = {f"clip{index:03d}": Place("one", index) for index in range(60)}
"""Clips that each lie on a stretch of their own."""


def clips(values, training=None):
    return [Look("", training, 0, f"clip{index:03d}", value) for index, value in enumerate(values)]


def found(looks, where=None, settings=SETTINGS):
    return stats.interval(looks, where or APART, settings)


def test_of_independent_clips_it_is_students_interval():
    values = np.random.default_rng(0).gamma(2.0, size=37)
    interval = stats.interval(clips(values), APART, Bootstrap(resamples=40000, seed=1))
    expected = scipy_stats.ttest_1samp(values, 0)
    low, high = expected.confidence_interval()
    assert interval.mean == pytest.approx(values.mean(), rel=1e-14)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=0.01)
    assert interval.n == 37
    near = stats.interval(clips(values - values.mean() * 0.8), APART, Bootstrap(resamples=40000, seed=1))
    assert near.p == pytest.approx(scipy_stats.ttest_1samp(values - values.mean() * 0.8, 0).pvalue, rel=0.05)


def experiment(rng, bases, trainings, sources, stretches, overlapping, spread):
    """Looks of an experiment whose true mean is 0, and where its clips lie.

    ``spread``: standard deviations of what a base, a training, a video, a stretch of it and a single value bring along.
    """
    of_base, of_training, of_source, of_stretch, of_value = spread
    looks, where, footage = [], {}, {}
    for source in range(sources):
        shift = rng.normal(0, of_source)
        for stretch in range(stretches):
            here = shift + rng.normal(0, of_stretch)
            for clip in range(overlapping):
                name = f"{source}-{stretch}-{clip}"
                where[name], footage[name] = Place(str(source), stretches * source + stretch), here
    for base in range(bases):
        shift = rng.normal(0, of_base)
        for training in range(trainings):
            model = shift + rng.normal(0, of_training)
            looks += [
                Look(base, training, 0, name, model + here + rng.normal(0, of_value)) for name, here in footage.items()
            ]
    return looks, where


@pytest.mark.parametrize(
    "shape",
    [
        (3, 2, 1, 6, 4, (1, 0.3, 0, 0.5, 0.2)),  # three base models, clips that overlap in one video
        (1, 2, 5, 2, 4, (0, 0.3, 0.5, 1, 0.5)),  # one base: clips of five videos
        (3, 2, 4, 2, 3, (0.7, 0.7, 0.7, 0.7, 0.7)),  # all levels alike
        (1, 1, 1, 30, 1, (0, 0, 0, 1, 1)),  # clips that are independent
    ],
)
def test_intervals_hold_what_they_promise(shape):
    """95 % over all levels that vary; where clips alone are resampled it is 23, 59, 40 and 92 %."""
    *sizes, spread = shape
    hits = 0
    for trial in range(100):
        looks, where = experiment(np.random.default_rng(trial), *sizes, spread)
        interval = stats.interval(looks, where, Bootstrap(resamples=200, seed=trial))
        hits += interval.low <= 0 <= interval.high
    assert 0.89 <= hits / 100 <= 1


def test_looks_at_one_stretch_are_no_evidence_about_others():
    values = [1.0, 2.0, 4.0, 2.5]
    often = [Look("", None, seed, f"{i}-{c}", v) for i, v in enumerate(values) for c in range(3) for seed in (0,)]
    where = {look.clip: Place("one", int(look.clip[0])) for look in often}
    once = found(clips(values))
    assert (found(often, where).low, found(often, where).high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_same_seed_same_interval_in_any_order():
    values = clips(np.random.default_rng(2).normal(size=20))
    assert found(values) == found(values[::-1])
    assert found(values) != found(values, settings=Bootstrap(resamples=4000, seed=4))


@pytest.mark.parametrize(
    ("looks", "why"),
    [
        (clips([0.3]), "one clip"),
        (clips([0.1, 0.1, 0.1]), "all values agree"),
        (clips([0.1 + 0.2, 0.3]), "all values agree"),
    ],
)
def test_no_interval_without_spread(looks, why):
    interval = found(looks)
    assert (interval.low, interval.high, interval.p, interval.n) == (None, None, None, len(looks))
    assert (interval.sign, interval.why) == (None, why)


def test_overlapping_clips_of_one_model_show_no_spread():
    interval = found(clips([1.0, 2.0, 3.0]), dict.fromkeys(APART, Place("one", 0)))
    assert (interval.low, interval.why) == (None, "one model on one stretch of footage")


def test_nothing_measured_is_refused():
    with pytest.raises(ValueError, match="no clip"):
        found([])


def delta(ours, theirs):
    return stats.delta(ours, theirs, APART, SETTINGS)


def test_pairing_cancels_what_a_clip_brings_along():
    rng = np.random.default_rng(4)
    offsets, noise = rng.normal(0, 100, 30), rng.normal(-0.5, 0.1, 30)
    difference, plain = delta(clips(offsets + noise), clips(offsets)), found(clips(noise))
    assert (difference.mean, difference.low, difference.high) == pytest.approx((plain.mean, plain.low, plain.high))
    assert difference.sign == -1


def test_arms_are_paired_by_training_and_with_base_by_what_it_has():
    rng = np.random.default_rng(5)
    shifts = rng.normal(0, 10, 6)  # that a training's seed brings to every arm
    ours = [look for seed, shift in enumerate(shifts) for look in clips(shift + np.arange(5) / 10 + 1, seed)]
    theirs = [look for seed, shift in enumerate(shifts) for look in clips(shift + np.arange(5) / 10, seed)]
    against_arm, against_base = delta(ours, theirs), delta(ours, clips(np.arange(5) / 10))
    assert against_arm.mean == pytest.approx(1)
    assert against_arm.low is None  # all values agree
    assert against_base.high - against_base.low > shifts.std()
    negative = [look._replace(training=-1 - look.training) for look in ours]  # a seed may be any number
    assert delta(negative, clips(np.arange(5) / 10)).mean == pytest.approx(against_base.mean)
    assert stats.paired(negative, theirs) == []


def test_values_of_two_bases_are_never_paired():
    ours = [Look(base, 0, 0, "clip000", 10.0 * base + 1) for base in (0, 1)]
    theirs = [Look(base, None, 0, "clip000", 10.0 * base) for base in (0, 1, 2)]
    assert [look.value for look in stats.paired(ours, theirs)] == [1, 1]


def test_pairing_takes_shared_clips_only():
    difference = delta(clips([1.0, 2.0]), clips([0.5]))
    assert (difference.mean, difference.n) == (0.5, 1)


def test_signs():
    assert delta(clips([1, 2, 3]), clips([1, 2, 3])).sign == 0
    assert delta(clips([2, 3, 3]), clips([1, 1, 1])).sign == 1
    assert delta(clips([0, 3, 0, 3]), clips([1, 1, 2, 2])).sign == 0


def test_distance_knows_no_direction():
    real, base = clips([10.0, 10.0, 10.0]), stats.distances(clips([7.0, 8.0, 6.0]), clips([10.0, 10.0, 10.0]))
    above = delta(stats.distances(clips([11.0, 11.5, 10.5]), real), base)
    below = delta(stats.distances(clips([9.0, 8.5, 9.5]), real), base)
    assert above == below
    assert above.mean == pytest.approx(-2)


def test_clips_that_overlap_lie_on_one_stretch():
    def clip(name, source, shot, start, frames=9):
        return ClipRow(
            clip_id=name, status="accepted", source=source, source_digest="", shot=shot, start=start, frames=frames
        )

    rows = [
        clip("a", "x", 0, 0),
        clip("b", "x", 0, 8),
        clip("c", "x", 0, 16),
        clip("d", "x", 0, 25),
        clip("e", "x", 1, 26),
    ]
    rows += [clip("long", "y", 0, 0, 50), clip("short", "y", 0, 5), clip("later", "y", 0, 40), clip("f", "y", 0, 50)]
    lie = stats.places(reversed(rows))
    together = [{name for name, place in lie.items() if place.stretch == one} for one in range(5)]
    assert together == [{"a", "b", "c"}, {"d"}, {"e"}, {"long", "short", "later"}, {"f"}]
    assert lie["a"].source == "x"


def test_holms_correction_is_that_of_r():
    # R's p.adjust(c(.01, .04, .03, .005, .9), "holm")
    assert stats.holm([0.01, 0.04, 0.03, 0.005, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])
    assert stats.holm([]) == []
    assert stats.holm([0.6, 0.7]) == [1, 1]


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        (
            Levels(1, 2, 1, 1, 1),
            "Intervals are over 2 trainings of each arm. Of other levels they cannot speak: what the page says holds for this "
            "base model alone, this one sample of each clip alone, this one video alone, this one stretch of "
            "overlapping clips alone.",
        ),
        (
            Levels(3, 2, 1, 1, 4),
            "Intervals are over 3 base models and 4 stretches of one video. Of other levels they cannot speak: what the page "
            "says holds for this one sample of each clip alone, this one video alone.",
        ),
        (Levels(3, 2, 2, 5, 9), "Intervals are over 3 base models and 5 videos."),
    ],
)
def test_what_an_interval_cannot_speak_of_is_said(levels, sentence):
    assert levels.sentence == sentence


def test_means_keep_models_apart():
    assert stats.means({"b": clips([1.0, 3.0]), "a": clips([5.0, 7.0]), "c": []}) == {"a": 6.0, "b": 2.0}


def test_standardised_difference():
    assert stats.standardised([2, 4, 6], [1, 3, 5]) == pytest.approx(0.5)
    assert stats.standardised([1, 1], [1, 1]) == 0
    assert stats.standardised([1, 1], [2, 2]) == -math.inf
