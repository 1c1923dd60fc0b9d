"""The rate stage: samples of base and arms in, people's answers out."""

import signal
import socket
import sys
from pathlib import Path

import numpy as np
from werkzeug.serving import WSGIRequestHandler, make_server

from regdpo.config.schema import Encode
from regdpo.config.stage_inputs import RateStage
from regdpo.core import manifests
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.model_names import ModelName
from regdpo.core.rows import AnswerRow, LabelRow, PairRow, SampleRow
from regdpo.core.store import Store
from regdpo.data.video import read_stored, write_frames
from regdpo.evaluate import people
from regdpo.rate import exports, items, label_studio
from regdpo.rate.answers import DATABASE, TABLE, Answers
from regdpo.rate.items import Item, Samples, Video
from regdpo.rate.server import Application

HOST = "127.0.0.1"
PAIRS, LABELS = "pairs.csv", "labels.parquet"
"""What is made of the answers, beside them."""
MOSAIC = 8
"""Squares that the shorter side of a spoiled clip has."""


def page(stage: RateStage, store: Store, port: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: samples or their videos are missing, the answers cannot be written, or the port is taken.
    """
    samples, pairs = read(stage)
    found = shown(stage, samples, pairs, store)
    application = Application(answers(stage), found, store, stage.rating.seed)
    _say(told(found))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _serve(application, port)
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)  # what is left to do takes a moment


def add(stage: RateStage, path: Path) -> None:
    """Add the answers of a JSON export of Label Studio.

    Raises:
        UserError: it does not fit.
    """
    samples, _ = read(stage)
    _say(f"{label_studio.add(path, stage, samples, answers(stage))} answers of {path} were added")


def export(stage: RateStage) -> None:
    """Write the table of all answers, and of those that count the pairs that people prefer one of, and the labels."""
    rows, folder = answers(stage).rows(), Path(stage.paths.ratings)
    manifests.write(folder / TABLE, rows, AnswerRow)
    _say(f"{len(rows)} answers: {folder / TABLE}")
    counted = people.counted(rows, stage.rating.attention)
    for name, it in counted.raters.items():
        if it.dropped:
            _say(f"{name} had {it.right} of {it.shown} answers about gold pairs right, and is left out of what follows")
    pairs, labels = exports.pairs(counted.rows), exports.labels(counted.rows)
    exports.write_pairs(folder / PAIRS, pairs)
    manifests.write(folder / LABELS, labels, LabelRow)
    _say(f"{len(pairs)} pairs: {folder / PAIRS}; {len(labels)} labels: {folder / LABELS}")


def answers(stage: RateStage) -> Answers:
    """The database of the configuration."""
    return Answers(Path(stage.paths.ratings) / DATABASE)


def read(stage: RateStage) -> tuple[Samples, dict[str, PairRow]]:
    """The samples that are compared, and their pairs by clip.

    Raises:
        UserError: a manifest is missing, with what makes it, or damaged.
    """
    results, models = Path(stage.paths.results), [ModelName.parse(model) for model in stage.models]
    pairs = [results / f"{of}pairs.parquet" for of in dict.fromkeys(model.of for model in models)]
    files = [results / model.table("samples") for model in models]
    if lacking := [path for path in (*pairs, *files) if not path.exists()]:
        raise UserError(f"{lacking[0]}: is not there yet; `snakemake rate` with the same --configfile makes it")
    rows = [row for path in files for row in manifests.read(path, SampleRow)]
    clips = {row.clip_id for row in rows}
    by_clip = {
        pair.clip_id: pair for path in pairs for pair in manifests.read_where(path, PairRow, clip_id=clips.__contains__)
    }
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


def _serve(application: Application, port: int) -> None:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port {port}: {error.strerror}; give another with --port") from None
        bound.listen(128)
        server = make_server(HOST, port, application, threaded=True, request_handler=_Quiet, fd=bound.fileno())
        _say(f"open http://{HOST}:{server.port}/?token={application.token}\nCtrl-C ends it")
        server.serve_forever()


def told(found: list[Item]) -> str:
    """What is shown, in a line."""
    pairs = [item for item in found if item.form == "pair"]
    gold, again = sum(bool(item.gold) for item in pairs), sum(item.repeat for item in pairs)
    clips = len(found) - len(pairs)
    return f"{len(pairs)} pairs of videos ({gold} with a known answer, {again} repeats), {clips} single clips"


def _say(text: str) -> None:
    """To the terminal, not to a log: the address holds the token."""
    print(text, file=sys.stderr, flush=True)
