"""Videos that no model means: black, of one colour, frozen, or not numbers. A pair is not made of one.

The bounds are those of ffmpeg's filters blackdetect and freezedetect, except that the whole video has to be so.
"""

from itertools import pairwise

import cv2
import numpy as np

DARK, DARK_SHARE = 0.1 * 255, 0.98
"""blackdetect's ``pix_th`` and ``pic_th``: the luma (0..255) that counts as black, and its share of a black frame."""
FLAT = 1.0
"""Standard deviation of the luma (0..255) below which a frame is of one colour."""
STILL = 0.001 * 255
"""freezedetect's ``noise``: mean absolute difference of neighbouring frames' luma up to which nothing moves."""
NOT_FINITE = "not finite: the model's numbers are not (NaN or infinite); another precision or fewer steps may help"


def reason(frames: np.ndarray) -> str:
    """Why uint8 RGB frames (F, H, W, 3) are no video, a word and its figures; empty if they are one."""
    lumas = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    darkest = min(float((luma <= DARK).mean()) for luma in lumas)
    if darkest >= DARK_SHARE:
        return f"black: in every frame at least {darkest:.1%} of the pixels are darker than {DARK:.0f} of 255"
    spread = max(float(luma.std()) for luma in lumas)
    if spread < FLAT:
        return f"constant: every frame is of one colour (standard deviation of the luma at most {spread:.2f})"
    if len(lumas) > 1 and (moved := max(float(cv2.absdiff(a, b).mean()) for a, b in pairwise(lumas))) <= STILL:
        return f"frozen: no frame differs from the one before by more than {moved:.3f} of 255"
    return ""
