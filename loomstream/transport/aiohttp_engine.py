"""aiohttp as the engine under httpx, on asyncio.

Contract: a lane belongs to one event loop. It sends an `httpx.Request` and gives an `httpx.Response` whose body is an
`AsyncByteStream` that is read directly; every error is a `LoomstreamError`, mapped by the phase in which it came.
Nothing that aiohttp does by itself is left on: total time-out, redirects, cookies, netrc, proxies from the
environment, automatic headers, decompression, connection limit, URL rewriting. Leans on these parts of aiohttp 3.14
that are not public: `TCPConnector._factory` and `_get`, `ResponseHandler._payload` and `_exception`,
`StreamReader._read_nowait`, `_buffer`, `_eof`, `_waiter`, `_loop` and `_protocol`.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import aiohttp
import anyio
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import _EXC_SENTINEL as _NO_CAUSE  # pyright: ignore[reportPrivateUsage] (a default to pass on)
from yarl import URL

from loomstream.errors import LoomstreamError
from loomstream.transport.faults import Peer, translate
from loomstream.transport.http import BODY
from loomstream.transport.route import Route
from loomstream.transport.sockets import make_socket

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest, ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_AUTOMATIC_HEADERS = ("user-agent", "accept", "accept-encoding", "content-type")
_MAX_HEADER_BYTES = 64 * 1024
_MAX_HEADERS = 256
_LARGE_BODY_BYTES = 1024 * 1024  # aiohttp warns about bytes of this size and wants a file
_NO_THRESHOLD = float("inf")  # aiohttp rounds time-outs above its threshold up to whole seconds


class _Attempt:
    """What the connector and the caller tell each other about one try."""

    __slots__ = ("failure", "fresh", "handler", "peer", "reused")

    def __init__(self, peer: Peer, *, fresh: bool) -> None:
        self.peer = peer
        self.fresh = fresh
        self.reused = False
        self.handler: _Handler | None = None
        self.failure: LoomstreamError | None = None

    @property
    def may_repeat(self) -> bool:
        """Whether a kept connection turned out to be dead: no byte of an answer came over it."""
        return self.reused and self.handler is not None and not self.handler.answered


_attempt: ContextVar[_Attempt] = ContextVar("loomstream.attempt")


class _Handler(ResponseHandler):
    """aiohttp's protocol; knows whether bytes of an answer came, and tells the reader of malformed chunks."""

    used = False
    answered = False

    def expect_answer(self) -> None:
        """Watch for the next answer's first bytes; later ones go to aiohttp without a detour."""
        self.answered = False
        self.data_received = self._receive_first

    def _receive_first(self, data: bytes) -> None:
        self.answered = True
        del self.data_received
        self.data_received(data)

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _NO_CAUSE) -> None:
        """Pass an error on to the body's reader too.

        aiohttp's C parser reports malformed chunks to the reader of the next response only: this one waits for ever.
        """
        super().set_exception(exc, exc_cause)
        if self._payload is not None and not self._payload.is_eof() and self._payload.exception() is None:
            self._payload.set_exception(exc)


class _Connector(aiohttp.TCPConnector):
    """Names the phase of a failure, notices reuse, and can be told to leave its kept connections alone."""

    def __init__(self, *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout, socket_factory=make_socket)  # pyright: ignore[reportUnknownMemberType] (an alias of another package)
        self._factory = partial(_Handler, loop=self._loop)
        self._skip_kept = False

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 (aiohttp's signature)
    ) -> Connection:
        attempt = _attempt.get()
        self._skip_kept = attempt.fresh  # `_get` runs before the first await of `connect`
        try:
            connection = await super().connect(req, traces, timeout)
        except Exception as error:
            attempt.failure = translate(error, "connect", attempt.peer)
            raise
        handler = connection.protocol
        assert isinstance(handler, _Handler)  # noqa: S101 (for the type checker: the factory makes no other)
        attempt.reused, handler.used = handler.used, True
        attempt.handler = handler
        handler.expect_answer()
        return connection

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        if self._skip_kept:
            self._skip_kept = False
            return None
        return await super()._get(key, traces)


class AiohttpLane:
    """The connections of one asyncio loop; see the module's contract. Must be made while the loop runs."""

    def __init__(self, *, max_connections: int | None, keepalive_expiry_s: float) -> None:
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=max_connections or 0, keepalive_timeout=keepalive_expiry_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=_AUTOMATIC_HEADERS,
            auto_decompress=False,
            trust_env=False,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADERS,
        )

    async def send(self, request: httpx.Request, route: Route) -> httpx.Response:
        """Send a request; the response's body is still to be read.

        A kept connection that turns out to be dead before any byte of the answer came is replaced by a fresh one, once.
        """
        peer = route.peer
        attempt = _Attempt(peer, fresh=False)
        response = await self._try(attempt, request, route)
        if isinstance(response, LoomstreamError) and attempt.may_repeat:
            response = await self._try(_Attempt(peer, fresh=True), request, route)
        if isinstance(response, LoomstreamError):
            raise response
        body = Body(response, peer)
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=body,
            extensions={"http_version": b"HTTP/1.1", BODY: body},
        )

    async def _try(
        self, attempt: _Attempt, request: httpx.Request, route: Route
    ) -> aiohttp.ClientResponse | LoomstreamError:
        """Give the failure instead of raising it: aiohttp's frames hold the headers, a traceback would keep them."""
        token = _attempt.set(attempt)
        try:
            return await self._request(request, route)
        except Exception as error:  # noqa: BLE001 (RuntimeError and ValueError come out of aiohttp as well)
            return attempt.failure or translate(error, "headers", attempt.peer)
        finally:
            _attempt.reset(token)

    async def _request(self, request: httpx.Request, route: Route) -> aiohttp.ClientResponse:
        proxy = route.proxy
        headers = [(name.decode(), value.decode()) for name, value in request.headers.raw]
        proxy_headers: dict[str, str] | None = None
        if proxy is not None and proxy.authorization is not None:
            proxy_headers = {"Proxy-Authorization": proxy.authorization.reveal()}
            if request.url.scheme == "http":  # no CONNECT: the proxy reads the request itself
                headers.extend(proxy_headers.items())
        content = request.content
        return await self._session.request(
            request.method,
            _as_written(str(request.url)),
            headers=headers,
            data=io.BytesIO(content) if len(content) >= _LARGE_BODY_BYTES else content or None,
            allow_redirects=False,
            timeout=_connect_limit(request),
            ssl=True if route.context is None else route.context,
            proxy=None if proxy is None else proxy.url,
            proxy_headers=proxy_headers,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()


@lru_cache(maxsize=256)
def _as_written(url: str) -> URL:
    """Give the URL without yarl's rewriting, which turns %3A into a colon and breaks signatures."""
    return URL(url, encoded=True)


def _connect_limit(request: httpx.Request) -> aiohttp.ClientTimeout:
    limits: dict[str, float | None] = request.extensions.get("timeout", {})
    return aiohttp.ClientTimeout(total=None, connect=limits.get("connect"), ceil_threshold=_NO_THRESHOLD)


class Body(httpx.AsyncByteStream):
    """The body of a response, read straight from aiohttp's buffer."""

    def __init__(self, response: aiohttp.ClientResponse, peer: Peer) -> None:
        self._response = response
        self._peer = peer
        self._content = response.content
        self._taken_bytes = 0
        self._failure: LoomstreamError | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        failure = self._failure
        if failure is None:
            try:
                content = self._content
                if not content._buffer and not content._eof:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (see `_arrival`)
                    await self._arrival(content)
                data = content._read_nowait(-1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (no public way)
            except Exception as error:  # noqa: BLE001 (RuntimeError and ValueError come out of aiohttp as well)
                data = self._fail(error)
            if data:
                self._taken_bytes += len(data)
                return data
            failure = self._failure
        if failure is None:
            raise StopAsyncIteration
        raise failure

    async def _arrival(self, content: aiohttp.StreamReader) -> None:
        """Wait until bytes, the end or an error have come.

        What `readany` does, less two coroutines and a timer that is never set, for each read.
        """
        while not content._buffer and not content._eof:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (no public way)
            failure = content.exception()
            if failure is not None:
                raise failure
            if not content._protocol.connected or content._waiter is not None:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (the same)
                await content.readany()  # which says what is wrong
            waiter = content._waiter = content._loop.create_future()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (the same)
            try:
                await waiter
            finally:
                content._waiter = None  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (the same)

    def _fail(self, error: Exception) -> bytes:
        """Keep the failure for the next read; give first what had arrived before it, which aiohttp would drop."""
        self._failure = translate(error, "body", self._peer)
        return self._content._read_nowait(-1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (no public way)

    def wake(self, error: Exception) -> None:
        """Make a read that waits raise the error, unless bytes have arrived for it."""
        if self._content.total_bytes == self._taken_bytes:
            self._content.set_exception(error)

    def at_end(self) -> bool:
        """Say whether the whole body has come and was read, so that the connection is free again."""
        return self._content.at_eof()

    async def aclose(self) -> None:
        """End the exchange; where the body was not read to its end, the connection too, before this returns."""
        connection = self._response.connection
        if connection is None:
            return
        if connection.transport is not None:
            connection.transport.abort()  # not `close`: TLS would first wait for the peer's goodbye
        self._response.close()
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()  # the socket closes one turn of the loop later
