"""Caption the accepted clips of one shard; or write empty text files to fill in, beside a page that shows the videos.

python scripts/captions.py --config config/config.yaml --clips clips.parquet --shard 0/1 --out captions.parquet
python scripts/captions.py --config my.yaml --write-templates my-captions     # once the clips are made
"""

import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pyarrow.compute as pc

from regdpo.config import command_line, run_file, schema, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.digests import shard_of
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.core.store import Store
from regdpo.data import footage
from regdpo.data.captioner_registry import CAPTIONERS
from regdpo.stages.captions import caption_shard, told


def main() -> None:
    parser = command_line.parser(__doc__, out=False)
    parser.add_argument("--clips", help="the manifest of clips; for templates the default is the workflow's")
    parser.add_argument("--shard", type=command_line.shard, metavar="I/N", help="which part, by video: 0/8 .. 7/8")
    parser.add_argument(
        "--write-templates",
        type=Path,
        metavar="FOLDER",
        help="write an empty text file there for every video that has none, and captions.html, which shows the videos",
    )
    arguments = parser.parse_args()
    if arguments.write_templates:
        templates = import_module("regdpo.data.caption_templates")  # by name: it shapes no caption, nor their digest
        settings = schema.load(arguments.config)
        clips = accepted(arguments.clips or Path(settings.paths.results, "clips.parquet"))
        root = None
        with suppress(UserError):  # the clips show themselves, if smaller
            root = footage.footage_root(settings.videos.root)
        store, limits = Store(settings.paths.store), settings.clips.limits
        for line in templates.write(arguments.write_templates, clips, store, root, limits):
            print(line)
        return
    if not (arguments.clips and arguments.shard and arguments.out):
        parser.error("--clips, --shard and --out are needed (or --write-templates)")
    stage = stage_inputs.read(stage_inputs.CaptionsStage, arguments.config)
    index, shards = arguments.shard
    clips = manifests.read_where(
        arguments.clips,
        ClipRow,
        status=lambda status: status == "accepted",
        source=lambda source: shard_of(source, shards) == index,
    )
    sources = [] if CAPTIONERS[stage.captions.source].model else names(arguments.clips)
    store = run_file.open_store(arguments.store)
    server = stage_inputs.read(stage_inputs.CaptionServerStage, arguments.config).server
    rows = caption_shard(stage, clips, store, sources, lambda: accepted(arguments.clips), server)
    manifests.write(arguments.out, rows, CaptionRow)
    if line := told(rows):
        print(line, file=sys.stderr)


def names(manifest: str | Path) -> list[str]:
    """The videos of accepted clips."""
    table = manifests.read_table(manifest, ClipRow, ["source", "status"])
    return list(table["source"].filter(pc.equal(table["status"], "accepted")).unique().to_pylist())


def accepted(manifest: str | Path) -> list[ClipRow]:
    return [clip for clip in manifests.read(manifest, ClipRow) if clip.status == "accepted"]


if __name__ == "__main__":
    errors.run(main)
