"""Measures that pretrained models make, up to the models' door: real loading code, small random weights, no figures."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import scipy
import torch
import transformers
from pydantic import ValidationError
from safetensors.torch import save_file

from regdpo.config import schema
from regdpo.config.evaluation import Frechet, Scores, TextImage
from regdpo.config.stage_inputs import JudgeStage
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import SampleRow
from regdpo.core.store import Store
from regdpo.data import aesthetic, video
from regdpo.evaluate import frechet, omniscore, text_image
from regdpo.evaluate.measures import MEASURES, Given, asked, columns
from regdpo.evaluate.proxies import row
from regdpo.evaluate.video_score import read_scores

RNG = np.random.default_rng(0)
CLIPS = ("a", "b", "c", "d", "e")


def covariance_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet's distance as its formula stands, by scipy's matrix root."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first + second - 2 * root))


@pytest.mark.parametrize(("n", "m", "width"), [(40, 30, 5), (200, 7, 6)])
def test_the_distance_is_frechets(n, m, width):
    """Against the formula, and against the closed form of two Gaussians that differ in mean and scale."""
    a, b = RNG.normal(size=(n, width)), RNG.normal(0.5, 2, size=(m, width))
    assert frechet.distance(a, b) == pytest.approx(covariance_distance(a, b), rel=1e-6)
    assert frechet.distance(a, 3 * a + 2) == pytest.approx(
        np.square(2 * a.mean(0) + 2).sum() + 4 * np.trace(np.cov(a, rowvar=False)), rel=1e-9
    )
    assert frechet.distance(a, a) == pytest.approx(0, abs=1e-9)


def test_the_jackknife_takes_most_of_the_bias_out():
    """Two sets of one distribution are at distance zero; the plain distance of forty of each is far above it, and falls
    with their number."""
    plain, corrected = np.array(
        [
            (whole, shares.mean())
            for whole, shares in (
                frechet.jackknife(*(list(RNG.normal(size=(40, 1, 6))) for _ in range(2))) for _ in range(60)
            )
        ]
    ).T
    assert plain.mean() > 0.2
    error = corrected.std() / len(corrected) ** 0.5
    assert abs(corrected.mean()) < max(3 * error, plain.mean() / 5)


def stored(folder, frames: int = 9) -> tuple[Store, tuple[SampleRow, ...]]:
    """A store with a real clip and a sample of each of some clips."""
    store = Store(folder / "store")
    rows = []
    for name in CLIPS:
        places = {}
        for half in ("real", "path"):
            small = RNG.integers(0, 255, (frames, 4, 4, 3)).astype(np.uint8)
            places[half] = store.relative("clips", f"{name}{half}", ".mp4")
            with store.writing(places[half]) as file:
                video.write_frames(file, small.repeat(8, 1).repeat(8, 2), 16, schema.Encode())
        rows.append(
            SampleRow(
                sample_id=name, model="base", clip_id=name, seed=0, steps=1, guidance=1, shift=None, **places,
                sha256=file_digest(store.resolve(places["path"])),
                real_sha256=file_digest(store.resolve(places["real"])),
            )
        )  # fmt: skip
    return store, tuple(rows)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("samples"))


def given(world, **sections) -> Given:
    store, samples = world
    pairs = {name: SimpleNamespace(caption=f"a cat {name} of", fps=16.0) for name in CLIPS}
    return Given(store, "cpu", stage=JudgeStage(scores=Scores(**sections)), samples=samples, pairs=pairs)


def test_every_clip_has_its_share_of_the_distance(world):
    """Their mean is the distance without the bias, and both together the plain distance of all."""
    rows = frechet.measure(given(world))
    shares, bias = ([row.value for row in rows if row.metric == key] for key in ("frechet", "frechet_bias"))
    store, samples = world
    encode = frechet.features(Frechet(), torch.device("cpu"))
    ours, real = (
        np.stack([encode(video.read_frames(store.resolve(getattr(it, half)))) for it in samples])
        for half in ("path", "real")
    )
    assert ours.shape == (5, 2 * frechet.WIDTHS[-1])
    whole = frechet.distance(ours, real)
    assert whole == pytest.approx(covariance_distance(ours, real), rel=1e-4)
    assert np.add(shares, bias) == pytest.approx(whole)
    left = frechet.distance(ours[1:], real[1:])
    assert shares[0] == pytest.approx(5 * whole - 4 * left)
    few = given((store, samples[:2]))
    assert {row.value for row in frechet.measure(few)} == {None}
    assert frechet.measure(few)[0].missing.startswith("2 clips, of which no distance")


def test_features_of_a_video_mae(world, tmp_path):
    """The mean of transformers' own last states, of a checkpoint whose frames and size are its own."""
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    transformers.VideoMAEModel(config).save_pretrained(tmp_path / "mae")
    settings = Frechet(features="video_mae", model=str(tmp_path / "mae"))
    found = frechet.features(settings, torch.device("cpu"))(np.full((9, 8, 8, 3), 255, np.uint8))
    white = [(1 - mean) / std for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    pixels = torch.tensor(white).view(1, 1, 3, 1, 1).expand(1, 4, 3, 32, 32)
    with torch.inference_mode():
        whole = transformers.VideoMAEModel.from_pretrained(tmp_path / "mae").eval()
        assert found == pytest.approx(whole(pixel_values=pixels).last_hidden_state[0].mean(0).numpy(), abs=1e-4)
    clip = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.CLIPVisionModel(clip).save_pretrained(tmp_path / "clip")
    with pytest.raises(UserError, match=r"scores.frechet.model: .*lacks .* tensors of a VideoMAE"):
        frechet.video_mae(settings.model_copy(update={"model": str(tmp_path / "clip")}), torch.device("cpu"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """CLIP whole with its tokenizer, as it is published, of an embedding of 8."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    config = transformers.CLIPConfig(
        text_config={
            **small, "vocab_size": len(words), "max_position_embeddings": 8, "bos_token_id": len(words) - 2,
            "eos_token_id": len(words) - 1,
        },
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )  # fmt: skip
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["clip_score", "pick_score", "hps"])
def test_a_text_and_frames_are_compared_as_clip_does(name, world, clip):
    """Against transformers' own logits, which are scale times the cosine; a caption that is too long is cut."""
    settings = TextImage(model=str(clip), frames=2)
    found = MEASURES[name].call()(given(world, **{name: settings}))
    assert [(row.model, row.metric, row.clip_id, row.seed) for row in found] == [
        ("base", name, clip_id, 0) for clip_id in CLIPS
    ]
    store, samples = world
    shown = video.read_frames(store.resolve(samples[0].path))[[3, 5]]
    whole = transformers.CLIPModel.from_pretrained(clip).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(clip)
    text = tokenizer("a cat a of", return_tensors="pt", truncation=True, max_length=8)
    assert text["input_ids"].shape == (1, 8)
    with torch.inference_mode():
        told = whole(**text, pixel_values=aesthetic.pixels(shown, 16))
        scale = float(whole.logit_scale.exp())
        cosine = told.logits_per_image[:, 0] / scale
        factor = {"clip_score": 100 * cosine.clamp(min=0), "pick_score": scale * cosine, "hps": 100 * cosine}[name]
    assert found[0].value == pytest.approx(float(factor.mean()), rel=1e-4)


def test_what_is_no_clip_is_refused(tmp_path, clip):
    with pytest.raises(ValidationError, match=r"pin the revision of openai/clip"):
        Scores(clip_score={"model": "openai/clip"})
    model = transformers.CLIPModel.from_pretrained(clip)
    model.save_pretrained(tmp_path)
    transformers.CLIPTokenizer.from_pretrained(clip).save_pretrained(tmp_path)
    state = {key: value for key, value in model.state_dict().items() if "text_projection" not in key}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"scores.hps.model: .*lacks 1 tensors of a CLIP"):
        text_image.load("scores.hps.model", TextImage(model=str(tmp_path)), torch.device("cpu"))


def test_a_measure_that_is_off_is_no_column_and_leads_nothing(clip):
    assert "clip_score" not in asked(Scores().on)
    assert "clip_score" not in columns(Scores(), "i2v")
    assert asked(Scores().on).keys() - asked(Scores.model_validate({"vbench": None}).on).keys() == {"vbench"}
    suites = Scores.model_validate({"vbench": {"dimensions": [], "suites": ["t2v"]}})
    assert not {"vbench"} & suites.on
    assert not [key for key in columns(suites, "t2v") if key.startswith("vbench_")]
    on = Scores(clip_score={"model": str(clip)}, primary="clip_score")
    assert next(iter(columns(on, "i2v"))) == "clip_score"
    with pytest.raises(UserError, match=r"it is measured where scores.hps is given"):
        columns(Scores(primary="hps"), "i2v")
    assert "frechet" not in asked(Scores(frechet=None).on)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("(1) visual quality: 4\n(2) text-to-video alignment: 3\n(3) physical/common-sense consistency: 2", (4, 3, 2)),
        ("Visual quality is low. ... **Visual Quality:** 2 ... text-to-video alignment: 5", (2, 5, None)),
        ("visual quality: 9 text-to-video alignment: 3.5", (None, None, None)),
        ("", (None, None, None)),
    ],
)
def test_scores_are_read_from_what_is_written(text, numbers):
    assert tuple(read_scores(text).values()) == numbers


def test_omniscore_is_a_weighted_mean_of_normalised_dimensions(world):
    """By hand: subject .5731 is halfway up its scale, overall .182 of its own; partial without one of them."""
    weights = {"subject_consistency": 1.0, "overall_consistency": 3.0, "dynamic_degree": 0.5}
    values = {"subject_consistency": 0.5731, "overall_consistency": 0.182, "dynamic_degree": 1.0}
    assert omniscore.omniscore(values, weights) == pytest.approx(100 * (0.5 + 1.5 + 0.5) / 4.5, rel=1e-6)
    _, samples = world
    scores = [row("base", f"vbench_{name}", "a", 0, value) for name, value in values.items()]
    scores += [row("base", "vbench_dynamic_degree", "b", 0, 1)]
    first, second = omniscore.rows(samples[:2], scores, weights)
    assert first.value == pytest.approx(250 / 4.5)
    assert second.missing == "partial: 1 of 3 dimensions, without subject_consistency, overall_consistency"
    on = Scores(vbench={"dimensions": ["dynamic_degree"]}, omniscore={"weights": {"dynamic_degree": 1}})
    assert "omniscore" in columns(on, "i2v")
    assert "omniscore" not in columns(Scores(), "i2v")
    with pytest.raises(ValidationError, match=r"omniscore: vbench.dimensions lacks aesthetic_quality, background"):
        Scores(omniscore={})
    with pytest.raises(ValidationError, match=r"at least one above 0"):
        Scores(omniscore={"weights": {"dynamic_degree": 0}})
