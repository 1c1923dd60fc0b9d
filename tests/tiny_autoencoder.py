"""Footage and tiny checkpoints whose autoencoders are trained in tests."""

from dataclasses import dataclass
from pathlib import Path

from tiny_pipelines import CASES, FPS, save, video

from regdpo.config.schema import Encode
from regdpo.core import manifests
from regdpo.core.digests import file_digest
from regdpo.core.rows import ClipRow, PlaceRow
from regdpo.core.store import Store
from regdpo.data.video import write_frames
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.runs.job import VaeJob

FRAMES, SIDE = 17, 16
SPLITS = ("train", "train", "train", "train", "validation", "test")


@dataclass(frozen=True)
class Footage:
    """Clips of ``SPLITS`` in a store, and the folder of their manifests."""

    store: Store
    clips: list[ClipRow]
    folder: Path


def footage(folder: Path, side: int = SIDE) -> Footage:
    store, clips = Store(folder / "store"), []
    for number in range(len(SPLITS)):
        path = store.relative("clips", f"clip{number}", ".mp4")
        with store.writing(path) as file:
            write_frames(file, video((FRAMES, side, side), number), FPS, Encode(crf=0))
        clips.append(
            ClipRow(
                clip_id=f"clip{number}", status="accepted", source=f"{number}.mp4", source_digest="", frames=FRAMES,
                fps=FPS, width=side, height=side, path=path, sha256=file_digest(store.existing(path)),
            )
        )  # fmt: skip
    manifests.write(folder / "clips.parquet", clips, ClipRow)
    places = [PlaceRow(clip_id=clip.clip_id, split=split) for clip, split in zip(clips, SPLITS, strict=True)]
    manifests.write(folder / "places.parquet", places, PlaceRow)
    return Footage(store, clips, folder)


def model(folder: Path, family: str) -> ModelFile:
    """Of a family among wan, wan22 and mugv."""
    save(CASES[{"wan": "wan-t2v", "wan22": "wan22-5b-t2v", "mugv": "mugv-t2v"}[family]], folder)
    ref = ModelRef(family=family, task="t2v", where="folder", path=str(folder), fps=FPS, text_length=16, digest="")
    return ModelFile(name="base", ref=ref, digest="")


def job(footage: Footage, model: ModelFile, run: Path, **stage) -> VaeJob:
    """
    Args:
        stage: keys of ``vae.train``, and ``lpips``.
    """
    run.mkdir(exist_ok=True)
    named = {"lpips": stage.pop("lpips")} if "lpips" in stage else {}
    asked = {"steps": 4, "batch": 2, "windows": [1, 2], "precision": "fp32", "lr": 1e-3, **stage}
    return VaeJob.model_validate(
        {
            "stage": {"settings": asked, **named},
            "model": model.model_dump(),
            "clips": str(footage.folder / "clips.parquet"),
            "places": str(footage.folder / "places.parquet"),
            "store": str(footage.store.root),
            "run": str(run),
            "device": "cpu",
            "checkpoint_every": 1,
            "eval_every": 100,
            "keep": 2,
        }
    )
