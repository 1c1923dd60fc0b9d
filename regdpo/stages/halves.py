"""The halves stage: what tells winners and losers apart without looking at quality, measured on some of the pairs.

Where the halves differ much in brightness or in the size of their files, a model can win on that instead of getting
better; the report says how much they differ.
"""

import cv2
import numpy as np

from regdpo.core.progress import track
from regdpo.core.rows import HalfRow, PairRow
from regdpo.core.store import Store
from regdpo.data.video import read_stored
from regdpo.evaluate import proxies

COMPARED = 200
"""Most pairs of a source, and of a generator of its losers, whose videos are read."""


def measure(pairs: list[PairRow], store: Store) -> list[HalfRow]:
    """Winner and loser of at most ``COMPARED`` pairs of a kind, a row each.

    Raises:
        UserError: a video is missing from the store, or is not the one that the pair names.
    """
    chosen = compared(pairs)
    return [row for pair in track(chosen, "both halves", len(chosen)) for row in _halves(pair, store)]


def compared(pairs: list[PairRow]) -> list[PairRow]:
    """The pairs to measure, of each source and generator as many spread evenly over the footage: training pairs, unless
    none of them has a loser."""
    both = [pair for pair in pairs if pair.loser]
    chosen = [pair for pair in both if pair.split == "train"] or both
    chosen.sort(key=lambda pair: (pair.source, pair.shot, pair.start, pair.clip_id, pair.pair_id))
    kinds: dict[tuple[str, str], list[PairRow]] = {}
    for pair in chosen:
        kinds.setdefault((pair.origin, pair.generator), []).append(pair)
    counts = {kind: min(len(those), COMPARED) for kind, those in kinds.items()}
    return [those[index * len(those) // counts[kind]] for kind, those in kinds.items() for index in range(counts[kind])]


def _halves(pair: PairRow, store: Store) -> list[HalfRow]:
    return [
        HalfRow(
            half_id=f"{pair.pair_id}|{half}",
            pair_id=pair.pair_id,
            half=half,
            path=path,
            sha256=sha256,
            **statistics(read_stored(store, path, sha256)),
            file_size=store.existing(path).stat().st_size,
        )
        for half, path, sha256 in (
            ("winner", pair.winner, pair.winner_sha256),
            ("loser", pair.loser, pair.loser_sha256),
        )
    ]


def statistics(video: np.ndarray) -> dict[str, float]:
    """Those of ``HalfRow`` that are of the picture; video uint8 RGB (F, H, W, 3)."""
    lumas = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]
    return {
        "brightness": float(np.mean(lumas)),
        "contrast": float(np.mean([luma.std() for luma in lumas])),
        "motion": proxies.motion(video),
        "sharpness": proxies.sharpness(video),
    }
