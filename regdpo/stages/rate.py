"""The rate stage: samples of base and arms in, people's answers out."""

import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from werkzeug.serving import WSGIRequestHandler, make_server

from regdpo.config.schema import Encode
from regdpo.config.stage_inputs import RateStage
from regdpo.core import manifests
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import PairRow, SampleRow
from regdpo.core.store import Store
from regdpo.data.video import read_stored, write_frames
from regdpo.rate import items
from regdpo.rate.answers import Answers
from regdpo.rate.items import Item, Samples, Video
from regdpo.rate.server import Application

HOST = "127.0.0.1"
MOSAIC = 8
"""Squares that the shorter side of a spoiled clip has."""
DATABASE, TABLE = "answers.sqlite", "answers.parquet"
"""Files of `paths.ratings`."""


def read(stage: RateStage, samples: Iterable[Path], pairs: Path) -> tuple[Samples, dict[str, PairRow]]:
    """The samples that are compared, and the pairs by clip.

    Raises:
        UserError: a manifest is missing or damaged.
    """
    by_clip = {pair.clip_id: pair for pair in manifests.read(pairs, PairRow)}
    rows = [row for path in samples for row in manifests.read(path, SampleRow)]
    return Samples(stage, rows, by_clip.values()), by_clip


def shown(stage: RateStage, samples: Samples, pairs: dict[str, PairRow], store: Store) -> list[Item]:
    """All that is shown. Gold pairs' other halves are made here, in the store.

    Raises:
        UserError: a video is missing from the store.
    """
    found = [*items.pairs_shown(stage, samples), *items.clips_shown(stage, samples)]
    for row, other in items.gold_prompts(stage, samples):
        found.append(items.gold(samples, row, _spoiled(other, pairs[other.clip_id].fps, stage.encode, store)))
    for path in {video.path for item in found for video in item.videos} | {item.real for item in found}:
        store.existing(path)
    return found


def _spoiled(row: SampleRow, fps: float, encode: Encode, store: Store) -> Video:
    """A clip as a mosaic."""
    path = store.relative("ratings", text_digest("mosaic", str(MOSAIC), row.sha256, encode.model_dump_json()), ".mp4")
    if not store.has(path):
        frames = read_stored(store, row.path, row.sha256)
        height, width = frames.shape[1:3]
        square = max(2, min(height, width) // MOSAIC)
        rows, columns = (
            np.minimum(np.arange(size) // square * square + square // 2, size - 1) for size in (height, width)
        )
        with store.writing(path) as temporary:
            write_frames(temporary, frames[:, rows][:, :, columns], fps, encode)
    return Video(arm=items.SPOILED, model=items.SPOILED, path=path, sha256=store.digest(path, "rate"))


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Nothing: addresses have the token."""

    def version_string(self) -> str:
        return "regdpo"


def serve(
    stage: RateStage, found: list[Item], answers: Answers, store: Store, port: int, tell: Callable[[str], None]
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        tell: is called with the address once it can be opened.

    Raises:
        UserError: the port is taken.
    """
    application = Application(answers, found, store, stage.rating.seed)
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port {port}: {error.strerror}; give another with --port") from None
        bound.listen(128)
        server = make_server(HOST, port, application, threaded=True, request_handler=_Quiet, fd=bound.fileno())
        tell(f"http://{HOST}:{server.port}/?token={answers.token}")
        server.serve_forever()


def told(found: list[Item]) -> str:
    """What is shown, in a line."""
    pairs = [item for item in found if item.form == "pair"]
    gold, again = sum(bool(item.gold) for item in pairs), sum(item.repeat for item in pairs)
    clips = len(found) - len(pairs)
    return f"{len(pairs)} pairs of videos ({gold} with a known answer, {again} repeats), {clips} single clips"


def say(text: str) -> None:
    """To the terminal, not to a log: the address holds the token."""
    print(text, file=sys.stderr, flush=True)
