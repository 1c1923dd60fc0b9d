"""Run a configuration twice from nothing, and hold what came out against each other byte for byte.

Both runs have a folder of their own, with results and store. Compared are manifests, scores, the report and the trained
weights among the results, and all clips, negatives, latents and samples that manifests name. What has a clock in it
(the timeline) is left out.

    python scripts/reproduce.py --config config/small.yaml --out reproduced

exit codes: 0 all is the same; 1 something differs, a line each
"""

import argparse
import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

from regdpo.core import damage, errors
from regdpo.core.errors import UserError
from regdpo.core.store import Store

SNAKEFILE = Path(__file__).parents[1] / "workflow/Snakefile"
RUNS = ("first", "second")
CLOCKS = ("report/timeline.html", "report/timeline.svg")
"""Of the results, what tells when things ran."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=Path, help="the configuration (YAML)")
    parser.add_argument("--out", required=True, type=Path, help="folder to make, with one folder a run")
    parser.add_argument("--cores", default="all", help="CPU cores of a run; default: all")
    args = parser.parse_args()
    if not args.config.is_file():
        raise UserError(f"{args.config}: there is no such configuration")
    if args.out.exists():
        raise UserError(f"{args.out}: is there already; both runs begin with nothing, so remove it or name another")
    for name in RUNS:
        run(args.config, args.out / name, args.cores)
    found = [contents(args.out / name) for name in RUNS]
    print("\n".join(table(*found)))
    lines = different(*found)
    print("\n".join(lines) or f"all {len(found[0])} files are the same", file=sys.stderr)
    return int(bool(lines))


def run(config: Path, folder: Path, cores: str) -> None:
    """One run of everything.

    Raises:
        UserError: it failed.
    """
    folder.mkdir(parents=True)
    snakemake = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(SNAKEFILE),
        "--configfile",
        str(config.resolve()),
    ]
    places = ["--config", "paths={results: results, store: store}"]
    done = subprocess.run([*snakemake, *places, "--cores", cores, "all"], cwd=folder, check=False)
    if done.returncode:
        raise UserError(f"{folder}: the run failed, as said above")


def contents(folder: Path) -> dict[str, str]:
    """Every file that is compared -> its SHA-256: results by their path, artefacts of the store by their path there."""
    folder = folder.resolve()
    results, store = folder / "results", Store(folder / "store")
    files = {
        f"results/{path.relative_to(results)}": path
        for path in results.rglob("*")
        if path.is_file() and str(path.relative_to(results)) not in CLOCKS
    }
    for _, names in damage.named(results):
        for name in names:
            whole = store.resolve(name)
            parts = [path for path in whole.rglob("*") if path.is_file()] if whole.is_dir() else [whole]
            files |= {f"store/{path.relative_to(store.root)}": path for path in parts}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(files.items())}


def different(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """A line for each file that one run lacks, or that has other bytes."""
    lines = [f"{name}: {RUNS[0] if name in first else RUNS[1]} alone has it" for name in sorted(first.keys() ^ second)]
    return lines + [f"{name}: differs" for name in sorted(first.keys() & second) if first[name] != second[name]]


def table(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Kind of file, how many, how many are the same."""
    every = Counter(map(_kind, first.keys() | second))
    same = Counter(_kind(name) for name in first.keys() & second if first[name] == second[name])
    return [f"{'':24} {'files':>6} {'same':>6}"] + [
        f"{kind:24} {every[kind]:6} {same[kind]:6}" for kind in sorted(every)
    ]


def _kind(name: str) -> str:
    return "/".join(name.split("/")[:2])


if __name__ == "__main__":
    errors.run(main)
