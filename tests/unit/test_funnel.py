"""The page of the clips: what each filter took, in the order in which footage meets them, and what is shown of it."""

import base64
import re

import pytest
from tables import frame

from regdpo.config import schema
from regdpo.config.stage_inputs import FunnelStage
from regdpo.core.rows import ClipRow
from regdpo.core.store import Store
from regdpo.data.notes import remember
from regdpo.report import funnel
from regdpo.stages import funnel as stage

LIMITS = schema.Filters(min_motion=2)
TIMES = "\N{MULTIPLICATION SIGN}"
SCORES = {"upscale": 1.2, "luma": 90.0, "frozen": 0.0, "motion": 5.0}


def row(number: int, reason: str = "", source: str = "a.mp4", **values: object) -> ClipRow:
    fixed = {"clip_id": f"c{number:03}", "status": "rejected" if reason else "accepted", "reason": reason}
    return ClipRow.model_validate(fixed | {"source": source, "source_digest": "d", **values})


def measured(number: int, reason: str = "", source: str = "a.mp4", window: int = 0, **scores: float) -> ClipRow:
    values = {"scores": SCORES | scores, "measured": f"measures/{number}.json", "crop_x": window, "start": 20 * number}
    shape = {"shot": 0, "shot_frames": 2000, "frames": 16, "fps": 16, "width": 64, "height": 48, "source_pixels": 2133}
    return row(number, reason, source, **values, **shape)


@pytest.fixture
def rows():
    return [
        *(measured(number) for number in range(5)),
        measured(5, "static: motion 1.50 is below 2", motion=1.5, window=32),
        measured(6, "static: motion 0.50 is below 2", motion=0.5),
        measured(7, "static: motion 1.90 is below 2", motion=1.9),
        measured(8, "black: mean luma 3.0 is below 8", luma=3.0),
        measured(9, "duplicate: same content as b.mp4 shot 0", "b.mp4"),
        row(10, "short: the shot has 5 frames, a clip takes 9", "b.mp4"),
        row(11, "broken: <script>alert(1)</script>", "<b>evil</b>\n.mp4"),
    ]


def test_steps_come_in_the_order_in_which_footage_meets_them(rows):
    told = [(step.kind, step.taken, step.left, step.threshold) for step in funnel.steps(frame(rows)["reason"], LIMITS)]
    assert told == [
        ("broken", 1, 11, ""),
        ("short", 1, 10, ""),
        ("black", 1, 9, "clips.filters.min_luma 8"),
        ("static", 3, 6, "clips.filters.min_motion 2"),
        ("duplicate", 1, 5, "clips.filters.same_footage 0.85"),
    ]
    assert funnel.steps(frame([])["reason"], LIMITS) == []


def write(rows, folder, **pairs):
    store = Store(folder / "store")
    for one in rows:
        if one.measured:
            jpeg = base64.b64encode(one.clip_id.encode()).decode()
            told = [
                {"x": x, "y": 0, "scores": one.scores, "picture": jpeg if x == one.crop_x else "no"} for x in (0, 32)
            ]
            remember(store, one.measured, told)
    what = FunnelStage.model_validate({"pairs": pairs, "frames": 16, "known": [], "filters": LIMITS.model_dump()})
    stage.write(what, frame(rows), [], store, folder / "clips.html")
    return (folder / "clips.html").read_text()


def test_the_page_shows_figures_thresholds_and_pictures_and_is_the_same_again(rows, tmp_path):
    page = write(rows, tmp_path)
    assert page == write(rows, tmp_path)
    assert "5 clips kept, 41.7\N{NO-BREAK SPACE}% of what came in" in page
    assert re.search(r"5 s of footage from (\d of )?\d+ videos?; 12 candidates came in", page)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert f"64 {TIMES} 48 16 at 16/s 5 5 s 5 up to 1.20 {TIMES}" in text  # 5 clips of a second, all enlarged
    assert "min_motion 2, took 3" in text
    shown = [base64.b64decode(data).decode() for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)]
    assert shown[:5] == ["c000", "c001", "c002", "c003", "c004"]
    assert shown[5:] == ["c008", "c007", "c005", "c006", "c009"]  # of a filter the nearest to its threshold first
    assert "http:" not in re.sub(r'xmlns\S*="http://www.w3.org/\S*"', "", page)
    assert "<script" not in page
    assert "&lt;b&gt;evil&lt;/b&gt;\\n.mp4" in page


def test_footage_that_leaves_a_split_empty_gets_its_page_and_the_reason(rows, tmp_path):
    assert "pairs: no clip falls into" in write(rows[:2], tmp_path, split="source")
    nothing = write(rows[5:], tmp_path)
    assert "0 clips kept" in nothing
    assert "no clip was accepted" in nothing
    assert "No clip was measured" in write([], tmp_path)


def test_pictures_that_are_gone_are_left_out(rows, tmp_path):
    write(rows, tmp_path)
    (tmp_path / "store" / rows[0].measured).unlink()
    what = FunnelStage.model_validate({"pairs": {}, "frames": 16, "known": [], "filters": LIMITS.model_dump()})
    stage.write(what, frame(rows), [], Store(tmp_path / "store"), tmp_path / "less.html")
    assert (tmp_path / "less.html").read_text().count("<img") == 9
