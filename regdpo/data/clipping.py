"""Measuring and cutting the clips of one video. What was found out about it, and what was measured and cut of a span,
is remembered in the store, so that other thresholds are a matter of what was measured."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from imageio_ffmpeg import get_ffmpeg_version

from regdpo.config import schema
from regdpo.core.code_digest import code_digest
from regdpo.core.digests import canonical, file_digest, text_digest
from regdpo.core.environment import versions
from regdpo.core.packaged import weights_file
from regdpo.core.rows import ClipRow, Geometry
from regdpo.core.store import Store
from regdpo.data import buckets, cut, filters, video
from regdpo.data.bars import NONE, Bars
from regdpo.data.decode import Damage, Kept
from regdpo.data.notes import recall, remember
from regdpo.data.registry import FILTERS
from regdpo.data.shots import SHORT_SIDE, Part, Shot, watch

PARTS = 1
"""Of one format each, that are used of a video; each costs two passes over it. More than the first come out right, but
on a machine under load a pass over a later one may lose frames, and the same video has to give the same clips."""

KEPT = 2**30
"""Bytes of scaled frames of a video that are kept between finding its shots and cutting them, so that it is decoded
once. A longer one is decoded twice."""

ROOM = 4
"""How many times as many bytes have to be free where they are kept."""


@dataclass(frozen=True)
class Source:
    """A video that can be cut, or of one whose format changes a part of one format."""

    path: Path
    name: str  # below videos.root
    digest: str
    probe: video.Probe
    rate: float  # bits of the file a second
    shots: list[Shot]
    damage: list[Damage]
    seen: Path  # what the shot pass saw, frame by frame
    part: int
    earlier: int  # shots of the parts before
    kept: Kept | None = None  # its frames, as large as most of its clips will want them

    def row(self, clip_id: str, shot: int, **values: Any) -> ClipRow:
        """A row with all that the source and the shot say."""
        bars, (width, height) = self.shots[shot].bars, self.picture(shot)
        return ClipRow(
            clip_id=clip_id,
            source=self.name,
            source_digest=self.digest,
            source_pixels=width * height,
            **{f"bar_{side}": pixels for side, pixels in asdict(bars).items()},
            source_rate=self.rate,
            stream=self.probe.index,
            conversion=self.probe.picture.conversion,
            shot=self.earlier + shot,
            shot_frames=self.shots[shot].frames,
            **values,
        )

    def picture(self, shot: int) -> tuple[int, int]:
        """Width and height of a shot's picture, without bars."""
        return self.shots[shot].bars.inside(self.probe.width, self.probe.height)


@dataclass(frozen=True)
class Span:
    """A stretch of time of one shot, from which one clip a crop window is cut."""

    source: Source
    shot: int
    start: int  # first frame, counted from the shot's first
    geometry: Geometry  # of its clips
    leads: bool  # whether it is the first of its shot, and tells what that looks like

    @property
    def first(self) -> int:
        """First frame, counted from the video's first."""
        return self.source.shots[self.shot].start + self.start

    @property
    def bars(self) -> Bars:
        """Beside its picture, in pixels of the source."""
        return self.source.shots[self.shot].bars


def examine(path: Path, name: str, digest: str, clips: schema.Clips, store: Store) -> list[Source | str]:
    """A video in parts of one format each, in order. In the place of one that cannot be used is the reason why."""
    found: list[Source | str] = []
    first: dict[str, Any] | None = None
    parts, earlier = 1, 0
    while len(found) < min(parts, PARTS):
        part = len(found)
        try:
            told, seen, kept = _seen(path, digest, part, first, clips, store)
            if first is None:
                first, parts = told, len(told["parts"])
            probe = video.probed(told["probe"])
            shots = [Shot.remembered(shot) for shot in told["shots"]]
            if not clips.remove_bars:
                shots = [replace(shot, bars=NONE) for shot in shots]
            earlier += len(shots)
            if probe.picture.hdr and clips.hdr == "reject":
                raise video.UnwantedVideo(f"{probe.picture.hdr} footage is rejected by clips.hdr")
        except video.BrokenVideo as error:
            after = ""
            if first and part:
                changed = Part.remembered(first["parts"][part]).format
                after = f"after its format changes{f' to {changed}' if changed else ''}: "
            found.append(f"{error.kind}: {after}{error}")
            continue
        damage = [Damage(**damage) for damage in told["damage"]]
        rate = round(8 * path.stat().st_size * clips.fps / told["frames"], 1)
        found.append(Source(path, name, digest, probe, rate, shots, damage, seen, part, earlier - len(shots), kept))
    if parts > PARTS:
        following = Part.remembered(first["parts"][PARTS]).format if first else None
        named = f" to {following}" if following else ""
        found.append(f"broken: its format changes{named}; what follows is not used")
    return found


def _seen(
    path: Path, digest: str, part: int, first: dict[str, Any] | None, clips: schema.Clips, store: Store
) -> tuple[dict[str, Any], Path, Kept | None]:
    """What was found out about a part of a video, the file of what was seen frame by frame, and its frames, if they
    were seen just now and are not too many.

    Args:
        path: the video.
        digest: of it.
        part: which; the first tells where the others are.
        first: what was found out about the first.
        clips: the settings.
        store: where both are kept.

    Raises:
        BrokenVideo: the part cannot be used.
    """
    shots = clips.shots.model_dump(exclude={"weights"})
    settings = canonical({"fps": clips.fps, "shots": shots, "part": part})
    key = text_digest(digest, settings, _tools("regdpo.data.shots"), _network(clips.shots))
    frames, told_in = store.relative("shots", key, ".npz"), store.relative("shots", key, ".json")
    known = recall(store, told_in)
    if known is not None and store.resolve(frames).exists() and known["seen"] == file_digest(store.resolve(frames)):
        return known, store.resolve(frames), None
    if first is None:
        probe = video.probe(path, clips.limits)
    else:
        here = Part.remembered(first["parts"][part])
        if here.format is None:
            raise video.BrokenVideo("no keyframe tells what follows; make a file of each part")
        probe = video.probe_part(path, video.probed(first["probe"]), here.format, here.times, clips.limits)
    kept = _room(probe, clips)
    seen = watch(path, probe, clips, part, kept)
    with store.writing(frames) as temporary:
        np.savez_compressed(temporary, looks=seen.looks, shown=seen.shown, times=seen.times)
        whole = file_digest(temporary)
    told = {
        "seen": whole,
        "frames": len(seen.looks),
        "probe": asdict(probe),
        "parts": [asdict(it) for it in seen.parts],
        "shots": [asdict(shot) for shot in seen.shots],
        "damage": [asdict(damage) for damage in seen.damage],
    }
    remember(store, told_in, told)
    return told, store.resolve(frames), kept if kept and kept.holds(len(seen.looks)) else None


def _room(probe: video.Probe, clips: schema.Clips) -> Kept | None:
    """A place for the frames of a video in the size that most of its clips will want; none for too many."""
    geometry = buckets.choose(clips.geometries, probe.width, probe.height)
    if geometry is None or not probe.duration:
        return None
    width, height = cut.scaled_size(probe, geometry.width, geometry.height, clips.short_side)
    most = KEPT // (width * height * 3 // 2)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if probe.duration * clips.fps > most or width * height > clips.limits.pixels or free < ROOM * KEPT:
        return None
    return Kept((width, height), most)


def video_rows(spans: list[Span], clips: schema.Clips, store: Store) -> Iterator[list[ClipRow]]:
    """The rows of each span of one video. What the store does not have is measured and cut in one pass over it for
    each size of picture, and of bars beside it."""
    alike: dict[tuple[int, int, Bars], list[Span]] = {}
    for span in spans:
        alike.setdefault((span.geometry.width, span.geometry.height, span.bars), []).append(span)
    for those in alike.values():
        yield from _rows_of_one_size(those, clips, store)


def _rows_of_one_size(spans: list[Span], every: schema.Clips, store: Store) -> Iterator[list[ClipRow]]:
    """The rows of spans of one video whose clips have one size of picture, with the same bars beside it."""
    source, clips = spans[0].source, every.only(spans[0].geometry)
    probe, bars = source.probe, spans[0].bars
    scaled = cut.scaled_size(probe, clips.width, clips.height, clips.short_side, bars)
    beside = bars.scaled(scaled[0] / probe.width, scaled[1] / probe.height)
    windows = cut.windows(scaled, clips.width, clips.height, clips.crops, beside)
    with np.load(source.seen) as arrays:
        looks, shown, times = arrays["looks"], arrays["shown"], arrays["times"]
    pictures = 2 if source.probe.picture.fields else 1
    missing: dict[int, Cuts] = {}
    for span in spans:
        those = slice(span.first, span.first + span.geometry.frames)
        upto = looks[source.shots[span.shot].start : those.stop]
        cuts = Cuts(span, scaled, windows, every.only(span.geometry), store, round(float(times[span.first]), 6), upto)
        reason = _damaged(those, source.damage)
        reason = reason or filters.repeated(shown[those], times[those], pictures, clips.fps, clips.filters)
        if reason:
            yield [cuts.rejected(reason)]
        elif (rows := cuts.known()) is not None:
            yield rows
        else:
            missing[span.first] = cuts
    try:
        wanted = {first: cuts.span.geometry.frames for first, cuts in missing.items()}
        kept = source.kept if source.kept and source.kept.size == scaled else None
        what = (source.path, source.probe, wanted, scaled, windows, clips, kept)
        for first, taken in cut.spans(*what) if missing else ():
            cuts = missing.pop(first)
            other = None
            if taken.looks is not None:
                seen = looks[first : first + len(taken.looks)]
                other = filters.first_other(taken.looks, seen, min(SHORT_SIDE, *scaled))
            if other is not None:
                yield [
                    cuts.rejected(f"frames: frame {other} of the clip is not what was seen there when shots were found")
                ]
                continue
            try:
                yield cuts.make(taken.cuts)
            except video.BrokenVideo as error:
                yield [cuts.rejected(f"broken: {error}")]
    except video.BrokenVideo as error:
        for cuts in missing.values():
            yield [cuts.rejected(f"broken: {error}")]


@dataclass(frozen=True)
class Cuts:
    """The clips of one span, one a crop window: in the store, or to be cut."""

    span: Span
    scaled: tuple[int, int]  # of the frame that is cropped
    windows: list[cut.Window]
    clips: schema.Clips
    store: Store
    seconds: float  # of the first frame, by the source's clock
    looks: np.ndarray  # of the frames of its shot, up to its own last

    @property
    def place(self) -> str:
        """A key of their frames, before they are encoded."""
        settings = self.clips.model_dump(include={"frames", "fps", "width", "height"})
        settings["gap"] = self.clips.shots.gap
        source = self.span.source
        what = {**settings, "stream": source.probe.number, "first": self.span.first, "scaled": self.scaled}
        what["part"] = source.part
        return text_digest(source.digest, canonical(what), _tools("regdpo.data.cut"))

    @property
    def key(self) -> str:
        """The same, as they are encoded."""
        return text_digest(self.place, canonical(self.clips.encode.model_dump()))

    @property
    def enlarged(self) -> float:
        """How many times larger a scaled frame is than the source's; the shape may differ by a pixel."""
        probe = self.span.source.probe
        return min(self.scaled[0] / probe.width, self.scaled[1] / probe.height)

    @property
    def paths(self) -> list[str]:
        """Of the clips, in the store."""
        return [self.store.relative("clips", text_digest(self.key, f"{w.x},{w.y}"), ".mp4") for w in self.windows]

    @property
    def written(self) -> str:
        """The SHA-256 of those that were encoded, in the store."""
        return self.store.relative("cuts", self.key, ".json")

    @property
    def measured(self) -> str:
        """What was measured of them, in the store."""
        modules = {filters.__name__, *(it.module for it in FILTERS.values() if not it.weights)}
        what = map(str, (*self.windows, self.span.bars, self.span.start))
        key = text_digest(self.place, *what, _tools(*sorted(modules)))
        return self.store.relative("measures", key, ".json")

    def known(self) -> list[ClipRow] | None:
        """The rows, if the store has what was measured, and each accepted clip as it was written."""
        measures, written = recall(self.store, self.measured), recall(self.store, self.written) or {}
        if measures is None or any(not self._is_whole(path, written) for path in self._accepted(measures)):
            return None
        return self._rows(measures, written)

    def make(self, taken: list[np.ndarray]) -> list[ClipRow]:
        """The same. What the store does not have is measured or written now, from what was kept of the span
        (``cut.Taken.cuts``): only accepted clips are encoded.

        Raises:
            BrokenVideo: ffmpeg fails.
            OSError: ENOSPC, the disk is full.
        """
        measures, written = recall(self.store, self.measured), recall(self.store, self.written) or {}
        if measures is None:
            measures = [self._measure(window, planes) for window, planes in zip(self.windows, taken, strict=True)]
            remember(self.store, self.measured, measures)
        accepted = self._accepted(measures)
        missing = [path for path in accepted if not self._is_whole(path, written)]
        with ExitStack() as stack:
            for path, planes in zip(self.paths, taken, strict=True):
                if path in missing:
                    file = stack.enter_context(self.store.writing(path))
                    cut.write(file, planes, self.clips)
                    if (frames := video.count_frames(file)) != self.clips.frames:
                        raise video.BrokenVideo(f"only {frames} of {self.clips.frames} frames could be written")
                    written[path] = file_digest(file)
        if missing:
            remember(self.store, self.written, written)
        return self._rows(measures, written)

    def _measure(self, window: cut.Window, planes: np.ndarray) -> dict[str, Any]:
        """Scores and a small picture of the clip of a window, from its planes of yuv420p."""
        width, height = self.clips.width, self.clips.height
        lumas = planes[:, : width * height].reshape(-1, height, width)
        picture = cut.thumbnail(planes[len(planes) // 2], width, height)
        source = self.span.source
        wide, high = source.picture(self.span.shot)
        bits = source.rate / max(1.0, wide * high * source.probe.fps)
        scores = filters.scores(filters.Look(lumas, self.clips.fps, self.enlarged, bits, self.looks))
        return {"x": window.x, "y": window.y, "scores": scores, "picture": picture}

    def _accepted(self, measures: list[dict[str, Any]]) -> list[str]:
        """The paths of clips that no filter rejects."""
        limits = self.clips.filters
        return [
            path
            for path, one in zip(self.paths, measures, strict=True)
            if not filters.reject_reason(one["scores"], limits, self.clips.frames == 1)
        ]

    def _is_whole(self, path: str, written: dict[str, str]) -> bool:
        """Whether a clip lies in the store as it was written."""
        file = self.store.resolve(path)
        return path in written and file.exists() and file_digest(file) == written[path]

    def _rows(self, measures: list[dict[str, Any]], written: dict[str, str]) -> list[ClipRow]:
        """A row a clip, accepted or rejected by what was measured."""
        rows = []
        for number, (window, path, one) in enumerate(zip(self.windows, self.paths, measures, strict=True)):
            reason = filters.reject_reason(one["scores"], self.clips.filters, self.clips.frames == 1)
            values = {
                "frames": self.clips.frames,
                "fps": self.clips.fps,
                "width": self.clips.width,
                "height": self.clips.height,
                "crop_x": window.x,
                "crop_y": window.y,
                "scores": one["scores"],
                "measured": self.measured,
            }
            if not reason:
                values |= {"path": path, "sha256": written[path]}
            rows.append(self._row(f"-c{number:02}", reason, **values))
        return rows

    def rejected(self, reason: str) -> ClipRow:
        """The row of a span that no clip is cut from."""
        return self._row("", reason)

    def _row(self, part: str, reason: str, **values: Any) -> ClipRow:
        span = self.span
        if span.leads and part in ("", "-c00"):
            values["fingerprint"] = span.source.shots[span.shot].fingerprint
        return span.source.row(
            clip_id(span.source.name, f"s{span.source.earlier + span.shot:03}-f{span.start:06}{part}"),
            span.shot,
            status="rejected" if reason else "accepted",
            reason=reason,
            start=span.start,
            start_s=self.seconds,
            **values,
        )


def _damaged(frames: slice, damage: list[Damage]) -> str:
    """Why a clip of these frames of the video is rejected; empty if they are whole."""
    for one in damage:
        start, end = max(one.start, frames.start), min(one.end, frames.stop)
        if start < end:
            return f"damaged: frames {start - frames.start} to {end - 1 - frames.start} of the clip ({one.reason})"
    return ""


def _network(shots: schema.Shots) -> str:
    """What finds the shots beside that: a network's weights and what runs them; empty if none does."""
    if shots.detector != "transnetv2":
        return ""
    return _weighed(weights_file("clips.shots.weights", shots.weights))


@cache
def _weighed(path: Path) -> str:
    return file_digest(path) + versions("torch")


@cache
def _tools(*modules: str) -> str:
    used = versions("av", "numpy", "opencv-python-headless", "scenedetect-headless")
    return text_digest(get_ffmpeg_version(), used, code_digest(*modules))


def clip_id(name: str, part: str = "") -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(name).stem.lower()).strip("-")[:40] or "video"
    return "-".join(filter(None, [slug, text_digest(name)[:8], part]))
