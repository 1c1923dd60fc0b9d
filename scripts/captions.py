"""Caption the accepted clips of one shard.

python scripts/captions.py --config config/config.yaml --clips clips.parquet --shard 0/1 --out captions.parquet
"""

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.digests import shard_of
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.stages.captions import caption_shard


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--clips", required=True, help="the manifest of clips")
    parser.add_argument(
        "--shard", required=True, type=command_line.shard, metavar="I/N", help="which part, by video: 0/8 .. 7/8"
    )
    arguments = parser.parse_args()

    stage = stage_inputs.read(stage_inputs.CaptionsStage, arguments.config)
    index, shards = arguments.shard
    accepted = [clip for clip in manifests.read(arguments.clips, ClipRow) if clip.status == "accepted"]
    clips = [clip for clip in accepted if shard_of(clip.source, shards) == index]
    sources = {clip.source for clip in accepted}
    store = run_file.open_store(arguments.store)
    manifests.write(arguments.out, caption_shard(stage, clips, store, sources), CaptionRow)


if __name__ == "__main__":
    errors.run(main)
