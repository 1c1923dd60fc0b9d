"""Take from people's answers those that are about these samples, without the raters' names, and make scores of them."""

from pathlib import Path

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import AnswerRow, SampleRow, ScoreRow
from regdpo.stages import answers


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--samples", required=True, nargs="+", help="manifests of samples, one per model")
    parser.add_argument("--scores", required=True, type=Path, help="the manifest of scores to write")
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.AnswersStage, args.config)
    samples = [row for path in args.samples for row in manifests.read(path, SampleRow)]
    rows = answers.about(stage, samples)
    manifests.write(args.scores, answers.scores(stage, samples, rows, run_file.open_store(args.store)), ScoreRow)
    manifests.write(args.out, rows, AnswerRow)


if __name__ == "__main__":
    errors.run(main)
