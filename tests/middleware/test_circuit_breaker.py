"""The circuit breaker: when it opens, what counts, and how it closes again."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from loomstream.errors import (
    AuthFailed,
    CircuitOpen,
    ConfigError,
    LoomstreamError,
    Overloaded,
    RateLimited,
    ServerFault,
)
from loomstream.events import Start, TextDelta, TextStart
from loomstream.middleware.circuit_breaker import Circuit, circuit_breaker
from loomstream.testing import Pause, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

ANSWER = text_events("ok")
FAULT = [ServerFault("boom")]


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def model_of(circuit: Circuit, *scripts: Sequence[object]) -> ScriptedModel:
    return scripted_model(*scripts, middleware=[circuit_breaker(circuit)])  # type: ignore[arg-type]


async def outcome(model: ScriptedModel) -> str:
    try:
        await model.complete("hi")
    except LoomstreamError as error:
        return type(error).__name__
    return "ok"


async def test_it_opens_after_some_faults_and_sends_nothing() -> None:
    model = model_of(Circuit(3), FAULT)
    assert [await outcome(model) for _ in range(5)] == ["ServerFault"] * 3 + ["CircuitOpen"] * 2
    assert len(model.requests) == 3


async def test_the_error_says_when_it_is_tried_again() -> None:
    model = model_of(Circuit(1, open_s=20), FAULT)
    await outcome(model)
    await anyio.sleep(5)
    with pytest.raises(CircuitOpen, match="open after 1 failures: not sent; it is tried again in 15 s") as caught:
        await model.complete("hi")
    assert caught.value.retry_after_s == pytest.approx(15)
    assert caught.value.retry_safety == "yes"


async def test_a_probe_that_ends_well_closes_it() -> None:
    circuit = Circuit(1, open_s=10)
    model = model_of(circuit, FAULT, ANSWER)
    assert await outcome(model) == "ServerFault"
    assert circuit.state == "open"
    await anyio.sleep(10)
    assert circuit.state == "half_open"
    assert await outcome(model) == "ok"
    assert circuit.state == "closed"


async def test_a_probe_that_fails_opens_it_again() -> None:
    circuit = Circuit(2, open_s=10)
    model = model_of(circuit, FAULT)
    assert [await outcome(model) for _ in range(2)] == ["ServerFault"] * 2
    await anyio.sleep(10)
    assert [await outcome(model) for _ in range(2)] == ["ServerFault", "CircuitOpen"]


async def test_one_probe_at_a_time() -> None:
    model = model_of(Circuit(1, open_s=10), FAULT, [Pause(1), *ANSWER])
    await outcome(model)
    await anyio.sleep(10)
    found: list[str] = []

    async def call() -> None:
        found.append(await outcome(model))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(call)
    assert sorted(found) == ["CircuitOpen", "CircuitOpen", "ok"]


async def test_a_probe_that_is_still_being_read_holds_up_the_next_for_open_s_only() -> None:
    circuit = Circuit(1, open_s=10)
    model = model_of(circuit, FAULT, ANSWER)
    await outcome(model)
    await anyio.sleep(10)
    async with model.stream("hi") as dawdling:
        await dawdling.__anext__()
        await anyio.sleep(9)
        assert await outcome(model) == "CircuitOpen"
        await anyio.sleep(1)
        assert await outcome(model) == "ok"
        assert circuit.state == "closed"
        await dawdling.collect()
    assert await outcome(model) == "ok"


@pytest.mark.parametrize("kind", [AuthFailed, RateLimited])
async def test_what_is_not_the_provider_s_fault_does_not_count(kind: type[LoomstreamError]) -> None:
    circuit = Circuit(1)
    model = model_of(circuit, [kind("no")])
    await outcome(model)
    assert circuit.state == "closed"


async def test_a_consumer_that_leaves_does_not_count_and_frees_the_probe() -> None:
    circuit = Circuit(1, open_s=10)
    started = [Start("s", "m"), TextStart(0), TextDelta(0, "a"), Pause(5), Overloaded("x")]
    model = model_of(circuit, FAULT, started, ANSWER)
    await outcome(model)
    await anyio.sleep(10)
    async with model.stream("hi") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    assert circuit.state == "half_open"
    assert await outcome(model) == "ok"


async def test_faults_that_lie_far_apart_do_not_open_it() -> None:
    circuit = Circuit(2, window_s=10)
    model = model_of(circuit, FAULT)
    for _ in range(4):
        await outcome(model)
        await anyio.sleep(11)
    assert circuit.state == "closed"


@pytest.mark.parametrize("options", [{"failures": 0}, {"window_s": -1.0}, {"open_s": float("nan")}, {"probes": 0}])
def test_what_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"Circuit\({next(iter(options))}="):
        Circuit(**options)  # type: ignore[arg-type]


# --- against a small model of it ------------------------------------------------------------------


class Reference(RuleBasedStateMachine):
    """A list of what happened, read from its beginning each time, is the truth."""

    @initialize()
    def begin(self) -> None:
        self.now_s = 0.0
        self.circuit = Circuit(3, window_s=20, open_s=10, clock=lambda: self.now_s)
        self.opened_s: float | None = None
        self.faults_s: list[float] = []

    def state(self) -> str:
        if self.opened_s is None:
            return "closed"
        return "open" if self.now_s < self.opened_s + 10 else "half_open"

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(ended=st.sampled_from(["well", "fault", "neither"]))
    def call(self, ended: str) -> None:
        before = self.state()
        if before == "open":
            with pytest.raises(CircuitOpen):
                self.circuit.enter()
            return
        probe = self.circuit.enter()
        self.circuit.leave(probe=probe, ended=ended)  # type: ignore[arg-type]
        assert probe == (before == "half_open")
        if ended == "fault":
            self.faults_s.append(self.now_s)
            recent = [fault_s for fault_s in self.faults_s if self.now_s - fault_s <= 20]
            if probe or len(recent) >= 3:
                self.opened_s = self.now_s
        elif ended == "well" and probe:
            self.opened_s = None
            self.faults_s.clear()

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "circuit"):
            assert self.circuit.state == self.state()


TestReference = Reference.TestCase
TestReference.settings = settings(max_examples=50, deadline=None)
