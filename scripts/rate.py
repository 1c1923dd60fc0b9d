"""Have people compare base and arms, blind, on a page of this machine: video quality and prompt following of two videos
side by side, and three questions about single clips. Ctrl-C ends it; every answer is on the disk when it is given.

    python scripts/rate.py --config my.yaml                          # serve the page; `snakemake rate` does the same
    python scripts/rate.py --config my.yaml --export                 # only write the table of all answers so far
    python scripts/rate.py --config my.yaml --import-json tasks.json # add answers that Label Studio exported, as JSON
"""

import argparse
import os
from pathlib import Path

from regdpo.config import run_file, stage_inputs
from regdpo.core import errors
from regdpo.core.temporaries import check_writable
from regdpo.stages import rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get(run_file.RUN)
    parser.add_argument(
        "--config",
        required=default is None,
        default=default,
        help="a whole configuration (YAML); default: the workflow's",
    )
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one; default: %(default)s")
    parser.add_argument("--export", action="store_true", help="write answers.parquet and end")
    parser.add_argument("--import-json", type=Path, metavar="FILE", help="add answers from Label Studio and end")
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.RateStage, args.config)
    check_writable(Path(stage.paths.ratings))
    if args.import_json:
        rate.add(stage, args.import_json)
    elif not args.export:
        rate.page(stage, run_file.open_store(stage.paths.store), args.port)
    rate.export(stage)


if __name__ == "__main__":
    errors.run(main)
