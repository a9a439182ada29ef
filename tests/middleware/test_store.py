"""The store of one process against small reference models, and its lines."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from loomstream.errors import QueueFull
from loomstream.middleware.store import Account, Demand, Line, MemoryStore, Quota
from loomstream.testing.clock import virtual_clock_backends

REQUESTS = Quota(30.0, 4.0)
TOKENS = Quota(600.0, 100.0)


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def done(step: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 (whatever it gives)
    """Run a step, which must wait for nothing."""
    with pytest.raises(StopIteration) as caught:
        step.send(None)
    return caught.value.value


class Limiter(RuleBasedStateMachine):
    """The reference keeps what happened, and adds it up anew each second of a clock that counts whole seconds."""

    @initialize()
    def begin(self) -> None:
        self.now_s = 0
        self.store = MemoryStore(clock=lambda: float(self.now_s))
        self.levels = {"requests": 4.0, "tokens": 100.0}
        self.running: dict[str, float] = {}
        self.paused_s = -1
        self.count = 0

    def demand(self, tokens: float, permit: str) -> Demand:
        return Demand("k", permit, REQUESTS, TOKENS, tokens, concurrency=3)

    @rule(seconds=st.integers(1, 9))
    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1
            self.levels["requests"] = min(4.0, self.levels["requests"] + 0.5)
            self.levels["tokens"] = min(100.0, self.levels["tokens"] + 10.0)

    @rule(tokens=st.integers(0, 150))
    def take(self, tokens: int) -> None:
        self.count += 1
        permit = f"call {self.count}"
        missing = [
            max(0.0, 1 - self.levels["requests"]) / 0.5,
            max(0.0, min(tokens, 100) - self.levels["tokens"]) / 10,
            max(0.0, self.paused_s - self.now_s),
        ]
        wait_s = done(self.store.take(self.demand(tokens, permit)))
        if any(missing):
            assert wait_s == pytest.approx(max(missing))
        elif len(self.running) == 3:
            assert wait_s == float("inf")
        else:
            assert wait_s == 0
            self.running[permit] = tokens
            self.levels["requests"] -= 1
            self.levels["tokens"] -= tokens

    @precondition(lambda self: getattr(self, "running", None))
    @rule(data=st.data(), used=st.integers(0, 200), sent=st.booleans())
    def give_back(self, data: st.DataObject, used: int, sent: bool) -> None:  # noqa: FBT001 (hypothesis's call)
        permit = data.draw(st.sampled_from(sorted(self.running)))
        tokens = self.running.pop(permit)
        for _ in range(2):  # the second time changes nothing
            done(self.store.give_back(self.demand(tokens, permit), used, sent=sent))
        self.levels["requests"] = min(4.0, self.levels["requests"] + (not sent))
        self.levels["tokens"] = min(100.0, self.levels["tokens"] + tokens - used)

    @rule(requests=st.integers(0, 5), tokens=st.integers(0, 120), pause_s=st.integers(0, 5))
    def cap(self, requests: int, tokens: int, pause_s: int) -> None:
        done(self.store.cap(self.demand(0, ""), requests=requests, tokens=tokens, pause_s=pause_s))
        self.levels["requests"] = min(self.levels["requests"], requests)
        self.levels["tokens"] = min(self.levels["tokens"], tokens)
        if pause_s:
            self.paused_s = max(self.paused_s, self.now_s + pause_s)

    @invariant()
    def holds_what_runs(self) -> None:
        if hasattr(self, "store"):
            assert self.store._key("k").permits == set(self.running)


class Ledger(RuleBasedStateMachine):
    """The reference is a list of holders, summed up each time."""

    LIMIT = 1_000

    @initialize()
    def begin(self) -> None:
        self.store = MemoryStore(clock=lambda: 0.0)
        self.account = Account("a", self.LIMIT)
        self.spent = 0
        self.most = 0
        self.holders: dict[str, list[int]] = {}
        self.count = 0

    def left(self) -> int:
        return self.LIMIT - self.spent - sum(reserved for reserved, _ in self.holders.values())

    def peak(self) -> tuple[int, int]:
        before = self.most
        self.most = max(self.most, self.spent + sum(used for _, used in self.holders.values()))
        return before, self.most

    @rule(want=st.integers(1, 700), least=st.integers(1, 100))
    def reserve(self, want: int, least: int) -> None:
        self.count += 1
        granted = min(want, self.left())
        expected = granted if granted >= min(least, want) else 0
        assert done(self.store.reserve(self.account, f"h{self.count}", want, min(least, want))) == expected
        if expected:
            self.holders[f"h{self.count}"] = [expected, 0]

    @precondition(lambda self: getattr(self, "holders", None))
    @rule(data=st.data(), used=st.integers(0, 800), want=st.integers(0, 900))
    def spend(self, data: st.DataObject, used: int, want: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.holders)))
        holder = self.holders[name]
        holder[0] += min(max(0, want - holder[0]), max(0, self.left()))
        holder[1] = used
        assert done(self.store.spend(self.account, name, used, want)) == (holder[0], *self.peak())

    @precondition(lambda self: getattr(self, "holders", None))
    @rule(data=st.data(), share=st.floats(0, 1))
    def settle(self, data: st.DataObject, share: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.holders)))
        used = int(self.holders.pop(name)[0] * share)
        self.spent += used
        assert done(self.store.settle(self.account, name, used)) == (0, *self.peak())
        assert done(self.store.settle(self.account, name, used)) == (0, self.most, self.most)

    @invariant()
    def never_reserves_more_than_there_is(self) -> None:
        if hasattr(self, "store"):
            assert self.left() >= 0


TestLimiter = Limiter.TestCase
TestLimiter.settings = settings(max_examples=60, deadline=None)
TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=60, deadline=None)


@pytest.mark.anyio
async def test_who_waits_is_woken_and_does_not_look_again_and_again() -> None:
    line, asked = Line(), 0
    free = False

    async def take() -> float:
        nonlocal asked
        asked += 1
        return 0.0 if free else float("inf")

    async with anyio.create_task_group() as group:
        place = line.join(1)

        async def wait() -> None:
            assert await line.admit(place, take, wait_s=1e6, give_up_s=1e6) == 0
            line.leave(place)

        group.start_soon(wait)
        await anyio.sleep(1_000)
        assert asked == 1
        free = True
        line.wake()
    assert asked == 2
    assert len(line) == 0


@pytest.mark.anyio
async def test_a_full_line_takes_nobody() -> None:
    line = Line()
    line.join(1)
    with pytest.raises(QueueFull):
        line.join(1)


def test_a_period_that_is_over_is_forgotten() -> None:
    now_s = 0.0
    store = MemoryStore(clock=lambda: now_s)
    done(store.reserve(Account("monday", 10, 60), "h", 5, 1))
    now_s = 61.0
    done(store.reserve(Account("tuesday", 10, 60), "h", 5, 1))
    assert list(store._ledgers) == ["tuesday"]
