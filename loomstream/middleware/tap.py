"""Tap: an observer sees each event, and changes nothing.

Contract: the observer is called before the event is handed on, so it must be quick and wait for nothing. What it raises
never breaks the stream: a `warning` notice tells of it, once a stream, and it goes on being called. It sees no error:
those are raised past it.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from loomstream.errors import ConfigError
from loomstream.events import Event, Notice
from loomstream.handler import Handler, Middleware
from loomstream.kind_names import kind_of
from loomstream.messages import Request
from loomstream.middleware.layer import Layer

Observer = Callable[[Event], object]
"""Sees an event; what it gives is ignored."""


def tap(observer: Observer) -> Middleware:
    """Give the middleware that shows each event of each stream to `observer`.

    Raises `ConfigError` for a coroutine function: let it put the event into a queue of yours instead.
    """
    _check(observer)
    return tap_each(lambda _: observer)


def tap_each(make: Callable[[Request], Observer]) -> Middleware:
    """Give the middleware that shows each event of a stream to an observer of its own: `make` gives it by the request.

    Raises `ConfigError` for a coroutine function.
    """
    _check(make)

    def wrap(handler: Handler) -> Handler:
        def tapped(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            return _Tapped(handler, request, make)

        return tapped

    return wrap


def _check(function: Callable[..., object]) -> None:
    if not callable(function) or inspect.iscoroutinefunction(function):
        what = "is a coroutine function" if callable(function) else f"is {kind_of(function)}"
        msg = f"the observer {what}: give a plain function; it may put the event into a queue of yours"
        raise ConfigError(msg)


class _Tapped(Layer):
    """One stream."""

    __slots__ = ("_failed", "_make", "_observer")

    def __init__(self, handler: Handler, request: Request, make: Callable[[Request], Observer]) -> None:
        super().__init__(handler, request)
        self._make = make
        self._observer: Observer | None = None
        self._failed = False

    async def next_batch(self) -> list[Event]:
        inner = self.inner or await self.open_inner()
        batch = await inner()
        notice: Notice | None = None
        at = 0
        for position, event in enumerate(batch):
            try:
                if self._observer is None:
                    self._observer = self._make(self._request)
                self._observer(event)
            except Exception as error:  # noqa: BLE001 (an observer never breaks a stream)
                if not self._failed:
                    notice, at, self._failed = _failure(error), position, True
                self._observer = self._observer or _blind
        if notice is not None:
            batch.insert(at, notice)
        return batch


def _blind(event: Event) -> None:
    """Stand for an observer that could not be made."""


def _failure(error: Exception) -> Notice:
    return Notice("warning", f"an observer raised {type(error).__name__}: {error}; the stream goes on")
