"""What is seen of a video in one pass over it, small: its shots, by PySceneDetect, and frame by frame what it shows.

ffmpeg decodes the chosen stream at the normalised rate: PySceneDetect would choose a stream by itself, and so a cut's
frame number is the number that cutting uses.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode
from scenedetect.detector import SceneDetector

from regdpo import config
from regdpo.data.cut import longest_step, normalised, scaled_size
from regdpo.data.decode import Damage, Decoding
from regdpo.data.dissolve import Transitions
from regdpo.data.fingerprint import fingerprint, look
from regdpo.data.video import BrokenVideo, Probe

SHORT_SIDE = 144
"""Pixels in which a video is seen: PySceneDetect would scale to about as much by itself."""

READABLE = 0.9
"""Least share of the announced duration that has to be readable."""


@dataclass(frozen=True)
class Shot:
    """Frames [start, end) at the normalised rate, away from cuts by the margin."""

    start: int
    end: int
    fingerprint: str  # what it looks like (regdpo/data/fingerprint.py)

    @property
    def frames(self) -> int:
        return max(0, self.end - self.start)


@dataclass(frozen=True)
class Seen:
    """A video as the pass over it saw it. Frames are counted at the normalised rate."""

    shots: list[Shot]  # in order
    damage: list[Damage]  # frames that are not whole, in order
    looks: np.ndarray  # uint8 (N, 8, 8): ``fingerprint.look`` of each frame
    shown: np.ndarray  # int (N,): number of the source's frame that each shows
    times: np.ndarray  # float (N,): seconds of that frame by the source's clock


def watch(path: str | Path, source: Probe, clips: config.Clips) -> Seen:
    """See a video's chosen stream.

    Args:
        path: the video.
        source: its probe.
        clips: rate, limits, and of shots: detector, threshold, gradual transitions, the gap that ends one, and frames
            dropped at both sides of a cut (not at the video's ends).

    Raises:
        BrokenVideo: ffmpeg fails or reaches a limit, the file is truncated, or no frame is whole.
    """
    decoding = normalised(path, source, scaled_size(source, 2, 2, SHORT_SIDE), clips, watched=True)
    detector, transitions = _detector(clips.shots), Transitions()
    looks, cuts = [], []
    for number, planes in enumerate(decoding.frames()):
        frame = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
        cuts += detector.process_frame(FrameTimecode(number, clips.fps), frame)
        if clips.shots.gradual:
            transitions.add(planes[: len(planes) * 2 // 3])
        looks.append(look(planes))
    total = len(looks)
    if not total:
        raise BrokenVideo(f"no frame can be decoded ({_last_error(decoding)})")
    cuts += detector.post_process(FrameTimecode(total - 1, clips.fps))
    times = np.array(decoding.log.times)[decoding.shown]
    steps = np.diff(times)
    jumps = (np.flatnonzero((steps < 0) | (steps > longest_step(clips))) + 1).tolist()
    seconds = max(decoding.log.end, float(times.max()) + 1 / clips.fps) - source.start
    if source.duration and seconds < READABLE * source.duration:
        raise BrokenVideo(f"truncated: {seconds:.1f} of {source.duration:.1f} s can be read")
    begin = int(np.searchsorted(decoding.shown, decoding.log.begin()))
    if begin == total:
        raise BrokenVideo(f"no frame is whole ({_last_error(decoding)})")
    damage = _damage(decoding)
    if decoding.change is not None:
        jumps.append(decoding.change)
        reason = f"the format of the video changes to {decoding.log.change}; make a file of each part"
        damage = [one for one in damage if one.start < decoding.change]
        damage.append(Damage(decoding.change, total, reason))
    apart = _apart([cut.frame_num for cut in cuts], jumps, transitions.spans(), begin, total)
    margin = clips.shots.margin
    spans = [(a + margin * (a > begin), b - margin * (b < total)) for a, b in apart]
    shots = [Shot(start, end, fingerprint(looks[start:end], clips.fps)) for start, end in spans]
    return Seen(shots, damage, np.stack(looks), decoding.shown, times)


def _detector(shots: config.Shots) -> SceneDetector:
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
