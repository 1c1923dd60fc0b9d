"""Merge the shards' clips into one manifest, reject footage that several videos share, and list which shots share it.

What was accepted and rejected, and why, is counted on standard error. For example

    python scripts/merge_clips.py --config my.yaml --out clips.parquet --copies copies.parquet shards/*.parquet
"""

import sys

from regdpo import errors, stages, tables
from regdpo.data import clips, duplicates


def main() -> None:
    parser = stages.parser(__doc__)
    parser.add_argument("--copies", required=True, help="where to write which shots show the same footage")
    parser.add_argument("shards", nargs="+", help="manifests of the shards")
    args = parser.parse_args()
    stage = stages.read(stages.MergeStage, args.config)
    rows = [row for shard in args.shards for row in tables.read(shard, tables.ClipRow)]
    merged, copies = duplicates.merge(rows, stage)
    tables.write(args.copies, copies, tables.CopyRow)
    tables.write(args.out, merged, tables.ClipRow)
    print("\n".join(clips.summary(merged)), file=sys.stderr)


if __name__ == "__main__":
    errors.run(main)
