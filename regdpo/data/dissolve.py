"""Gradual transitions: dissolves, cross-fades, fades from and to a flat picture.

Between two pictures that have little in common, every frame of a transition is a mix of both, whose shares run evenly.
Of a stretch of frames three things are asked, and all have to hold:

- most cells of the picture are on their way from the first to the last frame, and equally far (things that move or
  cut in reach them one after the other);
- the contrast of most cells is what the mix of two unlike pictures has: with shares 1 - k and k the energy of its
  gradients is (1 - k)^2 of the first's and k^2 of the last's, half of their mean in the middle (A. M. Alattar,
  "Detecting and compressing dissolve regions in video sequences with a DVI multimedia image compression algorithm",
  1993, has this of the variance);
- optical flow (OpenCV's DIS) does not explain the change: it follows a camera that moves, but cannot mix.
"""

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

LENGTHS = (5, 6, 8, 11, 15, 20, 27, 36, 48, 64)
"""Frames from the first to the last of a stretch that is looked at: by a third apart, since a transition of another
length is still seen as one."""

ALIKE = 0.5
"""Correlation of first and last picture from which they are taken for the same scene."""

FLAT = 6
"""Standard deviation of luma below which a picture shows nothing; two of them are no transition."""

CHANGED = 16
"""Levels by which a cell has to change to count; the changed ones have to be a third of all."""

STEP = 0.6
"""Share of the whole change from which one step between neighbours is a cut."""

UNEVEN = 0.2
"""Share of the way by which cells, and the whole, may be away from where an even transition is."""

SCORE = 0.05
"""Least of: share of cells that go along - 2 x deviation of contrast - deviation from the even course."""

UNEXPLAINED = 0.5
"""Share of the change expected over a quarter of a stretch that optical flow has to leave; of motion it leaves a third
at most, of a transition all."""

FINE, MIDDLE, COARSE = (192, 108), (96, 54), (32, 18)  # for flow, for contrast, for cells
CELLS = (6, 4)  # of the contrast


@dataclass(frozen=True)
class Look:
    """One frame."""

    fine: np.ndarray  # uint8 luma
    coarse: np.ndarray  # float32 luma, flat
    spread: float  # standard deviation of that
    energy: np.ndarray  # of gradients in each cell, at two sizes


class Transitions:
    """Finds the transitions of frames that come one after the other; it keeps ``max(LENGTHS)`` of them."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque(maxlen=max(LENGTHS) + 1)
        self._steps: deque[float] = deque(maxlen=max(LENGTHS))
        self._moved: dict[int, int] = dict.fromkeys(LENGTHS, 0)  # stretches that begin before it are motion
        self._count = 0
        self._spans: list[tuple[int, int]] = []

    def add(self, luma: np.ndarray) -> None:
        """Take the next frame's luma, uint8 (H, W)."""
        look = _look(luma)
        if self._looks:
            self._steps.append(float(np.abs(look.coarse - self._looks[-1].coarse).mean()))
        self._looks.append(look)
        self._count += 1
        due = [it for it in LENGTHS if it < len(self._looks) and self._count % max(1, it // 8) == 0]
        for length in self._unlike(due) if due else ():
            self._judge(length)

    def spans(self) -> list[tuple[int, int]]:
        """Frames [start, end) of each transition so far, in order."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted(self._spans):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def _unlike(self, lengths: list[int]) -> list[int]:
        """Those of stretches up to the last frame whose first picture has little in common with it."""
        last = self._looks[-1]
        firsts = [self._looks[-1 - length] for length in lengths]
        pictures, spreads = np.stack([it.coarse for it in firsts]), np.array([it.spread for it in firsts])
        shows = np.maximum(spreads, last.spread) >= FLAT
        changed = (np.abs(pictures - last.coarse) > CHANGED).mean(axis=1) >= 1 / 3
        common = ((pictures - pictures.mean(axis=1, keepdims=True)) * (last.coarse - last.coarse.mean())).mean(axis=1)
        alike = common > ALIKE * np.maximum(spreads * last.spread, FLAT**2)  # by the correlation; a flat one has none
        return [length for length, yes in zip(lengths, shows & changed & ~alike, strict=True) if yes]

    def _judge(self, length: int) -> None:
        change = np.abs(self._looks[-1].coarse - self._looks[-1 - length].coarse)
        if max(list(self._steps)[-length:]) > STEP * change.mean():
            return
        begin = self._count - 1 - length
        looks = list(self._looks)[-1 - length :]
        course = _course(looks)
        if course is None or begin < self._moved[length]:
            return
        if not any(start <= begin + length // 2 < end for start, end in self._spans) and not _unexplained(looks):
            self._moved[length] = begin + max(1, length // 4)
            return
        under_way = np.flatnonzero((course > 0.03) & (course < 0.97))
        self._spans.append((begin + 1 + int(under_way[0]), begin + 2 + int(under_way[-1])))


def _look(luma: np.ndarray) -> Look:
    fine = cv2.resize(luma, FINE, interpolation=cv2.INTER_AREA)
    middle = cv2.resize(fine, MIDDLE, interpolation=cv2.INTER_AREA)
    small = cv2.resize(middle, COARSE, interpolation=cv2.INTER_AREA)
    coarse = small.astype(np.float32).ravel()
    return Look(fine, coarse, float(coarse.std()), np.concatenate([_energy(middle), _energy(small)]))


def _energy(picture: np.ndarray) -> np.ndarray:
    values = picture.astype(np.float32)
    across, down = np.diff(values, axis=1)[:-1], np.diff(values, axis=0)[:, :-1]
    return cv2.resize(across**2 + down**2, CELLS, interpolation=cv2.INTER_AREA).ravel()


def _course(looks: list[Look]) -> np.ndarray | None:
    """How far along the frames between the first and the last are, 0 to 1, if they look like a transition's."""
    pictures = np.stack([look.coarse for look in looks])
    whole = pictures[-1] - pictures[0]
    changed = np.abs(whole) > CHANGED
    ways = (pictures[1:-1, changed] - pictures[0, changed]) / whole[changed]
    course = np.median(ways, axis=1)
    even = np.arange(1, len(looks) - 1) / (len(looks) - 1)
    late = float(np.abs(course - even).max())
    if late > UNEVEN:
        return None
    along = float((np.abs(ways - course[:, None]) < UNEVEN).mean())
    energies = np.stack([look.energy for look in looks])
    both = energies[0] + energies[-1]
    sizes = both.reshape(2, -1)
    busy = (sizes > 0.3 * np.median(sizes, axis=1, keepdims=True)).ravel()
    mixed = np.outer((1 - even) ** 2, energies[0]) + np.outer(even**2, energies[-1])
    off = np.median(((energies[1:-1] - mixed) / np.maximum(both, 1e-6))[:, busy], axis=1)
    contrast = 2 * float(np.sqrt(np.mean(off**2)))
    return course if along - 2 * contrast - late > SCORE else None


def _unexplained(looks: list[Look]) -> bool:
    """Whether motion leaves most of the change over a quarter of the stretch."""
    length = len(looks) - 1
    lag = max(1, length // 4)
    rows, columns = np.mgrid[: FINE[1], : FINE[0]].astype(np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setUseMeanNormalization(False)  # a ramp of brightness that moves is motion
    left = []
    for start in (0, (length - lag) // 2, length - lag):
        before, after = looks[start].fine, looks[start + lag].fine
        x, y = np.moveaxis(flow.calc(before, after, np.zeros((*before.shape, 2), np.float32)), -1, 0)
        x, y = columns + x, rows + y
        inside = (x >= 0) & (x < FINE[0]) & (y >= 0) & (y < FINE[1])
        moved = cv2.remap(after, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        left.append(float(cv2.absdiff(moved, before)[inside].mean()) if inside.any() else 0.0)
    change = float(cv2.absdiff(looks[-1].fine, looks[0].fine).mean())
    return float(np.median(left)) > UNEXPLAINED * change * lag / length
