"""Captions by an OpenAI-compatible server, such as vLLM or SGLang: ``POST URL/chat/completions``.

The fields are those of OpenAI's Chat Completions (``messages`` with parts of the types ``text`` and ``image_url``,
``max_tokens``, ``temperature``; ``choices[0].message.content`` and ``finish_reason`` of the answer); ``video_url`` is
vLLM's and SGLang's own part. Requests run side by side. Every answer is kept as soon as it is there, so a run that was
killed asks for the rest alone.
"""

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import cv2
import httpx2
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from regdpo.config import schema
from regdpo.core.code_digest import code_digest
from regdpo.core.environment import versions
from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.core.store import Store
from regdpo.data.captioners.answers import Answer, Kept, Task, evenly, needed, one_line
from regdpo.data.video import read_stored

LARGEST = 2**20
"""Bytes of an answer; a caption is a paragraph."""
QUALITY = 95
"""Of the JPEG files that frames are sent as."""
LATER = frozenset({408, 409, 425, 429})
"""Statuses below 500 that say to try again."""
KEY = "captions.server.key_env"


class Retry(Exception):
    """Something that may be over the next time.

    Args:
        reason: what happened.
        after: seconds that the server asks to wait, if it does.
    """

    def __init__(self, reason: str, after: float = 0.0):
        super().__init__(reason)
        self.after = after


def answer(task: Task) -> list[CaptionRow]:
    """Greedy answers of the model that the server runs.

    Raises:
        UserError: the server refuses, or fails as often as it may be tried; what was answered before is kept.
    """
    settings, server = task.stage.captions, task.server
    assert server is not None, "the configuration is refused that has no server"
    captioner = f"{settings.model}@{settings.revision}"
    shaped_by = (settings.prompt, str(settings.frames), str(settings.max_new_tokens), settings.send)
    kept = Kept(task, captioner, *shaped_by, code_digest(__name__) + versions("opencv-python-headless", "av"))
    if todo := kept.missing():
        client = Client(settings, server, task.store)
        asyncio.run(client.ask_all(todo, kept.keep))
    return kept.rows()


class Client:
    """Asks one server.

    Args:
        settings: the model and what it is asked. server: where it is and how patient to be. store: of the clips.

    Raises:
        UserError: the environment lacks the key.
    """

    def __init__(self, settings: schema.Captions, server: schema.CaptionServer, store: Store):
        self.settings, self.server, self.store = settings, server, store
        self._key = key(server)
        self._model = needed(settings.model, "captions.model")
        self._said: dict[str, float] = {}

    async def ask_all(self, clips: list[ClipRow], keep: Callable[[ClipRow, Answer], None]) -> None:
        """Ask about every clip, ``server.concurrency`` at once. The first that fails for good ends the others."""
        headers = {"accept-encoding": "identity"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        together = self.server.concurrency
        limits = httpx2.Limits(max_connections=together, max_keepalive_connections=together)
        clips_left, done = iter(clips), asyncio.Queue[None]()

        async def work(http: httpx2.AsyncClient) -> None:
            for clip in clips_left:
                said = await self._ask(http, clip)
                await asyncio.to_thread(keep, clip, said)
                done.put_nowait(None)

        async def count() -> None:
            for _ in track(range(len(clips)), "captions"):
                await done.get()

        async with httpx2.AsyncClient(headers=headers, limits=limits, timeout=self.server.timeout) as http:
            tasks = [asyncio.ensure_future(work(http)) for _ in range(min(together, len(clips)))]
            tasks.append(asyncio.ensure_future(count()))
            try:
                await asyncio.gather(*tasks)
            finally:
                for one in tasks:
                    one.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, http: httpx2.AsyncClient, clip: ClipRow) -> Answer:
        body = await asyncio.to_thread(self._question, clip)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Retry),
            stop=stop_after_attempt(self.server.attempts),
            wait=self._wait,
            before_sleep=self._tell,
            sleep=asyncio.sleep,
            reraise=True,
        )
        try:
            return await retrying(self._once, http, body, clip)
        except Retry as error:
            raise UserError(
                f"captions.server: {self.server.url} failed {self.server.attempts} times for clip {clip.clip_id} "
                f"(last: {error}); look at the server, then give the same command again: what was answered is kept"
            ) from None

    def _question(self, clip: ClipRow) -> bytes:
        """The body of the request."""
        parts: list[dict[str, Any]]
        if self.settings.send == "video":
            video = self.store.checked(clip.path, clip.sha256).read_bytes()
            parts = [{"type": "video_url", "video_url": {"url": _inline("video/mp4", video)}}]
        else:
            frames = read_stored(self.store, clip.path, clip.sha256)
            parts = [
                {"type": "image_url", "image_url": {"url": _inline("image/jpeg", _jpeg(frame))}}
                for frame in frames[evenly(len(frames), self.settings.frames)]
            ]
        parts.append({"type": "text", "text": self.settings.prompt})
        return json.dumps(
            {
                "model": self._model,
                "messages": [{"role": "user", "content": parts}],
                "max_tokens": self.settings.max_new_tokens,
                "temperature": 0,
            }
        ).encode()

    async def _once(self, http: httpx2.AsyncClient, body: bytes, clip: ClipRow) -> Answer:
        url = f"{self.server.url.rstrip('/')}/chat/completions"
        try:
            async with (
                asyncio.timeout(self.server.timeout),
                http.stream("POST", url, content=body, headers={"content-type": "application/json"}) as response,
            ):
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > LARGEST:
                        raise Retry(f"its answer has more than {LARGEST} bytes")
        except TimeoutError:
            raise Retry(f"no whole answer within {self.server.timeout:g} s (captions.server.timeout)") from None
        except httpx2.TimeoutException:
            raise Retry(f"no answer within {self.server.timeout:g} s (captions.server.timeout)") from None
        except httpx2.TransportError as error:
            raise Retry(self._cleared(error) or type(error).__name__) from None
        status = response.status_code
        if status in LATER or status >= 500:
            raise Retry(f"HTTP {status}: {self._cleared(_message(content))}", _asked(response.headers))
        if status != 200:
            raise UserError(self._refused(status, self._cleared(_message(content)), clip))
        return _answered(content)

    def _refused(self, status: int, message: str, clip: ClipRow) -> str:
        what = f"captions.server: {self.server.url} answers HTTP {status} to clip {clip.clip_id}: {message}"
        if status in (401, 403):
            held = f"the variable {self.server.key_env} holds no key that it takes" if self._key else "it wants a key"
            return f"{what}; {held} ({KEY} names the variable)"
        if status in (301, 302, 303, 307, 308):
            return f"{what}; give the address that it moved to as captions.server.url"
        if status == 404:
            return f"{what}; captions.model has to be a name that it serves, captions.server.url ends as in /v1"
        return f"{what}; captions.frames, captions.send and captions.max_new_tokens say what is asked of it"

    def _wait(self, state: RetryCallState) -> float:
        """Seconds: doubled from one on with a random part, or what the server asked for, both up to a limit."""
        assert state.outcome is not None
        error = state.outcome.exception()
        most = self.server.longest_wait
        spread = wait_exponential_jitter(initial=min(1.0, most), max=most, jitter=min(1.0, most))(state)
        return min(most, max(spread, error.after if isinstance(error, Retry) else 0.0))

    def _tell(self, state: RetryCallState) -> None:
        """A line for each reason, and again after half a minute."""
        assert state.outcome is not None
        reason, now = str(state.outcome.exception()), time.monotonic()
        if now - self._said.get(reason, -60.0) > 30:
            self._said[reason] = now
            print(
                f"captions: {self.server.url}: {reason}; trying again (try {state.attempt_number} of "
                f"{self.server.attempts} for this clip)",
                file=sys.stderr,
                flush=True,
            )

    def _cleared(self, text: object) -> str:
        """On one line and without the key, which a server may repeat."""
        line = one_line(text)
        return line.replace(self._key, "***") if self._key else line


def key(server: schema.CaptionServer) -> str:
    """The key, from the environment alone; empty if none is wanted.

    Raises:
        UserError: the environment does not have it, or it cannot be sent.
    """
    if server.key_env is None:
        return ""
    value = os.environ.get(server.key_env, "").strip()
    if not value:
        raise UserError(f"{KEY}: the environment has no variable {server.key_env}, or it is empty; export it")
    if not (value.isascii() and value.isprintable()):
        raise UserError(f"{KEY}: the variable {server.key_env} holds characters that no key has")
    return value


def _answered(content: bytes | bytearray) -> Answer:
    try:
        choice = json.loads(content)["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Retry(f"its answer is none: {one_line(_text(content))[:80]}") from None
    if not isinstance(text, str | None):
        raise Retry(f"its answer holds no text: {one_line(text)[:80]}")
    return Answer(text or "", reason == "length")


def _message(content: bytes | bytearray) -> str:
    """What an error's body says."""
    try:
        told = json.loads(content)
        told = told.get("error", told)
        return str(told.get("message", told) if isinstance(told, dict) else told)
    except (ValueError, AttributeError, RecursionError):
        return _text(content)


def _text(content: bytes | bytearray) -> str:
    return bytes(content[:2000]).decode(errors="replace")


def _asked(headers: httpx2.Headers) -> float:
    """Seconds by ``Retry-After`` (RFC 9110, section 10.2.3): a number or a date; 0 if it says nothing."""
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _jpeg(frame: Any) -> bytes:
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return bytes(encoded)


def _inline(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
