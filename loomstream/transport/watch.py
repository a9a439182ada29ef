"""The time limits of one attempt, enforced where bytes are awaited.

Contract: the consumer's own time never counts, everything else does: waiting for bytes, and the decoding of bytes that
are no event, so that a peer who sends nothing but pings at full speed trips a limit too. Whoever reads says when the
consumer's turn begins, by `progress` or `delivered`; it ends with the next read. Until `progress` is first called
`first_event_s` runs, which the wait for the headers shares; after it `idle_s`, begun anew at each `progress`. Bytes are
no progress: comments and pings reset nothing. No cancel scope is open across a yield. Nothing is left armed after
`close`. The total limit belongs to the stream, not here.

On asyncio, where the response can be woken, one lazily re-armed timer serves a whole attempt (a scope around each
read costs many times as much); elsewhere an anyio cancel scope stands inside each read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import cache
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any

import anyio
from msgspec import Struct

from loomstream.errors import FirstEventTimeout, IdleTimeout, LoomstreamError, Timeout
from loomstream.messages import Timeouts
from loomstream.transport import ByteResponse, Transport
from loomstream.transport.advice import longer
from loomstream.wire import WireRequest

if TYPE_CHECKING:
    import asyncio

DRAIN_BYTES = 64 * 1024
"""`drain` reads at most this much."""
DRAIN_S = 0.05
"""`drain` waits at most this long, in seconds."""


class Watch:
    """The time limits of one attempt; see the module's contract."""

    __slots__ = ("_alarm", "_alarm_at", "_limit_s", "_loop", "_since", "_started", "_timeouts", "_waited_s", "_wake")

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._limit_s = timeouts.first_event_s
        self._started = False
        self._waited_s = 0.0
        self._since: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: Callable[[Exception], None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    def open(self, transport: Transport, wire_request: WireRequest) -> AbstractAsyncContextManager[ByteResponse]:
        """Open the response within the limits.

        Entering raises `FirstEventTimeout` where no headers come within `first_event_s`, and what the transport
        raises (`ConnectTimeout` after `connect_s`). Leaving closes the response and the watch.
        """
        return _Opening(self, transport.open(wire_request, connect_s=self._timeouts.connect_s))

    def enter(self, opening: AbstractAsyncContextManager[ByteResponse]) -> CoroutineType[Any, Any, ByteResponse]:
        """Enter what `transport.open` gave, within the limit; for the context that `open` gives."""
        loop = _asyncio().running_loop()
        return self._enter_in_scope(opening) if loop is None else self._enter_on(loop, opening)

    async def _enter_in_scope(self, opening: AbstractAsyncContextManager[ByteResponse]) -> ByteResponse:
        since = anyio.current_time()
        with anyio.move_on_after(self._limit_s):
            response = await opening.__aenter__()
            self._begin(response, None, anyio.current_time() - since)
            return response
        raise self._timeout()

    async def _enter_on(
        self, loop: asyncio.AbstractEventLoop, opening: AbstractAsyncContextManager[ByteResponse]
    ) -> ByteResponse:
        """Enter it with the alarm set, which the first read takes over.

        The alarm cancels the task and takes that back, as `asyncio.timeout` does: half the cost of a scope.
        """
        rang = False
        task = _asyncio().current_task(loop)
        assert task is not None  # noqa: S101 (for the type checker: a coroutine runs in a task)
        cancel = task.cancel

        def interrupt(_: Exception) -> None:
            nonlocal rang
            rang = True
            cancel()

        cancelling = task.cancelling()
        self._since = since = loop.time()
        self._loop, self._wake = loop, interrupt
        if self._limit_s is not None:
            self._arm(since + self._limit_s)
        try:
            response = await opening.__aenter__()
        except (Exception, _asyncio().cancelled):
            self.close()
            if rang and task.uncancel() <= cancelling:
                raise self._timeout() from None
            raise
        if rang:
            task.uncancel()
        self._begin(response, loop, loop.time() - since)
        return response

    async def read(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        """Give the next chunk, or None at the end of the body; raises as `next` does."""
        try:
            return await self.next(chunks)
        except StopAsyncIteration:
            return None

    def next(self, chunks: AsyncIterator[bytes]) -> Awaitable[bytes]:
        """Await the next chunk.

        Raises `StopAsyncIteration` at the end of the body, `FirstEventTimeout` or `IdleTimeout` where the limit passes,
        and what the chunks raise.
        """
        if self._loop is None:
            return self._read_in_scope(chunks)
        if self._limit_s is not None:
            deadline = self._deadline(self._loop.time(), self._limit_s)
            if self._alarm is None or self._alarm_at > deadline:
                self._arm(deadline)
        return chunks.__anext__()

    async def _read_in_scope(self, chunks: AsyncIterator[bytes]) -> bytes:
        if self._limit_s is None:
            return await chunks.__anext__()
        now = anyio.current_time()
        with anyio.move_on_after(self._deadline(now, self._limit_s) - now):
            return await chunks.__anext__()
        raise self._timeout()

    def _deadline(self, now: float, limit_s: float) -> float:
        """Give the time when the limit passes, or raise: bytes that are there already wake nobody."""
        if self._since is None:
            self._since = now
        deadline = self._since + limit_s - self._waited_s
        if now >= deadline:
            raise self._timeout()
        return deadline

    def progress(self) -> None:
        """Say that a content event goes to the consumer now: from the next read on `idle_s` runs, from its beginning.

        Once for all events of a read.
        """
        self._started = True
        self._waited_s = 0.0
        self._since = None
        self._limit_s = self._timeouts.idle_s

    def delivered(self) -> None:
        """Say that events without content go to the consumer now: the limit stands still until the next read."""
        if self._since is not None:
            now = anyio.current_time() if self._loop is None else self._loop.time()
            self._waited_s += now - self._since
            self._since = None

    def close(self) -> None:
        """Disarm the watch."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._since = None
        self._loop = None
        self._wake = None

    def _begin(self, response: ByteResponse, loop: asyncio.AbstractEventLoop | None, waited_s: float) -> None:
        if response.wake is None:
            self.close()
        else:
            self._loop, self._wake = loop, response.wake
        self._since = None
        self._waited_s = waited_s

    def _arm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        assert self._loop is not None  # noqa: S101 (for the type checker: armed from `read` and `_ring` only)
        self._alarm_at = deadline
        self._alarm = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        """Wake the reader if its time is up, else set the timer anew; in the consumer's turn the next read sets it."""
        self._alarm = None
        if self._since is None or self._limit_s is None or self._loop is None or self._wake is None:
            return
        deadline = self._since + self._limit_s - self._waited_s
        if self._loop.time() < deadline:
            self._arm(deadline)
        else:
            self._wake(self._timeout())

    def _timeout(self) -> Timeout:
        limits = self._timeouts
        if self._started:
            idle_s = limits.idle_s or 0.0
            how = longer("idle_s", idle_s)
            return IdleTimeout(
                f"no further content event within {idle_s:g} s of waiting: the provider stalled, or {how}"
            )
        first_s = limits.first_event_s or 0.0
        how = longer("first_event_s", first_s)
        return FirstEventTimeout(f"no content event within {first_s:g} s of waiting: the provider is slow, or {how}")


class _Asyncio(Struct, frozen=True):
    running_loop: Callable[[], asyncio.AbstractEventLoop | None]
    current_task: Callable[[asyncio.AbstractEventLoop], asyncio.Task[object] | None]
    cancelled: type[BaseException]


@cache
def _asyncio() -> _Asyncio:
    """Give what is needed of asyncio, which runs by now; an import at each entering would be ten times dearer."""
    from asyncio import CancelledError, current_task  # noqa: PLC0415 (see above)

    from loomstream.transport.loops import running_loop  # noqa: PLC0415 (see above)

    return _Asyncio(running_loop, current_task, CancelledError)


class _Opening:
    """The context manager of `Watch.open`; a class, so that no scope can be open while its body runs."""

    __slots__ = ("_inner", "_watch")

    def __init__(self, watch: Watch, inner: AbstractAsyncContextManager[ByteResponse]) -> None:
        self._watch = watch
        self._inner = inner

    def __aenter__(self) -> CoroutineType[Any, Any, ByteResponse]:
        return self._watch.enter(self._inner)

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> CoroutineType[Any, Any, bool | None]:
        self._watch.close()
        return self._inner.__aexit__(kind, error, trace)


def is_at_end(response: ByteResponse) -> bool:
    """Say whether the body is known to have been read to its end."""
    return response.at_end is not None and response.at_end()


async def drain(response: ByteResponse, *, max_bytes: int = DRAIN_BYTES, limit_s: float = DRAIN_S) -> None:
    """Read the rest of an answer whose terminal marker was seen, so that its connection can be used again.

    Gives up silently after `max_bytes` or `limit_s` seconds, or where the connection breaks: the answer is whole, so
    the only loss is the connection.
    """
    if is_at_end(response):
        return
    left = max_bytes
    with anyio.move_on_after(limit_s), suppress(LoomstreamError):
        async for chunk in response.chunks:
            left -= len(chunk)
            if left < 0:
                return
