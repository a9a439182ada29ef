"""One call, watched: what every kind of telemetry needs to know of it, and the layer that finds it out.

Contract: the layer changes nothing of a stream, but for one `warning` notice where its watcher fails; a watcher that
fails at the end is complained of in the log. A watcher is told when the request goes out, of the first content, of the
gaps after it where it asks for them, of each notice, and of the end, whatever that was: also of a stream that was
cancelled or left. It must be quick and wait for nothing. Durations are by the event loop's clock, moments by the
system's.

An answer is folded by `Accumulator`, as everywhere; a watcher says itself what of it may leave.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from decimal import Decimal

import anyio
from msgspec import Struct
from msgspec.structs import replace

from loomstream.accumulate import Accumulator, total_cost
from loomstream.errors import (
    Attempt,
    BudgetExceeded,
    CircuitOpen,
    ConfigError,
    DeadlineExceeded,
    LoomstreamError,
    MiddlewareError,
    QueueFull,
    StreamCancelled,
    StreamTruncated,
    Timeout,
    UsageError,
)
from loomstream.events import CONTENT_EVENTS, Cost, Event, EventBase, Notice, Start, Stop, TextDelta, Usage
from loomstream.handler import Handler, Middleware
from loomstream.messages import Request, Response
from loomstream.middleware.cost import cost_of
from loomstream.middleware.estimates import CHARS_PER_TOKEN, prompt_tokens
from loomstream.middleware.layer import Layer
from loomstream.telemetry.records import Ending
from loomstream.transport.loops import running_loop

_log = logging.getLogger(__name__)

_CONTENT: frozenset[type[EventBase]] = frozenset(CONTENT_EVENTS)
_RARE: frozenset[type[EventBase]] = frozenset((Notice, Stop))
_NO_REQUEST = Request(messages=())
_NOTHING = nullcontext()
_OWN_WORDS = (
    Timeout,
    BudgetExceeded,
    CircuitOpen,
    ConfigError,
    QueueFull,
    StreamCancelled,
    StreamTruncated,
    UsageError,
)
"""Errors whose message is ours alone; any other one may quote what a provider said, and that may quote the prompt."""
_DEADLINE_SLACK_S = 0.05
"""The stream's clock begins so much before a layer's, at most."""


class Requested(Struct, frozen=True):
    """What a middleware was told of the model that it stands before; empty where it was not."""

    provider: str = ""
    model: str = ""


class Call:
    """What is known of one call so far. Seconds count from the moment at which its request was sent."""

    __slots__ = (
        "_add",
        "_clock",
        "_fold",
        "_last_s",
        "_limit_s",
        "_max_tokens",
        "_prompt_tokens",
        "_tier",
        "began_ns",
        "began_s",
        "deltas",
        "ending",
        "error",
        "first_event_s",
        "gap_s",
        "given_up",
        "longest_gap_s",
        "reads",
        "requested",
        "resets",
        "total_s",
    )

    def __init__(self, request: Request, requested: Requested) -> None:
        self._clock = loop_clock()
        self._fold = Accumulator()
        self._add = self._fold.add
        self._max_tokens = request.max_tokens
        self._tier = request.service_tier
        self._prompt_tokens = prompt_tokens(request)
        self._limit_s = request.timeouts.total_s
        self.requested = requested
        self.began_ns = time.time_ns()
        """The system's clock, in nanoseconds."""
        self.began_s = self._clock()
        self.first_event_s: float | None = None
        """When the first content came."""
        self._last_s = self.began_s
        """When content came last, by the clock."""
        self.gap_s = 0.0
        """The last wait between two reads with content; of the first one the time to it."""
        self.longest_gap_s = 0.0
        """The longest wait between two reads with content."""
        self.reads = 0
        """How many reads brought content."""
        self.deltas = 0
        """How many events with content came."""
        self.resets = 0
        """How often what had come became void."""
        self.given_up: list[Attempt] = []
        self.ending: Ending | None = None
        """None while it goes on."""
        self.total_s = 0.0
        self.error: LoomstreamError | None = None

    def take_delta(self, delta: TextDelta) -> None:
        """Take a read that brought a piece of text and nothing else, after the first content: what most reads bring."""
        self._add(delta)
        now_s = self._clock()
        gap_s = self.gap_s = now_s - self._last_s
        self._last_s = now_s
        self.deltas += 1
        self.reads += 1
        if gap_s > self.longest_gap_s:  # noqa: PLR1730 (three times as fast as `max`)
            self.longest_gap_s = gap_s

    def take(self, events: list[Event]) -> Sequence[Notice]:
        """Take the events of one read, give the notices among them."""
        for event in events:
            self._add(event)
        kinds = list(map(type, events))
        found = sum(map(_CONTENT.__contains__, kinds))
        if found:
            now_s = self._clock()
            gap_s = self.gap_s = now_s - self._last_s
            self._last_s = now_s
            self.deltas += found
            self.reads += 1
            if self.reads == 1:
                self.first_event_s = gap_s
            else:
                self.longest_gap_s = max(self.longest_gap_s, gap_s)
        return () if _RARE.isdisjoint(kinds) else self._taken(events)

    def _taken(self, events: list[Event]) -> list[Notice]:
        """Look at a read with something in it that is no content."""
        notices = [event for event in events if isinstance(event, Notice)]
        for notice in notices:
            if notice.attempt is not None:
                self.given_up.append(notice.attempt)
            if notice.kind == "reset":
                self.resets += 1
        if self._fold.stop is not None:
            self.end("whole")
        return notices

    def end(self, ending: Ending, error: Exception | None = None) -> None:
        """Note how it ended; the first end counts.

        The limit of the whole call reaches the layers of a stream as a cancellation, or not at all: by the clock it is
        told from others.
        """
        if self.ending is not None:
            return
        self.total_s = self._clock() - self.began_s
        if error is None and ending in {"cancelled", "abandoned"} and self._is_late():
            ending, error = "failed", DeadlineExceeded(f"the call took longer than {self._limit_s:g} s in all")
        self.ending = ending
        if error is not None:
            self.error = error if isinstance(error, LoomstreamError) else MiddlewareError(type(error).__name__)

    def _is_late(self) -> bool:
        return self._limit_s is not None and self.total_s >= self._limit_s - _DEADLINE_SLACK_S

    def moment_ns(self, seconds: float) -> int:
        """Give the system's time at so many seconds after it began, in nanoseconds."""
        return self.began_ns + int(seconds * 1e9)

    @property
    def now_ns(self) -> int:
        """The time on the same clock."""
        return self.moment_ns(self._clock() - self.began_s)

    @property
    def start(self) -> Start:
        """The last `Start`, an empty one before it came."""
        return self._fold.start

    @property
    def response(self) -> Response:
        """What has been delivered so far."""
        return self._fold.response

    @property
    def provider(self) -> str:
        """Who answers, as far as that is known."""
        return self.start.provider or self.requested.provider or (self.error.provider if self.error else "")

    @property
    def model(self) -> str:
        """The model that answers, as far as that is known."""
        return self.start.model or self.requested.model or (self.error.model if self.error else "")

    @property
    def cost(self) -> Cost:
        """The cost so far: what a layer inside has told, else by the catalog, and estimated where no usage came."""
        if self._fold.cost_is_current:
            return self._fold.cost
        return total_cost([self._bill(start, usage) for start, usage in self._fold.bills or [(self.start, None)]])

    def _bill(self, start: Start, usage: Usage | None) -> Cost:
        """Give the cost of one answer; where it broke off, of what had come of it."""
        reported = self._cost_of(start, usage)
        if usage is not None or self.ending == "whole" or not start.provider or reported.exact:
            return reported
        chars = len(self.response.text) + len(self.response.reasoning)
        guessed = Usage(input_tokens=self._prompt_tokens, output_tokens=-(-chars // CHARS_PER_TOKEN))
        estimate = self._cost_of(start, guessed)
        return reported if estimate.amount_usd is None else replace(estimate, lower_usd=Decimal(0), upper_usd=None)

    def _cost_of(self, start: Start, usage: Usage | None) -> Cost:
        return cost_of(
            start.provider or self.provider,
            start.model or self.model,
            usage,
            max_tokens=self._max_tokens,
            requested_model=self.requested.model,
            service_tier=self._tier,
        )

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The tries that were given up, then the last one."""
        if self.error is not None:
            return self.error.attempts or (*self.given_up, self.error.last_attempt)
        return (*self.given_up, Attempt(self.provider, self.model, "ok" if self.ending == "whole" else ""))


def own_words(error: LoomstreamError) -> str:
    """Give an error's message where it is ours alone, else an empty text: a provider's may quote the prompt."""
    return str(error) if isinstance(error, _OWN_WORDS) else ""


def loop_clock() -> Callable[[], float]:
    """Give the clock of the event loop that runs, without the search for it, which costs 1.5 µs each time, on asyncio.

    Its own loops ask the system's monotonic clock, and so it is given as it is.
    """
    loop = running_loop()
    if loop is None:
        return anyio.current_time
    return time.monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time


# --- watching ------------------------------------------------------------------------------------


class Watcher:
    """Is told of one call; see the module's contract. A subclass brings what it wants to know."""

    untold: Callable[[], int] | None = None
    """Counts a gap, gives 0 where `gap` is to be called for it; None: never. A function of C's: each read calls it."""

    def begin(self, call: Call, request: Request) -> None:
        """Take note that the request goes out."""

    def waiting(self) -> AbstractContextManager[object]:
        """Give what is entered around each wait until content has come, in the task that waits; it must not raise."""
        return _NOTHING

    def first(self, call: Call) -> None:
        """Take note that the first content came."""

    def gap(self, call: Call) -> None:
        """Take note that a further read brought content, and of the gap before it."""

    def notice(self, call: Call, notice: Notice) -> None:
        """Take note of a notice."""

    def end(self, call: Call) -> None:
        """Take note that the call is over."""


class Complaint:
    """Says in the log that something fails: the first time aloud, after that only where debugging is on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said = False

    def __call__(self, what: str, error: BaseException | None = None) -> None:
        """Say it."""
        level = logging.DEBUG if self._said else logging.WARNING
        self._said = True
        because = "" if error is None else f": {type(error).__name__}: {error}"
        _log.log(level, "%s: %s%s (further failures are logged at level DEBUG)", self._name, what, because)


def watched(name: str, make: Callable[[], Watcher | None], requested: Requested) -> Middleware:
    """Give the middleware that has each call watched; where `make` gives None the call is not touched at all.

    `name` is what its complaints are signed with.
    """
    complaint = Complaint(name)

    def wrap(handler: Handler) -> Handler:
        def watching(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            watcher = make()
            return handler(request) if watcher is None else _Watched(handler, request, requested, watcher, complaint)

        return watching

    return wrap


class _Watched(Layer):
    """One call."""

    __slots__ = ("_call", "_complaint", "_failure", "_requested", "_told", "_untold", "_watcher")

    def __init__(
        self, handler: Handler, request: Request, requested: Requested, watcher: Watcher, complaint: Complaint
    ) -> None:
        super().__init__(handler, request)
        self._requested = requested
        self._watcher = watcher
        self._untold = watcher.untold
        self._complaint = complaint
        self._call: Call | None = None
        self._failure: Exception | None = None
        """What the watcher raised last."""
        self._told = False

    async def next_batch(self) -> list[Event]:
        call, inner = self._call or self._begin(), self.inner
        try:
            events = await inner() if inner is not None and call.reads else await self._first_reads()
        except BaseException as error:
            _end(call, error)
            raise
        try:
            if len(events) == 1 and type(event := events[0]) is TextDelta and call.reads:
                call.take_delta(event)
                if self._untold is not None and not self._untold():
                    self._watcher.gap(call)
                return events
            self._take(call, events)
        except Exception as error:  # noqa: BLE001 (an observer never breaks a stream)
            self._failure = error
        if self._failure is not None and not self._told:
            self._told = True
            events.insert(0, _notice_of(self._failure))
        return events

    def _take(self, call: Call, events: list[Event]) -> None:
        """Take a read, tell the watcher what is in it."""
        reads = call.reads
        notices = call.take(events)
        if not reads and call.reads:
            self._watcher.first(call)
        elif call.reads != reads and self._untold is not None and not self._untold():
            self._watcher.gap(call)
        for notice in notices:
            self._watcher.notice(call, notice)

    def _begin(self) -> Call:
        call = self._call = Call(self._request, self._requested)
        try:
            self._watcher.begin(call, self._request)
        except Exception as error:  # noqa: BLE001 (an observer never breaks a stream)
            self._failure = error
        return call

    async def _first_reads(self) -> list[Event]:
        with self._watcher.waiting():
            if self.inner is None:
                await self.open_inner()
                self._request = _NO_REQUEST  # a prompt can be large, and a stream long
            return await self.inner() if self.inner is not None else []

    async def released(self) -> None:
        call = self._call
        if call is None:  # nothing was sent
            return
        try:
            call.end("abandoned")
            self._watcher.end(call)
        except Exception as error:  # noqa: BLE001 (an observer never breaks a stream)
            self._failure = error
        if self._failure is not None:
            self._complaint("a call was not told of whole", self._failure)


def _end(call: Call, error: BaseException) -> None:
    """Note how a call ended that its events ended by raising this."""
    match error:
        case StopAsyncIteration():
            call.end("abandoned")  # a whole answer has ended before
        case StreamCancelled():
            call.end("cancelled", error)
        case Exception():
            call.end("failed", error)
        case _:
            call.end("cancelled")


def _notice_of(error: Exception) -> Notice:
    return Notice("warning", f"telemetry raised {type(error).__name__}: {error}; the stream goes on")
