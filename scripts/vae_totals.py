"""What autoencoders give back of held-out clips: means with intervals, as JSON and as a table."""

from pathlib import Path

from regdpo.config import command_line, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import ClipRow, ReconstructionRow
from regdpo.report import vae
from regdpo.stages import vae_totals


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--rows", required=True, nargs="+", type=Path, help="manifests, one per model")
    parser.add_argument("--clips", required=True, help="manifest of the clips stage")
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.VaeTotalsStage, args.config)
    rows = [row for path in args.rows for row in manifests.read(path, ReconstructionRow)]
    clips = manifests.read(args.clips, ClipRow, ids={row.clip_id for row in rows})
    found = vae_totals.totals(stage, rows, clips)
    vae.write(found, args.out)
    print(vae_totals.text(found))


if __name__ == "__main__":
    errors.run(main)
