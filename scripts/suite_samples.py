"""Render the videos of a suite of prompts with one model: of all prompts whose dimensions can be measured."""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import SuiteSampleRow
from regdpo.evaluate import prompts, vbench_weights
from regdpo.evaluate.suites import OF_PROMPTS
from regdpo.models import device
from regdpo.models.spec import ModelFile
from regdpo.stages import suite_samples


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--suite", required=True, choices=OF_PROMPTS)
    parser.add_argument("--model", required=True, help="model.json")
    parser.add_argument("--shard", type=command_line.shard, default=(0, 1), help="INDEX/COUNT; default: all")
    command_line.vbench(parser)
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.SuiteSamplesStage, args.config, args.suite)
    can = vbench_weights.available(stage.dimensions, args.python, args.weights, stage.static)
    listed = prompts.file_of(args.suite, args.python, args.i2v_prompts)
    mine = prompts.in_shard(prompts.read(args.suite, listed, can, stage.static, stage.limit), *args.shard)
    images = prompts.images_of(mine, args.images, stage.geometry)
    store = run_file.open_store(args.store)
    model = ModelFile.read(args.model, store)
    rows = (
        suite_samples.render(stage, model, mine, images, store, device.pick(run_file.current().device)) if mine else []
    )
    manifests.write(args.out, rows, SuiteSampleRow)
    print(
        f"{args.suite}: {len(rows)} videos of {len(mine)} prompts, for {len(can)} of {len(stage.dimensions)} dimensions"
    )


if __name__ == "__main__":
    errors.run(main)
