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

from loomstream.errors import Attempt, LoomstreamError, UsageError
from loomstream.events import CONTENT_EVENTS, Event, Notice, Start, Stop
from loomstream.handler import Handler, NextBatch
from loomstream.messages import Request
from loomstream.middleware.layer import Layer, leave, lost_stop

MAX_HELD = 64
"""So many events without content may precede an attempt's first one; then it counts as begun all the same."""

_NO_REQUEST = Request(messages=())
_NO_START = Start()

COMMITTING = frozenset((*CONTENT_EVENTS, Stop))
"""Events that make an attempt the answer."""


class Next(NamedTuple):
    """What is tried next: the handler and what it is asked; before it the notices, and then a pause in seconds.

    `provider` and `model` are whom it asks, where that is known: what an error is told of, that does not say itself.
    """

    handler: Handler
    request: Request
    notices: tuple[Notice, ...] = ()
    delay_s: float = 0.0
    provider: str = ""
    model: str = ""


Choose = Callable[[LoomstreamError | None], Awaitable[Next | None]]
"""The decision of one call: None at its beginning, then the error of each attempt that failed before its first content.

None for an answer: there is nothing else to try, the error is raised.
"""


def attempts(choose: Choose) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
    """Give the events of the first attempt that begins to answer."""
    return _Chosen(choose)


class Attempts(Layer):
    """The attempts of one call; a subclass brings `choose`.

    Where a handler is given, the first attempt is that one, and nothing is asked before it has failed. With `passes`
    nothing more is done, where the first attempt becomes the answer, than to pass its events on: its error then goes
    out as it is, and names no attempt where nothing else does.
    """

    __slots__ = ("_answered", "_asked", "_delay_s", "_error", "_failed", "_held", "_is_chosen", "_passes", "_start")

    def __init__(self, handler: Handler | None = None, request: Request = _NO_REQUEST, *, passes: bool = False) -> None:
        super().__init__(handler or _nowhere, request)
        self._passes = passes
        self._is_chosen = handler is not None
        """Whether the next attempt is known, and not yet opened."""
        self._asked = ("", "")
        """The provider and the model of the attempt, where the choice named them."""
        self._delay_s = 0.0
        self._error: LoomstreamError | None = None
        """What the last attempt failed with."""
        self._failed: tuple[Attempt, ...] = ()
        self._answered = False
        self._held: list[Event] = []
        self._start = _NO_START

    async def choose(self, error: LoomstreamError | None) -> Next | None:
        """Give what is tried next, as `Choose` says."""
        raise NotImplementedError

    def decided(self) -> None:
        """Let go of what further attempts would need: a prompt can be large, and a stream long."""
        self._handler, self._request = _nowhere, _NO_REQUEST

    def holds(self) -> bool:
        """No: an attempt is left by leaving its context."""
        return False

    async def next_batch(self) -> list[Event]:
        """Give what may be seen of the next events, after as many attempts as that takes."""
        while True:
            inner = self.inner
            if inner is None and not self._is_chosen:
                notices = await self._choose_next()
                if notices:
                    return notices
            try:
                events = await (inner or await self._open_chosen())()
            except StopAsyncIteration:
                if self._answered:
                    raise
                await self._given_up(lost_stop())
            except LoomstreamError as error:
                await self._given_up(error)
            else:
                events = events if self._answered else self._taken(events)
                if events:
                    return events

    async def _choose_next(self) -> list[Event]:
        chosen = await self.choose(self._error)
        if chosen is None:
            raise self._error or UsageError("a combinator chose nothing to begin with")
        self._is_chosen = True
        self._handler, self._request, self._delay_s = chosen.handler, chosen.request, chosen.delay_s
        self._asked = chosen.provider, chosen.model
        return list(chosen.notices)

    def _open_chosen(self) -> Awaitable[NextBatch]:
        self._is_chosen = False
        self._held, self._start = [], _NO_START
        return self.open_inner() if self._delay_s <= 0 else self._open_later()

    async def _open_later(self) -> NextBatch:
        await anyio.sleep(self._delay_s)
        return await self.open_inner()

    def _taken(self, events: list[Event]) -> list[Event]:
        """Give what passes of the next events: notices, and all of them once there is content."""
        if self._passes and not self._held and not self._failed and not COMMITTING.isdisjoint(map(type, events)):
            self.passing = self.inner
            return self._begun(events)
        notices: list[Event] = []
        for at, event in enumerate(events):
            if isinstance(event, Notice):
                notices.append(event)
                if event.kind == "reset":  # what was held back is void, and nobody has seen it
                    self._held = []
                continue
            self._held.append(event)
            if isinstance(event, Start):
                self._start = event
            if event.__class__ in COMMITTING or len(self._held) > MAX_HELD:
                return self._begun([*notices, *self._held, *events[at + 1 :]])
        return notices

    def _begun(self, events: list[Event]) -> list[Event]:
        """Give the first events of the attempt that is the answer."""
        self._answered = True
        self._held = []
        self.decided()
        return events

    async def _given_up(self, error: LoomstreamError) -> None:
        """Close the attempt that failed; raise its error where it was the answer."""
        self._note(error)
        if self._answered:
            raise error
        self._error = error
        await self._close_failed(error)

    def _note(self, error: LoomstreamError) -> None:
        """Name all attempts in the error: where the attempt is a combinator's, the ones that it made."""
        provider, model = self._asked
        error.provider = error.provider or self._start.provider or provider
        error.model = error.model or self._start.model or model
        known = self._error is not None and error.attempts is self._error.attempts
        own = () if known else tuple(_named(each, *self._asked) for each in error.attempts)
        self._failed += own or (Attempt(error.provider, error.model, type(error).__name__, error.retry_after_s),)
        error.attempts = self._failed

    async def _close_failed(self, error: LoomstreamError) -> None:
        context, self._context, self.inner = self._context, None, None
        if context is None:
            return
        try:
            await leave(context)
        except LoomstreamError as raised:
            error.add_note(f"closing the attempt failed too: {raised}")


class _Chosen(Attempts):
    """Attempts that a function chooses."""

    __slots__ = ("_choose",)

    def __init__(self, choose: Choose) -> None:
        super().__init__()
        self._choose = choose

    async def choose(self, error: LoomstreamError | None) -> Next | None:
        return await self._choose(error)

    def decided(self) -> None:
        super().decided()
        self._choose = _decided


async def _decided(error: LoomstreamError | None) -> Next | None:  # noqa: ARG001 (the signature of Choose)
    """Stand in the place of a decision that is not needed any more: it may hold a large prompt."""
    return None


def _named(attempt: Attempt, provider: str, model: str) -> Attempt:
    return attempt if attempt.provider else attempt._replace(provider=provider, model=attempt.model or model)


def _nowhere(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:  # noqa: ARG001 (a handler)
    msg = "an attempt was opened before it was chosen"
    raise UsageError(msg)
