"""Smooth: text that arrives in lumps is handed on evenly, for a screen.

Contract: only deltas of text and reasoning are split and merged; their sum, and the order of all events, stay. Nothing
arrives more than `max_delay_s` later than without it: a lump that could not be handed on in that time comes at once, as
does everything where a tool call or the end is in sight. The pauses are made while the next event is awaited: there is
no task, and what is not yet needed stays in the transport, so that at most one read is held here. The consumer's own
time counts as pause.

What is delayed is reckoned from the last read that had to wait, for whatever was read since came no earlier.
"""

from __future__ import annotations

import math
import unicodedata
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import anyio

from loomstream.errors import ConfigError
from loomstream.events import (
    Event,
    EventBase,
    ReasoningDelta,
    Stop,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from loomstream.handler import Handler, Middleware, NextBatch
from loomstream.messages import Request
from loomstream.middleware.layer import Layer
from loomstream.numerals import is_number
from loomstream.transport.loops import running_loop

FRAME_S = 1 / 60
"""The shortest time between two pieces, in seconds: what a screen shows."""

_PACED: frozenset[type[EventBase]] = frozenset((TextDelta, ReasoningDelta))
_FLUSHING: frozenset[type[EventBase]] = frozenset((ToolCallStart, ToolCallDelta, ToolCallEnd, Stop))
_WAITED_S = 0.001
"""A read that took longer than this found nothing there when it began."""
_SHARE = 0.9
"""So much of the time until the next read is expected is used: what is done a little early keeps up."""
_NEW_GAP = 0.3
"""How much the last time between two reads counts against those before it."""
_JOINERS = "\u200d\ufe0e\ufe0f"
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)


def smooth(*, chars_per_second: float | None = None, max_delay_s: float = 0.25) -> Middleware:
    """Give the middleware that paces text; list it first, next to the screen.

    With `chars_per_second` that is the pace, unless it would hold text for longer than `max_delay_s`, in seconds;
    without it each lump is spread over the time in which the next one is expected, learned from the stream itself.

    Raises `ConfigError` for numbers that are not above 0.
    """
    given = (max_delay_s,) if chars_per_second is None else (max_delay_s, chars_per_second)
    if not all(is_number(number) and number > 0 for number in given):
        msg = f"smooth(chars_per_second={chars_per_second!r}, max_delay_s={max_delay_s!r}): give numbers above 0"
        raise ConfigError(msg)

    def wrap(handler: Handler) -> Handler:
        def smoothed(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            return _Smooth(handler, request, chars_per_second, max_delay_s)

        return smoothed

    return wrap


class _Smooth(Layer):
    """One stream."""

    __slots__ = ("_due", "_due_s", "_gap_s", "_lump_s", "_max_delay_s", "_now", "_rate", "_read_s")

    def __init__(self, handler: Handler, request: Request, rate: float | None, max_delay_s: float) -> None:
        super().__init__(handler, request)
        self._rate = rate
        self._max_delay_s = max_delay_s
        self._due: deque[tuple[float, Event]] = deque()
        """What is held, each with the time at which it is given."""
        self._due_s = -math.inf
        """When the next piece may follow at a given pace."""
        self._read_s = -math.inf
        """The last time at which a read had to wait."""
        self._lump_s = -math.inf
        """The same of one that brought text."""
        self._gap_s = 0.0
        """About how far apart those are; 0 while unknown."""
        self._now: Callable[[], float] = anyio.current_time

    async def next_batch(self) -> list[Event]:
        if self._due:
            return await self._next_due()
        inner, now = self.inner or await self._open(), self._now
        began_s = now()
        batch = await inner()
        now_s = now()
        if now_s - began_s > _WAITED_S or self._read_s == -math.inf:
            self._read_s = now_s
        known = self._read_s == self._lump_s  # this read did not wait: it says nothing of the pace
        late = now_s >= self._read_s + self._max_delay_s
        if (known and (late or not (self._rate or self._gap_s))) or not _is_paced(batch):
            return batch
        self._learn()
        if late or not (self._rate or self._gap_s):
            return batch
        self._plan(batch)
        return await self._next_due() if self._due else batch  # no piece comes of an empty text

    async def _open(self) -> NextBatch:
        loop = running_loop()
        self._now = anyio.current_time if loop is None else loop.time
        return await self.open_inner()

    def _learn(self) -> None:
        """Take note of how far apart the lumps are."""
        gap_s, self._lump_s = self._read_s - self._lump_s, self._read_s
        if 0 < gap_s < math.inf:
            self._gap_s += (gap_s - self._gap_s) * (_NEW_GAP if self._gap_s else 1.0)

    def _plan(self, batch: list[Event]) -> None:
        """Set the time of each piece of a read."""
        now_s = self._now()
        last_s = self._read_s + self._max_delay_s
        merged = list(_merged(batch))
        at_s = now_s if self._rate is None else max(now_s, self._due_s)
        rate = self._rate or self._fitting(merged)
        if rate == math.inf:
            self._due.extend((now_s, event) for event in merged)
            return
        for event in merged:
            if not isinstance(event, TextDelta | ReasoningDelta):
                self._due.append((min(at_s, last_s), event))
                continue
            rest = event.text
            while rest:
                size = len(rest) if at_s >= last_s else _whole(rest, math.ceil(rate * FRAME_S))
                self._due.append((min(at_s, last_s), type(event)(event.index, rest[:size])))
                rest = rest[size:]
                at_s += size / rate
        self._due_s = at_s

    def _fitting(self, events: list[Event]) -> float:
        """Give the pace, in characters a second, by which this read's text is out when the next one is expected."""
        chars = sum(len(event.text) for event in events if isinstance(event, TextDelta | ReasoningDelta))
        spread_s = min(self._gap_s * _SHARE, self._max_delay_s)
        return chars / spread_s if spread_s > FRAME_S else math.inf

    async def _next_due(self) -> list[Event]:
        """Wait until something is due, give all that is."""
        wait_s = self._due[0][0] - self._now()
        if wait_s > 0:
            await anyio.sleep(wait_s)
        until_s = max(self._now(), self._due[0][0])
        given = [self._due.popleft()[1]]
        while self._due and self._due[0][0] <= until_s:
            given.append(self._due.popleft()[1])
        return list(_merged(given))


def _is_paced(events: list[Event]) -> bool:
    """Say whether there is text among these, and nothing that must not wait for it."""
    if len(events) == 1:
        return events[0].__class__ in _PACED
    kinds = set(map(type, events))
    return not _PACED.isdisjoint(kinds) and _FLUSHING.isdisjoint(kinds)


def _merged(events: list[Event]) -> Iterator[Event]:
    """Give the events with deltas of one block that follow on each other joined."""
    pieces: list[str] = []
    first: TextDelta | ReasoningDelta | None = None
    for event in events:
        if not isinstance(event, TextDelta | ReasoningDelta):
            yield from _joined(first, pieces)
            first = None
            yield event
        elif first is None or event.__class__ is not first.__class__ or event.index != first.index:
            yield from _joined(first, pieces)
            first, pieces = event, [event.text]
        else:
            pieces.append(event.text)
    yield from _joined(first, pieces)


def _joined(first: TextDelta | ReasoningDelta | None, pieces: list[str]) -> tuple[Event, ...]:
    if first is None:
        return ()
    return (first if len(pieces) == 1 else type(first)(first.index, "".join(pieces)),)


def _whole(text: str, size: int) -> int:
    """Give the first size from this on that parts no letter from its accents, and no emoji from what belongs to it."""
    while size < len(text) and _belongs(text[size - 1], text[size]):
        size += 1
    return min(size, len(text))


def _belongs(before: str, after: str) -> bool:
    return (
        unicodedata.combining(after) != 0
        or after in _JOINERS
        or before == "\u200d"
        or ord(after) in _SKIN_TONES
        or (ord(before) in _FLAG_LETTERS and ord(after) in _FLAG_LETTERS)
        or (before, after) == ("\r", "\n")
    )
