"""The embedded model, which has no tools of its own, calls one and answers with what it gave."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

import loomstream as ls
from loomstream.events import Event
from loomstream.local import LocalServer
from loomstream.messages import Timeouts

pytestmark = pytest.mark.anyio

Read = Callable[[ls.Stream], Awaitable[list[Event]]]

QUESTION = "What is the weather in Oslo?"
ASKED: list[str] = []


@ls.tool
def get_weather(city: str) -> str:
    """Give the current weather of a city."""
    ASKED.append(city)
    return "It is sunny and 25 degrees."


@ls.tool
def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


@pytest.fixture
async def model(llamacpp: LocalServer) -> AsyncIterator[ls.Model]:
    async with ls.connect(
        f"local:{llamacpp.model}",
        base_url=llamacpp.base_url,
        api_key=llamacpp.api_key,
        temperature=0,
        seed=1,
        timeouts=Timeouts(first_event_s=50, idle_s=50),
    ) as connected:
        yield connected


async def test_a_call_is_made_and_its_result_answered(model: ls.Model, read: Read) -> None:
    ASKED.clear()
    stream = model.stream(QUESTION, tools=[get_weather], tool_choice="get_weather", max_tokens=100)
    events = await read(stream)
    (call,) = stream.response.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Oslo"})
    assert stream.response.text == ""
    assert stream.response.stop == ls.Stop("tool_use", "stop")
    assert "described in the prompt" in stream.response.warnings[0]
    assert sum(isinstance(event, ls.ToolCallDelta) for event in events) > 3
    conversation = [ls.user(QUESTION), stream.response.message, await get_weather.answer(call)]
    answer = model.stream(conversation, tools=[get_weather], max_tokens=60)
    await read(answer)
    assert ASKED == ["Oslo"]
    assert answer.response.tool_calls == ()
    assert "sunny" in answer.response.text
    assert "25" in answer.response.text


async def test_one_of_several_tools_must_be_called(model: ls.Model, read: Read) -> None:
    stream = model.stream("Add 2 and 3.", tools=[get_weather, add], tool_choice="any", max_tokens=100)
    await read(stream)
    (call,) = stream.response.tool_calls
    assert call.name in {"get_weather", "add"}
    assert call.executable


async def test_a_call_that_the_limit_cuts_is_not_run(model: ls.Model, read: Read) -> None:
    stream = model.stream(QUESTION, tools=[get_weather], tool_choice="any", max_tokens=20)
    await read(stream)
    assert stream.response.stop == ls.Stop("max_tokens", "length")
    assert not any(call.executable for call in stream.response.tool_calls)


async def test_without_a_demand_the_model_may_answer_in_text(model: ls.Model, read: Read) -> None:
    stream = model.stream("Say only: hello", tools=[get_weather], max_tokens=30)
    await read(stream)
    assert stream.response.text or stream.response.tool_calls
    assert stream.response.complete
