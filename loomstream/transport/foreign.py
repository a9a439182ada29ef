"""Answers of httpx and httpx2: of a client that the user brought, and of httpx's own transport.

Contract: the client is used through `build_request` and `send` alone; its response's byte stream is read directly,
below httpx's own layers. Every error is a `LoomstreamError`; an `AssertionError` passes, for it is a test's own router
or fake that complains. Neither package is imported here.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, cast

from loomstream.errors import UsageError
from loomstream.transport.faults import Peer, translate
from loomstream.transport.outgoing import reveal_headers
from loomstream.transport.route import RECONNECTED
from loomstream.wire import Secret, WireRequest

_CLIENT_DEFAULT_S = 5.0
"""httpx's and httpx2's default for each of a client's time-outs: a value that the user did not choose."""

REPEATED = "loomstream.repeated"
"""The key in a response's extensions that says that its request was sent twice."""


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


def check_client(client: object) -> None:
    """Raise `UsageError` where something else than an asynchronous client was given."""
    missing = [name for name in ("build_request", "send", "aclose") if not callable(getattr(client, name, None))]
    if missing or not inspect.iscoroutinefunction(getattr(client, "send", None)):
        msg = (
            f"client= got a {type(client).__module__}.{type(client).__qualname__}: "
            "pass an httpx.AsyncClient or an httpx2.AsyncClient"
        )
        raise UsageError(msg)


async def send_through(
    client: AsyncClient, wire_request: WireRequest, connect_s: float | None, peer: Peer
) -> ForeignAnswer:
    """Send a request through a client of the user's. Raises as `HttpTransport.open` says."""
    headers: Mapping[str, str | Secret] = wire_request.headers
    if "accept-encoding" not in {name.lower() for name in headers}:
        headers = {**headers, "accept-encoding": "identity"}

    def send() -> Awaitable[object]:
        request = client.build_request(
            wire_request.method,
            wire_request.url,
            headers=reveal_headers(headers),
            content=wire_request.body,
            timeout=_time_outs(client, connect_s),
        )
        return client.send(request, stream=True, follow_redirects=False)

    return await answered(send, peer)


async def answered(send: Callable[[], Awaitable[object]], peer: Peer) -> ForeignAnswer:
    """Await what sends a request, give its answer; its errors in our words, and without their frames."""
    try:
        return ForeignAnswer(cast("_Response", await send()), peer)
    except AssertionError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever a client raises is translated)
        failure = translate(error, "headers", peer)
    raise failure


class ForeignAnswer:
    """A response of httpx or httpx2 whose body is still to be read; see `loomstream.transport.lanes.Answer`."""

    __slots__ = ("_response", "chunks", "headers", "notices", "status")

    wake = None
    at_end = None

    def __init__(self, response: _Response, peer: Peer) -> None:
        self._response: _Response | None = response
        self.status = response.status_code
        self.headers = plain(response.headers.raw)
        self.notices = (RECONNECTED,) if REPEATED in response.extensions else ()
        self.chunks = _Chunks(_byte_stream(response), peer)

    async def aclose(self) -> None:
        """Close the response, and end the generators that read it.

        Whatever a close raises is of no interest: the connection is gone, and the answer's fate is known.
        """
        import anyio  # noqa: PLC0415 (loaded by every client that gets here)

        response, self._response = self._response, None
        if response is None:
            return
        with anyio.CancelScope(shield=True), suppress(Exception):
            await response.aclose()
            await _end_generators(response, self.chunks.iterator)
            await anyio.lowlevel.checkpoint()


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
            failure = translate(error, "body", self._peer)
        raise failure


def _byte_stream(response: _Response) -> _ByteStream:
    """Give the stream below httpx's own two layers: each is a generator that only passes bytes on."""
    stream: object = response.stream
    if type(stream).__name__ == "BoundAsyncStream":
        stream = getattr(stream, "_stream", stream)
    return cast("_ByteStream", getattr(stream, "_httpcore_stream", stream))


def _is_httpcore(stream: object) -> bool:
    return type(stream).__module__.startswith("httpcore")


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


_COMMON = (
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "server",
    "transfer-encoding",
    "vary",
)
_NAMES = {spelt.encode(): name for name in _COMMON for spelt in (name, name.title())}
"""Names that nearly every answer has, so that a thousand open ones share them."""


def plain(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Give headers by their lower-case names; the values of a name that came twice are joined by a comma."""
    headers = {_NAMES.get(name) or name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
    return headers if len(headers) == len(raw) else _joined(raw)


def _joined(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _time_outs(client: AsyncClient, connect_s: float | None) -> tuple[float | None, ...]:
    """Give connect, read, write and pool time-outs: ours, and those that the user of a client chose for it."""
    own: dict[str, float | None] = {"connect": connect_s, "read": None, "write": None, "pool": connect_s}
    theirs: object = getattr(client, "timeout", None)
    return tuple(_tighter(ours, getattr(theirs, name, _CLIENT_DEFAULT_S)) for name, ours in own.items())


def _tighter(ours: float | None, theirs: float | None) -> float | None:
    if theirs is None or theirs == _CLIENT_DEFAULT_S:
        return ours
    return theirs if ours is None else min(ours, theirs)
