"""One pass of ffmpeg over a video: frames out of a pipe, and from its log which of them are whole.

Nothing is sought: indexes of containers are not exact or not there, and clocks jump. Frame ``k`` of a pass is frame
``k`` of every other pass over the same file.
"""

import os
import re
import select
import subprocess
from array import array
from bisect import bisect
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from tempfile import TemporaryFile
from threading import Thread
from time import monotonic
from typing import Any

import ffmpeg
import numpy as np

from regdpo.config import schema
from regdpo.data.video import BrokenVideo, check_end, start, too_slow

THREADS = 2
"""Of a decoder, on every machine: it decides where among the frames errors are told. Each takes memory for frames of
its own."""
LATE = 32
"""Frames by which a decoder's pictures come after what is said of them: reordering, threads, packets that wait."""

BESIDE = re.compile(rb"\bSEI\b|dts to muxer", re.IGNORECASE)
"""Errors in what accompanies the pictures, and of what we do with them."""

_ERROR = re.compile(rb"(?:\[[^\]]* @ \w+\] )*\[(error|fatal|warning(?=\] Skipping invalid))\] (.*)")
_DECODED = re.compile(
    rb"decoder -> pts:(-?\d+|NOPTS) .* duration:(\d+) .*keyframe:([01]) frame_type:(\d+) time_base:(\d+)/(\d+)"
)
_PACKET = re.compile(rb"demuxer\+ffmpeg -> \S+ type:video pkt_pts:(-?\d+|NOPTS)")
_CORRUPT = re.compile(rb"corrupt input packet in stream (\d+)")
_B_FRAME = 3  # AV_PICTURE_TYPE_B


@dataclass(frozen=True)
class Damage:
    """Frames [start, end) that are not what was filmed, and what ffmpeg says of them."""

    start: int
    end: int
    reason: str


class Log:
    """What ffmpeg's log (``-debug_ts``) says of the frames that its decoder gives out, in the order of showing.

    Args:
        stream: index in the container of the stream that is decoded.
        keys: seconds of the keyframes, for decoders that do not tell.
    """

    def __init__(self, stream: int, keys: Iterable[float] = ()):
        self.stream = stream
        self._told_keys = {round(key * 1000) + near for key in keys for near in (-1, 0, 1)}
        self.times = array("d")  # seconds of each frame
        self.end = 0.0  # seconds: until when the last of them is shown
        self.errors: deque[str] = deque(maxlen=20)
        self.fatal: str | None = None
        self._stamps = array("q")  # the times in units of the stream
        self._keys = array("q")  # numbers of the keyframes
        self._kinds = bytearray()  # AV_PICTURE_TYPE of each frame
        self._corrupt: list[int] = []  # numbers of frames
        self._packets: list[tuple[int, int]] = []  # damaged ones: frames known then, time in units of the stream
        self._said: list[tuple[int, str]] = []  # errors: frames known then, text
        self._packet_is_corrupt = False

    def line(self, line: bytes) -> None:
        """Take the next line in."""
        if b"[info]" in line:
            if found := _DECODED.search(line):
                self._decoded(*found.groups())
            elif self._packet_is_corrupt and (found := _PACKET.search(line)):
                self._packet_is_corrupt = False
                if found[1] == b"NOPTS":
                    self._say("corrupt packet")
                else:
                    self._packets.append((len(self.times), int(found[1])))
        elif b"corrupt decoded frame" in line:
            if self._corrupt[-1:] != [len(self.times)]:
                self._corrupt.append(len(self.times))
        elif found := _CORRUPT.search(line):
            self._packet_is_corrupt = int(found[1]) == self.stream
        elif (found := _ERROR.match(line)) and not BESIDE.search(line):
            text = found[2].decode(errors="replace").strip()
            self.errors.append(text)
            self._say(text)
            if found[1] == b"fatal":
                self.fatal = self.fatal or text

    def damage(self) -> list[Damage]:
        """Frames that are not whole, and those that may be predicted from them: up to a keyframe. In order; none lies
        within another.

        It is the next one for a packet that the container says is damaged. Where the decoder itself met an error,
        more of them may follow, so it is the next one but those of the ``LATE`` frames after it.
        """
        found = [self._from(number, number + LATE, "corrupt frame") for number in self._corrupt]
        for known, stamp in self._packets:
            near = range(known, min(known + 4 * LATE, len(self.times)))
            number = next((number for number in near if self._stamps[number] >= stamp), None)
            number = known if number is None else number
            found.append(self._from(number, number + 1, "corrupt packet"))
        edges = np.zeros(len(self.times) + 1, np.int64)
        for one in found:
            edges[one.start] += 1
            edges[one.end] -= 1
        exact = np.cumsum(edges) > 0
        for known, text in self._said:
            if known and not exact[known : known + LATE].any():
                found.append(Damage(known - 1, self._key(known + LATE), text))
        whole: list[Damage] = []
        for one in sorted(found, key=lambda one: (one.start, -one.end)):
            if one.end > max(one.start, whole[-1].end if whole else 0):
                whole.append(one)
        return whole

    def begin(self) -> int:
        """The first whole frame: a stream may start between keyframes. One without any is left to its decoder."""
        return self._keys[0] if self._keys and any(known == 0 for known, _ in self._said) else 0

    def _say(self, text: str) -> None:
        """Remember an error; of those at the same frame the first, since a broken video may have any number."""
        if not self._said or self._said[-1][0] != len(self.times):
            self._said.append((len(self.times), text))

    def _decoded(self, stamp: bytes, duration: bytes, key: bytes, kind: bytes, one: bytes, of: bytes) -> None:
        last = self._stamps[-1] if self._stamps else -1
        self._stamps.append(last + 1 if stamp == b"NOPTS" else int(stamp))
        self._kinds.append(int(kind) & 255)
        time = self._stamps[-1] * int(one) / int(of)
        if key == b"1" or round(time * 1000) in self._told_keys:
            self._keys.append(len(self.times))
        self.times.append(time)
        self.end = max(self.end, self.times[-1] + int(duration) * int(one) / int(of))

    def _from(self, number: int, trusted: int, reason: str) -> Damage:
        """From a frame, and the B-frames shown before it, to the first keyframe that is trusted."""
        first = number
        while first > max(0, number - LATE) and self._kinds[first - 1] == _B_FRAME:
            first -= 1
        return Damage(first, self._key(trusted), reason)

    def _key(self, number: int) -> int:
        """The first keyframe from a number on, or the end."""
        place = bisect(self._keys, number - 1)
        return self._keys[place] if place < len(self._keys) else len(self.times)


class Kept:
    """Frames of a pass in a second size, in a file of this machine that has no name and goes with this object.

    Args:
        size: width and height.
        most: frames that there may be.
    """

    def __init__(self, size: tuple[int, int], most: int):
        self.size, self.most = size, most
        self.file = TemporaryFile(buffering=0)  # noqa: SIM115

    def holds(self, count: int) -> bool:
        """Whether there are so many frames, and no others."""
        width, height = self.size
        return os.fstat(self.file.fileno()).st_size == count * (height * 3 // 2 * width)

    def frame(self, number: int) -> np.ndarray:
        """One of them, as ``Decoding.frames`` gives them."""
        width, height = self.size
        planes = np.empty((height * 3 // 2, width), np.uint8)
        got = os.preadv(self.file.fileno(), [planes.data], number * planes.nbytes)
        assert got == planes.nbytes, "less was kept than was seen"
        return planes


class Decoding:
    """A pass: iterate over ``frames`` once, then ask for the rest.

    Args:
        stream: the filtered stream, of ffmpeg-python.
        index: of the stream in the container.
        size: width and height of its frames.
        limits: what the pass may take.
        watched: read the whole log, for ``shown``, ``seams``, ``log.times`` and ``log.damage``.
        keys: as ``Log``'s.
        beside: the same frames in another size, and where they are kept.
    """

    def __init__(
        self,
        stream: Any,
        index: int,
        size: tuple[int, int],
        limits: schema.Limits,
        watched: bool = False,
        keys: Iterable[float] = (),
        beside: tuple[Any, Kept] | None = None,
    ):
        self.log = Log(index, keys)
        self.shown = np.zeros(0, np.int64)  # of each frame: number of the decoder's frame that it shows
        self.seams: list[int] = []  # the first frames that come out of filters which ffmpeg made anew
        self._stream, self._size, self._limits, self._watched = stream, size, limits, watched
        self._beside = beside
        self._waited = 0.0
        self._many = False

    def frames(self) -> Iterator[np.ndarray]:
        """The frames, each uint8 (3 H / 2, W): the planes of yuv420p. What is left of the pass when the caller stops
        is not decoded.

        Raises:
            BrokenVideo: ffmpeg fails or reaches a limit.
            UserError: somebody killed ffmpeg.
        """
        width, height = self._size
        level = "repeat+level+info" if self._watched else "repeat+level+error"
        with TemporaryFile() as numbers:
            written = {"stats_enc_pre": f"/dev/fd/{numbers.fileno()}", "stats_enc_pre_fmt": "{ni} {pts}"}
            raw = {"format": "rawvideo", "pix_fmt": "yuv420p"}
            raw["fps_mode"] = "passthrough"  # filters that are made anew count from 0 again: no frame is late
            output = self._stream.output("pipe:", **raw, **(written if self._watched else {}))
            files = [numbers.fileno()]
            if self._beside:
                stream, kept = self._beside
                files.append(kept.file.fileno())
                other = stream.output(f"/dev/fd/{files[-1]}", **raw, **{"frames:v": kept.most})
                output = ffmpeg.merge_outputs(output, other)
            options = ["-nostdin", "-nostats", "-loglevel", level, *(["-debug_ts"] if self._watched else [])]
            pipes = {"stdout": subprocess.PIPE, "bufsize": 0, "pass_fds": files}
            with start(output, options, self._limits, **pipes) as process:
                reader = Thread(target=self._read_log, args=(process,))
                reader.start()
                try:
                    for _ in range(self._limits.frames):
                        planes = np.empty((height * 3 // 2, width), np.uint8)
                        if not self._fill(process, planes):
                            process.wait()
                            break
                        yield planes
                    else:
                        self._many = True
                finally:
                    process.kill()
                    reader.join()
            if self._many:
                raise BrokenVideo(f"has more than {self._limits.frames} frames (clips.limits.frames)")
            fatal = [self.log.fatal] if self.log.fatal else []
            check_end(process.returncode, [*self.log.errors, *fatal])
            numbers.seek(0)
            self.shown, times = np.array(numbers.read().split(), np.int64).reshape(-1, 2).T
            self.seams = (np.flatnonzero(np.diff(times) <= 0) + 1).tolist()

    def _fill(self, process: subprocess.Popen[bytes], planes: np.ndarray) -> bool:
        """Read the next frame; False at the end."""
        pipe, view = process.stdout, memoryview(planes.data).cast("B")
        assert pipe is not None
        while view:
            begin = monotonic()
            ready, _, _ = select.select([pipe], [], [], max(0.0, self._limits.seconds - self._waited))
            self._waited += monotonic() - begin
            if not ready:
                raise too_slow(self._limits)
            got = pipe.readinto(view)  # type: ignore[attr-defined]
            if not got:
                return False
            view = view[got:]
        return True

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        pipe = BufferedReader(process.stderr)  # type: ignore[type-var]
        while line := pipe.readline(10_000):
            self.log.line(line)
            if len(self.log.times) > self._limits.frames:
                self._many = True
                process.kill()
