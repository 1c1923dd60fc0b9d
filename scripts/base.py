"""Name the base model (hub or folder, pinned), or make a small untrained one from pretraining clips."""

from regdpo import base, errors, stages, tables
from regdpo.store import Store
from regdpo.tables import PairRow
from regdpo.temporaries import atomic


def main() -> None:
    parser = stages.parser(__doc__)
    parser.add_argument("--pairs", help="pretraining manifest, for a model made here")
    args = parser.parse_args()
    stage = stages.read(stages.BaseStage, args.config)
    if args.pairs:
        model = base.from_scratch(stage, tables.read(args.pairs, PairRow), Store(args.store))
    else:
        model = base.by_name(stage, Store(args.store))
    with atomic(args.out) as temporary:
        temporary.write_text(model.model_dump_json(indent=2))


if __name__ == "__main__":
    errors.run(main)
