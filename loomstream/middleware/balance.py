"""Balance: calls spread over several handlers; where the chosen one fails before its first content, others follow.

Contract: a combinator of handlers. A strategy puts the candidates in order for each call, by what is known at that
moment: how many calls each has open, how soon it began to answer lately, what it would cost. What is known is shared
by all calls of one combinator. The rest is `failover`'s: one clean stream, a notice for each change.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Literal, NamedTuple, get_args

import anyio

from loomstream.errors import ConfigError, LoomstreamError
from loomstream.events import Event
from loomstream.handler import Handler
from loomstream.messages import Request
from loomstream.middleware.attempts import COMMITTING
from loomstream.middleware.candidates import Candidate, all_places, checked
from loomstream.middleware.failover import NOT_ELSEWHERE, When, elsewhere, in_turn
from loomstream.middleware.layer import Layer
from loomstream.middleware.outcomes import RECENT_S
from loomstream.numerals import is_number

Strategy = Literal["round_robin", "weighted", "least_busy", "lowest_latency", "lowest_cost"]
"""How the first candidate of a call is chosen."""

CostOf = Callable[[str, Request], Decimal | None]
"""What a request would cost in US dollars at the candidate of that name; None where that is not known."""

_RECENT = 0.3
"""The share of the newest time in the moving average of times to the first event."""


class Load(NamedTuple):
    """What is known of a candidate: calls that are open, and seconds to its first event (None: not yet measured)."""

    open_calls: int
    first_event_s: float | None


class _Known(NamedTuple):
    """A moving average, and when it was last added to."""

    first_event_s: float
    at_s: float


class Balance:
    """The handler that spreads calls; `balance` makes it."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        strategy: Strategy,
        weights: Mapping[str, float],
        cost_of: CostOf | None,
        when: When,
    ) -> None:
        self._candidates = {candidate.name: candidate for candidate in candidates}
        self.places = all_places(candidates)
        self._order = _ORDERS[strategy]
        self._when = when
        self._open = dict.fromkeys(self._candidates, 0)
        self._first_event_s: dict[str, _Known] = {}
        self._failed_s: dict[str, float] = {}
        self.weights = {name: weights.get(name, 1.0) for name in self._candidates}
        self.credit = dict.fromkeys(self._candidates, 0.0)
        self.cost_of = cost_of
        self.turn = 0

    def __call__(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Give the events of the candidate that the strategy chooses, or of one that follows it."""
        names = self._order(self, request)
        chosen = [self._candidates[name] for name in names]
        chain = [each._replace(handler=self._tracked(each)) for each in chosen]
        return in_turn(chain, request, self._when)

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates' names, in their own order."""
        return tuple(self._candidates)

    def load(self, name: str) -> Load:
        """Give what is known of a candidate."""
        known = self._first_event_s.get(name)
        return Load(self._open[name], None if known is None else known.first_event_s)

    def latency_s(self, name: str) -> float:
        """Give what is to be expected of a candidate: 0 where nothing is known lately, infinity where it failed."""
        now_s = anyio.current_time()
        failed_s = self._failed_s.get(name)
        if failed_s is not None and now_s - failed_s <= RECENT_S:
            return math.inf
        known = self._first_event_s.get(name)
        return 0.0 if known is None or now_s - known.at_s > RECENT_S else known.first_event_s

    def _tracked(self, candidate: Candidate) -> Handler:
        def tracked(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            return _Tracked(self, candidate, request)

        return tracked

    def opened(self, name: str, calls: int) -> None:
        """Take note that so many more calls of a candidate are open."""
        self._open[name] += calls

    def note(self, name: str, first_event_s: float) -> None:
        """Take note of how soon a candidate began to answer."""
        now_s = anyio.current_time()
        known = self._first_event_s.get(name)
        if known is None or now_s - known.at_s > RECENT_S:
            known = _Known(first_event_s, now_s)
        average = known.first_event_s + _RECENT * (first_event_s - known.first_event_s)
        self._first_event_s[name] = _Known(average, now_s)
        self._failed_s.pop(name, None)

    def failed(self, name: str) -> None:
        """Take note that a candidate failed before it began to answer."""
        self._failed_s[name] = anyio.current_time()


class _Tracked(Layer):
    """One call of one candidate."""

    __slots__ = ("_balance", "_began_s", "_is_open", "_name")

    def __init__(self, balance: Balance, candidate: Candidate, request: Request) -> None:
        super().__init__(candidate.handler, request)
        self._balance = balance
        self._name = candidate.name
        self._is_open = False
        self._began_s = 0.0

    async def next_batch(self) -> list[Event]:
        if not self._is_open:
            self._is_open = True
            self._balance.opened(self._name, 1)
            self._began_s = anyio.current_time()
        try:
            events = await (self.inner or await self.open_inner())()
        except LoomstreamError as error:
            if self.passing is None and not isinstance(error, NOT_ELSEWHERE):
                self._balance.failed(self._name)
            raise
        if not COMMITTING.isdisjoint(map(type, events)):
            self.passing = self.inner
            self._balance.note(self._name, anyio.current_time() - self._began_s)
        return events

    async def released(self) -> None:
        if self._is_open:
            self._is_open = False
            self._balance.opened(self._name, -1)


# --- strategies ----------------------------------------------------------------------------------

_Order = Callable[[Balance, Request], list[str]]


def _round_robin(balance: Balance, request: Request) -> list[str]:  # noqa: ARG001 (one signature)
    names = balance.names
    first = balance.turn % len(names)
    balance.turn += 1
    return [*names[first:], *names[:first]]


def _weighted(balance: Balance, request: Request) -> list[str]:  # noqa: ARG001 (one signature)
    """Take turns smoothly: each gains its weight, the richest pays for all (the way that nginx spreads requests)."""
    credit = balance.credit
    for name, weight in balance.weights.items():
        credit[name] += weight
    order = sorted(credit, key=lambda name: -credit[name])
    credit[order[0]] -= sum(balance.weights.values())
    return [name for name in order if balance.weights[name] > 0]


def _least_busy(balance: Balance, request: Request) -> list[str]:
    """The fewest open calls for its weight; among equals they take turns."""
    return sorted(
        _round_robin(balance, request), key=lambda name: (balance.load(name).open_calls + 1) / balance.weights[name]
    )


def _lowest_latency(balance: Balance, request: Request) -> list[str]:
    """The shortest time to the first event lately; one of which nothing is known comes first, one that failed last."""
    return sorted(_round_robin(balance, request), key=balance.latency_s)


def _lowest_cost(balance: Balance, request: Request) -> list[str]:
    """The cheapest for this request; unknown prices come last."""
    cost_of = balance.cost_of
    costs = {name: cost_of(name, request) if cost_of else None for name in balance.names}
    unknown = Decimal("Infinity")
    return sorted(
        balance.names,
        key=lambda name: unknown if (cost := costs[name]) is None or not math.isfinite(cost) else cost,
    )


_ORDERS: dict[str, _Order] = {
    "round_robin": _round_robin,
    "weighted": _weighted,
    "least_busy": _least_busy,
    "lowest_latency": _lowest_latency,
    "lowest_cost": _lowest_cost,
}


def balance(
    candidates: Sequence[Candidate],
    strategy: Strategy = "round_robin",
    *,
    weights: Mapping[str, float] | None = None,
    cost_of: CostOf | None = None,
    when: When = elsewhere,
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
) -> Balance:
    """Give the handler that spreads calls over the candidates.

    `strategy`: `round_robin` (in turn), `weighted` (by `weights`, default 1 each; 0: never), `least_busy` (the fewest
    open calls for its weight), `lowest_latency` (the shortest time to the first event lately), `lowest_cost` (by
    `cost_of`). Where the chosen one fails before its first content and `when` allows (as in `failover`), the others
    follow in the strategy's order.

    Raises `ConfigError` for no candidates, two of one name, one that may send elsewhere than to `allowed_providers` and
    `allowed_regions`, an unknown strategy, weights of unknown candidates or that are not above 0 (`weighted` takes 0
    too, but not for all), and `lowest_cost` without `cost_of`.
    """
    if strategy not in get_args(Strategy):
        msg = f"strategy={strategy!r}: known are {', '.join(get_args(Strategy))}"
        raise ConfigError(msg)
    if strategy == "lowest_cost" and cost_of is None:
        msg = "lowest_cost needs cost_of: a function of a candidate's name and the request"
        raise ConfigError(msg)
    given = dict(weights or {})
    chain = checked(candidates, "balance", allowed_providers=allowed_providers, allowed_regions=allowed_regions)
    check_weights(given, [candidate.name for candidate in chain], zero=strategy == "weighted")
    return Balance(chain, strategy, given, cost_of, when)


def check_weights(weights: Mapping[str, float], names: Sequence[str], *, zero: bool) -> None:
    """Raise `ConfigError` for weights of unknown candidates, and for those that are no numbers above (or at) 0."""
    for name, weight in weights.items():
        if name not in names:
            msg = f"weights names {name!r}, which is no candidate: they are {', '.join(names)}"
            raise ConfigError(msg)
        if not (is_number(weight) and (weight > 0 or (zero and weight == 0))):
            msg = f"the weight of {name!r} is {weight!r}: give a number above 0"
            raise ConfigError(msg)
    if not is_number(sum(weights.values())):
        msg = f"the weights are too large to be added: {dict(weights)!r}"
        raise ConfigError(msg)
    if names and all(weights.get(name, 1.0) == 0 for name in names):
        msg = "all weights are 0: nobody would be asked"
        raise ConfigError(msg)
