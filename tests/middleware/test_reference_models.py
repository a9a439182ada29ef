"""The retry bucket and the balancer against small reference models, by random histories.

Limiter and budget stand in `test_store.py`, the breaker in `test_circuit_breaker.py`, the cache in `test_cache.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from fractions import Fraction

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from loomstream.events import Event, Start, TextDelta, TextStart
from loomstream.messages import Request, user
from loomstream.middleware.balance import Strategy, balance
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.retry import RetryBudget
from loomstream.testing.clock import VirtualClockLoop

QUICK = settings(max_examples=60, stateful_step_count=30, deadline=None)


class RetryBucket(RuleBasedStateMachine):
    """Exact fractions, and the promise itself: never more retries than `ratio` a call, and the free ones."""

    @initialize(ratio=st.sampled_from([0.0, 0.125, 0.25, 1.0, 2.5]), free=st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0]))
    def begin(self, ratio: float, free: float) -> None:
        self.budget = RetryBudget(ratio, free)
        self.ratio, self.most, self.left = Fraction(ratio), max(Fraction(free), Fraction(1)), Fraction(free)
        self.free = Fraction(free)
        self.calls = self.taken = 0

    @rule(calls=st.integers(1, 20))
    def call(self, calls: int) -> None:
        for _ in range(calls):
            self.budget.call()
            self.left = min(self.left + self.ratio, self.most)
        self.calls += calls

    @rule(times=st.integers(1, 5))
    def take(self, times: int) -> None:
        for _ in range(times):
            expected = self.left >= 1
            assert self.budget.take() is expected
            self.left -= expected
            self.taken += expected

    @invariant()
    def is_as_reckoned(self) -> None:
        assert self.budget.left == self.left >= 0
        assert self.taken <= self.free + self.ratio * self.calls


TestRetryBucket = pytest.mark.timeout(30)(RetryBucket.TestCase)
TestRetryBucket.settings = QUICK


# --- balance -------------------------------------------------------------------------------------

NAMES = ("a", "b", "c")
REQUEST = Request(messages=(user("hi"),))


class Host:
    """Says that it was asked, after the delay that is set, and stays open until it is left."""

    def __init__(self, name: str, asked: list[str], delays_s: dict[str, float]) -> None:
        self.name = name
        self.asked = asked
        self.delays_s = delays_s
        self.open = 0

    @asynccontextmanager
    async def __call__(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        assert request is REQUEST
        self.asked.append(self.name)
        self.open += 1
        try:
            async with aclosing(self._events()) as events:
                yield events
        finally:
            self.open -= 1

    async def _events(self) -> AsyncGenerator[Event]:
        yield Start("p", self.name)
        yield TextStart(0)
        await anyio.sleep(self.delays_s[self.name])
        for _ in range(100):
            yield TextDelta(0, "x")


class Balancer(RuleBasedStateMachine):
    """Calls that open, are read, and are left, one event loop step at a time."""

    @initialize(strategy=st.sampled_from(["round_robin", "weighted", "least_busy", "lowest_latency"]),
                weights=st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=3, max_size=3))  # fmt: skip
    def begin(self, strategy: Strategy, weights: list[float]) -> None:
        self.strategy = strategy
        self.weights = dict(zip(NAMES, weights, strict=True))
        self.asked: list[str] = []
        self.delays_s = dict.fromkeys(NAMES, 1.0)
        self.hosts = {name: Host(name, self.asked, self.delays_s) for name in NAMES}
        candidates = [Candidate(name, host) for name, host in self.hosts.items()]
        self.balance = balance(candidates, strategy, weights=self.weights)
        self.loop = VirtualClockLoop()
        self.open: list[tuple[str, AbstractAsyncContextManager[AsyncIterator[Event]], AsyncIterator[Event]]] = []
        self.latency_s: dict[str, float] = {}
        self.measured_s: dict[str, float] = {}
        self.given: Counter[str] = Counter()
        self.turn = 0

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            while self.open:
                self.leave(0)
            assert all(host.open == 0 for host in self.hosts.values())
            self.loop.close()

    def expected(self) -> set[str]:
        """Give who may be asked now, by the plain meaning of the strategy."""
        busy = {name: (self.hosts[name].open + 1) / self.weights[name] for name in NAMES}
        measures = {
            "round_robin": {name: float(name != NAMES[self.turn % 3]) for name in NAMES},
            "weighted": {name: (self.given[name] + 1) / self.weights[name] for name in NAMES},
            "least_busy": busy,
            "lowest_latency": {name: self.latency_s[name] if self._is_recent(name) else 0.0 for name in NAMES},
        }
        by_name = measures[self.strategy]
        if self.strategy == "weighted":  # smooth: nobody is more than one call ahead of, or behind, its share
            share = {name: self.weights[name] / sum(self.weights.values()) * (self.turn + 1) for name in NAMES}
            return {name for name in NAMES if self.given[name] + 1 < share[name] + 1}
        return {name for name in NAMES if by_name[name] == min(by_name.values())}

    @rule()
    @precondition(lambda self: len(self.open) < 8)
    def call(self) -> None:
        allowed = self.expected()
        context, events = self.loop.run_until_complete(self._entered())
        began_s = self.loop.time()
        self.loop.run_until_complete(self._first_text(events))
        name = self.asked[-1]
        assert name in allowed
        took_s = self.loop.time() - began_s
        known_s = self.latency_s[name] if self._is_recent(name) else took_s
        self.latency_s[name] = known_s + 0.3 * (took_s - known_s)
        self.measured_s[name] = self.loop.time()
        self.given[name] += 1
        self.turn += 1
        self.open.append((name, context, events))

    async def _entered(self) -> tuple[AbstractAsyncContextManager[AsyncIterator[Event]], AsyncIterator[Event]]:
        context = self.balance(REQUEST)
        return context, await context.__aenter__()

    def _is_recent(self, name: str) -> bool:
        return name in self.measured_s and self.loop.time() - self.measured_s[name] <= 300

    async def _first_text(self, events: AsyncIterator[Event]) -> None:
        async for event in events:
            if isinstance(event, TextDelta):
                return

    @rule(at=st.integers(0, 7))
    @precondition(lambda self: bool(self.open))
    def leave(self, at: int) -> None:
        _, context, _ = self.open.pop(at % len(self.open))
        self.loop.run_until_complete(context.__aexit__(None, None, None))

    @rule(name=st.sampled_from(NAMES), delay_s=st.sampled_from([0.5, 1.0, 4.0, 290.0]))
    def slow_down(self, name: str, delay_s: float) -> None:
        self.delays_s[name] = delay_s

    @invariant()
    def knows_its_load(self) -> None:
        if not hasattr(self, "balance"):
            return
        for name, host in self.hosts.items():
            load = self.balance.load(name)
            assert load.open_calls == host.open == sum(each == name for each, _, _ in self.open)
            assert load.first_event_s == pytest.approx(self.latency_s.get(name))


TestBalancer = pytest.mark.timeout(30)(Balancer.TestCase)
TestBalancer.settings = QUICK
