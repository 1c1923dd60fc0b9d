"""Render held-out first frames (or captions) with one model, the same for each; or list the real clips."""

from regdpo import device, errors, stages, tables
from regdpo.evaluate import samples
from regdpo.models.family import ModelFile
from regdpo.store import Store
from regdpo.tables import PairRow, SampleRow


def main() -> None:
    parser = stages.parser(__doc__)
    parser.add_argument("--model", help="model.json; without it, the real clips in the place of samples")
    parser.add_argument("--pairs", required=True, help="manifest of the pairs stage")
    args = parser.parse_args()
    store = Store(args.store)
    stage = stages.read(stages.SamplesStage, args.config)
    pairs = tables.read(args.pairs, PairRow)
    if args.model:
        rows = samples.render(stage, ModelFile.read(args.model, store), pairs, store, device.pick())
    else:
        rows = samples.real(stage, pairs)
    tables.write(args.out, rows, SampleRow)


if __name__ == "__main__":
    errors.run(main)
