"""Our own HTTP client: an `httpx.AsyncClient` over connections that fit the running event loop.

Contract: on asyncio the connections are aiohttp's, on trio httpx's own. Each event loop has its own set, made at its
first request and closed when the loop ends or the client is closed on it. While a respx router is active, requests go
through httpx's own transport, where respx can see them: a user's router is never passed by. Imports httpx.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import Protocol, cast

import httpx

from loomstream.transport.http import HttpOptions
from loomstream.transport.httpx_lane import HttpxLane
from loomstream.transport.proxies import ProxyTable, Target
from loomstream.transport.route import Route
from loomstream.transport.tls import make_context

_DEFAULT_PORTS = {"http": 80, "https": 443}


class DefaultClient:
    """Our own client: the part of an `httpx.AsyncClient` that a request needs.

    Requests and responses are httpx's, and go straight to the transport. What httpx's client would do between the two
    is switched off here (cookies, redirects, authentication, event hooks) and costs as much as all the rest; it is
    asked only while a respx router is active, because some routers stand inside it.
    """

    def __init__(self, options: HttpOptions, proxies: ProxyTable) -> None:
        self._transport = _LoopTransport(options, proxies)
        self._client = httpx.AsyncClient(
            transport=self._transport,
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=())),
            trust_env=False,
            follow_redirects=False,
        )
        self._headers = [(b"accept", b"*/*"), (b"user-agent", f"loomstream/{version('loomstream')}".encode())]

    def build_request(
        self,
        method: str,
        url: str,
        *,
        headers: list[tuple[bytes, bytes]],
        content: bytes,
        timeout: tuple[float | None, ...],
    ) -> httpx.Request:
        """Make a request; what `headers` does not name is added, never doubled."""
        named = {name.lower() for name, _ in headers}
        return httpx.Request(
            method,
            _parsed(url),
            headers=[*(pair for pair in self._headers if pair[0] not in named), *headers],
            content=content or None,
            extensions={"timeout": dict(zip(_TIMEOUT_NAMES, timeout, strict=True))},
        )

    async def send(self, request: httpx.Request, *, stream: bool, follow_redirects: bool) -> httpx.Response:
        """Send it; the response's body is still to be read."""
        if respx_is_active():
            return await self._client.send(request, stream=stream, follow_redirects=follow_redirects)
        return await self._transport.handle_async_request(request)

    async def prepare(self, url: str) -> None:
        """Load what a request to `url` needs on the running event loop."""
        await self._transport.prepare(_parsed(url))

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._client.aclose()


_TIMEOUT_NAMES = ("connect", "read", "write", "pool")


@lru_cache(maxsize=256)
def _parsed(url: str) -> httpx.URL:
    return httpx.URL(url)


class Lane(Protocol):
    """The connections of one event loop."""

    async def send(self, request: httpx.Request, route: Route) -> httpx.Response:
        """Send a request; the response's body is still to be read."""
        ...

    async def aclose(self) -> None:
        """Close them."""
        ...


def _make_aiohttp_lane(options: HttpOptions) -> Lane:
    from loomstream.transport.aiohttp_engine import AiohttpLane  # noqa: PLC0415 (a program on trio never loads aiohttp)

    return AiohttpLane(
        max_connections=options.limits.max_connections, keepalive_expiry_s=options.limits.keepalive_expiry_s
    )


def _make_httpx_lane(options: HttpOptions) -> Lane:
    return HttpxLane(
        max_connections=options.limits.max_connections, keepalive_expiry_s=options.limits.keepalive_expiry_s
    )


_MAKERS: dict[str, Callable[[HttpOptions], Lane]] = {
    "asyncio": _make_aiohttp_lane,
    "trio": _make_httpx_lane,
    "respx": _make_httpx_lane,
}
"""What carries the requests of an event loop, and of one under a respx router."""


class _Kept:
    """A lane and the generator that closes it.

    Both event loops close the async generators that are suspended when they end: that is the only notice of its end
    that a loop gives.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._keeper = _close_at_end(lane)

    async def begin(self) -> None:
        await anext(self._keeper)

    async def aclose(self) -> None:
        await self._keeper.aclose()


async def _close_at_end(lane: Lane) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await lane.aclose()


class _LoopTransport(httpx.AsyncBaseTransport):
    """Picks the lane of the running event loop; see the module's contract."""

    def __init__(self, options: HttpOptions, proxies: ProxyTable) -> None:
        self._options = options
        self._proxies = proxies
        self._context: ssl.SSLContext | None = None
        self._lanes: dict[tuple[str, object], _Kept] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        route = self._route(request.url)
        lane = await self._lane()
        return await lane.send(request, route)

    async def prepare(self, url: httpx.URL) -> None:
        """Load what a request to `url` needs."""
        self._route(url)
        await self._lane()

    def _route(self, url: httpx.URL) -> Route:
        target = _target(url)
        proxy = self._proxies.find(target)
        needs_tls = target.scheme == "https" or (proxy is not None and proxy.url.startswith("https:"))
        return Route(target, proxy, self._tls() if needs_tls else None)

    async def aclose(self) -> None:
        _, loop = _running()
        for key in [key for key in self._lanes if key[1] is loop]:
            await self._lanes.pop(key).aclose()

    async def _lane(self) -> Lane:
        kind, loop = _running()
        key = ("respx" if respx_is_active() else kind, loop)
        kept = self._lanes.get(key)
        if kept is None:
            self._forget_ended_loops()
            kept = self._lanes[key] = _Kept(_MAKERS[key[0]](self._options))
            await kept.begin()
        return kept.lane

    def _forget_ended_loops(self) -> None:
        for key in [key for key in self._lanes if _has_ended(key[1])]:
            del self._lanes[key]

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            options = self._options
            self._context = make_context(
                ca_bundle=options.ca_bundle, client_cert=options.client_cert, environ=os.environ
            )
        return self._context


def _target(url: httpx.URL) -> Target:
    return Target(url.scheme, url.host, _DEFAULT_PORTS[url.scheme] if url.port is None else url.port)


def _running() -> tuple[str, object]:
    """Give the kind of the running event loop and the loop itself. Without trio's sniffio loaded it is asyncio."""
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None and sniffio.current_async_library() == "trio":
        import trio  # noqa: PLC0415 (it runs already)

        return "trio", trio.lowlevel.current_trio_token()
    return "asyncio", asyncio.get_running_loop()


def _has_ended(loop: object) -> bool:
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop.is_closed()
    return bool(getattr(loop, "_closed", False))


class _Mocker(Protocol):
    routers: list[object]


def respx_is_active() -> bool:
    """Say whether a respx router is started: each of its mockers keeps a list of them."""
    mocks = sys.modules.get("respx.mocks")
    if mocks is None:
        return False
    registry = cast("Mapping[str, _Mocker]", mocks.Mocker.registry)
    return any(mocker.routers for mocker in registry.values())
