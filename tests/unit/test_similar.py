"""Clips that look alike by a model's embedding: its real loading code on tiny random models, the search against holding
all against all, and which clip is kept."""

import base64

import cv2
import numpy as np
import pytest
import torch
import transformers

from regdpo.config import schema
from regdpo.config.stage_inputs import MergeStage
from regdpo.core import manifests
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow
from regdpo.core.store import Store
from regdpo.data import duplicates, filters, similar, video
from regdpo.data.embeddings import Embeddings
from regdpo.stages import clips

RNG = np.random.default_rng(0)
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SEES = {"image_size": 16, "patch_size": 8}
TEXT = {**SMALL, "vocab_size": 9, "max_position_embeddings": 4}
MODELS = {
    "clip": (
        transformers.CLIPModel,
        lambda: transformers.CLIPConfig(text_config=TEXT, vision_config=SMALL | SEES, projection_dim=8),
        lambda: transformers.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16),
    ),
    "siglip": (
        transformers.SiglipModel,
        lambda: transformers.SiglipConfig(text_config=TEXT, vision_config=SMALL | SEES),
        lambda: transformers.SiglipImageProcessorPil(size={"height": 16, "width": 16}),
    ),
    "dinov2": (
        transformers.Dinov2Model,
        lambda: transformers.Dinov2Config(**SMALL, **SEES),
        lambda: transformers.BitImageProcessorPil(size={"shortest_edge": 20}, crop_size=16),
    ),
}


def saved(name: str, folder):
    kind, config, preparation = MODELS[name]
    torch.manual_seed(0)
    kind(config()).save_pretrained(folder)
    preparation().save_pretrained(folder)
    return folder


def embeddings(folder, store) -> Embeddings:
    return Embeddings(schema.Embeddings(model=str(folder), frames=2), Store(store))


@pytest.mark.parametrize("name", MODELS)
def test_features_are_those_of_transformers(name, tmp_path):
    """Of pictures as the model's own preparation makes them, within the rounding of another scaling."""
    saved(name, tmp_path / name)
    judge = embeddings(tmp_path / name, tmp_path)
    frames = np.stack([cv2.GaussianBlur(RNG.integers(0, 255, (48, 64, 3)).astype(np.uint8), (9, 9), 0)] * 2)
    own = MODELS[name][2]()(list(frames), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        model = transformers.AutoModel.from_pretrained(tmp_path / name).eval()
        wanted = getattr(model, "get_image_features", model)(pixel_values=own).pooler_output
    assert torch.allclose(judge.features(frames), wanted, atol=0.02 * float(wanted.abs().max()))
    vector = np.frombuffer(base64.b64decode(judge._score(frames)), "<f2").astype(float)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)
    assert vector @ torch.nn.functional.normalize(wanted[0], dim=0).numpy() == pytest.approx(1, abs=1e-3)


def test_a_clip_that_is_accepted_gets_an_embedding_once(tmp_path, monkeypatch):
    saved("dinov2", tmp_path / "model")
    store = Store(tmp_path / "store")
    path = store.relative("clips", "aa", ".mp4")
    with store.writing(path) as file:
        video.write_frames(file, RNG.integers(0, 255, (5, 32, 32, 3)).astype(np.uint8), 16, schema.Encode())
    digest = file_digest(store.resolve(path))
    row = ClipRow(clip_id="a", status="accepted", source="a", source_digest="", path=path, sha256=digest)
    judge = embeddings(tmp_path / "model", tmp_path / "store")
    off = schema.Filters().model_copy(update={it.key: None for it in filters.FILTERS.values()})
    judged = clips._judged(row, {"embedding": judge}, off)
    assert (len(base64.b64decode(judged.embedding)), judged.scores) == (2 * 16, {})
    monkeypatch.setattr(Embeddings, "_score", None)
    assert clips._judged(row, {"embedding": embeddings(tmp_path / "model", tmp_path / "store")}, off) == judged
    strict = off.model_copy(update={"min_aesthetic": 5})
    rejected = clips._judged(row, {"aesthetic": lambda clip: 4.0, "embedding": judge}, strict)
    assert (rejected.status, rejected.embedding) == ("rejected", "")


def units(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def test_cells_find_what_holding_all_against_all_finds(monkeypatch):
    """300 near-duplicates (cosine 0.95) among 2,000 vectors of one hemisphere, of which neighbours are held apart."""
    count, width = 2000, 256
    vectors = units(RNG.normal(size=(count, width)) + RNG.normal(size=width))
    earlier, later = RNG.integers(0, 1000, 300), 1000 + RNG.permutation(1000)[:300]
    noise = units(RNG.normal(size=(300, width)))
    vectors[later] = units(vectors[earlier].astype(float) + noise * np.sqrt(1 / 0.95**2 - 1))
    apart = np.arange(count) // 3
    cosines = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    cosines[np.triu_indices(count)] = -np.inf
    cosines[apart[:, None] == apart] = -np.inf
    high = cosines.max(1) > 0.9
    assert high.sum() > 250
    for few, least in ((count, 1), (100, 0.98)):  # of noise without clusters, where cells are worst
        monkeypatch.setattr(similar, "FEW", few)
        best, which = similar.nearest(vectors, apart)
        same = which[high] == cosines.argmax(1)[high]
        assert same.mean() >= least
        assert best[high][same] == pytest.approx(cosines.max(1)[high][same], abs=1e-5)
        assert not np.isfinite(best[:3]).any()


def row(source: str, shot: int, start: int, angle: float) -> ClipRow:
    vector = np.array([np.cos(angle), np.sin(angle), 0, 0], "<f2")
    return ClipRow(
        clip_id=f"{source}{shot}-{start}",
        status="accepted",
        source=source,
        source_digest="",
        shot=shot,
        start=start,
        frames=9,
        fps=16,
        source_pixels={"a": 100, "b": 200}.get(source, 50),
        scores={"luma": 50, "upscale": 1},
        embedding=base64.b64encode(vector.tobytes()).decode(),
    )


def test_of_clips_that_look_alike_one_is_kept(tmp_path):
    """The held-out one, else that of the larger source; those of one shot do not count, nor those of a video that is cut
    in time into splits. Another threshold is decided from what the shards' manifests hold."""
    rows = [row("a", 0, 0, 0), row("a", 0, 9, 0), row("a", 1, 0, 0.1), row("b", 0, 0, 0.2), row("c", 0, 0, 1.5)]
    rows.append(row("d", 0, 0, 0.2).model_copy(update={"embedding": ""}))
    shards = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for place, shard in enumerate(shards):
        manifests.write(shard, rows[place::2], ClipRow)

    def rejected(limit: float | None, split: str = "source") -> dict[str, str]:
        pairs = schema.Pairs(split=split)
        stage = MergeStage(same_footage=0.85, pairs=pairs, known=["b", "c"], max_similar=limit)
        clips, _ = duplicates.merge(shards, stage, tmp_path / "clips.parquet")
        found = manifests.read(tmp_path / "clips.parquet", ClipRow)
        assert [one.status for one in found] == clips.sort_values("clip_id")["status"].tolist()
        assert not any(one.embedding for one in found)
        rejected.scores = {one.clip_id: one.scores.get("similar") for one in found}
        return {one.clip_id: one.reason for one in found if one.reason}

    assert rejected(None) == {}
    assert set(rejected.scores.values()) == {None}
    assert rejected(0.999) == {}
    pairs = {"a0-0": None, "a0-9": None, "a1-0": np.cos(0.1), "b0-0": np.cos(0.1), "c0-0": np.cos(1.3), "d0-0": None}
    assert rejected.scores == {key: value and pytest.approx(float(value), abs=1e-3) for key, value in pairs.items()}
    told = "similar: its embedding has the cosine 0.995 with that of another clip, more than 0.99"
    assert rejected(0.99) == {"a1-0": f"{told} (a0-0)", "b0-0": f"{told} (a1-0)"}
    assert rejected(0.99, "segment") == {"a1-0": f"{told} (b0-0)"}


def test_weights_that_are_missing_or_do_not_fit_are_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"filters.max_similar: needs weights; name them in `embeddings`"):
        schema.Clips(filters={"max_similar": 0.95})
    with pytest.raises(ValueError, match=r"`revision` is missing: pin the revision of facebook/dinov2-base"):
        schema.Embeddings(model="facebook/dinov2-base")
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    folder = saved("dinov2", tmp_path / "model")
    (folder / "preprocessor_config.json").write_text('{"size": 3}')
    with pytest.raises(UserError, match=r"^clips.embeddings.model: .*does not say how pictures are prepared"):
        embeddings(folder, tmp_path)._score(frames)
    saved("dinov2", folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"^clips.embeddings.model: .*model cannot be loaded"):
        embeddings(folder, tmp_path)._score(frames)
    damaged = row("a", 0, 0, 0).model_copy(update={"embedding": "???"})
    manifests.write(tmp_path / "0.parquet", [damaged], ClipRow)
    stage = MergeStage(same_footage=0.85, pairs=schema.Pairs(), known=[], max_similar=0.9)
    with pytest.raises(UserError, match=r"clip a0-0: its embedding is damaged; make the shard's manifest again"):
        duplicates.merge([tmp_path / "0.parquet"], stage, tmp_path / "clips.parquet")
