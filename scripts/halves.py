"""Measure both halves of some pairs: simple statistics by which winner and loser could be told apart."""

import argparse
from pathlib import Path

from regdpo.config import command_line, run_file
from regdpo.core import errors, manifests
from regdpo.core.rows import HalfRow, PairRow
from regdpo.stages import halves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    command_line.store_option(parser)
    parser.add_argument("--pairs", required=True, help="manifest of the pairs stage")
    parser.add_argument("--out", required=True, type=Path, help="the manifest to write")
    args = parser.parse_args()
    rows = halves.measure(manifests.read(args.pairs, PairRow), run_file.open_store(args.store))
    manifests.write(args.out, rows, HalfRow)


if __name__ == "__main__":
    errors.run(main)
