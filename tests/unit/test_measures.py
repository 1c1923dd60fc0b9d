"""What filters measure, on pictures that were made for it: figures by hand, and the reasons with them."""

import cv2
import numpy as np
import pytest

from regdpo.config import schema
from regdpo.data import filters, fingerprint, measures
from regdpo.data.filters import FULL, Look

RNG = np.random.default_rng(0)
NOISE = cv2.GaussianBlur(RNG.integers(16, 235, (256, 512)).astype(np.uint8), (9, 9), 0)
LOOSE = schema.Filters(max_upscale=9, min_luma=0, max_frozen=1, min_motion=0)


def moving(step: int, frames: int = 9, size: int = 128) -> np.ndarray:
    """A texture that moves by so many pixels a frame; (F, size, size)."""
    return np.stack([NOISE[:size, step * n : step * n + size] for n in range(frames)])


def reason(look: Look, **limits: float) -> str:
    return filters.reject_reason(filters.scores(look), LOOSE.model_copy(update=limits))


def test_an_image_is_not_rejected_for_standing_still():
    """A clip of one frame, as a curriculum has beside videos; what else is wrong with it still counts."""
    found = filters.scores(Look(moving(4, frames=1)))
    assert filters.reject_reason(found, schema.Filters(), image=True) == ""
    assert filters.reject_reason(found, schema.Filters()).startswith("frozen: ")
    assert filters.reject_reason(found, schema.Filters(min_luma=250), image=True).startswith("black: ")


def test_flow_is_a_speed():
    """Four pixels a frame of 128, 16 frames a second: half a side a second, at any size."""
    assert measures.flow(Look(moving(4), fps=16)) == pytest.approx(0.5, rel=0.1)
    large = np.stack([cv2.resize(frame, (512, 512)) for frame in moving(4)])
    assert measures.flow(Look(large, fps=16)) == pytest.approx(0.5, rel=0.1)
    assert measures.flow(Look(moving(4), fps=48)) == pytest.approx(1.5, rel=0.1)
    noise = 128 + RNG.integers(-3, 4, (9, 128, 128)).astype(np.int16)
    assert measures.motion(Look(noise.astype(np.uint8))) > 2  # noise is no motion
    assert measures.flow(Look(moving(0), fps=16)) == 0
    assert reason(Look(moving(4), fps=128)).startswith("fast: the picture moves ")
    assert reason(Look(moving(4), fps=16), min_flow=0.6).startswith("still: the picture moves 0.5")
    assert reason(Look(moving(4), fps=16)) == ""


def test_sharpness_of_a_chessboard():
    """Luma 0 and 200 of the full range: each inner cell's Laplacian is 4 * 200 of one sign or the other."""
    board = np.indices((64, 64)).sum(axis=0) % 2 * round(200 / FULL) + 16
    look = Look(np.repeat(board[None], 20, axis=0).astype(np.uint8))
    assert measures.sharpness(look) == pytest.approx((4 * 200) ** 2, rel=0.02)
    assert reason(look, max_sharpness=2000).startswith("harsh: the variance of the Laplacian is 6.4")
    flat = Look(np.stack([cv2.GaussianBlur(frame, (0, 0), 20) for frame in moving(4)]))
    assert reason(flat).startswith("blurred: the variance of the Laplacian is 0.")


@pytest.mark.parametrize(
    ("rows", "columns", "share"), [(0, 0, 0), (16, 0, 1 / 4), (0, 8, 1 / 8), (16, 16, 7 / 16), (64, 0, 0)]
)
def test_borders_that_are_black_and_end_abruptly(rows, columns, share):
    """So many of 128 rows and columns at each edge; a frame that is black all over has none."""
    frames = moving(4)
    inside = np.zeros((128, 128), bool)
    inside[rows : 128 - rows, columns : 128 - columns] = True
    look = Look(np.where(inside, frames, 18).astype(np.uint8))
    assert measures.border(look) == pytest.approx(share, abs=0.01)
    assert reason(look, max_sharpness=None, max_border=0.05).startswith("border: " if share else "")


def test_a_night_sky_is_no_border():
    fade = np.clip(np.linspace(0, 1.2, 128) - 0.4, 0, 1)[:, None]
    look = Look((16 + (moving(4) - 16.0) * fade).astype(np.uint8))
    assert (look.lumas[0][:40] < measures.BLACK).all()
    assert measures.border(look) == 0


def test_flicker_is_an_amplitude():
    """Frames of 100 +- 10 of the full range; a fade by 5 a frame has none."""
    levels = 16 + np.array([110, 90] * 5) / FULL
    look = Look(np.broadcast_to(levels[:, None, None], (10, 64, 64)).round().astype(np.uint8))
    assert measures.flicker(look) == pytest.approx(10, abs=0.5)
    assert reason(look, min_sharpness=0).startswith("flicker: mean luma swings by 9.9 ")
    fade = Look(np.broadcast_to(60 + 5 * np.arange(10)[:, None, None], (10, 64, 64)).astype(np.uint8))
    assert measures.flicker(fade) < 1e-9


def test_a_slideshow_stands_still_and_jumps():
    """Two slides, each for ten frames with faint noise; and animation whose drawings are shown for three frames."""
    faint = RNG.integers(0, 2, (20, 128, 128)).astype(np.uint8)
    slides = Look(np.repeat(NOISE[None, :128, [0]].repeat(128, axis=2), 20, axis=0) // 2 + faint)
    assert measures.slideshow(slides) == 0  # one slide alone
    two = slides.lumas.copy()
    two[10:] += 60
    assert measures.slideshow(Look(two)) == pytest.approx(1 - 0.5 / (0.5 + 60 / 19), abs=0.03)
    pairs = np.stack([NOISE[:128, :128], NOISE[:128, 200:328]]).repeat(10, axis=0)
    assert reason(Look(pairs)).startswith("slideshow: the picture stands still and changes by jumps (1.00")
    assert measures.slideshow(Look(moving(6, 7).repeat(3, axis=0))) < 0.1


def test_a_loop_shows_the_same_again():
    """A texture that jumps back every ten frames; one that goes on, one that goes on slowly, and one that stands still
    with noise, do not. Of a longer loop the clip that shows it a second time is known by what its shot showed before."""
    again = np.concatenate([moving(9, 10)] * 3)
    assert measures.loop(Look(again)) == 1
    assert reason(Look(again)) == "loop: the shot has shown this before (1.00, more than 0.9)"
    noise = again + RNG.integers(-4, 5, again.shape)
    assert measures.loop(Look(noise.clip(0, 255).astype(np.uint8))) > 0.9
    for step in (1, 9):
        assert measures.loop(Look(moving(step, 30))) < 0.7
    still = 128 + RNG.integers(-9, 10, (30, 128, 128))
    assert measures.loop(Look(still.astype(np.uint8))) == 0
    shot = np.concatenate([moving(9, 20)] * 2)
    looks = np.stack([fingerprint.look_of_luma(luma) for luma in shot])
    assert measures.loop(Look(shot[:20], shot=looks[:20])) < 0.7
    assert measures.loop(Look(shot[20:], shot=looks)) == 1
    rest = np.concatenate([moving(0, 20), moving(9, 20), moving(0, 20)])  # as before something went by
    assert measures.loop(Look(rest[40:], shot=np.stack([fingerprint.look_of_luma(luma) for luma in rest]))) == 0


def test_an_overlay_stays_while_the_footage_moves():
    frames = np.clip(3 * (moving(6, 24) - 125.0) + 125, 16, 235).astype(np.uint8)
    assert measures.overlay(Look(frames)) < 0.01
    text = frames.copy()
    for frame in text:
        cv2.putText(frame, "NEWS", (8, 110), cv2.FONT_HERSHEY_SIMPLEX, 1, 16, 5)
        cv2.putText(frame, "NEWS", (8, 110), cv2.FONT_HERSHEY_SIMPLEX, 1, 235, 2)
    assert measures.overlay(Look(text)) > 0.04
    assert measures.overlay(Look(text[:1].repeat(24, axis=0))) == 0  # where nothing moves nothing is told
    assert reason(Look(text), max_overlay=0.03).startswith("overlay: in ")
    assert reason(Look(text)) == ""


def test_a_threshold_that_is_off_rejects_nothing():
    assert reason(Look(moving(4), bits=0.001)) == ""
    assert (
        reason(Look(moving(4), bits=0.001), min_bits=0.02)
        == "compressed: the file has 0.001 bits a pixel, less than 0.02"
    )
