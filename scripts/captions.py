"""Caption the accepted clips of one shard.

python scripts/captions.py --config config/config.yaml --clips clips.parquet --shard 0/1 --out captions.parquet
"""

from regdpo import errors, stages, tables
from regdpo.data.captions import caption_shard
from regdpo.data.clips import shard_of
from regdpo.store import Store
from regdpo.tables import CaptionRow, ClipRow


def main() -> None:
    parser = stages.parser(__doc__)
    parser.add_argument("--clips", required=True, help="the manifest of clips")
    parser.add_argument(
        "--shard", required=True, type=stages.shard, metavar="I/N", help="which part, by video: 0/8 .. 7/8"
    )
    arguments = parser.parse_args()

    stage = stages.read(stages.CaptionsStage, arguments.config)
    index, shards = arguments.shard
    accepted = [clip for clip in tables.read(arguments.clips, ClipRow) if clip.status == "accepted"]
    clips = [clip for clip in accepted if shard_of(clip.source, shards) == index]
    sources = {clip.source for clip in accepted}
    tables.write(arguments.out, caption_shard(stage, clips, Store(arguments.store), sources), CaptionRow)


if __name__ == "__main__":
    errors.run(main)
