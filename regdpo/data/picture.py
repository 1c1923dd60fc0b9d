"""What the decoded pictures of a video are, and the filters that make them progressive, opaque SDR in BT.709.

What a file does not say is assumed as players assume it; ``Picture.conversion`` tells what was assumed or changed.

Tone mapping puts HDR reference white (203 nits, ITU-R BT.2408) at SDR white and leaves what is darker than 95 % of it
as it is. Brighter light, up to 1000 nits, is compressed into the few levels above that; what is beyond is clipped.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

WHITE = 203
"""Nits of HDR reference white, which becomes SDR white: ITU-R BT.2408, table 1."""

PEAK = 1000
"""Nits from which highlights are clipped: HLG's nominal peak (BT.2100), and what PQ is mostly graded for."""

KNEE = 0.95
"""Share of white, in linear light, from which highlights are compressed."""

HDR = {"arib-std-b67": "HLG", "smpte2084": "PQ"}
"""Transfers that are tone-mapped."""

SDR = {
    *("bt709", "smpte170m", "smpte240m", "bt470m", "bt470bg", "bt2020-10", "bt2020-12"),
    *("iec61966-2-1", "iec61966-2-4", "bt1361e"),
}
"""Transfers that are shown alike and left alone."""

WIDE = {"bt2020": "BT.2020", "smpte431": "DCI-P3", "smpte432": "Display P3"}
"""Primaries that are converted. All others lie so near to BT.709's that players leave them alone."""

MATRICES = {"gbr", "bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc"}
"""Those that ffmpeg's scaler knows."""

MATRIX_OF = {"bt709": "bt709", "smpte431": "bt709", "smpte432": "bt709", "bt2020": "bt2020nc"}
"""The matrix that goes with primaries; BT.601's with all others."""

FLAGS = {"T": "tff", "B": "bff"}

UNTOLD = {"unknown", "reserved"}

SCALING = "bicubic+accurate_rnd+full_chroma_int+bitexact"


@dataclass(frozen=True)
class Picture:
    """Colours by ffmpeg's names, fields and transparency."""

    matrix: str = "bt709"  # gbr: the pixels are RGB
    primaries: str = "bt709"
    transfer: str = "bt709"
    assumed: bool = False  # the file does not tell the matrix
    fields: str = ""  # which comes first, tff or bff; empty: progressive
    alpha: str = ""  # straight or premultiplied; empty: opaque
    decoder: str = ""  # ffmpeg's, where the one that it takes by itself drops the transparency or tells of no damage

    @property
    def hdr(self) -> str:
        """HLG or PQ; empty for SDR."""
        return HDR.get(self.transfer, "")

    @property
    def conversion(self) -> str:
        """What is assumed or changed, in words; empty if nothing is."""
        matrix = {"bt709": "BT.709", "bt2020nc": "BT.2020"}.get(self.matrix, "BT.601")
        parts = [
            (self.assumed, f"{matrix} assumed"),
            (self.fields, "deinterlaced"),
            (self.alpha, "shown over black"),
            (self.hdr, f"tone-mapped from {self.hdr}"),
            (self.primaries in WIDE and not self.hdr, f"{WIDE.get(self.primaries)} to BT.709"),
            (self.transfer == "linear", "gamma for linear light"),
        ]
        return "; ".join(text for holds, text in parts if holds)

    @property
    def unreadable(self) -> str:
        """Why its colours cannot be converted; empty if they can."""
        if self.matrix not in MATRICES:
            return f"its colours cannot be converted (matrix {self.matrix})"
        if self.transfer not in {*SDR, *HDR, "linear"}:
            return f"its colours cannot be converted (transfer {self.transfer})"
        return ""


@dataclass(frozen=True)
class Format:
    """What may change within a video."""

    picture: Picture
    width: int  # in pixels, upright
    height: int
    aspect: float  # width of a pixel by its height
    pixels: str  # ffmpeg's name of the pixel format

    def __str__(self) -> str:
        colours = f"{self.picture.matrix}/{self.picture.primaries}/{self.picture.transfer}"
        aspect = "" if self.aspect == 1 else f", pixels {self.aspect:.4g} times as wide as high"
        return f"{self.width}x{self.height} {self.pixels} {colours}{aspect}"

    def is_as(self, other: "Format") -> bool:
        """Whether frames of both go through the same filters. The flag of fields changes from frame to frame."""
        return self == replace(other, picture=replace(other.picture, fields=self.picture.fields))


def matrix_for(width: int, height: int) -> str:
    """What players take for YUV whose matrix nobody tells: BT.709 from HD on, of either orientation, else BT.601."""
    return "bt709" if max(width, height) >= 1280 or min(width, height) > 576 else "smpte170m"


NAMES = (
    *("unknown", "reserved", "bt709", "bt470m", "bt470bg", "smpte170m", "smpte240m", "smpte428", "bt2020"),
    *("film", "smpte431", "smpte432", "ebu3213"),  # primaries
    *("linear", "log100", "log316", "iec61966-2-4", "bt1361e", "iec61966-2-1", "bt2020-10", "bt2020-12"),  # transfers
    *("smpte2084", "arib-std-b67"),
    *("gbr", "fcc", "ycgco", "ycgco-re", "ycgco-ro", "bt2020nc", "bt2020c", "smpte2085"),  # matrices
    *("chroma-derived-nc", "chroma-derived-c", "ictcp", "ipt-c2"),
    *("unspecified", "premultiplied", "straight"),  # alpha
)
"""As ffmpeg writes them (libavutil/pixdesc.c)."""

SAID = re.compile(
    r"\b(color_space|color_primaries|color_trc|alpha_mode):"
    rf"({'|'.join(sorted(NAMES, key=len, reverse=True))}|\S+)"
)
"""``showinfo`` writes its line in pieces; another thread may write between them: ``color_trc:unknownPacket``."""


def from_log(log: str, decoder: str = "") -> Format:
    """The format of a frame.

    Args:
        log: what ffmpeg's filter ``showinfo`` says of it.
        decoder: the decoder that has to be asked for.
    """
    shown = re.search(r"\] n: *\d+ .* fmt:(\S+) .*sar:(\d+)/(\d+) s:(\d+)x(\d+) i:(.)", log)
    said = dict(SAID.findall(log))
    assert shown, "ffmpeg's showinfo writes otherwise than is read here"
    pixels, across, down, width, height, order = shown.groups()
    matrix, primaries, transfer = said["color_space"], said["color_primaries"], said["color_trc"]
    if pixels == "pal8":
        matrix = "gbr"
    assumed = matrix in UNTOLD or (matrix == "gbr" and pixels.startswith("yuv"))
    if transfer in UNTOLD:
        transfer = "bt709"
    told = primaries not in UNTOLD
    if not told:
        primaries = "bt2020" if transfer in HDR or matrix == "bt2020nc" else "bt709"
    if assumed:
        wide = told or transfer in HDR
        matrix = MATRIX_OF.get(primaries, "smpte170m") if wide else matrix_for(int(width), int(height))
    alpha = {"premultiplied": "premultiplied"}.get(said["alpha_mode"], "straight") if "alpha_mode" in said else ""
    picture = Picture(matrix, primaries, transfer, assumed, FLAGS.get(order, ""), alpha, decoder)
    aspect = int(across) / int(down) if int(across) and int(down) else 1.0
    return Format(picture, int(width), int(height), aspect, pixels)


ASPECTS = "1:1 12:11 10:11 16:11 40:33 24:11 20:11 32:11 80:33 18:11 15:11 64:33 160:99 4:3 3:2 2:1"
"""Of a pixel, by its number from 1 on: ITU-T H.264, table E-1."""

SHOWN = {2: 4 / 3, 3: 16 / 9, 4: 2.21}
"""Of a whole picture, by its number: ITU-T H.262, table 6-3."""


def pixel_aspect(header: dict[str, int]) -> float:
    """Width of a pixel by its height, 1 where nothing is said.

    Args:
        header: values of an H.264 or HEVC sequence parameter set, or an MPEG-2 sequence header, by their names.
    """
    across, down, number = header.get("sar_width", 0), header.get("sar_height", 0), header.get("aspect_ratio_idc", 0)
    if across and down:
        return across / down
    if 0 < number <= len(ASPECTS.split()):
        across, down = map(int, ASPECTS.split()[number - 1].split(":"))
        return across / down
    if shown := SHOWN.get(header.get("aspect_ratio_information", 0)):
        return shown * header["vertical_size_value"] / header["horizontal_size_value"]
    return 1.0


FIELDS = [
    ("idet@order",),
    ("format", "gray"),
    ("idet@upper", 1e6),
    ("crop", "iw", "ih-1", 0, 1),
    ("idet@lower", 1e6),
]
"""The filters that ``field_order`` reads. The first finds which field comes earlier. The others, with that question
switched off, find whether the fields of a frame fit each other better than its neighbours', seen from either field."""


def field_order(log: str, flag: str) -> str:
    """tff or bff if the frames are interlaced, else empty.

    The fields of interlaced frames have one order all along and fit each other no better than their neighbours'. Where
    little can be seen (nothing moves), the stream's flag counts; where the frames are clearly progressive it does not,
    since progressive pictures are often sent as pairs of fields.

    Args:
        log: of ffmpeg, with what ``FIELDS`` count.
        flag: the stream's: tff, bff or empty.
    """
    found = {name: [0, 0, 0, 0] for name in ("order", "upper", "lower")}
    kinds = r"TFF: *(\d+) BFF: *(\d+) Progressive: *(\d+) Undetermined: *(\d+)"
    for name, *counts in re.findall(rf"idet@(\w+) .*Single frame detection: {kinds}", log):
        found[name] = [a + int(b) for a, b in zip(found[name], counts, strict=True)]
    top, bottom, _, _ = found["order"]
    frames = sum(found["order"])
    progressive = min(found["upper"][2], found["lower"][2])
    most, least = max(top, bottom), min(top, bottom)
    if most > max(frames / 2, 8 * least) and progressive < frames / 2:
        return "tff" if top > bottom else "bff"
    if progressive > max(frames / 8, 4 * most):
        return ""
    return flag


def progressive(stream: Any, picture: Picture) -> Any:
    """One frame a field of an interlaced stream; others pass."""
    if not picture.fields:
        return stream
    return stream.filter("bwdif", mode="send_field", parity=picture.fields, deint="all")


def normal(stream: Any, picture: Picture, width: int, height: int) -> Any:
    """Scale to 8-bit 4:2:0 SDR BT.709 in the limited range with square pixels, opaque, and say so in the stream."""
    rgb = picture.matrix == "gbr"
    if picture.assumed:
        stream = stream.filter("setparams", colorspace=picture.matrix)
    if picture.alpha:
        stream = stream.filter("format", "gbrap16le")
        if picture.alpha == "straight":
            stream = stream.filter("premultiply", inplace=1)
        stream, rgb = stream.filter("format", "gbrp16le"), True
    if picture.hdr or picture.primaries in WIDE or picture.transfer == "linear":
        stream = _to_bt709(stream, picture, "gbr" if rgb else picture.matrix, width, height)
    stream = stream.filter("scale", width, height, flags=SCALING, out_color_matrix="bt709", out_range="tv")
    return tagged(stream.filter("format", "yuv420p"))


def tagged(stream: Any) -> Any:
    """Say in the stream that its pixels are square and its colours BT.709 in the limited range."""
    said = {"range": "tv", "color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709"}
    return stream.filter("setsar", 1).filter("setparams", **said)


def _to_bt709(stream: Any, picture: Picture, matrix: str, width: int, height: int) -> Any:
    """RGB with BT.709's primaries, by way of linear light. SDR is taken for what a BT.1886 display shows."""
    transfer = "bt709" if picture.transfer in SDR else picture.transfer
    stream = stream.filter("scale", width, height, flags=SCALING)
    stream = stream.filter("format", "gbrp16le" if matrix == "gbr" else "yuv444p16le")
    said = {"colorspace": matrix, "color_primaries": picture.primaries, "color_trc": transfer}
    stream = stream.filter("setparams", **said)  # frames of another part of the video may say otherwise, or nothing
    # agamma=0: zimg's fast HLG bends each channel by itself, which BT.2100 does to the luminance
    light = {"transfer": "linear", "npl": WHITE, "agamma": 0}
    stream = stream.filter("zscale", matrixin=matrix, primariesin=picture.primaries, transferin=transfer, **light)
    stream = stream.filter("format", "gbrpf32le").filter("zscale", primaries="bt709", matrix="gbr", agamma=0)
    if picture.hdr:
        stream = stream.filter("tonemap", "mobius", param=KNEE, peak=PEAK / WHITE, desat=0)
    return stream.filter("zscale", transfer="bt709", agamma=0).filter("format", "gbrp16le")
