"""Black bars beside the picture: what is one, what only looks like one, and what becomes of them."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from regdpo.data import bars, cut, video
from regdpo.data.bars import NONE, Bars

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 144, 256
NOISE = cv2.GaussianBlur(RNG.integers(16, 235, (HEIGHT, 4 * WIDTH)).astype(np.uint8), (9, 9), 0)


def moving(frames: int = 12) -> np.ndarray:
    """A texture that goes by, (F, H, W)."""
    return np.stack([NOISE[:, 8 * n : 8 * n + WIDTH] for n in range(frames)])


def framed(left: int = 0, top: int = 0, right: int = 0, bottom: int = 0, frames: int = 12) -> np.ndarray:
    """The same with bars, noisy as an encoder leaves them."""
    found = moving(frames)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[top : HEIGHT - bottom, left : WIDTH - right] = True
    return np.where(inside, found, 16 + RNG.integers(0, 3, found.shape)).astype(np.uint8)


def of(*shots: np.ndarray) -> list[Bars]:
    seen = np.array([bars.see(frame) for shot in shots for frame in shot])
    edges = np.cumsum([0, *(len(shot) for shot in shots)]).tolist()
    return bars.find(seen, list(pairwise(edges)))


@pytest.mark.parametrize(
    "there", [Bars(), Bars(0, 18, 0, 18), Bars(87, 0, 88, 0), Bars(32, 20, 32, 20), Bars(0, 20, 0, 16)]
)
def test_bars_on_opposite_sides_are_found(there):
    """Letterbox, an upright video in a wide frame, both, and bars that are not quite centred."""
    assert of(framed(there.left, there.top, there.right, there.bottom)) == [there]


def dark(scene: str) -> np.ndarray:
    light = moving().astype(float) - 16
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    shape = {
        "night sky over bright ground": (y >= 60) * 1.0,
        "it is dark above and below, gradually": np.clip(1.6 - np.abs(y - 72) / 40, 0, 1),
        "a lamp in the dark": np.clip(1.5 - np.hypot(y - 72, x - 128) / 40, 0, 1),
        "a bright window": ((np.abs(y - 60) < 30) & (np.abs(x - 90) < 40)) * 1.0,
        "a door to a bright room": ((np.abs(x - 60) < 25) & (y > 20)) * 1.0,
        "towers that stand apart": ((y > 40) & (y < 100) & (x % 64 < 20)) * 1.0,
        "nothing at all": 0.0 * y,
    }[scene]
    return (16 + light * shape).astype(np.uint8)


@pytest.mark.parametrize(
    "scene",
    ["night sky over bright ground", "it is dark above and below, gradually", "a lamp in the dark", "a bright window",
     "a door to a bright room", "towers that stand apart", "nothing at all"],
)  # fmt: skip
def test_a_dark_scene_has_no_bars(scene):
    assert of(dark(scene)) == [NONE]


def test_what_does_not_stay_for_the_whole_shot_is_no_bar():
    assert of(np.concatenate([framed(0, 18, 0, 18), moving(1)])) == [NONE]
    moves = np.concatenate([framed(0, 18 + 2 * n, 0, 18 + 2 * n, frames=1) for n in range(12)])
    assert of(moves) == [NONE]  # curtains
    fades = np.concatenate([framed(0, 18, 0, 18), np.full((4, HEIGHT, WIDTH), 16, np.uint8)])
    assert of(fades) == [Bars(0, 18, 0, 18)]


def test_shots_of_a_video_share_their_bars():
    """A shot too dark to tell has those of the others, unless others show that the video has none there; nearly the
    same are the same; and of many kinds the rare are left alone."""
    wide, night = framed(0, 18, 0, 18), dark("a bright window")
    assert of(wide, night) == [Bars(0, 18, 0, 18)] * 2
    assert of(wide, night, moving()) == [Bars(0, 18, 0, 18), NONE, NONE]
    assert of(wide, framed(0, 19, 0, 18)) == [Bars(0, 19, 0, 18)] * 2
    many = [framed(0, 10 * n, 0, 10 * n, frames=12 + n) for n in (1, 2, 3, 4, 5)]
    assert [bool(one) for one in of(*many)] == [False, True, True, True, True]
    assert of(wide, wide[:0]) == [Bars(0, 18, 0, 18)] * 2  # nothing is left of a shot between two cuts


def test_windows_lie_between_the_bars():
    """An upright video of 608 x 1080 in 1920 x 1080 for clips of 480 x 832, and a film of 1920 x 804 for 832 x 480."""
    source = video.Probe(0, 0, 1920, 1080, 25, None, 0, 0)
    upright = Bars(87, 0, 88, 0).in_source((256, 144), 1920, 1080)
    assert upright == Bars(660, 0, 668, 0)  # a column of the small picture more
    scaled = cut.scaled_size(source, 480, 832, None, upright)
    assert scaled == (1556, 876)  # 592 columns become 480
    (window,) = cut.windows(scaled, 480, 832, (1, 1), upright.scaled(1556 / 1920, 876 / 1080))
    assert 660 * 1556 / 1920 - 2 <= window.x <= window.x + 480 <= (1920 - 668) * 1556 / 1920 + 2
    assert window.y == 22
    film = Bars(0, 138, 0, 138)
    scaled = cut.scaled_size(source, 832, 480, 720, film)
    assert scaled == (1720, 968)
    windows = cut.windows(scaled, 832, 480, (2, 1), film.scaled(1720 / 1920, 968 / 1080))
    assert [window.y for window in windows] == [124, 364]  # rows 124 to 844 are picture
