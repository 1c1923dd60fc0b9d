"""Clips that look alike by a model's embedding, in time that grows with the power 3/2 of their number: as SemDeDup
(arXiv 2303.09540) all are held against those of the same cells alone, here of the ``NEAR`` cells that are nearest.
"""

import base64

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regdpo.core.errors import UserError

FEW = 4096
"""Vectors that are all held against all."""

NEAR = 4
"""Cells that a vector is held against, ..."""

ROUNDS, SAMPLE = 6, 64
"""... found in so many rounds of k-means over so many vectors a cell."""

BLOCK = 1 << 22
"""Cosines at once."""


def vectors_of(table: pa.Table) -> dict[str, np.ndarray]:
    """Id of a clip -> its embedding, float16 of length 1, of those that have one.

    Raises:
        UserError: an embedding is none, or of another model than those before it.
    """
    table = table.filter(pc.not_equal(table["embedding"], ""))
    found: dict[str, np.ndarray] = {}
    for clip_id, text in zip(table["clip_id"].to_pylist(), table["embedding"].to_pylist(), strict=True):
        try:
            found[clip_id] = np.frombuffer(base64.b64decode(text, validate=True), "<f2")
        except ValueError:
            raise UserError(f"clip {clip_id}: its embedding is damaged; make the shard's manifest again") from None
    return found


def scored(table: pa.Table, scores: dict[str, float]) -> pa.Table:
    """Rows of clips with the score ``similar`` of those that have one."""
    if not scores:
        return table
    known = [dict(it) for it in table["scores"].to_pylist()]
    for one, clip_id in zip(known, table["clip_id"].to_pylist(), strict=True):
        if clip_id in scores:
            one["similar"] = scores[clip_id]
    column = pa.array([sorted(one.items()) for one in known], table.schema.field("scores").type)
    return table.set_column(table.schema.get_field_index("scores"), "scores", column)


def nearest(vectors: np.ndarray, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each vector the greatest cosine with one before it, and which that is.

    Args:
        vectors: of length 1, float16 (N, width). apart: int (N,); of one number are not held against each other.

    Returns:
        float32 (N,), -inf where there is none; int (N,).
    """
    count = len(vectors)
    best, which = np.full(count, -np.inf, np.float32), np.zeros(count, np.int64)
    if count <= FEW:
        _meet(vectors, apart, np.arange(count), np.arange(count), best, which)
        return best, which
    centres = _centres(vectors)
    near = np.empty((count, NEAR), np.int64)
    home = np.empty(count, np.int64)
    for rows in _stretches(count, len(centres)):
        cosines = vectors[rows].astype(np.float32) @ centres.T
        near[rows] = np.argpartition(-cosines, NEAR, axis=1)[:, :NEAR]
        home[rows] = cosines.argmax(1)
    residents, visits = np.argsort(home, kind="stable"), np.argsort(near.ravel(), kind="stable")
    cells = np.arange(len(centres) + 1)
    lives, comes = np.searchsorted(home[residents], cells), np.searchsorted(near.ravel()[visits], cells)
    for cell in cells[:-1]:
        here = residents[lives[cell] : lives[cell + 1]]
        _meet(vectors, apart, visits[comes[cell] : comes[cell + 1]] // NEAR, here, best, which)
    return best, which


def _meet(
    vectors: np.ndarray, apart: np.ndarray, ones: np.ndarray, others: np.ndarray, best: np.ndarray, which: np.ndarray
) -> None:
    """Hold some vectors against others that come before them, both in order, and note the greatest cosines."""
    there = vectors[others].astype(np.float32)
    for rows in _stretches(len(ones), max(1, len(others))):
        asked = ones[rows]
        before = int(np.searchsorted(others, asked[-1]))
        if not before:
            continue
        cosines = vectors[asked].astype(np.float32) @ there[:before].T
        mine = others[:before]
        cosines[(mine >= asked[:, None]) | (apart[mine] == apart[asked, None])] = -np.inf
        found = cosines.argmax(1)
        greatest = cosines[np.arange(len(asked)), found]
        more = greatest > best[asked]
        best[asked[more]], which[asked[more]] = greatest[more], mine[found[more]]


def _centres(vectors: np.ndarray) -> np.ndarray:
    """Of spherical k-means with as many cells as the root of the number of vectors: float32 (cells, width)."""
    count = len(vectors)
    chance, cells = np.random.default_rng(0), round(count**0.5)
    sample = np.sort(chance.choice(count, min(count, SAMPLE * cells), replace=False))
    centres = vectors[np.sort(chance.choice(sample, cells, replace=False))].astype(np.float32)
    for _ in range(ROUNDS):
        sums = np.zeros_like(centres)
        for rows in _stretches(len(sample), cells):
            some = vectors[sample[rows]].astype(np.float32)
            np.add.at(sums, (some @ centres.T).argmax(1), some)
        long = np.linalg.norm(sums, axis=1)
        centres[long > 0] = sums[long > 0] / long[long > 0, None]
    return centres


def _stretches(rows: int, columns: int) -> list[slice]:
    """Of rows, with ``BLOCK`` numbers each."""
    step = max(1, BLOCK // columns)
    return [slice(first, first + step) for first in range(0, rows, step)]
