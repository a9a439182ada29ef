"""aimock as a peer for Amazon Bedrock: Converse, and InvokeModel with Messages; signed, or with a bearer token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from models import counting

import loomstream as ls
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    ChecksumMismatch,
    ConnectionLost,
    LoomstreamError,
    ModelNotFound,
    Overloaded,
    RateLimited,
    ServerFault,
    UnexpectedContent,
)
from loomstream.events import Event

pytestmark = pytest.mark.anyio

Read = Callable[[ls.Stream], Awaitable[list[Event]]]
ReadToError = Callable[[ls.Stream], Awaitable[tuple[list[Event], LoomstreamError]]]

MODEL = "us.anthropic.claude-sonnet-4-6-v1:0"
TOKEN = "bedrock-canary-0123456789"
PATHS = {
    "bedrock_converse": ("converse-stream", "converse"),
    "bedrock_invoke": ("invoke-with-response-stream", "invoke"),
}
WEATHER = ls.Tool("get_weather", "Tells the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
TIME = ls.Tool("get_time")
TEXT = "The river runs to the sea, “über alle Berge” 🌊."
CUT = "This answer is cut before its end comes, in the middle of a sentence."


@pytest.fixture(params=PATHS)
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def model(aimock: Any, dialect: str) -> AsyncIterator[ls.Model]:  # noqa: ANN401 (fixtures of conftest)
    spec = f"bedrock:{MODEL}"
    counted = counting("bedrock", MODEL)
    async with ls.connect(spec, base_url=aimock.url, api_key=TOKEN, dialect=dialect, middleware=counted) as connected:
        yield connected


async def test_text(model: ls.Model, dialect: str, read: Read) -> None:
    stream = model.stream("plain text")
    events = await read(stream)
    assert stream.response.text == TEXT
    assert sum(isinstance(event, ls.TextDelta) for event in events) == 6
    assert stream.response.stop is not None
    assert stream.response.stop.reason == "end_turn"
    assert stream.response.unknown_frames == 0
    assert stream.usage is not None
    assert stream.usage.input_tokens == 11
    assert stream.usage.output_tokens == (7 if dialect == "bedrock_converse" else 0)  # aimock counts none there


async def test_two_tool_calls_and_their_results(model: ls.Model, read: Read) -> None:
    first = model.stream("two tools", tools=[WEATHER, TIME])
    events = await read(first)
    ends = [event for event in events if isinstance(event, ls.ToolCallEnd)]
    assert [(end.id, end.name, end.arguments, end.executable) for end in ends] == [
        ("call_weather", "get_weather", '{"city":"Oslo","days":3}', True),
        ("call_time", "get_time", '{"zone":"CET"}', True),
    ]
    assert first.response.stop is not None
    assert first.response.stop.reason == "tool_use"
    results = [ls.tool_result(call, f"{call.name}: fine") for call in first.response.tool_calls]
    second = model.stream([ls.user("two tools"), first.response.message, *results], tools=[WEATHER, TIME])
    await read(second)
    assert second.response.text == "It snows in Oslo."


async def test_reasoning(model: ls.Model, read: Read) -> None:
    stream = model.stream("think first")
    await read(stream)
    assert stream.response.reasoning == "Two and two make four."
    assert stream.response.text == "Four."


@pytest.mark.parametrize("prompt", ["plain text", "two tools", "text and tool", "think first"])
async def test_without_streaming_the_same_answer_folds(model: ls.Model, prompt: str, read: Read) -> None:
    streamed, whole = model.stream(prompt), model.stream(prompt, stream=False)
    await read(streamed)
    await read(whole)
    assert whole.response.text == streamed.response.text
    assert whole.response.reasoning == streamed.response.reasoning
    assert whole.response.tool_calls == streamed.response.tool_calls
    assert whole.response.stop == streamed.response.stop


async def test_what_we_sent(model: ls.Model, aimock: Any, dialect: str) -> None:  # noqa: ANN401 (fixtures of conftest)
    await model.complete("plain text", temperature=0, max_tokens=40, tools=[WEATHER], system="Be brief.")
    await model.complete("plain text", stream=False)
    streamed, whole = aimock.get("/__aimock/journal")
    written = MODEL.replace(":", "%3A")
    assert [streamed["path"], whole["path"]] == [f"/model/{written}/{operation}" for operation in PATHS[dialect]]
    body = streamed["body"]
    assert body["temperature"] == 0
    assert body["max_tokens"] == 40
    assert [(said["role"], said["content"]) for said in body["messages"]] == [
        ("system", "Be brief."),
        ("user", "plain text"),
    ]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_weather"]
    assert streamed["headers"]["accept"].startswith("application/vnd.amazon.eventstream")
    assert [name for name, value in streamed["headers"].items() if value == "[REDACTED]"] == ["authorization"]


# --- faults ------------------------------------------------------------------------------------------------------


async def test_a_cut_stream_is_an_error_with_what_came(model: ls.Model, read_to_error: ReadToError) -> None:
    events, error = await read_to_error(model.stream("cut me"))
    assert isinstance(error, ls.StreamTruncated | ConnectionLost)
    assert error.partial is not None
    assert CUT.startswith(error.partial.text)
    assert error.partial.text
    assert not any(isinstance(event, ls.Stop) for event in events)


STATUSES: dict[str, type[LoomstreamError]] = {
    "wrong key": AuthFailed,
    "no model": ModelNotFound,
    "overloaded": Overloaded,
    "broken": ServerFault,
    "too many": RateLimited,
}


@pytest.mark.parametrize("prompt", STATUSES)
@pytest.mark.parametrize("stream", [True, False])
async def test_error_answers(model: ls.Model, prompt: str, stream: bool) -> None:  # noqa: FBT001 (a parameter)
    with pytest.raises(STATUSES[prompt]) as caught:
        await model.complete(prompt, stream=stream)
    assert type(caught.value) is STATUSES[prompt]
    assert TOKEN not in str(caught.value)


CHAOS: dict[str, tuple[type[LoomstreamError], ...]] = {
    "drop": (ServerFault,),
    "disconnect": (ConnectionLost,),
    "malformed": (BadFrame, ChecksumMismatch, UnexpectedContent),
}


@pytest.mark.parametrize("kind", CHAOS)
async def test_chaos(model: ls.Model, kind: str) -> None:
    with pytest.raises(CHAOS[kind]) as caught:
        await model.complete("plain text", extra_headers={f"x-aimock-chaos-{kind}": "1"})
    assert not caught.value.committed
