"""Import the pairs of one shard of a source of `pairs.sources`: both halves are brought to what clips are.

The manifest has a row for each pair, with the reason where it was rejected. For example

    python scripts/imports.py --config my.yaml --source mine --shard 0/1 --out imported.parquet
"""

import sys
from pathlib import Path

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.digests import DigestCache
from regdpo.core.rows import ImportedRow
from regdpo.core.store import DIGESTS
from regdpo.stages import imports


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--source", required=True, help="its name in pairs.sources")
    parser.add_argument("--shard", type=command_line.shard, default=(0, 1), help="INDEX/COUNT; default: all pairs")
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.ImportsStage, args.config)
    if args.source not in stage.sources:
        there = ", ".join(stage.sources) or "none"
        raise errors.UserError(f"--source {args.source}: pairs.sources has no such list; its lists: {there}")
    digests = DigestCache(Path(args.store) / DIGESTS)
    rows = imports.import_shard(stage, args.source, *args.shard, run_file.open_store(args.store), digests)
    digests.save()
    manifests.write(args.out, rows, ImportedRow)
    print(imports.told(rows), *imports.agreement(stage.sources[args.source]), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    errors.run(main)
