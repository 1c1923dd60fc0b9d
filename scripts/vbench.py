"""Score samples with VBench's dimensions that need no weights, in VBench's own environment.

python scripts/vbench.py --config config/config.yaml --samples samples.parquet --out vbench.parquet
"""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import SampleRow, ScoreRow
from regdpo.evaluate import vbench


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--samples", required=True, help="the manifest of samples")
    default = run_file.current().vbench
    parser.add_argument("--python", default=default, help="interpreter of VBench's environment; default: %(default)s")
    arguments = parser.parse_args()

    stage = stage_inputs.read(stage_inputs.VBenchStage, arguments.config)
    samples = manifests.read(arguments.samples, SampleRow)
    run, store = run_file.current(), run_file.open_store(arguments.store)
    manifests.write(arguments.out, vbench.score(stage, arguments.python, run.device, samples, store), ScoreRow)


if __name__ == "__main__":
    errors.run(main)
