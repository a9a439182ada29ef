"""HTTP: the transport that talks to providers, through our own client or yours.

Contract: see `loomstream.transport`. httpx and aiohttp are imported at the first request, not before. Our own client
is an `httpx.AsyncClient` whose connections are aiohttp's on asyncio and httpx's on trio; it follows the running event
loop, so a second loop gets its own connections. A client of yours may be httpx's or httpx2's, recognised by its shape;
it stays yours to close. Every request carries its own time-outs, follows no redirect and asks for no content coding.
This module must not know what it carries.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Protocol, cast

from msgspec import Struct, structs

from loomstream.errors import LoomstreamError, UnexpectedContent, UsageError
from loomstream.transport import ByteResponse
from loomstream.transport.decoding import decoded
from loomstream.transport.faults import Peer, Phase, proxy_refused, translate
from loomstream.transport.outgoing import check_url, reveal_headers
from loomstream.transport.proxies import ProxyTable, Target
from loomstream.wire import Secret, WireRequest

_NO_SUCCESS = 300
_PROXY_AUTHENTICATION_REQUIRED = 407
_CREDENTIALS = re.compile(r"^([^/]*//)?.*@")
_CLIENT_DEFAULT_S = 5.0
"""httpx's and httpx2's default for each of a client's time-outs: a value that the user did not choose."""

BODY = "loomstream.body"
"""The key in a response's extensions under which our own engine hands out its body."""


class ConnectionLimits(Struct, frozen=True, kw_only=True):
    """How many connections there may be and how long an idle one is kept.

    `max_connections`: at the same time, None for no limit; a request over it waits, at most `connect_s`.
    `keepalive_expiry_s`: seconds that an unused connection stays open.
    """

    max_connections: int | None = None
    keepalive_expiry_s: float = 15.0


class HttpOptions(Struct, frozen=True, kw_only=True):
    """Settings of our own client.

    `proxy`: the URL of an http or https proxy for every request, with credentials if it needs them; it wins over the
    environment. `ca_bundle`: a file or folder of PEM certificates that replaces the system's authorities.
    `client_cert`: a PEM file with certificate and key, or the two files. `trust_env_proxies`: whether HTTP_PROXY,
    HTTPS_PROXY, ALL_PROXY and NO_PROXY count. `allow_http`: whether plain http may leave this machine.
    """

    proxy: str | None = None
    ca_bundle: str | None = None
    client_cert: str | tuple[str, str] | None = None
    limits: ConnectionLimits = ConnectionLimits()
    trust_env_proxies: bool = True
    allow_http: bool = False

    def __repr__(self) -> str:
        """Show the settings, without the proxy's credentials."""
        proxy = None if self.proxy is None else _CREDENTIALS.sub(r"\1…@", self.proxy)
        return Struct.__repr__(structs.replace(self, proxy=proxy))


class _Headers(Protocol):
    @property
    def raw(self) -> list[tuple[bytes, bytes]]: ...


class _ByteStream(Protocol):
    def __aiter__(self) -> AsyncIterator[bytes]: ...


class _Response(Protocol):
    """The part that `httpx.Response` and `httpx2.Response` share and we use."""

    status_code: int
    extensions: dict[str, object]
    stream: _ByteStream

    @property
    def headers(self) -> _Headers: ...

    async def aclose(self) -> None: ...


class AsyncClient(Protocol):
    """The part of `httpx.AsyncClient` and `httpx2.AsyncClient` that a request needs."""

    @property
    def build_request(self) -> Callable[..., object]:
        """Make a request with the client's own headers."""
        ...

    @property
    def send(self) -> Callable[..., Awaitable[object]]:
        """Send it."""
        ...

    @property
    def aclose(self) -> Callable[[], Awaitable[None]]:
        """Close the client."""
        ...


class HttpTransport:
    """Sends wire requests over HTTP; see the module's contract.

    `client` is an `httpx.AsyncClient` or an `httpx2.AsyncClient`; proxy, TLS and limits are then the client's own. Of
    its time-outs only those that differ from httpx's default of 5 s count. Raises `UsageError` where it is anything
    else, and `ConfigError` where a proxy's URL cannot be used.
    """

    def __init__(self, options: HttpOptions | None = None, *, client: AsyncClient | None = None) -> None:
        self._options = HttpOptions() if options is None else options
        self._given = client
        self._client = client
        self._proxies: ProxyTable | None = None
        if client is not None:
            _check_shape(client)
        else:
            environ: Mapping[str, str] = os.environ if self._options.trust_env_proxies else {}
            self._proxies = ProxyTable(proxy=self._options.proxy, environ=environ)

    def open(self, wire_request: WireRequest, *, connect_s: float | None = None) -> Exchange:
        """Give the context manager that sends a request and holds its response.

        `connect_s` bounds waiting for a free connection, name look-up, connection and TLS, in seconds; None: no limit.
        Entering raises `ConfigError` (a URL or header that must not be sent), `ConnectFailed`, `TLSFailed`,
        `ConnectTimeout`, `ConnectionLost`, `LimitExceeded` (headers too large), `UnexpectedContent` (an unknown content
        coding), `UsageError` (your client is closed). Reading raises `ConnectionLost`, and for a content coding that
        was not asked for `LimitExceeded` and `UnexpectedContent`.
        """
        return Exchange(self, wire_request, connect_s)

    async def prepare(self, url: str) -> None:
        """Load the client and what a request to `url` needs; connects to nobody. Raises `ConfigError`."""
        check_url(url, allow_http=self._options.allow_http)
        client = self._running_client()
        if client is not self._given:
            await cast("_Preparable", client).prepare(url)

    async def aclose(self) -> None:
        """Close the connections kept by the running event loop; a client that was given stays open."""
        if self._client is not None and self._given is None:
            client, self._client = self._client, None
            await client.aclose()

    def _peer(self, target: Target) -> Peer:
        proxy = None if self._proxies is None else self._proxies.find(target)
        return Peer(target.host, target.port, "" if proxy is None else proxy.url)

    def _running_client(self) -> AsyncClient:
        if self._client is None:
            from loomstream.transport.default_client import DefaultClient  # noqa: PLC0415 (loads httpx)

            assert self._proxies is not None  # noqa: S101 (for the type checker: set where no client was given)
            self._client = cast("AsyncClient", DefaultClient(self._options, self._proxies))
        return self._client

    def _build(self, client: AsyncClient, wire_request: WireRequest, connect_s: float | None) -> object:
        headers: Mapping[str, str | Secret] = wire_request.headers
        if "accept-encoding" not in {name.lower() for name in headers}:
            headers = {**headers, "accept-encoding": "identity"}
        return client.build_request(
            wire_request.method,
            wire_request.url,
            headers=reveal_headers(headers),
            content=wire_request.body,
            timeout=_time_outs(self._given, connect_s),
        )


class Exchange:
    """One request and its response, as an async context manager; a class, so that nothing hangs on a generator."""

    __slots__ = ("_chunks", "_connect_s", "_response", "_transport", "_wire_request")

    def __init__(self, transport: HttpTransport, wire_request: WireRequest, connect_s: float | None) -> None:
        self._transport = transport
        self._wire_request = wire_request
        self._connect_s = connect_s
        self._response: _Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def __aenter__(self) -> ByteResponse:
        transport = self._transport
        target = check_url(self._wire_request.url, allow_http=transport._options.allow_http)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (same module)
        peer = transport._peer(target)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (same module)
        self._response = response = await self._send(peer)
        try:
            return self._read_from(response, peer)
        except LoomstreamError:
            await self._close()
            raise

    async def _send(self, peer: Peer) -> _Response:
        try:
            client = self._transport._running_client()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (same module)
            request = self._transport._build(client, self._wire_request, self._connect_s)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (same module)
            return cast("_Response", await client.send(request, stream=True, follow_redirects=False))
        except AssertionError:  # a test's own fake transport or router complains: not ours to reword
            raise
        except Exception as error:  # noqa: BLE001 (whatever a client raises is translated)
            failure = translate(error, "headers", peer)
        raise failure

    def _read_from(self, response: _Response, peer: Peer) -> ByteResponse:
        if peer.proxy and response.status_code == _PROXY_AUTHENTICATION_REQUIRED:
            raise proxy_refused(peer, "407 Proxy Authentication Required")
        headers = _plain(response.headers.raw)
        body = response.extensions.get(BODY)
        chunks = cast("AsyncIterator[bytes]", body) if body is not None else _Chunks(_byte_stream(response), peer)
        self._chunks = chunks
        plain = _without_coding(chunks, headers.get("content-encoding", ""), response.status_code)
        if body is None:
            return ByteResponse(response.status_code, headers, plain)
        own = cast("_OwnBody", body)
        return ByteResponse(response.status_code, headers, plain, own.wake, own.at_end)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        response, self._response = self._response, None
        if response is None:
            return
        if BODY in response.extensions:
            await response.aclose()
        else:
            await _close_foreign(response, cast("_Chunks", self._chunks) if self._chunks is not None else None)


def _without_coding(chunks: AsyncIterator[bytes], coding: str, status: int) -> AsyncIterator[bytes]:
    """Undo a content coding; where it cannot be undone, an error's status must still be told."""
    try:
        return decoded(chunks, coding)
    except UnexpectedContent:
        if status < _NO_SUCCESS:
            raise
        return _Nothing()


class _Nothing:
    """A body of which nothing can be read."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


class _Preparable(Protocol):
    """What our own client can do beyond sending."""

    async def prepare(self, url: str) -> None: ...


class _OwnBody(Protocol):
    """What our engine's body can do beyond iteration."""

    def wake(self, error: Exception) -> None: ...

    def at_end(self) -> bool: ...


class _Chunks:
    """A foreign client's body, its errors in our words."""

    __slots__ = ("_next", "_peer", "iterator")

    def __init__(self, stream: _ByteStream, peer: Peer) -> None:
        self.iterator = aiter(stream)
        self._next = self.iterator.__anext__
        self._peer = peer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._next()
        except (StopAsyncIteration, AssertionError):
            raise
        except Exception as error:  # noqa: BLE001 (whatever a client raises is translated)
            failure = translate(error, _BODY_PHASE, self._peer)
        raise failure


_BODY_PHASE: Phase = "body"


def _byte_stream(response: _Response) -> _ByteStream:
    """Give the stream below httpx's own two layers: each is a generator that only passes bytes on."""
    stream: object = response.stream
    if type(stream).__name__ == "BoundAsyncStream":
        stream = getattr(stream, "_stream", stream)
    return cast("_ByteStream", getattr(stream, "_httpcore_stream", stream))


def _is_httpcore(stream: object) -> bool:
    return type(stream).__module__.startswith("httpcore")


async def _close_foreign(response: _Response, chunks: _Chunks | None) -> None:
    """Close a response of httpx or httpx2, and end the generators that read it.

    Whatever a close raises is of no interest: the connection is gone, and the answer's fate is known.
    """
    import anyio  # noqa: PLC0415 (loaded by every client that gets here)

    with anyio.CancelScope(shield=True), suppress(Exception):
        await response.aclose()
        if chunks is not None:
            await _end_generators(response, chunks.iterator)
        await anyio.lowlevel.checkpoint()


async def _end_generators(response: _Response, iterator: AsyncIterator[bytes]) -> None:
    """End httpcore's nested generators from the inside, which leaves none to the garbage collector.

    Closing the outermost would abandon the inner ones: asyncio then starts a task for each, trio warns. Over the closed
    connection of HTTP/1 the next read fails at once; over HTTP/2 it could wait for ever.
    """
    over_http1 = response.extensions.get("http_version", b"") in {b"HTTP/1.1", b"HTTP/1.0"}
    if over_http1 and _is_httpcore(_byte_stream(response)):
        with suppress(Exception):
            async for _ in iterator:
                pass
    elif inspect.isasyncgen(iterator):
        await iterator.aclose()


def _plain(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name_bytes, value_bytes in raw:
        name, value = name_bytes.decode("latin-1").lower(), value_bytes.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _time_outs(client: AsyncClient | None, connect_s: float | None) -> tuple[float | None, ...]:
    """Give connect, read, write and pool time-outs: ours, and those that the user of a client chose for it."""
    own: dict[str, float | None] = {"connect": connect_s, "read": None, "write": None, "pool": connect_s}
    theirs: object = getattr(client, "timeout", None)
    return tuple(_tighter(ours, getattr(theirs, name, _CLIENT_DEFAULT_S)) for name, ours in own.items())


def _tighter(ours: float | None, theirs: float | None) -> float | None:
    if theirs is None or theirs == _CLIENT_DEFAULT_S:
        return ours
    return theirs if ours is None else min(ours, theirs)


def _check_shape(client: object) -> None:
    missing = [name for name in ("build_request", "send", "aclose") if not callable(getattr(client, name, None))]
    if missing or not inspect.iscoroutinefunction(getattr(client, "send", None)):
        msg = (
            f"client= got a {type(client).__module__}.{type(client).__qualname__}: "
            "pass an httpx.AsyncClient or an httpx2.AsyncClient"
        )
        raise UsageError(msg)
