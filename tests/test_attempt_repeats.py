"""What an attempt sends again without asking, and what it asks the host before it gives up."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import anyio.lowlevel
import msgspec
import pytest
from models import (
    ANSWER,
    CANARY,
    FINISH,
    WHOLE_ANSWER,
    delta,
)

import loomstream
import loomstream.dialects.openai_chat
from loomstream.endpoint import Endpoint
from loomstream.errors import (
    AuthFailed,
    BadRequest,
    ConnectFailed,
    LoomstreamError,
    ModelNotFound,
    Unsupported,
)
from loomstream.events import Event, Notice, Start
from loomstream.messages import Tool
from loomstream.model import Model
from loomstream.providers import look_up
from loomstream.testing import Recording, ReplayTransport, check_order, replay_model
from loomstream.transport import ByteResponse
from loomstream.wire import Secret, WireRequest

pytestmark = pytest.mark.usefixtures("no_keys")


# --- what is repeated without asking -------------------------------------------------------------


def refusal(message: str, status: int = 400, **fields: object) -> Recording:
    body = {"error": {"message": message, "type": "invalid_request_error", **fields}}
    return Recording([json.dumps(body).encode()], status, headers={"content-type": "application/json"})


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
