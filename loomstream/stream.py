"""The object that users hold: one call of a model, as an async iterator of events.

Contract: entering it does no I/O, the request goes out at the first `__anext__`. Leaving it, by any road, closes the
upstream before the next statement. One stream, one consumer. `__anext__` alone sets `partial`, `usage`, `committed` and
`attempts` on an error. It is a class, never an async generator (PEP 789), and holds nothing open across two events but
the handler's own context.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from enum import Enum
from types import TracebackType
from typing import NoReturn, Self, TypeVar

import anyio
import anyio.lowlevel
import msgspec

from loomstream.accumulate import Accumulator, total_cost, with_cost
from loomstream.errors import (
    DeadlineExceeded,
    LoomstreamError,
    MiddlewareError,
    StreamCancelled,
    StreamTruncated,
    UsageError,
)
from loomstream.events import CONTENT_EVENTS, Cost, Event, EventBase, Start, Stop, TextDelta, TextStart, Usage
from loomstream.handler import Handler, NextBatch, batches, is_idle, is_over
from loomstream.messages import Request, Response, Timing
from loomstream.tools.outputs import Objects, Partial
from loomstream.transport.interrupt import Interrupt, interrupt

_T = TypeVar("_T")

CLOSE_LIMIT_S = 3.0
"""Closing the upstream takes no longer than this, in seconds."""

_NO_INTERRUPT = Interrupt()
"""Stands where nothing has been read yet; it is never set."""

_NO_REQUEST = Request(messages=())
_NO_SCOPE = nullcontext()

_TIMED: frozenset[type[EventBase]] = frozenset((*CONTENT_EVENTS, Stop))
"""The events whose time is noted."""
_TIMED_AFTER_TEXT: frozenset[type[EventBase]] = frozenset((Stop,))
"""The same, once the first text has come."""

CostOf = Callable[[str, str, Usage | None], Cost]
"""Provider, model and the last usage to a cost; used where no `Cost` event has come since that usage."""


class _State(Enum):
    NEW = "not yet entered"
    OPEN = "open"
    ENDED = "read to its end"
    FAILED = "failed"
    CANCELLED = "cancelled in the middle of a read"
    CLOSED = "closed"


_NEW, _OPEN, _ENDED, _FAILED, _CANCELLED, _CLOSED = _State
"""The same; on Python 3.11 an attribute of such a class runs a function."""


class Stream:
    """One call of a model. Use it as `async with model.stream(…) as stream: async for event in stream: …`.

    Iterating raises only `LoomstreamError`s (and your own task's cancellation). After an error or a break, `response`
    is what was delivered.
    """

    __slots__ = (
        "__weakref__",
        "_ahead",
        "_began_s",
        "_begun",
        "_cancelled",
        "_context",
        "_cost_of",
        "_first_event_s",
        "_first_text_s",
        "_fold",
        "_handler",
        "_interrupt",
        "_left",
        "_model",
        "_next",
        "_over",
        "_provider",
        "_ready",
        "_request",
        "_state",
        "_timed",
        "_total_s",
    )

    def __init__(
        self, handler: Handler, request: Request, *, cost_of: CostOf, provider: str = "", model: str = ""
    ) -> None:
        self._handler = handler
        self._request = request
        self._cost_of = cost_of
        self._provider = provider
        self._model = model
        self._state = _NEW
        self._ready = False
        self._begun = False
        self._left: anyio.Event | None = None
        self._context: AbstractAsyncContextManager[AsyncIterator[Event]] | None = None
        self._next: NextBatch = self._open
        self._ahead: list[Event] = []
        """What has come and was not yet given, last one first."""
        self._over = False
        """Nothing more comes: to read on would only find that out."""
        self._interrupt: Interrupt = _NO_INTERRUPT
        self._cancelled = False
        self._fold = Accumulator()
        self._began_s = 0.0
        self._first_event_s: float | None = None
        self._first_text_s: float | None = None
        self._total_s: float | None = None
        self._timed = _TIMED

    # --- entering and leaving --------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._state is not _NEW:
            msg = f"this stream is {self._state.value}: a stream is used once; ask the model for another"
            raise UsageError(msg)
        self._state = _OPEN
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._state is _ENDED:
            return
        failure = await self._leave()
        if failure is not None and error is None:
            raise failure
        if failure is not None and error is not None:
            error.add_note(f"closing the stream failed too: {failure}")

    async def aclose(self) -> None:
        """Close the stream and its upstream; safe to call again, and from another task.

        A reader that is waiting in another task gets `StreamCancelled`. Raises `MiddlewareError` where a middleware
        fails while it is closed.
        """
        failure = await self._leave()
        if failure is not None:
            raise failure

    async def _leave(self) -> LoomstreamError | None:
        if self._interrupt.waiting:
            self.cancel()
            self._left = self._left or anyio.Event()
            await self._left.wait()
        if self._state in (_OPEN, _NEW):
            self._state = _CLOSED
        self._ready = False
        return await self._close_upstream() if self._begun else None

    def cancel(self) -> None:
        """Stop the stream from any task of the same event loop.

        The reader's next or current `__anext__` raises `StreamCancelled`, and the upstream is closed.
        """
        self._cancelled = True
        if self._interrupt is not _NO_INTERRUPT:
            self._interrupt.set(StreamCancelled("the stream was cancelled by Stream.cancel()"))

    async def _close_upstream(self) -> LoomstreamError | None:
        """Close it and give the error of a middleware that failed meanwhile.

        Shielded and bounded; ends with a checkpoint, because a socket closes one tick after its `close()`: also one
        that was still being opened. After an answer that was read to its end no socket is closed.
        """
        self._interrupt.disarm()
        self._ahead = []
        context, self._context = self._context, None
        begun, self._begun = self._begun, False
        if not begun:
            return None
        if self._total_s is None:
            self._total_s = self._interrupt.now() - self._began_s
        failure: LoomstreamError | None = None
        at_once = self._state is _ENDED and is_idle(context)
        with _NO_SCOPE if at_once else anyio.CancelScope(deadline=self._interrupt.now() + CLOSE_LIMIT_S, shield=True):
            try:
                if context is not None:
                    await context.__aexit__(None, None, None)
            except Exception as error:  # noqa: BLE001 (only typed errors come out of a stream)
                failure = _typed(error)
            if self._state is not _ENDED:
                await anyio.lowlevel.checkpoint()
        return failure

    # --- iterating -------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if not self._ready:
            self._begin()
        interrupt = self._interrupt
        ahead = self._ahead
        try:
            if ahead:  # nothing is awaited, so nobody comes between
                if interrupt.error is not None or interrupt.keeps_time:
                    interrupt.check()
            elif self._over:
                interrupt.check()
                raise StopAsyncIteration  # noqa: TRY301 (as a read that finds the end does)
            else:
                self._ready = False
                interrupt.waiting = True
                interrupt.mark()
                ahead = self._ahead = await self._next()
                interrupt.waiting = False
                self._ready = True
                ahead.reverse()
                if self._left is not None:
                    self._left.set()
            event = ahead.pop()
            self._fold.add(event)
        except BaseException as error:  # noqa: BLE001 (every end of the events is told apart there)
            self._ready = interrupt.waiting = False
            return await self._ended(interrupt.convert(error))
        if event.__class__ in self._timed:
            self._note_time(event)
        return event

    def _begin(self) -> None:
        """Make ready for the first read; refuse to where that is out of place."""
        if self._state is not _OPEN or self._interrupt is not _NO_INTERRUPT:
            self._refuse()
        self._begun = True
        self._interrupt = interrupt()
        self._began_s = self._interrupt.now()
        self._next = self._interrupt.wrap(self._open)
        total_s = self._request.timeouts.total_s
        if total_s is not None:
            self._interrupt.at(self._began_s + total_s, lambda: _deadline(total_s))
        if self._cancelled:
            self.cancel()
        self._ready = True

    async def _open(self) -> list[Event]:
        context = self._handler(self._request)
        self._request = _NO_REQUEST  # a prompt can be large, and a stream long
        events = await context.__aenter__()
        self._context = context
        batch = batches(events)
        self._next = self._interrupt.wrap(batch)
        return await batch()

    async def _ended(self, error: BaseException) -> Event:
        """Raise what ends the stream, with the upstream closed before; a cancellation passes, leaving closes it then.

        A read that was cancelled has cut the layers below: nothing whole can come from them any more.
        """
        try:
            if isinstance(error, StopAsyncIteration):
                if self._fold.stop is None:
                    raise await self._failed(StreamTruncated("the events ended without a Stop: a middleware lost it"))
                self._state = _ENDED
                failure = await self._close_upstream()
                raise StopAsyncIteration if failure is None else await self._failed(failure)
            if isinstance(error, Exception):
                raise await self._failed(error)
            self._state = _CANCELLED
            raise error
        finally:
            if self._left is not None:
                self._left.set()

    def _refuse(self) -> NoReturn:
        if self._state is _OPEN:
            msg = "this stream is being read already: one stream has one consumer"
            raise UsageError(msg)
        match self._state:
            case _State.ENDED:
                raise StopAsyncIteration
            case _State.NEW:
                msg = "enter the stream before reading it: async with model.stream(…) as stream"
            case _State.FAILED:
                msg = "this stream has failed; its error was raised before"
            case _State.CANCELLED:
                msg = "a read was cancelled, which ends the stream: ask the model for another"
            case _:
                msg = "this stream is closed; its response is in stream.response"
        raise UsageError(msg)

    async def _failed(self, error: Exception) -> LoomstreamError:
        """Give the error as it goes out, complete; the upstream is closed before."""
        self._state = _FAILED
        failure = await self._close_upstream()
        error = _typed(error)
        if failure is not None:
            error.add_note(f"closing the stream failed too: {failure}")
        error.__suppress_context__ = True  # how it came here is the machinery's; what caused it is its cause
        error.provider = error.provider or self._provider
        error.model = error.model or self._model
        error.partial = self.response
        error.usage = self._fold.usage
        error.committed = self._fold.has_content
        if error.committed and error.retry_safety == "yes":
            error.retry_safety = "maybe"  # the provider did work, whatever the error says of itself
        error.attempts = error.attempts or (error.last_attempt,)
        return error

    def _note_time(self, event: Event) -> None:
        now_s = self._interrupt.now() - self._began_s
        if isinstance(event, Stop):
            self._total_s = now_s
            self._over = is_over(self._context)
            return
        if self._first_event_s is None:
            self._first_event_s = now_s
        if isinstance(event, TextDelta):
            self._first_text_s = now_s
            self._timed = _TIMED_AFTER_TEXT

    # --- what has come ---------------------------------------------------------------------------

    def text(self) -> AsyncIterator[str]:
        """Iterate the text pieces of the first choice as they come. Raises what iterating raises."""
        return _Text(self)

    def objects(self, kind: type[_T]) -> AsyncIterator[Partial[_T]]:
        """Iterate the answer as it grows into a value of a type: at most once for each piece of text, and at the end.

        Of each `Partial` the `value` is what has come, as plain JSON; the last one `is_whole`, and its `final` is the
        checked value. Where the request has no `output` of its own, and nothing was read yet, it asks for this type's.

        Raises `RequestError` for a type that JSON Schema cannot say; iterating raises `InvalidOutput` for an answer
        that does not fit, was cut or refused, and what iterating raises.
        """
        objects = Objects(self, kind)
        if self._request.output is None and self._interrupt is _NO_INTERRUPT:
            self._request = msgspec.structs.replace(self._request, output=objects.output)
        return objects

    async def collect(self) -> Response:
        """Read to the end, give the whole response. Raises what iterating raises."""
        async for _ in self:
            pass
        return self.response

    @property
    def response(self) -> Response:
        """What has been delivered so far; valid at any time, also after an error or a break."""
        response = self._fold.response
        return with_cost(response, self.cost)

    @property
    def usage(self) -> Usage | None:
        """The last token counts, None before any came."""
        return self._fold.usage

    @property
    def cost(self) -> Cost:
        """The cost so far; `amount_usd` is None where the price is not known."""
        fold = self._fold
        if fold.cost_is_current:
            return fold.cost
        bills = fold.bills or [(fold.start, fold.usage)]
        return total_cost(
            [
                self._cost_of(start.provider or self._provider, start.model or self._model, usage)
                for start, usage in bills
            ]
        )

    @property
    def timing(self) -> Timing:
        """When things happened, in seconds since the request was begun."""
        return Timing(first_event_s=self._first_event_s, first_text_s=self._first_text_s, total_s=self._total_s)


class _Text:
    """The text of a stream; a class, because an async generator that is left early would have to be closed."""

    __slots__ = ("_shown", "_stream")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._shown: set[int] = set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            match await anext(self._stream):
                case Start():  # after a reset the indexes begin again
                    self._shown.clear()
                case TextStart(index=index, choice=0):
                    self._shown.add(index)
                case TextDelta(index=index, text=text) if index in self._shown:
                    return text
                case _:
                    pass


def _typed(error: Exception) -> LoomstreamError:
    """Give the error, or where it is not ours a `MiddlewareError` that it caused."""
    if isinstance(error, LoomstreamError):
        return error
    typed = MiddlewareError(f"a middleware raised {type(error).__name__}: {error}")
    typed.__cause__ = error
    return typed


def _deadline(total_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"the call took longer than {total_s:g} s in all; raise Timeouts(total_s=…)")
