"""How much CPU each command of scripts/ needs before its work begins, and whether it loads torch for it.

python benchmarks/imports.py > benchmarks/results/imports.md
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ASK = "import runpy, sys; runpy.run_path(sys.argv[1]); print('torch' in sys.modules)"


def seconds(script: Path) -> tuple[float, bool]:
    """CPU seconds of one start, and whether torch was loaded."""
    before = os.times()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(script)], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, done.stdout.strip() == "True"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, help="starts of each; the median counts; default: %(default)s")
    args = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, median of {args.times} starts; CPU seconds, user and system.\n")
    print("| command | CPU s | loads torch |\n|---|---|---|")
    for script in sorted((ROOT / "scripts").glob("*.py")):
        found = [seconds(script) for _ in range(args.times)]
        print(
            f"| {script.stem} | {statistics.median(used for used, _ in found):.2f} | {'yes' if found[0][1] else ''} |"
        )


if __name__ == "__main__":
    main()
