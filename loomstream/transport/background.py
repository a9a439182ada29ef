"""One piece of work that goes on while its caller does something else between two looks at it.

Contract: no task group and no cancel scope of the caller's is open meanwhile, so it may live across a yield. Whoever
starts one must end it with `aclose`, which cancels it and waits until it has let go of everything. Its error reaches
the caller alone, by `result`. On asyncio it is a task, on trio a system task in a scope of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Generic, TypeVar

import anyio

_T = TypeVar("_T")


_Run = Callable[[], Awaitable[None]]
_Cancel = Callable[[], object]


def _start_task(run: _Run, ended: Callable[[], None]) -> _Cancel:
    async def in_task() -> None:
        await run()

    task = asyncio.get_running_loop().create_task(in_task())
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
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _start_system_task(run, ended)
    return _start_task(run, ended)


class Background(Generic[_T]):
    """Runs `work()` from now on."""

    def __init__(self, work: Callable[[], Awaitable[_T]]) -> None:
        self._work = work
        self._done = anyio.Event()
        self._value: list[_T] = []
        self._error: BaseException | None = None
        self._cancel = _start(self._run, self._done.set)

    async def _run(self) -> None:
        try:
            self._value.append(await self._work())
        except BaseException as error:
            self._error = error
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise  # the event loop must see it; whatever else it is belongs to the caller, by `result`

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
        """Cancel it where it still runs, and wait until it is over."""
        if not self._done.is_set():
            self._cancel()
            with anyio.CancelScope(shield=True):
                await self._done.wait()
