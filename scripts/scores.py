"""Measure a model's samples, or its weights, or real footage, by one of the measures that regdpo/evaluate/measures.py
declares.

    python scripts/scores.py --config my.yaml --measure proxies --samples samples.parquet --out proxies.parquet
    python scripts/scores.py --config my.yaml --measure held_out --model model.json --latents latents.parquet --out ...
"""

from typing import Any

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import CandidateRow, LatentRow, PairRow, SampleRow, ScoreRow
from regdpo.evaluate.measures import MEASURES, Given, Measure
from regdpo.models.spec import ModelFile
from regdpo.stages import scores


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--measure", required=True, choices=[name for name, it in MEASURES.items() if it.reads != "answers"]
    )
    parser.add_argument("--samples", help="manifest of the samples stage, for measures of samples")
    parser.add_argument("--candidates", help="in its place: manifest of the candidates stage")
    parser.add_argument("--pairs", help="manifest of the pairs stage, for measures that read captions")
    parser.add_argument("--model", help="model.json, for measures of a model")
    parser.add_argument("--latents", help="manifest of the latents stage, for measures of a model")
    run = run_file.current()
    command_line.vbench(parser, suites=False)
    args = parser.parse_args()
    measure = MEASURES[args.measure]
    options = (
        ("samples", *(["pairs"] if measure.captions else [])) if measure.reads == "samples" else ("model", "latents")
    )
    candidates = manifests.read(args.candidates, CandidateRow) if args.candidates else []
    accepted = [row for row in candidates if row.status == "accepted"]
    for option in () if args.candidates else options:
        if getattr(args, option) is None:
            raise UserError(f"--{option} is missing, which {args.measure} reads")
    store = run_file.open_store(args.store)
    given = Given(
        store,
        run.device,
        stage=_stage(measure, args.config),
        samples=tuple(manifests.read(args.samples, SampleRow) if args.samples else [row.sample() for row in accepted]),
        model=ModelFile.read(args.model, store) if args.model else None,
        latents=tuple(manifests.read(args.latents, LatentRow)) if args.latents else (),
        python=args.python,
        weights=str(args.weights),
        pairs={
            row.clip_id: row
            for row in (manifests.read(args.pairs, PairRow) if args.pairs else [row.prompt() for row in accepted])
        },
    )
    manifests.write(args.out, scores.score(args.measure, given), ScoreRow)


def _stage(measure: Measure, config: str) -> Any:
    if measure.stage:
        return stage_inputs.read(getattr(stage_inputs, measure.stage), config)
    return stage_inputs.read(stage_inputs.JudgeStage, config, measure.on) if measure.on else None


if __name__ == "__main__":
    errors.run(main)
