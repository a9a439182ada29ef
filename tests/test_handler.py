"""Handlers compose: the first middleware listed is the outermost, and a stage sees every event of one stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

import anyio
import pytest

from loomstream.errors import DeadlineExceeded, MiddlewareError, ServerFault, StreamCancelled, UsageError
from loomstream.events import Cost, Event, Notice, Start, TextDelta, TextStart
from loomstream.handler import Handler, Middleware, Stage, batches, compose, is_idle, stage
from loomstream.messages import Request, Timeouts, user
from loomstream.middleware.cost import cost
from loomstream.stream import Stream
from loomstream.testing import replay_model, scripted_model, text_events
from tests.batched import Batched

pytestmark = pytest.mark.anyio
ANSWER = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def naming(name: str, log: list[str]) -> Middleware:
    def wrap(handler: Handler) -> Handler:
        @asynccontextmanager
        async def named(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
            log.append(f"+{name}")
            async with handler(request) as events:
                yield events
            log.append(f"-{name}")

        return named

    return wrap


def per_event(change: Callable[[Event], Iterable[Event]]) -> Middleware:
    def make(request: Request) -> Stage:
        del request
        return change

    return stage(make)


def upper(event: Event) -> Iterable[Event]:
    return [TextDelta(event.index, event.text.upper())] if isinstance(event, TextDelta) else [event]


async def test_the_first_one_listed_is_the_outermost() -> None:
    log: list[str] = []
    model = scripted_model(text_events("a"), middleware=[naming("outer", log), naming("inner", log)])
    await model.complete("hi")
    assert log == ["+outer", "+inner", "-inner", "-outer"]


async def test_no_middleware_is_the_handler_itself() -> None:
    @asynccontextmanager
    async def handler(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        del request
        raise NotImplementedError
        yield

    assert compose(handler) is handler


async def test_a_stage_replaces_one_event_by_others() -> None:
    response = await scripted_model(text_events("a", "b"), middleware=[per_event(upper)]).complete("hi")
    assert response.text == "AB"


async def test_a_stage_may_drop_and_add_events() -> None:
    def change(event: Event) -> Iterable[Event]:
        if isinstance(event, TextDelta):
            return () if event.text == "b" else (Notice("warning", "seen"), event)
        return (event,)

    async with scripted_model(text_events("a", "b"), middleware=[per_event(change)]).stream("hi") as stream:
        events = [event async for event in stream]
    assert events.count(Notice("warning", "seen")) == 1
    assert stream.response.text == "a"


async def test_stages_apply_from_the_inside_out() -> None:
    def exclaim(event: Event) -> Iterable[Event]:
        return [TextDelta(event.index, event.text + "b!")] if isinstance(event, TextDelta) else [event]

    outer_first = scripted_model(text_events("a"), middleware=[per_event(upper), per_event(exclaim)])
    assert (await outer_first.complete("hi")).text == "AB!"
    inner_first = scripted_model(text_events("a"), middleware=[per_event(exclaim), per_event(upper)])
    assert (await inner_first.complete("hi")).text == "Ab!"


async def test_each_stream_has_its_own_stage() -> None:
    seen: list[int | None] = []

    def make(request: Request) -> Stage:
        count = 0

        def counting(event: Event) -> Iterable[Event]:
            nonlocal count
            count += 1
            if isinstance(event, TextDelta):
                seen.append(request.max_tokens)
                return [TextDelta(event.index, str(count))]
            return [event]

        return counting

    model = scripted_model(text_events("a"), middleware=[stage(make)])
    assert (await model.complete("hi", max_tokens=1)).text == "3"
    assert (await model.complete("hi", max_tokens=2)).text == "3"
    assert seen == [1, 2]


async def test_a_stage_that_raises_is_a_middleware_error_and_closes_the_upstream() -> None:
    def broken(event: Event) -> Iterable[Event]:
        if isinstance(event, TextDelta):
            raise KeyError(event.text)
        return [event]

    model = scripted_model(text_events("a"), middleware=[per_event(broken)])
    async with model.stream("hi") as stream:
        with pytest.raises(MiddlewareError, match="KeyError") as raised:
            await stream.collect()
        assert model.open_streams == 0
    assert isinstance(raised.value.__cause__, KeyError)


async def test_a_stage_that_loses_a_start_is_told_so() -> None:
    model = scripted_model(
        text_events("a"), middleware=[per_event(lambda event: () if isinstance(event, TextStart) else (event,))]
    )
    async with model.stream("hi") as stream:
        with pytest.raises(UsageError, match=r"TextDelta .*block 0") as raised:
            await stream.collect()
        assert model.open_streams == 0
    assert raised.value.partial == stream.response


async def test_a_break_closes_what_a_stage_reads() -> None:
    model = scripted_model(text_events("a", "b"), middleware=[per_event(upper)])
    async with model.stream("hi") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    assert model.open_streams == 0
    assert stream.response.text == "A"


def stream_of(context: Batched, timeouts: Timeouts | None = None) -> Stream:
    request = Request(messages=(user("hi"),), timeouts=timeouts or Timeouts())
    return Stream(lambda _: context, request, cost_of=lambda provider, model, _: Cost(provider=provider, model=model))


async def test_the_events_of_one_read_come_one_by_one() -> None:
    events = text_events("a", "b")
    context = Batched(events[:3], events[3:])
    async with stream_of(context) as stream:
        seen: list[Event] = []
        async for event in stream:
            seen.append(event)
            assert stream.response.text == "".join(seen.text for seen in seen if isinstance(seen, TextDelta))
    assert seen == events
    assert context.left


async def test_a_cancel_between_two_events_of_one_read_ends_the_stream() -> None:
    context = Batched(text_events("a", "b"))
    async with stream_of(context) as stream:
        await anext(stream)
        stream.cancel()
        with pytest.raises(StreamCancelled):
            await anext(stream)
        assert context.left


class TestTheTotalTime:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> object:
        from loomstream.testing.clock import virtual_clock_backends  # noqa: PLC0415 (a fresh clock for each test)

        return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]

    async def test_it_counts_between_two_events_of_one_read(self) -> None:
        async with stream_of(Batched(text_events("a", "b")), Timeouts(total_s=2)) as stream:
            await anext(stream)
            await anyio.sleep(3)
            with pytest.raises(DeadlineExceeded):
                await anext(stream)


async def test_events_of_one_read_may_lack_their_start() -> None:
    async with stream_of(Batched([Start(), TextDelta(0, "a"), TextDelta(0, "b")])) as stream:
        await anext(stream)
        with pytest.raises(UsageError, match="its start is missing"):
            await anext(stream)


async def test_what_gives_no_lists_gives_one_event_at_a_time() -> None:
    async def events() -> AsyncGenerator[Event]:
        yield TextStart(0)
        yield TextDelta(0, "a")

    async with aclosing(events()) as given:
        batch = batches(given)
        assert await batch() == [TextStart(0)]
        assert await batch() == [TextDelta(0, "a")]
        with pytest.raises(StopAsyncIteration):
            await batch()


class Forwarding:
    """A context that forwards what it lacks to the one inside, and has work of its own behind the `Stop`."""

    def __init__(self, inner: AbstractAsyncContextManager[AsyncIterator[Event]]) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def __aenter__(self) -> AsyncIterator[Event]:
        return self._read(await self._inner.__aenter__())

    async def __aexit__(self, *error: object) -> None:
        await self._inner.__aexit__(None, None, None)

    async def _read(self, events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
        async for event in events:
            yield event
        msg = "refused by the audit"
        raise ServerFault(msg)


async def test_a_wrapper_that_forwards_attributes_is_read_to_its_end() -> None:
    def wrap(handler: Handler) -> Handler:
        return lambda request: Forwarding(handler(request))

    model = replay_model("openai", ANSWER, middleware=[wrap, cost("openai", "gpt-4o")])
    with pytest.raises(ServerFault, match="refused by the audit"):
        await model.complete("hi")


async def test_a_context_is_idle_only_where_it_says_so() -> None:
    assert is_idle(Batched())
    assert not is_idle(Batched(idle=False))
    assert not is_idle(object())
