"""Send held-out clips through the autoencoder of a model and back, and measure what is lost. For example

    python scripts/vae.py --config my.yaml --model base/model.json --clips clips.parquet --places places.parquet \\
        --out base.parquet
"""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import ClipRow, PlaceRow, ReconstructionRow
from regdpo.models import device
from regdpo.models.spec import ModelFile
from regdpo.stages import vae


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", required=True, help="model.json whose autoencoder is measured")
    parser.add_argument("--name", default="base", help="of it, in the rows; default: %(default)s")
    parser.add_argument("--clips", required=True, help="manifest of the clips stage")
    parser.add_argument("--places", required=True, help="the split of every clip, from the clips stage")
    args = parser.parse_args()
    store = run_file.open_store(args.store)
    stage = stage_inputs.read(stage_inputs.VaeStage, args.config)
    places = manifests.read(args.places, PlaceRow)
    clips = manifests.read(args.clips, ClipRow, ids={place.clip_id for place in places})
    model = ModelFile.read(args.model, store).model_copy(update={"name": args.name})
    where = device.pick(run_file.current().device)
    rows = vae.measure(stage, model, vae.held_out(stage, clips, places), store, where)
    manifests.write(args.out, rows, ReconstructionRow)


if __name__ == "__main__":
    errors.run(main)
