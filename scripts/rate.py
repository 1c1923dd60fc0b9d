"""Have people compare base and arms, blind, on a page of this machine: video quality and prompt following of two videos
side by side, and three questions about single clips. Ctrl-C ends it; every answer is on the disk when it is given.

    python scripts/rate.py --config my.yaml                          # serve the page; `snakemake rate` does the same
    python scripts/rate.py --config my.yaml --export                 # only write the table of all answers so far
    python scripts/rate.py --config my.yaml --import-json tasks.json # add answers that Label Studio exported, as JSON
"""

import argparse
import os
import signal
from pathlib import Path

from regdpo.config import run_file, stage_inputs
from regdpo.core import errors
from regdpo.core.temporaries import check_writable
from regdpo.rate import label_studio
from regdpo.rate.answers import Answers, export
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
    folder, results = Path(stage.paths.ratings), Path(stage.paths.results)
    check_writable(folder)
    answers, table = Answers(folder / rate.DATABASE), folder / rate.TABLE
    if not args.export:
        store = run_file.open_store(stage.paths.store)
        files = [results / f"samples/{model}.parquet" for model in stage.models]
        samples, pairs = rate.read(stage, files, results / "pairs.parquet")
        if args.import_json:
            added = label_studio.add(args.import_json, stage, samples, answers)
            rate.say(f"{added} answers of {args.import_json} were added")
        else:
            found = rate.shown(stage, samples, pairs, store)
            rate.say(rate.told(found))
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            rate.serve(stage, found, answers, store, args.port, lambda url: rate.say(f"open {url}\nCtrl-C ends it"))
            for stop in (signal.SIGINT, signal.SIGTERM):
                signal.signal(stop, signal.SIG_IGN)  # the table is written in a moment
    count = export(answers, table)
    rate.say(f"{count} answers: {table}")


if __name__ == "__main__":
    errors.run(main)
