"""Merge the adapters of a trained model into its weights, from which the next step of a chain then starts."""

from regdpo.config import command_line, run_file
from regdpo.core import errors
from regdpo.core.temporaries import atomic
from regdpo.models.spec import ModelFile
from regdpo.stages import merged


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", required=True, help="model.json of a training")
    args = parser.parse_args()
    store = run_file.open_store(args.store)
    model = merged.merged(ModelFile.read(args.model, store), store)
    with atomic(args.out) as temporary:
        temporary.write_text(model.model_dump_json(indent=2))


if __name__ == "__main__":
    errors.run(main)
