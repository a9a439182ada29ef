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
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from decimal import Decimal
from typing import Literal, get_args

import anyio
import msgspec

from loomstream.accumulate import Accumulator
from loomstream.errors import BadRequest, ConfigError, LoomstreamError
from loomstream.events import (
    Citation,
    Cost,
    Event,
    Logprobs,
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
from loomstream.middleware.layer import leave, lost_stop, tolerated
from loomstream.middleware.store import loop_time

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


MayResume = Callable[[Request, LoomstreamError, float], float | None]
"""Gives the seconds after which an answer, begun so many seconds ago, may go on behind an error; None: not at all."""


def at_once(request: Request, error: LoomstreamError, passed_s: float) -> float | None:  # noqa: ARG001 (its signature)
    """Go on without a pause wherever the error may be repeated."""
    return None if error.retry_safety == "no" else 0.0


def resumed(how: Resume, may_resume: MayResume = at_once) -> Middleware:
    """Give the middleware that goes on in this way. Raises `ConfigError` for another word."""
    if how not in get_args(Resume):
        msg = f"resume={how!r}: known are {', '.join(get_args(Resume))}"
        raise ConfigError(msg)
    if how == "off":
        return _unchanged

    def wrap(handler: Handler) -> Handler:
        @asynccontextmanager
        async def resuming(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
            piece = _Piece(handler, may_resume)
            run = _restarted(piece, request) if how == "restart" else _continued(piece, request, how)
            async with aclosing(run) as events:
                yield events

        return resuming

    return wrap


def _unchanged(handler: Handler) -> Handler:
    return handler


_TELLING = Notice | Start | Usage | Cost
"""Events that are no part of the answer."""
_BESIDE = Citation | Logprobs
"""Events that belong to the text before them."""
_BORDER = TextStart | TextEnd
_NO_START = Start()
_ZERO = Decimal(0)


class _Piece:
    """One attempt at the answer: its events, and the error that broke them. Errors of leaving it are nobody's break."""

    def __init__(self, handler: Handler, may_resume: MayResume) -> None:
        self._handler = handler
        self._may_resume = may_resume
        self._resumes = 0
        self._began_s = loop_time()
        self._before: Cost | None = None
        """What the attempts before this one have cost."""
        self._cost: Cost | None = None
        self._start = _NO_START
        self.error: LoomstreamError | None = None
        self.begun = False
        self.whole = False

    async def events(self, request: Request) -> AsyncGenerator[Event]:
        """Give the events of an attempt, each cost with what the attempts before have cost."""
        if self.begun:  # the attempt before this one
            self._before = self._cost or _sum_of_costs(self._before, _untold(self._start))
        self.error, self.begun, self.whole, self._cost = None, False, False, None
        try:
            context = self._handler(request)
            events = await context.__aenter__()
        except LoomstreamError as error:
            self.error = error
            return
        try:
            async for event in events:
                self.begun = self.begun or not isinstance(event, _TELLING)
                self.whole = self.whole or isinstance(event, Stop)
                if isinstance(event, Start):
                    self._start = event
                if isinstance(event, Cost):
                    self._cost = _sum_of_costs(self._before, event)
                    yield self._cost
                else:
                    yield event
            self.error = None if self.whole else lost_stop()
        except LoomstreamError as error:
            self.error = error
        except anyio.get_cancelled_exc_class():
            await tolerated(self._leave(context), "closing an attempt that was cancelled")
            raise
        except BaseException:
            await self._leave(context)
            raise
        await self._leave(context)

    def delay_s(self, request: Request) -> float | None:
        """Give the seconds after which to go on; None where the error must be raised."""
        if self.error is None or self.whole or self._resumes == MAX_RESUMES:
            return None
        delay_s = self._may_resume(request, self.error, loop_time() - self._began_s)
        self._resumes += delay_s is not None
        return delay_s

    async def _leave(self, context: AbstractAsyncContextManager[AsyncIterator[Event]]) -> None:
        try:
            await leave(context)
        except LoomstreamError as error:
            if self.error is None:
                raise
            self.error.add_note(f"closing the attempt failed too: {error}")


async def _restarted(piece: _Piece, request: Request) -> AsyncGenerator[Event]:
    while True:
        async with aclosing(piece.events(request)) as events:
            async for event in events:
                yield event
        error = piece.error
        if error is None:
            return
        delay_s = piece.delay_s(request) if piece.begun else None
        if delay_s is None:
            raise error
        words = f"the answer broke ({type(error).__name__}: {error}): it begins anew, what came before is void"
        yield Notice("reset", words, attempt=error.last_attempt)
        await anyio.sleep(delay_s)


async def _continued(piece: _Piece, request: Request, how: Resume) -> AsyncGenerator[Event]:
    seam = _Seam()
    cause: LoomstreamError | None = None
    asked = request
    while True:
        async with aclosing(piece.events(asked)) as events:
            async for event in events:
                for given in seam.give(event):
                    yield given
        error = piece.error
        if error is None:
            return
        refused = isinstance(error, BadRequest) and how == "prefill" and cause is not None and not piece.begun
        delay_s = 0.0 if refused else piece.delay_s(request) if seam.text and seam.resumable else None
        if delay_s is None:
            for given in seam.release():
                yield given
            error.__cause__ = error.__cause__ or cause
            raise error
        how = "prompt" if refused else how
        cause = error
        for given in seam.close():
            yield given
        words = f"the answer broke ({type(cause).__name__}: {cause}): it goes on behind {len(seam.text)} characters"
        yield Notice("resume", words, attempt=cause.last_attempt)
        await anyio.sleep(delay_s)
        if seam.text.strip():
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
        self._exact = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pieces: list[str] = []
        self._open: dict[int, _Ends] = {}
        self._choices: set[int] = set()
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
        self._gone = False
        """The last text was said already: what belongs to it goes with it."""

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self._pieces)

    @property
    def resumable(self) -> bool:
        """Whether all that came is text, or reasoning before it, of one answer."""
        return len(self._choices) <= 1 and all(
            isinstance(block, Text | Reasoning)
            for choice in self._fold.response.choices
            for block in choice.message.content
        )

    def begin(self, how: Resume) -> None:
        """Begin the next piece."""
        self._usage = _sum(self._usage, self._last)
        self._last = Usage()
        self._offset = self._next_index
        self._resumed = True
        text = self.text
        self._exact = how == "prefill" or not text.strip()
        # a prefilled model goes on behind the blanks that its turn could not end in; a prompted one may repeat words
        self._start = text[len(text.rstrip()) :] if self._exact else text[-SEAM_CHARS:]
        self._held, self._held_text = [], ""

    def give(self, event: Event) -> list[Event]:
        """Give what the consumer gets for an event of this piece."""
        if isinstance(event, Notice) and event.kind == "reset":
            self._begin_anew()  # all before it is void, also what other pieces said: a new answer follows
        if not self._resumed:
            self._note(event)
            return [event]
        if isinstance(event, Start):
            return []
        if isinstance(event, Cost | Notice):
            return self._sent([event])
        if isinstance(event, Usage):
            self._last = event
            return [_sum(self._usage, event)]
        if isinstance(event, TextDelta):
            self._gone = False
        elif self._gone and isinstance(event, _BESIDE):
            return []
        event = self._shifted(event)
        return self._sent(self._seam(event) if self._start else [event])

    def release(self) -> list[Event]:
        """Give what is still held back: nothing follows that would say it again."""
        return self._sent(self._released())

    def close(self) -> list[Event]:
        """End what the break left open. What is still held back nobody has seen: the next piece says it again."""
        self._held, self._held_text = [], ""
        return self._sent([end(index) for index, end in self._open.items()])

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
        choice: int | None = getattr(event, "choice", None)
        if choice is not None:
            self._choices.add(choice)

    def _shifted(self, event: Event) -> Event:
        index: int | None = getattr(event, "index", None)
        return event if index is None else msgspec.structs.replace(event, index=index + self._offset)

    def _seam(self, event: Event) -> list[Event]:
        """Hold the first text of a piece back until it is known how much of it was said already."""
        if isinstance(event, TextDelta):
            self._held.append(event)
            self._held_text += event.text
            return [] if self._undecided() else self._released()
        if not self._held:
            return [event]
        if isinstance(event, _BESIDE | _BORDER):  # what was said may be repeated over several blocks
            self._held.append(event)
            return []
        return [*self._released(), event]

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
            if isinstance(event, TextDelta):
                kept = event.text[cut:]
                cut -= len(event.text) - len(kept)
                self._gone = not kept and bool(event.text)
                event = event if kept == event.text else TextDelta(event.index, kept)  # noqa: PLW2901 (what is left)
            if not (self._gone and isinstance(event, TextDelta | _BESIDE)):
                given.append(event)
        return given

    def _repeated(self) -> int:
        """Give how many characters at the beginning were said already."""
        text = self._held_text
        if self._exact:
            return len(self._start) if text.startswith(self._start) else 0
        longest = min(len(text), len(self._start))
        sizes = range(longest, LEAST_SEAM_CHARS - 1, -1)
        blanks = len(self._start) - len(self._start.rstrip())  # it was not shown these
        unshown = blanks if blanks and text.startswith(self._start[-blanks:]) else 0
        return next((size for size in sizes if self._start.endswith(text[:size])), unshown)


def _untold(start: Start) -> Cost:
    """Give the cost of an attempt that told none."""
    return Cost(provider=start.provider, model=start.model, amount_usd=_ZERO, lower_usd=_ZERO)


def _sum_of_costs(before: Cost | None, cost: Cost) -> Cost:
    """Give what both attempts have cost: at least that, for what the broken one had used at its end nobody said."""
    if before is None:
        return cost
    if cost.exact and cost.amount_usd == 0 and (before.provider, before.model) == (cost.provider, cost.model):
        return msgspec.structs.replace(cost, attempts=before.attempts + cost.attempts)  # a free model's

    def both(one: Decimal | None, two: Decimal | None) -> Decimal | None:
        return None if one is None or two is None else one + two

    return msgspec.structs.replace(
        cost,
        amount_usd=both(before.amount_usd, cost.amount_usd),
        lower_usd=both(before.lower_usd, cost.lower_usd),
        upper_usd=None if cost.upper_usd != 0 or before.upper_usd != 0 else cost.upper_usd,
        exact=cost.upper_usd == 0 and before.upper_usd == 0,
        attempts=before.attempts + cost.attempts,
    )


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
