"""Handlers and middleware: how everything between a request and its events composes.

Contract: a handler takes a request and gives an async context manager over an event iterator. Nothing is
open across a yield to the consumer: no cancel scope, no task group, neither in a generator nor in a
context manager. A stream may be closed in any order and by any task. Every generator is closed by `aclosing`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from types import ModuleType
from typing import cast

from loomstream.errors import ConfigError, UsageError
from loomstream.events import Event
from loomstream.kind_names import kind_of
from loomstream.messages import Request

Handler = Callable[[Request], AbstractAsyncContextManager[AsyncIterator[Event]]]
"""Request to events."""

Middleware = Callable[[Handler], Handler]
"""Handler to handler."""

Stage = Callable[[Event], Iterable[Event]]
"""One event to the events that take its place."""


NextBatch = Callable[[], Awaitable[list[Event]]]
"""Awaits the next events: at least one, in a list that is the caller's. Raises what `__anext__` raises."""


_BATCH, _IDLE, _OVER = "__loomstream_batch__", "__loomstream_idle__", "__loomstream_over__"
"""What the class of an iterator or a context may have; an instance's says nothing, as wrappers forward everything."""


def batches(events: AsyncIterator[Event]) -> NextBatch:
    """Give what awaits the next events in a list: all that one wait brought, where the iterator can tell.

    An iterator can by a method `__loomstream_batch__`. It is for those that have several events at hand after a read: a
    layer that has it costs next to nothing for each further event.
    """
    if hasattr(type(events), _BATCH):
        own: NextBatch = getattr(events, _BATCH)
        return own
    following = events.__anext__

    async def single() -> list[Event]:
        return [await following()]

    return single


def is_idle(context: object) -> bool:
    """Say whether leaving this context of a handler now waits for nothing, so that it needs no time limit.

    Its class can say so by a method `__loomstream_idle__` that gives True, and then it must keep to it.
    """
    says = getattr(type(context), _IDLE, None)
    return says is not None and says(context) is True


def is_over(context: object) -> bool:
    """Say whether nothing more comes out of an entered context of a handler: to read on would only find that out.

    Its class can say so by a method `__loomstream_over__` that gives True, once the `Stop` was given.
    """
    says = getattr(type(context), _OVER, None)
    return says is not None and says(context) is True


def compose(handler: Handler, *middleware: Middleware) -> Handler:
    """Wrap a handler in middleware; the first one listed is the outermost.

    Raises `ConfigError` for what is no middleware, and for one that gives no handler.
    """
    for place, wrap in reversed([*enumerate(middleware)]):
        handler = _wrapped(handler, place, wrap)
    return handler


def listed(middleware: object) -> tuple[Middleware, ...]:
    """Give what was passed as `middleware=`. Raises `ConfigError` where that is no list of them."""
    if isinstance(middleware, str | bytes) or not isinstance(middleware, Iterable):
        msg = f"middleware is {_told(middleware)}: give a list, as in middleware=[retry()]"
        raise ConfigError(msg)
    return tuple(cast("Iterable[Middleware]", middleware))


def _wrapped(handler: Handler, place: int, wrap: Middleware) -> Handler:
    if not callable(wrap):
        msg = f"middleware[{place}] is {_told(wrap)}: give what a function of loomstream.middleware makes, as retry()"
        raise ConfigError(msg)
    name = str(getattr(wrap, "__name__", type(wrap).__name__))
    try:
        made = wrap(handler)
    except (TypeError, ConfigError) as error:
        msg = f"middleware[{place}], {name}, cannot wrap a handler ({error}): list what it makes, as in {name}(…)"
        raise ConfigError(msg) from error
    if not callable(made):
        msg = f"middleware[{place}], {name}, gave {_told(made)} where it must give a handler"
        raise ConfigError(msg)
    return made


def _told(thing: object) -> str:
    """Say what something is."""
    if isinstance(thing, ModuleType):
        name = thing.__name__.rpartition(".")[2]
        return f"the module {thing.__name__} (its function: `from {thing.__name__} import {name}`)"
    return f"{thing!r:.60} ({type(thing).__name__})"


def stage(make: Callable[[Request], Stage]) -> Middleware:
    """Lift a per-event function to a middleware.

    `make` is called once a stream with its request and gives the function for it, so that the function may hold state.
    """

    def wrap(handler: Handler) -> Handler:
        @asynccontextmanager
        async def staged(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
            step = make(request)
            async with handler(request) as events, aclosing(_apply(step, events)) as out:
                yield out

        return staged

    return wrap


async def _apply(step: Stage, events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
    async for event in events:
        given = step(event)
        try:
            each = iter(given)
        except TypeError:
            msg = f"a stage gave {_told(given)} for {kind_of(event)}: give a list of events, [] for none"
            raise UsageError(msg) from None
        for made in each:
            yield made
