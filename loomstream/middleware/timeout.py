"""Timeout: states time limits in the request, and holds what is inside it to the total one.

Contract: the limits on waiting are only stated: the Watch of each attempt enforces them where bytes are awaited, and
they cost nothing while events flow. The total limit is enforced here, for whatever handler is inside, from its opening
on: in the consumer's turn it interrupts nobody, the next read raises. A limit that the request sets itself wins over
the middleware's; the request's own `total_s` is the stream's, and is enforced there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal

import msgspec

from loomstream.errors import DeadlineExceeded
from loomstream.events import Event
from loomstream.handler import Handler, Middleware
from loomstream.messages import Request, Timeouts
from loomstream.middleware.layer import Layer
from loomstream.transport.interrupt import Interrupt, interrupt

Default = Literal["default"]
_UNSET = Timeouts()


def timeout(
    *,
    connect_s: float | Default | None = "default",
    first_event_s: float | Default | None = "default",
    idle_s: float | Default | None = "default",
    whole_s: float | Default | None = "default",
    total_s: float | Default | None = "default",
) -> Middleware:
    """Give the middleware that states these limits, in seconds; None switches one off.

    What each of them means, and its default, is in `loomstream.messages.Timeouts`. `total_s` is that of each attempt:
    where a retry is further out, its waits and other attempts count against the request's own `total_s` alone. An
    attempt that passes it raises `DeadlineExceeded`.

    Raises `RequestError` for a limit that is not above 0.
    """
    given: dict[str, float | Default | None] = {
        "connect_s": connect_s,
        "first_event_s": first_event_s,
        "idle_s": idle_s,
        "whole_s": whole_s,
        "total_s": total_s,
    }
    stated = {name: limit_s for name, limit_s in given.items() if limit_s != "default"}
    msgspec.structs.replace(_UNSET, **stated)  # refuses what is no limit

    def wrap(handler: Handler) -> Handler:
        def limited(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            own = request.timeouts.total_s
            request = msgspec.structs.replace(request, timeouts=_stated(request.timeouts, stated))
            limit_s = request.timeouts.total_s
            if own is not None or limit_s is None:
                return handler(request)
            return _Timed(handler, request, limit_s)

        return limited if stated else handler

    return wrap


def _stated(own: Timeouts, stated: dict[str, float | None]) -> Timeouts:
    """Give the request's limits, with the stated ones in the place of those that it left at their defaults."""
    taken = {name: limit_s for name, limit_s in stated.items() if getattr(own, name) == getattr(_UNSET, name)}
    return msgspec.structs.replace(own, **taken)


class _Timed(Layer):
    """One attempt within its total limit."""

    __slots__ = ("_interrupt", "_limit_s", "_step")

    def __init__(self, handler: Handler, request: Request, limit_s: float) -> None:
        super().__init__(handler, request)
        self._limit_s = limit_s
        self._interrupt: Interrupt | None = None
        self._step: Callable[[], Awaitable[list[Event]]] = self._first

    async def _first(self) -> list[Event]:
        inner = await self.open_inner()
        assert self._interrupt is not None  # noqa: S101 (for the type checker: set before the first step)
        self._step = self._interrupt.wrap(inner)
        return await inner()

    async def next_batch(self) -> list[Event]:
        timer = self._interrupt
        if timer is None:
            timer = self._interrupt = interrupt()
            timer.at(timer.now() + self._limit_s, self._exceeded)
            self._step = timer.wrap(self._first)
        try:
            timer.waiting = True
            timer.mark()
            return await self._step()
        except BaseException as error:
            converted = timer.convert(error)
            if converted is error:
                raise
            raise converted from None
        finally:
            timer.waiting = False

    async def released(self) -> None:
        if self._interrupt is not None:
            self._interrupt.disarm()

    def _exceeded(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"the attempt took longer than {self._limit_s:g} s in all: raise timeout(total_s=…)")
