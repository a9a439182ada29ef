"""One piece of work that goes on while its caller does something else between two looks at it.

Contract: no task group and no cancel scope of the caller's is open meanwhile, so it may live across a yield. Whoever
starts one must end it with `aclose`, which cancels it and waits until it has let go of everything. Its error reaches
the caller alone, by `result`. On asyncio it is a task, on trio a system task in a scope of its own.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from typing import Any, Generic, TypeVar

import anyio

from loomstream.transport.loops import running_loop

_T = TypeVar("_T")


_Run = Callable[[], Awaitable[None]]
_Cancel = Callable[[], object]


def _start_task(loop: asyncio.AbstractEventLoop, run: _Run, ended: Callable[[], None]) -> _Cancel:
    async def in_task() -> None:
        await run()

    task = loop.create_task(in_task())
    task.add_done_callback(lambda _: ended())  # also where it was cancelled before its first step
    return task.cancel


def _start_system_task(run: _Run, ended: Callable[[], None]) -> _Cancel:
    import trio  # noqa: PLC0415 (only on trio)

    scope = trio.CancelScope()

    async def in_scope() -> None:
        try:
            with scope:
                await run()
        finally:
            ended()

    trio.lowlevel.spawn_system_task(in_scope, context=copy_context())
    return scope.cancel


def _start(run: _Run, ended: Callable[[], None]) -> _Cancel:
    """Start the work beside the running task, give what cancels it; `ended` is called once it is over."""
    loop = running_loop()
    return _start_system_task(run, ended) if loop is None else _start_task(loop, run, ended)


class Background(Generic[_T]):
    """Runs `work()` from now on."""

    def __init__(self, work: Callable[[], Awaitable[_T]]) -> None:
        self._work = work
        self._done = anyio.Event()
        self._value: list[_T] = []
        self._error: BaseException | None = None
        self.cancel: Callable[[], object] = _start(self._run, self._done.set)
        """Ask it to end, and wait for nothing; `aclose` must still follow."""

    async def _run(self) -> None:
        try:
            self._value.append(await self._work())
        except BaseException as error:
            self._error = error
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise  # the event loop must see it; whatever else it is belongs to the caller, by `result`

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._done.is_set()

    @property
    def was_cancelled(self) -> bool:
        """Whether it ended because it was cancelled, perhaps before its first step. Only after its end."""
        return not self._value and isinstance(self._error, anyio.get_cancelled_exc_class() | None)

    async def wait(self, limit_s: float) -> bool:
        """Wait for the end, at most this many seconds; say whether it came."""
        with anyio.move_on_after(limit_s):
            await self._done.wait()
        return self._done.is_set()

    def result(self) -> _T:
        """Give what the work gave, or raise what it raised. Only after its end."""
        if self._error is not None:
            raise self._error
        return self._value[0]

    async def aclose(self) -> None:
        """Cancel it where it still runs, and wait until it is over, also where asyncio cancels this wait itself."""
        await close_all((self,))


async def close_all(works: Sequence[Background[Any]], *, limit_s: float = math.inf) -> bool:
    """Cancel all of them, and wait until they are over, at most `limit_s` seconds; say whether they are.

    Where asyncio cancels this wait by `Task.cancel`, which no scope's shield holds off, it goes on, and is cancelled
    afterwards.
    """
    for work in works:
        if not work.is_over:
            work.cancel()
    cancelled: BaseException | None = None
    with anyio.move_on_after(limit_s, shield=True) as scope:
        for work in works:
            while not work.is_over:
                try:
                    await work.wait(math.inf)
                except anyio.get_cancelled_exc_class() as error:
                    if scope.cancel_called:
                        raise
                    cancelled = error
    if cancelled is not None:
        raise cancelled
    return all(work.is_over for work in works)
