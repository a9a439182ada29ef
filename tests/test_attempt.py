"""One attempt from request to events; answers that are not streamed."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import anyio
import anyio.lowlevel
import msgspec
import pytest
from models import (
    ANSWER,
    DONE,
    FINISH,
    USAGE,
    WHOLE,
    delta,
    failing,
    noting,
    replay,
    sse,
)

import loomstream
import loomstream.dialects.openai_chat
from loomstream import catalog
from loomstream.endpoint import Endpoint
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    ConnectionLost,
    IdleTimeout,
    LoomstreamError,
    RateLimited,
    RequestError,
    ServerFault,
    StreamTruncated,
    UsageError,
)
from loomstream.events import Cost, Event, Raw, Start, Stop
from loomstream.handler import Handler
from loomstream.messages import Request
from loomstream.model import Model
from loomstream.providers import look_up
from loomstream.pump import MAX_ERROR_BODY_BYTES
from loomstream.testing import Recording, ReplayTransport, check_order, replay_model
from loomstream.testing.replay import Step

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


# --- models that cannot stream -----------------------------------------------------------------------


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
