"""Experiments: who is asked for which key, what copies do, and what the observer is told."""

from __future__ import annotations

import logging
from collections import Counter
from decimal import Decimal

import anyio
import pytest

from loomstream.errors import ConfigError, DeadlineExceeded, Overloaded, StreamCancelled, UsageError
from loomstream.events import Cost, Event, Start, TextDelta, Usage
from loomstream.handler import Handler
from loomstream.messages import Request, user
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.experiment import Outcome, Shadows, experiment, key_of_request, shadow, share_of
from loomstream.middleware.retry import retry
from loomstream.stream import Stream
from loomstream.testing import Pause, check_order, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel

pytestmark = pytest.mark.anyio


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def model(name: str, *before: object, pause_s: float = 0.0) -> ScriptedModel:
    return scripted_model([*before, Pause(pause_s), *text_events(name, "!", provider=name)])  # type: ignore[list-item]


def candidates(**models: ScriptedModel) -> list[Candidate]:
    return [Candidate(name, made.handler, name) for name, made in models.items()]


def asking(who: str = "", text: str = "hi") -> Request:
    return Request(messages=(user(text),), end_user_id=who)


def unpriced(provider: str, model: str, usage: Usage | None) -> Cost:  # noqa: ARG001 (its signature)
    return Cost(provider=provider, model=model)


async def run(handler: Handler, request: Request | None = None) -> list[Event]:
    async with Stream(handler, request or asking(), cost_of=unpriced) as stream:
        events = [event async for event in stream]
    check_order(events)
    return events


async def answered_by(handler: Handler, request: Request) -> str:
    return next(event.provider for event in await run(handler, request) if isinstance(event, Start))


# --- splitting -----------------------------------------------------------------------------------


async def test_a_key_always_goes_to_the_same_one() -> None:
    split = experiment(candidates(a=model("a"), b=model("b")))
    first = {who: await answered_by(split, asking(who)) for who in map(str, range(40))}
    again = {who: await answered_by(experiment(candidates(a=model("a"), b=model("b"))), asking(who)) for who in first}
    assert first == again
    assert set(first.values()) == {"a", "b"}


async def test_weights_are_shares_of_the_keys() -> None:
    split = experiment(candidates(a=model("a"), b=model("b"), c=model("c")), weights={"a": 3, "c": 0})
    found = Counter([await answered_by(split, asking(str(number))) for number in range(400)])
    assert found["c"] == 0
    assert 270 < found["a"] < 330


def test_the_split_is_the_same_in_every_process() -> None:
    assert share_of("", "user-1") == (0x019BA1CA038842F8 >> 11) / 2**53  # as sha256sum gives it
    assert share_of("other", "user-1") != share_of("", "user-1")


async def test_a_given_key_or_a_function_decides() -> None:
    names = {await answered_by(experiment(candidates(a=model("a"), b=model("b")), key=str(n)), asking()) for n in "123"}
    assert names == {"a", "b"}
    split = experiment(candidates(a=model("a"), b=model("b")), key=lambda request: request.messages[0].text)
    assert await answered_by(split, asking(text="1")) == await answered_by(split, asking("someone", text="1"))


def test_without_an_end_user_the_conversation_is_the_key() -> None:
    assert key_of_request(asking("ann")) == "ann"
    longer = Request(messages=(user("first"), user("second")))
    assert key_of_request(longer) == key_of_request(asking(text="first")) == "first"


async def test_the_observer_is_told_how_each_call_went() -> None:
    told: list[Outcome] = []
    first = scripted_model(
        [Pause(2), *text_events("x")[:3], Pause(3), *text_events("x")[3:]], [Pause(1), Overloaded("busy")]
    )
    split = experiment(candidates(a=first), observer=told.append, key="k")
    await run(split)
    with pytest.raises(Overloaded):
        await run(split)
    well, badly = told
    assert (well.name, well.key, well.first_event_s, well.total_s, well.whole, well.error) == (
        "a",
        "k",
        2,
        5,
        True,
        None,
    )
    assert well.usage == Usage(input_tokens=1, output_tokens=1, final=True)
    assert (badly.first_event_s, badly.total_s, badly.whole) == (None, 1, False)
    assert isinstance(badly.error, Overloaded)
    assert well.call != badly.call


async def test_the_cost_is_the_last_one_told_else_the_catalog_s() -> None:
    told: list[Outcome] = []
    paid = Cost(provider="p", model="m", amount_usd=Decimal(2))
    events = text_events("x")
    for script in ([*events[:-1], paid, events[-1]], events):
        arm = Candidate("a", scripted_model(script).handler, "ollama", "any")
        await run(experiment([arm], observer=told.append))
    assert told[0].cost == paid
    assert told[1].cost is not None
    assert told[1].cost.amount_usd == 0


async def test_a_consumer_that_leaves_is_no_error() -> None:
    told: list[Outcome] = []
    first = model("a")
    async with Stream(experiment(candidates(a=first), observer=told.append), asking(), cost_of=unpriced) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    assert (told[0].whole, told[0].error, first.open_streams) == (False, None, 0)


async def test_a_stream_that_is_never_read_is_no_outcome() -> None:
    told: list[Outcome] = []
    async with experiment(candidates(a=model("a")), observer=told.append)(asking()):
        pass
    assert told == []


async def test_an_observer_that_fails_is_logged_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def observer(outcome: Outcome) -> None:
        raise ZeroDivisionError(outcome.name)

    with caplog.at_level(logging.ERROR):
        assert await run(experiment(candidates(a=model("a")), observer=observer)) == text_events("a", "!", provider="a")
    assert "the observer of a failed" in caplog.text


# --- copies --------------------------------------------------------------------------------------


async def test_the_copy_runs_beside_and_ends_with_its_stream() -> None:
    told: list[Outcome] = []
    first, second = model("a", pause_s=2), model("b", pause_s=50)
    handler = shadow(candidates(a=first, b=second), observer=told.append)
    async with Stream(handler, asking(), cost_of=unpriced) as stream:
        assert isinstance(await anext(stream), Start)
        assert (first.open_streams, second.open_streams) == (1, 1)
        assert [event async for event in stream] == text_events("a", "!", provider="a")[1:]
        assert (first.open_streams, second.open_streams) == (0, 0)
    original, copy = told
    assert (original.name, original.shadow, original.whole) == ("a", False, True)
    assert (copy.name, copy.shadow, copy.whole, copy.call) == ("b", True, False, original.call)
    assert isinstance(copy.error, StreamCancelled)
    assert second.requests == first.requests


async def test_a_copy_is_compared_where_it_is_done_first() -> None:
    told: list[Outcome] = []
    await run(shadow(candidates(a=model("a", pause_s=9), b=model("b", pause_s=4)), observer=told.append))
    assert [(outcome.name, outcome.first_event_s, outcome.whole) for outcome in told] == [
        ("b", 4, True),
        ("a", 9, True),
    ]


@pytest.mark.parametrize("error", [Overloaded("busy"), ZeroDivisionError()])
async def test_a_copy_that_fails_touches_nobody(error: Exception) -> None:
    def broken(request: Request) -> object:  # noqa: ARG001 (a handler)
        raise error

    told: list[Outcome] = []
    pair = [*candidates(a=model("a", pause_s=1)), Candidate("b", broken)]  # type: ignore[arg-type]
    assert await run(shadow(pair, observer=told.append)) == text_events("a", "!", provider="a")
    assert told[0].error is error


async def test_an_owner_lets_copies_go_on() -> None:
    told: list[Outcome] = []
    slow = model("b", pause_s=5)
    async with Shadows(finish_s=10) as shadows:
        began_s = anyio.current_time()
        await run(shadow(candidates(a=model("a"), b=slow), observer=told.append, shadows=shadows))
        assert anyio.current_time() == began_s
        assert (shadows.running, slow.open_streams) == (1, 1)
    assert (shadows.running, slow.open_streams) == (0, 0)
    assert [(outcome.name, outcome.whole) for outcome in told] == [("a", True), ("b", True)]
    assert told[1].total_s == 5


async def test_an_owner_does_not_wait_for_ever() -> None:
    told: list[Outcome] = []
    slow = model("b", pause_s=50)
    async with Shadows(finish_s=10) as shadows:
        await run(shadow(candidates(a=model("a"), b=slow), observer=told.append, shadows=shadows))
        began_s = anyio.current_time()
    assert anyio.current_time() - began_s == 10
    assert slow.open_streams == 0
    assert isinstance(told[1].error, StreamCancelled)


async def test_a_copy_has_a_time_limit() -> None:
    told: list[Outcome] = []
    await run(shadow(candidates(a=model("a", pause_s=9), b=model("b", pause_s=50)), limit_s=3, observer=told.append))
    assert isinstance(told[0].error, DeadlineExceeded)
    assert told[0].total_s == 3


async def test_no_more_copies_run_than_allowed() -> None:
    slow = model("b", pause_s=50)
    async with Shadows(2, finish_s=0) as shadows:
        handler = shadow(candidates(a=model("a"), b=slow), shadows=shadows)
        for _ in range(5):
            await run(handler)
        await anyio.sleep(1)
        assert (shadows.running, shadows.skipped, slow.open_streams) == (2, 3, 2)
    assert slow.open_streams == 0


async def test_an_owner_that_is_not_open_is_refused() -> None:
    with pytest.raises(UsageError, match="not open"):
        await run(shadow(candidates(a=model("a"), b=model("b")), shadows=Shadows()))


async def test_a_share_of_the_calls_is_copied() -> None:
    second = model("b")
    handler = shadow(candidates(a=model("a", pause_s=1), b=second), share=0.0)
    await run(handler)
    assert second.requests == []


async def test_a_caller_that_is_cancelled_leaves_no_copy() -> None:
    first, second = model("a", pause_s=10), model("b", pause_s=10)
    with anyio.move_on_after(1) as scope:
        await run(shadow(candidates(a=first, b=second)))
    assert scope.cancelled_caught
    assert (first.open_streams, second.open_streams) == (0, 0)


async def test_a_retried_call_is_copied_again() -> None:
    first = scripted_model([Overloaded("busy")], text_events("a"))
    second = model("b")
    told: list[Outcome] = []
    await run(retry()(shadow(candidates(a=first, b=second), observer=told.append)))
    assert [outcome.name for outcome in told if not outcome.shadow] == ["a", "a"]
    assert len({outcome.call for outcome in told}) == 2


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "words"),
    [({"z": 1}, "weights names 'z'"), ({"a": -1}, "weight of 'a' is -1"), ({"a": 0, "b": 0}, "all")],
)
def test_weights_that_cannot_be_are_refused(weights: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        experiment(candidates(a=model("a"), b=model("b")), weights=weights)


def test_copies_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="shadow has 'a' alone"):
        shadow(candidates(a=model("a")))
    with pytest.raises(ConfigError, match=r"share=1\.5"):
        shadow(candidates(a=model("a"), b=model("b")), share=1.5)
    with pytest.raises(ConfigError, match="limit_s=0"):
        shadow(candidates(a=model("a"), b=model("b")), limit_s=0)
