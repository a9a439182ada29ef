"""Retry: what is sent again, when, how often, and what the consumer sees of it."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
import tenacity

from loomstream.errors import (
    AuthFailed,
    BadRequest,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    LoomstreamError,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    StreamTruncated,
)
from loomstream.events import Event, Notice, Start, TextDelta, TextStart, Usage
from loomstream.messages import Timeouts
from loomstream.middleware.retry import RetryBudget, retry
from loomstream.testing import Pause, check_order, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends

pytestmark = pytest.mark.anyio

ANSWER = text_events("Hel", "lo")
HEAD: list[Event] = [Start("scripted", "m"), Usage(input_tokens=3), TextStart(0)]
FIXED = tenacity.wait_fixed(1)


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


Passed = Callable[[], float]


def overloaded(retry_after_s: float | None = None) -> LoomstreamError:
    return Overloaded("busy", provider="scripted", model="m", retry_after_s=retry_after_s)


async def run(*scripts: object, timeouts: Timeouts | None = None, **options: object) -> tuple[list[Event], object]:
    middleware = retry(**{"wait": FIXED, **options})  # type: ignore[arg-type]
    model = scripted_model(*scripts, middleware=[middleware])  # type: ignore[arg-type]
    events: list[Event] = []
    async with model.stream("hi", timeouts=timeouts or Timeouts()) as stream:
        try:
            async for event in stream:
                events.append(event)  # noqa: PERF401 (what came before an error counts)
        except LoomstreamError as error:
            return events, error
    assert model.open_streams == 0
    return events, model


async def test_a_failed_try_is_made_again_and_told(passed_s: Passed) -> None:
    events, model = await run([overloaded()], ANSWER)
    assert [event.kind for event in events if isinstance(event, Notice)] == ["retry"]
    assert "try 1 failed (Overloaded: busy); the next one in 1 s" in events[0].detail  # type: ignore[union-attr]
    assert events[1:] == ANSWER
    check_order(events)
    assert passed_s() == 1.0
    assert len(model.requests) == 2  # type: ignore[attr-defined]


async def test_what_came_without_content_is_dropped_with_its_try() -> None:
    events, _ = await run([*HEAD, ConnectionLost("gone")], ANSWER)
    assert [event for event in events if not isinstance(event, Notice)] == ANSWER


async def test_after_the_first_content_the_error_is_the_consumer_s() -> None:
    events, error = await run([*HEAD, TextDelta(0, "a"), ConnectionLost("gone")], ANSWER)
    assert events[-1] == TextDelta(0, "a")
    assert isinstance(error, ConnectionLost)
    assert error.committed
    assert [attempt.outcome for attempt in error.attempts] == ["ConnectionLost"]


@pytest.mark.parametrize("kind", [AuthFailed, BadRequest, ModelNotFound, QuotaExhausted])
async def test_what_would_fail_again_is_not_sent_again(kind: type[LoomstreamError], passed_s: Passed) -> None:
    events, error = await run([kind("no")], ANSWER)
    assert events == []
    assert isinstance(error, kind)
    assert passed_s() == 0.0


async def test_all_tries_stand_in_the_error() -> None:
    events, error = await run([ConnectFailed("a")], [overloaded(2.0)], [RateLimited("b")], ANSWER)
    assert [event.kind for event in events if isinstance(event, Notice)] == ["retry", "retry"]
    assert [attempt.outcome for attempt in error.attempts] == ["ConnectFailed", "Overloaded", "RateLimited"]  # type: ignore[attr-defined]
    assert error.attempts[1].retry_after_s == 2.0  # type: ignore[attr-defined]


async def test_no_retries_are_none() -> None:
    events, error = await run([overloaded()], ANSWER, max_retries=0)
    assert (events, type(error)) == ([], Overloaded)


async def test_what_the_provider_asks_for_is_the_least_wait(passed_s: Passed) -> None:
    await run([overloaded(7.5)], ANSWER)
    assert passed_s() == 7.5


async def test_a_wait_that_is_too_long_is_not_begun(passed_s: Passed) -> None:
    _, error = await run([overloaded(3600.0)], ANSWER)
    assert passed_s() == 0.0
    assert "3600 s is longer than longest_wait_s" in error.__notes__[0]  # type: ignore[attr-defined]


async def test_a_wait_never_passes_the_deadline(passed_s: Passed) -> None:
    _, error = await run([Pause(4), overloaded(2.0)], ANSWER, timeouts=Timeouts(total_s=5))
    assert isinstance(error, Overloaded)
    assert passed_s() == 4.0
    assert "the limit of 5 s in all would be over" in error.__notes__[0]


async def test_stops_are_tenacity_s(passed_s: Passed) -> None:
    _, error = await run([Pause(3), overloaded()], ANSWER, stop=tenacity.stop_after_delay(2))
    assert isinstance(error, Overloaded)
    assert passed_s() == 3.0


async def test_the_waits_have_full_jitter() -> None:
    waits: set[float] = set()
    for _ in range(8):
        before_s = anyio.current_time()
        await run([overloaded()], ANSWER, wait=None)
        waits.add(anyio.current_time() - before_s)
    assert len(waits) == 8
    assert all(0 <= wait_s <= 0.5 for wait_s in waits)


@pytest.mark.parametrize(
    ("backoff_s", "least_s", "most_s"),
    [(2.0, 76, 310), (30.0, 330, 1_200), (0.0, 0, 0)],  # 40 waits, half of the longest each: 155 s, 600 s, none
)
async def test_waits_double_up_to_8_s_or_the_first_one(
    backoff_s: float, least_s: float, most_s: float, passed_s: Passed
) -> None:
    budget = RetryBudget(free=40)
    _, error = await run([overloaded()], wait=None, backoff_s=backoff_s, max_retries=40, budget=budget)
    assert len(error.attempts) == 41  # type: ignore[attr-defined]
    assert least_s <= passed_s() <= most_s


@pytest.mark.parametrize(
    ("body", "tries"), [({}, 2), ({"store": False}, 2), ({"store": True}, 1), ({"background": 1}, 1)]
)
async def test_what_leaves_something_behind_is_sent_again_only_where_safe(body: dict[str, object], tries: int) -> None:
    model = scripted_model([ConnectionLost("x")], ANSWER, middleware=[retry(wait=FIXED)], extra_body=body)
    try:
        await model.complete("hi")
    except ConnectionLost:
        assert tries == 1
    assert len(model.requests) == tries


async def test_an_empty_stream_is_no_answer() -> None:
    events, error = await run([Start("scripted", "m")], [Start("scripted", "m")], [Start("scripted", "m")])
    assert isinstance(error, StreamTruncated)
    assert [event.kind for event in events if isinstance(event, Notice)] == ["retry", "retry"]


# --- the budget ----------------------------------------------------------------------------------


async def test_an_outage_is_not_amplified() -> None:
    """1,000 calls that all fail send at most 1.2 requests each."""
    model = scripted_model([overloaded()], middleware=[retry(wait=tenacity.wait_none())])

    async def call() -> None:
        with pytest.raises(Overloaded):
            await model.complete("hi")

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(call)
    assert 1000 < len(model.requests) <= 1200


async def test_one_budget_can_serve_several_models() -> None:
    budget = RetryBudget(ratio=0.0, free=1.0)
    for expected in (2, 1):
        model = scripted_model([overloaded()], ANSWER, middleware=[retry(wait=FIXED, budget=budget)])
        try:
            await model.complete("hi")
        except Overloaded as error:
            assert expected == 1
            assert "budget is spent" in error.__notes__[0]  # noqa: PT017 (only the second one fails)
        assert len(model.requests) == expected
    assert budget.left == 0.0


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"max_retries": -1}, "max_retries=-1"),
        ({"longest_wait_s": -0.1}, "longest_wait_s=-0.1"),
        ({"resume": "maybe"}, "resume='maybe': known are off, prefill, prompt, restart"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        retry(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"ratio": -0.1}, {"free": float("nan")}])
def test_a_budget_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="give finite numbers of at least 0"):
        RetryBudget(**options)
