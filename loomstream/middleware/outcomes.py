"""How a call went, as a value that is comparable with others: time, cost, usage, error.

Contract: a `Measure` looks at the events of one stream and changes none; a text delta costs it one look-up in a set.
Observers are told when the stream is left, whatever became of it; one that fails is logged, and never breaks a stream.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import anyio
from msgspec import Struct

from loomstream.events import Cost, Event, EventBase, Stop, Usage
from loomstream.handler import Handler
from loomstream.messages import Request
from loomstream.middleware.attempts import COMMITTING
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.cost import cost_of
from loomstream.middleware.layer import Layer, lost_stop

_log = logging.getLogger(__name__)
RECENT_S = 300.0
"""What was measured longer ago than this, in seconds, is forgotten: so the candidate is tried again."""
_WATCHED: frozenset[type[EventBase]] = frozenset((Usage, Cost, Stop))


class Outcome(Struct, frozen=True, kw_only=True):
    """How one call of one candidate went.

    `first_event_s` is when its first content came, `total_s` when it was over, in seconds since it was begun; the first
    is None where none came. `cost` is the last one that was told, else that of the usage by the catalog; None where
    neither is known. `whole` is whether the answer came to its end; with no `error` either, whoever read it left.
    `shadow` marks a copy, which nobody read; it has the `call` of the call that it is a copy of. `key` is what decided
    on the candidate, empty where nothing did.
    """

    name: str
    call: str = ""
    key: str = ""
    shadow: bool = False
    first_event_s: float | None = None
    total_s: float = 0.0
    cost: Cost | None = None
    usage: Usage | None = None
    whole: bool = False
    error: Exception | None = None


Observer = Callable[[Outcome], object]
"""Is told of each outcome; must not wait."""


class Measure:
    """What is known of one call so far."""

    def __init__(self, candidate: Candidate, *, call: str = "", key: str = "", shadow: bool = False) -> None:
        self._candidate = candidate
        self._call = call
        self._key = key
        self._shadow = shadow
        self._began_s: float | None = None
        self._total_s: float | None = None
        self._first_event_s: float | None = None
        self._cost: Cost | None = None
        self._usage: Usage | None = None
        self._whole = False
        self._error: Exception | None = None

    def begin(self) -> None:
        """Note that the call begins now."""
        self._began_s = anyio.current_time()

    @property
    def has_begun(self) -> bool:
        """Whether anything was asked."""
        return self._began_s is not None

    @property
    def first_event_s(self) -> float | None:
        """The seconds to the first content, None before it came."""
        return self._first_event_s

    def take(self, events: list[Event]) -> None:
        """Look at the next events."""
        if self._first_event_s is None and not COMMITTING.isdisjoint(map(type, events)):
            self._first_event_s = self._passed_s()
        if not _WATCHED.isdisjoint(map(type, events)):
            for event in events:
                self._look_at(event)

    def _look_at(self, event: Event) -> None:
        match event:
            case Usage():
                self._usage = event
            case Cost():
                self._cost = event
            case Stop():
                self._whole = True
                self._total_s = self._passed_s()
            case _:
                pass

    def failed(self, error: Exception) -> None:
        """Note the error that ended it; after a whole answer none counts."""
        if not self._whole:
            self._error = error
            self._total_s = self._passed_s()

    def outcome(self) -> Outcome:
        """Give how it went; where nothing has ended it, it ended now."""
        return Outcome(
            name=self._candidate.name,
            call=self._call,
            key=self._key,
            shadow=self._shadow,
            first_event_s=self._first_event_s,
            total_s=self._passed_s() if self._total_s is None else self._total_s,
            cost=self._last_cost(),
            usage=self._usage,
            whole=self._whole,
            error=self._error,
        )

    def _passed_s(self) -> float:
        return 0.0 if self._began_s is None else anyio.current_time() - self._began_s

    def _last_cost(self) -> Cost | None:
        provider, model = self._candidate.provider, self._candidate.model
        return self._cost or (cost_of(provider, model, self._usage) if provider else None)


def tell(observer: Observer | None, outcome: Outcome) -> None:
    """Tell an observer; where it fails, say so in the log."""
    try:
        if observer is not None:
            observer(outcome)
    except Exception:  # noqa: BLE001 (an observer never breaks a stream)
        _log.exception("the observer of %s failed: the stream goes on", outcome.name)


def measured(
    handler: Handler, measure: Measure, *, on_first: Callable[[float], object] | None = None, observer: Observer | None
) -> Handler:
    """Give the handler, for one call, with its measure taken. `on_first` gets the seconds to the first content."""

    def measuring(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return _Measured(handler, request, measure, on_first, observer)

    return measuring


class _Measured(Layer):
    __slots__ = ("_measure", "_observer", "_on_first")

    def __init__(
        self,
        handler: Handler,
        request: Request,
        measure: Measure,
        on_first: Callable[[float], object] | None,
        observer: Observer | None,
    ) -> None:
        super().__init__(handler, request)
        self._measure = measure
        self._on_first = on_first
        self._observer = observer

    async def next_batch(self) -> list[Event]:
        try:
            if not self._measure.has_begun:
                self._measure.begin()
            events = await (self.inner or await self.open_inner())()
        except StopAsyncIteration:
            self._measure.failed(lost_stop())
            raise
        except Exception as error:
            self._measure.failed(error)
            raise
        self._measure.take(events)
        if self._on_first is not None and self._measure.first_event_s is not None:
            on_first, self._on_first = self._on_first, None
            on_first(self._measure.first_event_s)
        return events

    async def released(self) -> None:
        if self._observer is not None and self._measure.has_begun:
            tell(self._observer, self._measure.outcome())
