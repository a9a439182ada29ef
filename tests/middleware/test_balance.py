"""Balance: who is asked first under each strategy, and who follows where that one fails."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomstream.errors import Attempt, BadRequest, ConfigError, Overloaded
from loomstream.events import Event, Notice, Start, TextDelta
from loomstream.messages import Request
from loomstream.middleware.balance import Balance, balance
from loomstream.middleware.candidates import Candidate
from loomstream.testing import Pause, check_order, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends

pytestmark = pytest.mark.anyio

REQUEST = Request(messages=())


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def candidate(name: str, *before: object, pause_s: float = 0.0) -> Candidate:
    script = [*before, Pause(pause_s), *text_events(name, provider=name)]
    return Candidate(name, scripted_model(script).handler)  # type: ignore[list-item]


async def asked(spread: Balance) -> str:
    """Make a call, give who answered."""
    async with spread(REQUEST) as stream:
        events: list[Event] = [event async for event in stream]
    check_order(events)
    return next(event.provider for event in events if isinstance(event, Start))


async def test_they_take_turns() -> None:
    spread = balance([candidate(name) for name in "abc"])
    assert [await asked(spread) for _ in range(7)] == list("abcabca")


async def test_weights_are_kept_smoothly() -> None:
    spread = balance([candidate(name) for name in "abc"], "weighted", weights={"a": 3, "b": 1, "c": 0})
    assert [await asked(spread) for _ in range(8)] == list("aabaaaba")


async def test_the_least_busy_one_is_asked() -> None:
    spread = balance([candidate("a", pause_s=5), candidate("b", pause_s=1)], "least_busy")
    found: list[str] = []

    async def call() -> None:
        found.append(await asked(spread))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        group.start_soon(call)
        await anyio.sleep(2)
        assert (spread.load("a").open_calls, spread.load("b").open_calls) == (1, 0)
        assert await asked(spread) == "b"
    assert sorted(found) == ["a", "b"]
    assert spread.load("a").open_calls == 0


async def test_the_one_that_began_soonest_lately_is_asked() -> None:
    spread = balance([candidate("slow", pause_s=2), candidate("fast", pause_s=1)], "lowest_latency")
    assert [await asked(spread) for _ in range(5)] == ["slow", "fast", "fast", "fast", "fast"]
    assert spread.load("slow").first_event_s == pytest.approx(2)


async def test_the_cheapest_one_is_asked_and_an_unknown_price_comes_last() -> None:
    costs = {"a": None, "b": Decimal("0.2"), "c": Decimal("0.1")}
    spread = balance(
        [candidate("a"), candidate("b"), candidate("c", Overloaded("busy"))],
        "lowest_cost",
        cost_of=lambda name, _: costs[name],
    )
    assert await asked(spread) == "b"


async def test_the_others_follow_where_it_fails() -> None:
    spread = balance([candidate("a", Overloaded("busy")), candidate("b")])
    async with spread(REQUEST) as stream:
        events = [event async for event in stream]
    assert events[0] == Notice(
        "failover", "a failed (Overloaded: busy); b is asked", attempt=Attempt("", "", "Overloaded")
    )
    assert spread.load("a").open_calls == 0
    refusing = balance([candidate("a", BadRequest("no")), candidate("b")])
    with pytest.raises(BadRequest):
        await asked(refusing)


async def test_a_consumer_that_leaves_closes_its_call() -> None:
    spread = balance([candidate("a")])
    async with spread(REQUEST) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    assert spread.load("a").open_calls == 0


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5), min_size=1))
async def test_over_a_round_each_gets_its_weight(weights: dict[str, int]) -> None:
    spread = balance([candidate(name) for name in weights], "weighted", weights=weights)
    assert Counter([await asked(spread) for _ in range(sum(weights.values()))]) == weights


@pytest.mark.parametrize(
    ("names", "options", "what"),
    [
        ("", {}, "balance has no candidates"),
        ("aa", {}, "two candidates called 'a'"),
        ("a", {"strategy": "fastest"}, "strategy='fastest': known are round_robin"),
        ("a", {"weights": {"b": 1}}, "weights names 'b', which is no candidate: they are a"),
        ("a", {"weights": {"a": 0}}, "weight of 'a' is 0"),
        ("ab", {"strategy": "weighted", "weights": {"a": 0, "b": 0}}, "all weights are 0"),
        ("a", {"strategy": "lowest_cost"}, "lowest_cost needs cost_of"),
    ],
)
def test_what_cannot_be_is_refused(names: str, options: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        balance([candidate(name) for name in names], **options)  # type: ignore[arg-type]
