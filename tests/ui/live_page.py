"""The page, served on loopback from a thread of its own, with a model whose answer the test lets go on."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Unpack

from held_models import HeldModel

from loomstream.errors import ConfigError, LoomstreamError
from loomstream.events import Event
from loomstream.messages import RequestOptions
from loomstream.ui.asgi import Message, Receive, Scope, Send
from loomstream.ui.page.app import make_app
from loomstream.ui.page.chat import Connect
from loomstream.ui.page.choices import ModelChoice
from loomstream.ui.page.guard import Guard
from loomstream.ui.page.server import bind, make_server

TOKEN = "token-of-the-tests-0123456789"
OFFER = [ModelChoice("acme:weaver-1", "acme", "weaver-1"), ModelChoice("other:loom-2", "other", "loom-2")]


class PageModel(HeldModel):
    """A `HeldModel` that can be closed, as the page does."""

    async def aclose(self) -> None:
        pass

    def stream(self, prompt: object = "Hi", **options: object) -> object:  # type: ignore[override]
        del options
        return super().stream(prompt)


class Cutter:
    """A proxy that gives up: it cuts the first streams of events after so many bytes, in the middle of a frame."""

    def __init__(self, app: Guard, cuts: list[int], asked: list[str | None]) -> None:
        self._app = app
        self._cuts = cuts
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope.get("path", "").endswith("/events"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        self._asked.append(headers[b"last-event-id"].decode("latin-1") if b"last-event-id" in headers else None)
        left = self._cuts.pop(0) if self._cuts else sys.maxsize

        async def cut(message: Message) -> None:
            nonlocal left
            body = message.get("body", b"")
            await send({**message, "body": body[:left]} if body else message)
            left -= len(body)
            if left <= 0:
                raise ConnectionAbortedError

        await self._app(scope, receive, cut)


class LivePage:
    def __init__(self, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.cuts: list[int] = []
        """After how many bytes the next streams of events are cut."""
        self.asked: list[str | None] = []
        """The `Last-Event-ID` of each request for a stream of events."""
        self.url = f"http://127.0.0.1:{port}"
        self.entrance = f"{self.url}/?token={TOKEN}"
        self._loop = loop
        self.models: dict[str, PageModel] = {}

    def connect(self, spec: str) -> PageModel:
        if not spec.startswith(("acme:", "other:")):
            msg = f"{spec!r} names no provider: write provider:model-id"
            raise ConfigError(msg)
        return self.models.setdefault(spec, PageModel())

    def do(self, action: Callable[[], object]) -> None:
        """Run something in the server's event loop, and wait for it."""
        done = threading.Event()

        def run() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(5)

    def give(self, *items: Event | LoomstreamError, spec: str = "acme:weaver-1", end: bool = False) -> None:
        model = self.models[spec]
        self.do(lambda: model.give(*items))
        if end:
            self.do(model.end)


@contextmanager
def live_page(
    connect: Connect | None = None,
    *,
    offer: Sequence[ModelChoice] = OFFER,
    functions: Mapping[str, Callable[..., object]] | None = None,
    **options: Unpack[RequestOptions],
) -> Iterator[LivePage]:
    loop = asyncio.new_event_loop()
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        page = LivePage(port, loop)
        ready = threading.Event()
        app = make_app(
            connect or page.connect,
            token=TOKEN,
            port=port,
            offer=lambda _: list(offer),
            options=options,
            tools=list((functions or {}).values()),
            asks=list(functions or {}),
        )
        server = make_server(Cutter(app, page.cuts, page.asked), started=ready.set, stop=app.stop)
        thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(sockets=[bound])))
        thread.start()
        try:
            assert ready.wait(10)
            yield page
        finally:
            server.should_exit = True
            thread.join(10)
            loop.close()
        assert not thread.is_alive()
