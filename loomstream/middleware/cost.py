"""What a call costs, while it streams and when it ends.

Contract: a stage that adds `Cost` events and changes nothing else. Every whole answer gets one `Cost` right before its
`Stop`; before that, at most one each `RUNNING_INTERVAL_S`, and only after a `Usage` that changed the amount. What a
gateway says that it charged wins over the catalog's price, and the tokens that a host says it bills over those that
its model counted. An unknown price is unknown: the amount is None. It knows
no provider, and a text delta costs it one look-up in a set.

A stream that ends early has no `Stop`; `cost_of` gives its cost to whoever holds the last `Usage`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from types import CoroutineType, TracebackType
from typing import Any, TypeVar

import msgspec
from anyio import current_time
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream import catalog
from loomstream.errors import Failure
from loomstream.events import NULL, Cost, Event, EventBase, Start, Stop, Usage
from loomstream.handler import Handler, Middleware, NextBatch, Stage, batches, is_idle
from loomstream.messages import Request
from loomstream.transport.loops import running_loop
from loomstream.wire.json import Reader

RUNNING_INTERVAL_S = 0.25
"""The shortest time between two running `Cost` events, in seconds."""

WATCHED: frozenset[type[EventBase]] = frozenset((Start, Usage, Cost, Stop))
"""The only events that matter to the cost; all others pass."""

_ZERO = Decimal(0)
_T = TypeVar("_T")


def cost(provider: str, model: str, clock: Callable[[], float] | None = None) -> Middleware:
    """Give the middleware for a model: `provider` and `model` as requested, for what `Start` leaves open.

    `clock` gives seconds that never go back (default: the event loop's); it is read only when a `Usage` arrives.
    """

    def wrap(handler: Handler) -> Handler:
        def metered(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            return _Metered(handler(request), _Meter(provider, model, request.max_tokens, clock))

        return metered

    return wrap


def meter(provider: str, model: str, max_tokens: int | None, clock: Callable[[], float] | None = None) -> Stage:
    """Give what `cost` does to one stream as a plain function of its events, in order; `WATCHED` are those it needs."""
    return _Meter(provider, model, max_tokens, clock)


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
        self._batch: NextBatch

    async def __aenter__(self) -> AsyncIterator[Event]:
        self._batch = batches(await self._context.__aenter__())
        return self

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> CoroutineType[Any, Any, bool | None]:
        return self._context.__aexit__(kind, error, trace)

    @property
    def __loomstream_idle__(self) -> bool:
        return is_idle(self._context)

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
        events = await self._batch()
        if len(events) == 1 and events[0].__class__ not in WATCHED:  # what most reads bring
            return events
        return events if WATCHED.isdisjoint(map(type, events)) else self._meter.take(events)


def cost_of(
    provider: str,
    model: str,
    usage: Usage | None,
    *,
    attempts: int = 1,
    max_tokens: int | None = None,
    requested_model: str = "",
) -> Cost:
    """Give the cost of a call by the last usage that it reported; also of one that was cut off.

    `amount_usd` is what the reported tokens cost. It is exact, and equal to both bounds, where that usage is final and
    there was one attempt. Else it is the lower bound, and the upper one is what `max_tokens` of output would cost: None
    where that is not given, or after several attempts, of which others may be billed too. Amount and bounds are None
    where the price is unknown, or the usage of a model that is not free.

    A `model` that the catalog does not know is priced as `requested_model`, then never as exact and without bounds.
    """
    entry = catalog.look_up(provider, model)
    if entry is not None and entry.free:
        return zero_cost(provider, model, attempts=attempts)
    if usage is None:
        return Cost(provider=provider, model=model, attempts=attempts)
    charged, billed = reported_cost(usage), billed_usage(usage)
    if charged is None and entry is None:
        guess = _amount(catalog.look_up(provider, requested_model), billed)
        return Cost(provider=provider, model=model, amount_usd=guess, attempts=attempts)
    amount = _amount(entry, billed) if charged is None else charged
    exact = usage.final and attempts == 1 and amount is not None
    return Cost(
        provider=provider,
        model=model,
        amount_usd=amount,
        lower_usd=amount,
        upper_usd=amount if exact else _upper(entry, billed, amount, max_tokens if attempts == 1 else None),
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


def _amount(entry: catalog.Entry | None, usage: Usage | None) -> Decimal | None:
    return None if entry is None or usage is None else catalog.price(entry, usage)


def _upper(
    entry: catalog.Entry | None, usage: Usage | None, lower: Decimal | None, max_tokens: int | None
) -> Decimal | None:
    if max_tokens is None or lower is None or usage is None:
        return None
    upper = _amount(entry, msgspec.structs.replace(usage, output_tokens=max_tokens))
    return None if upper is None else max(lower, upper)


class _Meter:
    """The stage of one stream."""

    __slots__ = (
        "_attempts",
        "_clock",
        "_max_tokens",
        "_model",
        "_next_s",
        "_now_s",
        "_priced",
        "_provider",
        "_requested_model",
        "_shown",
        "_spent",
        "_started",
        "_usage",
    )

    def __init__(self, provider: str, model: str, max_tokens: int | None, clock: Callable[[], float] | None) -> None:
        self._provider = provider
        self._model = self._requested_model = model
        self._max_tokens = max_tokens
        self._clock = clock
        self._usage: Usage | None = None
        self._started = False
        self._priced = False
        self._attempts = 1
        self._spent: Decimal | None = _ZERO
        self._shown: Decimal | None = None
        self._next_s = self._now_s = -math.inf

    def __call__(self, event: Event) -> tuple[Event, ...]:
        match event:
            case Usage():
                return self._count(event)
            case Start():
                self._begin(event)
            case Stop() if not self._priced:
                return (self._cost(), event)
            case Cost():
                self._priced = True  # a handler nearer to the wire has its own stage, and knows what it asked
            case _:
                pass
        return (event,)

    def take(self, events: list[Event]) -> list[Event]:
        """Give what some events of one moment become: after a `Usage` that told no cost, others have none to tell yet.

        Some providers count with each text, so what a `Usage` costs is paid as often as a text's.
        """
        out: list[Event] = []
        too_early = False
        for event in events:
            if event.__class__ not in WATCHED:
                out.append(event)
            elif too_early and isinstance(event, Usage):
                self._usage = event
                out.append(event)
            else:
                out += self(event)
                too_early = isinstance(event, Usage) and not event.final and self._now_s < self._next_s
        return out

    def _begin(self, event: Start) -> None:
        if self._started:
            self._spent = self._cost().amount_usd
            self._attempts += 1
            self._usage = None
        self._started = True
        self._provider = event.provider or self._provider
        self._model = event.model or self._requested_model

    def _count(self, event: Usage) -> tuple[Event, ...]:
        self._usage = event
        if event.final or self._priced:
            return (event,)
        if self._clock is None:
            self._clock = _loop_clock()
        now = self._now_s = self._clock()
        if now < self._next_s:
            return (event,)
        running = self._cost()
        if running.amount_usd is None:
            self._next_s = now + RUNNING_INTERVAL_S  # an unknown price seldom becomes known: no need to ask each time
        if running.amount_usd == self._shown:
            return (event,)
        self._shown = running.amount_usd
        self._next_s = now + RUNNING_INTERVAL_S
        return (event, running)

    def _cost(self) -> Cost:
        cost = cost_of(
            self._provider,
            self._model,
            self._usage,
            attempts=self._attempts,
            max_tokens=self._max_tokens,
            requested_model=self._requested_model,
        )
        if self._spent == 0:
            return cost
        total = None if self._spent is None or cost.amount_usd is None else self._spent + cost.amount_usd
        return msgspec.structs.replace(cost, amount_usd=total, lower_usd=total, upper_usd=None, exact=False)


def _loop_clock() -> Callable[[], float]:
    """Give the clock of the event loop that runs; on asyncio without the search for it that costs 1.5 µs each time."""
    loop = running_loop()
    return current_time if loop is None else loop.time


# --- what gateways report ----------------------------------------------------------------------------


class _Bill(Struct):
    cost: RawJSON = NULL
    cost_in_usd_ticks: RawJSON = NULL
    is_byok: RawJSON = NULL
    cost_details: RawJSON = NULL


class _Total(Struct):
    total_cost: RawJSON = NULL
    usd: RawJSON = NULL


class _Details(Struct):
    upstream_inference_cost: RawJSON = NULL


class _Billed(Struct):
    billed_units: RawJSON = NULL


_billed = Reader(msgspec.json.Decoder(_Billed))
_units = Reader(msgspec.json.Decoder(dict[str, RawJSON]))
_bill = Reader(msgspec.json.Decoder(_Bill))
_total = Reader(msgspec.json.Decoder(_Total))
_details = Reader(msgspec.json.Decoder(_Details))
_number = Reader(msgspec.json.Decoder(Decimal))

_MAX_EXPONENT = 20
"""Numbers beyond this are no bill, and would overflow in arithmetic."""


def reported_cost(usage: Usage) -> Decimal | None:
    """Give what a gateway says it charged, in US dollars; None where the usage says nothing of it.

    Read from `usage.raw`, as seen on recorded streams: `cost` as a number or a string of one (OpenRouter, LiteLLM,
    Vercel), or as an object with `total_cost` (Perplexity) or `usd` (Venice); `cost_in_usd_ticks` (xAI: 10,000,000,000
    to the dollar). With your own key at OpenRouter (`is_byok`) the upstream's bill is added.
    """
    data = bytes(usage.raw)
    bill = _read(_bill, data) if b'"cost' in data else None
    if bill is None:
        return None
    for read in (_charged, _itemised, _ticks):
        amount = read(bill)
        if amount is not None:
            return amount
    return None


def billed_usage(usage: Usage) -> Usage | None:
    """Give the token counts that a host charges for, where `usage.raw` says that they are not the model's.

    Read from `billed_units` (Cohere), whose counts know no cache. None where it charges for something else than whole
    tokens, which no price per token tells.
    """
    data = bytes(usage.raw)
    bill = _read(_billed, data) if b'"billed_units"' in data else None
    units = None if bill is None else _read(_units, bytes(bill.billed_units))
    if units is None:
        return usage
    counts = {name: _money(raw) for name, raw in units.items() if bytes(raw) != b"null"}
    tokens = [counts.pop(name, _ZERO) for name in ("input_tokens", "output_tokens")]
    if any(counts.values()) or any(count is None or count % 1 for count in (*tokens, *counts.values())):
        return None
    sent, received = (int(count or 0) for count in tokens)
    return msgspec.structs.replace(
        usage,
        input_tokens=sent,
        output_tokens=received,
        cache_read_tokens=0,
        cache_write_tokens=0,
        cache_write_1h_tokens=0,
    )


def _charged(bill: _Bill) -> Decimal | None:
    charged = _money(bill.cost)
    if charged is None or bytes(bill.is_byok) != b"true":
        return charged
    details = _read(_details, bytes(bill.cost_details))
    upstream = None if details is None else _money(details.upstream_inference_cost)
    return None if upstream is None else charged + upstream


def _itemised(bill: _Bill) -> Decimal | None:
    total = _read(_total, bytes(bill.cost))
    if total is None:
        return None
    amount = _money(total.total_cost)
    return _money(total.usd) if amount is None else amount


def _ticks(bill: _Bill) -> Decimal | None:
    ticks = _money(bill.cost_in_usd_ticks)
    return None if ticks is None else ticks.scaleb(-10)


def _money(raw: RawJSON) -> Decimal | None:
    number = _read(_number, bytes(raw))
    if number is None or not number.is_finite() or number < 0 or abs(number.adjusted()) > _MAX_EXPONENT:
        return None
    return number


def _read(reader: Reader[_T], data: bytes) -> _T | None:
    value = reader.read(data)
    return None if isinstance(value, Failure) else value
