"""Replay: recorded bytes through the real pipeline, without a network.

Contract: a `ReplayTransport` is a `Transport`; what it is asked to send is kept in `requests` for inspection. Chunks
come in the pieces that the recording holds; a piece may be a callable that is awaited (a pause, a fault).
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Unpack

import anyio
import anyio.lowlevel
import msgspec

from loomstream.endpoint import Endpoint
from loomstream.errors import ConfigError, ConnectionLost
from loomstream.handler import Middleware
from loomstream.kind_names import kind_of
from loomstream.messages import RequestOptions
from loomstream.middleware.cost import cost
from loomstream.model import Model
from loomstream.providers import Provider, Setting, look_up
from loomstream.transport import ByteResponse
from loomstream.transport.record import Exchange, read_recording
from loomstream.wire import WireRequest

Step = bytes | Callable[[], Awaitable[None]]
"""A chunk, or something to await before the next one; what it raises comes out of the transport."""


class Recording(msgspec.Struct, frozen=True):
    """A response: its body in steps, its status and headers (lower-case names)."""

    body: Sequence[Step]
    status: int = 200
    headers: Mapping[str, str] = msgspec.field(default_factory=lambda: {"content-type": "text/event-stream"})


class ReplayTransport:
    """Answers each request with the next recording, the last one again and again."""

    def __init__(self, *recordings: Recording) -> None:
        self._recordings = list(recordings)
        self.requests: list[WireRequest] = []
        self.open_responses = 0

    @asynccontextmanager
    async def open(
        self,
        wire_request: WireRequest,
        *,
        connect_s: float | None = None,  # noqa: ARG002 (the transport's signature)
    ) -> AsyncGenerator[ByteResponse]:
        """Give the next recording as the response."""
        self.requests.append(wire_request)
        if not self._recordings:
            msg = "the replay has no recording: give ReplayTransport at least one"
            raise ConnectionLost(msg)
        recording = self._recordings.pop(0) if len(self._recordings) > 1 else self._recordings[0]
        await anyio.lowlevel.checkpoint()
        self.open_responses += 1
        try:
            async with aclosing(_chunks(recording.body)) as chunks:
                yield ByteResponse(recording.status, recording.headers, chunks)
        finally:
            self.open_responses -= 1

    async def prepare(self, url: str) -> None:
        """Nothing is to be loaded."""

    async def aclose(self) -> None:
        """Nothing is kept open."""


async def _chunks(body: Sequence[Step]) -> AsyncGenerator[bytes]:
    for step in body:
        if isinstance(step, bytes):
            await anyio.lowlevel.checkpoint()
            yield step
        else:
            await step()


def recorded(path: str | os.PathLike[str], *, timing: bool = False) -> tuple[Recording, ...]:
    """Give the answers of a file that `loomstream.transport.record` wrote, cut as they came.

    With `timing` each chunk comes as long after the one before as it did. An answer whose connection broke breaks
    again, as `ConnectionLost`. Raises `ConfigError` for a file that is no recording.
    """
    return tuple(_recording(exchange, timing=timing) for exchange in read_recording(path))


def _recording(exchange: Exchange, *, timing: bool) -> Recording:
    body: list[Step] = []
    before_s = 0.0
    for chunk in exchange.chunks:
        if timing and chunk.after_s > before_s:
            body.append(partial(anyio.sleep, chunk.after_s - before_s))
        before_s = chunk.after_s
        body.append(chunk.data)
    if exchange.outcome not in ("ended", "left"):
        body.append(partial(_break, exchange.outcome))
    return Recording(body, exchange.response.status, exchange.response.headers)


async def _break(outcome: str) -> None:
    raise ConnectionLost(outcome)


def _must_be_given(row: Provider, setting: Setting) -> bool:
    return not setting.default and (setting.required or f"{{{setting.name}}}" in row.base_url)


def replay_model(
    provider: str,
    *recordings: Recording | bytes,
    model: str = "",
    dialect: str = "",
    transport: ReplayTransport | None = None,
    middleware: Sequence[Middleware] | None = None,
    **defaults: Unpack[RequestOptions],
) -> Model:
    """Give a model of a provider whose answers are recordings (or the plain bytes of a body).

    `dialect` selects one of those that the provider speaks. `middleware` defaults to `cost` alone: a recorded failure
    does not pass by itself, and a test waits for nothing. Raises `UnknownProvider` and `ConfigError`.
    """
    # no host is there: none to ask what its models can do, and none that limits how often it is asked
    row = msgspec.structs.replace(look_up(provider), discovery="", requests_per_minute=0.0)
    for place, item in enumerate(recordings):
        if not isinstance(item, Recording | bytes):  # pyright: ignore[reportUnnecessaryIsInstance] (no types)
            hint = ", as in replay_model(provider, *recorded(…))" if type(item) in {list, tuple} else ""
            msg = f"recording {place} of replay_model is {kind_of(item)}: give a Recording, or a body's bytes{hint}"
            raise ConfigError(msg)
    made = [item if isinstance(item, Recording) else Recording([item]) for item in recordings]
    name = model or row.default_model or "replayed-model"
    settings = {setting.name: f"replayed-{setting.name}" for setting in row.settings if _must_be_given(row, setting)}
    base_url = "" if row.base_url else "http://localhost:1"
    if middleware is None:
        middleware = (cost(row.name, name),)
    return Model(
        Endpoint(row, name, api_key="replayed-key", base_url=base_url, dialect=dialect, settings=settings),
        transport=transport or ReplayTransport(*made),
        middleware=middleware,
        request_defaults=defaults,
    )
