"""The timeout middleware: what it states, and the total limit of an attempt, which it enforces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import anyio
import pytest

from loomstream.errors import DeadlineExceeded, Overloaded, RequestError
from loomstream.events import Event, Start, Stop, TextDelta, TextEnd, TextStart
from loomstream.messages import Timeouts
from loomstream.middleware.retry import retry
from loomstream.middleware.timeout import timeout
from loomstream.testing import Pause, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

ANSWER = text_events("ok")


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


Passed = Callable[[], float]


def model_of(*scripts: object, **limits: object) -> ScriptedModel:
    return scripted_model(*scripts, middleware=[timeout(**limits)])  # type: ignore[arg-type]


async def test_it_states_its_limits() -> None:
    model = model_of(ANSWER, connect_s=1, first_event_s=2, idle_s=None, whole_s=3, total_s=4)
    await model.complete("hi")
    stated = Timeouts(connect_s=1, first_event_s=2, idle_s=None, whole_s=3, total_s=4)
    assert model.requests[0].timeouts == stated


async def test_what_a_request_says_itself_wins() -> None:
    model = model_of(ANSWER, idle_s=5, first_event_s=5)
    await model.complete("hi", timeouts=Timeouts(idle_s=7))
    assert model.requests[0].timeouts == Timeouts(idle_s=7, first_event_s=5)


async def test_without_limits_it_is_not_there() -> None:
    async def handler(_: object) -> None: ...

    assert timeout()(handler) is handler  # type: ignore[arg-type, comparison-overlap]


@pytest.mark.parametrize("limit_s", [0, -1, float("nan")])
def test_what_is_no_limit_is_refused(limit_s: float) -> None:
    with pytest.raises(RequestError, match="total_s="):
        timeout(total_s=limit_s)


@pytest.mark.parametrize("where", [0, 1, 3])
async def test_the_total_limit_ends_an_attempt_wherever_it_is(where: int, passed_s: Passed) -> None:
    model = model_of([*ANSWER[:where], Pause(100), *ANSWER[where:]], total_s=20)
    with pytest.raises(DeadlineExceeded, match="the attempt took longer than 20 s in all"):
        await model.complete("hi")
    assert passed_s() == 20
    assert model.open_streams == 0


async def test_the_total_limit_is_that_of_each_attempt(passed_s: Passed) -> None:
    layers = [retry(max_retries=1), timeout(total_s=20)]
    slow = [Pause(15), Overloaded("busy", retry_after_s=10)]
    model = scripted_model(slow, [Pause(15), *ANSWER], middleware=layers)
    assert (await model.complete("hi")).text == "ok"
    assert passed_s() >= 40


async def test_the_request_s_own_total_limit_is_the_stream_s(passed_s: Passed) -> None:
    model = model_of([Pause(100), *ANSWER], total_s=20)
    with pytest.raises(DeadlineExceeded, match="the call took longer than 30 s"):
        await model.complete("hi", timeouts=Timeouts(total_s=30))
    assert passed_s() == 30


async def test_a_consumer_is_not_interrupted_but_told_at_its_next_read() -> None:
    async with model_of([*ANSWER[:3], Pause(1), *ANSWER[3:]], total_s=20).stream("hi") as stream:
        await anext(stream)
        await anyio.sleep(30)  # its own time: nothing happens to it
        with pytest.raises(DeadlineExceeded):
            async for _ in stream:
                pass


async def test_a_slow_consumer_trips_no_other_limit() -> None:
    async with model_of(ANSWER, first_event_s=1, idle_s=1).stream("hi") as stream:
        events: list[Event] = []
        async for event in stream:
            await anyio.sleep(100)
            events.append(event)
    assert events == ANSWER


async def test_a_healthy_stream_of_ten_minutes_survives(passed_s: Passed) -> None:
    beats = [item for _ in range(600) for item in (Pause(1), TextDelta(0, "a"))]
    script = [Start("p", "m"), TextStart(0), *beats, TextEnd(0), Stop("end_turn")]
    model = model_of(script, idle_s=2, first_event_s=2, total_s=700)
    assert (await model.complete("hi")).text == "a" * 600
    assert passed_s() == 600


async def test_a_cancelled_reader_stays_cancelled_and_leaves_nothing(passed_s: Passed) -> None:
    model = model_of([*ANSWER[:3], Pause(100), *ANSWER[3:]], total_s=50)
    with anyio.move_on_after(10) as scope:
        await model.complete("hi")
    assert scope.cancelled_caught
    assert passed_s() == 10
    assert model.open_streams == 0


@pytest.mark.parametrize("anyio_backend", virtual_clock_backends()[:1])
async def test_after_its_end_no_timer_is_left() -> None:
    for model in (model_of(ANSWER, total_s=1_000), model_of([Overloaded("busy")], total_s=1_000)):
        with suppress(Overloaded):
            await model.complete("hi")
    timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    assert [timer for timer in timers if not timer.cancelled()] == []
