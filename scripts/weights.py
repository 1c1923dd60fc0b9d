"""Lay the weights of a trained model into a folder of their own, beside a README that says how to load them."""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors
from regdpo.core.errors import UserError
from regdpo.models.spec import ModelFile
from regdpo.stages import weights


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", required=True, help="model.json of a training")
    args = parser.parse_args()
    model = ModelFile.read(args.model)
    if not model.arm:
        raise UserError(f"{args.model}: is a base model; nothing was trained on top of it")
    stage = stage_inputs.read(stage_inputs.WeightsStage, args.config)
    training = stage_inputs.read(stage_inputs.TrainStage, args.config, model.arm, model.seed)
    weights.write(training, stage.geometries, model, run_file.open_store(args.store), args.out)


if __name__ == "__main__":
    errors.run(main)
