"""Our own connections: a lane for each event loop, and the way of each request into it.

Contract: on asyncio a lane's connections are aiohttp's, on trio httpx's own. Each event loop has its own lane, made at
its first request and closed when the loop ends or the lanes are closed on it. While a respx router is active, requests
go through an `httpx.AsyncClient` over httpx's own transport, where respx can see them: a user's router is never passed
by. Imports neither aiohttp nor httpx before a lane needs it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol, cast

from loomstream.transport.faults import Peer, proxy_refused
from loomstream.transport.loops import running_loop
from loomstream.transport.outgoing import reveal_headers
from loomstream.transport.proxies import ProxyTable, Target
from loomstream.transport.route import Outgoing, Route
from loomstream.transport.tls import make_context
from loomstream.wire import WireRequest

if TYPE_CHECKING:
    from loomstream.transport.http import HttpOptions

_PROXY_AUTHENTICATION_REQUIRED = 407
_MAX_ROUTES = 256


class Answer(Protocol):
    """A response whose body is still to be read; the fields are those of `loomstream.transport.ByteResponse`."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""
        ...

    @property
    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes over the wire."""
        ...

    @property
    def wake(self) -> Callable[[Exception], None] | None:
        """Makes a read that waits raise."""
        ...

    @property
    def at_end(self) -> Callable[[], bool] | None:
        """Whether the body was read to its end."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """What had to be done again."""
        ...

    async def aclose(self) -> None:
        """End the exchange; where the body was not read to its end, the connection too, before this returns."""
        ...


class Lane(Protocol):
    """The connections of one event loop."""

    async def send(self, outgoing: Outgoing) -> Answer:
        """Send a request; the response's body is still to be read."""
        ...

    async def aclose(self) -> None:
        """Close them."""
        ...


def _make_aiohttp_lane(options: HttpOptions) -> Lane:
    from loomstream.transport.aiohttp_engine import AiohttpLane  # noqa: PLC0415 (a program on trio never loads aiohttp)

    limits = options.limits
    return AiohttpLane(max_connections=limits.max_connections, keepalive_expiry_s=limits.keepalive_expiry_s)


def _make_httpx_lane(options: HttpOptions, *, through_client: bool = False) -> Lane:
    from loomstream.transport.httpx_lane import HttpxLane  # noqa: PLC0415 (a program on asyncio never loads httpx here)

    limits = options.limits
    return HttpxLane(
        max_connections=limits.max_connections,
        keepalive_expiry_s=limits.keepalive_expiry_s,
        through_client=through_client,
    )


def _make_visible_lane(options: HttpOptions) -> Lane:
    return _make_httpx_lane(options, through_client=True)


_MAKERS: dict[str, Callable[[HttpOptions], Lane]] = {
    "asyncio": _make_aiohttp_lane,
    "trio": _make_httpx_lane,
    "respx": _make_visible_lane,
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


_LaneKey = tuple[str, object]
"""What carries the requests (see `_MAKERS`), and the event loop."""


@lru_cache(maxsize=64)
def _own_headers(named: tuple[str, ...]) -> list[tuple[bytes, bytes]]:
    """Give the headers that we add to a request which names these."""
    agent = f"loomstream/{version('loomstream')}"
    own = {"accept": "*/*", "accept-encoding": "identity", "user-agent": agent}
    taken = {name.lower() for name in named}
    return [(name.encode(), value.encode()) for name, value in own.items() if name not in taken]


class Lanes:
    """Picks the lane of the running event loop; see the module's contract."""

    def __init__(self, options: HttpOptions, proxies: ProxyTable) -> None:
        self._options = options
        self._proxies = proxies
        self._context: ssl.SSLContext | None = None
        self._routes: dict[Target, Route] = {}
        self._lanes: dict[_LaneKey, _Kept] = {}

    async def send(self, wire_request: WireRequest, target: Target, connect_s: float | None) -> Answer:
        """Send a request; raises as `HttpTransport.open` says."""
        route = self._routes.get(target) or self._route(target)
        key = _lane_key()
        kept = self._lanes.get(key) or await self._begin(key)
        answer = await kept.lane.send(self._outgoing(wire_request, connect_s, route))
        if route.proxy is not None and answer.status == _PROXY_AUTHENTICATION_REQUIRED:
            await answer.aclose()
            raise proxy_refused(route.peer, "407 Proxy Authentication Required")
        return answer

    def _outgoing(self, wire_request: WireRequest, connect_s: float | None, route: Route) -> Outgoing:
        """Give what goes to the wire; what `wire_request` does not name is added, never doubled."""
        headers = reveal_headers(wire_request.headers)
        headers += _own_headers(tuple(wire_request.headers))
        return Outgoing(wire_request.method, wire_request.url, headers, wire_request.body, connect_s, route)

    async def prepare(self, target: Target) -> None:
        """Load what a request to `target` needs; connects to nobody."""
        self._route(target)
        key = _lane_key()
        if key not in self._lanes:
            await self._begin(key)

    def _route(self, target: Target) -> Route:
        proxy = self._proxies.find(target)
        needs_tls = target.scheme == "https" or (proxy is not None and proxy.url.startswith("https:"))
        peer = Peer(target.host, target.port, "" if proxy is None else proxy.url)
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.clear()
        route = self._routes[target] = Route(peer, proxy, self._tls() if needs_tls else None)
        return route

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        _, loop = _running()
        for key in [key for key in self._lanes if key[1] is loop]:
            await self._lanes.pop(key).aclose()

    async def _begin(self, key: _LaneKey) -> _Kept:
        self._forget_ended_loops()
        kept = self._lanes[key] = _Kept(_MAKERS[key[0]](self._options))
        await kept.begin()
        return kept

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


def _running() -> tuple[str, object]:
    """Give the kind of the running event loop and the loop itself."""
    loop = running_loop()
    if loop is not None:
        return "asyncio", loop
    import trio  # noqa: PLC0415 (it runs already)

    return "trio", trio.lowlevel.current_trio_token()


def _lane_key() -> _LaneKey:
    kind, loop = _running()
    return ("respx" if respx_is_active() else kind), loop


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
