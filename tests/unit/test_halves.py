"""What is measured of both halves of pairs: which pairs, and known figures of pictures that were made for it."""

from collections import Counter

import numpy as np
import pytest

from regdpo.config.schema import Bootstrap, Encode
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import HalfRow, PairRow
from regdpo.core.store import Store
from regdpo.data.video import write_frames
from regdpo.report import halves as report_halves
from regdpo.stages import halves


def pair(number: int, **fields: object) -> PairRow:
    values = {"pair_id": f"pair{number:04d}", "clip_id": f"clip{number:04d}", "source": "a.mp4", "shot": 0}
    values |= {"split": "train", "start": number, "caption": "", "winner": "w", "winner_sha256": "1" * 64}
    values |= {"frames": 5, "fps": 8.0, "width": 64, "height": 64}
    return PairRow.model_validate(values | {"loser": "l", "loser_sha256": "2" * 64} | fields)


def test_the_pairs_measured_are_few_spread_and_the_same_in_any_order():
    pairs = [pair(number) for number in range(1000)]
    chosen = halves.compared(pairs[::-1])
    assert [row.start for row in chosen] == list(range(0, 1000, 5))
    assert len(chosen) == halves.COMPARED
    assert halves.compared(pairs[:3]) == pairs[:3]


def test_each_source_and_generator_has_pairs_among_them_and_a_figure_of_its_own():
    """Here brightness tells the winners of one kind, and nothing those of another."""
    near = [pair(n, generator="near", source=f"{n % 7}.mp4") for n in range(40)]
    far = [pair(1000 + n, generator="far", source=f"{n % 7}.mp4") for n in range(900)]
    others = [pair(5000 + n, origin="mine", source=f"{n % 7}.mp4") for n in range(3)]
    chosen = halves.compared([*near, *far, *others])
    counts = Counter((row.origin, row.generator) for row in chosen)
    assert counts == {("gt", "near"): 40, ("gt", "far"): halves.COMPARED, ("mine", ""): 3}
    rng = np.random.default_rng(0)
    rows = [
        HalfRow(
            half_id=f"{row.pair_id}|{half}", pair_id=row.pair_id, half=half, path="", sha256="", contrast=1, motion=1,
            sharpness=1, file_size=1, brightness=rng.uniform(50, 60) + (row.generator == "far") * (half == "loser") * 90,
        )
        for row in chosen
        for half in ("winner", "loser")
    ]  # fmt: skip
    found = report_halves.shortcuts_by_kind(rows, chosen, 30, Bootstrap(resamples=100))
    assert [*found] == ["gt, losers by far", "gt, losers by near", "mine"]
    assert found["gt, losers by far"].mean == 1
    assert found["gt, losers by near"].mean < 0.75
    assert found["mine"] is None
    assert report_halves.shortcuts_by_kind(rows, near, 30, Bootstrap()) == {}


def test_training_pairs_are_measured_or_else_what_has_both_halves():
    held, alone = pair(1, split="test"), pair(2, loser="", loser_sha256="")
    assert halves.compared([held, alone, pair(3)]) == [pair(3)]
    assert halves.compared([held, alone]) == [held]
    assert halves.measure([alone], Store("nowhere")) == []


@pytest.fixture
def stored(tmp_path):
    """A store, and a pair: a still of 60 beside one that flashes 60 and 180, at a picture of two such halves."""
    store, frames = Store(tmp_path), np.full((4, 64, 64, 3), 60, np.uint8)
    flashing = frames.copy()
    flashing[1::2] = 180
    fields = {}
    for half, video in (("winner", frames), ("loser", flashing)):
        relative = store.relative("clips", half, ".mp4")
        with store.writing(relative) as path:
            write_frames(path, video, 8.0, Encode(crf=0))
        fields |= {half: relative, f"{half}_sha256": file_digest(store.existing(relative))}
    return store, pair(0, **fields)


def test_figures_of_known_pictures(stored):
    store, row = stored
    winner, loser = halves.measure([row], store)
    assert (winner.half_id, loser.half_id) == ("pair0000|winner", "pair0000|loser")
    assert (winner.sha256, loser.sha256) == (row.winner_sha256, row.loser_sha256)
    assert winner.brightness == pytest.approx(60, abs=1)
    assert loser.brightness == pytest.approx(120, abs=1)
    assert (winner.motion, loser.motion) == (0, pytest.approx(120, abs=1))
    for half in (winner, loser):
        assert (half.contrast, half.sharpness) == (0, 0)
        assert half.file_size == store.existing(half.path).stat().st_size


def test_contrast_and_sharpness_of_a_chessboard():
    """Luma 0 and 200 in equal parts; each inner cell of OpenCV's Laplacian has four neighbours of the other colour."""
    board = np.indices((64, 64)).sum(axis=0) % 2 * 200
    found = halves.statistics(np.repeat(board[None, :, :, None], 3, axis=3).repeat(2, axis=0).astype(np.uint8))
    assert found["brightness"] == 100
    assert found["contrast"] == 100
    assert found["sharpness"] == pytest.approx((4 * 200) ** 2, rel=0.01)  # of values -800 and 800
    assert found["motion"] == 0


def test_a_half_that_is_not_the_pairs_is_one_line(stored):
    store, row = stored
    with pytest.raises(UserError, match="clips/"):
        halves.measure([row.model_copy(update={"loser_sha256": "0" * 64})], store)


def test_every_figure_that_a_row_declares_is_said_in_words():
    assert set(HalfRow.statistics()) == set(HalfRow.model_fields) - {"half_id", "pair_id", "half", "path", "sha256"}
