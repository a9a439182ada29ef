"""A provider under observation: what `conformance` sees of it beside its events.

Contract: sends nothing by itself. The handler and the transport are watched from outside: which contexts are open,
which bytes came. `Lab` decodes bytes as the provider's own, offline.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Unpack

import msgspec
from msgspec import Struct

from loomstream.attempt import HTTPHandler
from loomstream.errors import Failure, MiddlewareError
from loomstream.events import Cost, Event, Usage
from loomstream.handler import Handler
from loomstream.messages import Prompt, Request, RequestOptions, Response, ToolCall, make_request
from loomstream.model import Model
from loomstream.pump import Pump
from loomstream.stream import Stream
from loomstream.testing.order import check_order
from loomstream.tools import with_tools
from loomstream.transport import ByteResponse, Transport
from loomstream.wire import WireRequest


class NotApplicable(Exception):
    """A check says nothing about this provider; the message says why."""


class Broken(Exception):
    """A promise is broken; the message says how."""


class Recorded(Struct, frozen=True):
    """The bytes of an answer, and what its head said."""

    response: ByteResponse
    body: bytes


class Subject:
    """The provider under test: its handler, watched, and the bytes of its answers."""

    def __init__(self, model: Model, prompt: str, tool_prompt: str, refused: Model | None, max_tokens: int) -> None:
        # What is tested is the innermost handler, under the model's own defaults.
        innermost, defaults = model._innermost, model._defaults  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self.model = model
        self.prompt = prompt
        self.tool_prompt = tool_prompt
        self.refused = refused
        self.options: RequestOptions = {"max_tokens": max_tokens, **defaults}
        self.tap: _Tap | None = None
        self.http: HTTPHandler | None = None
        if isinstance(innermost, HTTPHandler):
            self.tap = _Tap(innermost.transport)
            self.http = innermost = HTTPHandler(innermost.endpoint, self.tap)
        self.spy = _Spy(innermost)
        self.recorded: list[Recorded] = []
        self.response: Response | None = None
        self.tool_call: ToolCall | None = None
        self.called: Response | None = None

    def stream(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Stream:
        """Give a stream of the provider's own events; nothing is sent yet."""
        request = make_request(prompt, with_tools({**self.options, **options}))
        return Stream(self.spy, request, cost_of=_unknown_cost, provider=self.model.provider, model=self.model.model)

    async def read(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> tuple[list[Event], Response]:
        """Read an answer to its end, hold it to the order law, keep its bytes."""
        stream = self.stream(prompt, **options)
        async with stream:
            events = [event async for event in stream]
        self.check_closed()
        check_order(events)
        return events, stream.response

    def keep_bytes(self) -> None:
        """Keep the bytes of the last answer, where there are any."""
        if self.tap is not None and self.tap.last is not None:
            self.recorded.append(self.tap.last)

    def check_closed(self) -> None:
        """Raise `Broken` where something is still open."""
        if self.spy.open:
            msg = "the handler's context was not left with the stream"
            raise Broken(msg)
        if self.tap is not None and self.tap.open_responses:
            msg = "the response was still open after the stream was left"
            raise Broken(msg)

    def over_http(self) -> HTTPHandler:
        """Give the handler that speaks HTTP, or raise `NotApplicable`."""
        if self.http is None:
            msg = "a handler of its own gives events, not bytes"
            raise NotApplicable(msg)
        return self.http


def _unknown_cost(provider: str, model: str, usage: Usage | None) -> Cost:  # noqa: ARG001 (the signature of CostOf)
    return Cost(provider=provider, model=model)


class _Spy:
    """A handler that knows how many of its contexts are open, and the events of the last one."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.open = 0
        self.events: AsyncIterator[Event] | None = None

    def __call__(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return _Watched(self, self._handler(request))


class _Watched:
    def __init__(self, spy: _Spy, context: AbstractAsyncContextManager[AsyncIterator[Event]]) -> None:
        self._spy = spy
        self._context = context

    async def __aenter__(self) -> AsyncIterator[Event]:
        self._spy.events = await self._context.__aenter__()
        self._spy.open += 1
        return self._spy.events

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        end = await self._context.__aexit__(kind, error, trace)
        self._spy.open -= 1
        return end


class _Tap:
    """A transport that keeps the bytes of the last response."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._response: ByteResponse | None = None
        self._chunks: list[bytes] = []
        self.open_responses = 0

    @property
    def last(self) -> Recorded | None:
        return None if self._response is None else Recorded(self._response, b"".join(self._chunks))

    @asynccontextmanager
    async def open(self, wire_request: WireRequest, *, connect_s: float | None = None) -> AsyncGenerator[ByteResponse]:
        async with self._inner.open(wire_request, connect_s=connect_s) as response:
            self._response, self._chunks = response, []
            self.open_responses += 1
            try:
                yield msgspec.structs.replace(response, chunks=_Copied(response.chunks, self._chunks))
            finally:
                self.open_responses -= 1

    async def prepare(self, url: str) -> None:
        await self._inner.prepare(url)

    async def aclose(self) -> None:
        """The transport stays its model's to close."""


class _Copied:
    def __init__(self, chunks: AsyncIterator[bytes], copy: list[bytes]) -> None:
        self._chunks = chunks
        self._copy = copy

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._chunks.__anext__()
        self._copy.append(chunk)
        return chunk


class Lab:
    """Decodes bytes as the provider's, again and again; offline."""

    def __init__(self, http: HTTPHandler) -> None:
        self._http = http

    async def pump(self, response: ByteResponse | None = None) -> Pump:
        """Give a pump for one more answer of this provider."""
        target, _ = await self._http.endpoint.resolve()
        return Pump(
            dialect=self._http.dialect,
            target=target,
            expected=self._http.framing,
            content_type=response.headers.get("content-type", "") if response else "",
            headers=response.headers if response else None,
        )

    async def run(self, pieces: Iterable[bytes], response: ByteResponse | None = None) -> tuple[list[Event], str]:
        """Give the events, and the name of the error that ended them; hold them to the order law."""
        pump = await self.pump(response)
        out: list[Event | Failure] = []
        for piece in pieces:
            out += pump.feed(piece)
        out += pump.finish()
        events = [event for event in out if not isinstance(event, Failure)]
        errors = [event.error for event in out if isinstance(event, Failure)]
        for error in errors:
            if isinstance(error, MiddlewareError):
                raise Broken(str(error)) from error
        check_order(events, complete=not errors)
        return events, type(errors[0]).__name__ if errors else ""
