"""Which size and length a shot's clips are made in."""

import pytest

from regdpo.config import schema
from regdpo.core import manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, Geometry
from regdpo.data.buckets import choose, open_to
from regdpo.workflow import outlook


def sizes(*values: tuple[int, int, int]) -> list[Geometry]:
    return [Geometry(frames=frames, fps=16, width=width, height=height) for frames, width, height in values]


WIDE, TALL, SQUARE = (81, 1280, 720), (81, 720, 1280), (81, 960, 960)
SMALL = (81, 832, 480)


@pytest.mark.parametrize(
    ("there", "shot", "wanted"),
    [
        ([WIDE, TALL], (1920, 1080, 200), WIDE),
        ([WIDE, TALL], (1080, 1920, 200), TALL),
        ([WIDE, TALL, SQUARE], (1000, 1000, 200), SQUARE),
        ([WIDE, TALL, SQUARE], (1440, 1080, 200), WIDE),  # 4:3 loses 1/4 to 16:9 and 1/4 to 1:1; the first of equals
        ([WIDE, TALL], (1080, 1920, 80), None),  # too short, and the other shape is none of its own
        ([WIDE, (49, 720, 1280)], (1920, 1080, 60), None),
        ([WIDE, SMALL], (1920, 1080, 200), WIDE),  # of one shape, nearly: the largest that it fills
        ([WIDE, SMALL], (960, 540, 200), SMALL),
        ([WIDE, SMALL], (640, 360, 200), SMALL),  # fills none: where it is enlarged least
        ([(49, 1280, 720), WIDE, (121, 1280, 720)], (1920, 1080, 100), WIDE),  # the longest that fits
        ([(49, 1280, 720), WIDE], (1920, 1080, 50), (49, 1280, 720)),
        ([(49, 1280, 720), (121, 832, 480)], (1920, 1080, 200), (121, 832, 480)),  # length before size
        ([(49, 1280, 720), (121, 832, 480)], (1920, 1080, 100), (49, 1280, 720)),
        ([(49, 832, 480), (121, 1280, 720)], (854, 480, 200), (49, 832, 480)),  # in time and in space
    ],
)
def test_a_shot_goes_to_the_nearest_shape_and_there_to_the_longest_that_it_fills(there, shot, wanted):
    assert choose(sizes(*there), *shot) == (sizes(wanted)[0] if wanted else None)


def test_a_picture_may_go_to_shapes_that_lose_nearly_as_little():
    """4:3 in 16:9 loses 1 - (4/3) / (16/9) = 1/4; 832 x 480 in 16:9 loses 1 - (16/9) / (26/15) < .025 of 720 rows."""
    there = sizes(WIDE, SMALL, TALL, (81, 640, 480))
    assert open_to(there, 1920, 1080) == sizes(WIDE, SMALL)
    assert open_to(there, 1440, 1080) == sizes((81, 640, 480))


def whole(**values: object) -> schema.Config:
    arms = {"sft": {"objective": "sft"}}
    base = {"model": "some/model", "revision": "main"}
    return schema.check({"videos": {"root": "."}, "base": base, "train": {"arms": arms}, **values})


def config(**clips: object) -> schema.Clips:
    return whole(clips=clips).clips


def test_the_outlook_counts_the_clips_of_each_size_once_there_are_some(tmp_path):
    settings = whole(paths={"results": str(tmp_path)}, clips={"buckets": [{}, {"width": 720, "height": 1280}]})
    wide, tall = (81, 720, 1280), (81, 1280, 720)
    assert outlook.clips_by_size(settings) == {wide: 1, tall: 1}
    row = ClipRow(clip_id="", status="accepted", source="a.mp4", source_digest="", frames=81, width=1280, height=720)
    rows = [row.model_copy(update={"clip_id": f"{number}"}) for number in range(3)]
    rows.append(row.model_copy(update={"clip_id": "tall", "status": "rejected", "width": 720, "height": 1280}))
    manifests.write(tmp_path / "clips.parquet", rows, ClipRow)
    assert outlook.clips_by_size(settings) == {wide: 3, tall: 0}


def test_what_a_bucket_leaves_out_is_as_in_clips():
    clips = config(
        frames=49, width=832, height=480, fps=12, buckets=[{}, {"width": 480, "height": 832}, {"frames": 81}]
    )
    found = [(it.frames, it.fps, it.width, it.height) for it in clips.geometries]
    assert found == [(49, 12, 832, 480), (49, 12, 480, 832), (81, 12, 832, 480)]
    assert config(frames=49).geometries == [Geometry(frames=49, fps=16, width=1280, height=720)]
    only = clips.only(clips.geometries[1])
    assert only.geometries == clips.geometries[1:2]


@pytest.mark.parametrize(
    ("clips", "told"),
    [
        ({"buckets": [{}, {"frames": 81}]}, "clips.buckets: two are of 81 frames of 1280 x 720"),
        (
            {"short_side": 480, "buckets": [{"width": 480, "height": 832}, {}]},
            "clips.short_side: is smaller than the crop",
        ),
        ({"buckets": [{"width": 481}]}, r"clips.buckets.0.width: .*multiple of 2"),
        ({"buckets": [{"length": 81}]}, "clips.buckets.0.length: unknown key"),
    ],
)
def test_buckets_that_cannot_be_are_told(clips, told):
    with pytest.raises(UserError, match=told):
        config(**clips)
