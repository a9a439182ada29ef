"""The nesting law: any composition of middleware and combinators obeys the order law, closes everything on exit, and
calls inner handlers as often as its parts say."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Protocol

import anyio
import anyio.lowlevel
import pytest
import tenacity
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.catalog import Entry, Price
from loomstream.errors import BadRequest, ConnectionLost, LoomstreamError, Overloaded, StreamTruncated
from loomstream.events import Cost, Event, Start, TextDelta, TextStart, Usage
from loomstream.handler import Handler, Middleware, compose, stage
from loomstream.messages import Request, user
from loomstream.middleware.balance import balance
from loomstream.middleware.budget import budget
from loomstream.middleware.cache import cache
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.circuit_breaker import Circuit, circuit_breaker
from loomstream.middleware.cost import cost
from loomstream.middleware.experiment import experiment, shadow
from loomstream.middleware.failover import NOT_ELSEWHERE, failover
from loomstream.middleware.hedge import hedge
from loomstream.middleware.rate_limit import rate_limit
from loomstream.middleware.resume import MAX_RESUMES
from loomstream.middleware.retry import RetryBudget, retry
from loomstream.middleware.route import route
from loomstream.middleware.smooth import smooth
from loomstream.middleware.tap import tap
from loomstream.middleware.timeout import timeout
from loomstream.stream import Stream
from loomstream.telemetry.audit import audit
from loomstream.telemetry.calls import Requested, Watcher, watched
from loomstream.testing import check_order, scripted_model, text_events, tool_call_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel

BACKENDS = [name for name, _ in virtual_clock_backends()]
BEGUN: list[Event] = [Start("p", "m"), Usage(input_tokens=3), TextStart(0)]
SCRIPTS: dict[str, list[Event | LoomstreamError]] = {
    "text": [*text_events("Hel", "lo", " there")],
    "tool call": [*tool_call_events("f", '{"a":', " 1}")],
    "busy": [Overloaded("busy")],
    "refused": [BadRequest("no")],
    "lost before content": [*BEGUN, ConnectionLost("gone")],
    "no stop": [*BEGUN[:2]],
    "lost after content": [*BEGUN, TextDelta(0, "Hel"), ConnectionLost("gone")],
}
ENDS: dict[str, tuple[type[LoomstreamError] | None, bool]] = {
    "text": (None, True),
    "tool call": (None, True),
    "busy": (Overloaded, False),
    "refused": (BadRequest, False),
    "lost before content": (ConnectionLost, False),
    "no stop": (StreamTruncated, False),
    "lost after content": (ConnectionLost, True),
}
"""The error that a script ends in, and whether there was content."""

End = tuple[type[LoomstreamError] | None, bool]


class Part(Protocol):
    """A handler, and what is expected of it."""

    handler: Handler
    leaves: list[ScriptedModel]

    def call(self) -> End:
        """Give how one more call ends, and count the calls of leaves."""
        ...


class Leaf:
    def __init__(self, name: str) -> None:
        self.name = name
        self.model = scripted_model(SCRIPTS[name])
        self.leaves = [self.model]
        self.handler = self.model.handler
        self.expected = 0

    def call(self) -> End:
        self.expected += 1
        return ENDS[self.name]


# --- middleware ----------------------------------------------------------------------------------

PASSING: dict[str, Callable[[], Middleware]] = {
    "cost": lambda: cost("ollama", "m"),
    "timeout": lambda: timeout(idle_s=50, total_s=100),
    "rate_limit": lambda: rate_limit(concurrency=8),
    "circuit_breaker": lambda: circuit_breaker(Circuit(1000)),
    "budget": lambda: budget(limit_tokens=1_000_000),
    "cache": lambda: cache("p", "m"),
    "smooth": smooth,
    "tap": lambda: tap(lambda _: None),
    "telemetry": lambda: watched("nobody", Watcher, Requested()),
    "stage": lambda: stage(lambda _: lambda event: (event,)),
}
"""What calls its handler once for each call."""


class Wrapped:
    def __init__(self, name: str, inner: Part) -> None:
        self.inner = inner
        self.leaves = inner.leaves
        self.handler = PASSING[name]()(inner.handler)

    def call(self) -> End:
        return self.inner.call()


class Retried:
    def __init__(self, retries: int, *, restart: bool, inner: Part) -> None:
        self.inner = inner
        self.retries = retries
        self.leaves = inner.leaves
        self.restarts = MAX_RESUMES if restart else 0
        again = retry(
            retries,
            wait=tenacity.wait_none(),
            budget=RetryBudget(free=100_000),
            resume="restart" if restart else "off",
        )
        self.handler = again(inner.handler)

    def call(self) -> End:
        for _ in range(self.restarts + 1):
            end = self.tries()
            if not (end[1] and end[0] and end[0].default_retry_safety != "no"):
                break
        return end

    def tries(self) -> End:
        for _ in range(self.retries + 1):
            error, begun = end = self.inner.call()
            if error is None or begun or error.default_retry_safety == "no":
                break
        return end


# --- combinators ---------------------------------------------------------------------------------


def priced(dollars: int) -> Entry:
    return Entry(
        provider="p",
        model="m",
        context_tokens=None,
        max_output_tokens=None,
        streaming=True,
        tools="native",
        price=Price(input=Decimal(dollars), output=Decimal(dollars)),
        as_of=date(2026, 1, 1),
        source="here",
    )


def routed(chain: Sequence[Candidate]) -> Handler:
    return route(chain, entries={candidate.name: priced(int(candidate.name) + 1) for candidate in chain})


CHAINS: dict[str, Callable[[Sequence[Candidate]], Handler]] = {
    "failover": failover,
    "balance": balance,
    "hedge": partial(hedge, delay_s=10_000),
    "route": routed,
}
"""What asks one after the other, from the first on."""


class Chain:
    def __init__(self, name: str, inner: Sequence[Part]) -> None:
        self.name = name
        self.inner = inner
        self.leaves = [leaf for part in inner for leaf in part.leaves]
        self.turn = 0
        self.handler = CHAINS[name]([Candidate(str(at), part.handler) for at, part in enumerate(inner)])

    def call(self) -> End:
        first = self.turn % len(self.inner) if self.name == "balance" else 0
        self.turn += 1
        for part in [*self.inner[first:], *self.inner[:first]]:
            error, begun = end = part.call()
            if error is None or begun or issubclass(error, NOT_ELSEWHERE):
                break
        return end


class Split:
    def __init__(self, chosen: int, inner: Sequence[Part]) -> None:
        self.chosen = inner[chosen % len(inner)]
        self.leaves = [leaf for part in inner for leaf in part.leaves]
        names = [str(at) for at in range(len(inner))]
        weights = {name: float(int(name) == chosen % len(inner)) for name in names}
        candidates = [Candidate(name, part.handler) for name, part in zip(names, inner, strict=True)]
        self.handler = experiment(candidates, weights=weights)

    def call(self) -> End:
        return self.chosen.call()


class Shadowed:
    """Its copies may be asked, at most once for each call."""

    def __init__(self, first: Part, copied: Leaf) -> None:
        self.first = first
        self.leaves = [*first.leaves, copied.model]
        self.handler = shadow([Candidate("a", first.handler), Candidate("b", copied.handler)])

    def call(self) -> End:
        return self.first.call()


@st.composite
def parts(draw: st.DrawFn, depth: int = 3) -> tuple[Part, list[Leaf]]:
    """Give a random composition, and the leaves whose calls can be foretold."""
    kinds = (
        ("leaf",) if depth == 0 else ("leaf", "wrapped", "wrapped", "retried", "chain", "chain", "split", "shadowed")
    )
    kind = draw(st.sampled_from(kinds))
    if kind == "leaf":
        leaf = Leaf(draw(st.sampled_from(list(SCRIPTS))))
        return leaf, [leaf]
    count = draw(st.integers(1, 3)) if kind in {"chain", "split"} else 1
    inner = [draw(parts(depth=depth - 1)) for _ in range(count)]
    handled = [part for part, _ in inner]
    counted = [leaf for _, leaves in inner for leaf in leaves]
    if kind == "wrapped":
        return Wrapped(draw(st.sampled_from(list(PASSING))), handled[0]), counted
    if kind == "retried":
        return Retried(draw(st.integers(0, 2)), restart=draw(st.booleans()), inner=handled[0]), counted
    if kind == "chain":
        return Chain(draw(st.sampled_from(list(CHAINS))), handled), counted
    if kind == "split":
        return Split(draw(st.integers(0, 2)), handled), counted
    return Shadowed(handled[0], Leaf(draw(st.sampled_from(list(SCRIPTS))))), counted


# --- running -------------------------------------------------------------------------------------


def unpriced(provider: str, model: str, usage: Usage | None) -> Cost:  # noqa: ARG001 (its signature)
    return Cost(provider=provider, model=model)


def asking(text: str) -> Request:
    return Request(messages=(user(text),))


async def read(handler: Handler, text: str, most: int | None = None) -> tuple[list[Event], LoomstreamError | None]:
    events: list[Event] = []
    async with Stream(handler, asking(text), cost_of=unpriced) as stream:
        try:
            async for event in stream:
                events.append(event)
                if len(events) == most:
                    break
        except LoomstreamError as error:
            return events, error
    return events, None


def on_virtual_clock(backend: str, function: Callable[[], Awaitable[None]]) -> None:
    options = dict(virtual_clock_backends())[backend]
    anyio.run(function, backend=backend, backend_options=dict(options))


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=150, deadline=None)
@given(made=parts(), calls=st.integers(1, 3))
def test_any_composition_keeps_the_law(backend: str, made: tuple[Part, list[Leaf]], calls: int) -> None:
    part, counted = made

    async def check() -> None:
        for number in range(calls):
            asked = {id(leaf): (leaf.expected, len(leaf.model.requests)) for leaf in counted}
            expected, begun = part.call()
            events, error = await read(part.handler, str(number))
            assert (type(error) if error else None) is expected
            assert any(isinstance(event, TextDelta) for event in events) or not error or not begun
            check_order(events, complete=error is None)
            assert [leaf.open_streams for leaf in part.leaves] == [0] * len(part.leaves)
            for leaf in counted:
                before, seen = asked[id(leaf)]
                assert len(leaf.model.requests) - seen == leaf.expected - before, leaf.name

    on_virtual_clock(backend, check)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=100, deadline=None)
@given(made=parts(), most=st.integers(1, 8))
def test_a_consumer_that_leaves_closes_everything(backend: str, made: tuple[Part, list[Leaf]], most: int) -> None:
    part, _ = made

    async def check() -> None:
        await read(part.handler, "hi", most)
        assert [leaf.open_streams for leaf in part.leaves] == [0] * len(part.leaves)

    on_virtual_clock(backend, check)


# --- cancellation --------------------------------------------------------------------------------


def full_stack() -> tuple[Handler, list[ScriptedModel]]:
    """Give everything at once, with one permit for all: one that leaks stops the next call."""
    leaves = [scripted_model(SCRIPTS[name]) for name in ("busy", "lost before content", "busy", "text", "text", "text")]
    busy, lost, slow, hedged, copied, last = (Candidate(str(at), leaf.handler) for at, leaf in enumerate(leaves))
    inner = failover(
        [
            Candidate("balance", balance([busy, lost])),
            Candidate("hedge", hedge([slow, hedged], delay_s=10_000)),
            last,
        ]
    )
    arms = [Candidate("shadow", shadow([Candidate("inner", inner), copied]))]
    layers = [
        audit(os.devnull),
        cost("ollama", "m"),
        cache("p", "m"),
        smooth(),
        tap(lambda _: None),
        retry(1, wait=tenacity.wait_none()),
        rate_limit(concurrency=1),
        budget(limit_tokens=1_000_000),
        circuit_breaker(Circuit(1000)),
        timeout(total_s=100),
        stage(lambda _: lambda event: (event,)),
    ]
    return compose(routed([Candidate("0", compose(experiment(arms), *layers))]), cost("ollama", "m")), leaves


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cancellation_at_any_point_leaves_nothing_open(backend: str) -> None:
    found: Counter[str] = Counter()

    async def cancelled_after(steps: int) -> bool:
        """Cancel a call after so many turns of the event loop; say whether it had ended before."""
        handler, leaves = full_stack()
        ended = False

        async def call() -> None:
            nonlocal ended
            with scope:
                await read(handler, "hi")
                ended = True

        scope = anyio.CancelScope()
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            found["open"] += any(leaf.open_streams for leaf in leaves)
            scope.cancel()
        assert [leaf.open_streams for leaf in leaves] == [0] * len(leaves)
        events, error = await read(handler, "another")
        assert error is None
        check_order(events)
        return ended

    async def check() -> None:
        steps = 0
        while not await cancelled_after(steps):
            steps += 1
            assert steps < 2_000
        assert found["open"] > 10

    on_virtual_clock(backend, check)
