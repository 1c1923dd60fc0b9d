"""Name the base model or a generator of negatives (hub or folder, pinned), or make a small untrained base from
pretraining clips."""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import PairRow
from regdpo.core.temporaries import atomic
from regdpo.stages import base


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--pairs", help="pretraining manifest, for a model made here")
    parser.add_argument("--generator", help="a name of negatives.generators, whose model is meant, not the base's")
    parser.add_argument(
        "--seed", type=int, default=0, help="of base.seeds, for a model made here; default: %(default)s"
    )
    args = parser.parse_args()
    store = run_file.open_store(args.store)
    if args.generator:
        other = stage_inputs.read(stage_inputs.GeneratorStage, args.config, args.generator)
        model = base.by_name(other, store, args.generator, other.key)
    elif args.pairs:
        stage = stage_inputs.read(stage_inputs.BaseStage, args.config, args.seed)
        model = base.from_scratch(stage, manifests.read(args.pairs, PairRow), store)
    else:
        model = base.by_name(stage_inputs.read(stage_inputs.BaseStage, args.config, 0), store)
    with atomic(args.out) as temporary:
        temporary.write_text(model.model_dump_json(indent=2))


if __name__ == "__main__":
    errors.run(main)
