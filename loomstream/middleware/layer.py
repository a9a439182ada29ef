"""One stream of a middleware that has work before, beside and after the events: context and iterator in one.

Contract: entering does nothing. The first read calls `open_inner` when the work before it is done; each read gives
what `next_batch` gives, or what is inside, once `passing` is set; leaving closes the inner stream, then calls
`released`. Nothing is open between two reads but the inner context. A class, not a generator, because most events pass
untouched and in lists.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager
from types import CoroutineType, TracebackType
from typing import Any

import anyio

from loomstream.errors import LoomstreamError, StreamTruncated
from loomstream.events import Event
from loomstream.handler import Handler, NextBatch, batches, is_idle, is_over
from loomstream.messages import Request

_log = logging.getLogger(__name__)


CLOSE_LIMIT_S = 3.0
"""Closing an attempt takes no longer than this, in seconds."""


async def leave(context: AbstractAsyncContextManager[object]) -> None:
    """Leave what was entered, within `CLOSE_LIMIT_S`: also where whoever waits for that is cancelled meanwhile."""
    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_LIMIT_S):
        await context.__aexit__(None, None, None)


async def tolerated(step: Awaitable[object], what: str) -> None:
    """Await a step whose failure must not break an answer that streams; it is logged."""
    try:
        await step
    except LoomstreamError as error:
        _log.warning("%s failed: %s", what, error)


def lost_stop() -> StreamTruncated:
    """Give the error of events that end as if they had been a whole answer."""
    return StreamTruncated("the events ended without a Stop: a handler lost it")


class Layer:
    """The base of such streams; a subclass brings `next_batch`, and `released` where it holds something."""

    __slots__ = ("_ahead", "_context", "_handler", "_request", "inner", "passing")

    def __init__(self, handler: Handler, request: Request) -> None:
        self._handler = handler
        self._request = request
        self._context: AbstractAsyncContextManager[AsyncIterator[Event]] | None = None
        self._ahead: list[Event] = []
        """What has come and was not yet given, last one first."""
        self.inner: NextBatch | None = None
        """Awaits the inner events; None until `open_inner`."""
        self.passing: NextBatch | None = None
        """The same, from when on this layer does nothing more than to give them: then a read costs it no coroutine."""

    async def next_batch(self) -> list[Event]:
        """Give the next events, at least one. Raises `StopAsyncIteration` at the end."""
        raise NotImplementedError

    def holds(self) -> bool:
        """Whether `released` has something to give back."""
        return True

    async def released(self) -> None:
        """Give back what is held; called once on leaving, after the inner stream is closed, however that went."""

    async def open_inner(self) -> NextBatch:
        """Enter the inner handler; leaving this layer leaves it."""
        context = self._handler(self._request)
        events = context if isinstance(context, Layer) else await context.__aenter__()
        self._context = context
        self.inner = batches(events)
        return self.inner

    async def __aenter__(self) -> AsyncIterator[Event]:
        return self

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> CoroutineType[Any, Any, bool | None]:
        context, self._context = self._context, None
        if context is not None and not self.holds():
            return context.__aexit__(kind, error, trace)
        return self._leave(context, kind, error, trace)

    async def _leave(
        self,
        context: AbstractAsyncContextManager[AsyncIterator[Event]] | None,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        try:
            return None if context is None else await context.__aexit__(kind, error, trace)
        finally:
            await self.released()

    def __loomstream_idle__(self) -> bool:
        return self._context is not None and self.is_free() and is_idle(self._context)

    def __loomstream_over__(self) -> bool:
        return self.passing is not None and not self._ahead and is_over(self._context)

    def is_free(self) -> bool:
        """Whether `released` waits for nothing."""
        return True

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if not self._ahead:
            self._ahead = (await self.__loomstream_batch__())[::-1]
        return self._ahead.pop()

    def __loomstream_batch__(self) -> Awaitable[list[Event]]:
        if self._ahead:
            return self._rest()
        passing = self.passing
        return self.next_batch() if passing is None else passing()

    async def _rest(self) -> list[Event]:
        """Give what single reads have left over."""
        ahead, self._ahead = self._ahead[::-1], []
        return ahead
