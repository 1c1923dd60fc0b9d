"""Captions by an OpenAI-compatible server: a real one of this test, which misbehaves in the ways that servers do."""

import base64
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from regdpo.config import schema, stage_inputs
from regdpo.config.stage_inputs import CaptionsStage
from regdpo.core import digests
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow
from regdpo.core.store import Store
from regdpo.data.captioners import endpoint
from regdpo.data.video import write_frames
from regdpo.stages.captions import caption_shard, told

KEY = "sk-a-secret"


class Server(ThreadingHTTPServer):
    """Answers as ``turn`` says, which is given the number of times that a clip was asked about."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.tries: Counter[str] = Counter()
        self.together = self.most_together = 0
        self.lock = threading.Lock()
        self.turn: Callable[[Handler, int], None] = lambda handler, tried: handler.says("a dog runs")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        shown = json.dumps(body["messages"])
        with self.server.lock:
            self.server.asked.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.server.tries[shown] += 1
            tried = self.server.tries[shown]
            self.server.together += 1
            self.server.most_together = max(self.server.most_together, self.server.together)
        try:
            assert self.path == "/v1/chat/completions"
            self.server.turn(self, tried)
        finally:
            with self.server.lock:
                self.server.together -= 1

    def says(self, text: str | None, reason: str = "stop") -> None:
        self.send(200, json.dumps({"choices": [{"message": {"content": text}, "finish_reason": reason}]}))

    def send(self, status: int, body: str, **headers: str) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Four clips of one grey each."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(4):
        write_frames(folder / f"{number}.mp4", np.full((5, 32, 48, 3), 60 * number, np.uint8), 8.0, schema.Encode())
    return folder


@pytest.fixture
def world(tmp_path, videos) -> tuple[Store, list[ClipRow]]:
    store, rows = Store(tmp_path / "store"), []
    for number in range(4):
        content = (videos / f"{number}.mp4").read_bytes()
        relative = store.relative("clips", f"{number}" * 64, ".mp4")
        with store.writing(relative) as path:
            path.write_bytes(content)
        digest = digests.file_digest(store.resolve(relative))
        fixed = {"source": f"{number}.mov", "source_digest": "0", "frames": 5, "path": relative, "sha256": digest}
        rows.append(ClipRow(clip_id=f"clip{number}", status="accepted", **fixed))
    return store, rows


def ask(server: Server, world, server_settings=None, **settings):
    store, rows = world
    values = {"source": "endpoint", "model": "qwen", "revision": "abc", "frames": 2, **settings}
    patience = {"timeout": 20, "longest_wait": 0.05, "attempts": 3, **(server_settings or {})}
    at = schema.CaptionServer(url=server.url, **patience)
    captions = schema.Captions(**values, server=at)
    return caption_shard(CaptionsStage(captions=captions, videos_root="nowhere"), rows, store, server=at)


def test_every_clip_is_asked_about_by_the_documented_fields(server, world):
    rows = ask(server, world, prompt="What is it?", max_new_tokens=77)
    assert [(row.clip_id, row.caption, row.cut, row.captioner) for row in rows] == [
        (f"clip{number}", "a dog runs", False, "qwen@abc") for number in range(4)
    ]
    greys = []
    for body in server.asked:
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("qwen", 77, 0)
        ((message),) = body["messages"]
        *frames, text = message["content"]
        assert (message["role"], text) == ("user", {"type": "text", "text": "What is it?"})
        assert len(frames) == 2
        for frame in frames:
            kind, _, data = frame["image_url"]["url"].partition(";base64,")
            assert (frame["type"], kind) == ("image_url", "data:image/jpeg")
            picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
            assert picture.shape == (32, 48, 3)
        greys.append(round(float(picture.mean()) / 60))
    assert sorted(greys) == [0, 1, 2, 3]


def test_a_clip_can_be_sent_as_it_is(server, world):
    ask(server, world, send="video")
    sent = {body["messages"][0]["content"][0]["video_url"]["url"] for body in server.asked}
    store, rows = world
    inline = (base64.b64encode(store.resolve(row.path).read_bytes()).decode() for row in rows)
    assert sent == {f"data:video/mp4;base64,{text}" for text in inline}


def test_answers_are_kept_and_what_shapes_them_asks_anew(server, world):
    """An address, a key and patience shape nothing."""

    def fail_last(handler: Handler, tried: int) -> None:
        with server.lock:
            late = len(server.tries) == 4
        handler.send(400, '{"error": {"message": "no"}}') if late else handler.says("a dog runs")

    server.turn = fail_last
    with pytest.raises(UserError, match=r"HTTP 400 to clip clip3: no; captions\.frames"):
        ask(server, world, {"concurrency": 1})
    assert len(server.asked) == 4
    server.turn = lambda handler, tried: handler.says("another")
    rows = ask(server, world, {"concurrency": 2, "timeout": 9})
    assert [row.caption for row in rows] == ["a dog runs"] * 3 + ["another"]
    assert len(server.asked) == 5, "three were not asked about again"
    for changed in ({"prompt": "else"}, {"model": "other"}, {"revision": "def"}, {"frames": 4}, {"max_new_tokens": 9}):
        before = len(server.asked)
        ask(server, world, **changed)
        assert len(server.asked) == before + 4, changed


def test_equal_clips_are_asked_about_once(server, world):
    store, rows = world
    twin = rows[0].model_copy(update={"clip_id": "twin"})
    assert len(ask(server, (store, [*rows, twin]))) == 5
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda h: h.send(500, "<html>oops\x1b[31m</html>"), "HTTP 500: <html>oops"),
        (lambda h: h.send(503, '{"error": {"message": "loading"}}'), "HTTP 503: loading"),
        (lambda h: h.send(429, '{"error": "slow"}', retry_after="0"), "HTTP 429: slow"),
        (lambda h: h.send(200, '{"choices": ['), r"its answer is none: \{"),
        (lambda h: h.send(200, "[" * 9000), r"its answer is none: \[\["),
        (lambda h: h.send(200, '{"choices": []}'), "its answer is none"),
        (lambda h: h.send(200, '{"choices": [{"message": {"content": [1]}}]}'), "its answer holds no text"),
        (lambda h: h.send(200, "x" * (endpoint.LARGEST + 1)), "its answer has more than"),
        (lambda h: h.connection.shutdown(socket.SHUT_RDWR), "disconnected"),
        (lambda h: time.sleep(1.5), r"within 1 s \(captions\.server\.timeout\)"),
    ],
)
def test_what_may_pass_is_tried_again_and_then_told(server, world, capfd, fault, said):
    """The third try is the last; where it succeeds, nothing is lost."""
    store, rows = world
    timeout = 1 if "captions" in said else 20
    server.turn = lambda handler, tried: fault(handler) if tried < 3 else handler.says("a dog runs")
    (row,) = ask(server, (store, rows[:1]), {"timeout": timeout})
    assert row.caption == "a dog runs"
    assert len(server.asked) == 3
    told = capfd.readouterr().err
    assert re.search(rf"^captions: http://127\S+: .*{said}.*; trying again \(try 1 of 3 for this clip\)$", told, re.M)
    server.turn = lambda handler, tried: fault(handler)
    with pytest.raises(UserError, match=rf"failed 2 times for clip clip1 \(last: .*{said}") as caught:
        ask(server, (store, rows[1:2]), {"timeout": timeout, "attempts": 2})
    assert str(caught.value).isprintable()


def test_a_server_that_drips_is_not_waited_for(server, world):
    """Each byte comes in time, the whole never would."""

    def drip(handler: Handler, tried: int) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        for _ in range(20):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    server.turn = drip
    store, rows = world
    with pytest.raises(UserError, match=r"no (whole )?answer within 0\.2 s"):
        ask(server, (store, rows[:1]), {"timeout": 0.2, "attempts": 1})


def test_waits_double_and_heed_what_the_server_asks_up_to_a_limit(server, world, monkeypatch):
    waited = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(endpoint.asyncio, "sleep", sleep)
    store, rows = world
    server.turn = lambda handler, tried: handler.send(503, "") if tried < 6 else handler.says("a dog runs")
    ask(server, (store, rows[:1]), {"attempts": 6, "longest_wait": 10})
    assert len(waited) == 5
    for wait, least in zip(waited, (1, 2, 4, 8, 10), strict=True):
        assert least <= wait <= min(10, least + 1)
    now = 1_800_000_000
    monkeypatch.setattr(endpoint.time, "time", lambda: now)
    for asked, expected in (("7", 7), ("86400", 10), (formatdate(now + 8, usegmt=True), 8)):
        waited.clear()
        server.turn = lambda handler, tried, asked=asked: (
            handler.send(429, "", retry_after=asked) if tried < 2 else handler.says("a dog runs")
        )
        ask(server, (store, rows[:1]), {"longest_wait": 10}, prompt=asked)
        assert waited == [expected]


def test_requests_run_side_by_side_and_no_more_than_are_allowed(server, world):
    met = threading.Barrier(2, timeout=20)  # answers come when two have met
    server.turn = lambda handler, tried: (met.wait(), handler.says("a dog runs"))
    ask(server, world, {"concurrency": 2})
    assert server.most_together == 2


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, r"HTTP 400 to clip clip0: too many tokens \*{3}; captions\.frames, "),
        (401, r"HTTP 401 .*; the variable A_KEY holds no key that it takes \(captions\.server\.key_env "),
        (404, r"HTTP 404 .*; captions\.model has to be a name that it serves"),
        (307, r"HTTP 307 .*; give the address that it moved to as captions\.server\.url"),
    ],
)
def test_a_refusal_is_not_tried_again(server, world, monkeypatch, status, said):
    """It is one line, in which the key is not, even where the server repeats it."""
    monkeypatch.setenv("A_KEY", KEY)
    store, rows = world
    body = json.dumps({"error": {"message": f"too many tokens\n{KEY}"}})
    server.turn = lambda handler, tried: handler.send(status, body, location="http://127.0.0.1:1/")
    with pytest.raises(UserError, match=said) as caught:
        ask(server, (store, rows[:1]), {"key_env": "A_KEY"})
    assert KEY not in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(server.asked) == 1


def test_the_key_is_sent_and_written_nowhere(server, world, monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("A_KEY", KEY)
    server.turn = lambda handler, tried: handler.send(500, KEY) if tried < 2 else handler.says("a dog runs")
    ask(server, world, {"key_env": "A_KEY"})
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert KEY not in "".join(capfd.readouterr())
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    monkeypatch.delenv("A_KEY")
    with pytest.raises(UserError, match=r"^captions\.server\.key_env: the environment has no variable A_KEY"):
        ask(server, world, {"key_env": "A_KEY"}, prompt="else")


def test_captions_that_cannot_be_used_end_the_run_or_are_left_out_with_their_reason(server, world):
    """What was answered is kept, so the other way asks nothing again."""
    answers = iter([("a dog runs", "stop"), ("a dog ru", "length"), (None, "stop"), ("I'm sorry, but no.", "stop")])
    server.turn = lambda handler, tried: handler.says(*next(answers))
    with pytest.raises(UserError, match="captions: 3 of 4 cannot be used: clip clip1: cut off: ") as caught:
        ask(server, world, {"concurrency": 1})
    assert "; clip clip2: empty: it says nothing" in str(caught.value)
    assert "; clip clip3: refusal: it begins " in str(caught.value)
    assert str(caught.value).isprintable()
    rows = ask(server, world, unusable="leave_out")
    assert len(server.asked) == 4
    assert [(row.caption, row.cut, row.kind) for row in rows] == [
        ("a dog runs", False, ""),
        ("a dog ru", True, "cut off"),
        ("", False, "empty"),
        ("I'm sorry, but no.", False, "refusal"),
    ]
    assert told(rows).startswith("captions: 3 of 4 clips are left out of the pairs, ")


def test_where_the_server_is_shapes_no_caption_and_is_not_on_the_page():
    given = {"source": "endpoint", "model": "m", "revision": "r", "server": {"url": "http://node7:8000/v1"}}
    values = {"videos": {"root": "."}, "base": {"model": "x", "revision": "1"}, "captions": given}
    settings = schema.check({**values, "train": {"arms": {"a": {"objective": "sft"}}}})
    for stage in (stage_inputs.CaptionsStage, stage_inputs.ReportStage):
        assert "node7" not in json.dumps(stage.of(settings))
    assert "node7" in json.dumps(stage_inputs.CaptionServerStage.of(settings))


@pytest.mark.parametrize(
    "url", ["http://user:pw@host/v1", "https://host/v1?key=s", "file:///etc/passwd", "host:8000/v1", "http://a b/"]
)
def test_an_address_holds_no_secret(url):
    with pytest.raises(ValueError, match="url"):
        schema.CaptionServer(url=url)
