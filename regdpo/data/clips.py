"""The clips stage: real videos in, normalised clips and a reason for every rejection out.

A video belongs to one shard by the hash of its path. Each shard finds shots, cuts every shot into windows of time and
space, measures the clips and writes their rows. What was found out about a video, and what was cut and measured of a
span, is remembered in the store.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from imageio_ffmpeg import get_ffmpeg_version

from regdpo import config
from regdpo.data import cut, quality, video
from regdpo.data.scenes import Shot, find_shots
from regdpo.errors import UserError
from regdpo.progress import track
from regdpo.provenance import DigestCache, code_digest, file_digest, text_digest, versions
from regdpo.stages import ClipsStage
from regdpo.store import Store
from regdpo.tables import ClipRow


@dataclass(frozen=True)
class Source:
    """A video that can be cut."""

    path: Path
    name: str  # below videos.root
    digest: str
    probe: video.Probe
    rate: float  # bits of the file a second
    shots: list[Shot]

    def row(self, clip_id: str, shot: int, **values: Any) -> ClipRow:
        """A row with all that the source and the shot say."""
        return ClipRow(
            clip_id=clip_id,
            source=self.name,
            source_digest=self.digest,
            source_pixels=self.probe.width * self.probe.height,
            source_rate=self.rate,
            stream=self.probe.index,
            conversion=self.probe.picture.conversion,
            shot=shot,
            shot_frames=self.shots[shot].frames,
            **values,
        )


@dataclass(frozen=True)
class Span:
    """A stretch of time of one shot, from which one clip a crop window is cut."""

    source: Source
    shot: int
    start: int  # first frame, counted from the shot's first


def source_digests(videos: config.Videos, cache: DigestCache) -> dict[str, str]:
    """SHA-256 of every video to use, by its path below the root; empty where ``video.refusal`` says not to open it.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    root = video.footage_root(videos.root)
    digests = {}
    for name in video.list_videos(videos):
        try:
            digests[name] = "" if video.refusal(root, name) else cache.digest(root / name)
        except OSError as error:
            raise UserError(f"{root / name}: {error.strerror}; mend that or name it in videos.exclude") from None
    return digests


def shard_of(name: str, shards: int) -> int:
    """The shard a video belongs to; it depends on its own path alone."""
    return int(hashlib.sha256(os.fsencode(name)).hexdigest()[:15], 16) % shards


def cut_shard(stage: ClipsStage, digests: dict[str, str], index: int, count: int, store: Store) -> list[ClipRow]:
    """Cut the clips of one shard into the store.

    Args:
        stage: the stage's configuration.
        digests: of all videos, from ``source_digests``.
        index: the shard.
        count: number of shards.
        store: where clips go, and what is remembered of earlier runs.

    Returns:
        One row a clip; one rejected row for a video that is broken and for a shot that is too short.

    Raises:
        UserError: the store lies among the videos.
        OSError: ENOSPC, the disk is full.
    """
    root = video.footage_root(stage.videos.root)
    for name in digests:
        if (root / name).is_relative_to(store.root.resolve()):
            raise UserError(f"{root / name}: lies in the store; name the store's folder in videos.exclude")
    rows: list[ClipRow] = []
    spans: list[Span] = []
    for name in track([name for name in digests if shard_of(name, count) == index], "videos"):
        if not digests[name]:
            told = video.shown(name)
            reason = f"unusable: {video.refusal(root, name) or 'was no file that can be opened when this began'}"
            rows.append(ClipRow(clip_id=_id(told), status="rejected", reason=reason, source=told, source_digest=""))
            continue
        try:
            source = _examine(root / name, name, digests[name], stage.clips, store)
        except video.BrokenVideo as error:
            reason = f"{error.kind}: {error}"
            rows.append(
                ClipRow(clip_id=_id(name), status="rejected", reason=reason, source=name, source_digest=digests[name])
            )
            continue
        for number, shot in enumerate(source.shots):
            starts = range(0, shot.frames - stage.clips.frames + 1, stage.clips.stride or stage.clips.frames)
            spans += [Span(source, number, start) for start in starts]
            if not starts:
                reason = f"short: the shot has {shot.frames} frames, a clip takes {stage.clips.frames}"
                rows.append(source.row(_id(name, f"s{number:03}"), number, status="rejected", reason=reason))
    for span in track(spans, "clips"):
        rows += _span_rows(span, stage.clips, store)
    return rows


def summary(rows: list[ClipRow]) -> list[str]:
    """One line for the accepted clips and one for each kind of rejection, with counts."""
    kinds = Counter(row.reason.split(":")[0] for row in rows if row.status == "rejected")
    accepted = [row for row in rows if row.status == "accepted"]
    lines = [f"{len(accepted)} clips accepted, of {len({row.source for row in accepted})} videos"]
    for kind, number in sorted(kinds.items()):
        first = min((row for row in rows if row.reason.split(":")[0] == kind), key=lambda row: row.clip_id)
        lines.append(f"{number} rejected as {kind} (such as {video.shown(first.source)}: {first.reason})")
    return lines


def _examine(path: Path, name: str, digest: str, clips: config.Clips, store: Store) -> Source:
    def look() -> dict[str, Any]:
        probe = video.probe(path)
        return {
            "probe": asdict(probe),
            "shots": [asdict(shot) for shot in find_shots(path, probe, clips.fps, clips.shots)],
        }

    settings = config.canonical({"fps": clips.fps, "shots": clips.shots.model_dump()})
    key = text_digest(digest, settings, _tools("regdpo.data.scenes"))
    found = _remembered(store, "shots", key, look)
    probe = video.probed(found["probe"])
    if probe.picture.hdr and clips.hdr == "reject":
        raise video.UnwantedVideo(f"{probe.picture.hdr} footage is rejected by clips.hdr")
    shots = [Shot(**shot) for shot in found["shots"]]
    seconds = (shots[-1].end / clips.fps) or 1.0
    rate = round(8 * path.stat().st_size / seconds, 1)
    return Source(path, name, digest, probe, rate, shots)


def _span_rows(span: Span, clips: config.Clips, store: Store) -> Iterator[ClipRow]:
    source, shot = span.source, span.source.shots[span.shot]
    scaled = cut.scaled_size(source.probe, clips.width, clips.height, clips.short_side)
    windows = cut.windows(scaled, clips.width, clips.height, clips.crops)
    first = shot.start + span.start
    place = {"start": span.start, "start_s": round(source.probe.start + first / clips.fps, 6)}
    name = f"s{span.shot:03}-f{span.start:06}"
    looks = {} if span.start else {"fingerprint": shot.fingerprint}
    try:
        cuts = _cut(source, first, scaled, windows, clips, store)
    except video.BrokenVideo as error:
        yield source.row(
            _id(source.name, name), span.shot, status="rejected", reason=f"broken: {error}", **place, **looks
        )
        return
    for number, (window, made) in enumerate(zip(windows, cuts, strict=True)):
        measures = quality.Measures(**made["measures"])
        reason = quality.reject_reason(measures, clips.filters)
        yield source.row(
            _id(source.name, f"{name}-c{number:02}"),
            span.shot,
            status="rejected" if reason else "accepted",
            reason=reason,
            **place,
            frames=clips.frames,
            fps=clips.fps,
            width=clips.width,
            height=clips.height,
            crop_x=window.x,
            crop_y=window.y,
            **asdict(measures),
            path=made["path"],
            sha256=made["sha256"],
            **(looks if number == 0 else {}),
        )


def _cut(
    source: Source,
    first: int,
    scaled: tuple[int, int],
    windows: list[cut.Window],
    clips: config.Clips,
    store: Store,
) -> list[dict[str, Any]]:
    """Path, sha256 and measures of the clip of each window, cut unless the store has them."""
    settings = clips.model_dump(include={"frames", "fps", "width", "height", "encode"})
    what = config.canonical({**settings, "stream": source.probe.number, "first": first, "scaled": scaled})
    key = text_digest(source.digest, what, _tools("regdpo.data.cut"))
    paths = [store.relative("clips", text_digest(key, f"{window.x},{window.y}"), ".mp4") for window in windows]

    def make() -> list[dict[str, Any]]:
        with ExitStack() as stack:
            files = [stack.enter_context(store.writing(path)) for path in paths]
            cut.cut(source.path, source.probe, first, scaled, dict(zip(windows, files, strict=True)), clips)
            made = []
            for path, file in zip(paths, files, strict=True):
                frames = video.read_frames(file)
                if len(frames) != clips.frames:
                    raise video.BrokenVideo(f"only {len(frames)} of {clips.frames} frames could be cut")
                measures = asdict(quality.measure(frames))
                made.append({"path": path, "sha256": file_digest(file), "measures": measures})
            return made

    known = text_digest(key, *paths, _tools("regdpo.data.quality"))
    return _remembered(store, "cuts", known, make, paths)


def _remembered(store: Store, kind: str, key: str, make: Callable[[], Any], needs: list[str] | None = None) -> Any:
    """What ``make`` returned for the key, now or in an earlier run, as long as the files that it names are there."""
    path = store.relative(kind, key, ".json")
    file = store.resolve(path)
    if file.exists() and all(store.resolve(needed).exists() for needed in needs or []):
        return json.loads(file.read_text())
    value = make()
    with store.writing(path) as temporary:
        temporary.write_text(config.canonical(value))
    return value


@cache
def _tools(module: str) -> str:
    used = versions("av", "numpy", "opencv-python-headless", "scenedetect-headless")
    return text_digest(get_ffmpeg_version(), used, code_digest(module))


def _id(name: str, part: str = "") -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(name).stem.lower()).strip("-")[:40] or "video"
    return "-".join(filter(None, [slug, text_digest(name)[:8], part]))
