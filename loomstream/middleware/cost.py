"""What a call costs, while it streams and when it ends.

Contract: a stage that adds `Cost` events and changes nothing else. Every whole answer gets one `Cost` right before its
`Stop`; before that, at most one each `RUNNING_INTERVAL_S`, and only where the amount has changed: after a `Usage`, or
where so much text has come since that the estimate has. What a gateway says that it charged wins over the catalog's
price, and the tokens that a host says it bills over those that its model counted. An unknown price is unknown: the
amount is None. It knows no provider.

Text that no usage has counted yet is reckoned by characters to the token: by a rule of thumb at first, then by what the
final usages of the same model were. An estimate is never exact; its lower bound is what was reported.

Attempts that others made inside are seen by their notices: one that may be billed leaves the cost without an upper
bound. To have each attempt counted by itself, failed and abandoned ones too, put a `cost` with a `ledger` inside of
what repeats: innermost.

A stream that ends early has no `Stop`; `cost_of` gives its cost to whoever holds the last `Usage`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from functools import partial
from types import TracebackType
from typing import Any, ClassVar

import msgspec
from anyio import current_time
from msgspec import Struct

from loomstream import catalog
from loomstream.accumulate import among_others
from loomstream.errors import LoomstreamError, Timeout
from loomstream.events import Cost, Event, EventBase, Notice, Start, Stop, TextDelta, Usage, places_of
from loomstream.handler import Handler, Middleware, NextBatch, Stage, batches, is_idle, is_over
from loomstream.messages import Request
from loomstream.middleware.bills import billed_usage, reported_cost, served_tier
from loomstream.middleware.estimates import CHARS_PER_TOKEN, TEXT_OF, prompt_tokens
from loomstream.middleware.ledger import Ledger
from loomstream.transport.loops import running_loop

__all__ = (
    "RUNNING_INTERVAL_S",
    "WATCHED",
    "Ledger",
    "Pricing",
    "billed_usage",
    "cost",
    "cost_of",
    "may_be_billed",
    "meter",
    "reported_cost",
    "zero_cost",
)

RUNNING_INTERVAL_S = 0.25
"""The shortest time between two running `Cost` events, in seconds."""

WATCHED: frozenset[type[EventBase]] = frozenset((Start, Usage, Cost, Stop, Notice))
"""The events that matter to the cost beside text; all others pass."""

_ZERO = Decimal(0)
_LOOK_CHARS = 64
"""After so much text it is looked whether a running cost is due."""
_LEAST_TOLD_CHARS = 200
"""An answer of fewer characters tells nothing of how many make a token."""
_NEW_RATIO = 0.3
"""How much the last answer counts against those before it."""
_GIVEN_UP = frozenset(("retry", "failover", "hedge"))


class Pricing(Struct, frozen=True, kw_only=True):
    """How the models of a host are found in the catalog.

    `provider` is the catalog's name of it, where the host has another one (a built-in provider under a name of yours).
    `base_model` is what stands behind a deployment, for an answer that does not name a model that is known.
    `by_request` is False where the model of the request is a name that you gave: it is no model's, and never priced.
    `region` is where it is served, for models that cost something else there.
    """

    provider: str = ""
    base_model: str = ""
    by_request: bool = True
    region: str = ""


AS_NAMED = Pricing()


def cost(
    provider: str,
    model: str,
    clock: Callable[[], float] | None = None,
    *,
    pricing: Pricing = AS_NAMED,
    ledger: Ledger | None = None,
    tag: str | Callable[[Request], str] = "",
) -> Middleware:
    """Give the middleware for a model: `provider` and `model` as requested, for what `Start` leaves open.

    `clock` gives seconds that never go back (default: the event loop's). What each stream has cost, however it ended,
    is added to `ledger` under `tag`, which may be a function of the request.
    """
    ratios: dict[str, float] = {}

    def wrap(handler: Handler) -> Handler:
        def metered(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            meter = _Meter(provider, model, request.max_tokens, clock, pricing)
            meter.expect(request, ratios)
            if ledger is not None:
                meter.book = partial(ledger.add, tag=tag if isinstance(tag, str) else tag(request))
            return _Metered(handler(request), meter)

        return metered

    return wrap


def meter(provider: str, model: str, max_tokens: int | None, clock: Callable[[], float] | None = None) -> Stage:
    """Give what `cost` does to one stream as a plain function of its events, in order; `WATCHED` are those it needs."""
    return _Meter(provider, model, max_tokens, clock, AS_NAMED)


def may_be_billed(error: LoomstreamError) -> bool:
    """Say whether a provider may bill an attempt that failed so before any content came."""
    return error.retry_safety == "maybe" or isinstance(error, Timeout)


class _Metered:
    """One metered stream, context and iterator in one.

    Not `stage`: nearly every event passes untouched, and a call and a tuple for each would cost several times as much;
    nor a generator, whose frame would stay while the stream is open.
    """

    __slots__ = ("_ahead", "_batch", "_context", "_meter")

    def __init__(self, context: AbstractAsyncContextManager[AsyncIterator[Event]], meter: _Meter) -> None:
        self._context = context
        self._meter = meter
        self._ahead: list[Event] = []
        """What has come and was not yet given, last one first."""
        self._batch: NextBatch = self._first

    async def __aenter__(self) -> AsyncIterator[Event]:
        try:
            self._batch = batches(await self._context.__aenter__())
        except LoomstreamError as error:
            self._meter.failed = error
            self._meter.close()  # who could not enter does not leave
            raise
        return self

    async def _first(self) -> list[Event]:
        raise StopAsyncIteration

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._context.__aexit__(kind, error, trace)
        finally:
            self._meter.close()

    def __loomstream_idle__(self) -> bool:
        return is_idle(self._context)

    def __loomstream_over__(self) -> bool:
        return not self._ahead and is_over(self._context)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if not self._ahead:
            self._ahead = (await self.__loomstream_batch__())[::-1]
        return self._ahead.pop()

    async def __loomstream_batch__(self) -> list[Event]:
        if self._ahead:
            ahead, self._ahead = self._ahead[::-1], []
            return ahead
        meter = self._meter
        try:
            events = await self._batch()
        except LoomstreamError as error:
            meter.failed = error
            raise
        if not meter.estimates:
            return events if WATCHED.isdisjoint(map(type, events)) else meter.take(events)
        if len(events) == 1 and type(event := events[0]) is TextDelta:  # what most reads bring
            meter.chars += len(event.text)
            return meter.look(events) if meter.chars >= meter.look_at else events
        watched = False
        chars = 0
        for event in events:
            kind = event.__class__
            if kind is TextDelta:
                chars += len(event.text)  # pyright: ignore (its class was compared, which is cheaper than isinstance)
            elif kind in WATCHED:
                watched = True
            elif kind in TEXT_OF:
                chars += meter.other_text(event, TEXT_OF[kind])
        meter.chars += chars
        if watched:
            return meter.take(events)
        return meter.look(events) if meter.chars >= meter.look_at else events


def cost_of(  # noqa: PLR0913 (all but the first three are keyword-only)
    provider: str,
    model: str,
    usage: Usage | None,
    *,
    attempts: int = 1,
    max_tokens: int | None = None,
    requested_model: str = "",
    pricing: Pricing = AS_NAMED,
    service_tier: str = "",
) -> Cost:
    """Give the cost of a call by the last usage that it reported; also of one that was cut off.

    `amount_usd` is what the reported tokens cost. It is exact, and equal to both bounds, where that usage is final and
    there was one attempt. Else it is the lower bound, and the upper one is what `max_tokens` of output would cost: None
    where that is not given, or after several attempts, of which others may be billed too. Amount and bounds are None
    where the price is unknown, or the usage of a model that is not free. `service_tier` is what was asked for; what the
    usage says wins.

    A `model` that the catalog does not know is priced as `pricing.base_model`; without one as `requested_model`, then
    never as exact and without bounds. An answer that names its model as it was asked for tells nothing where that is a
    name of yours (`pricing.by_request`): then it is priced as `pricing.base_model` alone.
    """
    told = "" if not pricing.by_request and model == requested_model else model
    entry = _entry(provider, told, pricing)
    if entry is not None and entry.free:
        return zero_cost(provider, model, attempts=attempts)
    if usage is None:
        return Cost(provider=provider, model=model, attempts=attempts)
    charged, billed = reported_cost(usage), billed_usage(usage)
    served = _Served(served_tier(usage) or service_tier, pricing.region)
    if charged is None and entry is None:
        is_another = pricing.by_request and requested_model != told
        asked = _entry(provider, requested_model, pricing) if is_another else None
        amount = _amount(asked, billed, served)
        return Cost(provider=provider, model=model, amount_usd=amount, attempts=attempts)
    amount = _amount(entry, billed, served) if charged is None else charged
    exact = usage.final and attempts == 1 and amount is not None
    return Cost(
        provider=provider,
        model=model,
        amount_usd=amount,
        lower_usd=amount,
        upper_usd=amount if exact else _upper(entry, billed, amount, max_tokens if attempts == 1 else None, served),
        exact=exact,
        attempts=attempts,
    )


def zero_cost(provider: str, model: str, *, attempts: int = 1) -> Cost:
    """Give the cost of a call that nobody bills."""
    return Cost(
        provider=provider,
        model=model,
        amount_usd=_ZERO,
        lower_usd=_ZERO,
        upper_usd=_ZERO,
        exact=True,
        attempts=attempts,
    )


def _entry(provider: str, model: str, pricing: Pricing) -> catalog.Entry | None:
    """Give the row by which a model is priced, also one without a price; None where none is known."""
    name = pricing.provider or provider
    found = catalog.look_up(name, model)
    return catalog.look_up(name, pricing.base_model) if found is None and pricing.base_model else found


class _Served(Struct, frozen=True):
    """How a call was served, and where: both may have prices of their own."""

    service_tier: str
    region: str


def _amount(entry: catalog.Entry | None, usage: Usage | None, served: _Served) -> Decimal | None:
    if entry is None or usage is None:
        return None
    return catalog.price(entry, usage, served.service_tier, region=served.region)


def _upper(
    entry: catalog.Entry | None, usage: Usage | None, lower: Decimal | None, max_tokens: int | None, served: _Served
) -> Decimal | None:
    if max_tokens is None or lower is None or usage is None:
        return None
    upper = _amount(entry, msgspec.structs.replace(usage, output_tokens=max_tokens), served)
    return None if upper is None else max(lower, upper)


class _Meter:
    """The stage of one stream."""

    __slots__ = (
        "_attempts",
        "_clock",
        "_given_up",
        "_max_tokens",
        "_model",
        "_next_s",
        "_now_s",
        "_priced",
        "_pricing",
        "_prompt_tokens",
        "_provider",
        "_ratios",
        "_requested",
        "_shown",
        "_spent",
        "_started",
        "_thought",
        "_tier",
        "_total_chars",
        "_unnamed",
        "_unreported",
        "_usage",
        "book",
        "chars",
        "estimates",
        "failed",
        "look_at",
    )

    def __init__(
        self,
        provider: str,
        model: str,
        max_tokens: int | None,
        clock: Callable[[], float] | None,
        pricing: Pricing,
    ) -> None:
        self._requested = (provider, model)
        self._provider = provider
        self._unnamed = model if pricing.by_request else ""
        """The model of an answer that does not say which."""
        self._model = self._unnamed
        self._max_tokens = max_tokens
        self._clock = clock
        self._pricing = pricing
        self._tier = ""
        self._usage: Usage | None = None
        self._started = False
        self._priced: Cost | None = None
        self._attempts = 1
        self._given_up = 0
        """How many attempts, that others made inside and gave up, may be billed."""
        self._unreported: Decimal | None = None
        """What pieces that broke have cost by estimate, beside what was reported of them."""
        self._spent: Cost | None = None
        """What the epochs before this one have cost."""
        self._shown: Decimal | None = None
        self._next_s = self._now_s = -math.inf
        self._prompt_tokens: int | None = None
        self._ratios: dict[str, float] = {}
        self.estimates = False
        """Whether text has a price, so that its characters are worth counting."""
        self._total_chars = 0
        """The characters that came before the last usage."""
        self._thought = False
        self.chars = 0
        """The characters that came since."""
        self.look_at: float = math.inf
        self.failed: LoomstreamError | None = None
        self.book: Callable[[Cost, Usage | None], None] | None = None

    def expect(self, request: Request, ratios: dict[str, float]) -> None:
        """Take what an estimate needs of the request, where its model has a price."""
        self._tier = request.service_tier
        self._ratios = ratios
        entry = _entry(self._provider, self._unnamed, self._pricing)
        if entry is not None and entry.price is not None and not entry.free:
            self._prompt_tokens = prompt_tokens(request)
            self.estimates = True
            self.look_at = _LOOK_CHARS

    def other_text(self, event: Event, field: str) -> int:
        """Give how many characters an event that is no text of the answer brings."""
        self._thought = self._thought or event.__class__.__name__ == "ReasoningDelta"
        return len(getattr(event, field))

    def __call__(self, event: Event) -> tuple[Event, ...]:
        take = self._TABLE.get(event.__class__)
        return (event,) if take is None else take(self, event)

    def take(self, events: list[Event]) -> list[Event]:
        """Give what some events of one moment become: after a `Usage` that told no cost, others have none to tell yet.

        Some providers count with each text, so what a `Usage` costs is paid as often as a text's.
        """
        out: list[Event] = []
        untold: Usage | None = None
        too_early = False
        done = 0
        for place in places_of(WATCHED, events):
            event = events[place]
            if too_early and isinstance(event, Usage) and not event.final:
                untold = event
                continue
            if untold is not None:
                self._set(untold)
                untold = None
            told = self(event)
            if told != (event,):
                out += events[done:place]
                out += told
                done = place + 1
            too_early = isinstance(event, Usage) and not event.final and self._now_s < self._next_s
        if untold is not None:
            self._set(untold)
        return out + events[done:] if done else events

    def look(self, events: list[Event]) -> list[Event]:
        """Add a running cost where one is due by the text that came."""
        self.look_at = self.chars + _LOOK_CHARS
        running = None if self._priced else self._running()
        return events if running is None else [*events, running]

    def close(self) -> None:
        """Book what the stream has cost; once."""
        book, self.book = self.book, None
        if book is None:
            return
        refused = self.failed is not None and not may_be_billed(self.failed)
        never_sent = refused and not self._started and not self._given_up
        book(zero_cost(*self._requested) if never_sent else self._priced or self._cost(), self._usage)

    def _set(self, usage: Usage) -> None:
        self._usage = usage
        self._total_chars += self.chars
        self.chars = 0
        if self.look_at < math.inf:
            self.look_at = _LOOK_CHARS

    def _on_start(self, event: Start) -> tuple[Event, ...]:
        if self._started:
            self._spent = self._cost()
            self._attempts += 1
            self._usage = self._unreported = None
            self._total_chars = self.chars = 0
        self._started = True
        self._provider = event.provider or self._provider
        self._model = event.model or self._unnamed
        return (event,)

    def _go_on(self) -> None:
        """Take note that a piece broke: what was reported of it is in the usages to come, its rest in none."""
        self._attempts += 1
        self._given_up += 1
        guessed = self._estimated()
        if guessed is not None and (amount := self._reported(guessed).amount_usd) is not None:
            rest = amount - (self._reported(self._usage).amount_usd or _ZERO)
            self._unreported = (self._unreported or _ZERO) + rest
        self._total_chars += self.chars
        self.chars = 0
        if self.look_at < math.inf:
            self.look_at = _LOOK_CHARS

    def _on_stop(self, event: Stop) -> tuple[Event, ...]:
        return (self._cost(), event) if self._priced is None else (event,)

    def _on_cost(self, event: Cost) -> tuple[Event, ...]:
        """Take the cost of a handler nearer to the wire: it knows what itself asked, but not of others."""
        self._priced = among_others(event, self._given_up)
        return (self._priced,)

    def _on_notice(self, event: Notice) -> tuple[Event, ...]:
        if event.kind in _GIVEN_UP and not self._started:
            self._attempts += 1
            self._given_up += event.may_be_billed
        elif event.kind == "resume":
            self._go_on()
        return (event,)

    def _on_usage(self, event: Usage) -> tuple[Event, ...]:
        self._set(event)
        if event.final:
            self._learn(event)
        if event.final or self._priced is not None:
            return (event,)
        running = self._running()
        return (event,) if running is None else (event, running)

    def _running(self) -> Cost | None:
        if self._clock is None:
            self._clock = _loop_clock()
        now = self._now_s = self._clock()
        if now < self._next_s:
            return None
        running = self._cost()
        if running.amount_usd is None:
            self._next_s = now + RUNNING_INTERVAL_S  # an unknown price seldom becomes known: no need to ask each time
        if running.amount_usd == self._shown:
            return None
        self._shown = running.amount_usd
        self._next_s = now + RUNNING_INTERVAL_S
        return running

    # --- estimates -------------------------------------------------------------------------------

    def _learn(self, usage: Usage) -> None:
        """Take note of how many characters made a token; thoughts that were not shown are tokens without any."""
        tokens = usage.output_tokens - (0 if self._thought else usage.reasoning_tokens)
        if (
            self.estimates
            and self._spent is self._unreported is None
            and self._total_chars >= _LEAST_TOLD_CHARS
            and tokens > 0
        ):
            known, now = self._ratios.get(self._model), self._total_chars / tokens
            self._ratios[self._model] = now if known is None else known + (now - known) * _NEW_RATIO

    def _estimated(self) -> Usage | None:
        """Give the usage with the text that it does not count yet; None where there is nothing to estimate."""
        if self._usage is not None and (self._usage.final or not self.chars):
            return None
        if not self.estimates or not (self.chars or self._usage):
            return None
        tokens = math.ceil(self.chars / self._ratios.get(self._model, CHARS_PER_TOKEN))
        counted = self._usage or Usage(input_tokens=self._prompt_tokens or 0)
        return msgspec.structs.replace(counted, output_tokens=counted.output_tokens + tokens, final=False)

    def _reported(self, usage: Usage | None) -> Cost:
        """Give the cost by the catalog; how it is found says `pricing`, for the host that it is about."""
        return cost_of(
            self._provider,
            self._model,
            usage,
            attempts=self._attempts if self._given_up else 1,
            max_tokens=self._max_tokens,
            requested_model=self._requested[1],
            pricing=self._pricing if self._provider == self._requested[0] else AS_NAMED,
            service_tier=self._tier,
        )

    def _cost(self) -> Cost:
        cost = self._reported(self._usage)
        guessed = self._estimated()
        if guessed is not None and (amount := self._reported(guessed).amount_usd) is not None:
            upper = None if cost.upper_usd is None else max(cost.upper_usd, amount)
            cost = msgspec.structs.replace(
                cost, amount_usd=amount, lower_usd=cost.lower_usd or _ZERO, upper_usd=upper, exact=False
            )
        if self._unreported is not None:
            amount = self._unreported + (cost.amount_usd or _ZERO)
            cost = msgspec.structs.replace(cost, amount_usd=amount, lower_usd=cost.lower_usd or _ZERO)
        if self._attempts > 1 or not self._model:
            cost = msgspec.structs.replace(cost, model=self._model or self._requested[1], attempts=self._attempts)
        return cost if self._spent is None else _after(self._spent, cost)

    _TABLE: ClassVar[dict[type[EventBase], Callable[[_Meter, Any], tuple[Event, ...]]]] = {
        Usage: _on_usage,
        Start: _on_start,
        Stop: _on_stop,
        Cost: _on_cost,
        Notice: _on_notice,
    }
    """What an event of each kind becomes."""


def _after(spent: Cost, cost: Cost) -> Cost:
    """Give the cost with what was spent before: no bound above, for what ended early may be billed for more."""
    if spent.amount_usd == 0 and spent.exact:
        return cost
    total = None if spent.amount_usd is None or cost.amount_usd is None else spent.amount_usd + cost.amount_usd
    lower = None if total is None else (spent.lower_usd or _ZERO) + (cost.lower_usd or _ZERO)
    return msgspec.structs.replace(cost, amount_usd=total, lower_usd=lower, upper_usd=None, exact=False)


def _loop_clock() -> Callable[[], float]:
    """Give the clock of the event loop that runs; on asyncio without the search for it that costs 1.5 µs each time."""
    loop = running_loop()
    return current_time if loop is None else loop.time
