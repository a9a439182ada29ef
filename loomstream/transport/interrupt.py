"""Interrupts one reader from outside: the total deadline, and `Stream.cancel()` from another task.

Contract: each step of the reader runs inside `with interrupt:`, and nothing is open between two steps. An interrupt
reaches the reader where it waits, as the error that was given; the reader's own task is not left cancelled, and a
cancellation that came from elsewhere stays what it is. On asyncio it is the algorithm of `asyncio.timeout`: one
`Task.cancel`, taken back by `Task.uncancel`. On trio it is a cancel scope around each step.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, current_task
from collections.abc import Callable
from types import TracebackType

import anyio

from loomstream.errors import LoomstreamError


class Interrupt:
    """At most one error, delivered to whoever reads; on asyncio."""

    __slots__ = ("_cancelling", "_task", "_timer", "error")

    def __init__(self) -> None:
        self.error: LoomstreamError | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
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

    def __enter__(self) -> None:
        """Begin a step. Raises the error where it is set already."""
        if self.error is not None:
            raise self.error
        task = self._task = current_task()
        self._cancelling = 0 if task is None else task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End a step. Raises the error where it came meanwhile."""
        task, self._task = self._task, None
        if kind is None or self.error is None or task is None or not issubclass(kind, CancelledError):
            return
        if task.uncancel() <= self._cancelling:
            raise self.error from None


class ScopeInterrupt(Interrupt):
    """The same on trio, by a cancel scope around each step."""

    __slots__ = ("_deadline", "_make_error", "_scope")

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

    def _pass_deadline(self) -> None:
        if self.error is None and self._make_error is not None and anyio.current_time() >= self._deadline:
            self.error = self._make_error()

    def __enter__(self) -> None:
        """Begin a step. Raises the error where it is set already."""
        self._pass_deadline()
        if self.error is not None:
            raise self.error
        self._scope = anyio.CancelScope(deadline=self._deadline)
        self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End a step. Raises the error where it came meanwhile."""
        scope, self._scope = self._scope, None
        if scope is None:
            return
        scope.__exit__(kind, error, traceback)
        if scope.cancelled_caught:
            self._pass_deadline()
            if self.error is not None:
                raise self.error from None


def interrupt() -> Interrupt:
    """Give the kind of interrupt that fits the running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return ScopeInterrupt()
    return Interrupt()
