"""Name the base model (hub or folder, pinned), or make a small untrained one from pretraining clips."""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import PairRow
from regdpo.core.temporaries import atomic
from regdpo.stages import base


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--pairs", help="pretraining manifest, for a model made here")
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.BaseStage, args.config)
    if args.pairs:
        model = base.from_scratch(stage, manifests.read(args.pairs, PairRow), run_file.open_store(args.store))
    else:
        model = base.by_name(stage, run_file.open_store(args.store))
    with atomic(args.out) as temporary:
        temporary.write_text(model.model_dump_json(indent=2))


if __name__ == "__main__":
    errors.run(main)
