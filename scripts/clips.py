"""Find shots in one shard of the videos, cut them into normalised clips and measure those.

Clips go to the store; the manifest has a row for each, with the reason where it was rejected. For example

    python scripts/clips.py --config config/config.yaml --shard 0/1 --out clips.0.parquet
"""

from pathlib import Path

from regdpo import errors, provenance, stages, tables
from regdpo.data import clips
from regdpo.store import DIGESTS, Store


def main() -> None:
    parser = stages.parser(__doc__)
    parser.add_argument("--shard", type=stages.shard, default=(0, 1), help="INDEX/COUNT; default: all videos")
    parser.add_argument("--digests", type=Path, help="cache of the videos' digests; default: in the store")
    args = parser.parse_args()
    stage = stages.read(stages.ClipsStage, args.config)
    cache = provenance.DigestCache(args.digests or Path(args.store) / DIGESTS)
    digests = clips.source_digests(stage.videos, cache)
    cache.save()
    tables.write(args.out, clips.cut_shard(stage, digests, *args.shard, Store(args.store)), tables.ClipRow)


if __name__ == "__main__":
    errors.run(main)
