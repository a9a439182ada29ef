"""Budget: a limit on money or tokens that holds while answers stream, and however many calls run at once.

Contract: before a call is sent its prompt and its `max_tokens` are reserved; without `max_tokens`, and in a budget of
one call, what is left of it will do, and the reservation grows by pieces. While it streams its use is estimated from
the text, and set right by each usage. The event that would pass the limit is not given: `BudgetExceeded` is raised in
its place, and leaving the stream closes the upstream. An answer that is there as a whole is never cut, for nothing
would be saved. At the end the rest of the reservation comes back. Alerts are told once each, by a `warning` notice and
to `on_alert`, whose failure is a notice too. The sums are in a `Store`, which several processes can share.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Literal, NamedTuple, Protocol, cast

from loomstream import catalog
from loomstream.errors import BudgetExceeded, ConfigError, LoomstreamError, ProviderError
from loomstream.events import Event, EventBase, Notice, Start, Stop, Usage
from loomstream.handler import Handler, Middleware
from loomstream.messages import Request
from loomstream.middleware.cost import cost_of
from loomstream.middleware.estimates import CHARS_PER_TOKEN, TEXT_OF, all_tokens, prompt_tokens
from loomstream.middleware.layer import Layer, tolerated
from loomstream.middleware.store import Account, MemoryStore, Spent, Store
from loomstream.numerals import is_number

Per = Literal["call", "tag", "hour", "day", "month", "total"]
OnAlert = Callable[["Alert"], object]

PIECE_TOKENS = 256
"""So much output is reserved at a time where the request does not limit it."""
ALERTS = (0.5, 0.8, 1.0)

_log = logging.getLogger(__name__)
_REPORTS = 100
"""What is used is told to the store whenever another such part of the limit was."""
_NANO = 9
_ONE_OF_EACH = Usage(input_tokens=1, output_tokens=1)
_MOST_UNITS = 2**53
_TAG = "tag"
_COUNTED: frozenset[type[EventBase]] = frozenset((Start, Usage, Stop, Notice))
_LONGEST_PERIOD_S = {"hour": 3_600.0, "day": 86_400.0, "month": 31 * 86_400.0}
_STAMPS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}


class Alert(NamedTuple):
    """A part of a budget that was used up: `spent` of `limit`, in dollars or tokens, of what has the name `key`."""

    part: float
    spent: Decimal
    limit: Decimal
    key: str


def budget(  # noqa: PLR0913 (what is limited, over what, and who hears of it; all keyword-only but what it is for)
    provider: str = "",
    model: str = "",
    *,
    limit_usd: Decimal | float | str | None = None,
    limit_tokens: int | None = None,
    per: Per = "call",
    tag: Callable[[Request], str] | None = None,
    alerts: Sequence[float] = ALERTS,
    on_alert: OnAlert | None = None,
    store: Store | None = None,
    name: str = "budget",
    now: Callable[[], float] = time.time,
) -> Middleware:
    """Give the middleware that holds calls to a limit, in US dollars or in tokens of every kind; 0 allows no call.

    `per` says over what it runs: one `call`, the calls of one `tag`, of an `hour`, `day` or `month` (UTC), or all of
    them (`total`). `tag` gives a request's tag (default: `tag` of its metadata) and divides a period's budget likewise.
    `alerts` are parts of the limit; `on_alert` is called with an `Alert` when the first call reaches one. `store` keeps
    the sums of what has one `name` (default: a store of this middleware's own). `now` gives the seconds since 1970.

    A limit in dollars needs `provider` and `model`, and a known price. Put it inside a retry, for each attempt to
    count; a combinator's candidates share a budget by one `store` and `name`.

    Reading a stream raises `BudgetExceeded`. Raises `ConfigError` for no limit or two, one that is negative or no
    number, an unknown `per`, parts that are not above 0, and an unknown price.
    """
    meter = _meter(provider, model, limit_usd, limit_tokens)
    if not all(is_number(part) and part > 0 for part in alerts):
        msg = f"budget(alerts={alerts!r}): give parts of the limit above 0, such as 0.8"
        raise ConfigError(msg)
    parts = tuple(sorted(set(alerts)))
    if per not in {"call", _TAG, "total", *_STAMPS}:
        msg = f"budget(per={per!r}): give call, tag, hour, day, month or total"
        raise ConfigError(msg)
    if meter is None:
        return _unchanged
    policy = _Policy(meter, per, tag, parts, on_alert, store or MemoryStore(), name, now)

    def wrap(handler: Handler) -> Handler:
        def limited(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            return _Budgeted(policy, handler, request)

        return limited

    return wrap


def _unchanged(handler: Handler) -> Handler:
    return handler


# --- units ---------------------------------------------------------------------------------------


class _Meter(Protocol):
    """What is counted, in whole units."""

    limit: int
    word: str

    def shown(self, units: int) -> Decimal:
        """Give units in dollars or tokens."""
        ...

    def of(self, input_tokens: int, output_tokens: int) -> int:
        """Give the units of so many tokens."""
        ...

    def of_usage(self, usage: Usage, start: Start) -> int | None:
        """Give the units of a usage; None where they are not known."""
        ...


class _Tokens:
    word = "tokens"

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def shown(self, units: int) -> Decimal:
        return Decimal(units)

    def of(self, input_tokens: int, output_tokens: int) -> int:
        return input_tokens + output_tokens

    def of_usage(self, usage: Usage, start: Start) -> int | None:  # noqa: ARG002 (the protocol's)
        return all_tokens(usage)


class _Dollars:
    """Billionths of a dollar, so that sums are exact in every store."""

    word = "USD"

    def __init__(self, limit: Decimal, provider: str, model: str, entry: catalog.Entry) -> None:
        self.limit = _nano(limit)
        self._provider = provider
        self._model = model
        self._entry = entry

    def shown(self, units: int) -> Decimal:
        return Decimal(units).scaleb(-_NANO)

    def of(self, input_tokens: int, output_tokens: int) -> int:
        amount = catalog.price(self._entry, Usage(input_tokens=input_tokens, output_tokens=output_tokens))
        return _nano(cast("Decimal", amount))  # it is known: `_meter` has asked

    def of_usage(self, usage: Usage, start: Start) -> int | None:
        cost = cost_of(start.provider or self._provider, start.model or self._model, usage, requested_model=self._model)
        return None if cost.amount_usd is None else _nano(cost.amount_usd)


def _nano(amount: Decimal) -> int:
    return int(amount.scaleb(_NANO).to_integral_value(ROUND_CEILING))


def _meter(
    provider: str, model: str, limit_usd: Decimal | float | str | None, limit_tokens: int | None
) -> _Meter | None:
    """Give what is counted; None where nothing is to be counted, because it is free."""
    if (limit_usd is None) == (limit_tokens is None):
        msg = f"budget(limit_usd={limit_usd!r}, limit_tokens={limit_tokens!r}): give one of them"
        raise ConfigError(msg)
    if limit_tokens is not None:
        if not is_number(limit_tokens) or not 0 <= limit_tokens < _MOST_UNITS or limit_tokens != int(limit_tokens):
            msg = f"budget(limit_tokens={limit_tokens!r}): give a whole number of at least 0"
            raise ConfigError(msg)
        return _Tokens(int(limit_tokens))
    limit = _dollars(limit_usd)
    if not (provider and model):
        msg = f"budget(limit_usd={limit_usd!r}): name the provider and the model that it prices, or give limit_tokens"
        raise ConfigError(msg)
    entry = catalog.look_up(provider, model)
    if entry is not None and entry.free:
        return None
    if entry is None or catalog.price(entry, _ONE_OF_EACH) is None:
        msg = (
            f"the price of {provider}:{model} is not known, so a budget in dollars cannot hold it: "
            "give budget(provider, model, …) of the catalog, or limit_tokens"
        )
        raise ConfigError(msg, provider=provider, model=model)
    return _Dollars(limit, provider, model, entry)


def _dollars(limit_usd: Decimal | float | str | None) -> Decimal:
    try:
        limit = Decimal(str(limit_usd))
    except InvalidOperation:
        limit = Decimal("NaN")
    if not (limit.is_finite() and 0 <= limit < _MOST_UNITS // 10**_NANO):
        msg = f"budget(limit_usd={limit_usd!r}): give an amount of at least 0"
        raise ConfigError(msg)
    return limit


# --- what all calls share ------------------------------------------------------------------------


class _Policy(NamedTuple):
    meter: _Meter
    per: Per
    tag: Callable[[Request], str] | None
    alerts: tuple[float, ...]
    on_alert: OnAlert | None
    store: Store
    name: str
    now: Callable[[], float]

    def account(self, request: Request) -> tuple[Store, Account]:
        """Give the account of a request and where it is kept: that of a single call in a store of its own."""
        if self.per == "call":
            return MemoryStore(), Account(self.name, self.meter.limit)
        named = self.tag(request) if self.tag else request.metadata.get(_TAG, "") if self.per == _TAG else ""
        stamp = self.per
        if self.per in _STAMPS:
            stamp = datetime.fromtimestamp(self.now(), UTC).strftime(_STAMPS[self.per])
        key = f"{self.name}:{self.meter.word}:{stamp}:{named}"
        return self.store, Account(key, self.meter.limit, _LONGEST_PERIOD_S.get(self.per))


# --- one call ------------------------------------------------------------------------------------


class _Budgeted(Layer):
    """One call and its reservation."""

    __slots__ = (
        "_account",
        "_base",
        "_chars",
        "_earlier",
        "_failure",
        "_free_chars",
        "_holder",
        "_holds",
        "_policy",
        "_prompt",
        "_report_at",
        "_reported",
        "_reserved",
        "_start",
        "_store",
        "_unit",
        "_used",
    )

    def __init__(self, policy: _Policy, handler: Handler, request: Request) -> None:
        super().__init__(handler, request)
        self._policy = policy
        self._store, self._account = policy.account(request)
        self._holder = uuid.uuid4().hex
        self._holds = False
        self._prompt = prompt_tokens(request)
        self._base = self._used = policy.meter.of(self._prompt, 0)
        """What was used when it was last counted; the text that has come since then adds to it."""
        self._unit = policy.meter.of(self._prompt, 1_000) - self._base
        """The units of a thousand tokens of output."""
        self._earlier = 0
        """What other attempts of this stream used before."""
        self._reported = False
        """Whether a usage has told what this one used."""
        self._chars = 0
        self._free_chars = 0
        """So much text may come in all until there is something to do."""
        self._reserved = 0
        self._report_at = 0
        self._start: Start | None = None
        self._failure: BudgetExceeded | None = None

    async def next_batch(self) -> list[Event]:
        if self._failure is not None:
            raise self._failure
        try:
            if self.inner is None:
                await self._reserve()
                events = await (await self.open_inner())()
            else:
                events = await self.inner()
        except LoomstreamError as error:
            if self._start is None and (error.retry_safety == "yes" or isinstance(error, ProviderError)):
                self._base = 0  # the provider did nothing
            raise
        chars = self._chars
        for event in events:
            kind = event.__class__
            field = TEXT_OF.get(kind)
            if field is not None:
                chars += len(getattr(event, field))
            elif kind in _COUNTED:
                return await self._counted(events)
        if chars > self._free_chars:
            return await self._counted(events)
        self._chars = chars
        return events

    async def _reserve(self) -> None:
        meter, max_tokens = self._policy.meter, self._request.max_tokens
        want = max(1, meter.of(self._prompt, PIECE_TOKENS if max_tokens is None else max_tokens))
        alone = max_tokens is None or self._policy.per == "call"
        least = max(1, min(want, meter.of(self._prompt, 1))) if alone else want
        self._reserved = await self._store.reserve(self._account, self._holder, want, least)
        if not self._reserved:
            by = "its prompt" if alone else "its prompt and max_tokens"
            why = f"this call needs {meter.shown(least)} {meter.word} by {by}, which is not left; not sent"
            raise self._exceeded(why)
        self._holds = True
        self._plan()

    def _plan(self) -> None:
        """Find how much text may come until the store must be asked, or told."""
        next_at = min(self._reserved, self._report_at - 1)
        self._free_chars = (next_at - self._base) * 1_000 * CHARS_PER_TOKEN // self._unit if self._unit else sys.maxsize

    def _exceeded(self, why: str) -> BudgetExceeded:
        meter = self._policy.meter
        limit = f"{meter.shown(meter.limit)} {meter.word} per {self._policy.per}"
        return BudgetExceeded(f"the budget of {limit} is used up: {why}")

    # --- while it streams ------------------------------------------------------------------------

    async def _counted(self, events: list[Event]) -> list[Event]:
        """Count some events; give those that the budget covers, after what is to be told."""
        is_whole = isinstance(events[-1], Stop) or not self._request.stream
        told: list[Event] = []
        for position, event in enumerate(events):
            self._note(event)
            if self._used > self._reserved or self._used >= self._report_at or isinstance(event, Stop):
                told += await self._report()
            if self._used > self._reserved and not is_whole:
                self._failure = self._exceeded("the answer was stopped where it would have passed it")
                if position or told:
                    return [*told, *events[:position]]
                raise self._failure
        self._plan()
        return [*told, *events] if told else events

    def _note(self, event: Event) -> None:
        """Add an event to what is used."""
        meter, field = self._policy.meter, TEXT_OF.get(event.__class__)
        if field is not None:
            self._chars += len(getattr(event, field))
        elif isinstance(event, Usage):
            counted = meter.of_usage(event, self._start or Start())
            if counted is not None:
                self._base, self._chars = self._earlier + counted, 0
                self._reported = True
        elif isinstance(event, Start):
            if self._start is not None:  # another attempt: what the one before it used stays used
                self._earlier = self._used
                self._base, self._chars = self._used + meter.of(self._prompt, 0), 0
                self._reported = False
            self._start = event
        elif isinstance(event, Notice) and event.kind == "resume":  # usages to come tell again what was told of it
            self._earlier += self._used - (self._base if self._reported else self._earlier)
            self._base, self._chars = self._used + meter.of(self._prompt, 0), 0
        self._reckon()

    def _reckon(self) -> None:
        self._used = self._base + -(-self._chars * self._unit // (1_000 * CHARS_PER_TOKEN))

    async def _report(self) -> list[Event]:
        """Tell the store what is used, ask it for more where that is needed, and give the alerts."""
        want = self._used + self._unit * PIECE_TOKENS // 1_000 if self._used > self._reserved else 0
        spent = await self._store.spend(self._account, self._holder, self._used, want)
        self._reserved = spent.reserved
        self._report_at = self._used + max(1, self._account.limit // _REPORTS)
        return [Notice("warning", words) for words in self._alerted(spent)]

    def _alerted(self, spent: Spent) -> list[str]:
        """Call the observer for each part that this step reached; give what is to be said of it."""
        policy, account, words = self._policy, self._account, list[str]()
        for part in policy.alerts:
            if not spent.before < part * account.limit <= spent.after:
                continue
            alert = Alert(part, policy.meter.shown(spent.after), policy.meter.shown(account.limit), account.key)
            words.append(f"{part:.0%} of a budget is used up: {alert.spent} of {alert.limit} {policy.meter.word}")
            if policy.on_alert is not None:
                try:
                    policy.on_alert(alert)
                except Exception as error:  # noqa: BLE001 (an observer's failure is told, and breaks nothing)
                    words.append(f"on_alert of the budget raised {type(error).__name__}: {error}")
        return words

    # --- after it --------------------------------------------------------------------------------

    def is_free(self) -> bool:
        return self._store.is_local

    async def released(self) -> None:
        holds, self._holds = self._holds, False
        if holds:
            self._reckon()
            await tolerated(self._settle(), "settling a budget")

    async def _settle(self) -> None:
        spent = await self._store.settle(self._account, self._holder, self._used)
        for words in self._alerted(spent):  # nobody reads notices any more
            _log.warning(words)
