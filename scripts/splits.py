"""Count the clips of train, validation and test, and refuse footage that leaves one of them empty; with --places, also
write which clip is in which, so that nothing is rendered for those that become no pair. For example

python scripts/splits.py --config my.yaml --clips clips.parquet --copies copies.parquet --out splits.parquet
"""

import sys
from pathlib import Path

from regdpo.config import command_line, stage_inputs
from regdpo.core import errors, frames, manifests
from regdpo.core.rows import ClipRow, CopyRow, PlaceRow, SplitRow
from regdpo.data.summary import check_accepted
from regdpo.stages import pairs


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--clips", required=True, help="manifest of the clips stage")
    parser.add_argument("--copies", required=True, help="which shots show the same footage, from the clips stage")
    parser.add_argument("--split", help="how the footage is split, as the merging of clips decided; else decided now")
    parser.add_argument(
        "--places", help="manifest to write: the split of every clip that pairs are made of, as far as their limit goes"
    )
    args = parser.parse_args()
    stage = pairs.settled(stage_inputs.read(stage_inputs.SplitsStage, args.config), args.split)
    clips, copies = frames.read(args.clips, ClipRow, pairs.PLACED), manifests.read(args.copies, CopyRow)
    check_accepted(clips, Path(args.clips).with_suffix(".html"))
    placed = pairs.places(stage, clips, copies)
    rows = pairs.count(stage, clips, copies, placed)
    if args.places:
        table = frames.table(pairs.needed(stage, placed).rename_axis("clip_id").rename("split").reset_index())
        manifests.write_table(args.places, table, PlaceRow)
    manifests.write(args.out, rows, SplitRow)
    print(pairs.told(rows), file=sys.stderr)
    if line := pairs.too_few(rows, stage_inputs.read(stage_inputs.MinimumStage, args.config)):
        print(f"note: {line}", file=sys.stderr)


if __name__ == "__main__":
    errors.run(main)
