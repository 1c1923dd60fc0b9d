"""DOVER's views and fusion by hand, and its loading code on an ONNX file of the tests' own: the mean of each view."""

import math

import numpy as np
import pytest

from regdpo.config import schema
from regdpo.core.errors import UserError
from regdpo.core.store import Store
from regdpo.data import dover
from regdpo.data.dover import Dover


def message(*fields: tuple[int, bytes | str | int]) -> bytes:
    """Protocol buffers' encoding of some fields, each with its number."""
    written = b""
    for number, value in fields:
        if isinstance(value, int):
            written += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            written += varint(number << 3 | 2) + varint(len(data)) + data
    return written


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def means(*outputs: str, parts: int = 3, axes: tuple[int, ...] = (1, 2, 3, 4)) -> bytes:
    """An ONNX model (onnx.proto3) of DOVER's inputs whose outputs are their means."""
    inputs = {"aes_view": 1, "tech_view": parts}

    def tensor(name: str, *shape: int) -> bytes:
        sides = [(1, message((1, side))) for side in shape]
        return message((1, name), (2, message((1, message((1, 1), (2, message(*sides)))))))

    over = message((1, "axes"), *((8, axis) for axis in axes), (20, 7))
    keep = message((1, "keepdims"), (3, 0), (20, 2))
    nodes = [
        (1, message((1, name), (2, output), (4, "ReduceMean"), (5, over), (5, keep)))
        for name, output in zip(inputs, outputs, strict=False)
    ]
    given = [(11, tensor(name, first, 3, 32, 224, 224)) for name, first in inputs.items()]
    made = [(12, tensor(output, first)) for output, first in zip(outputs, inputs.values(), strict=False)]
    graph = message(*nodes, (2, "means"), *given, *made)
    return message((1, 8), (7, graph), (8, message((2, 13))))


def test_the_fusion_is_the_authors():
    """At both means a half; a deviation of the one more is its share in the exponent."""
    assert dover.fused(0.1107, 0.08285) == 0.5
    assert dover.fused(0.1107 + 0.07355, 0.08285) == pytest.approx(1 / (1 + math.exp(-0.6104)))
    assert dover.fused(0.1107, 0.08285 - 2 * 0.03774) == pytest.approx(1 / (1 + math.exp(2 * 0.3896)))


def test_pieces_come_from_their_cells():
    """Each pixel of the footage tells where and when it is: of the view each piece is whole, from its own cell, at the same
    place in all frames, and every second frame is shown; a clip that ends begins anew."""
    high, wide, length = 250, 330, 40
    frames = np.zeros((length, high, wide, 3), np.uint8)
    frames[..., 0], frames[..., 1] = np.arange(high)[:, None], np.arange(wide) % 256
    frames[..., 2] = np.arange(length)[:, None, None]
    view = dover.technical_view(frames, 2)
    assert view.shape == (2, 3, 32, 224, 224)
    raw = (view * np.float32(dover.STD)[:, None, None, None] + np.float32(dover.MEAN)[:, None, None, None]).round()
    assert raw[0, 2, :, 0, 0].tolist() == [2 * n % length for n in range(32)]
    assert (raw[:, :2] == raw[:, :2, :1]).all()
    for row in range(7):
        for column in range(7):
            piece = raw[0, :2, 0, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            top, left = piece[:, 0, 0]
            assert high * row // 7 <= top <= max(high * (row + 1) // 7 - 32, high * row // 7)
            assert (piece[0] == top + np.arange(32)[:, None]).all()
            assert ((piece[1] - left) % 256 == np.arange(32)).all()
    small = dover.technical_view(np.full((9, 60, 90, 3), 50, np.uint8))
    assert small.shape == (3, 3, 32, 224, 224)
    whole = dover.aesthetic_view(frames)
    assert whole.shape == (1, 3, 32, 224, 224)
    times = whole[0, 2, :, 0, 0] * dover.STD[2] + dover.MEAN[2]
    assert times.round().tolist() == np.linspace(0, 39, 32).round().tolist()


def test_a_clip_is_scored_by_a_file(tmp_path):
    pytest.importorskip("onnxruntime", reason="run `make filters`")
    file = tmp_path / "dover.onnx"
    store = Store(tmp_path / "store")
    grey = np.full((9, 60, 90, 3), 124, np.uint8)
    level = np.mean([(124 - mean) / std for mean, std in zip(dover.MEAN, dover.STD, strict=True)])
    file.write_bytes(means("aesthetic", "technical", parts=4))
    assert Dover(schema.Dover(model=str(file)), store)._score(grey) == pytest.approx(
        dover.fused(level, level),
        abs=1e-3,  # float32 over millions
    )
    file.write_bytes(means("aesthetic"))
    with pytest.raises(UserError, match=r"clips.dover.model: .* is no DOVER: it gives 1 outputs and not two"):
        Dover(schema.Dover(model=str(file)), store)._score(grey)
    file.write_bytes(b"no model")
    with pytest.raises(UserError, match=r"clips.dover.model: .* cannot be loaded"):
        Dover(schema.Dover(model=str(file)), store)._score(grey)
    with pytest.raises(UserError, match=r"clips.dover.model: "):
        Dover(schema.Dover(model=str(tmp_path / "none.onnx")), store)
