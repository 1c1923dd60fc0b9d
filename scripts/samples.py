"""Render held-out first frames (or captions) with one model, the same for each; or list the real clips."""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import PairRow, SampleRow
from regdpo.models import device
from regdpo.models.spec import ModelFile
from regdpo.stages import samples


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", help="model.json; without it, the real clips in the place of samples")
    parser.add_argument(
        "--pairs", required=True, nargs="+", help="manifest of the pairs stage; of real clips those of all bases"
    )
    args = parser.parse_args()
    store = run_file.open_store(args.store)
    stage = stage_inputs.read(stage_inputs.SamplesStage, args.config)
    pairs = [manifests.read(path, PairRow) for path in args.pairs]
    if args.model:
        where = device.pick(run_file.current().device)
        rows = samples.render(stage, ModelFile.read(args.model, store), pairs[0], store, where)
    else:
        rows = samples.real(stage, pairs)
    manifests.write(args.out, rows, SampleRow)


if __name__ == "__main__":
    errors.run(main)
