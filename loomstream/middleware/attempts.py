"""Attempts one after the other, as one clean stream: what retry, failover and their like have in common.

Contract: an attempt is opened inside `__anext__` and closed before the next one. Until its first content event its
other events are held back (at most `MAX_HELD`) and dropped if it fails; notices pass at once. From then on it is the
answer, and its error is the caller's. Every error names all attempts. Nothing is open across a yield but the attempt's
own context.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple

import anyio

from loomstream.errors import Attempt, LoomstreamError, StreamTruncated, UsageError
from loomstream.events import CONTENT_EVENTS, Event, Notice, Start, Stop
from loomstream.handler import Handler
from loomstream.messages import Request

MAX_HELD = 64
"""So many events without content may precede an attempt's first one; then it counts as begun all the same."""

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


@asynccontextmanager
async def attempts(choose: Choose) -> AsyncGenerator[AsyncIterator[Event]]:
    """Give the events of the first attempt that begins to answer."""
    async with aclosing(_events(choose)) as events:
        yield events


async def _events(choose: Choose) -> AsyncGenerator[Event]:
    failed: list[Attempt] = []
    error: LoomstreamError | None = None
    while True:
        chosen = await choose(error)
        if chosen is None:
            raise error or UsageError("a combinator chose nothing to begin with")
        for notice in chosen.notices:
            yield notice
        if chosen.delay_s > 0:
            await anyio.sleep(chosen.delay_s)
        begun = _Begun()
        try:
            async with chosen.handler(chosen.request) as events, aclosing(_committed(events, begun)) as committed:
                async for event in committed:
                    yield event
            if not begun.answered:
                raise _ended()
        except LoomstreamError as raised:
            failed.append(_outcome(raised, begun.start))
            raised.attempts = tuple(failed)
            if begun.answered:
                raise
            error = raised
        else:
            return


class _Begun:
    """How far an attempt has come."""

    def __init__(self) -> None:
        self.answered = False
        self.start = Start()


async def _committed(events: AsyncIterator[Event], begun: _Begun) -> AsyncGenerator[Event]:
    held: list[Event] = []
    async for event in events:
        if isinstance(event, Notice):
            yield event
            continue
        held.append(event)
        if isinstance(event, Start):
            begun.start = event
        if event.__class__ in COMMITTING or len(held) > MAX_HELD:
            break
    begun.answered = bool(held) and (held[-1].__class__ in COMMITTING or len(held) > MAX_HELD)
    for event in held if begun.answered else ():
        yield event
    if begun.answered:
        async for event in events:
            yield event


def _ended() -> StreamTruncated:
    return StreamTruncated("the events ended without a Stop: a handler lost it")


def _outcome(error: LoomstreamError, start: Start) -> Attempt:
    provider, model = error.provider or start.provider, error.model or start.model
    return Attempt(provider, model, type(error).__name__, error.retry_after_s)
