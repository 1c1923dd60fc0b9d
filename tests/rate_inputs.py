"""Samples of a base and three trainings to be compared by people: small videos that a browser plays."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import report_inputs
import yaml

from regdpo.config import schema, stage_inputs
from regdpo.core import manifests
from regdpo.core.digests import file_digest, text_digest
from regdpo.core.rows import REAL, AnswerRow, PairRow, SampleRow
from regdpo.core.store import Store
from regdpo.data.video import write_frames

CAPTIONS = [
    '<img src=x onerror=alert(1)> a "tram" crosses Smith & Sons\' bridge / the quay',
    "A fractal coast, seen from above, drifts closer. " * 6 + "The end.",
    "Ein Hund läuft, 犬が走る, \u202eback\u202c, line one\nline two",
    "a red square",
]
MODELS = (REAL, "base", "dpo/seed0", "dpo/seed1", "sft/seed0", "sft/seed1")
FPS, SIZE = 8.0, (64, 96)
CONFIG = {
    "videos": {"root": "."},
    "base": {"pretrain": {"sources": ["*"], "settings": {"tuning": "full"}}},
    "train": {"seeds": [0, 1], "arms": {"sft": {"objective": "sft"}, "dpo": {"objective": "dpo", "beta": 50}}},
}


@dataclass
class Made:
    root: Path
    config: Path
    store: Store
    stage: stage_inputs.RateStage
    samples: list[SampleRow]
    pairs: list[PairRow]


def make(root: Path, prompts: int = 4, **rating) -> Made:
    """Everything below ``root``, as the workflow leaves it: ``make(folder, repeats=0.5)``."""
    paths = {name: str(root / name) for name in ("results", "store", "ratings")}
    config = root / "my.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "paths": paths, "rating": {"gold": 2, "repeats": 0.25, **rating}}))
    store = Store(paths["store"])
    samples, pairs = [], []
    videos = [_video(root / "clip.mp4", colour) for colour in range(60, 60 + 20 * len(MODELS), 20)]
    for number in range(prompts):
        found = {}
        for at, model in enumerate(MODELS):
            found[model] = store.relative("samples", text_digest(model, str(number)), ".mp4")
            with store.writing(found[model]) as path:  # players skip a box that is free
                box = struct.pack(">I4s", 9 + at, b"free") + bytes([number, *range(at)])
                path.write_bytes(videos[(number + at) % len(videos)] + box)
        digests = {model: file_digest(store.existing(path)) for model, path in found.items()}
        clip_id = f"clip{number}"
        real = {"real": found[REAL], "real_sha256": digests[REAL], "steps": 4, "guidance": 1.0, "shift": 1.0}
        for model, path in found.items():
            named = {"model": model, "clip_id": clip_id, "path": path, "sha256": digests[model]}
            seed = -1 if model == REAL else 0
            samples.append(SampleRow(sample_id=f"{model}|{clip_id}|{seed}", seed=seed, **named, **real))
        size = {"frames": 9, "fps": FPS, "height": SIZE[0], "width": SIZE[1], "shot": 0, "start": number}
        halves = {"winner": found[REAL], "winner_sha256": digests[REAL]}
        caption = CAPTIONS[number % len(CAPTIONS)]
        pairs.append(
            PairRow(pair_id=clip_id, split="test", clip_id=clip_id, source="a.mp4", caption=caption, **size, **halves)
        )
    for model in MODELS:
        rows = [row for row in samples if row.model == model]
        manifests.write(root / f"results/samples/{model}.parquet", rows, SampleRow)
    manifests.write(root / "results/pairs.parquet", pairs, PairRow)
    stage = stage_inputs.read(stage_inputs.RateStage, config)
    return Made(root, config, store, stage, samples, pairs)


def of_report(made: report_inputs.Made) -> Made:
    """The samples of a report's inputs, to be compared: two prompts of one arm and base."""
    config, paths = made.root / "my.yaml", {name: str(made.root / name) for name in ("results", "store", "ratings")}
    rating = {"gold": 0, "repeats": 0, "prompts": 2, "comparisons": [["sft", "base"]]}
    config.write_text(yaml.safe_dump({**yaml.safe_load(report_inputs.CONFIG), "paths": paths, "rating": rating}))
    samples = [row for path in made.files.samples for row in manifests.read(path, SampleRow)]
    samples = [row.model_copy(update={"seed": -1}) if row.model == REAL else row for row in samples]
    for model in {row.model for row in samples}:
        rows = [row for row in samples if row.model == model]
        manifests.write(made.root / f"results/samples/{model}.parquet", rows, SampleRow)
    pairs = manifests.read(made.files.pairs, PairRow)
    manifests.write(made.root / "results/pairs.parquet", pairs, PairRow)
    return Made(made.root, config, made.store, stage_inputs.read(stage_inputs.RateStage, config), samples, pairs)


def answer(rater, prompt, answer, axis="VQ", arm="sft", other="base", **changes):
    """``answer`` of ``arm``'s video; the other's is on the left."""
    b = {} if other is None else {"arm_b": other, "model_b": other, "sha256_b": f"{other} {prompt}"}
    model = arm if arm == REAL else f"{arm}/seed0"
    values = {
        "form": "pair" if other else "clip",
        "caption": "",
        "task": "i2v",
        "seed": 0,
        "path_a": "",
        "when": "",
        **b,
    }
    values |= {"rater": rater, "prompt_id": prompt, "axis": axis, "arm_a": arm, "model_a": model}
    values |= {"sha256_a": f"{model} {prompt}", "answer": answer, **changes}
    key = f"{rater}|{prompt} {arm} {other} {values.get('repeat', 0)} {values.get('gold', '')}|{axis}"
    return AnswerRow(answer_id=key, **values)


def _video(path: Path, colour: int) -> bytes:
    """A square that moves down; as bytes."""
    clip = np.full((9, *SIZE, 3), 40, np.uint8)
    for at, frame in enumerate(clip):
        frame[10 + 2 * at : 30 + 2 * at, 10:40] = (colour, 200, 255 - colour)
    write_frames(path, clip, FPS, schema.Encode())
    return path.read_bytes()
