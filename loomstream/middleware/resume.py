"""Resume: going on with an answer that broke in its middle.

Contract: only where it was asked for, and only after an error that may be repeated. `restart` voids what was delivered
by a `reset` notice, and a new answer follows. `prefill` and `prompt` go on behind the last character: a `resume`
notice, no second `Start`, the next free block indexes, usage added up. They apply to an answer of text alone: one that
has begun to call tools, refuse or hand out files is never pieced together, its error is raised. `prefill` gives the
model its own words as the beginning of its turn; a model that refuses that is asked by `prompt`: for the rest, in a
user's turn, and where it repeats the end of what it had said, that is left out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Literal, get_args

import msgspec

from loomstream.accumulate import Accumulator
from loomstream.errors import BadRequest, ConfigError, LoomstreamError
from loomstream.events import (
    Event,
    Notice,
    ReasoningEnd,
    ReasoningStart,
    Start,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    Usage,
)
from loomstream.handler import Handler, Middleware
from loomstream.messages import Message, Reasoning, Request, Text, user

Resume = Literal["off", "prefill", "prompt", "restart"]
"""What follows an answer that broke in its middle."""

MAX_RESUMES = 3
SEAM_CHARS = 200
"""So much of a continuation's beginning is compared with the end of what came before (`prompt`)."""
LEAST_SEAM_CHARS = 12
"""A shorter agreement is chance, not repetition."""

_ASKED = "Your answer was cut off. Go on exactly where it ended, and repeat nothing of it. It ended with: {tail}"
_TAIL_CHARS = 120
_Ends = type[TextEnd] | type[ReasoningEnd]
_Continue = Callable[[Request, str], Request]


def resumed(how: Resume) -> Middleware:
    """Give the middleware that goes on in this way. Raises `ConfigError` for another word."""
    if how not in get_args(Resume):
        msg = f"resume={how!r}: known are {', '.join(get_args(Resume))}"
        raise ConfigError(msg)
    if how == "off":
        return _unchanged

    def wrap(handler: Handler) -> Handler:
        @asynccontextmanager
        async def resuming(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
            run = _restarted(handler, request) if how == "restart" else _continued(handler, request, how)
            async with aclosing(run) as events:
                yield events

        return resuming

    return wrap


def _unchanged(handler: Handler) -> Handler:
    return handler


def _may_resume(error: LoomstreamError, *, begun: bool, resumes: int) -> bool:
    return begun and error.retry_safety != "no" and resumes < MAX_RESUMES


async def _restarted(handler: Handler, request: Request) -> AsyncGenerator[Event]:
    resumes = 0
    while True:
        begun = False
        try:
            async with handler(request) as events:
                async for event in events:
                    begun = begun or not isinstance(event, Notice | Start | Usage)
                    yield event
        except LoomstreamError as error:
            if not _may_resume(error, begun=begun, resumes=resumes):
                raise
            resumes += 1
            words = f"the answer broke ({type(error).__name__}: {error}): it begins anew, what came before is void"
            broken = error.last_attempt
        else:
            return
        yield Notice("reset", words, attempt=broken)


async def _continued(handler: Handler, request: Request, how: Resume) -> AsyncGenerator[Event]:
    seam = _Seam()
    cause: LoomstreamError | None = None
    asked, resumes = request, 0
    while True:
        try:
            async with handler(asked) as events:
                async for event in events:
                    for given in seam.give(event):
                        yield given
        except LoomstreamError as error:
            refused = isinstance(error, BadRequest) and how == "prefill" and cause is not None and seam.untouched
            if not refused and not (seam.resumable and _may_resume(error, begun=bool(seam.text), resumes=resumes)):
                error.__cause__ = error.__cause__ or cause
                raise
            how = "prompt" if refused else how
            cause = error
        else:
            return
        resumes += 1
        for given in seam.close():
            yield given
        words = f"the answer broke ({type(cause).__name__}: {cause}): it goes on behind {len(seam.text)} characters"
        yield Notice("resume", words, attempt=cause.last_attempt)
        asked = _CONTINUE[how](request, seam.text)
        seam.begin(how)


def _prefilled(request: Request, text: str) -> Request:
    """Give the request with the model's words as the beginning of its turn; providers refuse a blank at their end."""
    begun = Message("assistant", (Text(text.rstrip()),))
    return msgspec.structs.replace(request, messages=(*request.messages, begun))


def _prompted(request: Request, text: str) -> Request:
    begun = Message("assistant", (Text(text.rstrip()),))
    asked = user(_ASKED.format(tail=text[-_TAIL_CHARS:]))
    return msgspec.structs.replace(request, messages=(*request.messages, begun, asked))


_CONTINUE: dict[str, _Continue] = {"prefill": _prefilled, "prompt": _prompted}


class _Seam:
    """Joins the pieces of one answer: what was said so far, and how the next piece is to follow it."""

    def __init__(self) -> None:
        self._fold = Accumulator()
        self._pieces: list[str] = []
        self._open: dict[int, _Ends] = {}
        self._next_index = 0
        self._offset = 0
        self._usage = Usage()
        """What the pieces before this one have used."""
        self._last = Usage()
        self._resumed = False
        self._start = ""
        """What this piece may begin with though it was said already."""
        self._held: list[Event] = []
        self._held_text = ""
        self._exact = False
        self.untouched = False
        """Whether nothing of this piece, the first one apart, has come."""

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self._pieces)

    @property
    def resumable(self) -> bool:
        """Whether all that came is text, or reasoning before it."""
        return all(isinstance(block, Text | Reasoning) for block in self._fold.response.message.content)

    def begin(self, how: Resume) -> None:
        """Begin the next piece."""
        self._usage = _sum(self._usage, self._last)
        self._last = Usage()
        self.untouched = True
        self._offset = self._next_index
        self._resumed = True
        text = self.text
        self._exact = how == "prefill"
        # a prefilled model goes on behind the blanks that its turn could not end in; a prompted one may repeat words
        self._start = text[len(text.rstrip()) :] if self._exact else text[-SEAM_CHARS:]
        self._held, self._held_text = [], ""

    def give(self, event: Event) -> list[Event]:
        """Give what the consumer gets for an event of this piece."""
        if not self._resumed:
            self._note(event)
            return [event]
        self.untouched = False
        if isinstance(event, Start):
            return []
        if isinstance(event, Usage):
            self._last = event
            return [_sum(self._usage, event)]
        event = self._shifted(event)
        return self._sent(self._seam(event) if self._start else [event])

    def close(self) -> list[Event]:
        """End what the break left open."""
        given = self._sent(self._released()) if self._start else []
        ends: list[Event] = [end(index) for index, end in self._open.items()]
        return given + self._sent(ends)

    def _sent(self, events: list[Event]) -> list[Event]:
        for event in events:
            self._note(event)
        return events

    def _note(self, event: Event) -> None:
        self._fold.add(event)
        match event:
            case TextDelta(text=text):
                self._pieces.append(text)
            case TextStart(index=index):
                self._open[index] = TextEnd
            case ReasoningStart(index=index):
                self._open[index] = ReasoningEnd
            case TextEnd(index=index) | ReasoningEnd(index=index):
                self._open.pop(index, None)
            case Usage() if not self._resumed:
                self._last = event
            case _:
                pass
        self._next_index = max(self._next_index, int(getattr(event, "index", -1)) + 1)

    def _shifted(self, event: Event) -> Event:
        index: int | None = getattr(event, "index", None)
        return event if index is None else msgspec.structs.replace(event, index=index + self._offset)

    def _seam(self, event: Event) -> list[Event]:
        """Hold the beginning of a piece back until it is known how much of it was said already."""
        self._held.append(event)
        if isinstance(event, TextDelta):
            self._held_text += event.text
            if self._undecided():
                return []
        elif not isinstance(event, TextEnd | Stop):
            return []
        return self._released()

    def _undecided(self) -> bool:
        """Say whether what was held may be, or become, a repetition of the end of what was said."""
        text = self._held_text
        if self._exact:
            return len(text) < len(self._start) and self._start.startswith(text)
        if len(text) >= len(self._start):
            return False
        return any(self._start.startswith(text, at) for at in range(len(self._start)))

    def _released(self) -> list[Event]:
        cut = self._repeated()
        self._start = ""
        held, self._held = self._held, []
        given: list[Event] = []
        for event in held:
            if isinstance(event, TextDelta) and cut:
                kept = event.text[cut:]
                cut -= len(event.text) - len(kept)
                if kept:
                    given.append(TextDelta(event.index, kept))
            else:
                given.append(event)
        return given

    def _repeated(self) -> int:
        """Give how many characters at the beginning were said already."""
        text = self._held_text
        if self._exact:
            return len(self._start) if text.startswith(self._start) else 0
        longest = min(len(text), len(self._start))
        sizes = range(longest, LEAST_SEAM_CHARS - 1, -1)
        return next((size for size in sizes if self._start.endswith(text[:size])), 0)


def _sum(one: Usage, two: Usage) -> Usage:
    """Give both usages together, not exact: what the broken one had used at its end nobody said."""
    return Usage(
        input_tokens=one.input_tokens + two.input_tokens,
        output_tokens=one.output_tokens + two.output_tokens,
        cache_read_tokens=one.cache_read_tokens + two.cache_read_tokens,
        cache_write_tokens=one.cache_write_tokens + two.cache_write_tokens,
        cache_write_1h_tokens=one.cache_write_1h_tokens + two.cache_write_1h_tokens,
        reasoning_tokens=one.reasoning_tokens + two.reasoning_tokens,
        raw=two.raw,
    )
