"""Our own engine on asyncio: aiohttp's connections and its parser, without its session.

Contract: a lane belongs to one event loop. aiohttp makes and keeps the connections (name look-up, happy eyeballs, TLS,
proxies, the pool) and parses the answers; the request is written here, in one piece where it is small. Nothing of what
a session adds exists: redirects, cookies, netrc, automatic headers, decompression, total time-out, URL rewriting. Every
error is a `LoomstreamError`, mapped by the phase in which it came. Leans on these parts of aiohttp 3.14 that are not
public: `ClientRequest`, `TCPConnector.connect`, `_create_connection`, `_factory` and `_get`,
`ResponseHandler.set_response_params`, `read`, `should_close`, `_payload`, `_exception` and `_reading_paused`,
`StreamReader._buffer`, `_size`, `_high_water`, `_eof`, `_waiter`, `_loop` and `_protocol`, and that a reader may change
its class; and on `max_size` of asyncio's selector transports.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import aiohttp
import anyio
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.helpers import _EXC_SENTINEL as _NO_CAUSE  # pyright: ignore[reportPrivateUsage] (a default to pass on)
from aiohttp.helpers import TimerNoop
from aiohttp.streams import EMPTY_PAYLOAD
from yarl import URL

from loomstream.errors import LoomstreamError
from loomstream.transport.connecting import timed_connection
from loomstream.transport.faults import Peer, translate
from loomstream.transport.foreign import plain
from loomstream.transport.route import RECONNECTED, Outgoing, Route
from loomstream.transport.sockets import has_news, make_socket

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage
    from aiohttp.tracing import Trace

_MAX_HEADER_BYTES = 64 * 1024
_MAX_HEADERS = 256
_MAX_WAYS = 256
_ONE_PIECE_BYTES = 64 * 1024  # a larger body is not copied behind its head
_NO_THRESHOLD = float("inf")  # aiohttp rounds time-outs above its threshold up to whole seconds
_READ_BYTES = 64 * 1024
"""asyncio takes 256 KiB for each read, which glibc maps anew each time: 20 µs, most of what an event costs."""
_NO_TIMER = TimerNoop()
_END_OF_HEAD = b"\r\n\r\n"
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods whose empty body has no length (RFC 9110 section 8.6)."""
_INTERIM = range(100, 200)
_SWITCHING_PROTOCOLS = 101
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_WRITTEN = re.compile(r"(?!.*/\.)https?://[\w.:\[\]-]+(?:[/?][\w!$%&'()*+,./:;=?@~-]*)?", re.ASCII)
"""URLs that every HTTP client writes as they are."""


class _Handler(ResponseHandler):
    """aiohttp's protocol; knows whether bytes of an answer came, and tells the reader of malformed chunks."""

    used = False
    answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, and read less at once than asyncio does by itself (see `_READ_BYTES`)."""
        super().connection_made(transport)
        if hasattr(transport, "max_size"):
            transport.max_size = _READ_BYTES  # pyright: ignore[reportAttributeAccessIssue] (asyncio's selector transports)

    def expect_answer(self) -> None:
        """Watch for the next answer's first bytes; later ones go to aiohttp without a detour."""
        self.answered = False
        self.data_received = self._receive_first

    def _receive_first(self, data: bytes) -> None:
        """Give the head to the parser before the body, so that the body's reader is ours when its first bytes come."""
        self.answered = True
        del self.data_received
        head, end, rest = data.partition(_END_OF_HEAD)
        self.data_received(head + end)
        if self._payload is not None:
            _as_body(self._payload)
        if rest and self.exception() is None:
            self.data_received(rest)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 (aiohttp's signature)
        """Resume where something was paused: it is asked for after each read, and aiohttp would parse no bytes anew."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def _reschedule_timeout(self) -> None:
        """Set no timer at each read: aiohttp is asked for no read time-out, the limits are the Watch's."""

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _NO_CAUSE) -> None:
        """Pass an error on to the body's reader too.

        aiohttp's C parser reports malformed chunks to the reader of the next response only: this one waits for ever.
        """
        super().set_exception(exc, exc_cause)
        if self._payload is not None and not self._payload.is_eof() and self._payload.exception() is None:
            self._payload.set_exception(exc)


_nothing = type(None)
"""Does nothing and gives None; called from C, as by the parser for each HTTP chunk, it costs half of a function."""


class _Body(aiohttp.StreamReader):
    """aiohttp's reader of a body, less the books that it keeps for readers of some bytes and of single HTTP chunks.

    Nobody here is one. The parser makes a plain reader, which becomes one of these when the head has been read.
    """

    __slots__ = ()

    def feed_data(self, data: bytes, size: int = 0) -> bool:  # noqa: ARG002 (aiohttp's signature)
        """Take bytes from the parser; wake who waits for them."""
        if data:
            self._buffer.append(data)
            held = self._size = self._size + len(data)
            if self._waiter is not None:
                waiter, self._waiter = self._waiter, None
                if not waiter.done():
                    waiter.set_result(None)
            if held > self._high_water:
                self._protocol.pause_reading()
        return False

    begin_http_chunk_receiving = _nothing  # where a chunk begins is of no interest
    end_http_chunk_receiving = _nothing  # its bytes have woken who waits

    def arrival(self) -> asyncio.Future[None] | None:
        """Give what ends when bytes, the end or an error have come; None where bytes or the end are there.

        What `readany` does, less three coroutines and a timer that is never set, for each read.
        """
        if self._buffer or self._eof:
            return None
        if self._exception is not None:
            raise self._exception
        if self._protocol.transport is None or self._waiter is not None:
            raise ConnectionError
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def leave(self) -> None:
        """Say that nobody waits any more."""
        self._waiter = None

    def take(self) -> bytes:
        """Give all bytes that have come."""
        pieces = self._buffer
        if not pieces:
            return b""
        data = b"".join(pieces)
        while pieces:  # `clear` takes another block of memory, for each stream
            pieces.popleft()
        self._size = 0
        if self._protocol._reading_paused:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] (see the contract)
            self._protocol.resume_reading()
        return data

    def wake(self, error: Exception) -> None:
        """Make a read that waits raise the error, unless bytes have arrived for it."""
        if not self._buffer:
            self.set_exception(error)


def _as_body(content: aiohttp.StreamReader) -> _Body | None:
    """Give the reader with our way to read; None for the one that stands for no body."""
    if content is EMPTY_PAYLOAD:
        return None
    content.__class__ = _Body
    assert isinstance(content, _Body)  # noqa: S101 (for the type checker)
    return content


class _Connector(aiohttp.TCPConnector):
    """Makes our handlers, and can be told to leave its kept connections alone."""

    def __init__(self, *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout, socket_factory=make_socket)  # pyright: ignore[reportUnknownMemberType] (an alias of another package)
        self._factory = partial(_Handler, loop=self._loop)
        self._skip_kept = False

    def take(self, request: ClientRequest, limits: aiohttp.ClientTimeout, *, fresh: bool) -> Awaitable[Connection]:
        """Give a connection: a kept one, or (always where `fresh`) a new one. Await it at once."""
        self._skip_kept = fresh  # `_get` runs before the first await of `connect`
        return self.connect(request, _NO_TRACES, limits)

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        """Give a kept connection, but none over which something came that nobody asked for, or its end.

        The event loop may not have had a turn since in which to learn that: some servers promise to keep a connection,
        and end it right after a streamed answer (cpp-httplib, and so llama.cpp).
        """
        if self._skip_kept:
            self._skip_kept = False
            return None
        while (connection := await super()._get(key, traces)) is not None:
            transport = connection.transport
            if not (_handler(connection).should_close or transport is None or has_news(transport)):
                break
            connection.close()
        return connection

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 (aiohttp's signature)
    ) -> ResponseHandler:
        """Make a connection; no kept one was free."""
        with timed_connection():
            return await super()._create_connection(req, traces, timeout)


_NO_TRACES: list[Trace] = []


def _handler(connection: Connection) -> _Handler:
    handler = connection.protocol
    assert isinstance(handler, _Handler)  # noqa: S101 (for the type checker: the factory makes no other)
    return handler


class _Request(ClientRequest):
    """aiohttp's description of where to connect; its key is made once, not for each connection."""

    _key: ConnectionKey | None = None

    @property
    def connection_key(self) -> ConnectionKey:
        if self._key is None:
            self._key = super().connection_key
        return self._key


class _Way:
    """What requests to one URL share: aiohttp's description of the connection, and the head's first lines."""

    __slots__ = ("head", "request")

    def __init__(self, outgoing: Outgoing, loop: asyncio.AbstractEventLoop) -> None:
        url, route = _as_written(outgoing.url), outgoing.route
        if not _TOKEN.fullmatch(outgoing.method):
            msg = f"{outgoing.method[:20]!r} is no HTTP method"
            raise ValueError(msg)
        proxy, authorization = route.proxy, None
        if proxy is not None and proxy.authorization is not None:
            authorization = proxy.authorization.reveal()
        self.request = _Request(
            outgoing.method,
            url,
            loop=loop,
            ssl=True if route.context is None else route.context,
            proxy=None if proxy is None else URL(proxy.url),
            proxy_headers=None if authorization is None else {"Proxy-Authorization": authorization},
        )
        relayed = proxy is not None and url.scheme == "http"  # no CONNECT: the proxy reads the request itself
        lines = [
            f"{outgoing.method} {url.with_fragment(None) if relayed else url.raw_path_qs} HTTP/1.1",
            f"host: {url.host_port_subcomponent}",
        ]
        if relayed and authorization is not None:
            lines.append(f"proxy-authorization: {authorization}")
        self.head = "\r\n".join(lines).encode()


class AiohttpLane:
    """The connections of one asyncio loop; see the module's contract. Must be made while the loop runs."""

    def __init__(self, *, max_connections: int | None, keepalive_expiry_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = _Connector(limit=max_connections or 0, keepalive_timeout=keepalive_expiry_s)
        self._ways: dict[tuple[str, str, Route], _Way] = {}

    async def send(self, outgoing: Outgoing) -> AiohttpAnswer:
        """Send a request; the response's body is still to be read.

        A kept connection that turns out to be dead before any byte of the answer came is replaced by a fresh one, once.
        """
        answer = await self._try(outgoing, fresh=False)
        if answer is None:
            answer = await self._try(outgoing, fresh=True)
            if isinstance(answer, AiohttpAnswer):
                answer.notices = (RECONNECTED,)
        if isinstance(answer, AiohttpAnswer):
            return answer
        assert answer is not None  # noqa: S101 (for the type checker: a fresh connection is not repeated)
        raise answer

    async def _try(self, outgoing: Outgoing, *, fresh: bool) -> AiohttpAnswer | LoomstreamError | None:
        """Give the failure instead of raising it: a traceback would keep frames that hold headers.

        None where a kept connection turned out to be dead: no byte of an answer came over it.
        """
        peer = outgoing.route.peer
        try:
            way = self._way(outgoing)
            connection = await self._connector.take(way.request, _connect_limit(outgoing.connect_s), fresh=fresh)
        except Exception as error:  # noqa: BLE001 (RuntimeError and ValueError come out of aiohttp as well)
            return translate(error, "connect", peer)
        handler = _handler(connection)
        reused, handler.used = handler.used, True
        try:
            return await _exchange(connection, handler, way.head, outgoing)
        except Exception as error:  # noqa: BLE001 (as above)
            if reused and not handler.answered:
                return None
            return translate(error, "headers", peer)

    def _way(self, outgoing: Outgoing) -> _Way:
        if outgoing.route.proxy is not None:
            return _Way(outgoing, self._loop)  # aiohttp writes into the request for a proxy, and so into its key
        key = (outgoing.method, outgoing.url, outgoing.route)
        way = self._ways.get(key)
        if way is None:
            if len(self._ways) >= _MAX_WAYS:
                self._ways.clear()
            way = self._ways[key] = _Way(outgoing, self._loop)
        return way

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connector.close()


async def _exchange(connection: Connection, handler: _Handler, head: bytes, outgoing: Outgoing) -> AiohttpAnswer:
    """Send the request and give the answer once its headers are there; where that fails, end the connection."""
    try:
        handler.expect_answer()
        handler.set_response_params(
            timer=_NO_TIMER,
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADERS,
        )
        _write(handler, head, outgoing)
        message, content = await handler.read()
        while message.code in _INTERIM and message.code != _SWITCHING_PROTOCOLS:
            message, content = await handler.read()
    except BaseException:
        _abort(connection)
        raise
    return AiohttpAnswer(connection, message, content, outgoing.route.peer)


def _write(handler: _Handler, head: bytes, outgoing: Outgoing) -> None:
    transport = handler.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    body = outgoing.body
    lines = [head, *map(b": ".join, outgoing.headers)]
    if body or outgoing.method not in _BODILESS:
        lines.append(b"content-length: %d" % len(body))
    lines += (b"", body if len(body) <= _ONE_PIECE_BYTES else b"")
    transport.write(b"\r\n".join(lines))
    if len(body) > _ONE_PIECE_BYTES:
        transport.write(body)


def _abort(connection: Connection) -> None:
    if connection.transport is not None:
        connection.transport.abort()  # not `close`: TLS would first wait for the peer's goodbye
    connection.close()


@lru_cache(maxsize=256)
def _as_written(url: str) -> URL:
    """Give the URL without yarl's rewriting, which turns %3A into a colon and breaks signatures."""
    if not _WRITTEN.fullmatch(url):
        import httpx  # noqa: PLC0415 (for the rare URL with characters that must be written otherwise)

        url = str(httpx.URL(url))
    return URL(url, encoded=True)


@lru_cache(maxsize=16)
def _connect_limit(connect_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_s, ceil_threshold=_NO_THRESHOLD)


class AiohttpAnswer:
    """A response whose body is read straight from aiohttp's buffer; see `loomstream.transport.lanes.Answer`."""

    __slots__ = ("_body", "_connection", "_failure", "_peer", "headers", "notices", "status")

    def __init__(
        self, connection: Connection, message: RawResponseMessage, content: aiohttp.StreamReader, peer: Peer
    ) -> None:
        self.status = message.code
        self.headers = plain(message.raw_headers)
        self.notices: tuple[str, ...] = ()
        self._connection: Connection | None = connection
        self._body = _as_body(content)
        self._peer = peer
        self._failure: LoomstreamError | None = None
        content.on_eof(self._release)

    @property
    def chunks(self) -> AsyncIterator[bytes]:
        """The body."""
        return self

    def _release(self) -> None:
        """Give the connection back as soon as the whole answer has come; end it where the request is still going."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        transport = connection.transport
        if transport is not None and transport.get_write_buffer_size():
            _abort(connection)
        else:
            connection.release()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        body, failure = self._body, self._failure
        if failure is not None:
            raise failure
        if body is None:
            raise StopAsyncIteration
        try:
            while (arrival := body.arrival()) is not None:
                try:
                    await arrival
                finally:
                    body.leave()
            data = body.take()
        except Exception as error:  # noqa: BLE001 (RuntimeError and ValueError come out of aiohttp as well)
            data = self._fail(error, body)
        if data:
            return data
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration

    def _fail(self, error: Exception, body: _Body) -> bytes:
        """Keep the failure for the next read; give first what had arrived before it, which aiohttp would drop."""
        self._failure = translate(error, "body", self._peer)
        return body.take()

    def wake(self, error: Exception) -> None:
        """Make a read that waits raise the error, unless bytes have arrived for it."""
        if self._body is not None:
            self._body.wake(error)

    def at_end(self) -> bool:
        """Say whether the whole body has come and was read, so that the connection is free again."""
        return self._body is None or self._body.at_eof()

    async def aclose(self) -> None:
        """End the exchange; where the body was not read to its end, the connection too, before this returns."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        _abort(connection)
        if self._body is not None:
            self._body.set_exception(aiohttp.ClientConnectionError("closed"))
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()  # the socket closes one turn of the loop later
