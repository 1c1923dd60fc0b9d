"""The files that VBench's dimensions need: which are there, and where the others belong. ``--fetch`` gets those.

python scripts/vbench_weights.py --suite t2v
python scripts/vbench_weights.py --dimension aesthetic_quality imaging_quality --fetch
"""

import argparse

from regdpo.config import command_line
from regdpo.core import errors
from regdpo.evaluate import vbench_weights
from regdpo.evaluate.suites import DIMENSIONS, SUITES, expanded, needs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", choices=list(SUITES), default=[], help="whose dimensions")
    parser.add_argument(
        "--dimension", nargs="+", choices=list(DIMENSIONS), default=[], help="beside those; default: all there are"
    )
    parser.add_argument("--fetch", action="store_true", help="download what is missing; only this ever does")
    command_line.vbench(parser, suites=False)
    args = parser.parse_args()
    asked = expanded([*args.suite, *args.dimension]) or list(DIMENSIONS)
    static = {name for suite in args.suite for name in SUITES[suite].static}
    if args.fetch:
        wanted = dict.fromkeys(name for it in asked for name in needs(it, it in static).weights)
        vbench_weights.fetch(wanted, args.weights)
    print(vbench_weights.table(asked, args.python, args.weights, static))


if __name__ == "__main__":
    errors.run(main)
