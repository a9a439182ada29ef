"""HTTP: the transport that talks to providers, through our own client or yours.

Contract: see `loomstream.transport`. httpx and aiohttp are imported at the first request, not before. Our own
connections are aiohttp's on asyncio and httpx's on trio (see `lanes`); they follow the running event loop, so a second
loop gets its own. A client of yours may be httpx's or httpx2's, recognised by its shape; it stays yours to close. Every
request carries its own time-outs, follows no redirect and asks for no content coding. This module must not know what
it carries.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from loomstream.errors import UnexpectedContent
from loomstream.transport import ByteResponse
from loomstream.transport.decoding import decoded
from loomstream.transport.faults import Peer
from loomstream.transport.foreign import AsyncClient, check_client, send_through
from loomstream.transport.outgoing import check_url
from loomstream.transport.proxies import ProxyTable
from loomstream.wire import WireRequest

if TYPE_CHECKING:
    from loomstream.transport.lanes import Answer, Lanes

_NO_SUCCESS = 300
_CREDENTIALS = re.compile(r"^([^/]*//)?.*@")


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


class HttpTransport:
    """Sends wire requests over HTTP; see the module's contract.

    `client` is an `httpx.AsyncClient` or an `httpx2.AsyncClient`; proxy, TLS and limits are then the client's own. Of
    its time-outs only those that differ from httpx's default of 5 s count. Raises `UsageError` where it is anything
    else, and `ConfigError` where a proxy's URL cannot be used.
    """

    def __init__(self, options: HttpOptions | None = None, *, client: AsyncClient | None = None) -> None:
        self._options = HttpOptions() if options is None else options
        self._given = client
        self._lanes: Lanes | None = None
        self._proxies: ProxyTable | None = None
        if client is not None:
            check_client(client)
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
        """Load what a request to `url` needs; connects to nobody. Raises `ConfigError`."""
        target = check_url(url, allow_http=self._options.allow_http)
        if self._given is None:
            await self._own_lanes().prepare(target)

    async def aclose(self) -> None:
        """Close the connections kept by the running event loop; a client that was given stays open."""
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            await lanes.aclose()

    def _own_lanes(self) -> Lanes:
        if self._lanes is None:
            from loomstream.transport.lanes import Lanes  # noqa: PLC0415 (loads asyncio and ssl)

            assert self._proxies is not None  # noqa: S101 (for the type checker: set where no client was given)
            self._lanes = Lanes(self._options, self._proxies)
        return self._lanes

    def send(self, wire_request: WireRequest, connect_s: float | None) -> Awaitable[Answer]:
        """Send a request as `open` says; who asks must close the answer."""
        target = check_url(wire_request.url, allow_http=self._options.allow_http)
        if self._given is None:
            return self._own_lanes().send(wire_request, target, connect_s)
        return send_through(self._given, wire_request, connect_s, Peer(target.host, target.port))


class Exchange:
    """One request and its response, as an async context manager; a class, so that nothing hangs on a generator."""

    __slots__ = ("_answer", "_connect_s", "_transport", "_wire_request")

    def __init__(self, transport: HttpTransport, wire_request: WireRequest, connect_s: float | None) -> None:
        self._transport = transport
        self._wire_request: WireRequest | None = wire_request
        self._connect_s = connect_s
        self._answer: Answer | None = None

    async def __aenter__(self) -> ByteResponse:
        wire_request, self._wire_request = self._wire_request, None  # a prompt can be large, and a stream long
        assert wire_request is not None  # noqa: S101 (for the type checker: a context is entered once)
        self._answer = answer = await self._transport.send(wire_request, self._connect_s)
        try:
            chunks = _without_coding(answer.chunks, answer.headers.get("content-encoding", ""), answer.status)
        except UnexpectedContent:
            await answer.aclose()
            raise
        return ByteResponse(answer.status, answer.headers, chunks, answer.wake, answer.at_end, answer.notices)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.aclose()


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
