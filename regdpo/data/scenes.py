"""Shots of a video, by PySceneDetect on a small proxy.

ffmpeg makes the proxy from the chosen stream at the normalised rate: PySceneDetect would choose a stream by itself, and
so a cut's frame number is the number that cutting uses.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import av
from scenedetect import AdaptiveDetector, ContentDetector, SceneManager, open_video

from regdpo import config
from regdpo.data.cut import write_proxy
from regdpo.data.fingerprint import fingerprint
from regdpo.data.video import BrokenVideo, Probe, frame_rate

SHORT_SIDE = 144
"""Pixels of the proxy: PySceneDetect would scale to about as much by itself."""

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


def find_shots(path: str | Path, source: Probe, fps: float, shots: config.Shots) -> list[Shot]:
    """The shots of a video's chosen stream, in order.

    Args:
        path: the video.
        source: its probe.
        fps: the normalised rate that frames are counted at.
        shots: detector, threshold, and frames dropped at both sides of a cut (not at the video's ends).

    Raises:
        BrokenVideo: ffmpeg fails, or the file is truncated.
        OSError: ENOSPC, no space for the proxy.
    """
    with TemporaryDirectory(prefix="regdpo-") as folder:
        proxy = Path(folder) / "proxy.mp4"
        write_proxy(path, source, proxy, fps, SHORT_SIDE)
        total, cuts = _cuts(proxy, shots)
        seconds = total / float(frame_rate(fps))
        if source.duration and seconds < READABLE * source.duration:
            raise BrokenVideo(f"truncated: {seconds:.1f} of {source.duration:.1f} s can be read")
        edges = [0, *cuts, total]
        spans = [(a + shots.margin * (a > 0), b - shots.margin * (b < total)) for a, b in itertools.pairwise(edges)]
        prints = _fingerprints(proxy, spans, fps)
    return [Shot(start, end, looks) for (start, end), looks in zip(spans, prints, strict=True)]


def _cuts(proxy: Path, shots: config.Shots) -> tuple[int, list[int]]:
    """Number of frames, and the first frames of all shots but the first. No shot is too short to be told apart."""
    kind, name = {"content": (ContentDetector, "threshold"), "adaptive": (AdaptiveDetector, "adaptive_threshold")}[
        shots.detector
    ]
    options = {} if shots.threshold is None else {name: shots.threshold}
    manager = SceneManager()
    manager.add_detector(kind(min_scene_len=1, **options))
    total = manager.detect_scenes(open_video(str(proxy), backend="pyav"))
    return total, [start.frame_num for start, _ in manager.get_scene_list()[1:]]


def _fingerprints(proxy: Path, spans: list[tuple[int, int]], fps: float) -> list[str]:
    found = []
    with av.open(str(proxy)) as container:
        lumas, read = (frame.to_ndarray(format="gray") for frame in container.decode(video=0)), 0
        for start, end in spans:
            if end <= start:  # the margin leaves nothing
                found.append("")
                continue
            found.append(fingerprint(itertools.islice(lumas, start - read, end - read), fps))
            read = end
    return found
