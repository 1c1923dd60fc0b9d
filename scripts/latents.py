"""Encode winner, loser, text and condition of every pair of a shard, once."""

from regdpo import device, errors, stages, tables
from regdpo.data import latents
from regdpo.models.family import ModelFile
from regdpo.store import Store
from regdpo.tables import LatentRow, PairRow


def main() -> None:
    parser = stages.parser(__doc__)
    parser.add_argument("--model", required=True, help="model.json whose codec and text encoder encode")
    parser.add_argument("--pairs", required=True, help="manifest of the pairs stage")
    parser.add_argument("--shard", type=stages.shard, default=(0, 1), help="INDEX/COUNT; default: all")
    args = parser.parse_args()
    store = Store(args.store)
    stage = stages.read(stages.LatentsStage, args.config)
    pairs = tables.in_shard(tables.read(args.pairs, PairRow), *args.shard)
    rows = latents.encode(stage, ModelFile.read(args.model, store), pairs, store, device.pick())
    tables.write(args.out, rows, LatentRow)


if __name__ == "__main__":
    errors.run(main)
