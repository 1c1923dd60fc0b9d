"""Measure a model's denoising error on held-out clips, with fixed noise and timesteps."""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import LatentRow, ScoreRow
from regdpo.evaluate import held_out
from regdpo.models import device
from regdpo.models.spec import ModelFile


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", required=True, help="model.json")
    parser.add_argument("--latents", required=True, help="manifest of the latents stage")
    args = parser.parse_args()
    store = run_file.open_store(args.store)
    stage = stage_inputs.read(stage_inputs.ErrorsStage, args.config)
    latents = manifests.read(args.latents, LatentRow)
    where = device.pick(run_file.current().device)
    rows = held_out.score(stage, ModelFile.read(args.model, store), latents, store, where)
    manifests.write(args.out, rows, ScoreRow)


if __name__ == "__main__":
    errors.run(main)
