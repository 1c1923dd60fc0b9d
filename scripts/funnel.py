"""Write the page of the clips: what each filter took, how the scores lie about their thresholds, and pictures.

For example

    python scripts/funnel.py --config my.yaml --clips clips.parquet --copies copies.parquet --out clips.html
"""

from pathlib import Path

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, frames, manifests
from regdpo.core.rows import ClipRow, CopyRow
from regdpo.stages import funnel, pairs


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--clips", required=True, help="manifest of the clips stage")
    parser.add_argument("--copies", required=True, help="which shots show the same footage, from the clips stage")
    parser.add_argument("--split", help="how the footage is split, as the merging of clips decided; else decided now")
    args = parser.parse_args()
    stage = pairs.settled(stage_inputs.read(stage_inputs.FunnelStage, args.config), args.split)
    clips, copies = frames.read(args.clips, ClipRow, funnel.CLIPS), manifests.read(args.copies, CopyRow)
    funnel.write(stage, clips, copies, run_file.open_store(args.store), Path(args.out))


if __name__ == "__main__":
    errors.run(main)
