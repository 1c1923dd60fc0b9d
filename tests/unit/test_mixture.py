"""Steps of several sources and sizes: shares, what each source's own order is, and what is refused."""

from collections import Counter

import pytest

from regdpo.config.stage_inputs import TrainStage
from regdpo.config.training import TrainSettings
from regdpo.core import manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import LatentRow
from regdpo.stages.train import taken
from regdpo.train.dataset import Order
from regdpo.train.mixture import Mixture, chosen

ROW = {"split": "train", "clip_id": "", "path": "", "sha256": "", "encoder": "", "has_loser": True}
ROWS = [
    LatentRow(pair_id=f"{origin}{shape}{number}", origin=origin, shape=shape, **ROW)
    for origin, shape, count in (("gt", "wide", 9), ("gt", "tall", 5), ("labels", "wide", 3), ("other", "tall", 20))
    for number in range(count)
]
STEPS = 1000


def flat(**shares: float) -> dict[str, tuple[float, float]]:
    return {name: (share, share) for name, share in shares.items()}


def mixture(sources=None, shapes=None, seed: int = 4) -> Mixture:
    rows = chosen(ROWS, sources or {}, shapes or {})
    return Mixture(rows, 4, seed, STEPS, sources or {}, shapes or {})


def test_sources_take_turns_by_their_shares_each_in_its_own_order():
    made = mixture(flat(gt=3, labels=1))
    taken = [made.step(number) for number in range(STEPS)]
    assert all(len({row.origin for row in step}) == 1 for step in taken)
    assert Counter(step[0].origin for step in taken)["gt"] == pytest.approx(750, abs=4 * (STEPS * 3 / 16) ** 0.5)
    for origin in ("gt", "labels"):
        alone = Order([row for row in ROWS if row.origin == origin], 4, 4)
        mine = [step for step in taken if step[0].origin == origin]
        assert mine == [alone.step(number) for number in range(len(mine))]
    turns = [step[0].origin for step in taken]
    assert {"".join(name[0] for name in turns[first : first + 3]) for first in range(STEPS)} >= {"ggg", "glg", "lgl"}


def test_a_step_is_the_same_whenever_it_is_asked_for():
    """As when a training goes on; and another with another seed."""
    made, again = mixture(flat(gt=1, labels=1)), mixture(flat(labels=5, gt=5))
    assert [again.step(number) for number in reversed(range(50))] == [made.step(number) for number in range(50)][::-1]
    other = mixture(flat(gt=1, labels=1), seed=5)
    assert [other.step(number)[0].origin for number in range(50)] != made_origins(made)


def made_origins(made: Mixture) -> list[str]:
    return [made.step(number)[0].origin for number in range(50)]


def test_one_source_is_as_if_there_were_no_others():
    made, alone = mixture(flat(gt=0.1)), Order([row for row in ROWS if row.origin == "gt"], 4, 4)
    assert [made.step(number) for number in range(20)] == [alone.step(number) for number in range(20)]


def test_shares_change_in_a_straight_line():
    made = mixture({"gt": (1, 0), "other": (0, 3)}, {"wide": (1, 1), "tall": (1, 1)})
    assert made.names == [("gt", "tall"), ("gt", "wide"), ("other", "tall")]
    assert made.at(0) == [0.5, 0.5, 0]
    assert made.at(STEPS - 1) == [0, 0, 1]
    assert made.at((STEPS - 1) // 3) == pytest.approx([2 / 7, 2 / 7, 3 / 7], abs=1e-3)
    ends = [made.step(0)[0].origin, made.step(STEPS - 1)[0].origin]
    assert ends == ["gt", "other"]
    early, late = (Counter(made.step(it)[0].origin for it in span) for span in (range(100), range(900, 1000)))
    assert early["gt"] > 70
    assert late["other"] > 90


def test_what_is_not_named_is_not_trained_on():
    assert {row.origin for row in chosen(ROWS, flat(labels=1), {})} == {"labels"}
    assert {row.shape for row in chosen(ROWS, {}, flat(tall=1))} == {"tall"}
    assert chosen(ROWS, {}, {}) == ROWS
    with pytest.raises(UserError, match=r"`sources` name mine, of which there are no pairs to train on"):
        chosen(ROWS, flat(mine=1), {})
    with pytest.raises(UserError, match=r"`sizes` name one of which there are no pairs"):
        chosen(ROWS, {}, flat(long=1))
    with pytest.raises(UserError, match=r"at the first or the last step all shares are 0"):
        mixture({"labels": (1, 0), "other": (0, 1)}, {"wide": (0, 1), "tall": (1, 0)})


def test_a_training_is_known_by_the_pairs_it_takes(tmp_path):
    """What is another source's makes it no other training; one that takes all is of the whole table."""
    settings = TrainSettings().model_dump()
    named = TrainStage.model_validate({"objective": "sft", "seed": 0, "settings": settings, "sources": flat(gt=1)})
    every = named.model_copy(update={"sources": {}})
    less = [row for row in ROWS if row.origin != "other"]
    other = [row.model_copy(update={"weight": 2.0}) if row.origin == "gt" else row for row in ROWS]
    tables = {name: tmp_path / name for name in ("whole", "less", "other")}
    for path, rows in zip(tables.values(), (ROWS, less, other), strict=True):
        manifests.write(path, rows, LatentRow)
    by_source, by_table = ({name: taken(stage, path) for name, path in tables.items()} for stage in (named, every))
    assert by_source["whole"] == by_source["less"] != by_source["other"]
    assert len({*by_table.values()}) == 3


def test_the_pairs_of_one_generator_are_a_source():
    rows = [row.model_copy(update={"generator": "near" if place % 2 else "far"}) for place, row in enumerate(ROWS)]
    shares = flat(**{"gt.near": 1, "labels": 1})
    found = chosen(rows, shares, {})
    assert {(row.origin, row.generator) for row in found} == {("gt", "near"), ("labels", "near"), ("labels", "far")}
    made = Mixture(found, 4, 4, STEPS, shares, {})
    steps = [made.step(number) for number in range(STEPS)]
    assert {(row.origin, row.generator) for step in steps for row in step if row.origin == "gt"} == {("gt", "near")}
    assert all(len({row.origin for row in step}) == 1 for step in steps)
