"""Train one arm with one seed: torchx starts the ranks, a killed run goes on from its last checkpoint.

To stop it in good order, send SIGINT (Ctrl-C), SIGTERM, SIGHUP or SIGUSR1, or make a file `stop` in its run folder: the
ranks finish the step and save. After a signal they have `grace` of --launch (60 s); a second one ends them at once.

exit codes:
  0   trained to the end
  2   a mistake or a failed rank, told in one line; or another process is training in the run folder
  75  not finished (stopped as asked): the same command goes on
"""

from pathlib import Path

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors
from regdpo.core.model_names import BASE, ModelName
from regdpo.core.temporaries import atomic
from regdpo.launch.options import LaunchOptions
from regdpo.models.spec import ModelFile
from regdpo.stages import train


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--name",
        required=True,
        help="ARM/seedN, on another base baseN/ARM/seedN; by hand with a whole configuration it also chooses them",
    )
    parser.add_argument("--model", required=True, help="model.json to start from")
    parser.add_argument("--latents", required=True, type=Path, help="manifest of the latents stage")
    parser.add_argument("--code", default="", help="digest of code and environment, part of the run folder's key")
    parser.add_argument("--launch", default="{}", help="JSON of what shapes no result: processes, device, context, ...")
    parser.add_argument("--as-base", action="store_true", help="the outcome is the base model of the comparison")
    args = parser.parse_args()
    name = ModelName.parse(args.name)
    stage = stage_inputs.read(stage_inputs.TrainStage, args.config, name.arm, name.seed)
    store = run_file.open_store(args.store)
    options = LaunchOptions.model_validate_json(args.launch)
    model = train.outcome(stage, args.name, ModelFile.read(args.model, store), args.latents, args.code, store, options)
    if args.as_base:
        model = model.model_copy(update={"name": f"{name.of}{BASE}", "arm": ""})
    with atomic(args.out) as temporary:
        temporary.write_text(model.model_dump_json(indent=2))


if __name__ == "__main__":
    errors.run(main)
