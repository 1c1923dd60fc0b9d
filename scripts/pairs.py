"""Build the manifest of pairs: winner = real clip, loser = generated, and pairs that others made; or, for a base made
here, the clips to learn from."""

import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd

from regdpo.config import command_line, stage_inputs
from regdpo.core import errors, frames, manifests
from regdpo.core.rows import (
    CandidateRow,
    CaptionRow,
    ClipRow,
    CopyRow,
    ImportedRow,
    NegativeRow,
    PairRow,
    Row,
    ScoreRow,
)
from regdpo.data.duplicates import Shot, steps_of
from regdpo.stages import pairs


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--clips", nargs="?", help="manifest of the clips stage")
    parser.add_argument("--captions", nargs="?", help="manifest of the captions stage")
    parser.add_argument("--negatives", nargs="?", help="manifest of the negatives stage")
    parser.add_argument("--copies", nargs="?", help="which shots show the same footage, from the clips stage")
    parser.add_argument("--imports", nargs="*", default=[], help="manifests of pairs that others made")
    parser.add_argument(
        "--shots", nargs="*", default=[], help="manifests of the clips' shards, to look for in the imports"
    )
    parser.add_argument("--candidates", nargs="*", default=[], help="manifests of videos to choose from by score")
    parser.add_argument("--scores", nargs="*", default=[], help="manifests of those scores")
    parser.add_argument("--pretraining", action="store_true", help="winners alone, for a base that is made here")
    parser.add_argument(
        "--split", nargs="?", help="how footage is split, as the merging of clips decided; else decided now"
    )
    args = parser.parse_args()
    stage = pairs.settled(stage_inputs.read(stage_inputs.PairsStage, args.config), args.split)
    clips = frames.read(args.clips, ClipRow, pairs.CLIPS)
    captions = frames.read(args.captions, CaptionRow, pairs.CAPTIONS)
    if args.pretraining:
        rows = pairs.pretraining(stage, clips, captions)
    else:
        negatives = frames.read(args.negatives, NegativeRow, pairs.NEGATIVES)
        copies = manifests.read(args.copies, CopyRow) if args.copies else []
        imported = pd.concat(
            [frames.read(file, ImportedRow, pairs.IMPORTED) for file in args.imports or [None]], ignore_index=True
        )
        shots: dict[Shot, np.ndarray] = {}
        for file in args.shots:
            shots |= steps_of(manifests.read_table(file, ClipRow, ("clip_id", "source", "shot", "fingerprint")))
        ranked, told = pairs.ranked(stage, _read(args.candidates, CandidateRow), _read(args.scores, ScoreRow))
        rows, left_out = pairs.build(stage, clips, captions, negatives, copies, imported, shots, ranked)
        left_out += told
        print("\n".join(left_out), end="\n" if left_out else "", file=sys.stderr)
    manifests.write_table(args.out, frames.table(rows), PairRow)


def _read(files: Sequence[str | None], model: type[Row]) -> pd.DataFrame:
    return pd.concat([frames.read(file, model) for file in files or [None]], ignore_index=True)


if __name__ == "__main__":
    errors.run(main)
