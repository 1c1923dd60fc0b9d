"""Render the losers of a shard: what the base model makes of each clip's caption (and first frame)."""

from regdpo import device, errors, negatives, stages, tables
from regdpo.models.family import ModelFile
from regdpo.store import Store
from regdpo.tables import CaptionRow, ClipRow, NegativeRow


def main() -> None:
    parser = stages.parser(__doc__)
    parser.add_argument("--model", required=True, help="model.json of the base")
    parser.add_argument("--clips", required=True, help="manifest of the clips stage")
    parser.add_argument("--captions", required=True, help="manifest of the captions stage")
    parser.add_argument("--shard", type=stages.shard, default=(0, 1), help="INDEX/COUNT; default: all")
    args = parser.parse_args()
    stage = stages.read(stages.NegativesStage, args.config)
    clips, captions = tables.read(args.clips, ClipRow), tables.read(args.captions, CaptionRow)
    store = Store(args.store)
    model = ModelFile.read(args.model, store)
    rows = negatives.render(stage, model, tables.in_shard(clips, *args.shard), captions, store, device.pick())
    tables.write(args.out, rows, NegativeRow)


if __name__ == "__main__":
    errors.run(main)
