"""The filter that needs weights: LAION's predictor over CLIP, by its real loading code on a tiny random CLIP."""

import itertools

import cv2
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from regdpo.config import schema
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow
from regdpo.core.store import Store
from regdpo.data import aesthetic, filters, video
from regdpo.data.aesthetic import Aesthetic
from regdpo.stages import clips

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """CLIP whole, as it is published, of an embedding of 8."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 9, "max_position_embeddings": 4},
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    folder = tmp_path_factory.mktemp("clip")
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def chain(*widths: int) -> torch.nn.Sequential:
    """As the improved predictor: linear layers with dropout between."""
    torch.manual_seed(1)
    pairs = itertools.pairwise(widths)
    return torch.nn.Sequential(*(layer for a, b in pairs for layer in (torch.nn.Linear(a, b), torch.nn.Dropout(0.2))))


def predictor(model, head) -> schema.Aesthetic:
    return schema.Aesthetic(model=str(model), head=str(head), frames=2)


def test_a_score_is_the_heads_over_clips_embedding(model, tmp_path, monkeypatch):
    """Against transformers' whole CLIP and torch's layers; the second time no model is asked, and a threshold rejects."""
    layers = chain(8, 5, 4, 3, 2, 1)
    head = tmp_path / "head.pth"
    torch.save({f"layers.{name}": value for name, value in layers.state_dict().items()}, head)
    store = Store(tmp_path / "store")
    frames = np.repeat(RNG.integers(0, 255, (9, 4, 6, 3)).astype(np.uint8).repeat(8, 1).repeat(8, 2), 1, 0)
    path = store.relative("clips", "aa", ".mp4")
    with store.writing(path) as file:
        video.write_frames(file, frames, 16, schema.Encode())
    row = ClipRow(
        clip_id="a", status="accepted", source="a", source_digest="", path=path, sha256=file_digest(store.resolve(path))
    )
    judge = Aesthetic(predictor(model, head), store)
    score = judge(row)
    shown = video.read_frames(store.resolve(path))[[3, 5]]
    with torch.inference_mode():
        whole = transformers.CLIPModel.from_pretrained(model).eval()
        text = torch.zeros(1, 2, dtype=torch.long)
        embedding = whole(input_ids=text, pixel_values=aesthetic.pixels(shown, 16)).image_embeds  # of length 1
        assert score == pytest.approx(float(layers.eval()(embedding).mean()), abs=1e-3)
    monkeypatch.setattr(Aesthetic, "_score", None)
    again = Aesthetic(predictor(model, head), store)
    assert again(row) == score
    for limit, status in ((score - 1, "accepted"), (score + 1, "rejected")):
        limits = schema.Filters().model_copy(update={it.key: None for it in filters.FILTERS.values()})
        judged = clips._judged(row, {"aesthetic": again}, limits.model_copy(update={"min_aesthetic": limit}))
        assert (judged.status, judged.scores, bool(judged.path)) == (status, {"aesthetic": score}, status == "accepted")
        assert judged.reason.startswith("plain: the aesthetic score is" if status == "rejected" else "")
    assert clips._judged(row, {}, limits) == row


def test_pictures_are_prepared_as_clip_wants_them():
    """The middle of a picture, against OpenCV's and the published mean and deviation."""
    frames = cv2.GaussianBlur(RNG.integers(0, 255, (48, 64, 3)).astype(np.uint8), (15, 15), 0)[None]
    found = aesthetic.pixels(frames, 16)
    assert found.shape == (1, 3, 16, 16)
    small = cv2.resize(frames[0], (21, 16), interpolation=cv2.INTER_AREA)[:, 2:18] / 255
    wanted = (small - np.array(aesthetic.MEAN)) / np.array(aesthetic.STD)
    assert np.abs(found[0].permute(1, 2, 0).numpy() - wanted).mean() < 0.05


def test_a_single_linear_layer_in_safetensors_is_a_head_too(tmp_path):
    save_file({"weight": torch.arange(8.0)[None], "bias": torch.ones(1)}, tmp_path / "head.safetensors")
    ((weight, bias),) = aesthetic.read_head(tmp_path / "head.safetensors", 8)
    assert (weight.shape, bias) == ((1, 8), torch.ones(1))


def test_weights_that_are_missing_or_do_not_fit_are_one_line(model, tmp_path):
    with pytest.raises(ValueError, match=r"filters.min_aesthetic: needs weights; name them in `aesthetic`"):
        schema.Clips(filters={"min_aesthetic": 5})
    with pytest.raises(ValueError, match=r"`revision` is missing: pin the revision of openai/clip"):
        schema.Aesthetic(model="openai/clip-vit-large-patch14", head="x")
    with pytest.raises(UserError, match=r"clips.aesthetic.head: there is no file .*none.pth; download"):
        Aesthetic(predictor(model, tmp_path / "none.pth"), Store(tmp_path))
    head = tmp_path / "head.pth"
    for wrong in ({"0.weight": torch.ones(1, 7)}, {"0.weight": torch.ones(2, 8)}, {}):
        torch.save(wrong, head)
        with pytest.raises(UserError, match=r"is no chain of linear layers from an embedding of 8 numbers"):
            aesthetic.read_head(head, 8)
    head.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"clips.aesthetic.head: .*head.pth cannot be read"):
        aesthetic.read_head(head, 8)
    torch.save({"0.weight": torch.ones(1, 8)}, head)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"clips.aesthetic.model: .*empty cannot be loaded"):
        Aesthetic(predictor(tmp_path / "empty", head), Store(tmp_path))._score(np.zeros((1, 16, 16, 3), np.uint8))
