"""What one wants to see of trained models: prompts of one's own, or first frames with theirs."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from regdpo.config.schema import Encode
from regdpo.core.code_digest import code_digest
from regdpo.core.digests import file_digest, text_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import Geometry
from regdpo.core.store import Store
from regdpo.data.buckets import choose
from regdpo.data.names import shown
from regdpo.data.sidecars import Sidecars, text_of
from regdpo.data.video import write_frames
from regdpo.sampling.render import Request

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Wish:
    """A prompt, and for image-to-video the picture to begin with."""

    name: str
    prompt: str
    picture: Path | None = None


def wishes(task: str, prompts: Path | None, pictures: Path | None) -> list[Wish]:
    """What the files ask for.

    Args:
        task: of the base model. prompts: a text file, one a line. pictures: a folder, each with its text file beside.

    Raises:
        UserError: it is the other that the model takes; a file cannot be read, is empty or has no prompt.
    """
    if task == "t2v":
        if pictures or not prompts:
            raise UserError("the base makes videos from text: give --prompts, a text file with one prompt a line")
        return _prompts(prompts)
    if prompts or not pictures:
        raise UserError(
            "the base makes videos from first frames: give --images, a folder of pictures, each with its prompt beside "
            "it (street.png, street.txt)"
        )
    return _pictures(pictures)


def _prompts(path: Path) -> list[Wish]:
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(Wish(f"line {number}", text_of(line.encode())))
            except ValueError as error:
                raise UserError(f"{path}, line {number}: {error}") from None
    if not found:
        raise UserError(f"{path}: holds no prompt; write one a line")
    return found


def _pictures(folder: Path) -> list[Wish]:
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder of pictures")
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not names:
        raise UserError(f"{folder}: holds no picture ({', '.join(PICTURES)})")
    texts = Sidecars(folder, names)
    beside = {name: texts.of(name, 0) for name in names}
    if lacking := [name for name, text in beside.items() if not text]:
        wanted = ", ".join(shown(f"{Path(name).stem}.txt") for name in lacking)
        raise UserError(f"{folder}: {len(lacking)} of {len(names)} pictures have no prompt; write {wanted}")
    return [Wish(shown(name), texts.read(text), folder / name) for name, text in beside.items() if text]


def requests(
    wished: list[Wish], seeds: list[int], geometries: list[Geometry], encode: Encode, store: Store
) -> list[Request]:
    """All wishes with the first seed, then with the next: the same noise for each model.

    Args:
        geometries: of the clips that were trained on. A picture's video has the one that a clip of such a
            picture would have, that of a prompt alone the first.
    """
    frames = [
        _first_frame(wish.picture, geometries, encode, store) if wish.picture else ("", "", geometries[0])
        for wish in wished
    ]
    return [
        Request(wish.prompt, path, sha256, seed, geometry)
        for seed in seeds
        for wish, (path, sha256, geometry) in zip(wished, frames, strict=True)
    ]


def _first_frame(picture: Path, geometries: list[Geometry], encode: Encode, store: Store) -> tuple[str, str, Geometry]:
    """A picture as the first frame of a clip in the store, its digest and its video's geometry: scaled and cut in the
    middle to that size, and encoded as clips are."""
    try:
        data = picture.read_bytes()
    except OSError as error:
        raise UserError(f"{picture}: cannot be read ({error.strerror})") from None
    image = _decoded(picture, data)
    geometry = choose(geometries, image.shape[1], image.shape[0])
    assert geometry is not None
    how = geometry.model_dump_json(), encode.model_dump_json()
    key = text_digest(file_digest(picture), *how, code_digest(__name__))
    relative = store.relative("frames", key, ".mp4")
    if not store.resolve(relative).exists():
        frame = _fitted(image, geometry.height, geometry.width)
        with store.writing(relative) as temporary:
            write_frames(temporary, frame[None], geometry.fps, encode)
    return relative, store.digest(relative), geometry


def _decoded(picture: Path, data: bytes) -> np.ndarray:
    """RGB, turned as the picture says."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{picture}: is no picture that can be read; save it as PNG or JPEG")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _fitted(image: np.ndarray, height: int, width: int) -> np.ndarray:
    scale = max(height / image.shape[0], width / image.shape[1])
    size = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return scaled[top : top + height, left : left + width]
