"""Render the losers of a shard: what the base, or another generator, makes of each clip's caption (and first frame)."""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.config.schema import BASE
from regdpo.core import errors, manifests
from regdpo.core.rows import CaptionRow, ClipRow, NegativeRow, PlaceRow, rejections
from regdpo.models import device
from regdpo.models.spec import ModelFile
from regdpo.stages import negatives


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", required=True, help="model.json of the generator")
    parser.add_argument("--generator", default=BASE, help="its name in negatives.generators; default: %(default)s")
    parser.add_argument("--clips", required=True, help="manifest of the clips stage")
    parser.add_argument("--captions", required=True, help="manifest of the captions stage")
    parser.add_argument("--places", help="which clips become pairs, from the splits stage; default: all")
    parser.add_argument("--shard", type=command_line.shard, default=(0, 1), help="INDEX/COUNT; default: all")
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.NegativesStage, args.config, args.generator)
    clips = manifests.read_shard(args.clips, ClipRow, *args.shard, status="accepted")
    if args.places:
        placed = {row.clip_id for row in manifests.read(args.places, PlaceRow, {clip.clip_id for clip in clips})}
        clips = [clip for clip in clips if clip.clip_id in placed]
    captions = manifests.read(args.captions, CaptionRow, {clip.clip_id for clip in clips})
    store = run_file.open_store(args.store)
    model = ModelFile.read(args.model, store)
    where = device.pick(run_file.current().device)
    rows = negatives.render(stage, model, clips, captions, store, where)
    manifests.write(args.out, rows, NegativeRow)
    kinds = [row.kind for row in rows if row.status == "rejected"]
    print(rejections(kinds, len(rows)) or f"{len(rows)} negatives, none rejected")


if __name__ == "__main__":
    errors.run(main)
