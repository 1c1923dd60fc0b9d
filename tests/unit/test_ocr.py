"""Text in the picture, by the detector that `make filters` installs: no model of the tests' own."""

import cv2
import numpy as np
import pytest

from regdpo.config import schema
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow
from regdpo.core.store import Store
from regdpo.data import filters, ocr, video
from regdpo.data.ocr import Ocr
from regdpo.stages import clips

pytest.importorskip("onnxruntime", reason="run `make filters`")

SUBTITLE = "A line of subtitles"


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return Ocr(schema.Ocr(frames=2), Store(tmp_path_factory.mktemp("store")))


def written(path, frames, store) -> ClipRow:
    with store.writing(path) as file:
        video.write_frames(file, frames, 16, schema.Encode())
    digest = file_digest(store.resolve(path))
    return ClipRow(clip_id="a", status="accepted", source="a", source_digest="", path=path, sha256=digest)


def scene(box: bool = False) -> tuple[np.ndarray, float]:
    """A picture of soft shapes, with a line of text on it or on a box of its own; and the share that the text covers."""
    noise = np.random.default_rng(0).integers(0, 255, (6, 10, 3)).astype(np.uint8)
    frame = cv2.resize(noise, (320, 192), interpolation=cv2.INTER_CUBIC)
    plain = frame.copy()
    if box:
        cv2.rectangle(frame, (20, 140), (300, 180), (0, 0, 0), -1)
    cv2.putText(frame, SUBTITLE, (30, 168), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
    (wide, high), below = cv2.getTextSize(SUBTITLE, cv2.FONT_HERSHEY_SIMPLEX, 0.8, 2)
    return np.stack([plain, frame]), wide * (high + below) / frame[..., 0].size


@pytest.mark.parametrize("box", [False, True])
def test_text_is_seen_where_it_stands(detector, box):
    """Also on a box of its own, which the filter `overlay` does not see. The share is that of the line's rectangle."""
    frames, share = scene(box)
    plain, shown = map(ocr.covered, detector.regions(frames))
    assert plain == 0
    assert 0.7 * share < shown < 1.7 * share
    rows, columns = np.nonzero(detector.regions(frames)[1] > 0.5)
    assert (rows.min() > 140, rows.max() < 180, columns.min() > 20, columns.max() < 300) == (True,) * 4


def test_a_clip_is_judged_once_and_a_threshold_rejects(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    frames, share = scene()
    row = written(store.relative("clips", "aa", ".mp4"), np.repeat(frames[1:], 5, 0), store)
    score = Ocr(schema.Ocr(frames=2), store)(row)
    assert score == pytest.approx(share, rel=0.4)
    monkeypatch.setattr(Ocr, "_score", None)
    again = Ocr(schema.Ocr(frames=2), store)
    off = schema.Filters().model_copy(update={it.key: None for it in filters.FILTERS.values()})
    said = f"text: text covers {score:.1%} of the picture, more than"
    for limit, reason in ((score + 0.01, ""), (score - 0.01, said)):
        judged = clips._judged(row, {"text": again}, off.model_copy(update={"max_text": limit}))
        assert judged.reason[: len(reason) or None] == reason
        assert judged.scores == {"text": score}


def test_a_region_reaches_as_far_as_it_was_shrunk():
    """Differentiable binarization's D' = A' r' / L' around a rectangle, by hand; faint, thin and huge regions are none."""
    text = np.zeros((100, 200), np.float32)
    text[40:60, 50:150] = 1  # just as high as a line may be
    text[5:25, 5:25] = 0.45
    text[80:82, 20:180] = 1
    beyond = 1.6 * 99 * 19 / (2 * (99 + 19))
    assert ocr.covered(text) == pytest.approx((99 + 2 * beyond) * (19 + 2 * beyond) / text.size, rel=0.05)
    assert ocr.covered(np.ones((32, 32), np.float32)) == 0


def test_what_the_detector_sees():
    """BGR from -1 to 1, in sides that are multiples of 32, never enlarged."""
    frame = np.zeros((1, 100, 1500, 3), np.uint8)
    frame[..., 0] = 255
    found = ocr.pixels(frame)
    assert found.shape == (1, 3, 96, 1504)
    assert (found[0, 0].max(), found[0, 2].min()) == (-1, 1)
    assert ocr.pixels(np.zeros((1, 1472, 2944, 3), np.uint8)).shape == (1, 3, 736, 1472)


def test_weights_that_are_missing_or_are_others_are_one_line(tmp_path, monkeypatch):
    store = Store(tmp_path)
    with pytest.raises(UserError, match=r"clips.ocr.model: package:nobody/x.onnx: no package nobody .* `make filters`"):
        Ocr(schema.Ocr(model="package:nobody/x.onnx"), store)
    with pytest.raises(UserError, match=r"clips.ocr.model: there is no file .*none.onnx; download"):
        Ocr(schema.Ocr(model=str(tmp_path / "none.onnx")), store)
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"^clips.ocr.model: .*wrong.onnx cannot be loaded \(.*\)$"):
        Ocr(schema.Ocr(model=str(wrong)), store).regions(scene()[0])
    other = "package:rapidocr/models/PP-OCRv6_rec_small.onnx"  # reads text, finds none
    with pytest.raises(UserError, match=r"^clips.ocr.model: .* is no detector of text"):
        Ocr(schema.Ocr(model=other), store).regions(scene()[0])
    monkeypatch.setattr("regdpo.data.onnx_file.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"clips.ocr.model: onnxruntime is not installed here; run `make filters`"):
        Ocr(schema.Ocr(), store)
