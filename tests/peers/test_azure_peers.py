"""aimock as a peer for Azure OpenAI's endpoint without dates: Chat Completions and Responses.

aimock tells no dated version from another and knows no deployment: what is shown is the path, the header and the wire.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from models import counting

import loomstream as ls
from loomstream.errors import (
    AuthFailed,
    ConnectionLost,
    LoomstreamError,
    ModelNotFound,
    Overloaded,
    RateLimited,
    ServerFault,
)
from loomstream.events import Event

pytestmark = pytest.mark.anyio

Read = Callable[[ls.Stream], Awaitable[list[Event]]]
ReadToError = Callable[[ls.Stream], Awaitable[tuple[list[Event], LoomstreamError]]]

KEY = "sk-canary-0123456789"
PATHS = {"openai_chat": "/openai/v1/chat/completions", "openai_responses": "/openai/v1/responses"}
WEATHER = ls.Tool("get_weather", "Tells the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
TIME = ls.Tool("get_time")
TEXT = "The river runs to the sea, “über alle Berge” 🌊."


@pytest.fixture(params=PATHS)
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def model(aimock: Any, dialect: str) -> AsyncIterator[ls.Model]:  # noqa: ANN401 (fixtures of conftest)
    bare = counting("azure-openai", "work")
    connected = ls.connect("azure-openai:work", base_url=aimock.url, api_key=KEY, dialect=dialect, middleware=bare)
    async with connected as found:
        yield found


async def test_text_and_usage(model: ls.Model, read: Read) -> None:
    stream = model.stream("plain text")
    events = await read(stream)
    assert stream.response.text == TEXT
    assert sum(isinstance(event, ls.TextDelta) for event in events) == 6
    assert stream.usage is not None
    assert (stream.usage.input_tokens, stream.usage.output_tokens, stream.usage.final) == (11, 7, True)


async def test_two_tool_calls_and_their_results(model: ls.Model, read: Read) -> None:
    first = model.stream("two tools", tools=[WEATHER, TIME])
    await read(first)
    calls = first.response.tool_calls
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("call_weather", "get_weather", '{"city":"Oslo","days":3}'),
        ("call_time", "get_time", '{"zone":"CET"}'),
    ]
    results = [ls.tool_result(call, f"{call.name}: fine") for call in calls]
    second = model.stream([ls.user("two tools"), first.response.message, *results], tools=[WEATHER, TIME])
    await read(second)
    assert second.response.text == "It snows in Oslo."


@pytest.mark.parametrize("prompt", ["plain text", "two tools", "text and tool"])
async def test_without_streaming_the_same_answer_folds(model: ls.Model, prompt: str, read: Read) -> None:
    streamed, whole = model.stream(prompt), model.stream(prompt, stream=False)
    await read(streamed)
    await read(whole)
    one, other = streamed.response, whole.response
    assert (one.message, one.stop, one.model) == (other.message, other.stop, other.model)


async def test_what_we_sent(model: ls.Model, aimock: Any, dialect: str) -> None:  # noqa: ANN401 (as above)
    await model.complete("plain text", max_tokens=40)
    (entry,) = aimock.get("/__aimock/journal")
    assert entry["path"] == PATHS[dialect]
    assert entry["body"]["model"] == "work"
    assert KEY not in json.dumps(entry)
    # The journal hides credentials, and so shows which of its headers held one.
    assert [name for name, value in entry["headers"].items() if value == "[REDACTED]"] == ["api-key"]


STATUSES: dict[str, type[LoomstreamError]] = {
    "wrong key": AuthFailed,
    "no model": ModelNotFound,
    "too many": RateLimited,
    "overloaded": Overloaded,
    "broken": ServerFault,
}


@pytest.mark.parametrize("prompt", STATUSES)
@pytest.mark.parametrize("stream", [True, False])
async def test_error_answers(model: ls.Model, prompt: str, stream: bool) -> None:  # noqa: FBT001 (a parameter)
    with pytest.raises(STATUSES[prompt]) as caught:
        await model.complete(prompt, stream=stream)
    assert type(caught.value) is STATUSES[prompt]
    assert KEY not in str(caught.value)


async def test_a_cut_stream_is_an_error_with_what_came(model: ls.Model, read_to_error: ReadToError) -> None:
    _, error = await read_to_error(model.stream("cut me"))
    assert isinstance(error, ls.StreamTruncated | ConnectionLost)
    assert error.partial is not None
    assert error.partial.text
    assert error.committed
