"""Whether this machine makes the numbers that others make (`deterministic: portable`): small computations of every kind
that results are made of, held against a table of their digests.

    python scripts/portable.py

exit codes: 0 all is as in the table; 1 something differs, or the table has it not
"""

import argparse
from pathlib import Path

from regdpo.core import errors, portable
from regdpo.core.golden import Table

TABLE = Path(__file__).resolve().parents[1] / "tests/golden/kernels.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE, help="default: %(default)s")
    parser.add_argument("--write", action="store_true", help="write the table anew, or this machine into it")
    args = parser.parse_args()
    portable.start_over()
    from regdpo.evaluate import kernels  # here, since it loads what the environment is for

    found, table = kernels.digests(), Table.read(args.table)
    if args.write:
        table.seen(found).write(args.table)
        return 0
    print(f"{portable.processor()}; the table was seen on {', '.join(table.machines) or 'none'}")
    for name, digest in found.items():
        there = table.digests.get(name, "nothing")
        print(f"{name:24} {digest}  {'as in the table' if digest == there else f'the table has {there}'}")
    return int(found != table.digests)


if __name__ == "__main__":
    errors.run(main)
