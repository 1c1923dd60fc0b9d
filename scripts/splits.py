"""Count the clips of train, validation and test, and refuse footage that leaves one of them empty. For example

python scripts/splits.py --config my.yaml --clips clips.parquet --copies copies.parquet --out splits.parquet
"""

import sys

from regdpo.config import command_line, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import ClipRow, CopyRow, SplitRow
from regdpo.stages import pairs


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--clips", required=True, help="manifest of the clips stage")
    parser.add_argument("--copies", required=True, help="which shots show the same footage, from the clips stage")
    parser.add_argument("--split", help="how the footage is split, as the merging of clips decided; else decided now")
    args = parser.parse_args()
    stage = pairs.settled(stage_inputs.read(stage_inputs.PairsStage, args.config), args.split)
    rows = pairs.count(stage, manifests.read(args.clips, ClipRow), manifests.read(args.copies, CopyRow))
    manifests.write(args.out, rows, SplitRow)
    print(pairs.told(rows), file=sys.stderr)


if __name__ == "__main__":
    errors.run(main)
