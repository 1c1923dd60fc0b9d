"""The page's server, on loopback alone: a WSGI application of a few routes, by werkzeug.

Who may ask: whoever knows the token, from this machine, by a name of this machine, and not from another site's page.
What the page is told says nothing of which model made what: items have names drawn by chance, sides are put in order
here, and videos are sent without name, date and ETag.
"""

import hmac
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import av
import cv2
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import BadRequest, Conflict, Forbidden, HTTPException, NotFound, UnsupportedMediaType
from werkzeug.routing import Map, Rule
from werkzeug.sansio.utils import host_is_trusted
from werkzeug.wrappers import Request as _Request
from werkzeug.wrappers import Response
from werkzeug.wsgi import wrap_file

from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.store import Store
from regdpo.rate.answers import Answer, Answers, rater_name
from regdpo.rate.forms import FORMS
from regdpo.rate.items import Item, Turn, turns

LOOPBACK = ("127.0.0.1", "localhost")
FILES = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
ROUTES = Map(
    [
        Rule("/", endpoint="page", methods=["GET"]),
        Rule("/<any('page.css', 'page.js'):name>", endpoint="file", methods=["GET"]),
        Rule("/media/<string(length=16):name>/<any(left, right, first):which>", endpoint="media", methods=["GET"]),
        Rule("/api/next", endpoint="next", methods=["POST"]),
        Rule("/api/answer", endpoint="answer", methods=["POST"]),
        Rule("/api/undo", endpoint="undo", methods=["POST"]),
    ],
    merge_slashes=False,
)
UNKNOWN = (
    "This address lacks the token, or has another: open the one that was printed in the terminal where the page was "
    "started. No answer is lost."
)


class Request(_Request):
    max_content_length = 4096


class Asked(BaseModel):
    """Who asks, and for which form."""

    model_config = ConfigDict(extra="forbid")
    rater: str = Field(min_length=1, max_length=60)
    form: Literal["pair", "clip"]


class Given(Asked):
    """An answer as the page sends it: by the side, not by the model. ``skip``: it could not be shown."""

    item: str = Field(max_length=16)
    axis: str = Field(max_length=20)
    answer: str = Field(max_length=10)
    seconds: float = Field(ge=0, le=86400, allow_inf_nan=False)


class Application:
    """The WSGI application.

    Args:
        items: what is shown. seed: of orders and sides.
    """

    def __init__(self, answers: Answers, items: Sequence[Item], store: Store, seed: int):
        self.answers, self.store, self.seed = answers, store, seed
        self.token = answers.token
        self.cookie = self.cookie_of(self.token)
        self.names = answers.names(items)
        self.items = {form: [item for item in items if item.form == form] for form in FORMS}
        self._turns = lru_cache(maxsize=256)(self._order)

    @staticmethod
    def cookie_of(token: str) -> str:
        """Name of the cookie, one a database: ports of a machine share their cookies."""
        return f"regdpo_rate_{text_digest(token)[:8]}"

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        try:
            response = self._respond(request)
        except HTTPException as error:
            response = _refused(request, error.code or 500, error.description or "")
            response.headers.extend(header for header in error.get_headers() if header[0] == "Content-Range")
        except UserError as error:  # a video is missing or damaged, or the answers cannot be written
            print(f"error: {error}", file=sys.stderr)
            response = _refused(request, 503, "The server cannot do this now; its terminal says why.")
        response.headers.extend(HEADERS)
        return response(environ, start_response)

    def _respond(self, request: Request) -> Response:
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        if not host_is_trusted(host, LOOPBACK):
            raise Forbidden("This page is served to 127.0.0.1 and localhost alone.")
        if origin not in (None, f"http://{host}"):
            raise Forbidden("Another site's page may not ask here.")
        endpoint, values = ROUTES.bind_to_environ(request.environ).match()
        if endpoint == "page" and "token" in request.args and self._knows(request.args["token"]):
            response = Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/"})
            response.set_cookie(self.cookie, self.token, max_age=30 * 24 * 3600, httponly=True, samesite="Lax")
            return response
        if not self._knows(request.cookies.get(self.cookie, "")):
            raise Forbidden(UNKNOWN)
        answer: Callable[..., Response] = getattr(self, f"_{endpoint}")
        return answer(request, **values)

    def _knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())

    def _page(self, request: Request) -> Response:
        return self._file(request, "page.html")

    def _file(self, request: Request, name: str) -> Response:
        return Response((Path(__file__).parent / name).read_bytes(), content_type=f"{FILES[name]}; charset=utf-8")

    def _media(self, request: Request, name: str, which: str) -> Response:
        turn = self._turn(_rater(request.args.get("rater", "")), name)
        if which == "first":
            if turn.item.task != "i2v":
                raise NotFound("There is no first frame.")
            return Response(_first_frame(self.store.existing(turn.item.real)), content_type="image/png")
        video = turn.side(which)
        path = self.store.checked(video.path, video.sha256)
        size = path.stat().st_size
        body = wrap_file(request.environ, path.open("rb"))
        response = Response(
            body, content_type="video/mp4", direct_passthrough=True, headers={"Content-Length": str(size)}
        )
        return response.make_conditional(request.environ, accept_ranges=True, complete_length=size)

    def _next(self, request: Request) -> Response:
        asked = _body(request, Asked)
        return self._state(_rater(asked.rater), asked.form)

    def _answer(self, request: Request) -> Response:
        given = _body(request, Given)
        rater = _rater(given.rater)
        turn, form = self._turn(rater, given.item), FORMS[given.form]
        known = turn.item.form == given.form and given.axis in [it.axis for it in form.questions]
        if not known or given.answer not in ("skip", *(value for value, _ in form.answers)):
            raise BadRequest("There is no such question, or no such answer.")
        answer, left = given.answer, ""
        if turn.item.b:
            left = "b" if turn.swapped else "a"
            answer = {"left": left, "right": "a" if left == "b" else "b"}.get(answer, answer)
        self.answers.add([Answer(rater, turn.item.key, given.axis, answer, left, given.seconds)])
        return self._state(rater, given.form)

    def _undo(self, request: Request) -> Response:
        asked = _body(request, Asked)
        rater = _rater(asked.rater)
        given, shown = self.answers.given(rater), {turn.item.key for turn in self._turns(rater, asked.form)}
        last = next((key for key in reversed(given) if key in shown), None)
        if last is None:
            raise Conflict("There is nothing to take back.")
        self.answers.add([Answer(rater, last, list(given[last])[-1], None)])
        return self._state(rater, asked.form)

    def _state(self, rater: str, name: str) -> Response:
        """How far a rater is, and what is to be answered next."""
        form, order, given = FORMS[name], self._turns(rater, name), self.answers.given(rater)
        left = [turn for turn in order if len(given.get(turn.item.key, ())) < len(form.questions)]
        state: dict[str, Any] = {
            "title": form.title,
            "questions": [asdict(it) for it in form.questions],
            "answers": form.answers,
            "done": len(order) - len(left),
            "of": len(order),
            "undo": any(turn.item.key in given for turn in order),
            "item": self._shown(rater, left[0], given) if left else None,
        }
        return Response(json.dumps(state), content_type="application/json")

    def _shown(self, rater: str, turn: Turn, given: dict[str, dict[str, str]]) -> dict[str, Any]:
        """An item as the page may know it."""
        sides = ("left", "right")[: len(turn.item.videos)]
        said = given.get(turn.item.key, {})
        flip = {"a": sides[turn.swapped], "b": sides[not turn.swapped]} if turn.item.b else {}
        return {
            "name": self.names[turn.item.key],
            "prompt": turn.item.caption,
            "first": turn.item.task == "i2v",
            "sides": sides,
            "said": {axis: flip.get(answer, answer) for axis, answer in said.items()},
        }

    def _turn(self, rater: str, name: str) -> Turn:
        for form in FORMS:
            for turn in self._turns(rater, form):
                if self.names[turn.item.key] == name:
                    return turn
        raise NotFound("This is not shown any more; load the page again.")

    def _order(self, rater: str, form: str) -> list[Turn]:
        return turns(self.items[form], self.seed, rater)


def _rater(name: str) -> str:
    try:
        return rater_name(name)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _body(request: Request, model: type[Any]) -> Any:
    """Raises UnsupportedMediaType, BadRequest, and RequestEntityTooLarge."""
    if request.mimetype != "application/json":  # a form of another site can send no such thing unasked
        raise UnsupportedMediaType("Send JSON.")
    try:
        return model.model_validate_json(request.get_data())
    except ValidationError as error:
        item = error.errors()[0]
        raise BadRequest(f"{'.'.join(map(str, item['loc'])) or 'the body'}: {item['msg']}") from None


def _refused(request: Request, code: int, what: str) -> Response:
    if request.path.startswith("/api/"):
        return Response(json.dumps({"error": what}), status=code, content_type="application/json")
    return Response(f"{what}\n", status=code, content_type="text/plain; charset=utf-8")


@lru_cache(maxsize=64)
def _first_frame(path: Path) -> bytes:
    with av.open(os.fspath(path), options={"protocol_whitelist": "file"}) as container:
        frame = next(container.decode(video=0))
        return bytes(cv2.imencode(".png", frame.to_ndarray(format="bgr24"))[1])
