"""What is seen of a video in one pass over it, small: its shots, by PySceneDetect or TransNetV2, and what frames show.

ffmpeg decodes the chosen stream at the normalised rate: PySceneDetect would choose a stream by itself, and so a cut's
frame number is the number that cutting uses.
"""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode
from scenedetect.detector import SceneDetector

from regdpo.config import schema
from regdpo.core.packaged import weights_file
from regdpo.data import bars
from regdpo.data.bars import NONE, Bars
from regdpo.data.cut import longest_step, normalised, scaled_size
from regdpo.data.decode import Damage, Decoding, Kept
from regdpo.data.dissolve import Transitions
from regdpo.data.fingerprint import fingerprint, look
from regdpo.data.picture import Format, Picture
from regdpo.data.video import NEAR, PLACES, BrokenVideo, Probe, formats

if TYPE_CHECKING:
    from regdpo.data.transnet import TransNet

SHORT_SIDE = 144
"""Pixels in which a video is seen: PySceneDetect would scale to about as much by itself."""

BESIDE = 2
"""Frames between where two signs of a change of format are seen."""

READABLE = 0.9
"""Least share of the announced duration that has to be readable."""


@dataclass(frozen=True)
class Shot:
    """Frames [start, end) at the normalised rate, away from cuts by the margin."""

    start: int
    end: int
    fingerprint: str  # what it looks like (regdpo/data/fingerprint.py)
    bars: Bars = NONE  # beside its picture, in pixels of the source as it is shown

    @classmethod
    def remembered(cls, values: dict[str, Any]) -> "Shot":
        """A shot from what ``asdict`` made of it."""
        return cls(**{**values, "bars": Bars(**values["bars"])})

    @property
    def frames(self) -> int:
        return max(0, self.end - self.start)


@dataclass(frozen=True)
class Part:
    """Frames that follow each other and have one format."""

    start: int  # number of the first
    times: list[float]  # seconds at which it can be looked at; none where the clock does not go on steadily
    format: Format | None  # None: no keyframe tells

    @classmethod
    def remembered(cls, values: dict[str, Any]) -> "Part":
        """A part from what ``asdict`` made of it."""
        told = values["format"]
        format_ = told and Format(**{**told, "picture": Picture(**told["picture"])})
        return cls(values["start"], values["times"], format_)


@dataclass(frozen=True)
class Seen:
    """A video as the pass over it saw it. Frames are counted at the normalised rate."""

    shots: list[Shot]  # in order
    damage: list[Damage]  # frames that are not whole, in order
    looks: np.ndarray  # uint8 (N, 8, 8): ``fingerprint.look`` of each frame
    shown: np.ndarray  # int (N,): number of the source's frame that each shows
    times: np.ndarray  # float (N,): seconds of that frame by the source's clock
    parts: list[Part]  # in order; one, if the format does not change


def watch(path: str | Path, source: Probe, clips: schema.Clips, part: int = 0, kept: Kept | None = None) -> Seen:
    """See a video's chosen stream.

    Args:
        path: the video.
        source: its probe, for the part.
        clips: rate, limits, and of shots: detector, threshold, gradual transitions, the gap that ends one, and frames
            dropped at both sides of a cut (not at the video's ends).
        part: of the frames of one format, in order: which of them the shots are of. All others are only counted.
        kept: where the frames are kept in another size.

    Raises:
        BrokenVideo: ffmpeg fails or reaches a limit, the file is truncated, or no frame is whole.
    """
    size = scaled_size(source, 2, 2, SHORT_SIDE)
    decoding = normalised(path, source, size, clips, watched=True, kept=kept)
    network = _network(clips.shots)
    detector, transitions = _detector(clips.shots), Transitions()
    looks, black, cuts = [], array("i"), []
    for number, planes in enumerate(decoding.frames()):
        frame = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
        if network:
            network.add(frame)
        else:
            cuts += detector.process_frame(FrameTimecode(number, clips.fps), frame)
        luma = planes[: len(planes) * 2 // 3]
        if clips.shots.gradual:
            transitions.add(luma)
        black.extend(bars.see(luma))
        looks.append(look(planes))
    total = len(looks)
    if not total:
        raise BrokenVideo(f"no frame can be decoded ({_last_error(decoding)})")
    mixed = transitions.spans()
    if network:
        told = network.transitions(clips.shots.threshold, clips.shots.gradual)
        numbers = [start for start, end in told if start == end]
        mixed = _joined([*mixed, *((start, end) for start, end in told if start < end)])
    else:
        cuts += detector.post_process(FrameTimecode(total - 1, clips.fps))
        numbers = [cut.frame_num for cut in cuts]
    times = np.array(decoding.log.times)[decoding.shown]
    steps = np.diff(times)
    jumps = (np.flatnonzero((steps < 0) | (steps > longest_step(clips))) + 1).tolist()
    seconds = max(decoding.log.end, float(times.max()) + 1 / clips.fps) - source.start
    if source.duration and seconds < READABLE * source.duration:
        raise BrokenVideo(f"truncated: {seconds:.1f} of {source.duration:.1f} s can be read")
    begin = int(np.searchsorted(decoding.shown, decoding.log.begin()))
    if begin == total:
        raise BrokenVideo(f"no frame is whole ({_last_error(decoding)})")
    parts = _parts(decoding, times, formats(path, source, clips.limits))
    if part >= len(parts):
        raise BrokenVideo("its format does not change there when it is read again")
    edges = [it.start for it in parts]
    apart = _apart(
        numbers,
        [*jumps, *edges[1:]],
        mixed,
        max(begin, edges[part]),
        [*edges, total][part + 1],
    )
    margin = clips.shots.margin
    spans = [(a + margin * (a > begin), b - margin * (b < total)) for a, b in apart]
    seen = np.array(black).reshape(-1, bars.SEEN)
    found = [it.in_source(size, source.width, source.height) for it in bars.find(seen, spans)]
    shots = [
        Shot(start, end, fingerprint(looks[start:end], clips.fps), beside)
        for (start, end), beside in zip(spans, found, strict=True)
    ]
    return Seen(shots, _damage(decoding), np.stack(looks), decoding.shown, times, parts)


def _network(shots: schema.Shots) -> "TransNet | None":
    if shots.detector != "transnetv2":
        return None
    from regdpo.data.transnet import TransNet

    return TransNet(weights_file("clips.shots.weights", shots.weights))


def _detector(shots: schema.Shots) -> SceneDetector:
    """No shot is too short to be told apart."""
    if shots.detector == "content":
        return ContentDetector(min_scene_len=1, **({} if shots.threshold is None else {"threshold": shots.threshold}))
    return AdaptiveDetector(
        min_scene_len=1, **({} if shots.threshold is None else {"adaptive_threshold": shots.threshold})
    )


def _apart(
    cuts: list[int], jumps: list[int], transitions: list[tuple[int, int]], begin: int, total: int
) -> list[tuple[int, int]]:
    """Frames [start, end) between cuts, jumps of the clock and transitions.

    A cut seen beside a jump is that jump, and what is seen in a transition is that transition.
    """
    seen = [cut for cut in cuts if not any(abs(cut - jump) <= 1 for jump in jumps)]
    edges = [edge for edge in {*seen, *jumps} if not any(start <= edge <= end for start, end in transitions)]
    between = sorted([*transitions, *((edge, edge) for edge in edges)])
    starts, ends = [begin, *(end for _, end in between)], [*(start for start, _ in between), total]
    found = [(max(start, begin), min(end, total)) for start, end in zip(starts, ends, strict=True)]
    return [(start, end) for start, end in found if start < end]


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, those that meet as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _parts(decoding: Decoding, times: np.ndarray, formats: list[tuple[float, Format]]) -> list[Part]:
    """Where the format changes: where keyframes say so, or where ffmpeg made its filters anew.

    Args:
        decoding: the pass.
        times: of its frames, in seconds.
        formats: of keyframes, each with the seconds of the first that has it, in the order of decoding.
    """
    known: list[tuple[int, Format]] = []
    own, ahead = np.array(decoding.log.times), 0
    for seconds, format_ in formats:
        there = np.flatnonzero(np.abs(own[ahead:] - seconds) < NEAR)
        ahead += int(there[0]) if there.size else 0
        if there.size or not known:  # of some AVI files the passes tell different times
            known.append((int(np.searchsorted(decoding.shown, ahead)), format_))
    told = [first for first, _ in known[1:] if all(abs(first - seam) > BESIDE for seam in decoding.seams)]
    starts = sorted({0, *told, *decoding.seams})
    steady = bool((np.diff(times) >= 0).all())
    found = []
    for start, end in zip(starts, [*starts[1:], len(times)], strict=True):
        if start < end:
            told_by = next((it for first, it in reversed(known) if first <= start + BESIDE), None)
            first, last = float(times[start]), float(times[end - 1])
            seen = [first + share * (last - first) for share in PLACES[1:]] if steady else []
            found.append(Part(start, seen, told_by))
    return found


def _damage(decoding: Decoding) -> list[Damage]:
    """From frames of the decoder to frames at the normalised rate."""
    found = []
    for one in decoding.log.damage():
        start, end = np.searchsorted(decoding.shown, [one.start, one.end]).tolist()
        if end > start:
            found.append(Damage(start, end, one.reason))
    return found


def _last_error(decoding: Decoding) -> str:
    return decoding.log.errors[-1] if decoding.log.errors else "ffmpeg gives no reason"
