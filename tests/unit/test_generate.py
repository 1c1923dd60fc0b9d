"""Videos of one's own prompts and first frames: what is asked for, and the page."""

import re
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch
import yaml

from regdpo.config.schema import Encode, Sampling
from regdpo.core.errors import UserError
from regdpo.core.rows import Geometry
from regdpo.data.video import read_frames
from regdpo.models.family import open_family
from regdpo.report import generated
from regdpo.report.examples import Video
from regdpo.sampling.own import requests, wishes
from regdpo.sampling.render import Request, render

CPU = torch.device("cpu")
GEOMETRY = Geometry.model_validate(tiny.GEOMETRY)
SCRIPT = Path(__file__).parents[2] / "scripts/generate.py"


def picture(path: Path, height: int, width: int) -> None:
    """Red to the left, blue to the right, and green where a square in the middle does not reach."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 2], image[:, width // 2 :, 0] = 255, 255
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    outside = np.ones((height, width), bool)
    outside[top : top + side, left : left + side] = False
    image[outside] = (0, 255, 0)
    cv2.imwrite(str(path), image)


@pytest.mark.parametrize("size", [(64, 200), (200, 64), (20, 90)])
def test_a_picture_is_cut_in_the_middle(world, tmp_path, size):
    picture(tmp_path / "a.png", *size)
    (tmp_path / "a.png.txt").write_text("red and\nblue")
    (wish,) = wishes("i2v", None, tmp_path)
    assert (wish.name, wish.prompt) == ("a.png", "red and blue")
    first, second = requests([wish], [4, 5], [GEOMETRY], Encode(), world.store)
    assert (first.seed, second.seed) == (4, 5)
    frame = read_frames(world.store.checked(first.first_frame, first.clip_sha256))[0].astype(int)
    assert frame.shape == (32, 32, 3)
    inner = frame[2:-2]
    assert np.abs(inner[:, 2:13] - (255, 0, 0)).mean() < 12
    assert np.abs(inner[:, 19:-2] - (0, 0, 255)).mean() < 12


def test_a_picture_gets_the_size_of_the_nearest_shape(world, tmp_path):
    sizes = [GEOMETRY.model_copy(update=it) for it in ({"width": 64}, {"height": 64}, {})]
    for name, size in {"a": (300, 160), "b": (20, 50), "c": (30, 32)}.items():
        picture(tmp_path / f"{name}.png", *size)
        (tmp_path / f"{name}.txt").write_text("red")
    found = requests(wishes("i2v", None, tmp_path), [0], sizes, Encode(), world.store)
    assert [(it.geometry.height, it.geometry.width) for it in found] == [(64, 32), (32, 64), (32, 32)]
    assert [read_frames(world.store.existing(it.first_frame)).shape[1:3] for it in found] == [
        (64, 32),
        (32, 64),
        (32, 32),
    ]


def test_prompts_are_lines(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n a tram  crosses\n\na bridge\n")
    assert [(wish.name, wish.prompt) for wish in wishes("t2v", path, None)] == [
        ("line 2", "a tram crosses"),
        ("line 4", "a bridge"),
    ]


@pytest.mark.parametrize(
    ("task", "given", "told"),
    [
        ("t2v", "images", "from text: give --prompts"),
        ("i2v", "prompts", "from first frames: give --images"),
        ("t2v", "empty", "holds no prompt; write one a line"),
        ("t2v", "broken", r"broken: is not UTF-8 text \(byte 0\)"),
        ("t2v", "missing", "cannot be read"),
        ("i2v", "images", "1 of 1 pictures have no prompt; write a.txt"),
        ("i2v", "none", "holds no picture"),
        ("i2v", "torn", "torn.jpg: is no picture that can be read; save it as PNG or JPEG"),
    ],
)
def test_what_cannot_be_made_is_told(world, tmp_path, task, given, told):
    for name in ("images", "none", "torn"):
        (tmp_path / name).mkdir()
    picture(tmp_path / "images/a.png", 8, 8)
    (tmp_path / "torn/torn.jpg").write_bytes(b"torn")
    (tmp_path / "torn/torn.txt").write_text("torn")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "broken").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "prompts").write_text("a tram")
    files = {"i2v": (None, tmp_path / given), "t2v": (tmp_path / given, None)}[task]
    wrong = (task, given) in (("t2v", "images"), ("i2v", "prompts"))
    with pytest.raises(UserError, match=told):
        requests(wishes(task, *(reversed(files) if wrong else files)), [0], [GEOMETRY], Encode(), world.store)


def test_the_page_has_what_base_and_arms_make(world, tmp_path, monkeypatch):
    """Beside each other, of the same noise; the page loads nothing."""
    store, ref = world.store, world.model.ref
    tuned = store.relative("models", "3" * 64)
    if not store.resolve(tuned).exists():
        family = open_family(ref, store, CPU)
        with store.writing(tuned) as folder:
            family.save_transformer({k: 1.5 * v for k, v in family.load_transformer().state_dict().items()}, folder)
    arm = world.model.model_copy(
        update={"name": "dpo/seed0", "arm": "dpo", "ref": ref.model_copy(update={"transformer": tuned, "digest": "t"})}
    )
    monkeypatch.chdir(tmp_path)
    for name, model in {"base": world.model, "train/dpo/seed0": arm}.items():
        Path("results", name).mkdir(parents=True)
        Path("results", name, "model.json").write_text(model.model_dump_json())
    values = {
        "paths": {"store": str(store.root)},
        "videos": {"root": "none"},
        "clips": {**tiny.GEOMETRY, "short_side": 32},
        "base": tiny.base_config(),
        "train": {"seeds": [0, 1], "arms": {"dpo": {"objective": "dpo", "beta": 50}}},
        "samples": {"sampling": tiny.SAMPLING},
        "launch": {"device": "cpu"},
    }
    Path("my.yaml").write_text(yaml.safe_dump(values))
    Path("pictures").mkdir()
    picture(Path("pictures/a.png"), 40, 40)
    Path("pictures/a.txt").write_text("<b>red</b>")
    arguments = ["generate.py", "--config", "my.yaml", "--images", "pictures", "--seeds", "7", "8"]
    monkeypatch.setattr(sys, "argv", arguments)
    made: list[list[str]] = []
    main = runpy.run_path(str(SCRIPT))["main"]
    main()
    page = Path("results/generated.html").read_text()
    assert "&lt;b&gt;red" in page
    assert "<b>red" not in page
    assert len(re.findall('<video [^>]*src="data:video/mp4;base64,', page)) == 6
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert re.findall('aria-label="([^"]+)"', page) == ["your first frame", "base", "dpo/seed0"] * 2
    assert page.count('class="small still"') == 2  # it does not lead the others
    assert "autoplay" not in page  # the script starts those of a row together
    frame = requests(wishes("i2v", None, Path("pictures")), [7], [GEOMETRY], Encode(), store)[0]
    sampling = Sampling.model_validate(tiny.SAMPLING)
    for model in (world.model, arm):
        asked = [Request("<b>red</b>", frame.first_frame, frame.clip_sha256, seed, GEOMETRY) for seed in (7, 8)]
        made.append([it.sha256 for it in render("generated", model, asked, sampling, Encode(), store, CPU)])
    assert made[0] != made[1]
    monkeypatch.setattr(sys, "argv", [*arguments, "--size", "64x32"])
    with pytest.raises(UserError, match="--size: clips are not of 64x32; there are 32x32"):
        main()
    monkeypatch.setattr(sys, "argv", [*arguments, "--models", "sft"])
    with pytest.raises(UserError, match="--models: there is no sft; there are base, dpo/seed0, dpo/seed1"):
        main()
    monkeypatch.setattr(sys, "argv", [*arguments, "--models", "dpo/seed1"])
    with pytest.raises(UserError, match=r"results/train/dpo/seed1/model.json: is not there; `snakemake results/train"):
        main()


def test_each_video_is_shown_in_its_own_shape(world, tmp_path):
    video = Video("base", "base", world.pairs[0].winner, world.pairs[0].winner_sha256)
    sizes = [GEOMETRY, GEOMETRY.model_copy(update={"height": 64})]
    shown = [("a", "a tram", size, [video]) for size in sizes]
    generated.write(tmp_path / "page.html", "title", "", shown, [], Encode(), world.store)
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r'class="strip" style="--shape: (\d+ / \d+)"', page) == ["32 / 32", "32 / 64"]


def test_text_alone_reads_no_clip_and_each_video_has_its_own_size(tmp_path):
    store_world = tiny.world(tmp_path, 4, task="t2v")
    sampling = Sampling.model_validate(tiny.SAMPLING)
    tall = GEOMETRY.model_copy(update={"frames": 5, "height": 48})
    asked = [Request("a square", "", "", seed, geometry) for seed, geometry in enumerate([GEOMETRY, tall, GEOMETRY])]
    made = render("generated", store_world.model, asked, sampling, Encode(), store_world.store, CPU)
    shapes = [read_frames(store_world.store.existing(video.path)).shape for video in made]
    assert shapes == [(9, 32, 32, 3), (5, 48, 32, 3), (9, 32, 32, 3)]
    assert len({video.sha256 for video in made}) == 3
