"""What a stream promises: no I/O before reading, closed by any road, typed errors that say what was delivered."""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal

import anyio
import anyio.lowlevel
import pytest

from loomstream.errors import (
    BadRequest,
    DeadlineExceeded,
    LoomstreamError,
    MiddlewareError,
    Overloaded,
    ServerFault,
    StreamCancelled,
    StreamTruncated,
    UsageError,
)
from loomstream.events import Cost, Event, Notice, RefusalDelta, Start, Stop, TextDelta, TextEnd, TextStart, Usage
from loomstream.handler import Handler
from loomstream.messages import Request, Timeouts, Timing, user
from loomstream.stream import Stream
from loomstream.testing import Pause, scripted_model, text_events, tool_call_events
from loomstream.transport.interrupt import Interrupt, ScopeInterrupt

pytestmark = pytest.mark.anyio


async def test_entering_sends_nothing() -> None:
    model = scripted_model(text_events("a"))
    async with model.stream("hi"):
        assert model.requests == []


async def test_events_come_in_order_and_fold() -> None:
    model = scripted_model(text_events("Hello", ", world"))
    async with model.stream("hi") as stream:
        events = [event async for event in stream]
    assert events == text_events("Hello", ", world")
    assert stream.response.text == "Hello, world"
    assert stream.response.complete
    assert stream.usage == Usage(input_tokens=1, output_tokens=2, final=True)


async def test_text_gives_strings() -> None:
    async with scripted_model(text_events("a", "b")).stream("hi") as stream:
        assert [piece async for piece in stream.text()] == ["a", "b"]


async def test_text_that_is_left_early_leaves_nothing_behind() -> None:
    async with scripted_model(text_events("a", "b", "c")).stream("hi") as stream:
        async for piece in stream.text():
            assert piece == "a"
            break
        pieces = stream.text()
        assert aiter(pieces) is pieces
    gc.collect()  # an abandoned generator would be warned of


async def test_text_shows_the_first_choice_only_also_after_a_reset() -> None:
    first = [Start(), TextStart(0), TextDelta(0, "a"), TextStart(1, 1), TextDelta(1, "other")]
    second = [Start(), TextStart(0, 1), TextDelta(0, "other"), TextEnd(0), TextStart(1), TextDelta(1, "b"), TextEnd(1)]
    async with scripted_model([*first, Notice("reset"), *second, Stop("end_turn")]).stream("hi") as stream:
        assert [piece async for piece in stream.text()] == ["a", "b"]


async def test_collect_gives_the_response() -> None:
    async with scripted_model(tool_call_events("f", '{"x"', ":1}")).stream("hi") as stream:
        response = await stream.collect()
    assert [(call.name, call.arguments) for call in response.tool_calls] == [("f", '{"x":1}')]


async def test_complete_is_the_same_pipeline() -> None:
    response = await scripted_model(text_events("a", "b")).complete("hi")
    assert response.text == "ab"
    assert response.cost.amount_usd is None


async def test_iterating_before_entering_is_a_usage_error() -> None:
    stream = scripted_model(text_events("a")).stream("hi")
    with pytest.raises(UsageError, match="async with"):
        await anext(stream)


async def test_iterating_after_leaving_is_a_usage_error() -> None:
    async with scripted_model(text_events("a")).stream("hi") as stream:
        pass
    with pytest.raises(UsageError, match="closed"):
        await anext(stream)


async def test_a_stream_is_entered_once() -> None:
    stream = scripted_model(text_events("a")).stream("hi")
    async with stream:
        pass
    with pytest.raises(UsageError, match="used once"):
        await stream.__aenter__()


async def test_reading_past_the_end_ends_again() -> None:
    async with scripted_model(text_events("a")).stream("hi") as stream:
        await stream.collect()
        assert [event async for event in stream] == []


async def test_a_break_closes_the_upstream_at_once() -> None:
    model = scripted_model(text_events("a", "b", "c"))
    async with model.stream("hi") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        assert model.open_streams == 1
    assert model.open_streams == 0
    assert stream.response.text == "a"
    assert not stream.response.complete


async def test_the_body_s_own_error_comes_out_unchanged() -> None:
    model = scripted_model(text_events("a"))
    with pytest.raises(ValueError, match="mine"):  # noqa: PT012 (leaving the stream is under test)
        async with model.stream("hi") as stream:
            async for _ in stream:
                msg = "mine"
                raise ValueError(msg)
    assert model.open_streams == 0


async def test_cancelling_the_task_closes_the_upstream() -> None:
    model = scripted_model([Start(), Pause(3600), *text_events("never")[1:]])
    with anyio.CancelScope() as scope:
        async with model.stream("hi") as stream:
            async for _ in stream:
                scope.cancel()
    assert scope.cancelled_caught
    assert model.open_streams == 0


@pytest.mark.parametrize("script", [[Pause(3600)], [*text_events("a")[:3], Pause(3600)]], ids=["first", "later"])
async def test_a_cancelled_read_ends_the_stream(script: list[Event | Pause]) -> None:
    """Nothing is sent again, and nothing is said of what the provider might have done."""
    model = scripted_model(script)
    async with model.stream("hi") as stream:
        with anyio.CancelScope() as scope, anyio.CancelScope(deadline=0):
            await stream.collect()
        assert not scope.cancelled_caught
        for _ in range(2):
            with pytest.raises(UsageError, match="a read was cancelled, which ends the stream: ask the model"):
                await anext(stream)
        assert len(model.requests) <= 1
        await stream.aclose()
        assert model.open_streams == 0
    assert not stream.response.complete


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio closes a socket at once
async def test_what_a_cancelled_connection_closes_one_tick_later_is_closed_too() -> None:
    log: list[str] = []

    def connecting(handler: Handler) -> Handler:
        @asynccontextmanager
        async def wrapped(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
            try:
                await anyio.sleep_forever()
                async with handler(request) as events:
                    yield events
            finally:
                asyncio.get_running_loop().call_soon(log.append, "closed")

        return wrapped

    async def read() -> None:
        try:
            async with model.stream("hi") as stream:
                await anext(stream)
        finally:
            log.append("left")

    model = scripted_model(text_events("a"), middleware=[connecting])
    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert log == ["closed", "left"]


async def test_the_cost_counts_every_epoch() -> None:
    def priced(provider: str, model: str, usage: Usage | None) -> Cost:
        amount = None if usage is None else Decimal(usage.output_tokens)
        return Cost(provider=provider, model=model, amount_usd=amount, lower_usd=amount, upper_usd=amount)

    script = [Start("p", "m"), Usage(output_tokens=1), Notice("reset"), Start("p", "n"), Usage(output_tokens=2)]
    scripted = scripted_model([*script, Stop("end_turn")])
    stream = Stream(scripted.stream("hi")._handler, Request(messages=(user("hi"),)), cost_of=priced)
    async with stream:
        seen = [stream.cost.amount_usd async for _ in stream]
    assert seen == [None, 1, 1, None, 3, 3]
    assert (stream.cost.model, stream.cost.upper_usd, stream.cost.attempts) == ("n", None, 2)


async def test_the_end_closes_the_upstream() -> None:
    model = scripted_model(text_events("a"))
    async with model.stream("hi") as stream:
        await stream.collect()
        assert model.open_streams == 0


async def test_an_error_says_what_was_delivered() -> None:
    script = [*text_events("a", "b")[:4], Usage(input_tokens=3), ServerFault("broken", status=200)]
    model = scripted_model(script)
    async with model.stream("hi") as stream:
        with pytest.raises(ServerFault) as raised:
            await stream.collect()
        assert model.open_streams == 0
    error = raised.value
    assert error.partial is not None
    assert error.partial.text == "ab"
    assert not error.partial.complete
    assert error.usage == Usage(input_tokens=3)
    assert error.committed
    assert [(attempt.provider, attempt.outcome) for attempt in error.attempts] == [("scripted", "ServerFault")]
    assert stream.response.text == "ab"


async def test_what_was_delivered_makes_an_error_less_safe_to_retry() -> None:
    for script, safety in (
        ([Start(), Overloaded("busy")], "yes"),
        ([*text_events("a")[:3], Overloaded("busy")], "maybe"),
        ([*text_events("a")[:3], BadRequest("no")], "no"),
    ):
        async with scripted_model(script).stream("hi") as stream:
            with pytest.raises(LoomstreamError) as raised:
                await stream.collect()
        assert raised.value.retry_safety == safety


async def test_an_error_before_content_is_not_committed() -> None:
    async with scripted_model([Start(), BadRequest("no", status=400)]).stream("hi") as stream:
        with pytest.raises(BadRequest) as raised:
            await stream.collect()
    assert not raised.value.committed


async def test_reading_after_an_error_is_a_usage_error() -> None:
    async with scripted_model([BadRequest("no")]).stream("hi") as stream:
        with pytest.raises(BadRequest):
            await stream.collect()
        with pytest.raises(UsageError, match="failed"):
            await anext(stream)


async def test_events_without_a_stop_are_truncated() -> None:
    async with scripted_model(text_events("a")[:-1]).stream("hi") as stream:
        with pytest.raises(StreamTruncated):
            await stream.collect()


async def test_a_second_consumer_is_refused() -> None:
    model = scripted_model([Start(), Pause(3600)])
    async with model.stream("hi") as stream, anyio.create_task_group() as group:
        await anext(stream)
        group.start_soon(stream.collect)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(UsageError, match="one consumer"):
            await anext(stream)
        group.cancel_scope.cancel()


async def test_cancel_from_another_task() -> None:
    model = scripted_model([Start(), TextStart(0), TextDelta(0, "a"), Pause(3600)])
    outcome: list[object] = []

    async def read() -> None:
        try:
            await stream.collect()
        except StreamCancelled as error:
            outcome.append(error.partial)
            outcome.append(model.open_streams)

    async with model.stream("hi") as stream, anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        stream.cancel()
    assert outcome[1] == 0
    assert getattr(outcome[0], "text", None) == "a"


async def test_cancel_before_reading() -> None:
    async with scripted_model(text_events("a")).stream("hi") as stream:
        stream.cancel()
        with pytest.raises(StreamCancelled):
            await anext(stream)


async def test_an_error_shows_none_of_the_machinery_that_it_came_through() -> None:
    model = scripted_model([Start(), Pause(3600)])
    async with model.stream("hi") as stream, anyio.create_task_group() as group:

        async def read() -> None:
            with pytest.raises(StreamCancelled) as raised:
                await stream.collect()
            shown = "".join(traceback.format_exception(raised.value))
            assert "Cancelled" not in shown.replace("StreamCancelled", "")
            assert "During handling" not in shown

        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        stream.cancel()


async def test_cancel_by_the_reader_itself() -> None:
    async with scripted_model(text_events("a")).stream("hi") as stream:
        await anext(stream)
        stream.cancel()
        with pytest.raises(StreamCancelled):
            await anext(stream)


async def test_cancel_leaves_the_reader_s_task_uncancelled() -> None:
    model = scripted_model([Start(), Pause(3600)])
    done = anyio.Event()

    async def read() -> None:
        with pytest.raises(StreamCancelled):
            await stream.collect()
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        done.set()

    async with model.stream("hi") as stream, anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        stream.cancel()
    assert done.is_set()


async def test_a_task_s_own_cancellation_wins_over_cancel() -> None:
    model = scripted_model([Start(), Pause(3600)])
    seen: list[str] = []

    async def read() -> None:
        try:
            await stream.collect()
        except StreamCancelled:
            seen.append("StreamCancelled")

    async with model.stream("hi") as stream:
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert seen == []
    assert model.open_streams == 0


async def test_aclose_from_another_task_ends_the_reader() -> None:
    model = scripted_model([Start(), Pause(3600)])
    async with model.stream("hi") as stream, anyio.create_task_group() as group:

        async def read() -> None:
            with pytest.raises(StreamCancelled):
                await stream.collect()

        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        await stream.aclose()
        assert model.open_streams == 0


async def test_aclose_waits_for_a_step_that_cannot_be_interrupted() -> None:
    begun, go_on, ended = anyio.Event(), anyio.Event(), anyio.Event()

    def stubborn(handler: Handler) -> Handler:
        @asynccontextmanager
        async def wrapped(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
            async with handler(request) as events, aclosing(slow(events)) as out:
                yield out

        return wrapped

    async def slow(events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
        async for event in events:
            begun.set()
            with anyio.CancelScope(shield=True):
                await go_on.wait()
            yield event

    async def read() -> None:
        with pytest.raises(StreamCancelled):
            await stream.collect()
        ended.set()

    model = scripted_model(text_events("a"), middleware=[stubborn])
    async with model.stream("hi") as stream, anyio.create_task_group() as group:
        group.start_soon(read)
        await begun.wait()
        group.start_soon(stream.aclose)
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        await ended.wait()
    assert model.open_streams == 0


async def test_streams_close_in_any_order() -> None:
    model = scripted_model(text_events("a", "b"))
    first, second = model.stream("1"), model.stream("2")
    await first.__aenter__()
    await second.__aenter__()
    await anext(first)
    await anext(second)
    await first.aclose()
    assert [event async for event in second] == text_events("a", "b")[1:]
    await second.aclose()
    await second.aclose()
    assert model.open_streams == 0


async def test_a_middleware_s_error_is_wrapped_once() -> None:
    def broken(handler: Handler) -> Handler:
        @asynccontextmanager
        async def wrapped(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
            async with handler(request) as events, aclosing(fail(events)) as out:
                yield out

        return wrapped

    async def fail(events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
        async for event in events:
            yield event
            msg = "my bug"
            raise ValueError(msg)

    model = scripted_model(text_events("a"), middleware=[broken])
    async with model.stream("hi") as stream:
        with pytest.raises(MiddlewareError, match="my bug") as raised:
            await stream.collect()
    assert isinstance(raised.value.__cause__, ValueError)
    assert model.open_streams == 0


class TestMiddlewareThatFailsWhileItIsClosed:
    """Nothing but typed errors comes out, and the first error is the one that is raised."""

    @staticmethod
    def failing(handler: Handler) -> Handler:
        @asynccontextmanager
        async def wrapped(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
            async with handler(request) as events:
                yield events
            msg = "clean-up"
            raise KeyError(msg)

        return wrapped

    async def test_after_a_whole_answer(self) -> None:
        model = scripted_model(text_events("a"), middleware=[self.failing])
        async with model.stream("hi") as stream:
            with pytest.raises(MiddlewareError, match=r"KeyError.*clean-up") as raised:
                await stream.collect()
        assert isinstance(raised.value.__cause__, KeyError)
        assert raised.value.partial is not None
        assert raised.value.partial.complete
        assert model.open_streams == 0

    async def test_after_a_break(self) -> None:
        model = scripted_model(text_events("a"), middleware=[self.failing])
        with pytest.raises(MiddlewareError, match=r"KeyError.*clean-up"):
            async with model.stream("hi") as stream:
                await anext(stream)
        assert model.open_streams == 0

    async def test_by_aclose(self) -> None:
        stream = scripted_model(text_events("a"), middleware=[self.failing]).stream("hi")
        await stream.__aenter__()
        await anext(stream)
        with pytest.raises(MiddlewareError, match="clean-up"):
            await stream.aclose()
        await stream.aclose()

    async def test_the_body_s_own_error_wins(self) -> None:
        model = scripted_model(text_events("a"), middleware=[self.failing])
        error = ValueError("mine")
        with pytest.raises(ValueError, match="mine") as raised:  # noqa: PT012 (leaving the stream is under test)
            async with model.stream("hi") as stream:
                await anext(stream)
                raise error
        assert raised.value is error
        assert "clean-up" in error.__notes__[0]

    async def test_the_provider_s_error_wins(self) -> None:
        model = scripted_model([Start(), ServerFault("boom")], middleware=[self.failing])
        async with model.stream("hi") as stream:
            with pytest.raises(ServerFault, match="boom") as raised:
                await stream.collect()
        assert "clean-up" in raised.value.__notes__[0]


async def test_the_time_of_an_answer_without_text() -> None:
    async with scripted_model(tool_call_events("f", "{}")).stream("hi") as stream:
        await stream.collect()
    assert stream.timing.first_event_s is not None
    assert stream.timing.first_text_s is None
    assert stream.timing.total_s is not None


async def test_the_total_time_ends_with_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    for kind in (Interrupt, ScopeInterrupt):
        monkeypatch.setattr(kind, "now", lambda _: clock[0])
    script = [Start(), RefusalDelta(0, "no"), *text_events("")[-2:]]
    async with scripted_model(script).stream("hi") as stream:
        async for _ in stream:
            clock[0] += 1
        clock[0] += 1000
    assert stream.timing == Timing(first_event_s=1.0, first_text_s=None, total_s=3.0)


async def test_timing_is_set() -> None:
    async with scripted_model(text_events("a")).stream("hi") as stream:
        await stream.collect()
    timing = stream.timing
    assert timing.first_event_s is not None
    assert timing.first_text_s is not None
    assert timing.total_s is not None
    assert 0 <= timing.first_event_s <= timing.first_text_s <= timing.total_s


async def test_an_unused_stream_closes_without_a_request() -> None:
    model = scripted_model(text_events("a"))
    stream = model.stream("hi")
    await stream.aclose()
    assert model.requests == []


class TestDeadline:
    """The total limit, on a virtual clock."""

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> object:
        from loomstream.testing.clock import virtual_clock_backends  # noqa: PLC0415 (a fresh clock for each test)

        return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]

    async def test_it_ends_a_wait_in_the_middle(self) -> None:
        model = scripted_model([*text_events("a")[:3], Pause(100), *text_events("a")[3:]])
        began_s = anyio.current_time()
        async with model.stream("hi", timeouts=Timeouts(total_s=5)) as stream:
            with pytest.raises(DeadlineExceeded, match="5 s") as raised:
                await stream.collect()
        assert anyio.current_time() - began_s == pytest.approx(5)
        assert raised.value.partial is not None
        assert raised.value.partial.text == "a"
        assert model.open_streams == 0

    async def test_it_never_cancels_the_consumer_s_code(self) -> None:
        async with scripted_model(text_events("a", "b")).stream("hi", timeouts=Timeouts(total_s=5)) as stream:
            await anext(stream)
            await anyio.sleep(60)
            with pytest.raises(DeadlineExceeded):
                await anext(stream)

    async def test_a_stream_that_ends_in_time_leaves_nothing_armed(self) -> None:
        async with scripted_model(text_events("a")).stream("hi", timeouts=Timeouts(total_s=5)) as stream:
            await stream.collect()
        await anyio.sleep(60)
        assert stream.response.stop == Stop("end_turn", "stop")
