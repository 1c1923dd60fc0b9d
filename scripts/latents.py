"""Encode winner, loser, text and condition of every pair of a shard, once."""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import LatentRow, PairRow
from regdpo.models import device
from regdpo.models.spec import ModelFile
from regdpo.stages import latents


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", required=True, help="model.json whose codec and text encoder encode")
    parser.add_argument("--pairs", required=True, help="manifest of the pairs stage")
    parser.add_argument("--shard", type=command_line.shard, default=(0, 1), help="INDEX/COUNT; default: all")
    args = parser.parse_args()
    store = run_file.open_store(args.store)
    stage = stage_inputs.read(stage_inputs.LatentsStage, args.config)
    pairs = manifests.read_shard(args.pairs, PairRow, *args.shard)
    where = device.pick(run_file.current().device)
    rows = latents.encode(stage, ModelFile.read(args.model, store), pairs, store, where)
    manifests.write(args.out, rows, LatentRow)


if __name__ == "__main__":
    errors.run(main)
