"""Wide videos and upright images through every stage: to clips, negatives, a training whose steps go from images to
videos, samples and errors."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.distributed as dist
from imageio_ffmpeg import get_ffmpeg_exe
from tables import frame, rows_of

from regdpo.config import schema, stage_inputs
from regdpo.core import manifests
from regdpo.core.digests import file_digest
from regdpo.core.rows import CaptionRow, ImportedRow, LatentRow, NegativeRow, PairRow
from regdpo.core.store import Store
from regdpo.data.video import read_stored
from regdpo.evaluate import held_out
from regdpo.parallel.mesh import layout
from regdpo.stages import base, clips, latents, negatives, pairs, samples
from regdpo.train.trainer import Trainer

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
SIZES = {"wide.mp4": (9, 32, 64), "upright.mp4": (1, 48, 32)}
"""Frames, height and width."""


STRIPES = {"max_border": None, "max_flow": None}
"""Filters that black stripes which move past the edge are not for."""


@pytest.fixture
def alone(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def config(root: Path) -> schema.Config:
    buckets = [{"frames": frames, "height": height, "width": width} for frames, height, width in SIZES.values()]
    sampling = {"steps": 2, "guidance": 1.0, "shift": 1.0, "batch": 3}
    return schema.check(
        {
            "videos": {"root": str(root)},
            "clips": {"fps": 8, "buckets": buckets, "stride": 29, "shots": {"gradual": False}, "filters": STRIPES},
            "base": tiny.base_config() | {"pretrain": tiny.base_config()["pretrain"] | {"sources": ["none"]}},
            "negatives": {"sampling": sampling},
            "pairs": {"split": "segment", "validation": 0.2, "test": 0.2},
            "latents": {"dtype": "fp32"},
            "train": {"arms": {"dpo": {"objective": "dpo", "beta": 20}}},
            "samples": {"sampling": sampling},
        }
    )


def film(path: Path, height: int, width: int) -> None:
    source = f"color=s={width}x{height}:r=8:d=12,geq=lum='mod(8*X+6*N,256)':cb=128:cr=128"
    command = [get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, check=True)


@pytest.mark.usefixtures("alone")
def test_each_clip_keeps_its_size_to_the_end(tmp_path):
    store, footage = Store(tmp_path / "store"), tmp_path / "footage"
    footage.mkdir()
    for name, (_, height, width) in SIZES.items():
        film(footage / name, 2 * height, 2 * width)
    settings = config(footage)

    def stage(kind, *which):
        return kind.model_validate(kind.of(settings, *which))

    digests = {name: file_digest(footage / name) for name in SIZES}
    cut = clips.cut_shard(stage(stage_inputs.ClipsStage), digests, 0, 1, store)
    assert {row.status for row in cut} == {"accepted"}
    captions = [CaptionRow(clip_id=row.clip_id, caption="stripes", captioner="t") for row in cut]
    known = rows_of(
        pairs.pretraining(
            stage(stage_inputs.PairsStage).model_copy(update={"known": ["*"]}),
            frame(cut),
            frame(captions, CaptionRow)[[*pairs.CAPTIONS]],
        ),
        PairRow,
    )
    model = base.from_scratch(stage(stage_inputs.BaseStage), known, store)
    rendered = negatives.render(stage(stage_inputs.NegativesStage, "base"), model, cut, captions, store, CPU)
    by_clip = {row.clip_id: SIZES[row.source] for row in cut}
    assert {(row.frames, row.height, row.width) for row in rendered} == set(SIZES.values())
    for row in rendered:
        assert read_stored(store, row.path, row.sha256).shape == (*by_clip[row.clip_id], 3)
    tables = frame(cut), frame(captions, CaptionRow), frame(rendered, NegativeRow), [], frame([], ImportedRow)
    built = rows_of(pairs.build(stage(stage_inputs.PairsStage), *tables)[0], PairRow)
    encoded = latents.encode(stage(stage_inputs.LatentsStage), model, built, store, CPU)
    manifest, run = tmp_path / "latents.parquet", tmp_path / "run"
    manifests.write(manifest, encoded, LatentRow)
    run.mkdir()
    shares = {"sizes": {"1x48x32": (1, 0), "9x32x64": (0, 1)}}
    world = tiny.World(store, model, built, encoded, manifest)
    job = tiny.job(world, run, "dpo", steps=4, micro_batch=3, terms={**tiny.TERMS.get("dpo", {}), **shares})
    trainer = Trainer(job, CPU, layout(CPU, job.parallel, pairs=True))
    taken = [trainer.order.step(step)[0].shape for step in range(4)]
    assert set(taken) == {row.shape for row in encoded}
    assert len(set(taken)) == 2
    steps = [trainer.step(step) for step in range(4)]
    assert all(np.isfinite(row["loss"]) and not row.get("skipped") for row in steps)
    assert len({row.shape for row in trainer.validation}) == 2
    assert np.isfinite(trainer.evaluate(4)["error"])
    shown = samples.render(stage(stage_inputs.SamplesStage), model, built, store, CPU)
    assert {read_stored(store, row.path, row.sha256).shape[:3] for row in shown} == set(SIZES.values())
    errors = held_out.score(stage(stage_inputs.ErrorsStage), model, encoded, store, CPU)
    assert {by_clip[row.clip_id] for row in errors} == set(SIZES.values())
    assert all(np.isfinite(row.value) for row in errors)
