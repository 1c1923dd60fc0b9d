"""What becomes of colours, fields, cropping and transparency; every video is made here, references are numpy's."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from regdpo.config import schema
from regdpo.config.stage_inputs import ClipsStage
from regdpo.core.digests import DigestCache
from regdpo.core.store import Store
from regdpo.data import cut as cutting
from regdpo.data import footage, picture, video
from regdpo.stages import clips

pytestmark = pytest.mark.slow

PATCHES = np.array(
    [[200, 30, 30], [30, 180, 40], [30, 40, 200], [220, 170, 140], [128, 128, 128], [240, 240, 240], [255, 255, 255]],
    np.uint8,
)
SIDE = 16  # pixels of a patch
CLIPS = schema.Clips(frames=3, fps=25, width=SIDE * len(PATCHES), height=SIDE)

# RGB to XYZ, from the chromaticities in ITU-R BT.709, BT.2020 and SMPTE EG 432-1
PRIMARIES = {
    "bt709": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
D65 = (0.3127, 0.3290)


def ffmpeg(*arguments: object, data: bytes | None = None) -> None:
    command = [get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, input=data, check=True)


def raw(path: Path, frames: np.ndarray, pixels: str, filters: str, *options: object) -> Path:
    """Write frames (F, H, W, ...) that ffmpeg takes for ``pixels``."""
    height, width = frames.shape[-2:] if "p10" in pixels else frames.shape[1:3]
    source = ("-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{width}x{height}", "-r", 25, "-i", "pipe:")
    ffmpeg(*source, "-vf", filters, *options, path, data=frames.tobytes())
    return path


def cut(path: Path, target: Path, settings: schema.Clips = CLIPS) -> np.ndarray:
    source = video.probe(path)
    scaled = cutting.scaled_size(source, settings.width, settings.height, None)
    (window,) = cutting.windows(scaled, settings.width, settings.height, (1, 1))
    ((_, taken),) = cutting.spans(path, source, {0: settings.frames}, scaled, [window], settings)
    cutting.write(target, taken.cuts[0], settings)
    return video.read_frames(target).astype(float)


def of_patches(frames: np.ndarray) -> np.ndarray:
    return frames[1, SIDE // 2, SIDE // 2 :: SIDE]


def shown(colours: np.ndarray, height: int = SIDE, side: int = SIDE, count: int = 4) -> np.ndarray:
    """Frames with a patch of each colour, side by side."""
    row = np.repeat(colours, side, axis=0)
    return np.broadcast_to(row, (count, height, *row.shape))


def to_xyz(name: str) -> np.ndarray:
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*PRIMARIES[name], D65)])
    return xyz[:3].T * np.linalg.solve(xyz[:3].T, xyz[3])


def pq(nits: np.ndarray) -> np.ndarray:
    """Inverse of the EOTF in ITU-R BT.2100, table 4."""
    light = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * light) / (1 + 2392 / 128 * light)) ** (2523 / 32)


def hlg(nits: np.ndarray) -> np.ndarray:
    """Inverse OOTF (of the luminance, gamma 1.2 at 1000 nits) and OETF in ITU-R BT.2100, table 5."""
    light = nits / 1000
    luminance = (light @ [0.2627, 0.6780, 0.0593])[..., None]
    scene = light * np.maximum(luminance, 1e-9) ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def gamma(nits: np.ndarray) -> np.ndarray:
    """Inverse of the EOTF in ITU-R BT.1886 with black at 0."""
    return np.clip(nits / 203, 0, 1) ** (1 / 2.4)


def signal(rgb: np.ndarray, primaries: str, curve, luma: tuple[float, float, float]) -> np.ndarray:
    """8-bit BT.709 RGB (N, 3), white being 203 nits, as limited-range 10-bit YUV (3, N)."""
    nits = 203 * (rgb / 255) ** 2.4 @ (np.linalg.inv(to_xyz(primaries)) @ to_xyz("bt709")).T
    return yuv10(curve(np.maximum(nits, 0)), luma)


def yuv10(signal: np.ndarray, luma: tuple[float, float, float]) -> np.ndarray:
    red, _, blue = luma
    y = signal @ luma
    chroma = (signal[:, 2] - y) / (2 - 2 * blue), (signal[:, 0] - y) / (2 - 2 * red)
    return np.round([64 + 876 * y, 512 + 896 * chroma[0], 512 + 896 * chroma[1]]).astype("<u2")


BT709, BT2020 = (0.2126, 0.7152, 0.0722), (0.2627, 0.6780, 0.0593)


def tagged(path: Path, planes: np.ndarray, primaries: str, transfer: str, matrix: str) -> Path:
    frames = np.stack([np.moveaxis(shown(planes.T), -1, 1)])[0]
    tags = f"setparams=range=tv:color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}"
    return raw(path, frames, "yuv444p10le", tags, "-c:v", "ffv1")


@pytest.mark.parametrize(
    ("primaries", "transfer", "matrix", "curve", "luma", "conversion"),
    [
        ("bt2020", "arib-std-b67", "bt2020nc", hlg, BT2020, "tone-mapped from HLG"),
        ("bt2020", "smpte2084", "bt2020nc", pq, BT2020, "tone-mapped from PQ"),
        ("bt2020", "bt2020-10", "bt2020nc", gamma, BT2020, "BT.2020 to BT.709"),
        ("smpte432", "bt709", "bt709", gamma, BT709, "Display P3 to BT.709"),
        ("bt709", "bt709", "bt709", gamma, BT709, ""),
    ],
)
def test_hdr_and_wide_gamut_come_out_as_the_same_light_in_bt709(
    tmp_path, primaries, transfer, matrix, curve, luma, conversion
):
    planes = signal(PATCHES.astype(float), primaries, curve, luma)
    path = tagged(tmp_path / "in.mkv", planes, primaries, transfer, matrix)
    assert video.probe(path).picture.conversion == conversion
    assert np.abs(of_patches(cut(path, tmp_path / "out.mp4")) - PATCHES).max() <= 6


def test_highlights_grow_to_white_at_1000_nits_and_keep_their_hue(tmp_path):
    nits = np.array([[150.0] * 3, [203] * 3, [300] * 3, [500] * 3, [1000] * 3, [4000] * 3, [1000, 500, 500]])
    path = tagged(tmp_path / "in.mkv", yuv10(pq(nits), BT2020), "bt2020", "smpte2084", "bt2020nc")
    found = of_patches(cut(path, tmp_path / "out.mp4"))
    greys = found[:6].mean(axis=1)
    assert greys[0] == pytest.approx(255 * (150 / 203) ** (1 / 2.4), abs=1.5)
    assert (np.diff(greys) >= 0).all()
    assert greys[1] >= 249
    assert greys[4:] == pytest.approx(255, abs=1)
    assert found[6, 0] > 252
    assert found[6, 1] < 200


@pytest.mark.parametrize(
    ("side", "matrix", "span", "pixels", "tags", "conversion"),
    [
        (192, "bt709", "tv", "yuv420p", False, "BT.709 assumed"),
        (SIDE, "bt601", "tv", "yuv420p", False, "BT.601 assumed"),
        (SIDE, "bt709", "tv", "yuv420p", True, ""),
        (192, "smpte170m", "tv", "yuv420p", True, ""),
        (SIDE, "bt709", "pc", "yuv420p", True, ""),
        (SIDE, "bt709", "tv", "yuv420p10le", True, ""),
    ],
)
def test_the_matrix_is_the_tagged_one_or_that_of_the_size(tmp_path, side, matrix, span, pixels, tags, conversion):
    made = f"scale=out_color_matrix={matrix}:out_range={span}:flags=accurate_rnd+full_chroma_int,format={pixels}"
    names = matrix if tags else "unknown"
    made += f",setparams=range={span}:color_primaries={names}:color_trc={names}:colorspace={names}"
    frames = shown(PATCHES, side, side, 2 if side > SIDE else 4)
    path = raw(tmp_path / "in.mp4", frames, "rgb24", made, "-c:v", "libx264", "-preset", "ultrafast", "-qp", 4)
    assert video.probe(path).picture.conversion == conversion
    found = of_patches(cut(path, tmp_path / "out.mp4", CLIPS.model_copy(update={"frames": 2})))
    assert np.abs(found - PATCHES).max() <= 4


@pytest.mark.parametrize(
    ("width", "height", "matrix"),
    [
        (1280, 720, "bt709"),
        (1280, 544, "bt709"),
        (720, 1280, "bt709"),
        (720, 576, "smpte170m"),
        (480, 854, "smpte170m"),
    ],
)
def test_hd_is_told_by_size_in_either_orientation(width, height, matrix):
    assert picture.matrix_for(width, height) == matrix


def test_colours_that_nobody_can_convert_are_a_reason(tmp_path):
    path = tagged(
        tmp_path / "in.mkv", signal(PATCHES.astype(float), "bt2020", pq, BT2020), "bt2020", "smpte2084", "ictcp"
    )
    with pytest.raises(video.BrokenVideo, match=r"colours cannot be converted \(matrix ictcp\)"):
        video.probe(path)


def test_rows_say_what_was_converted_and_hdr_can_be_rejected(tmp_path):
    planes = signal(PATCHES.astype(float), "bt2020", hlg, BT2020)
    (tmp_path / "in").mkdir()
    tagged(tmp_path / "in/hlg.mkv", planes, "bt2020", "arib-std-b67", "bt2020nc")
    rows = {}
    for hdr in ("tonemap", "reject"):
        settings = CLIPS.model_copy(update={"hdr": hdr})
        stage = ClipsStage(videos=schema.Videos(root=str(tmp_path / "in")), clips=settings)
        digests = footage.source_digests(stage.videos, DigestCache(tmp_path / "digests.json"))
        (rows[hdr],) = clips.cut_shard(stage, digests, 0, 1, Store(tmp_path / "store"))
    assert rows["tonemap"].conversion == "tone-mapped from HLG"
    assert rows["reject"].reason == "unwanted: HLG footage is rejected by clips.hdr"


def moving(path: Path, filters: str, *options: object, source: str = "bars") -> Path:
    """A picture of 96x64 that moves at 50 frames a second, smooth or full of fine detail."""
    made = {
        "bars": "color=c=gray:s=96x64:r=50:d=1,format=yuv420p,geq=lum='128+80*sin((X+3*N)/9)+30*sin(Y/11)':cb=128:cr=128",
        "detail": "testsrc2=s=320x240:r=50:d=1,format=yuv420p",
    }[source]
    ffmpeg(
        "-f", "lavfi", "-i", made, "-vf", filters, "-c:v", "libx264", "-preset", "ultrafast", "-qp", 8, *options, path
    )
    return path


def comb(frames: np.ndarray) -> float:
    """How much lines differ from the mean of their neighbours."""
    luma = frames.mean(axis=-1)
    return float(np.abs(luma[:, 1:-1] - (luma[:, :-2] + luma[:, 2:]) / 2).mean())


FLAG = ("-flags", "+ilme+ildct", "-x264-params")


@pytest.mark.parametrize(
    ("filters", "options", "fields"),
    [
        ("tinterlace=interleave_top,setfield=tff", (*FLAG, "tff=1"), "tff"),
        ("tinterlace=interleave_bottom,setfield=bff", (*FLAG, "bff=1"), "bff"),
        ("tinterlace=interleave_top,setfield=prog", (), "tff"),  # nobody says so
        ("tinterlace=interleave_bottom,setfield=tff", (*FLAG, "tff=1"), "bff"),  # the wrong way round
        ("fps=25,setfield=tff", (*FLAG, "tff=1"), ""),  # progressive pictures sent as fields
    ],
)
def test_fields_are_found_and_become_frames(tmp_path, filters, options, fields):
    settings = CLIPS.model_copy(update={"frames": 12, "width": 96, "height": 64})
    plain = comb(cut(moving(tmp_path / "plain.mp4", "fps=25"), tmp_path / "a.mp4", settings))
    path = moving(tmp_path / "in.mp4", filters, *options)
    assert video.probe(path).picture.fields == fields
    assert comb(cut(path, tmp_path / "b.mp4", settings)) == pytest.approx(plain, abs=0.3)


def test_fine_detail_that_moves_is_not_taken_for_fields(tmp_path):
    assert video.probe(moving(tmp_path / "in.mp4", "fps=25", source="detail")).picture.fields == ""


def test_fields_that_show_nothing_are_believed_the_streams_flag():
    counts = "Single frame detection: TFF:     0 BFF:     1 Progressive:     2 Undetermined:   117\n"
    still = "".join(f"[idet@{name} @ 0x7f] {counts}" for name in ("order", "upper", "lower"))
    assert [picture.field_order(still, flag) for flag in ("tff", "bff", "")] == ["tff", "bff", ""]


def test_matroskas_crop_is_the_picture(tmp_path):
    """Bars above and below that the container says to leave out: PixelCropBottom (54AA) and PixelCropTop (54BB), 16 each."""
    bars = "pad=iw:ih+32:0:16:red,scale=out_color_matrix=bt709,format=yuv420p,setparams=colorspace=bt709"
    path = raw(tmp_path / "in.mkv", shown(PATCHES, 32), "rgb24", bars, "-c:v", "libx264", "-qp", 4)
    data = bytearray(path.read_bytes())
    place = data.find(b"\x55\xb0")  # the element Colour, of which Void (EC) fills what is left
    size = 3 + (data[place + 2] & 0x7F)
    crop = b"\x54\xbb\x81\x10\x54\xaa\x81\x10"
    data[place : place + size] = crop + bytes([0xEC, 0x80 | (size - len(crop) - 2)]) + bytes(size - len(crop) - 2)
    path.write_bytes(data)
    source = video.probe(path)
    assert (source.width, source.height) == (SIDE * len(PATCHES), 32)
    found = cut(path, tmp_path / "out.mp4", CLIPS.model_copy(update={"height": 32}))
    assert np.abs(found[1, [4, -4], SIDE // 2 :: SIDE] - PATCHES).max() <= 8


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("in.mov", ("-c:v", "qtrle")),
        ("in.webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-crf", 2, "-b:v", 0)),
        ("in.webm", ("-c:v", "libvpx", "-pix_fmt", "yuva420p", "-crf", 4, "-b:v", "4M", "-auto-alt-ref", 0)),
        ("prores.mov", ("-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le")),
        ("in.gif", ()),
    ],
)
def test_what_is_transparent_is_black_and_hidden_colours_stay_hidden(tmp_path, name, options):
    alpha = np.array([255, 0, 0, 255, 0, 255, 0], np.uint8)
    frames = shown(np.concatenate([PATCHES, alpha[:, None]], axis=1), 32)
    filters = "split[a][b];[a]palettegen[p];[b][p]paletteuse" if name.endswith("gif") else "null"
    path = raw(tmp_path / name, frames, "rgba", filters, *options)
    assert "shown over black" in video.probe(path).picture.conversion
    found = of_patches(cut(path, tmp_path / "out.mp4"))
    assert np.abs(found - PATCHES * (alpha[:, None] > 0)).max() <= 12  # VP8's and VP9's own error


def test_a_fourth_byte_of_zeros_everywhere_hides_nothing(tmp_path):
    frames = shown(np.concatenate([PATCHES, np.zeros((len(PATCHES), 1), np.uint8)], axis=1))
    path = raw(tmp_path / "in.avi", frames, "rgba", "null", "-c:v", "rawvideo", "-pix_fmt", "bgra")
    assert np.abs(of_patches(cut(path, tmp_path / "out.mp4")) - PATCHES).max() <= 4


@pytest.mark.parametrize("transfer", ["unknown", "bt2020-10", "smpte170m"])
def test_what_another_thread_of_ffmpeg_says_in_between_is_no_name_of_a_colour(transfer):
    """Under load its line came right behind a name, and the format seemed to change in the middle of the footage."""
    line = "] n:   0 pts:      0 pts_time:0 fmt:yuv420p cl:left sar:1/1 s:64x48 i:P iskey:1 type:I \n"
    line += f"color_range:tv color_space:bt2020nc color_primaries:bt2020 color_trc:{transfer}"
    read = picture.from_log(f"{line}\n")
    assert (read.picture.matrix, read.picture.transfer) == ("bt2020nc", {"unknown": "bt709"}.get(transfer, transfer))
    for said in ("Packet corrupt (stream = 0, dts = 90000).", "timestamp discontinuity"):
        assert picture.from_log(f"{line}{said}\n") == read
