"""How the chosen videos get into the page: as they are, or scaled down where they are large."""

import base64
from pathlib import Path

from regdpo.config.schema import Encode
from regdpo.core.rows import Geometry
from regdpo.core.store import Store
from regdpo.core.temporaries import scratch
from regdpo.report.examples import Clip, Video

WIDEST = 320
"""Videos wider than this, in pixels, are scaled down for the page; others go in as they are."""


def data_uri(shown: Video, like: Clip | Geometry, store: Store, encode: Encode) -> str:
    """A video of the store as a ``data:`` URI.

    Args:
        like: of which size and length it is. encode: how clips are written.

    Raises:
        UserError: it is missing from the store or damaged.
    """
    path = store.checked(shown.path, shown.sha256)
    data = path.read_bytes() if like.width <= WIDEST else _scaled(path, like.frames, encode)
    return f"data:video/mp4;base64,{base64.b64encode(data).decode()}"


def _scaled(path: Path, frames: int, encode: Encode) -> bytes:
    import ffmpeg  # here, since a page of small videos should not wait for it

    from regdpo.data import video

    with scratch() as folder:
        small = folder / "small.mp4"
        stream = ffmpeg.input(str(path)).video.filter("scale", WIDEST, -2)
        video.run(stream.output(str(small), **video.encoding(encode.model_copy(update={"crf": 24}), frames)))
        return small.read_bytes()
