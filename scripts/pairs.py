"""Build the pair manifest: winner = real clip, loser = generated; or, for a base made here, the clips to learn from."""

import sys

from regdpo.config import command_line, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import CaptionRow, ClipRow, CopyRow, NegativeRow, PairRow
from regdpo.stages import pairs


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--clips", required=True, help="manifest of the clips stage")
    parser.add_argument("--captions", required=True, help="manifest of the captions stage")
    parser.add_argument("--negatives", help="manifest of the negatives stage; without it, the clips for pretraining")
    parser.add_argument("--copies", help="which shots show the same footage, from the clips stage; with --negatives")
    parser.add_argument("--split", help="how the footage is split, as the merging of clips decided; else decided now")
    args = parser.parse_args()
    stage = pairs.settled(stage_inputs.read(stage_inputs.PairsStage, args.config), args.split)
    clips, captions = manifests.read(args.clips, ClipRow), manifests.read(args.captions, CaptionRow)
    if args.negatives:
        copies = manifests.read(args.copies, CopyRow) if args.copies else []
        rows, left_out = pairs.build(stage, clips, captions, manifests.read(args.negatives, NegativeRow), copies)
        print("\n".join(left_out), end="\n" if left_out else "", file=sys.stderr)
    else:
        rows = pairs.pretraining(stage, clips, captions)
    manifests.write(args.out, rows, PairRow)


if __name__ == "__main__":
    errors.run(main)
