"""Render the candidates of a shard: several videos that a model makes of each prompt of a source of pairs."""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.rows import CandidateRow, CaptionRow, ClipRow, PlaceRow, rejections
from regdpo.models import device
from regdpo.models.spec import ModelFile
from regdpo.stages import candidates


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--source", required=True, help="its name in pairs.sources")
    parser.add_argument("--model", required=True, help="model.json of the model that makes them")
    parser.add_argument("--clips", nargs="?", help="manifest of the clips stage, whose captions are the prompts")
    parser.add_argument("--captions", nargs="?", help="manifest of the captions stage")
    parser.add_argument("--places", nargs="?", help="which clips become pairs, from the splits stage")
    parser.add_argument("--shard", type=command_line.shard, default=(0, 1), help="INDEX/COUNT; default: all")
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.CandidatesStage, args.config, args.source)
    store = run_file.open_store(args.store)
    if stage.candidates.prompts:
        prompts = candidates.of_file(stage, *args.shard)
    else:
        places = {row.clip_id: row for row in manifests.read(args.places, PlaceRow)}
        chosen = dict(candidates.limited(stage, [(name, "") for name in places]))
        clips = manifests.read_shard(args.clips, ClipRow, *args.shard, status="accepted")
        clips = [clip for clip in clips if clip.clip_id in chosen]
        captions = manifests.read(args.captions, CaptionRow, {clip.clip_id for clip in clips})
        prompts = candidates.of_clips(stage, clips, captions, places)
    rows = candidates.render(
        stage, ModelFile.read(args.model, store), prompts, store, device.pick(run_file.current().device)
    )
    manifests.write(args.out, rows, CandidateRow)
    kinds = [row.kind for row in rows if row.status == "rejected"]
    print(rejections(kinds, len(rows)) or f"{len(rows)} videos of {len(prompts)} prompts, none rejected")


if __name__ == "__main__":
    errors.run(main)
