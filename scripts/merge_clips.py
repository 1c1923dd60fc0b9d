"""Merge the shards' clips into one manifest, reject footage that several videos share, and list which shots share it.

What was accepted and rejected, and why, is counted on standard error. For example

    python scripts/merge_clips.py --config my.yaml --out clips.parquet --copies copies.parquet shards/*.parquet
"""

import sys
from pathlib import Path

from regdpo.config import command_line, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import CopyRow
from regdpo.data import duplicates
from regdpo.data.summary import summary


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--copies", required=True, help="where to write which shots show the same footage")
    parser.add_argument("--split", type=Path, help="how footage is split; decided if it is not there yet")
    parser.add_argument("shards", nargs="+", help="manifests of the shards")
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.MergeStage, args.config)
    clips, copies = duplicates.merge(args.shards, stage, args.out, args.split)
    manifests.write(args.copies, copies, CopyRow)
    print("\n".join(summary(clips)), file=sys.stderr)


if __name__ == "__main__":
    errors.run(main)
