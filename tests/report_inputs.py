"""A small, complete and plausible set of inputs for the report: real mp4 files, three arms of two seeds, scores."""

import json
import math
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml
from imageio_ffmpeg import get_ffmpeg_exe

from regdpo.config import schema
from regdpo.config.run_file import SUFFIX
from regdpo.config.stage_inputs import ReportStage
from regdpo.core import manifests
from regdpo.core.digests import file_digest, text_digest
from regdpo.core.rows import AnswerRow, CaptionRow, ClipRow, HalfRow, NegativeRow, PairRow, SampleRow, ScoreRow
from regdpo.core.store import Store
from regdpo.evaluate.measures import columns
from regdpo.evaluate.people import METRICS, NOBODY
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.report.gather import MANIFESTS, Files
from regdpo.stages import halves

FRAMES, SIZE, FPS = 9, 64, 8
EVIL = '<script>alert(1)</script> a "tram" crosses Smith & Sons\' bridge'
NO_VBENCH = "VBench is not installed: run `make vbench`"
ERRORS = {"base": 0.74, "sft": 0.60, "dpo": 0.81, "reg_dpo": 0.61}
PSNRS = {"base": 19.2, "sft": 20.2, "dpo": 18.2, "reg_dpo": 20.1}

CONFIG = f"""
videos: {{root: /somewhere/private/footage}}
clips: {{frames: {FRAMES}, fps: {FPS}, width: {SIZE}, height: {SIZE}, stride: 4}}
base:
  pretrain: {{sources: ["bikes.mp4"], settings: {{steps: 40, tuning: full, lr: 0.002}}}}
pairs: {{split: segment, validation: 0.2, test: 0.2}}
train:
  seeds: [0, 1]
  settings: {{steps: 60, lr: 1.0e-5, tuning: full, guards: {{drift_steps: 20}}}}
  arms:
    sft: {{objective: sft}}
    dpo: {{objective: dpo, beta: 50}}
    reg_dpo: {{objective: reg_dpo, beta: 50, r: dgr}}
samples: {{sampling: {{steps: 20, guidance: 1}}}}
scores: {{primary: held_out_error}}
report: {{title: Familiar street, examples: 3, minimum: {{sources: 1, clips: 2, seeds: 2, pairs: 6}}}}
"""


@dataclass
class Made:
    """Where the inputs lie, and the rows that a test may change before it writes them again."""

    root: Path
    values: dict
    store: Store
    files: Files
    scores: list[ScoreRow]

    def write_scores(self, scores: list[ScoreRow]) -> None:
        manifests.write(self.files.scores, scores, ScoreRow)


def make(root: Path) -> Made:
    """Write everything below ``root``."""
    settings = schema.check(yaml.safe_load(CONFIG))
    made = _Maker(root)
    clips, pairs, negatives = made.clips_and_pairs()
    captions = [CaptionRow(clip_id=p.clip_id, caption=p.caption, captioner="sidecar:a.txt") for p in pairs]
    held = [pair for pair in pairs if pair.split == "test"]
    names = {f"{arm}/seed{seed}": (arm, seed) for arm in settings.train.arms for seed in settings.train.seeds}
    samples = {name: [made.sample(name, pair) for pair in held] for name in ("real", "base", *names)}
    models = {"base": _model("base", codec_psnr=26.2)}
    for name, (arm, seed) in names.items():
        models[name] = _model(name, arm=arm, seed=seed, objective=arm, run=made.run(arm, seed))
    scores = [row for name in samples for pair in held for row in _scores(name, pair.clip_id)]
    for name, rows, kind in (
        ("clips", clips, ClipRow),
        ("captions", captions, CaptionRow),
        ("negatives", negatives, NegativeRow),
        ("pairs", pairs, PairRow),
        ("halves", halves.measure(pairs, made.store), HalfRow),
        ("scores", scores, ScoreRow),
        ("answers", [], AnswerRow),
        *((f"samples-{key.replace('/', '-')}", rows, SampleRow) for key, rows in samples.items()),
    ):
        manifests.write(root / f"{name}.parquet", rows, kind)
    for name, model in models.items():
        (root / f"{name.replace('/', '-')}.json").write_text(model.model_dump_json())
    (root / "regdpo.in").write_text("# torch is installed apart\ntorch==2.13.0\nnumpy\n")
    (root / "regdpo.lock").write_text(
        "numpy==2.4.6 \\\n    --hash=sha256:00\nscipy==9.9 ; python_full_version < '3.0' \\\nscipy==1.18.1 ; "
        "python_full_version >= '3.0' \\\n    # via regdpo\n"
    )
    paths: dict = {name: root / f"{name}.parquet" for name in MANIFESTS}
    paths["negatives"] = [root / "negatives.parquet"]
    files = Files(
        **paths,
        samples=[root / f"samples-{name.replace('/', '-')}.parquet" for name in samples],
        models=[root / f"{name.replace('/', '-')}.json" for name in models],
        lock=root / "regdpo.lock",
    )
    return Made(root, ReportStage.of(settings)["config"], made.store, files, scores)


def arguments(made: Made, out: Path) -> list[str]:
    """The command line of scripts/report.py."""
    files = made.files
    single = [f"--{name}={getattr(files, name)}" for name in (*MANIFESTS, "lock")]
    part = {"config": made.values, "arms": list(made.values["train"]["arms"])}
    whole = out.with_suffix(SUFFIX)
    whole.parent.mkdir(parents=True, exist_ok=True)
    whole.write_text(json.dumps({"parts": {"ReportStage": part}}))
    many = ["--negatives", *map(str, files.negatives)]
    many += ["--samples", *map(str, files.samples), "--models", *map(str, files.models)]
    content = ["--content", str(out.with_name("report.json"))]
    return ["--config", str(whole), "--store", str(made.store.root), "--out", str(out), *content, *single, *many]


class _Maker:
    def __init__(self, root: Path):
        self.store = Store(root / "store")

    def video(self, key: str, source: str, *filters: str) -> str:
        relative = self.store.relative("clips", text_digest(key), ".mp4")
        with self.store.writing(relative) as path:
            command = [get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", source]
            command += ["-vf", ",".join([*filters, "format=yuv420p"]), "-frames:v", str(FRAMES), "-c:v", "libx264"]
            subprocess.run([*command, "-crf", "14", "-threads", "1", "-fflags", "+bitexact", str(path)], check=True)
        return relative

    def clips_and_pairs(self) -> tuple[list[ClipRow], list[PairRow], list[NegativeRow]]:
        clips, pairs, negatives = [], [], []
        for index in range(14):
            split = "train" if index < 6 else "validation" if index < 8 else "test"
            start = 4 * index + {"train": 0, "validation": 16}[split] if split != "test" else 64 + 10 * (index - 8)
            start -= 4 * (index == 13)  # overlaps with the one before
            clip_id, zoom = (
                f"clip{index:03d}",
                f"mandelbrot=size={SIZE}x{SIZE}:rate={FPS}:start_scale={2.4 - 0.15 * index}",
            )
            path = self.video(clip_id, zoom)
            sha, worse = file_digest(self.store.existing(path)), self.video(f"{clip_id}-loser", zoom, "gblur=1.5")
            clips.append(
                ClipRow(
                    clip_id=clip_id,
                    status="accepted",
                    source="street/carphone.mp4",
                    source_digest="c" * 64,
                    stream=0,
                    shot=0,
                    shot_frames=130,
                    start=start,
                    start_s=start / FPS,
                    frames=FRAMES,
                    fps=FPS,
                    width=SIZE,
                    height=SIZE,
                    scores={"motion": 3.0, "luma": 90.0, "frozen": 0.0},
                    path=path,
                    sha256=sha,
                )
            )
            caption = EVIL if index in (0, 8, 9) else f"A fractal coast, seen from above, drifts closer; view {index}."
            digest = file_digest(self.store.existing(worse))
            pairs.append(
                PairRow(
                    pair_id=f"pair{index:03d}",
                    split=split,
                    clip_id=clip_id,
                    source="street/carphone.mp4",
                    shot=0,
                    start=start,
                    frames=FRAMES,
                    fps=FPS,
                    width=SIZE,
                    height=SIZE,
                    caption=caption,
                    winner=path,
                    winner_sha256=sha,
                    loser=worse,
                    loser_sha256=digest,
                    loser_seed=index,
                )
            )
            negatives.append(
                NegativeRow(
                    negative_id=f"pair{index:03d}",
                    clip_id=clip_id,
                    generator="base",
                    family="wan",
                    model="b" * 64,
                    caption=caption,
                    task="i2v",
                    seed=index,
                    steps=20,
                    guidance=1,
                    shift=5,
                    frames=FRAMES,
                    fps=FPS,
                    width=SIZE,
                    height=SIZE,
                    path=worse,
                    sha256=digest,
                )
            )
        black = "black: in every frame at least 99.0% of the pixels are darker than 26 of 255"
        gone = {"negative_id": "gone", "clip_id": "clip000", "status": "rejected", "reason": black}
        negatives.append(negatives[0].model_copy(update=gone))
        for number, reason in enumerate(
            ["static: motion 0.02 is below 0.5", "static: motion 0.10 is below 0.5", "holds no frames"]
        ):
            clips.append(
                ClipRow(clip_id=f"no{number}", status="rejected", reason=reason, source="x.mp4", source_digest="")
            )
        return clips, pairs, negatives

    def sample(self, name: str, pair: PairRow) -> SampleRow:
        arm, index = name.partition("/")[0], int(pair.clip_id[-3:])
        zoom = f"mandelbrot=size={SIZE}x{SIZE}:rate={FPS}:start_scale={2.4 - 0.15 * index}"
        filters = {
            "base": "gblur=1.6",
            "sft": "gblur=0.9",
            "dpo": "noise=alls=45:all_seed=7:allf=t",
            "reg_dpo": "gblur=0.8",
        }
        key = f"{pair.clip_id}-{arm}"
        path = pair.winner if arm == "real" else self.video(key, zoom, filters[arm])
        return SampleRow(
            sample_id=f"{name}|{pair.clip_id}|0",
            model=name,
            clip_id=pair.clip_id,
            seed=0,
            steps=20,
            guidance=1,
            shift=5,
            path=path,
            sha256=file_digest(self.store.existing(path)),
            real=pair.winner,
            real_sha256=pair.winner_sha256,
        )

    def run(self, arm: str, seed: int) -> str:
        relative, rng = self.store.relative("runs", text_digest(arm, str(seed))), random.Random(f"{arm}{seed}")
        metrics, evals = [], []
        for step in range(1, 61):
            part, wobble = step / 60, rng.gauss(0, 0.02)
            gap = {"sft": -0.14, "dpo": 0.06, "reg_dpo": -0.13}[arm] * (1 - math.exp(-3 * part)) + wobble
            row = {
                "step": step,
                "sft_loss": 0.74 + gap,
                "win_gap": gap,
                "lose_gap": 0.4 * part + wobble,
                "lr": 1e-5,
                "accuracy": min(1.0, 0.5 + part + wobble),
                "grad_norm": 1.0,
                "tokens_per_s": 9e3,
                "seconds": 0.1,
            }
            row["loss"] = row["sft_loss"]
            if arm != "sft":
                dgr = 25 * math.exp(-5 * part) * (1 + wobble)
                row |= {"dgr": dgr, "dpo_loss": 0.03 * dgr, "loss": 0.03 * dgr + (dgr * 0.7 if arm == "reg_dpo" else 0)}
            metrics.append(row)
            if step % 15 == 0:
                evals.append(
                    {
                        "step": step,
                        "error": 0.74 + gap,
                        "win_gap": gap,
                        "lose_gap": 0.4 * part,
                        "accuracy": 0.6 if arm == "sft" else min(1.0, 0.5 + part),
                    }
                )
        with self.store.writing(relative) as folder:
            folder.mkdir()
            for name, rows in (("metrics", metrics), ("eval", evals)):
                (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return relative


def _model(name: str, **fields: object) -> ModelFile:
    digest = text_digest(name)
    ref = ModelRef(family="wan", task="i2v", where="store", path=f"models/{digest}", text_length=32, digest=digest)
    base = {} if name == "base" else {"base_digest": text_digest("base")}
    return ModelFile(name=name, ref=ref, digest=digest, processes=2, device="cpu", attention="sdpa", **base, **fields)


def _scores(name: str, clip_id: str) -> list[ScoreRow]:
    arm, rng = name.partition("/")[0], random.Random(f"{name}{clip_id}")
    hard = random.Random(clip_id).gauss(0, 0.08)  # what the clip brings along, whichever the model
    values: dict[str, float | None] = {
        "motion": {"real": 4.1, "base": 2.9, "sft": 3.3, "dpo": 6.8, "reg_dpo": 3.2}[arm]
        + 3 * hard
        + rng.gauss(0, 0.05),
        "sharpness": {"real": 1382, "base": 349, "sft": 362, "dpo": 812, "reg_dpo": 351}[arm] * (1 + hard)
        + rng.gauss(0, 3),
        "vbench_temporal_flickering": None if arm == "dpo" else 0.98 + 0.02 * hard + rng.gauss(0, 1e-4),
    }
    if arm != "real":
        values["held_out_error"] = ERRORS[arm] + hard + rng.gauss(0, 0.008)
        values["psnr"] = PSNRS[arm] - 8 * hard + rng.gauss(0, 0.15)
        values["ssim"] = None if name == "reg_dpo/seed1" and clip_id == "clip009" else 0.55 - hard + rng.gauss(0, 0.02)
    for metric in columns(schema.Scores(), "").values():  # declared since
        if not (arm == "real" and metric.footage):
            values.setdefault(metric.key, None if metric.key in METRICS.values() else 0.5 + rng.gauss(0, 0.01))
    lost = {"vbench_temporal_flickering": NO_VBENCH} | dict.fromkeys(METRICS.values(), NOBODY)
    return [
        ScoreRow(
            score_id=f"{name}|{metric}|{clip_id}|0",
            model=name,
            metric=metric,
            clip_id=clip_id,
            seed=0,
            value=value,
            missing="" if value is not None else lost.get(metric, "the video could not be read"),
        )
        for metric, value in values.items()
    ]
