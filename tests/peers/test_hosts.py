"""llmock and aimock as OpenAI-shaped hosts: Mistral, Together, Groq, xAI, Perplexity, Azure and OpenRouter."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from models import counting

import loomstream as ls
from loomstream.errors import AuthFailed, RateLimited
from loomstream.events import Event
from loomstream.messages import ToolCall

pytestmark = pytest.mark.anyio

Read = Callable[[ls.Stream], Awaitable[list[Event]]]
LLMOCK = {
    "mistral:mistral-small-latest": "/mistral/v1",
    "together:m": "/together/v1",
    "groq:m": "/groq/openai/v1",
    "xai:grok-3": "/xai/v1",
    "perplexity:sonar": "/perplexity/v1",
}
WEATHER = ls.Tool("get_weather", "Tells the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
TEXT = "The river runs to the sea, “über alle Berge” 🌊."


@pytest.fixture(params=LLMOCK)
async def model(llmock: Any, request: pytest.FixtureRequest) -> AsyncIterator[ls.Model]:  # noqa: ANN401 (of conftest)
    spec: str = request.param
    key, bare = f"key-{uuid.uuid4()}", counting(*spec.partition(":")[::2])
    async with ls.connect(spec, base_url=llmock.url + LLMOCK[spec], api_key=key, middleware=bare) as connected:
        yield connected


def script(llmock: Any, **behavior: object) -> None:  # noqa: ANN401 (as above)
    llmock.post("/_llmock/scenario", {"behaviors": [behavior]})


async def test_text(model: ls.Model, llmock: Any, read: Read) -> None:  # noqa: ANN401 (as above)
    script(llmock, type="reply", text="The river runs to the sea.")
    stream = model.stream("Where does it run?", seed=7, temperature=0.0, max_tokens=40)
    await read(stream)
    assert stream.response.text == "The river runs to the sea."
    assert stream.response.stop is not None
    assert stream.response.stop.reason == "end_turn"
    assert stream.response.unknown_frames == 0
    # llmock tells the usage to who asks for it; Mistral does so unasked, and refuses to be asked
    asked = model.provider != "mistral"
    assert (stream.usage is not None) == asked


async def test_a_tool_s_answer_goes_back(model: ls.Model, llmock: Any, read: Read) -> None:  # noqa: ANN401 (as above)
    """A call that another provider has made, and its result, are taken by the server."""
    script(llmock, type="reply", text="It snows.")
    call = ToolCall("toolu_01ABCDEFGHIJ", "get_weather", '{"city": "Oslo"}')
    history = [ls.user("Weather?"), ls.Message("assistant", (call,)), ls.tool_result(call, "snow")]
    stream = model.stream(history, tools=[WEATHER])
    await read(stream)
    assert stream.response.text == "It snows."


async def test_a_refusal_is_typed(model: ls.Model, llmock: Any) -> None:  # noqa: ANN401 (as above)
    script(llmock, type="fail", status=401)
    with pytest.raises(AuthFailed):
        await model.complete("Hello")


# --- Azure and OpenRouter, as aimock plays them ----------------------------------------------------

KEY = "sk-canary-0123456789"


def deployment(aimock: Any, **settings: str) -> ls.Model:  # noqa: ANN401 (as above)
    given = {"api_version": "2024-10-21", **settings}
    bare = counting("azure-openai", "gpt-4o")
    return ls.connect("azure-openai:gpt-4o", base_url=aimock.url + "/", api_key=KEY, settings=given, middleware=bare)


async def test_a_deployment_s_text_and_usage(aimock: Any, read: Read) -> None:  # noqa: ANN401 (as above)
    async with deployment(aimock) as model:
        stream = model.stream("plain text")
        await read(stream)
    assert stream.response.text == TEXT
    assert stream.usage is not None
    assert (stream.usage.input_tokens, stream.usage.output_tokens) == (11, 7)
    (entry,) = aimock.get("/__aimock/journal")
    assert entry["path"].startswith("/openai/deployments/gpt-4o/chat/completions")
    assert "api-version=2024-10-21" in entry["path"]
    assert entry["body"]["stream_options"] == {"include_usage": True}


async def test_a_deployment_s_tools(aimock: Any, read: Read) -> None:  # noqa: ANN401 (as above)
    async with deployment(aimock) as model:
        first = model.stream("two tools", tools=[WEATHER, ls.Tool("get_time")])
        await read(first)
        calls = first.response.tool_calls
        assert [call.name for call in calls] == ["get_weather", "get_time"]
        results = [ls.tool_result(call, "snow") for call in calls]
        second = model.stream([ls.user("two tools"), first.response.message, *results], tools=[WEATHER])
        await read(second)
    assert second.response.text == "It snows in Oslo."


async def test_a_deployment_s_rate_limit(aimock: Any) -> None:  # noqa: ANN401 (as above)
    async with deployment(aimock) as model:
        with pytest.raises(RateLimited) as caught:
            await model.complete("too many")
    assert caught.value.retry_after_s == 7


async def test_openrouter_s_reasoning(aimock: Any, read: Read) -> None:  # noqa: ANN401 (as above)
    async with ls.connect("openrouter:m", base_url=aimock.url + "/api/v1", api_key=KEY) as model:
        stream = model.stream("think first")
        await read(stream)
    assert stream.response.reasoning == "Two and two make four."
    assert stream.response.text == "Four."


# --- models that cannot stream and refuse things --------------------------------------------------


@pytest.mark.parametrize("model_id", ["o1-preview", "o1-mini"])
async def test_an_early_reasoning_model_is_asked_for_what_it_takes(
    aimock: Any,  # noqa: ANN401 (as above)
    model_id: str,
    read: Read,
) -> None:
    async with ls.connect(f"openai:{model_id}", base_url=f"{aimock.url}/v1", api_key=KEY) as model:
        stream = model.stream("plain text", system="Be brief.", temperature=0.2, max_tokens=99)
        events = await read(stream)
    assert [type(event).__name__ for event in events if not isinstance(event, ls.Cost)] == [
        "Start",
        "TextStart",
        "TextDelta",
        "TextEnd",
        "Usage",
        "Stop",
    ]
    assert stream.response.text == TEXT
    assert [warning.split(":")[0] for warning in stream.response.warnings] == [
        "temperature is not sent",
        "system turns are sent as the user's",
    ]
    (entry,) = aimock.get("/__aimock/journal")
    sent = entry["body"]
    assert sent["messages"] == [{"role": "user", "content": "Be brief.\n\nplain text"}]
    assert sent["max_completion_tokens"] == 99
    assert not {"stream", "stream_options", "temperature", "max_tokens"} & {
        key for key in sent if sent[key] is not None
    }


async def test_a_real_server_answers_what_an_early_reasoning_model_is_asked(llamacpp: Any, read: Read) -> None:  # noqa: ANN401 (as above)
    key = llamacpp.api_key.reveal()
    async with ls.connect("openai:o1-mini", base_url=llamacpp.base_url, api_key=key) as model:
        stream = model.stream("Say hello.", system="Be brief.", max_tokens=8)
        events = await read(stream)
    assert stream.response.text
    assert sum(isinstance(event, ls.TextDelta) for event in events) == 1
    assert stream.usage is not None
    assert stream.usage.output_tokens <= 8
