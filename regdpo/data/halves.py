"""The halves of pairs that others made, brought to what clips are: the same rate, frames, size and encoder, from their
first frame on. Winner and loser go the same way."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from imageio_ffmpeg import get_ffmpeg_version

from regdpo.config import schema
from regdpo.core.code_digest import code_digest
from regdpo.core.digests import canonical, file_digest, text_digest
from regdpo.core.environment import versions
from regdpo.core.rows import Geometry
from regdpo.core.store import Store
from regdpo.data import buckets, cut, video
from regdpo.data.fingerprint import fingerprint
from regdpo.data.notes import recall, remember


@dataclass(frozen=True)
class Half:
    """A clip made of one half."""

    path: str
    """In the store."""
    sha256: str
    fingerprint: str
    """What it looks like, before it is cropped."""


def both(
    winner: tuple[Path, str], loser: tuple[Path, str], clips: schema.Clips, store: Store
) -> tuple[Half, Half, Geometry]:
    """Both halves in one size and length: of those that there are the one that suits the winner and that both fill.

    Args:
        winner: the file, and the digest of its bytes. loser: likewise.
        clips: what clips are. store: where the halves go.

    Raises:
        BrokenVideo: one cannot be used; the message begins with which.
    """
    frames = float("inf")
    picture = _probe("winner", winner[0], clips)
    while True:
        geometry = buckets.choose(clips.geometries, picture.width, picture.height, frames)
        if geometry is None:
            raise video.BrokenVideo(f"short: one half has less than {frames + 1:g} frames at {clips.fps:g} a second")
        one = clips.only(geometry)
        try:
            return _half("winner", *winner, one, store), _half("loser", *loser, one, store), geometry
        except Short:
            frames = geometry.frames - 1


def alone(winner: tuple[Path, str], clips: schema.Clips, store: Store) -> tuple[Half, Geometry]:
    """The same of a video that has no other half.

    Raises:
        BrokenVideo: it cannot be used.
    """
    half, _, geometry = both(winner, winner, clips, store)
    return half, geometry


class Short(video.BrokenVideo):
    """It has less frames than a clip."""


def _probe(which: str, path: Path, clips: schema.Clips) -> video.Probe:
    try:
        probe = video.probe(path, clips.limits)
    except video.BrokenVideo as error:
        raise video.BrokenVideo(f"{which}: {error.kind}: {error}") from None
    if probe.picture.hdr and clips.hdr == "reject":
        raise video.BrokenVideo(f"{which}: unwanted: {probe.picture.hdr} footage is rejected by clips.hdr")
    return probe


def _half(which: str, path: Path, digest: str, clips: schema.Clips, store: Store) -> Half:
    """The first frames of a video, cut to the middle of its picture."""
    settings = clips.model_dump(include={"frames", "fps", "width", "height", "short_side", "encode"})
    key = text_digest(digest, canonical(settings | {"gap": clips.shots.gap}), _tools())
    relative, note = store.relative("clips", key, ".mp4"), store.relative("cuts", key, ".json")
    kept = recall(store, note)
    file = store.resolve(relative)
    if kept and "short" in kept:
        raise Short(f"{which}: {kept['short']}")
    if kept and file.exists() and file_digest(file) == kept["sha256"]:
        return Half(relative, kept["sha256"], kept["fingerprint"])
    probe = _probe(which, path, clips)
    scaled = cut.scaled_size(probe, clips.width, clips.height, clips.short_side)
    windows = cut.windows(scaled, clips.width, clips.height, (1, 1))
    try:
        taken = next((taken for _, taken in cut.spans(path, probe, {0: clips.frames}, scaled, windows, clips)), None)
        assert taken is not None, "a pass that ends early raises"
        assert taken.looks is not None, "nothing was kept"
        with store.writing(relative) as temporary:
            cut.write(temporary, taken.cuts[0], clips)
            if (frames := video.count_frames(temporary)) != clips.frames:
                raise video.BrokenVideo(f"only {frames} of {clips.frames} frames could be written")
            sha256 = file_digest(temporary)
    except cut.EndsEarly:
        short = f"it has less than {clips.frames} frames at {clips.fps:g} a second"
        remember(store, note, {"short": short})
        raise Short(f"{which}: {short}") from None
    except video.BrokenVideo as error:
        raise video.BrokenVideo(f"{which}: {error.kind}: {error}") from None
    shown = fingerprint(taken.looks, clips.fps)
    remember(store, note, {"sha256": sha256, "fingerprint": shown})
    return Half(relative, sha256, shown)


@cache
def _tools() -> str:
    used = versions("av", "numpy", "opencv-python-headless")
    return text_digest(get_ffmpeg_version(), used, code_digest("regdpo.data.cut", "regdpo.data.fingerprint"))
