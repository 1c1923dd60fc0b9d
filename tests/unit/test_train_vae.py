"""The training of a video autoencoder: what windows it sees, what moves, what comes of it, and its mistakes."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tiny_pipelines import CASES, FPS, save, video

from regdpo.config.schema import Encode
from regdpo.config.stage_inputs import VaeStage
from regdpo.core import manifests
from regdpo.core.digests import file_digest, folder_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, PlaceRow
from regdpo.core.store import Store
from regdpo.data.video import write_frames
from regdpo.models.family import open_family
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.runs.job import VaeJob
from regdpo.runs.stop import SIGNALS
from regdpo.stages import vae
from regdpo.train import autoencoder
from regdpo.train.autoencoder import Trainer

CPU = torch.device("cpu")
FRAMES, SIDE = 17, 32
SPLITS = ("train", "train", "train", "train", "validation", "test")


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> tuple[Store, list[ClipRow], Path]:
    """A store with clips, and the folder of their manifests."""
    folder = tmp_path_factory.mktemp("vae")
    store, clips = Store(folder / "store"), []
    for number in range(len(SPLITS)):
        path = store.relative("clips", f"clip{number}", ".mp4")
        with store.writing(path) as file:
            write_frames(file, video((FRAMES, SIDE, SIDE), number), FPS, Encode(crf=0))
        clips.append(
            ClipRow(
                clip_id=f"clip{number}", status="accepted", source=f"{number}.mp4", source_digest="", frames=FRAMES,
                fps=FPS, width=SIDE, height=SIDE, path=path, sha256=file_digest(store.existing(path)),
            )
        )  # fmt: skip
    manifests.write(folder / "clips.parquet", clips, ClipRow)
    places = [PlaceRow(clip_id=clip.clip_id, split=split) for clip, split in zip(clips, SPLITS, strict=True)]
    manifests.write(folder / "places.parquet", places, PlaceRow)
    return store, clips, folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, ModelFile]:
    found = {}
    for family, case in {"wan": "wan-t2v", "wan22": "wan22-5b-t2v", "mugv": "mugv-t2v"}.items():
        folder = tmp_path_factory.mktemp(family)
        save(CASES[case], folder)
        ref = ModelRef(family=family, task="t2v", where="folder", path=str(folder), fps=FPS, text_length=16, digest="")
        found[family] = ModelFile(name="base", ref=ref, digest="")
    return found


@pytest.fixture
def alone(tmp_path):
    """A process group of one. A training takes signals for requests, so ours are put back."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def job(footage, model: ModelFile, run: Path, loss: dict | None = None, **settings) -> VaeJob:
    store, _, folder = footage
    run.mkdir(exist_ok=True)
    asked = {"steps": 4, "batch": 2, "windows": [1, 2], "precision": "fp32", "lr": 1e-3, "loss": loss or {}, **settings}
    return VaeJob.model_validate(
        {
            "stage": {"settings": asked},
            "model": model.model_dump(),
            "clips": str(folder / "clips.parquet"),
            "places": str(folder / "places.parquet"),
            "store": str(store.root),
            "run": str(run),
            "device": "cpu",
            "checkpoint_every": 2,
            "eval_every": 100,
            "keep": 2,
        }
    )


def logged(run: Path, name: str = "metrics") -> list[dict]:
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]
