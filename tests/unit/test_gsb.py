"""People's answers, against the papers' tables, published data sets, closed forms and other libraries."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize

from regdpo.config.schema import Bootstrap
from regdpo.evaluate import gsb
from regdpo.evaluate.gsb import ClipAnswer, Judgement

SETTINGS = Bootstrap(resamples=2000, seed=1)


def answers(counts, arm="reg_dpo", other="base", raters=1):
    """Each answer about a prompt of its own, by so many raters who agree."""
    every = [name for name, count in zip(gsb.ANSWERS, counts, strict=True) for _ in range(count)]
    return [
        Judgement(f"pair{index}", f"prompt{index}", f"rater{rater}", arm, other, answer)
        for index, answer in enumerate(every)
        for rater in range(raters)
    ]


@pytest.mark.parametrize(
    ("counts", "ratio"), [((278, 75, 141), 1.63), ((168, 246, 80), 1.27)]
)  # Reg-DPO (arXiv 2511.01450), table 1: VQ and PF of GT-Pair against base
def test_the_papers_scores_follow_from_its_counts(counts, ratio):
    good, _, bad = counts
    found = gsb.score(*counts)
    assert found["ratio"] == pytest.approx(ratio, abs=0.005)
    assert found["net"] == pytest.approx((good - bad) / 494, rel=1e-15)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((0, 0, 0), (None, None)), ((3, 0, 0), (None, 1)), ((0, 4, 0), (1, 0)), ((0, 0, 2), (0, -1)), ((1, 0, 1), (1, 0))],
)
def test_what_would_divide_by_zero_is_none(counts, expected):
    assert tuple(gsb.score(*counts).values()) == expected
    won = gsb.win_rate(*counts)
    assert won == (None if counts == (0, 0, 0) else (counts[0] + counts[1] / 2) / sum(counts))


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="not negative"):
        gsb.score(1, -1, 0)


def test_intervals_of_independent_answers_are_those_of_the_delta_method():
    good, same, bad = counts = np.array([278, 75, 141])
    found = gsb.compare(answers(counts), "reg_dpo", "base", SETTINGS)
    share = counts / counts.sum()
    slope = np.array(
        [1 / (same + bad), 1 / (same + bad) - (good + same) / (same + bad) ** 2, -(good + same) / (same + bad) ** 2]
    )
    slope *= counts.sum()
    error = math.sqrt((slope**2 @ share - (slope @ share) ** 2) / counts.sum())
    assert (found.good, found.same, found.bad, found.prompts) == (278, 75, 141, 494)
    assert found.ratio.low == pytest.approx(found.ratio.mean - 1.96 * error, abs=0.05)
    assert found.ratio.high == pytest.approx(found.ratio.mean + 1.96 * error, abs=0.05)
    values = np.repeat([1, 0, -1], counts)
    assert found.net.high - found.net.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(494), rel=0.08)
    assert found.win_rate.mean == pytest.approx((found.net.mean + 1) / 2)


def test_raters_who_agree_about_a_prompt_make_no_interval_narrower():
    once, thrice = (gsb.compare(answers((12, 5, 8), raters=n), "reg_dpo", "base", SETTINGS) for n in (1, 3))
    assert thrice.good == 36
    assert (thrice.ratio, thrice.net, thrice.win_rate, thrice.p) == (once.ratio, once.net, once.win_rate, once.p)


def test_the_other_way_round_good_is_bad():
    given = answers((5, 3, 2))
    turned = [
        Judgement(
            one.item,
            one.prompt,
            one.rater,
            "base",
            "reg_dpo",
            {"good": "bad", "same": "same", "bad": "good"}[one.answer],
        )
        for one in given
    ]
    assert gsb.compare(turned, "reg_dpo", "base", SETTINGS) == gsb.compare(given, "reg_dpo", "base", SETTINGS)
    other = gsb.compare(given, "base", "reg_dpo", SETTINGS)
    assert (other.good, other.same, other.bad) == (2, 3, 5)


def test_nothing_was_compared():
    found = gsb.compare([], "reg_dpo", "base", SETTINGS)
    assert (found.good, found.ratio, found.net, found.win_rate, found.p) == (0, None, None, None, 1)


def test_a_ratio_without_end_has_no_upper_bound():
    found = gsb.compare(answers((6, 0, 1)), "reg_dpo", "base", SETTINGS)
    assert found.ratio.high is None  # a third of the resamples hold no bad answer
    assert found.ratio.low is not None
    assert gsb.compare(answers((6, 0, 0)), "reg_dpo", "base", SETTINGS).ratio is None


def test_where_there_is_no_interval_it_says_why():
    found = gsb.bradley_terry(answers((1, 1, 0)), SETTINGS)  # half of the resamples have no strengths
    assert {(it.low, it.high, it.why) for it in found.values()} == {(None, None, "too few prompts")}
    assert gsb.compare(answers((0, 1, 0)), "reg_dpo", "base", SETTINGS).net.why == "one prompt"
    assert gsb.compare(answers((0, 3, 0)), "reg_dpo", "base", SETTINGS).net.why == "all prompts agree"


def test_the_sign_test_is_the_binomial_sum():
    tail = sum(math.comb(20, k) for k in range(5, 16))
    assert gsb.sign_test(4, 16) == pytest.approx(1 - tail / 2**20)
    assert gsb.sign_test(0, 0) == gsb.sign_test(5, 5) == 1


def test_alpha_of_krippendorffs_own_example():
    # Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), data C: 4 observers, 12 units; ordinal alpha .815.
    rows = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]
    columns = zip(*(row.split() for row in rows), strict=True)
    units = [[float(value) for value in column if value != "."] for column in columns]
    assert gsb.ordinal_alpha(units) == pytest.approx(0.815, abs=5e-4)


def test_alpha_with_gaps_is_that_of_the_package_krippendorff():
    rows = ["211000000.12112", "2111202201.1022", ".0.201.0..100.0"]
    units = [[int(value) for value in column if value != "."] for column in zip(*rows, strict=True)]
    assert gsb.ordinal_alpha(units) == pytest.approx(-0.042094017094017167, rel=1e-12)  # of version 0.9.0


def test_alpha_of_answers():
    agreed = [{"a": answer, "b": answer} for answer in ("good", "bad", "same")]
    assert gsb.krippendorff_alpha(agreed) == 1
    assert gsb.krippendorff_alpha([{"a": "good", "b": "bad"}, {"a": "bad", "b": "good"}]) < 0
    assert gsb.krippendorff_alpha([{"a": "good", "b": "good"}]) is None
    assert gsb.krippendorff_alpha([{"a": "good"}]) is None


TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
WINS = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ]
)
"""The American League of 1987: Agresti, Categorical Data Analysis, and the R package BradleyTerry2."""


def test_strengths_of_agrestis_baseball_teams():
    found = gsb.strengths(WINS.astype(float))
    published = [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0]  # Baltimore as 0
    assert found - found[-1] == pytest.approx(published, abs=0.0051)
    assert found.sum() == pytest.approx(0, abs=1e-12)


def test_strengths_with_ties_are_the_maximum_of_the_likelihood():
    rng = np.random.default_rng(3)
    given = [
        Judgement(f"{p}{a}{b}", f"p{p}", "r", a, b, gsb.ANSWERS[rng.integers(3)])
        for p in range(12)
        for a, b in itertools.combinations(["base", "dpo", "reg", "sft"], 2)
    ]
    found = gsb.bradley_terry(given, Bootstrap(resamples=200))
    arms = list(found)

    def loss(x):
        values = dict(zip(arms, x, strict=True))
        shares = {"good": (1, 0), "same": (0.5, 0.5), "bad": (0, 1)}
        each = ((values[j.arm] - values[j.other], shares[j.answer]) for j in given)
        return sum(win * math.log1p(math.exp(-gap)) + lost * math.log1p(math.exp(gap)) for gap, (win, lost) in each)

    best = minimize(loss, np.zeros(4), tol=1e-12).x
    assert [found[arm].mean for arm in arms] == pytest.approx(best - best.mean(), abs=1e-4)
    assert all(found[arm].low < found[arm].mean < found[arm].high for arm in arms)


def test_two_arms_differ_by_the_log_of_the_odds():
    found = gsb.bradley_terry(answers((30, 0, 10)), SETTINGS)
    assert found["reg_dpo"].mean - found["base"].mean == pytest.approx(math.log(3))


@pytest.mark.parametrize("given", [answers((4, 0, 0)), answers((3, 1, 2)) + answers((1, 1, 1), "a", "b")])
def test_arms_that_won_all_or_never_met_have_no_strength(given):
    assert gsb.bradley_terry(given, SETTINGS) is None


def test_a_rater_who_fails_gold_pairs_is_dropped():
    def said(item, rater, answer):
        return Judgement(item, item, rater, "a", "b", answer)

    given = [said("gold1", "careful", "good"), said("gold2", "careful", "bad"), said("x", "careful", "same")]
    given += [said("gold1", "hasty", "good"), said("gold2", "hasty", "good"), said("x", "hasty", "good")]
    given += [said("x", "new", "bad")]
    kept, raters = gsb.attentive(given, {"gold1": "good", "gold2": "bad"}, least=0.75)
    assert [(one.rater, one.item) for one in kept] == [("careful", "x"), ("new", "x")]
    assert {name: (one.right, one.shown, one.dropped) for name, one in raters.items()} == {
        "careful": (2, 2, False), "hasty": (1, 2, True), "new": (0, 0, False),
    }  # fmt: skip


def test_wilsons_interval_is_its_formula():
    found = gsb.wilson(29, 100, 0.95)
    z, p, n = 1.959963984540054, 0.29, 100
    centre, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)),
    )
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))
    with pytest.raises(ValueError, match="n"):
        gsb.wilson(0, 0, 0.95)


def test_mugvs_rates_ask_two_thirds_of_the_raters():
    def clip(name, *raters):
        return [ClipAnswer(name, f"r{index}", *answers) for index, answers in enumerate(raters)]

    yes, no = True, False
    given = [
        *clip("good", (no, yes, yes), (no, yes, yes), (yes, no, no)),
        *clip("plain", (no, yes, no), (no, yes, no), (no, yes, yes)),
        *clip("generated", (yes, yes, yes), (yes, yes, yes), (no, yes, yes)),
        *clip("changed", (no, no, yes), (no, no, yes), (no, yes, yes)),
    ]
    found = gsb.mugv_rates(given, 0.95)
    assert (found["pass"].count, found["high_quality"].count, found["pass"].n) == (2, 1, 4)
    assert found["pass"].rate == 0.5
