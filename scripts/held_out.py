"""Measure a model's denoising error on held-out clips, with fixed noise and timesteps."""

from regdpo import device, errors, stages, tables
from regdpo.evaluate import held_out
from regdpo.models.family import ModelFile
from regdpo.store import Store
from regdpo.tables import LatentRow, ScoreRow


def main() -> None:
    parser = stages.parser(__doc__)
    parser.add_argument("--model", required=True, help="model.json")
    parser.add_argument("--latents", required=True, help="manifest of the latents stage")
    args = parser.parse_args()
    store = Store(args.store)
    stage = stages.read(stages.ErrorsStage, args.config)
    latents = tables.read(args.latents, LatentRow)
    rows = held_out.score(stage, ModelFile.read(args.model, store), latents, store, device.pick())
    tables.write(args.out, rows, ScoreRow)


if __name__ == "__main__":
    errors.run(main)
