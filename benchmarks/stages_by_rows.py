"""Seconds and memory of what handles whole manifests between stages, by the number of clips.

python benchmarks/stages_by_rows.py >> benchmarks/results/manifests.md

Each is its script, as a rule calls it: clips merged and copies found among their shots, splits counted, the page of the
clips, the manifest of pairs. The clips are of shots of five clips each; shots' fingerprints are noise, of which one in
a hundred is another's.
"""

import argparse
import base64
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from manifests import SHARDS, made

from regdpo.core import manifests
from regdpo.core.rows import CaptionRow, ClipRow, NegativeRow

ROOT = Path(__file__).resolve().parents[1]
A_SHOT, A_VIDEO = 5, 20
"""Clips of each."""
FRAMES = 81
STEPS = A_SHOT * 20
"""Of a shot's fingerprint."""


def clips(count: int) -> pa.Table:
    """Accepted clips but for one in ten, in shots cut one clip after the other."""
    table, numbers = made(ClipRow, count), np.arange(count)
    rejected = numbers % 10 == 3
    random = np.random.default_rng(1)
    prints = [""] * count
    for first in range(0, count, A_SHOT):
        prints[first] = base64.b64encode(random.integers(0, 255, STEPS * 64, dtype=np.uint8).tobytes()).decode()
        if first // A_SHOT % 100 == 99:
            prints[first] = prints[first - 50 * A_SHOT]
    values = {
        "status": np.where(rejected, "rejected", "accepted").tolist(),
        "reason": np.where(rejected, "static: motion 0.10 is below 2", "").tolist(),
        "shot": numbers // A_SHOT % (A_VIDEO // A_SHOT),
        "shot_frames": np.full(count, A_SHOT * FRAMES),
        "start": numbers % A_SHOT * FRAMES,
        "frames": np.full(count, FRAMES),
        "fps": np.full(count, 16.0),
        "width": np.full(count, 1280),
        "height": np.full(count, 720),
        "crop_x": np.zeros(count, int),
        "crop_y": np.zeros(count, int),
        "source_pixels": np.full(count, 1920 * 1080),
        "fingerprint": prints,
        "measured": table["path"].to_pylist(),
        "path": np.where(rejected, "", table["path"].to_numpy(zero_copy_only=False)).tolist(),
    }
    for name, column in values.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(column, field.type))
    return table


def prepare(folder: Path, count: int) -> None:
    """The shards' clips, their captions, and a negative of each."""
    table = clips(count)
    for shard in range(SHARDS):
        part = table.take(pa.array(np.arange(shard, count, SHARDS)))
        manifests.write_table(folder / f"{shard}.parquet", part, ClipRow)
    accepted = table.filter(pa.array(np.arange(count) % 10 != 3))
    captions = made(CaptionRow, count).filter(pa.array(np.arange(count) % 10 != 3))
    captions = captions.set_column(0, "clip_id", accepted["clip_id"]).set_column(
        captions.schema.get_field_index("reason"), "reason", pa.repeat("", len(captions))
    )
    manifests.write_table(folder / "captions.parquet", captions, CaptionRow)
    negatives = made(NegativeRow, count).filter(pa.array(np.arange(count) % 10 != 3))
    for name, column in (("clip_id", accepted["clip_id"]), ("caption", captions["caption"])):
        negatives = negatives.set_column(negatives.schema.get_field_index(name), name, column)
    manifests.write_table(folder / "negatives.parquet", negatives, NegativeRow)


def measured(script: str, *arguments: str | Path) -> str:
    """Seconds of CPU, and MiB at most, of a script."""
    command = [sys.executable, ROOT / f"scripts/{script}.py", "--config", ROOT / "config/config.yaml", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        return "failed"
    return f"{used.ru_utime + used.ru_stime:.1f} s, {used.ru_maxrss / 1024:.0f} MiB"


def row(count: int, folder: Path) -> str:
    """One of the table."""
    if not os.fork():
        prepare(folder, count)
        os._exit(0)
    os.wait()
    parts = [folder / f"{shard}.parquet" for shard in range(SHARDS)]
    names = ("clips.parquet", "copies.parquet", "split.json", "captions.parquet", "negatives.parquet")
    cut, copies, split, captions, negatives = (folder / name for name in names)
    read: list[str | Path] = ["--clips", cut, "--copies", copies, "--split", split]
    told: list[str | Path] = ["--captions", captions, "--negatives", negatives]
    cells = [
        measured("merge_clips", "--out", cut, "--copies", copies, "--split", split, *parts),
        measured("splits", *read, "--places", folder / "places.parquet", "--out", folder / "splits.parquet"),
        measured("funnel", *read, "--out", folder / "clips.html", "--store", folder / "store"),
        measured("pairs", *read, *told, "--out", folder / "pairs.parquet"),
    ]
    return f"| {count:,} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000, 100_000])
    args = parser.parse_args()
    print(
        f"\n`python benchmarks/stages_by_rows.py`, {os.cpu_count()} cores, Python {platform.python_version()}, pandas "
        f"{pd.__version__}: seconds of CPU, and the most MiB of each script.\n"
    )
    print("| clips | merge 256 shards, find copies | count splits | page of the clips | pairs |\n|---|---|---|---|---|")
    for count in args.clips:
        with tempfile.TemporaryDirectory() as folder:
            print(row(count, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
