"""Interrupts one reader from outside: the total deadline, and `Stream.cancel()` from another task.

Contract: an interrupt reaches the reader where it waits, as the error that was given; the reader's own task is not
left cancelled, and a cancellation that came from elsewhere stays what it is. Nothing is open across two reads. It is
the algorithm of `asyncio.timeout`: one `Task.cancel`, taken back by `Task.uncancel`. On trio it is a cancel scope
around one read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from loomstream.errors import LoomstreamError

_T = TypeVar("_T")


class Interrupt:
    """At most one error, delivered to whoever reads; on asyncio."""

    def __init__(self) -> None:
        self.error: LoomstreamError | None = None
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def at(self, deadline: float, make_error: Callable[[], LoomstreamError]) -> None:
        """Interrupt at a time of the event loop's clock, in seconds."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(deadline, lambda: self.set(make_error()))

    def set(self, error: LoomstreamError) -> None:
        """Interrupt now; only the first error counts."""
        if self.error is None:
            self.error = error
            if self._task is not None:
                self._task.cancel()

    def disarm(self) -> None:
        """Forget the time limit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def run(self, step: Callable[[], Awaitable[_T]]) -> _T:
        """Await one step of the reader; raise the error where it is set before or meanwhile."""
        if self.error is not None:
            raise self.error
        task = self._task = asyncio.current_task()
        cancelling = 0 if task is None else task.cancelling()
        try:
            return await step()
        except asyncio.CancelledError:
            if self.error is not None and task is not None and task.uncancel() <= cancelling:
                raise self.error from None
            raise
        finally:
            self._task = None


class ScopeInterrupt(Interrupt):
    """The same on trio, by a cancel scope around each step."""

    def __init__(self) -> None:
        super().__init__()
        self._scope: anyio.CancelScope | None = None
        self._deadline = float("inf")
        self._make_error: Callable[[], LoomstreamError] | None = None

    def at(self, deadline: float, make_error: Callable[[], LoomstreamError]) -> None:
        """Interrupt at a time of the event loop's clock, in seconds."""
        self._deadline = deadline
        self._make_error = make_error

    def set(self, error: LoomstreamError) -> None:
        """Interrupt now; only the first error counts."""
        if self.error is None:
            self.error = error
            if self._scope is not None:
                self._scope.cancel()

    async def run(self, step: Callable[[], Awaitable[_T]]) -> _T:
        """Await one step of the reader; raise the error where it is set before or meanwhile."""
        if self.error is None and self._make_error is not None and anyio.current_time() >= self._deadline:
            self.error = self._make_error()
        if self.error is not None:
            raise self.error
        with anyio.CancelScope(deadline=self._deadline) as scope:
            self._scope = scope
            try:
                return await step()
            finally:
                self._scope = None
        if self.error is None:
            if self._make_error is None:  # pragma: no cover (the scope is cancelled by one of the two)
                raise AssertionError
            self.error = self._make_error()
        raise self.error


def interrupt() -> Interrupt:
    """Give the kind of interrupt that fits the running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return ScopeInterrupt()
    return Interrupt()
