"""A tiny world for tests, made by the project's own code: clips, a base from scratch, pairs and their latents."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from regdpo.config import schema, stage_inputs
from regdpo.config.training import Lora
from regdpo.core import manifests
from regdpo.core.digests import file_digest, text_digest
from regdpo.core.rows import LatentRow, PairRow
from regdpo.core.store import Store
from regdpo.data.video import write_frames
from regdpo.models.family import open_family
from regdpo.models.spec import ModelFile
from regdpo.runs.job import Job
from regdpo.stages import base, latents

GEOMETRY = {"frames": 9, "fps": 8.0, "width": 32, "height": 32}
SAMPLING = {"steps": 4, "guidance": 1.0, "shift": 1.0, "batch": 2}


@dataclass(frozen=True)
class World:
    store: Store
    model: ModelFile
    pairs: list[PairRow]
    latents: list[LatentRow]
    manifest: Path


def clip(seed: int) -> np.ndarray:
    """A bright square that moves over a gradient; uint8 (9, 32, 32, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:32, 0:32]
    ground = np.stack([x * 4, y * 4, (x + y) * 2], -1) + rng.integers(0, 60, 3)
    frames = np.repeat(ground[None], 9, 0).astype(np.uint8)
    top, left = rng.integers(0, 14, 2)
    for number, frame in enumerate(frames):
        frame[top + number : top + number + 8, left : left + 8] = rng.integers(120, 255, 3)
    return frames


def base_config(task: str = "i2v", **transformer: int) -> dict:
    tiny = {"layers": 2, "heads": 4, "head_dim": 12, "ffn_dim": 64, "text_dim": 32, "freq_dim": 32, **transformer}
    settings = {"tuning": "full"}
    pretrain = {"sources": ["*"], "transformer": tiny, "settings": settings}
    return {"task": task, "text_length": 8, "pretrain": pretrain}


def pairs(
    store: Store, count: int, draw: Callable[[int], np.ndarray] = clip, geometry: dict = GEOMETRY
) -> list[PairRow]:
    """Pairs of clips in the store: all but two to train on, then one for validation and one for the test."""
    rows = []
    for number in range(count):
        paths = []
        for half in (0, 1):
            path = store.relative("clips", f"{half}{number:063d}", ".mp4")
            with store.writing(path) as temporary:
                write_frames(temporary, draw(2 * number + half), GEOMETRY["fps"], schema.Encode())
            paths.append(path)
        winner, loser = paths
        rows.append(
            PairRow(
                pair_id=f"pair{number}",
                split="train" if number < count - 2 else ("validation", "test")[number - count + 2],
                clip_id=f"clip{number}",
                source="source.mp4",
                shot=0,
                start=10 * number,
                **geometry,
                caption=f"a square number {number % 3}",
                winner=winner,
                winner_sha256=file_digest(store.resolve(winner)),
                loser=loser,
                loser_sha256=file_digest(store.resolve(loser)),
            )
        )
    return rows


def world(folder: Path, count: int = 8, task: str = "i2v") -> World:
    store = Store(folder / "store")
    rows = pairs(store, count)
    stage = stage_inputs.BaseStage.model_validate({"base": base_config(task), "geometries": [GEOMETRY], "shift": 1.0})
    model = base.from_scratch(stage, rows, store)
    encode = stage_inputs.LatentsStage.model_validate({"latents": {"dtype": "fp32"}})
    encoded = latents.encode(encode, model, rows, store, torch.device("cpu"))
    manifest = folder / "latents.parquet"
    manifests.write(manifest, encoded, LatentRow)
    return World(store, model, rows, encoded, manifest)


def with_narrow_pairs(world: World, folder: Path) -> World:
    """The same with the last two pairs to train on, and that of the validation, half as wide."""
    rows = []
    for number, row in enumerate(world.latents):
        if number in (4, 5, 6):
            tensors = load_file(world.store.existing(row.path))
            narrow = {name: it[..., :2].contiguous() if it.dim() > 3 else it for name, it in tensors.items()}
            path = world.store.relative("latents", f"{number:064d}", ".safetensors")
            with world.store.writing(path) as temporary:
                save_file(narrow, temporary)
            shape = ",".join(map(str, narrow["winner"].shape))
            named = {"path": path, "sha256": file_digest(world.store.existing(path)), "shape": shape}
            row = row.model_copy(update=named)
        rows.append(row)
    manifest = folder / "two-sizes.parquet"
    manifests.write(manifest, rows, LatentRow)
    return replace(world, latents=rows, manifest=manifest)


def with_adapters(world: World, lora: Lora) -> World:
    """The same with a base that was trained: it has adapters that do something."""
    family = open_family(world.model.ref, world.store, torch.device("cpu"))
    model, rng = family.load_transformer(), torch.Generator().manual_seed(5)
    family.add_lora(model, lora)
    state = {
        name: 0.1 * torch.randn(tensor.shape, generator=rng)
        for name, tensor in model.state_dict().items()
        if ".lora_" in name
    }
    path = world.store.relative("runs", text_digest("adapters", lora.model_dump_json())) + "/export"
    if not world.store.resolve(path).exists():
        with world.store.writing(path) as folder:
            folder.mkdir()
            family.save_lora(model, state, folder)
    ref = world.model.ref.model_copy(update={"lora": path, "digest": text_digest(path)})
    changed = {"name": "sft/seed0", "arm": "sft", "ref": ref, "base_digest": world.model.ref.digest}
    return replace(world, model=world.model.model_copy(update=changed))


def with_labels(world: World, folder: Path) -> World:
    """The same with samples by themselves, every third of them bad: of a bad one it is the loser."""
    rows = []
    for number, row in enumerate(world.latents):
        tensors = load_file(world.store.existing(row.path))
        loser = tensors.pop("loser")
        if bad := number % 3 == 1:
            tensors["winner"] = loser
        path = world.store.relative("latents", f"{number + 1000:064d}", ".safetensors")
        with world.store.writing(path) as temporary:
            save_file(tensors, temporary)
        said = {"label": "bad" if bad else "good", "has_loser": False}
        rows.append(row.model_copy(update=said | {"path": path, "sha256": file_digest(world.store.existing(path))}))
    manifest = folder / "labels.parquet"
    manifests.write(manifest, rows, LatentRow)
    return replace(world, latents=rows, manifest=manifest)


def with_segments(world: World, folder: Path) -> World:
    """The same with two segments of time in most pairs, of every kind."""
    said = ("1,-1", "", "0,1", "-1,1")
    rows = [row.model_copy(update={"segments": said[n % 4]}) for n, row in enumerate(world.latents)]
    manifest = folder / "segments.parquet"
    manifests.write(manifest, rows, LatentRow)
    return replace(world, latents=rows, manifest=manifest)


TERMS = {
    "dpo": {"beta": 20.0},
    "reg_dpo": {"beta": 20.0, "r": "dgr"},
    "dpop": {"beta": 20.0, "penalty": 2.0},
    "ipo": {"beta": 2.0},
    "sdpo": {"beta": 20.0, "mu": 0.5},
    "kto": {"beta": 20.0, "weight_undesirable": 0.5},
    "ddo": {"beta": 20.0, "alpha": 0.5},
    "nft": {"mix": 0.5},
    "dense_dpo": {"beta": 20.0},
}
"""Such that every term has a gradient to speak of."""


def job(
    world: World,
    run: Path,
    objective: str = "reg_dpo",
    parallel: dict | None = None,
    micro_batch: int = 2,
    checkpoint_every: int = 2,
    eval_every: int = 2,
    terms: dict | None = None,
    **settings,
) -> Job:
    """A training of four pairs a step."""
    shared = {"steps": 4, "batch": 4, "lr": 1e-3, "tuning": "full", "precision": "fp32", **settings}
    return Job.model_validate(
        {
            "stage": {
                "objective": objective,
                "seed": 3,
                "settings": shared,
                **TERMS.get(objective, {}),
                **(terms or {}),
            },
            "model": world.model.model_dump(),
            "latents": str(world.manifest),
            "store": str(world.store.root),
            "run": str(run),
            "device": "cpu",
            "parallel": parallel or {},
            "micro_batch": micro_batch,
            "checkpoint_every": checkpoint_every,
            "eval_every": eval_every,
            "keep": 2,
        }
    )
