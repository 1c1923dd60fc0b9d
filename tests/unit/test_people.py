"""People's answers become judgements, scores and what the page says of them; expected figures are counted by hand."""

import re

import pytest
import report_inputs
from rate_inputs import answer
from test_report import Elements, cards, configured, rendered

from regdpo.config import schema
from regdpo.config.stage_inputs import AnswersStage
from regdpo.core.rows import REAL, SampleRow
from regdpo.evaluate import gsb, people
from regdpo.evaluate.measures import Given, metrics
from regdpo.report import gather
from regdpo.report import people as shaped

SETTINGS = schema.Bootstrap(resamples=400)


def gold(rater, prompt, said, axis="VQ"):
    return answer(rater, prompt, said, axis, arm=REAL, other="spoiled", gold="a", seed=-1)


ROWS = [
    *(answer("rater 1", f"clip{at:03}", said) for at, said in enumerate(["a", "a", "same", "b"], start=8)),
    *(answer("rater 2", f"clip{at:03}", said) for at, said in enumerate(["a", "same", "same", "b"], start=8)),
    answer("rater 1", "clip008", "b", repeat=1),
    answer("rater 1", "clip009", "a", repeat=1),
    *(answer("rater 3", f"clip{at:03}", "b") for at in range(8, 12)),
    *(
        gold(rater, "clip008", said, axis)
        for rater, said in (("rater 1", "a"), ("rater 3", "b"))
        for axis in people.AXES
    ),
]
"""Two raters who look, of whom one has seen gold pairs; and one who does not look."""


def test_gold_pairs_repeats_and_who_does_not_look_are_not_counted():
    found = people.counted(ROWS, 0.8)
    assert sorted({row.rater for row in found.rows}) == ["rater 1", "rater 2"]
    assert len(found.rows) == 8
    assert found.raters["rater 1"] == gsb.Attention(2, 2, False)
    assert found.raters["rater 2"] == gsb.Attention(0, 0, False)
    assert found.raters["rater 3"] == gsb.Attention(0, 2, True)
    assert found.again == {"rater 1": (1, 2)}
    everybody = people.counted(ROWS, 0.0)
    assert len(everybody.rows) == 12
    compared = gsb.compare(people.judgements(found.rows, "VQ"), "sft", "base", SETTINGS)
    assert (compared.good, compared.same, compared.bad, compared.better, compared.worse) == (3, 3, 2, 2, 1)
    assert not people.judgements(found.rows, "PF")
    assert sorted(map(len, people.units(found.rows, "VQ"))) == [2, 2, 2, 2]


def sample(model, clip, seed=0):
    rest = {"steps": 1, "guidance": 1.0, "shift": None, "path": "", "real": "", "real_sha256": ""}
    return SampleRow(
        sample_id=f"{model}|{clip}", model=model, clip_id=clip, seed=seed, sha256=f"{model} {clip}", **rest
    )


def given(rows):
    samples = [sample(model, f"clip{at:03}") for model in ("base", "sft/seed0", "dpo/seed0") for at in range(8, 14)]
    stage = AnswersStage(attention=0.8, ratings="")
    return Given(None, "cpu", stage, samples=tuple(samples), answers=tuple(rows))


def test_the_score_of_a_sample_is_how_much_better_than_bases_it_was_found():
    turned = answer("rater 1", "clip012", "b", arm="base", other="sft", model_a="base", model_b="sft/seed0")
    rows = [row for row in people.measure(given([*ROWS, turned])) if row.metric == "people_vq"]
    values = {(row.model, row.clip_id): row.value for row in rows if row.value is not None}
    sft = {"clip008": 1.0, "clip009": 0.5, "clip010": 0.0, "clip011": -1.0, "clip012": 1.0}
    assert values == {("sft/seed0", clip): value for clip, value in sft.items()} | {("base", clip): 0.0 for clip in sft}
    lacking = [row for row in rows if row.value is None]
    assert {(row.model, row.missing) for row in lacking} == {("dpo/seed0", people.NOBODY)}
    assert len(lacking) == 6


def test_an_arm_on_another_base_model_is_held_against_that_one():
    others = {"model_a": "base1/sft/seed0", "model_b": "base1/base"}
    samples = [sample(model, "clip008") for model in ("base", "base1/base", "sft/seed0", *others.values(), "real")]
    asked = Given(
        None, "cpu", given([]).stage, samples=tuple(samples), answers=(answer("ann", "clip008", "a", **others),)
    )
    rows = [row for row in people.measure(asked) if row.metric == "people_vq"]
    assert {row.model: row.value for row in rows} == {"base1/sft/seed0": 1.0, "base1/base": 0.0}


def test_without_an_answer_that_counts_each_score_says_why():
    asked = [row for row in ROWS if row.rater == "rater 3"]
    for rows, why in (([], people.NOBODY), (asked, people.INATTENTIVE)):
        found = [row for row in people.measure(given(rows)) if row.metric == "people_vq" and row.model == "sft/seed0"]
        assert {(row.value, row.missing) for row in found} == {(None, why)}


def test_agreement_is_over_pairs_that_raters_told_apart():
    kept = people.counted(ROWS, 0.8).rows
    # clip008 and clip009: sft is better; clip010: nobody tells; clip011: base is
    values = {("sft/seed0", f"clip{at:03}", -1): value for at, value in zip(range(8, 12), [2, 0, 9, 1], strict=True)}
    values |= {("base", f"clip{at:03}", 0): 1.0 for at in range(8, 12)}
    found = people.agreement(kept, "VQ", metrics()["psnr"], values, SETTINGS)
    assert (found.pairs, found.share.mean) == (3, pytest.approx((1 + 0 + 0.5) / 3))
    assert found.share.low == 0
    assert people.agreement(kept, "PF", metrics()["psnr"], values, SETTINGS).share is None


CLIPS = [
    answer(rater, "clip008", said, axis, other=None)
    for rater in ("rater 1", "rater 2")
    for axis, said in (("generated", "no"), ("product", "yes"), ("professional", "no"))
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    made = report_inputs.make(tmp_path_factory.mktemp("people"))
    made.write_scores([*(row for row in made.scores if not row.metric.startswith("people")), *of_answers(made)])
    found = gather.gather(made.values, made.store, made.files)
    return gather.Inputs(**(vars(found) | {"answers": [*ROWS, *CLIPS]}))


def of_answers(made):
    found = given([*ROWS, *CLIPS])
    return people.measure(found)


def table(html, label):
    """Rows of a table as text, by their first cell."""
    part = re.search(rf'aria-label="{label}">(.*?)</table>', html, re.S)[1]
    rows = [
        re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row.replace("<wbr>", ""))).strip()
        for row in re.findall(r"<tr>.*?</tr>", part, re.S)
    ]
    return rows


def test_the_page_has_what_people_said(inputs):
    html = rendered(inputs)
    (_, sft, dpo, _) = table(html, "Comparisons by people, VQ")
    # G 3, S 3, B 2: (3 + 3) / (3 + 2), (3 - 2) / 8, (3 + 1.5) / 8; two prompts won, one lost: p = 1
    assert re.fullmatch(
        r"sft against base 3 3 2 1\.20 \[.*?\] \+0\.12 \[.*?\] 0\.56 \[.*?\] 2 : 1 of 4 prompts, p 1", sft
    ), sft
    assert dpo == f"dpo against base missing : {shaped.NOBODY}"
    assert table(html, "Comparisons by people, PF")[1:] == [
        f"{arm} against base missing : {shaped.NOBODY}" for arm in ("sft", "dpo", "reg_dpo")
    ]
    assert 'class="good" style="flex-grow: 3">good 3</i>' in html
    assert "of ordered answers by 2 raters" in html
    assert table(html, "Raters")[1:] == [
        "rater 1 7 2 of 2 1 of 2", "rater 2 7 none shown none", "rater 3 0 left out 0 of 2 none"
    ]  # fmt: skip
    clips = table(html, "Single clips")
    assert re.fullmatch(r"sft 100 % 1 of 1, \[21, 100\] 0 % 0 of 1, \[0, 79\] 2", clips[2]), clips
    assert "missing : nobody has answered yet" in clips[1]
    agreed = {row.split()[0]: row for row in table(html, "Agreement of measures with people")[1:]}
    assert re.match(r"PSNR \d\.\d\d .*3 pairs missing : no pair has both", agreed["PSNR"]), agreed
    assert "Nothing here says whether people like a video" not in html
    ids = [attributes["id"] for _, attributes in Elements(html).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_peoples_vq_may_be_the_primary_measure(inputs):
    html = rendered(configured(inputs, scores=inputs.config.scores.model_copy(update={"primary": "people_vq"})))
    assert "The primary measure is <b>People&#39;s VQ</b>" in html
    found = cards(html)
    assert re.search(r"People's VQ 0\.12 \[", found["sft"].replace("&#39;", "'")), found["sft"]
    assert "not measured" in found["dpo"]
