"""httpx's own connections, for trio and for requests that respx must see.

Contract: a lane belongs to one event loop and keeps one pool for each proxy. Every error is a `LoomstreamError`, mapped
by the phase in which it came, which httpcore's trace tells. An `AssertionError` passes: a respx router raises it, and
that is the user's own test. Leans on one thing that is not public, the pool inside `httpx.AsyncHTTPTransport`.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast

import anyio
import httpcore
import httpx

from loomstream.errors import LoomstreamError
from loomstream.transport.connecting import timed_connection
from loomstream.transport.faults import translate
from loomstream.transport.foreign import REPEATED, ForeignAnswer, answered
from loomstream.transport.proxies import Proxy
from loomstream.transport.route import Outgoing, Route
from loomstream.transport.sockets import KEEP_ALIVE

_ROUTE = "loomstream.route"
"""The key in a request's extensions under which its way stands."""

_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For pools that carry plain http, so that no certificates are loaded for them."""


class _Sending:
    """What httpcore's trace and the connection tell about one try."""

    __slots__ = ("answered", "begun", "connected")

    def __init__(self) -> None:
        self.begun = False
        self.connected = False
        self.answered = False

    async def __call__(self, name: str, details: Mapping[str, object]) -> None:
        if name.endswith("send_request_headers.started"):
            self.begun = getattr(details.get("request"), "method", b"") != b"CONNECT"
        elif name == "connection.connect_tcp.started":
            self.connected = True

    @property
    def may_repeat(self) -> bool:
        """Whether a kept connection turned out to be dead: no byte of an answer came over it."""
        return self.begun and not self.connected and not self.answered


_sending: ContextVar[_Sending] = ContextVar("loomstream.sending")


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that notes an answer's first bytes, and is closed where a TLS handshake is cancelled."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._read = inner.read

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 (httpcore's signature)
        data = await self._read(max_bytes, timeout)
        sending = _sending.get(None)
        if data and sending is not None:
            sending.answered = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 (httpcore's signature)
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's signature)
    ) -> httpcore.AsyncNetworkStream:
        try:
            with timed_connection():
                return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:  # httpcore closes it for an Exception, and leaves it open for a cancellation
            with anyio.CancelScope(shield=True):
                await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 (httpcore's signature)
        return self._inner.get_extra_info(info)


class _Content(httpx.AsyncByteStream):
    """A request's body; httpx's own is a generator, which a cancellation leaves to the garbage collector."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._content)


class _Once:
    """An async iterator of one piece."""

    def __init__(self, content: bytes) -> None:
        self._content: bytes | None = content or None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        content, self._content = self._content, None
        if content is None:
            raise StopAsyncIteration
        return content


class _Network(httpcore.AsyncNetworkBackend):
    """httpcore's network, its streams wrapped."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's signature)
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with timed_connection():
            return _Stream(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Pools(httpx.AsyncBaseTransport):
    """A pool for each proxy."""

    def __init__(self, *, max_connections: int | None, keepalive_expiry_s: float) -> None:
        self._limits = httpx.Limits(max_connections=max_connections, keepalive_expiry=keepalive_expiry_s)
        self._pools: dict[tuple[Proxy | None, ssl.SSLContext | None], httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the response's body is still to be read.

        A kept connection that turns out to be dead before any byte of the answer came is replaced, once.
        """
        route = cast("Route", request.extensions[_ROUTE])
        request.stream = _Content(request.content)
        sending = _Sending()
        response = await self._try(sending, request, route)
        if isinstance(response, LoomstreamError) and sending.may_repeat:
            response = await self._try(_Sending(), request, route)
            if isinstance(response, httpx.Response):
                response.extensions[REPEATED] = True
        if isinstance(response, LoomstreamError):
            raise response
        return response

    async def _try(self, sending: _Sending, request: httpx.Request, route: Route) -> httpx.Response | LoomstreamError:
        """Give the failure instead of raising it: its traceback must not keep frames that hold headers."""
        request.extensions["trace"] = sending
        token = _sending.set(sending)
        try:
            return await self._pool(route).handle_async_request(request)
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever httpx and its layers raise is translated)
            return translate(error, "headers" if sending.begun else "connect", route.peer)
        finally:
            _sending.reset(token)

    def _pool(self, route: Route) -> httpx.AsyncHTTPTransport:
        key = (route.proxy, route.context)
        if key not in self._pools:
            self._pools[key] = self._open_pool(route)
        return self._pools[key]

    def _open_pool(self, route: Route) -> httpx.AsyncHTTPTransport:
        transport = httpx.AsyncHTTPTransport(
            verify=_TRUSTS_NOBODY if route.context is None else route.context,
            trust_env=False,
            limits=self._limits,
            proxy=None if route.proxy is None else _httpx_proxy(route.proxy, route.context),
            socket_options=KEEP_ALIVE,
        )
        pool = cast("Any", transport)._pool  # noqa: SLF001 (no public way to give httpx a network backend)
        pool._network_backend = _Network(pool._network_backend)  # noqa: SLF001 (the same)
        return transport

    async def aclose(self) -> None:
        """Close the pools."""
        while self._pools:
            _, pool = self._pools.popitem()
            await pool.aclose()


class HttpxLane:
    """The connections of one event loop; see the module's contract.

    `through_client`: whether requests pass a whole `httpx.AsyncClient`, inside which some routers stand.
    """

    def __init__(self, *, max_connections: int | None, keepalive_expiry_s: float, through_client: bool) -> None:
        self._pools = _Pools(max_connections=max_connections, keepalive_expiry_s=keepalive_expiry_s)
        self._client = _quiet_client(self._pools) if through_client else None

    async def send(self, outgoing: Outgoing) -> ForeignAnswer:
        """Send a request; the response's body is still to be read."""
        limits = {"connect": outgoing.connect_s, "read": None, "write": None, "pool": outgoing.connect_s}
        route = outgoing.route

        def send() -> Awaitable[httpx.Response]:
            request = httpx.Request(
                outgoing.method,
                outgoing.url,
                headers=outgoing.headers,
                content=outgoing.body or None,
                extensions={"timeout": limits, _ROUTE: route},
            )
            if self._client is None:
                return self._pools.handle_async_request(request)
            return self._client.send(request, stream=True, follow_redirects=False)

        return await answered(send, route.peer)

    async def aclose(self) -> None:
        """Close the connections."""
        await (self._client or self._pools).aclose()


def _quiet_client(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport,
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=())),
        trust_env=False,
        follow_redirects=False,
    )


def _httpx_proxy(proxy: Proxy, context: ssl.SSLContext | None) -> httpx.Proxy:
    headers = {} if proxy.authorization is None else {"proxy-authorization": proxy.authorization.reveal()}
    return httpx.Proxy(proxy.url, headers=headers, ssl_context=context if proxy.url.startswith("https:") else None)
