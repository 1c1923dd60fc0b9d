"""Train the autoencoder of a model on clips (vae.train): torchx starts the ranks, a killed run goes on from its last
checkpoint. It is stopped as scripts/train.py has it.

exit codes:
  0   trained to the end
  2   a mistake or a failed rank, told in one line; or another process is training in the run folder
  75  not finished (stopped as asked): the same command goes on
"""

from pathlib import Path

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.config.autoencoder import TRAINED
from regdpo.core import errors
from regdpo.core.temporaries import atomic
from regdpo.launch.options import LaunchOptions
from regdpo.models.spec import ModelFile
from regdpo.stages import train_vae


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", required=True, help="model.json whose autoencoder is trained")
    parser.add_argument("--clips", required=True, type=Path, help="manifest of the clips stage")
    parser.add_argument("--places", required=True, type=Path, help="the split of every clip, from the clips stage")
    parser.add_argument("--code", default="", help="digest of code and environment, part of the run folder's key")
    parser.add_argument("--launch", default="{}", help="JSON of what shapes no result: processes, device, ...")
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.TrainVaeStage, args.config)
    store = run_file.open_store(args.store)
    options = LaunchOptions.model_validate_json(args.launch)
    given = ModelFile.read(args.model, store)
    model = train_vae.outcome(stage, TRAINED, given, args.clips, args.places, args.code, store, options)
    out = Path(args.out)
    train_vae.show(model, store, out.parent)
    with atomic(out) as temporary:
        temporary.write_text(model.model_dump_json(indent=2))


if __name__ == "__main__":
    errors.run(main)
