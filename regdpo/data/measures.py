"""What filters measure on a clip: functions of what they look at (``filters.Look``), each a number.

None of them knows what is in the picture. Burned-in text on a box of its own, borders that are blurred or coloured, a
photograph that a camera seems to travel over, and taste are not to be told without a model.
"""

from itertools import pairwise

import cv2
import numpy as np

from regdpo.data.filters import FULL, Look

FROZEN = 0.1
"""Mean absolute luma difference (0..255) below which a frame counts as equal to the one before it. An encoder writes
a repeated frame with differences far below this; the smallest real motion lies far above."""

SOME = 8
"""Frames of a clip in which sharpness and borders are looked for."""

BLACK = 30
"""Greatest luma (16..235) of a border that is black, noise and ringing included, ..."""

LIT = 24
"""... and how much brighter the second row or column behind it is on average: a dark scene becomes so gradually."""

EDGE = 100
"""Least slope (Sobel's, of both directions together) of an edge: one of 25 levels."""

STEADY = 0.25
"""Greatest standard deviation over time of the slope, in parts of it, of an edge that stays as it is."""

CHANGES = 16
"""Least standard deviation over time of luma that changes."""

MOVES = 3.0
"""Least change (root mean square, luma 0..255) of a picture in 8x8 cells that tells whether it comes again, ..."""

LONGEST = 30.0
"""... in so many seconds at most."""

BLOCK, ENOUGH, AROUND = 8, 3, 0.3
"""Rows and columns of the small frames that are looked at together; pixels of them with edges that stay, and the share
of them that changes, at least."""


def luma(look: Look) -> float:
    """Mean luma, 0..255."""
    return float((look.lumas.mean() - 16) * FULL)


def motion(look: Look) -> float:
    """Mean absolute luma difference of neighbouring frames, 0..255."""
    return float(look.steps.mean())


def frozen(look: Look) -> float:
    """Share of frames equal to the one before."""
    return float((look.steps < FROZEN).mean())


def upscale(look: Look) -> float:
    """How many times larger a frame is than in the source, before the crop."""
    return look.enlarged


def bits(look: Look) -> float:
    """Bits of the source's file for each pixel that it shows."""
    return look.bits


def flow(look: Look) -> float:
    """How fast the picture moves: mean length of the optical flow (DIS, Kroeger et al., arXiv 1603.03590), in shorter
    sides of the picture a second."""
    follow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    small = look.small
    lengths = []
    for before, after in pairwise(small):
        moved = np.zeros((*before.shape, 2), np.float32)
        lengths.append(np.linalg.norm(follow.calc(before, after, moved), axis=-1).mean())
    return float(np.mean(lengths or [0.0])) * look.fps / min(small[0].shape)


def sharpness(look: Look) -> float:
    """Mean over some frames of the variance of the Laplacian, of luma 0..255 at the clip's size."""
    found = [cv2.meanStdDev(cv2.Laplacian(look.lumas[n], cv2.CV_16S))[1][0, 0] for n in look.some(SOME)]
    return float(np.mean(np.square(found))) * FULL**2


def border(look: Look) -> float:
    """Share of the picture in black rows and columns along its edges that end abruptly; the median over some frames."""
    shares = []
    for number in look.some(SOME):
        frame = look.small[number]
        rows, columns = (1 - sum(_black(lines)) / len(lines) for lines in (frame, frame.T))
        shares.append(1 - rows * columns)
    return float(np.median(shares))


def _black(lines: np.ndarray) -> tuple[int, int]:
    """How many of the first and of the last lines of a picture are a black border."""
    lit = np.flatnonzero(lines.max(axis=1) > BLACK)
    if not lit.size:
        return 0, 0
    ends = []
    for first, step in ((int(lit[0]), 1), (len(lines) - 1 - int(lit[-1]), -1)):
        behind = lines[::step][min(first + 1, len(lines) - 1)].mean()
        border = lines[::step][:first].mean() if first else behind
        ends.append(first if behind - border >= LIT else 0)
    return ends[0], ends[1]


def flicker(look: Look) -> float:
    """How far the mean luma (0..255) swings from frame to frame and back: of one that alternates by an amplitude it is
    the amplitude, of one that changes steadily 0."""
    means = np.array([frame.mean() for frame in look.small]) * FULL
    return float(np.abs(np.diff(means, 2)).mean()) / 4 if len(means) > 2 else 0.0


def slideshow(look: Look) -> float:
    """Share of the change that is not steady: 1 where the picture stands still for at least three quarters of the time
    and changes in the rest; 0 where a quarter of the frames or more changes as much as all do on average."""
    mean = float(look.steps.mean())
    return 1 - min(1.0, float(np.quantile(look.steps, 0.75)) / mean) if mean >= FROZEN else 0.0


def loop(look: Look) -> float:
    """How exactly a clip shows again what its shot showed some time before: 1 less the share of the clip's own change
    that is left between the two. Something else has to be shown in between, and half of the clip's frames or more are
    shown again, so that footage which moves slowly or not at all does not count."""
    cells, frames = look.looks, len(look.lumas)
    apart = []
    for lag in range(1, min(len(cells) - (frames + 1) // 2, round(LONGEST * look.fps)) + 1):
        later = cells[max(lag, len(cells) - frames) :]
        apart.append(_rms(later - cells[len(cells) - lag - len(later) : len(cells) - lag]))
    own = cells[-frames:]
    change = 2**0.5 * _rms(own - own.mean(0))  # two frames of it differ by so much on average
    between = np.minimum(np.maximum.accumulate(apart or [0.0])[:-1], change)
    left = np.array(apart[1:])[between >= MOVES] / between[between >= MOVES]
    return max(0.0, 1 - float(left.min(initial=1)))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def overlay(look: Look) -> float:
    """Share of the picture's blocks in which edges stay as they are while what is around them changes, as it does
    beneath text or a logo that was laid over moving footage, and behind a windscreen."""
    small = look.small
    height, width = small[0].shape
    sums = np.zeros((2, 3, height, width), np.float32)  # of luma and both slopes, and of their squares
    for frame in small:
        now = np.stack([frame, cv2.Sobel(frame, cv2.CV_32F, 1, 0), cv2.Sobel(frame, cv2.CV_32F, 0, 1)]).astype(
            np.float32
        )
        sums += np.stack([now, now * now])
    mean, squares = sums / len(small)
    varies = np.maximum(squares - mean * mean, 0)
    slope = np.hypot(mean[1], mean[2])
    edges = (slope >= EDGE) & (varies[1] + varies[2] <= (STEADY * slope) ** 2)
    rows, columns = height // BLOCK * BLOCK, width // BLOCK * BLOCK
    stay, change = (
        it[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK).mean(axis=(1, 3))
        for it in (edges, varies[0] >= CHANGES**2)
    )
    return float(((stay >= ENOUGH / BLOCK**2) & (change >= AROUND)).mean())
