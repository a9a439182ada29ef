"""Interrupts: one error reaches the reader where it waits, and nobody else's cancellation is touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.lowlevel
import pytest

from loomstream.errors import DeadlineExceeded, StreamCancelled
from loomstream.events import Event, Notice, Start, Stop, TextDelta
from loomstream.handler import Handler, Middleware, Stage, stage
from loomstream.messages import Request, Timeouts
from loomstream.stream import Stream
from loomstream.testing import Pause, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.transport.interrupt import interrupt

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]


async def still_here() -> None:
    """Fail where the running task is left cancelled."""
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    await anyio.sleep(1)


async def test_only_the_first_error_counts() -> None:
    one, two = StreamCancelled("one"), StreamCancelled("two")
    made = interrupt()
    made.set(one)
    made.set(two)
    assert made.error is one
    with pytest.raises(StreamCancelled, match="one"):
        made.mark()


async def test_an_interrupt_that_is_not_set_changes_nothing() -> None:
    made = interrupt()
    made.mark()

    async def step() -> int:
        await anyio.lowlevel.checkpoint()
        return 7

    assert await made.wrap(step)() == 7
    error = ValueError("mine")
    assert made.convert(error) is error
    made.disarm()
    made.disarm()


async def test_a_middleware_that_cancels_its_own_stream_leaves_the_task_alone() -> None:
    streams: list[Stream] = []

    def make(request: Request) -> Stage:
        del request

        def cancelling(event: Event) -> Iterable[Event]:
            if isinstance(event, TextDelta) and event.text == "enough":
                streams[0].cancel()
            return (event,)

        return cancelling

    model = scripted_model(text_events("a", "enough", "more"), middleware=[stage(make)])
    async with model.stream("x") as stream:
        streams.append(stream)
        events = aiter(stream)
        for _ in ("start", "text starts", "a", "enough"):
            await anext(events)
            await still_here()
        with pytest.raises(StreamCancelled):
            await anext(events)
        assert model.open_streams == 0
    await still_here()
    assert stream.response.text == "aenough"


async def test_a_consumer_that_cancels_between_two_events_is_told_at_the_next() -> None:
    model = scripted_model(text_events("a", "b"))
    async with model.stream("x") as stream:
        await anext(stream)
        stream.cancel()
        stream.cancel()
        await still_here()
        with pytest.raises(StreamCancelled):
            await anext(stream)
    await still_here()


async def test_a_cancel_and_the_task_s_own_cancellation_at_once() -> None:
    """The task is being cancelled: that wins, whatever the stream says."""
    model = scripted_model([Start(), Pause(3600)])
    seen: list[str] = []

    async def read() -> None:
        async with model.stream("x") as stream:
            streams.append(stream)
            try:
                await stream.collect()
            except StreamCancelled:
                seen.append("told")
                await anyio.lowlevel.checkpoint()
                seen.append("went on")

    streams: list[Stream] = []
    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        streams[0].cancel()
        group.cancel_scope.cancel()
    assert "went on" not in seen
    assert model.open_streams == 0


@pytest.mark.parametrize("made", [ValueError, StopAsyncIteration, None])
async def test_a_layer_below_that_makes_another_error_of_it_changes_nothing(made: type[Exception] | None) -> None:
    """Or ends in silence: the reader is told of the interrupt, and its task goes on uncancelled."""

    model = scripted_model([Start(), Pause(3600), Stop("end_turn")], middleware=[rewording(made)])
    async with model.stream("x", timeouts=Timeouts(total_s=5)) as stream:
        with pytest.raises(DeadlineExceeded):
            await stream.collect()
        assert cancelling() == 0
    await still_here()


class Rewording:
    """Makes another error of a cancellation, or with None an event."""

    def __init__(self, events: AsyncIterator[Event], made: type[Exception] | None) -> None:
        self._events = events
        self._made = made

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        try:
            return await anext(self._events)
        except anyio.get_cancelled_exc_class():
            if self._made is None:
                return Notice("warning")
            raise self._made from None


def rewording(made: type[Exception] | None) -> Middleware:
    def wrap(handler: Handler) -> Handler:
        @asynccontextmanager
        async def wrapped(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
            async with handler(request) as events:
                yield Rewording(events, made)

        return wrapped

    return wrap


def cancelling() -> int:
    """Count how often the running task is cancelled; trio keeps no such count."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0
    return 0 if task is None else task.cancelling()


async def test_a_swallowed_interrupt_is_taken_back_when_the_stream_is_left() -> None:
    model = scripted_model([Pause(3600), Start()], middleware=[rewording(None)])
    async with model.stream("x", timeouts=Timeouts(total_s=5)) as stream:
        with suppress(DeadlineExceeded):
            assert await anext(stream) == Notice("warning")
    assert cancelling() == 0
    await still_here()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # elsewhere a scope tells the two apart
async def test_a_cancellation_from_outside_is_not_taken_for_the_reader_s_own_interrupt() -> None:
    """The reader's own task called `cancel`, so nobody cancelled the task for it: what comes is somebody else's."""
    streams: list[Stream] = []

    def make(request: Request) -> Stage:
        del request

        def step(event: Event) -> Iterable[Event]:
            streams[0].cancel()
            return () if isinstance(event, Start) else (event,)

        return step

    async def read() -> None:
        async with model.stream("x") as stream:
            streams.append(stream)
            await anext(stream)

    model = scripted_model([Start(), Pause(3600), Stop("end_turn")], middleware=[stage(make)])
    task = asyncio.create_task(read())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.open_streams == 0


async def test_a_time_limit_of_the_caller_s_own_stays_what_it_is() -> None:
    model = scripted_model([Start(), Pause(3600)])
    async with model.stream("x", timeouts=Timeouts(total_s=100)) as stream:
        with pytest.raises(TimeoutError), anyio.fail_after(10):
            await stream.collect()
        await still_here()
    assert model.open_streams == 0


async def test_the_deadline_passes_while_the_answer_is_opened() -> None:
    model = scripted_model([Pause(3600)])
    async with model.stream("x", timeouts=Timeouts(total_s=7)) as stream:
        with pytest.raises(DeadlineExceeded, match="7 s"):
            await anext(stream)
    assert anyio.current_time() < 3600
    await still_here()


async def test_a_deadline_that_has_passed_is_raised_once() -> None:
    async with scripted_model(text_events("a", "b")).stream("x", timeouts=Timeouts(total_s=5)) as stream:
        await anext(stream)
        await anyio.sleep(5)
        with pytest.raises(DeadlineExceeded):
            await anext(stream)
    await still_here()


async def test_a_stream_that_was_left_does_not_ring_later() -> None:
    async with scripted_model(text_events("a", "b")).stream("x", timeouts=Timeouts(total_s=5)) as stream:
        await anext(stream)
    await anyio.sleep(60)
    await still_here()
    assert not stream.response.complete
