"""Seconds and memory of manifests, by their number of rows: written, read whole, one shard of 256 read, 256 merged.

python benchmarks/manifests.py > benchmarks/results/manifests.md
"""

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regdpo.core import manifests
from regdpo.core.columns import NUMBERS, schema_of
from regdpo.core.rows import ClipRow, PairRow, Row

SHARDS = 256
A_VIDEO = 20
"""Clips of a video."""
SCORES = ("upscale", "black", "static", "motion", "blur", "letterbox")


def made(model: type[Row], count: int) -> pa.Table:
    """Rows as footage gives them: ids, digests and captions of their own, words and sources that recur."""
    numbers, random = np.arange(count), np.random.default_rng(0)
    video = pc.cast(pa.array(numbers // A_VIDEO), pa.string())
    name = pc.binary_join_element_wise("phone-video", pc.utf8_lpad(video, 8, "0"), "s000", "-")
    key = pc.binary_join_element_wise(name, pc.utf8_lpad(pa.array(numbers.astype(str)), 8, "0"), "f")
    digests = pa.array([sha256(str(number).encode()).hexdigest() for number in range(count)])
    path = pc.binary_join_element_wise("clips", pc.utf8_slice_codeunits(digests, 0, 2), digests, "/")
    source = pc.binary_join_element_wise("2024/summer", video, "mp4", ".")
    caption = pc.binary_join_element_wise("A person walks a dog along a path by the water, take", name, " ")
    words: dict[str, pa.Array] = {"status": pa.repeat("accepted", count), "split": pa.repeat("train", count)}
    words |= dict.fromkeys(("path", "winner", "loser"), path) | {"source": source, "caption": caption}
    words |= dict.fromkeys(("sha256", "winner_sha256", "loser_sha256"), digests)
    words |= {"source_digest": digests.take(pa.array(numbers // A_VIDEO))}
    columns = []
    for position, field in enumerate(schema_of(model)):
        if position == 0 or field.name == "clip_id":
            columns.append(key)
        elif field.type == NUMBERS:
            keys = pa.array(SCORES).take(pa.array(np.tile(np.arange(len(SCORES)), count)))
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * len(SCORES))
            columns.append(pa.MapArray.from_arrays(offsets, keys, pa.array(random.random(len(keys)))))
        elif pa.types.is_string(field.type):
            columns.append(words.get(field.name, pa.repeat("", count)))
        else:
            columns.append(pa.array(random.integers(0, 1000, count)).cast(field.type))
    return pa.table(columns, schema=schema_of(model))


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of CPU, and MiB at most, of a process of its own."""
    read, write = os.pipe()
    if pid := os.fork():
        os.waitpid(pid, 0)
        with os.fdopen(read) as handle:
            os.close(write)
            seconds, most = handle.read().split()
        return float(seconds), float(most)
    begun = time.process_time()
    work()
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    os.write(write, f"{time.process_time() - begun} {size}".encode())
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    args = parser.parse_args()
    print(
        f"Seconds of CPU and the most MiB of a process, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"pyarrow {pa.__version__}; `python benchmarks/manifests.py`. A process has about 100 MiB before it begins; "
        "the one that writes holds the table.\n"
    )
    print("| manifest | rows | bytes a row | write | read, checked | one shard of 256, as objects | merge 256 |")
    print("|---|---|---|---|---|---|---|")
    for model in (ClipRow, PairRow):
        for count in args.rows:
            with tempfile.TemporaryDirectory() as folder:
                print(row(model, count, Path(folder)), flush=True)


def row(model: type[Row], count: int, folder: Path) -> str:
    """One of the table."""
    whole, merged = folder / "whole.parquet", folder / "merged.parquet"
    parts = [folder / f"{shard}.parquet" for shard in range(SHARDS)]

    def prepare() -> None:
        table = made(model, count)
        for shard, part in enumerate(parts):
            manifests.write_table(part, table.take(pa.array(np.arange(shard, count, SHARDS))), model)

    def write() -> tuple[float, float]:
        table = made(model, count)
        begun = time.process_time()
        manifests.write_table(whole, table, model)
        wrote.write_text(str(time.process_time() - begun))
        return 0.0, 0.0

    wrote = folder / "seconds"
    measured(prepare)
    _, size = measured(write)
    found = [(float(wrote.read_text()), size)]
    found.append(measured(lambda: manifests.read_table(whole, model)))
    found.append(measured(lambda: manifests.read_shard(whole, model, 100, SHARDS)))
    found.append(measured(lambda: manifests.merge(merged, parts, model)))
    if merged.read_bytes() != whole.read_bytes():
        sys.exit("the merged manifest is another than the one written at once")
    cells = [f"{seconds:.2f} s, {size:.0f} MiB" for seconds, size in found]
    return " | ".join(["", model.__name__, f"{count:,}", f"{whole.stat().st_size / count:.0f}", *cells, ""]).strip()


if __name__ == "__main__":
    main()
