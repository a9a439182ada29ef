"""One attempt from request to events; time limits; answers that are not streamed; what is repeated."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, cast

import anyio
import anyio.lowlevel
import msgspec
import pytest
from models import (
    ANSWER,
    CANARY,
    DONE,
    FINISH,
    PING,
    USAGE,
    delta,
    failing,
    noting,
    replay,
    sleeping,
    sse,
)

import loomstream
import loomstream.dialects.openai_chat
from loomstream import catalog
from loomstream.endpoint import Endpoint
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    BadRequest,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    FirstEventTimeout,
    IdleTimeout,
    LoomstreamError,
    ModelNotFound,
    RateLimited,
    RequestError,
    ServerFault,
    StreamTruncated,
    Unsupported,
    UsageError,
)
from loomstream.events import Cost, Event, Notice, Raw, Start, Stop
from loomstream.handler import Handler
from loomstream.messages import Request, Timeouts, Tool
from loomstream.model import Model
from loomstream.providers import look_up
from loomstream.pump import MAX_ERROR_BODY_BYTES
from loomstream.testing import Recording, ReplayTransport, check_order, replay_model
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.replay import Step
from loomstream.transport import ByteResponse
from loomstream.wire import Secret, WireRequest

pytestmark = pytest.mark.usefixtures("no_keys")


# --- one attempt -----------------------------------------------------------------------------------


@pytest.mark.anyio
class TestAttempt:
    async def test_a_whole_answer(self) -> None:
        model, transport = replay(delta("h"), delta("i"), FINISH, USAGE, DONE)
        async with model, model.stream("x") as stream:
            events = [event async for event in stream]
        check_order(events)
        assert [type(event).__name__ for event in events] == [
            "Start", "TextStart", "TextDelta", "TextDelta", "TextEnd", "Usage", "Cost", "Stop",
        ]  # fmt: skip
        assert transport.open_responses == 0

    async def test_options_override_the_defaults(self) -> None:
        model, transport = replay(ANSWER, temperature=0.0, max_tokens=5)
        async with model:
            await model.complete("x", max_tokens=7)
        body = json.loads(transport.requests[0].body)
        assert (body["temperature"], body["max_completion_tokens"]) == (0.0, 7)

    async def test_what_the_provider_cannot_honour_is_said_in_the_start(self) -> None:
        model, _ = replay(ANSWER)
        async with model:
            response = await model.complete("x", top_k=40)
        assert response.warnings[0] == "top_k is not sent: this host does not take it"

    async def test_a_model_that_is_taken_away_is_told_of_with_its_day(self) -> None:
        for model, told in (("gpt-4", "gpt-4 is deprecated: its last day at openai is 2026-10-23"), ("gpt-6-sol", "")):
            transport = ReplayTransport(Recording([ANSWER]))
            async with replay_model("openai", model=model, dialect="openai_chat", transport=transport) as asked:
                response = await asked.complete("x", unsupported="error")
            assert " ".join(response.warnings) == told

    async def test_raw_events_come_on_request(self) -> None:
        model, _ = replay(ANSWER)
        async with model, model.stream("x", raw_events=True) as stream:
            assert sum([isinstance(event, Raw) async for event in stream]) == 4

    async def test_a_value_that_cannot_be_sent_is_refused_before_anything_is(self) -> None:
        model, transport = replay(ANSWER)
        async with model:
            with pytest.raises(RequestError, match="max_tokens"):
                model.stream("x", max_tokens="5")  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="unknown option"):
                model.stream("x", colour="red")  # type: ignore[call-arg]
            with pytest.raises(RequestError, match="cannot be written as JSON"):
                await model.complete("x", extra_body={"a": object()})
        assert transport.requests == []

    async def test_a_closed_model_says_so(self) -> None:
        model, transport = replay(ANSWER)
        async with model:
            pass
        with pytest.raises(UsageError, match="this model is closed: connect again"):
            model.stream("x")
        await model.aclose()
        assert transport.requests == []

    async def test_an_older_stream_sends_nothing_while_its_model_is_closing(self) -> None:
        closing, go_on = anyio.Event(), anyio.Event()

        class SlowToClose(ReplayTransport):
            async def aclose(self) -> None:
                closing.set()
                await go_on.wait()

        transport = SlowToClose(Recording([ANSWER]))
        model = replay_model("openai", transport=transport)
        async with model.stream("x") as stream, anyio.create_task_group() as group:
            group.start_soon(model.aclose)
            await closing.wait()
            with pytest.raises(UsageError, match="this model is closed: connect again"):
                await anext(stream)
            go_on.set()
        assert transport.requests == []

    @pytest.mark.parametrize(("status", "error"), [(401, AuthFailed), (429, RateLimited), (500, ServerFault)])
    async def test_a_status_is_a_typed_error(self, status: int, error: type[LoomstreamError]) -> None:
        model, transport = replay(b'{"error":{"mess', b'age":"why"}}', status=status)
        async with model, model.stream("x") as stream:
            with pytest.raises(error, match="why") as raised:
                await stream.collect()
            assert transport.open_responses == 0
        assert raised.value.partial == stream.response
        assert not raised.value.committed

    async def test_no_more_of_an_error_is_read_than_is_kept(self) -> None:
        log: list[str] = []
        steps: list[Step] = [b"x" * 20_000] * 4
        model, _ = replay(*steps, noting(log, "read on"), b"x", status=500)
        async with model:
            with pytest.raises(ServerFault) as raised:
                await model.complete("x")
        assert raised.value.body == "x" * MAX_ERROR_BODY_BYTES
        assert log == []

    @pytest.mark.parametrize("error", [ConnectionLost("cut"), IdleTimeout("late"), BadFrame("odd")])
    async def test_an_error_whose_body_is_cut_is_still_that_error(self, error: LoomstreamError) -> None:
        model, _ = replay(b'{"error":{"message":"slow down"}}', failing(error), status=429)
        async with model:
            with pytest.raises(RateLimited, match="slow down"):
                await model.complete("x")

    async def test_the_handler_is_a_building_block(self) -> None:
        model, _ = replay(ANSWER)
        request = Request(messages=(loomstream.user("x"),))
        async with model, model.handler(request) as events:
            assert isinstance(await anext(events), Start)

    async def test_middleware_of_your_own_takes_the_place_of_the_default(self) -> None:
        log: list[str] = []

        def own(handler: Handler) -> Handler:
            @asynccontextmanager
            async def wrapped(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
                log.append("open")
                async with handler(request) as events:
                    yield events
                log.append("closed")

            return wrapped

        model, _ = replay(ANSWER, middleware=[own])
        async with model, model.stream("x") as stream:
            events = [event async for event in stream]
            assert log == ["open", "closed"]
        assert not any(isinstance(event, Cost) for event in events)
        assert stream.response.cost.amount_usd == Decimal("0.0035")


# --- the transport fails around the terminal marker --------------------------------------------------


@pytest.mark.anyio
class TestTerminalMarker:
    @pytest.mark.parametrize("error", [ConnectionLost("cut"), IdleTimeout("late")])
    async def test_a_fault_after_the_marker_leaves_a_whole_answer(self, error: LoomstreamError) -> None:
        model, transport = replay(delta("hi") + FINISH, USAGE, failing(error))
        async with model, model.stream("x") as stream:
            events = [event async for event in stream]
        check_order(events)
        assert events[-1] == Stop("end_turn", "stop")
        assert stream.response.usage is not None
        assert stream.response.usage.final
        assert transport.open_responses == 0

    @pytest.mark.parametrize("error", [ConnectionLost("cut"), IdleTimeout("late")])
    async def test_a_fault_before_the_marker_is_that_fault(self, error: LoomstreamError) -> None:
        model, _ = replay(delta("h"), delta("i"), failing(error))
        async with model, model.stream("x") as stream:
            with pytest.raises(type(error)) as raised:
                await stream.collect()
        assert raised.value is error
        assert raised.value.__cause__ is None
        assert raised.value.partial is not None
        assert raised.value.partial.text == "hi"
        assert raised.value.committed
        assert not stream.response.complete

    async def test_a_fault_in_the_middle_of_a_frame_is_that_fault(self) -> None:
        model, _ = replay(delta("hi"), FINISH[:-10], failing(ConnectionLost("cut")))
        async with model:
            with pytest.raises(ConnectionLost):
                await model.complete("x")

    async def test_an_end_before_the_marker_is_a_truncation(self) -> None:
        model, _ = replay(delta("hi"))
        async with model, model.stream("x") as stream:
            with pytest.raises(StreamTruncated) as raised:
                await stream.collect()
        assert raised.value.partial is not None
        assert raised.value.partial.text == "hi"

    async def test_an_end_after_the_marker_is_whole(self) -> None:
        model, _ = replay(delta("hi"), FINISH)
        async with model:
            assert (await model.complete("x")).complete

    async def test_an_error_among_the_frames_ends_the_stream_after_what_came_before(self) -> None:
        model, _ = replay(delta("hi") + sse({"error": {"message": "broken"}}) + delta("more"))
        async with model, model.stream("x") as stream:
            with pytest.raises(ServerFault, match="broken"):
                await stream.collect()
        assert stream.response.text == "hi"


# --- time limits, on a virtual clock -----------------------------------------------------------------


class SlowToOpen(ReplayTransport):
    """Takes its time before the headers come."""

    def __init__(self, wait_s: float, *recordings: Recording) -> None:
        super().__init__(*recordings)
        self.wait_s = wait_s

    @asynccontextmanager
    async def open(self, wire_request: WireRequest, *, connect_s: float | None = None) -> AsyncGenerator[ByteResponse]:
        await anyio.sleep(self.wait_s)
        async with super().open(wire_request, connect_s=connect_s) as response:
            yield response


@pytest.mark.anyio
class TestTimeLimits:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> object:
        return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]

    async def elapsed(self, model: Model, error: type[LoomstreamError] | None, **options: object) -> float:
        began_s = anyio.current_time()
        async with model, model.stream("x", **options) as stream:
            if error is None:
                await stream.collect()
            else:
                with pytest.raises(error):
                    await stream.collect()
        return anyio.current_time() - began_s

    async def test_no_first_event(self) -> None:
        model, transport = replay(sleeping(3600), ANSWER, middleware=())
        assert await self.elapsed(model, FirstEventTimeout) == pytest.approx(60)
        assert transport.open_responses == 0

    async def test_the_wait_for_the_headers_counts(self) -> None:
        transport = SlowToOpen(3600, Recording([ANSWER]))
        model = replay_model("openai", transport=transport, middleware=())
        assert await self.elapsed(model, FirstEventTimeout) == pytest.approx(60)
        transport = SlowToOpen(40, Recording([sleeping(40), ANSWER]))
        model = replay_model("openai", transport=transport, middleware=())
        assert await self.elapsed(model, FirstEventTimeout) == pytest.approx(60)

    async def test_pings_are_no_first_event(self) -> None:
        steps: list[Step] = [step for _ in range(30) for step in (PING, sleeping(5))]
        model, _ = replay(*steps, ANSWER, middleware=())
        assert await self.elapsed(model, FirstEventTimeout) == pytest.approx(60)

    async def test_a_stall_after_the_first_event(self) -> None:
        model, _ = replay(delta("hi"), sleeping(3600), ANSWER)
        assert await self.elapsed(model, IdleTimeout, timeouts=Timeouts(idle_s=20)) == pytest.approx(20)

    async def test_pings_do_not_hide_a_stall(self) -> None:
        steps: list[Step] = [step for _ in range(30) for step in (sleeping(5), PING)]
        model, _ = replay(delta("hi"), *steps, ANSWER)
        assert await self.elapsed(model, IdleTimeout, timeouts=Timeouts(idle_s=20)) == pytest.approx(20)

    async def test_an_hour_of_a_healthy_stream(self) -> None:
        steps: list[Step] = [step for _ in range(72) for step in (sleeping(50), delta("x"))]
        model, _ = replay(*steps, FINISH, DONE)
        assert await self.elapsed(model, None) == pytest.approx(3600)

    async def test_a_slow_consumer_trips_nothing(self) -> None:
        model, _ = replay(delta("a"), sleeping(10), delta("b"), FINISH, DONE)
        async with model, model.stream("x") as stream:
            async for _ in stream:
                await anyio.sleep(600)
        assert stream.response.complete

    async def test_limits_that_are_off(self) -> None:
        model, _ = replay(sleeping(9999), delta("a"), sleeping(9999), FINISH, DONE)
        off = Timeouts(first_event_s=None, idle_s=None)
        assert await self.elapsed(model, None, timeouts=off) == pytest.approx(2 * 9999)

    async def test_a_stall_behind_the_marker_ends_a_whole_answer(self) -> None:
        model, transport = replay(delta("hi"), FINISH, USAGE, sleeping(3600))
        assert await self.elapsed(model, None, timeouts=Timeouts(idle_s=5)) == pytest.approx(5)
        assert transport.open_responses == 0

    async def test_a_stall_in_an_error_s_body_leaves_the_error(self) -> None:
        model, _ = replay(b'{"error":{"message":"slow down"}}', sleeping(3600), status=429, middleware=())
        assert await self.elapsed(model, RateLimited, timeouts=Timeouts(first_event_s=5)) == pytest.approx(5)

    async def test_a_consumer_may_take_its_time_over_events_without_content_too(self) -> None:
        head = sse({"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"role": "assistant"}}]})
        model, _ = replay(head, sleeping(1), ANSWER)
        async with model, model.stream("x", timeouts=Timeouts(first_event_s=5)) as stream:
            async for _event in stream:
                await anyio.sleep(3600)
        assert stream.response.text == "hi"

    async def test_draining_gives_up_soon(self) -> None:
        model, transport = replay(ANSWER, sleeping(3600))
        assert await self.elapsed(model, None) == pytest.approx(0.05)
        assert transport.open_responses == 0

    async def test_an_error_says_which_limit_to_raise(self) -> None:
        model, _ = replay(delta("hi"), sleeping(3600))
        async with model, model.stream("x", timeouts=Timeouts(idle_s=1.5)) as stream:
            with pytest.raises(IdleTimeout, match=r"1.5 s .*timeouts=Timeouts\(idle_s=\d+\)") as raised:
                await stream.collect()
        assert raised.value.partial is not None
        assert raised.value.partial.text == "hi"


# --- models that cannot stream -----------------------------------------------------------------------

WHOLE = {
    "id": "c1",
    "model": "m-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
}


@pytest.mark.anyio
class TestWithoutStreaming:
    @pytest.fixture(autouse=True)
    def cannot_stream(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """gpt-4o is taken for a model that cannot stream."""
        known = catalog.look_up("openai", "gpt-4o")
        assert known is not None
        entry = msgspec.structs.replace(known, streaming=False)
        monkeypatch.setattr(catalog, "look_up", lambda provider, model: entry if model == "gpt-4o" else None)  # noqa: ARG005 (its signature)

    async def kinds(self, transport: ReplayTransport, **options: object) -> list[str]:
        async with replay_model("openai", transport=transport) as model, model.stream("x", **options) as stream:
            events = [event async for event in stream]
        check_order(events)
        assert stream.response.text == "hi"
        return [type(event).__name__ for event in events]

    async def test_it_asks_for_no_stream_and_gives_the_same_events(self) -> None:
        whole = ReplayTransport(Recording([json.dumps(WHOLE).encode()], headers={"content-type": "application/json"}))
        assert await self.kinds(whole) == [
            "Start", "TextStart", "TextDelta", "TextEnd", "Usage", "Cost", "Stop",
        ]  # fmt: skip
        assert not json.loads(whole.requests[0].body).keys() & {"stream", "stream_options"}

    async def test_stream_can_be_asked_for_all_the_same(self) -> None:
        transport = ReplayTransport(Recording([ANSWER]))
        await self.kinds(transport, stream=True)
        assert json.loads(transport.requests[0].body)["stream"] is True

    async def test_a_default_is_as_good(self) -> None:
        transport = ReplayTransport(Recording([ANSWER]))
        async with replay_model("openai", transport=transport, stream=True) as model:
            await model.complete("x")
        assert json.loads(transport.requests[0].body)["stream"] is True

    async def test_a_model_that_can_stream_may_be_asked_not_to(self) -> None:
        transport = ReplayTransport(Recording([json.dumps(WHOLE).encode()]))
        async with replay_model("openai", model="other", transport=transport) as model:
            assert (await model.complete("x", stream=False)).text == "hi"
        assert "stream" not in json.loads(transport.requests[0].body)


# --- what is repeated without asking -------------------------------------------------------------


def refusal(message: str, status: int = 400, **fields: object) -> Recording:
    body = {"error": {"message": message, "type": "invalid_request_error", **fields}}
    return Recording([json.dumps(body).encode()], status, headers={"content-type": "application/json"})


WHOLE_ANSWER = Recording([json.dumps(WHOLE).encode()], headers={"content-type": "application/json"})
REFUSED_STREAM = refusal("Unsupported value: 'stream' does not support true with this model.", param="stream")
REFUSED_USAGE = refusal("Unrecognized request argument supplied: stream_options")


def sent(transport: ReplayTransport) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in transport.requests]


class Reconnecting(ReplayTransport):
    """Says that it had to send the request twice."""

    @asynccontextmanager
    async def open(self, wire_request: WireRequest, *, connect_s: float | None = None) -> AsyncGenerator[ByteResponse]:
        async with super().open(wire_request, connect_s=connect_s) as response:
            yield msgspec.structs.replace(response, notices=("sent again",))


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_transport_did_again_is_told_first(*, stream: bool) -> None:
    recording = Recording([delta("hi"), FINISH]) if stream else WHOLE_ANSWER
    model = replay_model("openai", transport=Reconnecting(recording))
    async with model, model.stream("x", stream=stream) as answer:
        events = [event async for event in answer]
    check_order(events)
    assert events[:2] == [Notice("retry", "sent again"), events[1]]
    assert isinstance(events[1], Start)


@pytest.mark.anyio
class TestWhatIsRepeated:
    async def run(self, *recordings: Recording, **options: object) -> tuple[list[Event], ReplayTransport]:
        transport = ReplayTransport(*recordings)
        async with replay_model("openai", transport=transport) as model, model.stream("x", **options) as stream:
            events = [event async for event in stream]
        check_order(events)
        assert transport.open_responses == 0
        return events, transport

    async def test_a_stream_that_the_model_refuses_is_asked_for_whole(self) -> None:
        events, transport = await self.run(REFUSED_STREAM, WHOLE_ANSWER)
        assert [body.get("stream") for body in sent(transport)] == [True, None]
        assert events[0] == Notice("warning", "openai refused 'stream': the request is repeated without it")
        assert [type(event).__name__ for event in events[1:]] == [
            "Start", "TextStart", "TextDelta", "TextEnd", "Usage", "Cost", "Stop",
        ]  # fmt: skip

    async def test_streamed_usage_that_the_host_refuses_is_left_out(self) -> None:
        events, transport = await self.run(REFUSED_USAGE, Recording([ANSWER]))
        assert ["stream_options" in body for body in sent(transport)] == [True, False]
        assert all(body["stream"] for body in sent(transport))
        assert events[0] == Notice("warning", "openai refused 'stream_options': the request is repeated without it")

    @pytest.mark.parametrize(
        "message",
        [
            "The model is unsupported for streaming.",
            "This model doesn't support tool use in streaming mode.",
            "Bad request. streaming is not supported for this model.",
        ],
    )
    async def test_hosts_refuse_a_stream_in_words_of_their_own(self, message: str) -> None:
        _, transport = await self.run(refusal(message), WHOLE_ANSWER)
        assert [body.get("stream") for body in sent(transport)] == [True, None]

    async def test_each_is_left_out_once(self) -> None:
        transport = ReplayTransport(REFUSED_USAGE, REFUSED_STREAM, REFUSED_STREAM)
        async with replay_model("openai", transport=transport) as model:
            with pytest.raises(BadRequest, match="does not support true"):
                await model.complete("x")
        assert len(transport.requests) == 3

    @pytest.mark.parametrize(
        "recording",
        [
            refusal("max_tokens is too large: streams of this length are not supported"),
            refusal("the downstream model is unknown"),
            refusal("Invalid schema for function 'stream': 'foo' is not allowed", param="tools[0]"),
            refusal("unknown field max_tokens; see the docs of stream"),
            refusal("Unsupported parameter. Set stream to false or true."),
            refusal("'stream' must be a boolean", param="stream"),
            refusal("Unsupported value: 'stream'", status=500),
        ],
    )
    async def test_no_other_refusal_is_repeated(self, recording: Recording) -> None:
        transport = ReplayTransport(recording)
        async with replay_model("openai", transport=transport, middleware=()) as model:
            with pytest.raises(LoomstreamError):
                await model.complete("x")
        assert len(transport.requests) == 1

    async def test_a_token_that_was_refused_is_fetched_anew_once(self) -> None:
        tokens = itertools.count()
        transport = ReplayTransport(refusal("expired", 401), Recording([ANSWER]))
        endpoint = Endpoint(look_up("openai"), "m", api_key=lambda: f"token-{next(tokens)}")
        async with Model(endpoint, transport=transport) as model:
            assert (await model.complete("x")).text == "hi"
        assert len(transport.requests) == 2
        keys = [cast("Secret", request.headers["authorization"]).reveal() for request in transport.requests]
        assert keys[0] != keys[1]

    async def test_each_of_many_requests_with_an_old_token_is_repeated_with_the_new_one(self) -> None:
        tokens = ["old-token-1"]
        gate = anyio.Event()

        class Gated(ReplayTransport):
            @asynccontextmanager
            async def open(
                self, wire_request: WireRequest, *, connect_s: float | None = None
            ) -> AsyncGenerator[ByteResponse]:
                old = "old" in cast("Secret", wire_request.headers["authorization"]).reveal()
                if old and sum("old" in str(request) for request in self.requests) < 4:
                    await gate.wait()
                self._recordings = [refusal("expired", 401) if old else Recording([ANSWER])]
                async with super().open(wire_request, connect_s=connect_s) as response:
                    yield response

        answers: list[str] = []
        async with Model(Endpoint(look_up("openai"), "m", api_key=lambda: tokens[0]), transport=Gated()) as model:

            async def ask() -> None:
                answers.append((await model.complete("x")).text)

            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                tokens[0] = "new-token-2"
                gate.set()
        assert answers == ["hi"] * 4

    async def test_no_error_shows_the_token_that_its_own_request_sent(self) -> None:
        count = itertools.count()

        class Echo(ReplayTransport):
            @asynccontextmanager
            async def open(
                self, wire_request: WireRequest, *, connect_s: float | None = None
            ) -> AsyncGenerator[ByteResponse]:
                sent = cast("Secret", wire_request.headers["authorization"]).reveal()
                await anyio.wait_all_tasks_blocked()  # the others have their tokens by now
                self._recordings = [refusal(f"bad key {sent}")]
                async with super().open(wire_request, connect_s=connect_s) as response:
                    yield response

        shown: list[str] = []
        endpoint = Endpoint(look_up("openai"), "m", api_key=lambda: f"{CANARY}-{next(count)}")
        async with Model(endpoint, transport=Echo()) as model:

            async def ask() -> None:
                with pytest.raises(BadRequest) as raised:
                    await model.complete("x")
                shown.append(str(raised.value))

            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(ask)
        assert len(shown) == 5
        assert not any(CANARY in text for text in shown)

    async def test_a_key_that_was_refused_is_not_sent_again(self) -> None:
        transport = ReplayTransport(refusal("wrong key", 401), Recording([ANSWER]))
        async with replay_model("openai", transport=transport) as model:
            with pytest.raises(AuthFailed, match="wrong key"):
                await model.complete("x")
        assert len(transport.requests) == 1

    async def test_a_second_refusal_is_the_end(self) -> None:
        count = itertools.count()
        transport = ReplayTransport(refusal("expired", 401), refusal("expired", 401), Recording([ANSWER]))
        endpoint = Endpoint(look_up("openai"), "m", api_key=lambda: f"token-{next(count)}")
        async with Model(endpoint, transport=transport) as model:
            with pytest.raises(AuthFailed):
                await model.complete("x")
        assert len(transport.requests) == 2


# --- waiting for a whole answer ------------------------------------------------------------------


@pytest.mark.anyio
class TestHeartbeats:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> object:
        return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]

    async def test_a_notice_says_that_the_answer_is_waited_for(self) -> None:
        body = json.dumps(WHOLE).encode()
        transport = SlowToOpen(12, Recording([body[:20], sleeping(13), body[20:]]))
        async with replay_model("openai", transport=transport) as model, model.stream("x", stream=False) as stream:
            events = [event async for event in stream]
        check_order(events)
        beats = [event for event in events if isinstance(event, Notice)]
        assert [beat.kind for beat in beats] == ["heartbeat", "heartbeat"]
        assert [beat.detail.partition(":")[0] for beat in beats] == [
            "no answer yet after 10 s",
            "no answer yet after 20 s",
        ]
        assert stream.response.text == "hi"

    async def test_an_answer_may_take_longer_than_a_stream_may_be_silent(self) -> None:
        transport = SlowToOpen(590, Recording([json.dumps(WHOLE).encode()]))
        async with replay_model("openai", transport=transport) as model:
            assert (await model.complete("x", stream=False)).text == "hi"

    @pytest.mark.parametrize("body", [[sleeping(9999)], [b"{", sleeping(9999)]])
    async def test_but_not_for_ever(self, body: list[Step]) -> None:
        began_s = anyio.current_time()
        transport = ReplayTransport(Recording(body))
        async with replay_model("openai", transport=transport, middleware=()) as model:
            with pytest.raises(FirstEventTimeout, match=r"no whole answer within 30 s.*Timeouts\(whole_s=\d+\)"):
                await model.complete("x", stream=False, timeouts=Timeouts(whole_s=30))
        assert anyio.current_time() - began_s == pytest.approx(30)
        assert transport.open_responses == 0

    async def test_a_function_that_gives_no_token_is_not_waited_for_for_ever(self) -> None:
        count = itertools.count()

        async def token() -> str:
            if next(count):
                await anyio.sleep(9999)
            return "token"

        endpoint = Endpoint(look_up("openai"), "m", api_key=token)
        async with Model(endpoint, transport=ReplayTransport(Recording([ANSWER]))) as model:
            with pytest.raises(ConnectFailed, match="gave no token within 60 s"):
                await model.complete("x")

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
    async def test_what_ends_a_program_comes_out_of_the_wait(self, error: type[BaseException]) -> None:
        async def end() -> None:
            raise error

        transport = ReplayTransport(Recording([b"{", end]))
        async with replay_model("openai", transport=transport) as model:
            with pytest.raises(error):
                await model.complete("x", stream=False)
        assert transport.open_responses == 0

    async def test_the_total_limit_holds(self) -> None:
        transport = SlowToOpen(600, Recording([json.dumps(WHOLE).encode()]))
        began_s = anyio.current_time()
        async with replay_model("openai", transport=transport) as model:
            with pytest.raises(DeadlineExceeded):
                await model.complete("x", stream=False, timeouts=Timeouts(total_s=35))
        assert anyio.current_time() - began_s == pytest.approx(35)
        assert transport.open_responses == 0

    async def test_leaving_between_two_beats_closes_the_response(self) -> None:
        transport = ReplayTransport(Recording([b"{", sleeping(600), b"}"]))
        async with replay_model("openai", transport=transport) as model:
            async with model.stream("x", stream=False) as stream:
                assert isinstance(await anext(stream), Notice)
                assert transport.open_responses == 1
            assert transport.open_responses == 0

    async def test_a_failure_while_waiting_is_raised_with_what_came_before(self) -> None:
        error = ConnectionLost("reset")
        transport = ReplayTransport(Recording([json.dumps(WHOLE).encode()[:30], failing(error)]))
        async with replay_model("openai", transport=transport) as model:
            with pytest.raises(ConnectionLost, match="reset"):
                await model.complete("x", stream=False)


# --- what a host says of its models --------------------------------------------------------------


def said(body: object, status: int = 200) -> Recording:
    return Recording([json.dumps(body).encode()], status, headers={"content-type": "application/json"})


def unfound() -> Recording:
    return said({"error": "model 'lama3' not found"}, 404)


OLLAMA_ANSWER = Recording(
    [b'{"model":"m","message":{"role":"assistant","content":"hi"},"done":false}\n{"done":true,"done_reason":"stop"}\n'],
    headers={"content-type": "application/x-ndjson"},
)
WEATHER = Tool("weather", "the weather")


@pytest.mark.anyio
class TestWhatTheHostSays:
    def model(self, transport: ReplayTransport) -> Model:
        return Model(Endpoint(look_up("ollama"), "lama3"), transport=transport)

    async def test_a_missing_model_is_told_with_the_nearest_that_there_is(self) -> None:
        transport = ReplayTransport(unfound(), said({"models": [{"name": "llama3:8b"}, {"name": "qwen:7b"}]}))
        async with self.model(transport) as model:
            with pytest.raises(ModelNotFound, match=r"ollama pull lama3.*llama3:8b"):
                await model.complete("x")
        assert [request.url.rpartition("/")[2] for request in transport.requests] == ["chat", "tags"]

    async def test_a_host_that_does_not_say_leaves_the_error_as_it_was(self) -> None:
        transport = ReplayTransport(unfound(), said({"error": "no"}, 500))
        async with self.model(transport) as model:
            with pytest.raises(ModelNotFound, match="ollama pull lama3"):
                await model.complete("x")

    async def test_tools_are_not_sent_to_a_model_that_has_none(self) -> None:
        transport = ReplayTransport(said({"capabilities": ["completion"]}))
        async with self.model(transport) as model:
            with pytest.raises(Unsupported, match="tools"):
                await model.complete("x", tools=[WEATHER], tool_mode="native")
        assert len(transport.requests) == 1

    async def test_the_host_is_asked_once_and_only_where_it_matters(self) -> None:
        transport = ReplayTransport(OLLAMA_ANSWER, said({"capabilities": ["completion", "tools"]}), OLLAMA_ANSWER)
        async with self.model(transport) as model:
            await model.complete("x")
            await model.complete("x", tools=[WEATHER])
            await model.complete("x", tools=[WEATHER])
        urls = [request.url.rpartition("/")[2] for request in transport.requests]
        assert urls == ["chat", "show", "chat", "chat"]

    async def test_a_host_that_knows_no_such_question_is_asked_once(self) -> None:
        transport = ReplayTransport(said({"error": "404 page not found"}, 404), OLLAMA_ANSWER)
        async with self.model(transport) as model:
            async with model.stream("x", tools=[WEATHER]) as stream:
                first = await anext(stream)
            assert first == Notice("warning", "ollama did not say what lama3 can do (ModelNotFound): it is tried")
            assert (await model.complete("x", tools=[WEATHER])).text == "hi"
        assert [request.url.rpartition("/")[2] for request in transport.requests] == ["show", "chat", "chat"]

    @pytest.mark.parametrize("stream", [True, False])
    async def test_where_nobody_listens_the_row_says_what_to_do(self, *, stream: bool) -> None:
        async with loomstream.connect("ollama:m", base_url="http://127.0.0.1:9", middleware=()) as model:
            with pytest.raises(ConnectFailed, match="ollama serve"):
                await model.complete("x", stream=stream)


@pytest.mark.anyio
@pytest.mark.parametrize(("code", "requests"), [("ExpiredTokenException", 2), ("AccessDeniedException", 1)])
async def test_a_403_is_repeated_only_where_the_credential_has_expired(code: str, requests: int) -> None:
    count = itertools.count()
    refused = Recording([b'{"message":"no"}'], 403, headers={"x-amzn-errortype": code})
    transport = ReplayTransport(refused)
    endpoint = Endpoint(look_up("bedrock"), "m", api_key=lambda: f"token-{next(count)}")
    async with Model(endpoint, transport=transport) as model:
        with pytest.raises(AuthFailed):
            await model.complete("x")
    assert len(transport.requests) == requests


@pytest.mark.anyio
async def test_a_dialect_that_fails_once_the_answer_is_there_leaves_no_response_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transport = ReplayTransport(Recording([ANSWER]))
    async with replay_model("openai", transport=transport) as model:
        monkeypatch.setattr(loomstream.dialects.openai_chat, "translator", lambda target: 1 / 0)  # noqa: ARG005 (its signature)
        with pytest.raises(LoomstreamError):
            await model.complete("x")
    assert transport.open_responses == 0
