"""Attempts one after the other, as one clean stream: what retry, failover and their like have in common.

Contract: an attempt is opened inside `__anext__` and closed before the next one. Until its first content event its
other events are held back (at most `MAX_HELD`) and dropped if it fails; notices pass at once. From then on it is the
answer, and its error is the caller's. Every error names all attempts. Nothing is open across a yield but the attempt's
own context.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import anyio

from loomstream.errors import Attempt, LoomstreamError, StreamTruncated, UsageError
from loomstream.events import CONTENT_EVENTS, Event, Notice, Start, Stop
from loomstream.handler import Handler
from loomstream.messages import Request
from loomstream.middleware.layer import Layer

MAX_HELD = 64
"""So many events without content may precede an attempt's first one; then it counts as begun all the same."""

CLOSE_LIMIT_S = 3.0
"""Closing an attempt that failed takes no longer than this, in seconds."""

_NO_REQUEST = Request(messages=())
_NO_START = Start()

COMMITTING = frozenset((*CONTENT_EVENTS, Stop))
"""Events that make an attempt the answer."""


class Next(NamedTuple):
    """What is tried next: the handler and what it is asked; before it the notices, and then a pause in seconds."""

    handler: Handler
    request: Request
    notices: tuple[Notice, ...] = ()
    delay_s: float = 0.0


Choose = Callable[[LoomstreamError | None], Awaitable[Next | None]]
"""The decision of one call: None at its beginning, then the error of each attempt that failed before its first content.

None for an answer: there is nothing else to try, the error is raised.
"""


def attempts(choose: Choose) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
    """Give the events of the first attempt that begins to answer."""
    return _Attempts(choose)


async def _decided(error: LoomstreamError | None) -> Next | None:  # noqa: ARG001 (the signature of Choose)
    """Stand in the place of a decision that is not needed any more: it may hold a large prompt."""
    return None


class _Attempts(Layer):
    """The attempts of one call. After the first content a read costs one frame, however many events it brings."""

    __slots__ = ("_answered", "_choose", "_error", "_failed", "_held", "_next", "_start")

    def __init__(self, choose: Choose) -> None:
        super().__init__(_nowhere, _NO_REQUEST)
        self._choose = choose
        self._next: Next | None = None
        """Chosen, and not yet opened."""
        self._error: LoomstreamError | None = None
        """What the last attempt failed with."""
        self._failed: tuple[Attempt, ...] = ()
        self._answered = False
        self._held: list[Event] = []
        self._start = _NO_START

    async def next_batch(self) -> list[Event]:
        if self._answered and self.inner is not None:
            try:
                return await self.inner()
            except LoomstreamError as error:
                self._note(error)
                raise
        while True:
            events = await self._step()
            if events:
                return events

    async def _step(self) -> list[Event]:
        """Go one step towards the first content, give what of it the consumer may see."""
        if self._next is None and self.inner is None:
            return await self._choose_next()
        try:
            if self.inner is None:
                await self._open_next()
            return self._taken(await self._read())
        except LoomstreamError as error:
            self._note(error)
            self._error = error
            await self._close_failed(error)
            return []

    async def _choose_next(self) -> list[Event]:
        chosen = await self._choose(self._error)
        if chosen is None:
            raise self._error or UsageError("a combinator chose nothing to begin with")
        self._next = chosen
        return list(chosen.notices)

    async def _open_next(self) -> None:
        chosen, self._next = self._next, None
        if chosen is None:  # pragma: no cover (for the type checker)
            return
        if chosen.delay_s > 0:
            await anyio.sleep(chosen.delay_s)
        self._held, self._start = [], _NO_START
        self._handler, self._request = chosen.handler, chosen.request
        await self.open_inner()
        self._handler, self._request = _nowhere, _NO_REQUEST

    async def _read(self) -> list[Event]:
        if self.inner is None:  # pragma: no cover (for the type checker)
            return []
        try:
            return await self.inner()
        except StopAsyncIteration:
            msg = "the events ended without a Stop: a handler lost it"
            raise StreamTruncated(msg) from None

    def _taken(self, events: list[Event]) -> list[Event]:
        """Give what passes of the next events: notices, and all of them once there is content."""
        notices: list[Event] = []
        for at, event in enumerate(events):
            if event.__class__ is Notice:
                notices.append(event)
                continue
            self._held.append(event)
            if isinstance(event, Start):
                self._start = event
            if event.__class__ in COMMITTING or len(self._held) > MAX_HELD:
                held, self._held = self._held, []
                self._answered = True
                self._choose = _decided
                return [*notices, *held, *events[at + 1 :]]
        return notices

    def _note(self, error: LoomstreamError) -> None:
        """Name all attempts in the error: where the attempt is a combinator's, the ones that it made."""
        known = self._error is not None and error.attempts is self._error.attempts
        own = () if known else error.attempts
        self._failed += own or (_outcome(error, self._start),)
        error.attempts = self._failed

    async def _close_failed(self, error: LoomstreamError) -> None:
        context, self._context, self.inner, self._next = self._context, None, None, None
        if context is None:
            return
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_LIMIT_S):
            try:
                await context.__aexit__(None, None, None)
            except LoomstreamError as raised:
                error.add_note(f"closing the attempt failed too: {raised}")


def _nowhere(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:  # noqa: ARG001 (a handler)
    msg = "an attempt was opened before it was chosen"
    raise UsageError(msg)


def _outcome(error: LoomstreamError, start: Start) -> Attempt:
    provider, model = error.provider or start.provider, error.model or start.model
    return Attempt(provider, model, type(error).__name__, error.retry_after_s)
