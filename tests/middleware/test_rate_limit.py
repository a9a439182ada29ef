"""The rate limit: when a call goes out, in which order, and that nothing that it held stays behind."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from loomstream.errors import (
    ConfigError,
    ConnectFailed,
    DeadlineExceeded,
    LoomstreamError,
    QueueFull,
    RateLimited,
    UnknownProvider,
)
from loomstream.events import Event, Limits, Notice, Start, Stop, Usage
from loomstream.handler import Handler
from loomstream.messages import Request, Timeouts
from loomstream.middleware.rate_limit import RateLimitSettings, rate_limit
from loomstream.middleware.store import MemoryStore
from loomstream.testing import Pause, check_order, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

ANSWER = text_events("ok")


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


Passed = Callable[[], float]


def model_of(*scripts: object, **options: object) -> ScriptedModel:
    return scripted_model(*(scripts or (ANSWER,)), middleware=[rate_limit(**options)])  # type: ignore[arg-type]


async def begun_s(model: ScriptedModel, count: int, passed_s: Passed) -> list[float]:
    """Give when each of some calls, made at once, got its first event."""
    found: list[float] = []

    async def call() -> None:
        async with model.stream("hi", timeouts=Timeouts(first_event_s=None)) as stream:
            found.extend([passed_s() async for event in stream if isinstance(event, Start)])

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(call)
    return found


async def test_a_burst_goes_at_once_and_the_rest_by_the_rate(passed_s: Passed) -> None:
    model = model_of(requests_per_minute=60, burst=3)
    assert await begun_s(model, 6, passed_s) == [0, 0, 0, 1, 2, 3]


async def test_the_default_burst_is_a_tenth_of_a_minute(passed_s: Passed) -> None:
    assert await begun_s(model_of(requests_per_minute=20), 4, passed_s) == [0, 0, 3, 6]


async def test_without_limits_nobody_waits(passed_s: Passed) -> None:
    model = model_of(requests_per_minute=0, tokens_per_minute=0, concurrency=0)
    assert await begun_s(model, 100, passed_s) == [0] * 100


async def test_tokens_are_reserved_by_estimate_and_settled_by_usage(passed_s: Passed) -> None:
    used_all = [*text_events("ok")[:-2], Usage(input_tokens=40, output_tokens=60, final=True), Stop("end_turn")]
    model = model_of(used_all, ANSWER, tokens_per_minute=120)
    await model.complete("x" * 40, max_tokens=90)  # reserves 100, and uses them
    await model.complete("x" * 40, max_tokens=90)  # 20 are left: 80 more come in 40 s; it uses 2 only
    assert passed_s() == 40
    await model.complete("x" * 40, max_tokens=88)
    assert passed_s() == 40


async def test_more_tokens_than_a_minute_s_go_when_the_bucket_is_full(passed_s: Passed) -> None:
    model = model_of(tokens_per_minute=60)
    await model.complete("hi", max_tokens=10_000)
    assert passed_s() == 0


async def test_cached_tokens_do_not_count(passed_s: Passed) -> None:
    cached = Usage(input_tokens=1, cache_read_tokens=5_000, output_tokens=1, final=True)
    model = model_of([*ANSWER[:-2], cached, Stop("end_turn")], tokens_per_minute=100)
    for _ in range(3):
        await model.complete("hi", max_tokens=90)
    assert passed_s() == 0


async def test_calls_run_side_by_side_as_many_as_may(passed_s: Passed) -> None:
    slow = [ANSWER[0], Pause(10), *ANSWER[1:]]
    assert await begun_s(model_of(slow, concurrency=2), 5, passed_s) == [0, 0, 10, 10, 20]


async def test_a_delay_lies_between_two_beginnings(passed_s: Passed) -> None:
    model = model_of(requests_per_minute=0, min_delay_s=0.3)
    assert await begun_s(model, 3, passed_s) == [0, 0.3, 0.6]


async def test_the_line_is_fair() -> None:
    order: list[int] = []
    model = model_of(requests_per_minute=60, burst=1)

    async def call(number: int) -> None:
        await anyio.sleep(number / 1000)
        await model.complete(str(number))
        order.append(number)

    async with anyio.create_task_group() as group:
        for number in reversed(range(30)):
            group.start_soon(call, number)
    assert order == list(range(30))


async def test_a_noticeable_wait_is_told() -> None:
    model = model_of(requests_per_minute=2, burst=1)
    await model.complete("hi")
    async with model.stream("hi") as stream:
        events = [event async for event in stream]
    check_order(events)
    told = [event.detail for event in events if isinstance(event, Notice)]
    assert [event.kind for event in events[:3] if isinstance(event, Notice)] == ["heartbeat"] * 3  # at 1, 11 and 21 s
    assert told[0].endswith("1 calls wait, about 30 s more")
    assert events[3:] == ANSWER


async def test_a_short_wait_is_not_told() -> None:
    model = model_of(requests_per_minute=70, burst=1)
    await model.complete("hi")
    async with model.stream("hi") as stream:
        assert [event async for event in stream] == ANSWER


async def test_a_consumer_that_does_not_come_back_holds_up_nobody(passed_s: Passed) -> None:
    model = model_of(requests_per_minute=2, burst=1)
    await model.complete("hi")
    async with model.stream("hi") as stream:
        assert isinstance(await anext(stream), Notice)
        await model.complete("hi")  # overtakes the one whose consumer has the turn
        assert passed_s() == 30
        assert isinstance(await anext(stream), Notice)
        assert [event async for event in stream][-1] == ANSWER[-1]
    assert passed_s() == 60


async def test_it_never_waits_past_the_deadline(passed_s: Passed) -> None:
    model = model_of(requests_per_minute=2, burst=1)
    await model.complete("hi")
    with pytest.raises(DeadlineExceeded, match="not sent; raise the limit") as caught:
        await model.complete("hi", timeouts=Timeouts(total_s=20))
    assert passed_s() == 0
    assert caught.value.retry_safety == "yes"
    assert len(model.requests) == 1


async def test_an_unforeseeable_wait_ends_with_the_deadline(passed_s: Passed) -> None:
    model = model_of([ANSWER[0], Pause(50), *ANSWER[1:]], concurrency=1)
    async with model.stream("hi") as stream:
        await anext(stream)
        with pytest.raises(DeadlineExceeded):
            await model.complete("hi", timeouts=Timeouts(total_s=20))
    assert passed_s() == 20


async def test_the_line_is_bounded() -> None:
    model = model_of(requests_per_minute=60, burst=1, max_queue=2)
    outcomes: list[str] = []

    async def call() -> None:
        try:
            await model.complete("hi")
        except LoomstreamError as error:
            outcomes.append(f"{type(error).__name__} {error.retry_safety}")
        else:
            outcomes.append("ok")

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(call)
    assert sorted(outcomes) == ["QueueFull yes"] * 2 + ["ok"] * 3


async def test_without_a_line_nobody_waits(passed_s: Passed) -> None:
    model = model_of(requests_per_minute=60, burst=1, max_queue=0)
    await model.complete("hi")
    with pytest.raises(QueueFull, match="0 calls wait"):
        await model.complete("hi")
    assert passed_s() == 0


async def test_the_wait_is_bounded(passed_s: Passed) -> None:
    model = model_of(requests_per_minute=2, burst=1, max_wait_s=29)
    await model.complete("hi")
    with pytest.raises(QueueFull, match="takes longer than max_wait_s=29"):
        await model.complete("hi")
    await anyio.sleep(2)
    await model.complete("hi")
    assert passed_s() == 30


async def test_keys_do_not_share(passed_s: Passed) -> None:
    model = model_of(requests_per_minute=1, key=lambda request: request.messages[0].text)
    for text in "abc":
        await model.complete(text)
    assert passed_s() == 0
    await model.complete("a")
    assert passed_s() == 60


async def test_models_that_have_one_store_share(passed_s: Passed) -> None:
    store = MemoryStore()
    for _ in range(3):
        await model_of(provider="openai", model="m", requests_per_minute=60, burst=1, store=store).complete("hi")
    await model_of(provider="openai", model="other", requests_per_minute=60, burst=1, store=store).complete("hi")
    assert passed_s() == 2


# --- what the provider says -----------------------------------------------------------------------


def said(**limits: object) -> list[Event]:
    return [Start("p", "m", limits=Limits(**limits)), *ANSWER[1:]]  # type: ignore[arg-type]


async def test_a_row_s_default_is_raised_by_headers(passed_s: Passed) -> None:
    model = model_of(said(limit_requests=6_000), provider="anthropic")
    assert await begun_s(model, 6, passed_s) == [0, 0, 0, 0, 0, 0.01]  # 5 go at once; the headers come with the first


async def test_a_row_s_default_holds_where_headers_say_nothing(passed_s: Passed) -> None:
    assert await begun_s(model_of(provider="anthropic"), 6, passed_s) == [0, 0, 0, 0, 0, 1.2]


async def test_a_stated_limit_is_lowered_and_raised_again_but_never_above(passed_s: Passed) -> None:
    scripts = said(limit_requests=30), said(limit_requests=6_000)
    model = model_of(*scripts, requests_per_minute=60, burst=1)
    times: list[float] = []
    for _ in range(4):
        await model.complete("hi")
        times.append(passed_s())
    assert times == [0, 2, 3, 4]


async def test_what_is_left_counts(passed_s: Passed) -> None:
    model = model_of(said(remaining_requests=0), ANSWER, requests_per_minute=60)
    await model.complete("hi")
    await model.complete("hi")
    assert passed_s() == 1


async def test_a_window_longer_than_a_minute_is_no_rate(passed_s: Passed) -> None:
    model = model_of(said(limit_requests=1, reset_requests_s=86_400), requests_per_minute=60)
    for _ in range(6):
        await model.complete("hi")
    assert passed_s() == 0


async def test_tokens_are_learned(passed_s: Passed) -> None:
    model = model_of(said(limit_tokens=600, remaining_tokens=0), ANSWER)
    await model.complete("hi", max_tokens=99)
    await model.complete("hi", max_tokens=99)
    assert passed_s() == 10


async def test_a_refused_call_makes_all_wait(passed_s: Passed) -> None:
    model = model_of([RateLimited("slow down", retry_after_s=7)], ANSWER)
    with pytest.raises(RateLimited):
        await model.complete("hi")
    await model.complete("hi")
    assert passed_s() == 7


async def test_it_learns_nothing_where_it_shall_not(passed_s: Passed) -> None:
    model = model_of([RateLimited("slow down", retry_after_s=7)], said(limit_requests=1), learn=False)
    with pytest.raises(RateLimited):
        await model.complete("hi")
    for _ in range(3):
        await model.complete("hi")
    assert passed_s() == 0


async def test_no_limit_is_none_whatever_headers_say(passed_s: Passed) -> None:
    model = model_of(said(limit_requests=1, remaining_requests=0), requests_per_minute=0)
    for _ in range(3):
        await model.complete("hi")
    assert passed_s() == 0


# --- what it holds comes back ---------------------------------------------------------------------


async def test_a_call_that_was_not_sent_costs_nothing(passed_s: Passed) -> None:
    model = model_of([ConnectFailed("no")], ANSWER, requests_per_minute=1, tokens_per_minute=100)
    with pytest.raises(ConnectFailed):
        await model.complete("hi", max_tokens=90)
    await model.complete("hi", max_tokens=90)
    assert passed_s() == 0


def held(store: MemoryStore) -> tuple[int, int]:
    keys = store._keys.by_name.values()
    return sum(len(key.permits) for key in keys), sum(len(key.line) for key in keys)


async def test_leaving_gives_the_permit_to_the_next(passed_s: Passed) -> None:
    store = MemoryStore()
    model = model_of([*ANSWER[:2], Pause(100), *ANSWER[2:]], concurrency=1, store=store)
    async with model.stream("hi") as stream:
        await anext(stream)
        assert held(store) == (1, 0)
    assert held(store) == (0, 0)
    async with model.stream("hi") as stream:
        await anext(stream)
    assert passed_s() == 0


@asynccontextmanager
async def stepping(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:  # noqa: ARG001 (a handler's signature)
    """A handler that waits at each step, so that it can be cancelled at each."""

    async def events() -> AsyncIterator[Event]:
        for event in ANSWER:
            await anyio.sleep(1)
            yield event

    await anyio.sleep(1)
    source = events()
    yield source
    await source.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("cancelled_s", [0, 0.5, 2.5, 9.5, 10.5, 11.5, 13.5, 19])
async def test_a_cancelled_call_leaves_nothing_behind(cancelled_s: float) -> None:
    store = MemoryStore()
    handler: Handler = rate_limit(requests_per_minute=6, burst=1, concurrency=1, store=store)(stepping)

    async def call() -> None:
        async with handler(Request(messages=())) as events:
            async for _ in events:
                pass

    await call()
    with anyio.move_on_after(cancelled_s):
        await call()
    assert held(store) == (0, 0)
    with anyio.fail_after(60):
        await call()
    assert held(store) == (0, 0)


async def test_one_that_leaves_the_line_lets_the_others_move_up(passed_s: Passed) -> None:
    model = model_of(requests_per_minute=60, burst=1)
    await model.complete("hi")
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(model.complete, "later")
            scope.cancel()
            await model.complete("never sent")
    await model.complete("last")
    assert passed_s() == 2


class Forgetful(MemoryStore):
    """A store whose server is gone once a call was let through."""

    async def give_back(self, *_: object, **__: object) -> None:
        msg = "gone"
        raise ConnectFailed(msg)

    cap = give_back  # type: ignore[assignment]


async def test_a_store_that_fails_after_the_start_breaks_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    model = model_of(said(remaining_requests=1), requests_per_minute=60, store=Forgetful())
    assert (await model.complete("hi")).complete
    assert "giving back a permit failed: gone" in caplog.text


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"requests_per_minute": -1},
        {"tokens_per_minute": math.nan},
        {"concurrency": -1},
        {"burst": math.inf},
        {"min_delay_s": -0.1},
        {"max_queue": -1},
        {"max_wait_s": -1},
        {"requests_per_minute": 0, "burst": 3},
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"rate_limit\({next(iter(options))}="):
        rate_limit(**options)  # type: ignore[arg-type]


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(UnknownProvider):
        rate_limit("nobody")


def test_the_seed_system_s_keys_map_one_to_one() -> None:
    settings = RateLimitSettings(
        requests_per_second=0.7,
        tokens_per_minute=80_000,
        burst_capacity=3,
        min_delay_ms=800,
        max_retries=0,
        retry_backoff_ms=2_000,
        queue_timeout_seconds=300,
    )
    assert settings.limits(concurrency_limit=2) == {
        "concurrency": 2,
        "requests_per_minute": 42,
        "tokens_per_minute": 80_000,
        "burst": 3,
        "min_delay_s": 0.8,
        "max_wait_s": 300,
    }
    assert settings.retries() == {"max_retries": 0, "backoff_s": 2}
    rate_limit(**settings.limits(2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (RateLimitSettings(requests_per_second=0, burst_capacity=1), 100),
        (RateLimitSettings(disabled=True, requests_per_second=1), 100),
        (RateLimitSettings(requests_per_second=1, burst_capacity=1, queue_timeout_seconds=0), 1),
    ],
)
async def test_zero_is_honoured(settings: RateLimitSettings, count: int, passed_s: Passed) -> None:
    model = model_of(**settings.limits())
    outcomes: list[bool] = []
    for _ in range(100):
        try:
            await model.complete("hi")
        except QueueFull:
            outcomes.append(False)
        else:
            outcomes.append(True)
    assert outcomes.count(True) == count
    assert passed_s() == 0
