"""aimock and llmock as peers of generateContent: Gemini and Vertex AI, event streams and one JSON array."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from http.client import HTTPConnection
from typing import Any

import msgspec
import pytest
from models import counting

import loomstream as ls
from loomstream.dialects import Quirks
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    ConnectionLost,
    ContextTooLong,
    LoomstreamError,
    ModelNotFound,
    Overloaded,
    RateLimited,
    ServerFault,
)
from loomstream.events import Event
from loomstream.providers import table

pytestmark = pytest.mark.anyio

Read = Callable[[ls.Stream], Awaitable[list[Event]]]
ReadToError = Callable[[ls.Stream], Awaitable[tuple[list[Event], LoomstreamError]]]

KEY = "sk-canary-0123456789"
PATHS = {
    "gemini:gemini-2.5-pro": ("/v1beta", "/v1beta/models/gemini-2.5-pro"),
    "vertex-ai:gemini-2.5-pro": ("", "/v1/projects/p1/locations/europe-west1/publishers/google/models/gemini-2.5-pro"),
}
VERTEX = {"project": "p1", "location": "europe-west1"}
WEATHER = ls.Tool("get_weather", "Tells the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
TIME = ls.Tool("get_time")
TEXT = "The river runs to the sea, “über alle Berge” 🌊."


def connected(aimock: Any, spec: str, **options: Any) -> ls.Model:  # noqa: ANN401 (fixtures of conftest)
    settings = VERTEX if spec.startswith("vertex") else {}
    options.setdefault("middleware", counting(*spec.partition(":")[::2]))
    return ls.connect(spec, base_url=aimock.url + PATHS[spec][0], api_key=KEY, settings=settings, **options)


@pytest.fixture(params=PATHS)
def spec(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def model(aimock: Any, spec: str) -> AsyncIterator[ls.Model]:  # noqa: ANN401 (as above)
    async with connected(aimock, spec) as found:
        yield found


async def test_text_and_usage(model: ls.Model, read: Read) -> None:
    stream = model.stream("plain text")
    events = await read(stream)
    assert stream.response.text == TEXT
    assert sum(isinstance(event, ls.TextDelta) for event in events) == 6
    assert stream.response.stop == ls.Stop("end_turn", "STOP")
    assert stream.usage is not None
    assert (stream.usage.input_tokens, stream.usage.output_tokens, stream.usage.final) == (11, 7, True)


async def test_thoughts_are_no_text(model: ls.Model, read: Read) -> None:
    stream = model.stream("think first")
    await read(stream)
    assert (stream.response.reasoning, stream.response.text) == ("Two and two make four.", "Four.")


async def test_two_tool_calls_and_their_results_in_one_turn(model: ls.Model, aimock: Any, read: Read) -> None:  # noqa: ANN401
    first = await model.complete("two tools", tools=[WEATHER, TIME])
    assert [(call.id, call.name, call.arguments) for call in first.tool_calls] == [
        ("call_weather", "get_weather", '{"city":"Oslo","days":3}'),
        ("call_time", "get_time", '{"zone":"CET"}'),
    ]
    assert first.stop is not None
    assert first.stop.reason == "tool_use"
    results = [ls.tool_result(call, f"{call.name}: fine") for call in first.tool_calls]
    stream = model.stream([ls.user("two tools"), first.message, *results], tools=[WEATHER, TIME])
    await read(stream)
    assert stream.response.text == "It snows in Oslo."
    seen = aimock.get("/__aimock/journal")[-1]["body"]["messages"]
    # aimock's journal holds every wire's request as Chat Completions would have it.
    assert [message["role"] for message in seen] == ["user", "assistant", "tool", "tool"]
    assert [call["function"]["name"] for call in seen[1]["tool_calls"]] == ["get_weather", "get_time"]
    assert ["fine" in message["content"] for message in seen[2:]] == [True, True]


@pytest.mark.parametrize("prompt", ["plain text", "two tools", "text and tool", "think first"])
async def test_without_streaming_the_same_answer_folds(model: ls.Model, prompt: str, read: Read) -> None:
    streamed, whole = model.stream(prompt), model.stream(prompt, stream=False)
    await read(streamed)
    await read(whole)
    one, other = streamed.response, whole.response
    assert (one.message, one.stop, one.model) == (other.message, other.stop, other.model)


STATUSES: dict[str, type[LoomstreamError]] = {
    "wrong key": AuthFailed,
    "no model": ModelNotFound,
    "too many": RateLimited,
    "overloaded": Overloaded,
    "broken": ServerFault,
}


@pytest.mark.parametrize("prompt", STATUSES)
async def test_error_answers(model: ls.Model, prompt: str) -> None:
    with pytest.raises(STATUSES[prompt]) as caught:
        await model.complete(prompt)
    assert type(caught.value) is STATUSES[prompt]
    assert KEY not in str(caught.value)


async def test_a_cut_stream_is_an_error_with_what_came(model: ls.Model, read_to_error: ReadToError) -> None:
    _, error = await read_to_error(model.stream("cut me"))
    assert isinstance(error, ls.StreamTruncated | ConnectionLost)
    assert error.partial is not None
    assert error.partial.text
    assert error.committed


@pytest.mark.parametrize(("kind", "error"), [("disconnect", ConnectionLost), ("malformed", BadFrame)])
async def test_chaos(model: ls.Model, kind: str, error: type[LoomstreamError]) -> None:
    with pytest.raises(error):
        await model.complete("plain text", extra_headers={f"x-aimock-chaos-{kind}": "1"})


async def test_what_we_sent(model: ls.Model, aimock: Any, spec: str) -> None:  # noqa: ANN401 (as above)
    await model.complete("plain text", temperature=0, max_tokens=40, system="Be brief.")
    await model.complete("plain text", stream=False)
    streamed, whole = aimock.get("/__aimock/journal")
    assert streamed["path"] == f"{PATHS[spec][1]}:streamGenerateContent?alt=sse"
    assert whole["path"] == f"{PATHS[spec][1]}:generateContent"
    assert KEY not in json.dumps([streamed, whole])
    # The journal hides credentials, and so shows which of its headers held one.
    assert [name for name, value in streamed["headers"].items() if value == "[REDACTED]"] == ["x-goog-api-key"]
    body = streamed["body"]
    assert (body["temperature"], body["max_tokens"]) == (0, 40)
    assert [(message["role"], message["content"]) for message in body["messages"]] == [
        ("system", "Be brief."),
        ("user", "plain text"),
    ]


# --- llmock --------------------------------------------------------------------------------------


@pytest.fixture(params=["sse", "array"])
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ask for an event stream, or for the array that the API gives without `alt=sse`."""
    if request.param == "array":
        path = Quirks(stream_path="/models/{model}:streamGenerateContent")
        monkeypatch.setitem(table.BY_NAME, "gemini", msgspec.structs.replace(table.BY_NAME["gemini"], quirks=path))
    return request.param


@pytest.fixture
async def mocked(llmock: Any, wire: str) -> AsyncIterator[ls.Model]:  # noqa: ANN401, ARG001 (as above; set first)
    base_url = f"{llmock.url}/gemini/v1beta"
    key, bare = f"key-{uuid.uuid4()}", counting("gemini")
    async with ls.connect("gemini:gemini-2.5-pro", base_url=base_url, api_key=key, middleware=bare) as found:
        yield found


def script(llmock: Any, **behavior: object) -> None:  # noqa: ANN401 (as above)
    llmock.post("/_llmock/scenario", {"behaviors": [behavior]})


async def test_text_of_llmock(mocked: ls.Model, llmock: Any, read: Read) -> None:  # noqa: ANN401 (as above)
    script(llmock, type="reply", text="The river runs to the sea.")
    stream = mocked.stream("Where does it run?")
    events = await read(stream)
    assert stream.response.text == "The river runs to the sea."
    assert sum(isinstance(event, ls.TextDelta) for event in events) > 1
    assert stream.response.stop == ls.Stop("end_turn", "STOP")
    assert stream.usage is not None
    assert stream.usage.output_tokens


async def test_the_array_is_really_one(llmock: Any) -> None:  # noqa: ANN401 (as above)
    """What llmock sends without `alt=sse` is an array, and `decode` reads it however it is cut."""
    script(llmock, type="reply", text="The river runs to the sea.")
    connection = HTTPConnection("127.0.0.1", llmock.port, timeout=10)
    asked = json.dumps({"contents": [{"role": "user", "parts": [{"text": "Where?"}]}]})
    headers = {"content-type": "application/json", "x-goog-api-key": str(uuid.uuid4())}
    connection.request("POST", "/gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent", asked, headers)
    body = connection.getresponse().read()
    connection.close()
    assert body.startswith(b"[")
    pieces = [body[position : position + 1] for position in range(len(body))]
    events = list(ls.decode("gemini", pieces, content_type="application/json"))
    assert "".join(event.text for event in events if isinstance(event, ls.TextDelta)) == "The river runs to the sea."
    assert events[-1] == ls.Stop("end_turn", "STOP")


async def test_a_context_that_is_too_long(mocked: ls.Model) -> None:
    with pytest.raises(ContextTooLong):
        await mocked.complete("word " * 2000)


async def test_the_rate_limit_of_llmock(mocked: ls.Model) -> None:
    with pytest.raises(RateLimited) as caught:  # noqa: PT012 (one call more than the limit allows)
        for _ in range(4):
            await mocked.complete("hi")
    assert caught.value.retry_safety == "yes"
