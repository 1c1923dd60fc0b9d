"""Seconds of `snakemake -n all` by the number of videos, whose bytes are known already.

python benchmarks/dag.py > benchmarks/results/dag.md

The videos are files of a few bytes: a dry run opens none that it knows.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SHARDS = 64
DRY = ("-n", "-q", "all")
A_FOLDER = 1000
"""Videos of a folder."""


def project(folder: Path, count: int) -> None:
    """A folder of one's own with that many videos, and a caption for all of them."""
    for number in range(count):
        path = folder / f"videos/{number // A_FOLDER:03}/phone {number:07}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    values = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    values["videos"] = {"root": "videos", "include": ["**"]}
    values["captions"] = {"source": "sidecar", "root": "captions"}
    values["clips"]["shards"] = SHARDS
    (folder / "captions").mkdir()
    (folder / "my.yaml").write_text(yaml.safe_dump(values))


def seconds(folder: Path, *what: str) -> tuple[float, float]:
    """CPU and wall clock of Snakemake, with what it is asked for."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), "--configfile", "my.yaml"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *what], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[100, 10_000, 100_000])
    args = parser.parse_args()
    print(
        f"`python benchmarks/dag.py`: `snakemake -n all`, {SHARDS} shards of clips, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, Snakemake {version('snakemake')}. First: the videos' bytes are read; then they "
        "are known. Parse: `snakemake --list-rules`, which reads the rules as each job does.\n"
    )
    print("| videos | first, CPU s | then, CPU s | then, s | parse, CPU s |\n|---|---|---|---|---|")
    for count in args.videos:
        with tempfile.TemporaryDirectory() as folder:
            project(Path(folder), count)
            first, _ = seconds(Path(folder), *DRY)
            again, wall = seconds(Path(folder), *DRY)
            parse, _ = seconds(Path(folder), "--list-rules")
            print(f"| {count:,} | {first:.1f} | {again:.1f} | {wall:.1f} | {parse:.1f} |", flush=True)


if __name__ == "__main__":
    main()
