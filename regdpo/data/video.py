"""Video files: finding them, choosing the stream, reading and writing frames.

ffmpeg (the program that imageio-ffmpeg carries) encodes; PyAV probes and reads.
"""

import errno
import math
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import ffmpeg
import numpy as np
from av.stream import Disposition
from imageio_ffmpeg import get_ffmpeg_exe

from regdpo.config import schema
from regdpo.core import portable
from regdpo.core.errors import UserError
from regdpo.core.processes import bounded
from regdpo.core.store import Store
from regdpo.data.picture import FIELDS, Format, Picture, field_order, from_log, normal, pixel_aspect

RGB = Picture(matrix="gbr")
PLACES = (0.0, 0.25, 0.5, 0.75)
"""Shares of a video's length at which it is looked for fields, ..."""
LOOKED_AT = 30
"""... in so many frames each, ..."""
HD = 1088
"""... up to so many rows: larger formats know no fields."""
DECODERS = {"vp9": "libvpx-vp9"}
"""ffmpeg's decoders that tell when a frame's data do not end where they should; its own say nothing."""
TRANSPARENT = {"vp8": "libvpx", **DECODERS}
"""Those that also decode WebM's transparency; its own decode the pictures without it."""
KEYLESS = {"libvpx", "libvpx-vp9"}
"""Those that do not tell which frames are keyframes."""
HEADERS = {"h264": 7, "hevc": 33, "mpeg2video": 0xB3}
"""ffmpeg's numbers of the units that tell a pixel's aspect."""
CODE = "cmov+mmx+mmxext+sse+sse2+sse3+ssse3+sse4.1+sse4.2+avx+fma3+avx2+bmi1+bmi2"
"""What ffmpeg is to take of a processor for portable numbers; its scaler in plain C gives other pictures."""
NEAR = 1e-3
"""Seconds between what two passes call the time of a frame."""
FORMATS = ",".join(sorted(av.formats_available - {"concat", "dash", "hls", "imf", "sdp"}))
"""ffmpeg's formats that hold pictures: the others name files and hosts in their place, which would be opened."""
LIMITS = schema.Limits()
PACKETS = 1000
"""Packets that may come before a stream's first frame, some 30 s."""
ECHOES = re.compile(
    "^frame=|Conversion failed!$|Nothing was written into output file|Could not open encoder before EOF|"
    "Task finished with error code|Terminating thread with return code"
)
"""What ffmpeg says after the line that tells what went wrong."""
av.logging.set_libav_level(av.logging.PANIC)  # what matters comes as BrokenVideo


class BrokenVideo(Exception):
    """One line: why a file cannot be used."""

    kind = "broken"


class UnwantedVideo(BrokenVideo):
    """One line: why a file is not to be used."""

    kind = "unwanted"


@dataclass(frozen=True)
class Probe:
    """The chosen video stream of a file."""

    index: int  # in the container
    number: int  # among its video streams: ffmpeg's v:NUMBER
    width: int  # as shown: square pixels, turned upright
    height: int
    fps: float  # average
    duration: float | None  # seconds, where the container tells
    start: float  # seconds from the container's start to the stream's first frame
    rotation: int  # degrees by which ffmpeg turns the frames before any filter
    picture: Picture = field(default_factory=Picture)


def probed(values: dict[str, Any]) -> Probe:
    """A probe from what ``asdict`` made of it."""
    return Probe(**{**values, "picture": Picture(**values["picture"])})


def probe(path: str | Path, limits: schema.Limits = LIMITS) -> Probe:
    """Choose one video stream: most pixels, then highest frame rate, then lowest index; no cover pictures.

    Raises:
        BrokenVideo: the file cannot be opened, holds no video, or its first frame cannot be decoded or is too large.
    """
    with _open(path) as container:
        stream = _choose(container)
        if stream.width * stream.height > limits.pixels:
            raise BrokenVideo(
                f"{stream.width}x{stream.height} is more than {limits.pixels} pixels (clips.limits.pixels)"
            )
        frame = _first_frame(container, stream, limits)
        number = container.streams.video.index(stream)
        seconds = (container.duration or 0) / av.time_base
        codec = stream.codec_context.codec.canonical_name
        decoder = (TRANSPARENT if stream.metadata.get("alpha_mode") == "1" else DECODERS).get(codec, "")
        log = _looked(path, number, Picture(decoder=decoder), [(0, 1)], [("showinfo",)], limits)
        if "] n:" not in log:
            raise BrokenVideo("no frame can be decoded")
        found = from_log(log, decoder)
        if aspects := _aspects(path, container, stream, limits):
            found = replace(found, aspect=aspects[0][1])
        times = sorted({share * seconds for share in PLACES})
        picture, width, height = _settled(path, number, found, frame.rotation, times, limits)
        start = float((stream.start_time or 0) * stream.time_base) - (container.start_time or 0) / av.time_base
        return Probe(
            index=stream.index,
            number=number,
            width=width,
            height=height,
            fps=float(stream.average_rate or 0),
            duration=float(stream.duration * stream.time_base) if stream.duration else None,
            start=max(0.0, start),
            rotation=frame.rotation,
            picture=picture,
        )


def formats(path: str | Path, source: Probe, limits: schema.Limits) -> list[tuple[float, Format]]:
    """The formats that the keyframes have one after another, each with the seconds of the first that has it.

    Raises:
        BrokenVideo: ffmpeg fails.
    """
    with _open(path) as container:
        aspects = _aspects(path, container, container.streams[source.index], limits)
    aspect: float | None = None
    decoder = Picture(decoder=source.picture.decoder)
    options = {"max_pixels": limits.pixels, "skip_frame": "nokey", "threads": 1, **reading(source.number, decoder)}
    video = ffmpeg.input(str(path), copyts=None, start_at_zero=None, **options)[f"v:{source.number}"]
    output = video.filter("showinfo", checksum=0).output("pipe:", format="null", fps_mode="passthrough")
    found: list[tuple[float, Format]] = []
    for told in re.split(r"(?=\] n: *\d+ pts:)", run(output, limits=limits, loglevel="info"))[1:]:
        time = re.match(r"\] n: *\d+ pts:.* pts_time:(\S+)", told)
        if time and time[1] != "NOPTS" and "color_trc:" in told:
            format_ = from_log(told, source.picture.decoder)
            there = (n for n, (seconds, _) in enumerate(aspects) if abs(seconds - float(time[1])) < NEAR)
            if (place := next(there, None)) is not None:
                aspect, aspects = aspects[place][1], aspects[place + 1 :]
            format_ = format_ if aspect is None else replace(format_, aspect=aspect)
            if not found or not format_.is_as(found[-1][1]):
                found.append((float(time[1]), format_))
    return found


def probe_part(
    path: str | Path, whole: Probe, found: Format, times: list[float], limits: schema.Limits = LIMITS
) -> Probe:
    """The chosen stream after its format changed.

    Args:
        path: the video.
        whole: the stream as it begins.
        found: what its frames say of themselves then.
        times: seconds at which they are looked at.
        limits: what ffmpeg may take.

    Raises:
        BrokenVideo: ffmpeg fails, or the pictures cannot be converted.
    """
    found = replace(found, picture=replace(found.picture, decoder=whole.picture.decoder))
    if found.width * found.height > limits.pixels:
        raise BrokenVideo(f"{found.width}x{found.height} is more than {limits.pixels} pixels (clips.limits.pixels)")
    picture, width, height = _settled(path, whole.number, found, whole.rotation, times, limits)
    return replace(whole, width=width, height=height, picture=picture)


def read_frames(path: str | Path) -> np.ndarray:
    """All frames of a video, uint8 RGB (F, H, W, 3), of the stream that ``probe`` chooses.

    Raises:
        BrokenVideo: the file cannot be opened or decoded, or holds no frames.
    """
    with _open(path) as container:
        chosen = _choose(container)
        chosen.thread_type = "AUTO"
        try:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(chosen)]
        except av.FFmpegError as error:
            raise BrokenVideo(f"cannot be decoded ({error.strerror})") from None
    if not frames:
        raise BrokenVideo("holds no frames")
    return np.stack(frames)


def count_frames(path: str | Path) -> int:
    """Frames of a clip that was just written, counted without decoding them.

    Raises:
        BrokenVideo: the file cannot be opened or holds no video.
    """
    with _open(path) as container:
        return sum(packet.size > 0 for packet in container.demux(_choose(container)))


def read_stored(store: Store, relative: str, sha256: str) -> np.ndarray:
    """All frames of a clip that a manifest names, uint8 RGB (F, H, W, 3).

    Raises:
        UserError: it is missing from the store, or its bytes are not those that the manifest names.
    """
    path = store.checked(relative, sha256)
    try:
        return read_frames(path)
    except BrokenVideo as error:
        raise store.damaged(relative, str(error)) from None


def write_frames(path: str | Path, frames: np.ndarray, fps: float, encode: schema.Encode) -> None:
    """Write uint8 RGB frames (F, H, W, 3) with even H and W exactly as clips are written.

    Raises:
        BrokenVideo: ffmpeg fails.
        OSError: ENOSPC, the disk is full.
    """
    count, height, width, _ = frames.shape
    layout = {"format": "rawvideo", "pix_fmt": "rgb24", "video_size": (width, height)}
    source = ffmpeg.input("pipe:", **layout, framerate=str(frame_rate(fps)))
    stream = normal(source.video, RGB, width, height)
    run(stream.output(str(path), **encoding(encode, count)), np.ascontiguousarray(frames, np.uint8).tobytes())


def encoding(encode: schema.Encode, frames: int) -> dict[str, Any]:
    """ffmpeg's output options for a clip of so many frames: what winners and losers share."""
    return {
        "format": "mp4",
        "frames:v": frames,
        "vcodec": "libx264",
        "preset": encode.preset,
        "crf": encode.crf,
        "threads": 1,
        "x264-params": "cpu-independent=1",  # else it weighs blocks by what the processor is quick at, and by estimates
        "fflags": "+bitexact",
        "flags:v": "+bitexact",
        "map_metadata": -1,
        "movflags": "+faststart",
    }


def frame_rate(fps: float) -> Fraction:
    """A rate as ffmpeg wants it: 29.97003 as 30000/1001."""
    return Fraction(fps).limit_denominator(1001)


def even(length: float) -> int:
    """The nearest even length, at least 2: 4:2:0 halves the sides."""
    return max(2, 2 * math.floor(length / 2 + 0.5))


def run(stream: Any, data: bytes | None = None, limits: schema.Limits | None = None, loglevel: str = "error") -> str:
    """Run ffmpeg, overwriting its outputs. Returns its log.

    Raises:
        BrokenVideo: it fails or reaches a limit; the reason is its last line.
        OSError: ENOSPC, the disk is full.
        UserError: somebody killed it, which says nothing about the video.
    """
    options = ["-loglevel", loglevel, *([] if data else ["-nostdin"])]
    with start(stream, options, limits, stdin=subprocess.PIPE if data else None) as process:
        try:
            _, log = process.communicate(data, timeout=limits.seconds if limits else None)
        except subprocess.TimeoutExpired:
            process.kill()
            assert limits is not None
            raise too_slow(limits) from None
    text = log.decode(errors="replace")
    check_end(process.returncode, text.strip().splitlines())
    return text


def start(
    stream: Any, options: list[str], limits: schema.Limits | None = None, **pipes: Any
) -> subprocess.Popen[bytes]:
    """Start ffmpeg. It ends with the thread that called this, overwrites its outputs, and goes on after any error."""
    code = ["-cpuflags", CODE] if portable.active() else []
    command = stream.global_args("-hide_banner", "-max_error_rate", "1", *code, *options).compile(
        cmd=get_ffmpeg_exe(), overwrite_output=True
    )
    prepare = bounded(limits.memory_mb if limits else None)
    return subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=prepare, **pipes)


def too_slow(limits: schema.Limits) -> BrokenVideo:
    return BrokenVideo(f"ffmpeg takes longer than {limits.seconds:g} s (clips.limits.seconds)")


def check_end(code: int, lines: list[str]) -> None:
    """See how ffmpeg ended, by its exit code and the last lines of its log.

    Raises:
        BrokenVideo: it failed; the reason is its last line.
        OSError: ENOSPC, the disk is full.
        UserError: somebody killed it, which says nothing about the video.
    """
    if code == 0:
        return
    if any(os.strerror(errno.ENOSPC) in line for line in lines):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if any(os.strerror(number) in line for line in lines for number in (errno.ENOMEM, errno.EAGAIN)):
        raise BrokenVideo("ffmpeg needs more memory than it may take (clips.limits.memory_mb)")
    reasons = [line for line in lines if not ECHOES.search(line)]
    asked = code == 255 and all("Immediate exit requested" in line for line in reasons)  # so ffmpeg heeds signals
    if asked or -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP):
        raise UserError("ffmpeg was killed, perhaps for want of memory: free some and give the same command again")
    raise BrokenVideo(f"ffmpeg: {reasons[-1] if reasons else f'exit code {code}'}")


def reading(number: int, picture: Picture) -> dict[str, Any]:
    """ffmpeg's input options: files alone are opened, and the right decoder decodes."""
    return {"protocol_whitelist": "file", **({f"c:v:{number}": picture.decoder} if picture.decoder else {})}


def keyframes(path: str | Path, index: int) -> list[float]:
    """Seconds from the container's start at which it says that a keyframe is shown.

    Args:
        path: the video.
        index: of the stream in the container.
    """
    found = []
    with _open(path) as container:
        begin = (container.start_time or 0) / av.time_base
        with suppress(av.FFmpegError):  # where the container ends in damage
            for packet in container.demux(container.streams[index]):
                if packet.is_keyframe and packet.pts is not None:
                    found.append(float(packet.pts * packet.time_base) - begin)
    return found


def _aspects(path: str | Path, container: Any, stream: Any, limits: schema.Limits) -> list[tuple[float, float]]:
    """Seconds and aspect of a pixel of each keyframe with a header; none if it does not change.

    ffmpeg gives all frames the aspect that it finds when it opens a file. Only of containers without an aspect of their
    own is the stream's the right one.
    """
    header = HEADERS.get(stream.codec_context.codec.canonical_name)
    if container.format.name not in ("mpegts", "mpeg") or header is None:
        return []
    options = {"protocol_whitelist": "file", "copyts": None, "start_at_zero": None}
    video = ffmpeg.input(str(path), **options)[f"v:{container.streams.video.index(stream)}"]
    filters = f"noise=drop=not(key),filter_units=pass_types={header},trace_headers"
    try:
        log = run(video.output("pipe:", **{"c:v": "copy", "bsf:v": filters, "format": "null"}), None, limits, "info")
    except BrokenVideo:  # of damage the decoder tells
        return []
    found = []
    for told in re.split(r"\] Packet: ", log)[1:]:
        values = {name: int(value) for name, value in re.findall(r"\] \d+ +(\w+) +[01]+ = (\d+)", told)}
        if time := re.match(r".* pts (-?\d+),", told):
            found.append((int(time[1]) * float(stream.time_base), pixel_aspect(values)))
    return found if len({aspect for _, aspect in found}) > 1 else []


def _settled(
    path: str | Path, number: int, found: Format, rotation: int, times: list[float], limits: schema.Limits
) -> tuple[Picture, int, int]:
    """The picture as ffmpeg gives it to its filters (cropped, turned), and its width and height in square pixels.

    Raises:
        BrokenVideo: ffmpeg fails, or the pictures cannot be converted.
    """
    picture, width, height = found.picture, found.width, found.height
    if min(width, height) < 2:
        raise BrokenVideo(f"its pictures are {width}x{height} pixels; 2x2 is the least that can be cut and scaled")
    if picture.unreadable:
        raise BrokenVideo(picture.unreadable)
    if times and min(width, height) <= HD:
        log = _looked(path, number, picture, [(time, LOOKED_AT) for time in times], FIELDS, limits)
        picture = replace(picture, fields=field_order(log, picture.fields))
    if times and picture.alpha:
        opaque = [("format", "rgba"), ("alphaextract",), ("showinfo",)]
        log = _looked(path, number, picture, [(time, LOOKED_AT) for time in times], opaque, limits)
        if not any(map(int, re.findall(r"mean:\[(\d+)", log))):  # a fourth byte without meaning
            picture = replace(picture, alpha="")
    if rotation % 180:  # what was the width is stretched
        return picture, even(width), even(height / found.aspect)
    return picture, even(width * found.aspect), even(height)


def _looked(
    path: str | Path,
    number: int,
    picture: Picture,
    places: list[tuple[float, int]],
    filters: Sequence[tuple[Any, ...]],
    limits: schema.Limits,
) -> str:
    """ffmpeg's log of filters over some frames from some times on, one run for each. Where a run ends with no frame, as
    after a seek to behind the last keyframe, ffmpeg now and then fails: that place tells nothing.

    Raises:
        BrokenVideo: it fails at the first frame of all.
    """
    options = {"max_pixels": limits.pixels, **reading(number, picture)}
    log = ""
    for time, frames in places:
        seek = {"ss": f"{time:.3f}", "noaccurate_seek": None} if time else {}
        stream = ffmpeg.input(str(path), **options, **seek)[f"v:{number}"]
        for name, *values in filters:
            stream = stream.filter(name, *values)
        try:
            log += run(stream.output("pipe:", format="null", **{"frames:v": frames}), limits=limits, loglevel="info")
        except BrokenVideo:
            if not time:
                raise
    return log


def _open(path: str | Path) -> Any:
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        return av.open(str(path), options=options, metadata_errors="replace")
    except av.ArgumentError as error:
        raise BrokenVideo(f"cannot be opened ({error.strerror}; lists of other files are not followed)") from None
    except av.FFmpegError as error:
        raise BrokenVideo(f"cannot be opened ({error.strerror})") from None


def _first_frame(container: Any, stream: Any, limits: schema.Limits) -> Any:
    """Packets of a stream that starts between keyframes do not count."""
    stream.codec_context.options = {"max_pixels": str(limits.pixels)}
    stream.thread_type = "NONE"
    reason = ""
    for number, packet in enumerate(container.demux(stream)):
        try:
            if frames := packet.decode():
                return frames[0]
        except av.FFmpegError as error:
            reason = f" ({error.strerror})"
        if number >= PACKETS:
            break
    raise BrokenVideo(f"the first frame cannot be decoded{reason}" if reason else "holds no frames")


def _choose(container: Any) -> Any:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise BrokenVideo("holds no video stream")
    streams = [s for s in streams if s.codec_context]
    if not streams:
        raise BrokenVideo(f"there is no decoder for its video ({container.format.name})")
    return min(streams, key=lambda s: (-s.width * s.height, -(s.average_rate or 0), s.index))
