"""Find shots in one shard of the videos, cut them into normalised clips and measure those.

Clips go to the store; the manifest has a row for each, with the reason where it was rejected. For example

    python scripts/clips.py --config config/config.yaml --shard 0/1 --out clips.0.parquet
"""

from pathlib import Path

from regdpo.config import command_line, run_file, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.digests import DigestCache
from regdpo.core.rows import ClipRow
from regdpo.core.store import DIGESTS
from regdpo.data import footage
from regdpo.stages import clips


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--shard", type=command_line.shard, default=(0, 1), help="INDEX/COUNT; default: all videos")
    parser.add_argument("--digests", type=Path, help="cache of the videos' digests; default: in the store")
    args = parser.parse_args()
    stage = stage_inputs.read(stage_inputs.ClipsStage, args.config)
    cache = DigestCache(args.digests or Path(args.store) / DIGESTS)
    digests = footage.source_digests(stage.videos, cache)
    cache.save()
    manifests.write(args.out, clips.cut_shard(stage, digests, *args.shard, run_file.open_store(args.store)), ClipRow)


if __name__ == "__main__":
    errors.run(main)
