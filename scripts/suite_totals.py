"""What the scores of a suite come to: means by dimension, how many there are, and totals where none is missing."""

from regdpo.config import command_line, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import SuiteScoreRow
from regdpo.evaluate.suites import OF_PROMPTS
from regdpo.stages import suite_totals


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--suite", required=True, choices=OF_PROMPTS)
    parser.add_argument("--scores", required=True, help="manifest of all models and shards")
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.SuiteTotalsStage, args.config, args.suite)
    rows = manifests.read(args.scores, SuiteScoreRow)
    found = suite_totals.totals(stage, rows, list(dict.fromkeys(row.model for row in rows)))
    suite_totals.write(stage, found, suite_totals.intervals(stage, rows, found), args.out)
    print(suite_totals.text(stage, found))


if __name__ == "__main__":
    errors.run(main)
