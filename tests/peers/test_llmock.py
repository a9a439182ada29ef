"""llmock as a peer: OpenAI's, Anthropic's and Cohere's wire by independent authors, broken on demand, real limits."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from models import counting

import loomstream as ls
from loomstream.errors import (
    BadFrame,
    ConnectionLost,
    ContextTooLong,
    IdleTimeout,
    LoomstreamError,
    Overloaded,
    RateLimited,
)
from loomstream.events import Event
from loomstream.messages import Timeouts

pytestmark = pytest.mark.anyio

Read = Callable[[ls.Stream], Awaitable[list[Event]]]
ReadToError = Callable[[ls.Stream], Awaitable[tuple[list[Event], LoomstreamError]]]

PATHS = {"openai:gpt-4o": "/v1", "anthropic:claude-sonnet-4-5": "/anthropic", "cohere:command-r": "/cohere"}
WEATHER = ls.Tool(
    "get_weather",
    "Tells the weather",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@pytest.fixture(params=PATHS)
def spec(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def model(llmock: Any, spec: str) -> Any:  # noqa: ANN401 (fixtures of conftest, which cannot be imported)
    key, bare = f"key-{uuid.uuid4()}", counting(*spec.partition(":")[::2])
    async with ls.connect(spec, base_url=llmock.url + PATHS[spec], api_key=key, middleware=bare) as connected:
        yield connected


def script(llmock: Any, **behavior: object) -> None:  # noqa: ANN401 (as above)
    llmock.post("/_llmock/scenario", {"behaviors": [behavior]})


async def test_text(model: ls.Model, llmock: Any, read: Read, spec: str) -> None:  # noqa: ANN401 (as above)
    script(llmock, type="reply", text="The river runs to the sea.")
    stream = model.stream("Where does it run?")
    events = await read(stream)
    assert stream.response.text == "The river runs to the sea."
    assert next(event.text for event in events if isinstance(event, ls.TextDelta)) == "The "
    assert stream.response.stop is not None
    assert stream.response.stop.reason == "end_turn"
    assert stream.usage is not None
    assert stream.usage.input_tokens > 0
    assert stream.usage.output_tokens > 0
    assert stream.response.model == spec.partition(":")[2]
    assert stream.response.unknown_frames == 0


async def test_two_tool_calls(model: ls.Model, llmock: Any, read: Read) -> None:  # noqa: ANN401 (as above)
    calls = [{"name": "get_weather", "arguments": {"city": city, "days": 3}} for city in ("Oslo", "Bern")]
    script(llmock, type="reply", tool_calls=calls)
    stream = model.stream("Weather in Oslo and Bern?", tools=[WEATHER])
    events = await read(stream)
    ends = [event for event in events if isinstance(event, ls.ToolCallEnd)]
    assert [(end.name, end.arguments) for end in ends] == [
        ("get_weather", '{"city": "Oslo", "days": 3}'),
        ("get_weather", '{"city": "Bern", "days": 3}'),
    ]
    assert len({end.id for end in ends}) == 2
    assert sum(isinstance(event, ls.ToolCallDelta) for event in events) > 2
    assert stream.response.stop is not None
    assert stream.response.stop.reason == "tool_use"


async def test_a_tool_s_answer_goes_back(model: ls.Model, read: Read) -> None:
    """The server calls an offered tool, and answers in text once the result comes back in its own wire's form."""
    first = await model.complete("Weather in Oslo?", tools=[WEATHER])
    assert [call.name for call in first.tool_calls] == ["get_weather"]
    history = [ls.user("Weather in Oslo?"), first.message, ls.tool_result(first.tool_calls[0], "It snows.")]
    stream = model.stream(history, tools=[WEATHER])
    await read(stream)
    assert stream.response.tool_calls == ()
    assert stream.response.text


async def test_without_streaming(model: ls.Model, llmock: Any, read: Read) -> None:  # noqa: ANN401 (as above)
    script(llmock, type="reply", text="The river runs to the sea.", times=2)
    streamed, whole = model.stream("Where?"), model.stream("Where?", stream=False)
    await read(streamed)
    await read(whole)
    one, other = streamed.response, whole.response
    assert (one.text, one.stop, one.model) == (other.text, other.stop, other.model)
    assert one.usage is not None
    assert other.usage is not None
    assert one.usage.output_tokens == other.usage.output_tokens
    assert [record["stream"] for record in llmock.get("/_llmock/requests")["requests"]] == [True, False]


# --- broken streams ------------------------------------------------------------------------------

TEXT = "One two three four five six seven eight."
BROKEN = {
    "truncate": ls.StreamTruncated,
    "disconnect": (ConnectionLost, ls.StreamTruncated),
    "malformed": BadFrame,
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_stream_never_passes_for_a_whole_one(
    model: ls.Model,
    llmock: Any,  # noqa: ANN401 (as above)
    kind: str,
    read_to_error: ReadToError,
) -> None:
    script(llmock, type="reply", text=TEXT)
    script(llmock, type="stream_fault", kind=kind, after_chunks=6)
    _, error = await read_to_error(model.stream("Count"))
    assert isinstance(error, BROKEN[kind])
    assert error.partial is not None
    assert error.partial.text
    assert TEXT.startswith(error.partial.text)
    assert error.committed
    assert error.retry_safety == "maybe"
    assert llmock.get("/_llmock/requests")["requests"][0]["fault"].startswith(f"stream:{kind}")


async def test_a_stream_that_stalls(model: ls.Model, llmock: Any) -> None:  # noqa: ANN401 (as above)
    script(llmock, type="reply", text=TEXT)
    script(llmock, type="stream_fault", kind="stall", after_chunks=6, stall_seconds=30)
    with pytest.raises(IdleTimeout) as caught:
        await model.complete("Count", timeouts=Timeouts(idle_s=0.2))
    assert caught.value.partial is not None
    assert caught.value.partial.text
    # The journal waits for the request's end: that the server saw our hang-up shows in how long it stalled.
    [record] = llmock.get("/_llmock/requests")["requests"]
    assert not record["completed"]


# --- refusals ------------------------------------------------------------------------------------


async def test_the_rate_limit(model: ls.Model, read: Read) -> None:
    """Two requests a minute and key are allowed; every answer tells how many remain."""
    remaining = []
    for _ in range(2):
        stream = model.stream("Hello")
        await read(stream)
        limits = stream.response.limits
        assert limits is not None
        assert limits.limit_requests == 2
        assert limits.reset_requests_s is not None
        assert 0 < limits.reset_requests_s <= 61
        remaining.append(limits.remaining_requests)
    assert remaining == [1, 0]
    with pytest.raises(RateLimited, match="Rate limit reached") as caught:
        await model.complete("Hello")
    assert caught.value.retry_after_s is not None
    assert 20 < caught.value.retry_after_s <= 30
    assert caught.value.retry_safety == "yes"


async def test_a_prompt_that_does_not_fit(model: ls.Model) -> None:
    with pytest.raises(ContextTooLong) as caught:
        await model.complete("word " * 400)
    assert caught.value.status == 400


async def test_an_overloaded_server_says_when(model: ls.Model, llmock: Any, spec: str) -> None:  # noqa: ANN401 (as above)
    status = 529 if spec.startswith("anthropic") else 503
    script(llmock, type="fail", status=status, retry_after=4)
    with pytest.raises(Overloaded) as caught:
        await model.complete("Hello")
    assert (caught.value.status, caught.value.retry_after_s) == (status, 4)


async def test_the_server_finds_no_fault_with_us(model: ls.Model, llmock: Any) -> None:  # noqa: ANN401 (as above)
    """Its verdict: what cannot succeed was not sent again."""
    for status in (400, 401, 403, 404):
        script(llmock, type="fail", status=status)
        with pytest.raises(ls.ProviderError) as caught:
            await model.complete(f"What does {status} mean?")
        assert caught.value.retry_safety == "no"
    verdict = llmock.get("/_llmock/verdict")
    assert (verdict["attempts"], verdict["faults_injected"], verdict["errors"]) == (4, 4, 0)
