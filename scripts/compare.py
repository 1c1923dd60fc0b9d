"""Compare the reports of two runs: other data, another machine, another commit.

Says what differs in configuration, data, models, code and hardware, and whether the verdicts agree: of every arm that
both have, by every measure. A verdict has turned over where one run says better and the other worse.

Exit codes: 0 no verdict has turned over, 1 one has, 2 the runs cannot be compared.
"""

import argparse
from pathlib import Path

from regdpo.core import errors
from regdpo.report import compare, document


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, metavar="A", help="folder of a run's results, or its report.json")
    parser.add_argument("second", type=Path, metavar="B", help="the same of the other run")
    parser.add_argument("--out", type=Path, metavar="PAGE", help="also write a page (HTML, one file)")
    args = parser.parse_args()
    files = [path / "report/report.json" if path.is_dir() else path for path in (args.first, args.second)]
    first, second = map(document.read, files)
    found = compare.compare(first, second, (str(args.first), str(args.second)))
    if args.out:
        compare.write(found, args.out)
    print(compare.text(found))
    return 1 if found.turned_over else 0


if __name__ == "__main__":
    errors.run(main)
