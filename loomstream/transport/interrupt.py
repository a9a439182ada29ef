"""Interrupts one reader from outside: the total deadline, and `Stream.cancel()` from another task.

Contract: the reader calls `mark` before each step and awaits what `wrap` made of the step; where the step raises, the
error goes through `convert`. An interrupt reaches the reader where it waits, as the error that was given; the reader's
own task is not left cancelled, also where a layer below made another error of it, and a cancellation that came from
elsewhere stays what it is. Nothing is open between two steps. On asyncio it is the algorithm of `asyncio.timeout`: one
`Task.cancel`, taken back by `Task.uncancel`, which costs a step no more than to note its task. On trio it is a cancel
scope around each step.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import current_task
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from loomstream.errors import LoomstreamError
from loomstream.transport.loops import running_loop

_T = TypeVar("_T")


class Interrupt:
    """At most one error, delivered to whoever reads; on asyncio."""

    __slots__ = ("_cancelling", "_fired", "_loop", "_task", "_timer", "error", "keeps_time", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self.keeps_time = False
        """Whether `check` has to look at the clock, beside at `error`."""
        self.error: LoomstreamError | None = None
        self.waiting = False
        """Whether a step is under way; the reader sets it."""
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._fired = False
        self._timer: asyncio.TimerHandle | None = None

    def at(self, deadline: float, make_error: Callable[[], LoomstreamError]) -> None:
        """Interrupt at a time of the event loop's clock, in seconds."""
        loop = self._loop or asyncio.get_running_loop()
        self._timer = loop.call_at(deadline, lambda: self.set(make_error()))

    def set(self, error: LoomstreamError) -> None:
        """Interrupt now, or at the next step where the reader itself says so; only the first error counts."""
        if self.error is None:
            self.error = error
            if self.waiting and self._task is not None and self._task is not current_task(self._loop):
                self._task.cancel()
                self._fired = True

    def disarm(self) -> None:
        """Forget the time limit, and take back a cancellation that a layer below swallowed."""
        self._take_back()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take_back(self) -> bool:
        """Take back our own cancellation of the task; say whether there was one, and no other beside it."""
        if not self._fired or self._task is None:
            return False
        self._fired = False
        return self._task.uncancel() <= self._cancelling

    def now(self) -> float:
        """Give the time of the event loop's clock, in seconds."""
        return 0.0 if self._loop is None else self._loop.time()

    def check(self) -> None:
        """Raise the error where it is set already: for what takes no waiting."""
        if self.error is not None:
            raise self.error

    def mark(self) -> None:
        """Say that a step begins in the running task. Raises the error where it is set already."""
        if self.error is not None:
            raise self.error
        task = self._task = current_task(self._loop)  # without the loop it would ask the system for its process id
        if task is not None:  # pragma: no branch (for the type checker: a coroutine runs in a task)
            self._cancelling = task.cancelling()

    def wrap(self, step: Callable[[], Awaitable[_T]]) -> Callable[[], Awaitable[_T]]:
        """Give the step as it is to be awaited."""
        return step

    def convert(self, error: BaseException) -> BaseException:
        """Give the error of an interrupted step, whatever a layer below made of it; any other one unchanged."""
        return (self.error or error) if self._take_back() else error


class ScopeInterrupt(Interrupt):
    """The same on trio, by a cancel scope around each step."""

    __slots__ = ("_deadline", "_make_error", "_scope")

    def __init__(self) -> None:
        super().__init__()
        self.keeps_time = True
        self._scope: anyio.CancelScope | None = None
        self._deadline = math.inf
        self._make_error: Callable[[], LoomstreamError] = LoomstreamError

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

    def now(self) -> float:
        """Give the time of the event loop's clock, in seconds."""
        return anyio.current_time()

    def mark(self) -> None:
        """Say that a step begins; raises as `check` does."""
        self.check()

    def check(self) -> None:
        """Raise the error where it is set already, or the deadline has passed."""
        if self.error is None and self._deadline < math.inf and anyio.current_time() >= self._deadline:
            self.error = self._make_error()
        if self.error is not None:
            raise self.error

    def wrap(self, step: Callable[[], Awaitable[_T]]) -> Callable[[], Awaitable[_T]]:
        """Give the step within a cancel scope of its own."""

        async def scoped() -> _T:
            with anyio.CancelScope(deadline=self._deadline) as scope:
                self._scope = scope
                try:
                    return await step()
                except Exception:
                    if not scope.cancel_called:
                        raise
                finally:
                    self._scope = None
            self.error = self.error or self._make_error()  # the scope was cancelled: by `set`, or by its deadline
            raise self.error

        return scoped

    def convert(self, error: BaseException) -> BaseException:
        """Give the error unchanged: the scope has told its own cancellation from others."""
        return error


def interrupt() -> Interrupt:
    """Give the kind of interrupt that fits the running event loop."""
    loop = running_loop()
    return ScopeInterrupt() if loop is None else Interrupt(loop)
