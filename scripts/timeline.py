"""Draw where the time of the runs of a project went, from Snakemake's logs, benchmark files and Slurm's accounting.

The workflow calls it when a run ends. By hand, in the project's folder: `python scripts/timeline.py`.
"""

import argparse
import sys
from pathlib import Path

from regdpo.core import errors, manifests
from regdpo.workflow.timeline import page, snakemake_log
from regdpo.workflow.timeline.rows import JobRow, gather


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", default=".", type=Path, help="folder that Snakemake ran in; default: this one")
    parser.add_argument(
        "--table", default="logs/timeline.parquet", type=Path, help="rows of all runs; default: %(default)s"
    )
    parser.add_argument("--out", default="results/report/timeline.html", type=Path, help="default: %(default)s")
    args = parser.parse_args()
    table, out = args.project / args.table, args.project / args.out
    runs = snakemake_log.read_all(args.project)
    known = manifests.read(table, JobRow) if table.exists() else []
    found, reason = gather(runs, known, args.project)
    if reason:
        print(f"Slurm's accounting has no answer: {reason}", file=sys.stderr)
    manifests.write(table, found, JobRow)
    page.write(found, out)


if __name__ == "__main__":
    errors.run(main)
