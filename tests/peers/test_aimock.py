"""aimock as a peer: the wires of OpenAI, Anthropic, Ollama and Cohere from another project, and what it saw us send."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import groupby
from typing import Any

import pytest
from models import counting

import loomstream as ls
from loomstream.dialects import Target
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    ConnectionLost,
    LoomstreamError,
    ModelNotFound,
    Overloaded,
    RateLimited,
    ServerFault,
)
from loomstream.events import Event
from loomstream.providers import look_up
from loomstream.providers.discovery import explained, list_models
from loomstream.transport.http import HttpTransport

pytestmark = pytest.mark.anyio

Read = Callable[[ls.Stream], Awaitable[list[Event]]]
ReadToError = Callable[[ls.Stream], Awaitable[tuple[list[Event], LoomstreamError]]]

KEY = "sk-canary-0123456789"
SPECS = {
    "openai:gpt-4o": ("/v1", "/v1/chat/completions"),
    "openai:gpt-5.1": ("/v1", "/v1/responses"),
    "anthropic:claude-sonnet-4-5-20250929": ("", "/v1/messages"),
    "ollama:qwen3": ("", "/api/chat"),
    "cohere:command-a-03-2025": ("", "/v2/chat"),
}
WEATHER = ls.Tool("get_weather", "Tells the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
TIME = ls.Tool("get_time")
TEXT = "The river runs to the sea, “über alle Berge” 🌊."
CUT = "This answer is cut before its end comes, in the middle of a sentence."


def model_for(aimock: Any, spec: str, **options: Any) -> ls.Model:  # noqa: ANN401 (fixtures of conftest)
    """Give a model that counts and repeats nothing: what the peer is made to fail with comes out at once."""
    options.setdefault("middleware", counting(*spec.partition(":")[::2]))
    return ls.connect(spec, base_url=aimock.url + SPECS.get(spec, ("/v1", ""))[0], api_key=KEY, **options)


@pytest.fixture(params=SPECS)
def spec(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def model(aimock: Any, spec: str) -> AsyncIterator[ls.Model]:  # noqa: ANN401 (as above)
    async with model_for(aimock, spec) as connected:
        yield connected


async def test_text(model: ls.Model, spec: str, read: Read) -> None:
    stream = model.stream("plain text")
    events = await read(stream)
    assert stream.response.text == TEXT
    assert sum(isinstance(event, ls.TextDelta) for event in events) == 6
    assert stream.response.stop is not None
    assert stream.response.stop.reason == "end_turn"
    assert stream.response.model == spec.partition(":")[2]
    assert stream.response.request_id.startswith("req-")
    assert stream.response.unknown_frames == 0


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not spec.startswith("ollama")])  # its counts are 0 there
async def test_usage(model: ls.Model, read: Read) -> None:
    stream = model.stream("plain text")
    await read(stream)
    assert stream.usage is not None
    assert (stream.usage.input_tokens, stream.usage.output_tokens) == (11, 7)
    assert stream.usage.final
    assert stream.cost.provider == model.provider


async def test_two_tool_calls_in_one_answer(model: ls.Model, spec: str, read: Read) -> None:
    stream = model.stream("two tools", tools=[WEATHER, TIME])
    events = await read(stream)
    ends = [event for event in events if isinstance(event, ls.ToolCallEnd)]
    assert [(end.name, end.arguments) for end in ends] == [
        ("get_weather", '{"city":"Oslo","days":3}'),
        ("get_time", '{"zone":"CET"}'),
    ]
    assert all(end.executable for end in ends)
    if spec.startswith("ollama"):  # it sends no ids: ours are made up and differ
        assert len({end.id for end in ends} - {""}) == 2
    else:
        assert [end.id for end in ends] == ["call_weather", "call_time"]
    assert stream.response.stop is not None
    assert stream.response.stop.reason == "tool_use"


async def test_tool_results_go_back(model: ls.Model, aimock: Any, spec: str, read: Read) -> None:  # noqa: ANN401 (as above)
    first = await model.complete("two tools", tools=[WEATHER, TIME])
    results = [ls.tool_result(call, f"{call.name}: fine") for call in first.tool_calls]
    stream = model.stream([ls.user("two tools"), first.message, *results], tools=[WEATHER, TIME])
    await read(stream)
    assert stream.response.text == "It snows in Oslo."
    seen = aimock.get("/__aimock/journal")[-1]["body"]["messages"]
    # aimock's journal holds every wire's request as Chat Completions would have it; of Responses, each item.
    assert [role for role, _ in groupby(message["role"] for message in seen)] == ["user", "assistant", "tool"]
    results, calls = seen[-2:], [call for message in seen for call in message.get("tool_calls") or ()]
    assert [message["content"] for message in results] == ["get_weather: fine", "get_time: fine"]
    if not spec.startswith("ollama"):
        assert [call["id"] for call in calls] == ["call_weather", "call_time"]
        assert [message["tool_call_id"] for message in results] == ["call_weather", "call_time"]


def without_plan(response: ls.Response) -> list[object]:
    """Give the blocks without the plan that aimock makes up for Cohere's tool calls, in streams only."""
    return [block for block in response.message.content if not isinstance(block, ls.messages.Reasoning)]


async def test_the_plan_of_tool_calls_is_reasoning(aimock: Any, read: Read) -> None:  # noqa: ANN401 (as above)
    async with model_for(aimock, "cohere:command-a-03-2025") as model:
        stream = model.stream("two tools", tools=[WEATHER, TIME])
        await read(stream)
    assert stream.response.reasoning == "I will use the requested tool."
    assert stream.response.text == ""


async def test_text_before_a_tool_call(model: ls.Model, read: Read) -> None:
    stream = model.stream("text and tool", tools=[ls.Tool("look")])
    await read(stream)
    assert [type(block).__name__ for block in without_plan(stream.response)] == ["Text", "ToolCall"]
    assert stream.response.text == "Let me look."
    assert stream.response.tool_calls[0].arguments == "{}"


OPAQUE = {
    "anthropic:claude-sonnet-4-5-20250929": [("anthropic", "signature", "c2lnbmVk")],
    "openai:gpt-5.1": [("openai", "encrypted", "…")],  # made up anew for each answer
    "openai-compatible:gpt-5": [],
}


@pytest.mark.parametrize("spec", OPAQUE)
async def test_reasoning(model: ls.Model, spec: str, read: Read) -> None:
    """aimock names Ollama's field `reasoning_content`, which is not Ollama's, and sends Cohere's thinking as text."""
    stream = model.stream("think first")
    events = await read(stream)
    assert stream.response.reasoning == "Two and two make four."
    assert stream.response.text == "Four."
    assert sum(isinstance(event, ls.ReasoningDelta) for event in events) == 3
    opaque = [opaque for event in events if isinstance(event, ls.ReasoningEnd) for opaque in event.opaque]
    seen = [(item.issuer, item.kind, "…" if item.kind == "encrypted" else item.data) for item in opaque]
    assert seen == OPAQUE[spec]
    assert all(item.data for item in opaque)


@pytest.mark.parametrize("prompt", ["plain text", "two tools", "text and tool"])
async def test_without_streaming_the_same_answer_folds(model: ls.Model, prompt: str, read: Read) -> None:
    streamed, whole = model.stream(prompt), model.stream(prompt, stream=False)
    await read(streamed)
    await read(whole)
    one, other = streamed.response, whole.response
    assert (without_plan(one), one.stop, one.model) == (without_plan(other), other.stop, other.model)
    if one.usage is not None and one.usage.output_tokens:
        assert other.usage is not None
        assert one.usage.output_tokens == other.usage.output_tokens


async def test_a_model_that_shall_not_stream(aimock: Any, spec: str, read: Read) -> None:  # noqa: ANN401 (as above)
    async with model_for(aimock, spec, stream=False) as model:
        stream = model.stream("two tools")
        events = await read(stream)
    assert [event.name for event in events if isinstance(event, ls.ToolCallEnd)] == ["get_weather", "get_time"]
    [entry] = aimock.get("/__aimock/journal")
    assert not entry["body"].get("stream")


# --- faults --------------------------------------------------------------------------------------


async def test_a_cut_stream_is_an_error_with_what_came(model: ls.Model, read_to_error: ReadToError) -> None:
    events, error = await read_to_error(model.stream("cut me"))
    assert isinstance(error, ls.StreamTruncated | ConnectionLost)
    assert error.partial is not None
    assert error.partial.text
    assert CUT.startswith(error.partial.text)
    assert not any(isinstance(event, ls.Stop) for event in events)
    assert error.committed


STATUSES: dict[str, type[LoomstreamError]] = {
    "wrong key": AuthFailed,
    "no model": ModelNotFound,
    "overloaded": Overloaded,
    "broken": ServerFault,
}


@pytest.mark.parametrize("prompt", STATUSES)
async def test_error_answers(model: ls.Model, prompt: str) -> None:
    with pytest.raises(STATUSES[prompt]) as caught:
        await model.complete(prompt)
    assert type(caught.value) is STATUSES[prompt]
    assert caught.value.request_id.startswith("req-")
    assert KEY not in str(caught.value)


async def test_too_many_requests(model: ls.Model) -> None:
    with pytest.raises(RateLimited, match="Slow down") as caught:
        await model.complete("too many")
    assert (caught.value.status, caught.value.retry_after_s) == (429, 7.0)
    assert caught.value.retry_safety == "yes"


CHAOS: dict[str, type[LoomstreamError]] = {
    "drop": ServerFault,
    "disconnect": ConnectionLost,
    "malformed": BadFrame,
    "ratelimit": RateLimited,
}


@pytest.mark.parametrize("kind", CHAOS)
async def test_chaos(model: ls.Model, kind: str) -> None:
    with pytest.raises(CHAOS[kind]) as caught:
        await model.complete("plain text", extra_headers={f"x-aimock-chaos-{kind}": "1"})
    assert not caught.value.committed
    assert caught.value.partial is not None
    assert caught.value.partial.text == ""


# --- what it saw ---------------------------------------------------------------------------------


async def test_what_we_sent(model: ls.Model, aimock: Any, spec: str) -> None:  # noqa: ANN401 (as above)
    await model.complete("plain text", temperature=0, max_tokens=40, tools=[WEATHER], system="Be brief.")
    [entry] = aimock.get("/__aimock/journal")
    body, headers = entry["body"], entry["headers"]
    assert entry["path"] == SPECS[spec][1]
    assert body["model"] == spec.partition(":")[2]
    assert body["stream"] is True
    assert body["temperature"] == 0
    assert body.get("max_completion_tokens", body.get("max_tokens")) == 40
    assert [(message["role"], message["content"]) for message in body["messages"]] == [
        ("system", "Be brief."),
        ("user", "plain text"),
    ]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_weather"]
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/json"
    # The journal hides credentials, and so shows which of its headers held one.
    # Ollama wants none; one that is given all the same (a proxy in front of it) goes out as a bearer token.
    credentials = {"anthropic": "x-api-key"}.get(model.provider, "authorization")
    assert [name for name, value in headers.items() if value == "[REDACTED]"] == [credentials]


# --- which models it has -------------------------------------------------------------------------


async def test_the_models_that_are_pulled(aimock: Any) -> None:  # noqa: ANN401 (as above)
    transport = HttpTransport()
    target = Target(provider="ollama", model="claude-3-5-sonet", base_url=aimock.url)
    try:
        found = await list_models(look_up("ollama"), target, transport)
        error = await explained(ModelNotFound("no"), look_up("ollama"), target, transport)
    finally:
        await transport.aclose()
    assert found
    assert all(model.name for model in found)
    assert any(model.name in str(error) for model in found)
