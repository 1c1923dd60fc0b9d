"""VBench's dimensions of a model's videos of a suite: of the workflow's, or of a folder of videos with VBench's names.

    python scripts/suite_scores.py --config my.yaml --suite t2v --videos FOLDER --model NAME --out scores.parquet

All videos have to be there, be readable, and have the names of prompts, before anything is measured.
"""

from pathlib import Path

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import SuiteSampleRow, SuiteScoreRow
from regdpo.evaluate import prompts, vbench_weights
from regdpo.evaluate.suites import OF_PROMPTS
from regdpo.evaluate.vbench_run import Setting
from regdpo.stages import suite_scores


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--suite", required=True, choices=OF_PROMPTS)
    parser.add_argument("--model", required=True, help="name of the model whose videos they are")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--samples", help="manifest of the suite_samples stage")
    given.add_argument("--videos", type=Path, help="folder of videos, PROMPT-INDEX.mp4")
    parser.add_argument("--shard", type=command_line.shard, default=(0, 1), help="INDEX/COUNT; default: all")
    command_line.vbench(parser)
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.SuiteStage, args.config, args.suite)
    can = vbench_weights.available(stage.dimensions, args.python, args.weights, stage.static)
    listed = prompts.file_of(args.suite, args.python, args.i2v_prompts)
    mine = prompts.in_shard(prompts.read(args.suite, listed, can, stage.static, stage.limit), *args.shard)
    images = prompts.images_of(mine, args.images, stage.geometry)
    store = run_file.open_store(args.store)
    if args.videos:
        samples = suite_scores.in_folder(args.videos, args.suite, args.model, mine, store)
    else:
        samples = manifests.read(args.samples, SuiteSampleRow)
        if strange := {row.model for row in samples} - {args.model}:
            raise UserError(f"{args.samples}: has videos of {', '.join(sorted(strange))}, not of {args.model} alone")
    ratio = prompts.ratio_of(stage.geometry.width, stage.geometry.height)
    setting = Setting(args.python, args.weights, run_file.current().device, store, tuple(stage.static), ratio)
    manifests.write(args.out, suite_scores.score(stage, args.model, mine, samples, images, setting), SuiteScoreRow)


if __name__ == "__main__":
    errors.run(main)
