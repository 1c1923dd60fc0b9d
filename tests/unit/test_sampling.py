"""Rendering: what is rejected, what goes on after a kill, where guidance is given."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import toy_family
from torch import Tensor, nn

from regdpo.config.schema import Encode, Sampling
from regdpo.config.stage_inputs import NegativesStage
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow, Geometry, NegativeRow
from regdpo.core.store import Store
from regdpo.data.video import read_stored
from regdpo.models.family import open_family
from regdpo.models.registry import FAMILIES
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.sampling import broken
from regdpo.sampling.denoise import denoise
from regdpo.sampling.render import Rendered, Request, render
from regdpo.stages import negatives

CPU = torch.device("cpu")


@pytest.fixture
def toy(tmp_path, monkeypatch) -> ModelFile:
    monkeypatch.setitem(FAMILIES, "toy", toy_family.DECLARED)
    toy_family.save(tmp_path / "model")
    ref = ModelRef(
        family="toy", task="t2v", where="folder", path=str(tmp_path / "model"), fps=8.0, text_length=8, digest="toy"
    )
    return ModelFile(name="base", ref=ref, digest="toy")


def moving(step: int, ground: int = 0) -> np.ndarray:
    """A square of 10 x 10 on 40 x 40 that is moved by ``step`` pixels a frame; uint8 (5, 40, 40, 3)."""
    frames = np.full((5, 40, 40, 3), ground, np.uint8)
    for number, frame in enumerate(frames):
        frame[5:15, 5 + step * number : 15 + step * number] = 200
    return frames


@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        (moving(1), ""),
        (moving(0), "frozen"),  # 0 <= .255
        (np.full((5, 40, 40, 3), 20, np.uint8), "black"),  # all of it darker than 25.5
        (np.full((5, 40, 40, 3), 130, np.uint8), "constant"),
        (np.stack([np.full((40, 40, 3), 50 * n, np.uint8) for n in range(5)]), "constant"),  # a fade of flat colours
        (np.concatenate([np.zeros((4, 40, 40, 3), np.uint8), moving(1)[:1]]), ""),  # a picture at the end
        (moving(0)[:1], ""),  # one frame cannot move
    ],
)
def test_what_is_no_video(frames, kind):
    assert broken.reason(frames).partition(":")[0] == kind


def test_little_motion_is_no_frozen_video():
    """One bright pixel of 1600 that moves: 2 x 150 / 1600 = .1875 a frame, ffmpeg's bound is .255; two: .375."""
    frames = np.full((5, 40, 40, 3), 100, np.uint8)
    for number, frame in enumerate(frames):
        frame[0, number] = 250
        frame[20:, :] = 180
    assert broken.reason(frames).startswith("frozen: no frame differs from the one before by more than 0.188")
    for number, frame in enumerate(frames):
        frame[1, number] = 250
    assert broken.reason(frames) == ""


def asked(count: int) -> list[Request]:
    geometry = Geometry(frames=9, fps=8.0, width=32, height=32)
    return [Request(f"square {n}", "", "", seed=n, geometry=geometry) for n in range(count)]


def answering(*pixels: Tensor | None) -> Callable[[toy_family.Toy, Tensor], Tensor]:
    """A decoder whose calls answer so, one after another; None, and later ones: as the family's own."""
    own, given = toy_family.Toy.decode_pixels, iter(pixels)

    def decode(family: toy_family.Toy, latents: Tensor) -> Tensor:
        there = next(given, None)
        return own(family, latents) if there is None else there

    return decode


def test_a_broken_negative_is_rejected_before_it_is_encoded(toy, tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    pairs = tiny.pairs(store, 4)
    size = (1, 3, 9, 32, 32)
    hole = torch.rand(size)
    hole[0, 0, 4, 3, 3] = float("nan")
    broken_ones = hole, torch.full(size, -1.0), None, torch.zeros(size)
    monkeypatch.setattr(toy_family.Toy, "decode_pixels", answering(*broken_ones))
    clips = [
        ClipRow(
            clip_id=pair.clip_id, status="accepted", source="a", source_digest="", path=pair.winner,
            sha256=pair.winner_sha256, **Geometry.of_row(pair).model_dump(),
        )
        for pair in pairs
    ]  # fmt: skip
    captions = [CaptionRow(clip_id=pair.clip_id, caption=pair.caption, captioner="t") for pair in pairs]
    sampling = {"steps": 2, "guidance": 1.0, "batch": 3}
    stage = NegativesStage.model_validate(
        {"generator": "base", "sampling": sampling, "per_clip": 1, "seed": 0, "begin": 0, "share": 1, "encode": {},
         "known": []}
    )  # fmt: skip
    rows = negatives.render(stage, toy, clips, captions, store, CPU)
    assert [row.kind for row in rows] == ["not finite", "black", "", "constant"]
    assert [row.status for row in rows] == ["rejected", "rejected", "accepted", "rejected"]
    assert len(list((store.root / "negatives").rglob("*.mp4"))) == 1

    monkeypatch.setattr(toy_family.Toy, "load_denoiser", None)  # what is decided is not made again
    assert negatives.render(stage, toy, clips, captions, store, CPU) == rows

    monkeypatch.undo()  # what models are judged by is shown as it came
    monkeypatch.setitem(FAMILIES, "toy", toy_family.DECLARED)
    monkeypatch.setattr(toy_family.Toy, "decode_pixels", answering(*broken_ones))
    shown = render("samples", toy, asked(4), Sampling(steps=2, guidance=1.0), Encode(), store, CPU)
    assert [video.reason for video in shown] == [""] * 4
    assert all(video.path.endswith(".mp4") for video in shown)


def test_captions_that_are_not_read_to_their_end_are_told_left_out_or_refused(toy, tmp_path, monkeypatch, capsys):
    """The toy reads eight letters."""
    monkeypatch.setattr(
        negatives.sampler, "render", lambda kind, model, asked, *rest, **more: [Rendered("a", "b")] * len(asked)
    )
    fixed = {"status": "accepted", "source": "a", "source_digest": "", "path": "x", "sha256": "y"}
    texts = {"one": "a horse", "two": "two horses", "three": "a cat", "four": "four horses"}
    clips = [ClipRow(clip_id=name, **fixed) for name in texts]
    captions = [CaptionRow(clip_id=name, caption=text, captioner="t") for name, text in texts.items()]

    def made(**values) -> dict[str, str]:
        part = {"generator": "base", "sampling": {}, "per_clip": 1, "seed": 0, "begin": 0, "share": 1}
        stage = NegativesStage.model_validate({**part, "encode": {}, "known": [], **values})
        rows = negatives.render(stage, toy, clips, captions, Store(tmp_path), CPU)
        return {row.clip_id: row.reason or row.path for row in rows}

    assert made() == dict.fromkeys(texts, "a")
    assert "note: 2 of 4 captions take more than the 8 tokens" in (told := capsys.readouterr().err)
    assert "such as four: 11 tokens" in told
    why = "caption: it takes {} tokens, and the text encoder reads 8"
    expected = {"one": "a", "two": why.format(10), "three": "a", "four": why.format(11)}
    assert made(too_long="leave_out") == expected
    with pytest.raises(UserError, match=r"captions: 2 of 4 take more .*base\.text_length.: four: 11 tokens, two: 10 "):
        made(too_long="stop")


def test_shares_part_the_clips_between_generators(toy, tmp_path, monkeypatch):
    """And ids, by which pairs are called, are as ever for the base."""
    monkeypatch.setattr(
        negatives.sampler, "render", lambda kind, model, asked, *rest, **more: [Rendered("a", "b")] * len(asked)
    )
    fixed = {"status": "accepted", "source": "a", "source_digest": "", "path": "x", "sha256": "y"}
    clips = [ClipRow(clip_id=f"clip{n}", **fixed) for n in range(200)]
    captions = [CaptionRow(clip_id=clip.clip_id, caption="c", captioner="t") for clip in clips]

    def made(generator: str, begin: float, share: float, per_clip: int = 1) -> list[NegativeRow]:
        stage = {
            "generator": generator,
            "sampling": {},
            "per_clip": per_clip,
            "seed": 0,
            "begin": begin,
            "share": share,
        }
        part = NegativesStage.model_validate({**stage, "encode": {}, "known": []})
        return negatives.render(part, toy, clips, captions, Store(tmp_path), CPU)

    few, half, rest = made("base", 0.0, 0.25), made("b", 0.25, 0.5), made("c", 0.75, 0.25)
    parts = [{row.clip_id for row in rows} for rows in (few, half, rest)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200
    assert 25 < len(few) < 75 < len(half) < 125  # four standard deviations
    assert parts[0] | parts[2] == {row.clip_id for row in made("d", 0.75, 0.5)}  # over the end
    assert few[0].negative_id == f"{few[0].clip_id}.n0"
    assert half[0].negative_id == f"{half[0].clip_id}.b.n0"
    assert len(made("e", 0.5, 1.0, per_clip=2)) == 400


def test_losers_may_begin_with_the_winner(toy, tmp_path):
    """From ten steps those that are nearest to what each row draws; the less noise, the nearer both halves are. Without
    a strength it is noise alone, and the row says nothing of it."""
    store = Store(tmp_path / "store")
    pairs = tiny.pairs(store, 6)
    fixed = {"status": "accepted", "source": "a", "source_digest": ""}
    clips = [
        ClipRow(
            clip_id=it.clip_id, path=it.winner, sha256=it.winner_sha256, **fixed, **Geometry.of_row(it).model_dump()
        )
        for it in pairs
    ]
    captions = [CaptionRow(clip_id=it.clip_id, caption=it.caption, captioner="t") for it in pairs]

    def made(strength: list[float] | None) -> tuple[list[NegativeRow], float]:
        sampling = {"steps": 10, "guidance": 1.0, "batch": 2}
        stage = {"generator": "base", "sampling": sampling, "per_clip": 1, "seed": 0, "begin": 0, "share": 1}
        part = NegativesStage.model_validate({**stage, "encode": {}, "known": [], "strength": strength})
        rows = negatives.render(part, toy, clips, captions, store, CPU)
        both = [
            (read_stored(store, row.path, row.sha256), read_stored(store, clip.path, clip.sha256))
            for row, clip in zip(rows, clips, strict=True)
        ]
        return rows, float(np.mean([np.abs(a.astype(float) - b).mean() for a, b in both]))

    (drawn, _), (near, little), (far, much), (_, all_noise) = map(made, ([0.25, 0.84], [0.1, 0.1], [0.7, 0.7], None))
    assert {round(row.strength, 6) for row in near} == {0.1}
    assert {round(row.strength, 6) for row in far} == {0.7}
    asked = [negatives.strength_of((0.25, 0.84), clip.clip_id, 0, 0) for clip in clips]
    assert [round(row.strength, 6) for row in drawn] == [round(it, 1) for it in asked]
    assert len({*asked}) == 6
    assert 0.25 <= min(asked) < max(asked) <= 0.84
    assert little < much < all_noise


def test_a_kill_in_the_middle_loses_one_batch_at_most(toy, tmp_path, monkeypatch):
    store, requests = Store(tmp_path / "store"), asked(8)
    sampling, calls = Sampling(steps=1, guidance=1.0, batch=2), 0
    own = toy_family.Toy.decode_pixels

    def decode(family: toy_family.Toy, latents: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 6 and os.getpid() == child:
            os.kill(child, signal.SIGKILL)
        return own(family, latents)

    monkeypatch.setattr(toy_family.Toy, "decode_pixels", decode)
    child = 0
    if not (pid := os.fork()):
        child = os.getpid()
        torch.set_num_threads(1)
        try:
            render("negatives", toy, requests, sampling, Encode(), store, CPU)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    made = {path: path.stat().st_mtime_ns for path in store.root.glob("negatives/*/*.mp4")}
    assert len(made) == 5  # the sixth was in hand, with the other one of its batch already written
    calls = 0
    after = render("negatives", toy, requests, sampling, Encode(), store, CPU)
    assert calls <= 4
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert after == render("negatives", toy, requests, sampling, Encode(), Store(tmp_path / "whole"), CPU)


def denoised(toy: ModelFile, tmp_path: Path, **settings) -> tuple[Tensor, list[float]]:
    """What comes of a fixed noise, and at which sigma the denoiser was called without the caption."""
    family = open_family(toy.ref, Store(tmp_path / "store"), CPU)
    inputs, plain = family.encode_text(["a square"]), family.encode_text([""])["text"]
    asked_at: list[float] = []
    own = family.predict

    def predict(model: nn.Module, x_t: Tensor, sigma: Tensor, given: dict[str, Tensor]) -> Tensor:
        if torch.equal(given["text"], plain):
            asked_at.append(round(float(sigma[0]), 3))
        return own(model, x_t, sigma, given)

    family.predict = predict  # type: ignore[method-assign]
    noise = torch.randn(1, *family.latent_shape(9, 32, 32), generator=torch.Generator().manual_seed(0))
    return denoise(family, family.load_denoiser(), inputs, noise, Sampling(steps=8, **settings)), asked_at


def test_guidance_is_given_in_its_interval_and_asks_nothing_outside(toy, tmp_path):
    everywhere, every = denoised(toy, tmp_path, guidance=3.0)
    assert every == [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    _, inner = denoised(toy, tmp_path, guidance=3.0, guidance_interval=(0.25, 0.75))
    assert inner == [0.75, 0.625, 0.5, 0.375]
    whole, asked_at = denoised(toy, tmp_path, guidance=3.0, guidance_interval=(0.0, 1.0))
    assert torch.equal(whole, everywhere)
    assert asked_at == every
    late, _ = denoised(toy, tmp_path, guidance=3.0, guidance_interval=(0.9, 1.0))
    without, none = denoised(toy, tmp_path, guidance=1.0)
    assert none == []
    assert 0 < (late - without).abs().max() < (everywhere - without).abs().max()
    with pytest.raises(ValueError, match="the second has to be more than the first"):
        Sampling(guidance_interval=(0.5, 0.5))
