"""Write the report: one self-contained page of verdicts with intervals, videos, curves, pairs and provenance, and its
content as JSON."""

from pathlib import Path

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors
from regdpo.report.gather import MANIFESTS, Files
from regdpo.stages import report

OF_FOOTAGE = ("clips", "captions")
LOCK = Path(__file__).resolve().parents[1] / "envs/regdpo.lock"


SHAPING = (
    *("clips", "merge_clips", "splits", "captions", "base", "negatives", "imports", "pairs", "halves", "latents"),
    *(
        "train",
        "samples",
        "scores",
        "suite_samples",
        "suite_scores",
        "suite_totals",
        "vae",
        "vae_totals",
        "merge",
        "report",
    ),
)
"""Scripts whose code shapes what the report says."""


def codes() -> dict[str, str]:
    """Of the workflow's run: what a stage is made of -> digest of that code; empty by hand."""
    return {name: it for name, it in sorted(run_file.current().codes.items()) if name.split()[0] in SHAPING}


def main() -> None:
    parser = command_line.parser(__doc__)
    for manifest in MANIFESTS:
        given = {"nargs": "?"} if manifest in OF_FOOTAGE else {"required": True}
        parser.add_argument(f"--{manifest}", type=Path, help=f"manifest of the {manifest} stage", **given)
    parser.add_argument(
        "--negatives", nargs="*", default=[], type=Path, help="the same of negatives, one per base model"
    )
    parser.add_argument("--imports", nargs="*", default=[], type=Path, help="manifests of pairs that others made")
    parser.add_argument("--suites", nargs="*", default=[], type=Path, help="totals of VBench's suites")
    parser.add_argument("--vae", nargs="?", type=Path, help="what autoencoders gave back of clips")
    parser.add_argument("--samples", required=True, nargs="+", type=Path, help="manifests of samples, one per model")
    parser.add_argument(
        "--models", required=True, nargs="+", type=Path, help="model.json of the bases and of every arm"
    )
    parser.add_argument("--content", required=True, type=Path, help="file for all that the page says, as JSON")
    parser.add_argument("--lock", default=LOCK, type=Path, help="lock file of the environment; default: %(default)s")
    args = parser.parse_args()
    files = Files(**{name: getattr(args, name) for name in Files.__dataclass_fields__})
    stage = stage_inputs.read(stage_inputs.ReportStage, args.config)
    report.write(stage, run_file.open_store(args.store), files, codes(), args.out, args.content)


if __name__ == "__main__":
    errors.run(main)
