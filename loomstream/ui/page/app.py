"""The page as an ASGI application: its files, its conversations as JSON, its answers as server-sent events.

Contract: paths and JSON alone; `guard` has looked at every request before, `chat` decides. Every refusal is a JSON
`Problem` that the page shows in place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import TypeVar
from urllib.parse import parse_qs

import anyio.to_thread
import msgspec
from msgspec import Struct

from loomstream.agent.toolbox import GivenTools
from loomstream.errors import ConfigError, LimitExceeded, LoomstreamError, RequestError, UsageError
from loomstream.messages import RequestOptions
from loomstream.ui.formats import describe
from loomstream.ui.page.chat import Chat, Connect
from loomstream.ui.page.choices import ModelChoice, choices
from loomstream.ui.page.guard import MAX_BODY_BYTES, Guard
from loomstream.ui.starlette import response

# Behind ours, which says what to install where they are missing:
from starlette.applications import Starlette  # isort: skip
from starlette.requests import Request  # isort: skip
from starlette.responses import RedirectResponse, Response  # isort: skip
from starlette.routing import Route  # isort: skip

_T = TypeVar("_T")
_FILES = {
    "index.html": "text/html; charset=utf-8",
    "login.html": "text/html; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "favicon.svg": "image/svg+xml",
}
_MAX_ID_CHARS = 64

_STATUS: tuple[tuple[type[LoomstreamError], int], ...] = (
    (UsageError, 409),
    (LimitExceeded, 413),
    (ConfigError, 422),
    (RequestError, 422),
)
"""With which status a refusal goes out; 502 for any other."""


class Question(Struct, frozen=True, forbid_unknown_fields=True):
    """What the page sends: the user's text, and who is to answer."""

    text: str
    spec: str


class Offer(Struct, frozen=True):
    """Which models there are; the first one is chosen to begin with. Calls of the tools in `asks` wait for the user."""

    models: list[ModelChoice]
    asks: list[str]


class Name(Struct, frozen=True, forbid_unknown_fields=True):
    """What a conversation is to be called."""

    title: str


class Decided(Struct, frozen=True, forbid_unknown_fields=True):
    """The user's word on a call; `always_for` is the tool for which nobody is to be asked any more."""

    id: str
    allow: bool
    always_for: str = ""


Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(  # noqa: PLR0913 (all but the first are keyword-only)
    connect: Connect,
    *,
    token: str | None,
    port: int,
    first: str = "",
    only_loopback: bool = True,
    hosts: Iterable[str] = (),
    max_body_bytes: int = MAX_BODY_BYTES,
    options: RequestOptions | None = None,
    offer: Callable[[str], list[ModelChoice]] = choices,
    tools: GivenTools = (),
    asks: Collection[str] = (),
) -> Guard:
    """Give the page as an ASGI application.

    `connect` turns a spec into a model, `first` is the spec that is chosen to begin with, `options` go with every
    request. `tools` are what models may call, `asks` the names of those whose calls wait for the user's word. The
    others say who may come in; see `Guard`.
    """
    page = _Page(Chat(connect, options=options, tools=tools, asks=asks), first, offer)
    app = Starlette(routes=page.routes(), lifespan=page.lifespan)
    page.guard = Guard(
        app,
        token=token,
        port=port,
        only_loopback=only_loopback,
        hosts=hosts,
        max_body_bytes=max_body_bytes,
        stop=page.stop_all,
    )
    return page.guard


class _Page:
    def __init__(self, chat: Chat, first: str, offer: Callable[[str], list[ModelChoice]]) -> None:
        self._chat = chat
        self._first = first
        self._offer = offer
        self.guard: Guard | None = None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncGenerator[None]:
        del app
        async with self._chat:
            yield

    def stop_all(self) -> None:
        """Close every answer that is on its way."""
        self._chat.stop_all()

    def routes(self) -> list[Route]:
        one, said = "/api/conversations/{id}", "/api/conversations/{id}/messages"
        return [
            Route("/", _file("index.html")),
            Route("/login", _file("login.html"), methods=["GET"]),
            Route("/login", self.log_in, methods=["POST"]),
            *(Route(f"/{name}", _file(name)) for name in ("app.js", "style.css", "favicon.svg")),
            Route("/api/models", _typed(self.models)),
            Route("/api/conversations", _typed(self.conversations)),
            Route(one, _typed(self.rename), methods=["PATCH"]),
            Route(one, _typed(self.conversation), methods=["GET"]),
            Route(one, _typed(self.forget), methods=["DELETE"]),
            Route(said, _typed(self.ask), methods=["POST"]),
            Route("/api/answers/{key}/events", _typed(self.events)),
            Route("/api/answers/{key}/decisions", _typed(self.decide), methods=["POST"]),
            Route("/api/answers/{key}/stop", _typed(self.stop), methods=["POST"]),
        ]

    async def log_in(self, request: Request) -> Response:
        """Take the token from the form of `login.html`."""
        given = parse_qs((await request.body()).decode("utf-8", "replace")).get("token", [""])[0].strip()
        if self.guard is None or not self.guard.is_token(given):
            return RedirectResponse("/login#wrong", 303)
        name, value = self.guard.cookie()
        return RedirectResponse("/", 303, headers={name.decode(): value.decode()})

    async def models(self, request: Request) -> Response:
        del request
        found = await anyio.to_thread.run_sync(self._offer, self._first)
        return _json(Offer(found, sorted(self._chat.asks)))

    async def conversations(self, request: Request) -> Response:
        del request
        return _json(self._chat.entries())

    async def rename(self, request: Request) -> Response:
        named = await _body(request, Name)
        return _json(self._chat.rename(_id(request), named.title))

    async def conversation(self, request: Request) -> Response:
        return _json(self._chat.conversation(_id(request)))

    async def forget(self, request: Request) -> Response:
        self._chat.forget(_id(request))
        return Response(status_code=204)

    async def ask(self, request: Request) -> Response:
        question = await _body(request, Question)
        return _json(self._chat.ask(_id(request), question.text, question.spec), 201)

    async def events(self, request: Request) -> Response:
        broadcast = self._chat.answer(request.path_params["key"])
        return Response(status_code=204) if broadcast is None else response(broadcast)

    async def decide(self, request: Request) -> Response:
        said = await _body(request, Decided)
        self._chat.decide(request.path_params["key"], said.id, allow=said.allow, always_for=said.always_for)
        return Response(status_code=204)

    async def stop(self, request: Request) -> Response:
        self._chat.stop(request.path_params["key"])
        return Response(status_code=204)


def _typed(endpoint: Endpoint) -> Endpoint:
    """Turn an error into a response that says what it is."""

    async def typed(request: Request) -> Response:
        try:
            return await endpoint(request)
        except LoomstreamError as error:
            status = next((status for kind, status in _STATUS if isinstance(error, kind)), 502)
            return _json(describe(error), status)

    return typed


def _id(request: Request) -> str:
    found: str = request.path_params["id"]
    if len(found) > _MAX_ID_CHARS or not found.replace("-", "").isalnum():
        msg = "this is no conversation's id: up to 64 letters, digits and hyphens"
        raise RequestError(msg)
    return found


async def _body(request: Request, kind: type[_T]) -> _T:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        msg = "send JSON: content-type application/json"
        raise RequestError(msg)
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        msg = f"the request cannot be read: {error}"
        raise RequestError(msg) from None


def _json(value: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(value), status, media_type="application/json", headers={"cache-control": "no-store"}
    )


@cache
def _content(name: str) -> bytes:
    return files("loomstream.ui.page").joinpath("static", name).read_bytes()


def _file(name: str) -> Endpoint:
    async def send(request: Request) -> Response:
        del request
        return Response(_content(name), media_type=_FILES[name], headers={"cache-control": "no-cache"})

    return send
