"""llama.cpp's server with a real model, as a peer for Responses: it sends no indexes, and its ids alone tell items."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

import loomstream as ls
from loomstream.errors import AuthFailed, ContextTooLong
from loomstream.events import Event
from loomstream.local import LocalServer
from loomstream.messages import Timeouts, ToolCall

pytestmark = pytest.mark.anyio

Read = Callable[[ls.Stream], Awaitable[list[Event]]]

SHORT = "Say only: hello"
PATIENT = Timeouts(first_event_s=50, idle_s=50)


def connect(server: LocalServer, api_key: object = None) -> ls.Model:
    return ls.connect(
        f"openai-compatible:{server.model}",
        dialect="openai_responses",
        base_url=server.base_url,
        api_key=api_key or server.api_key,
        temperature=0,
        timeouts=PATIENT,
    )


@pytest.fixture
async def model(llamacpp: LocalServer) -> AsyncIterator[ls.Model]:
    async with connect(llamacpp) as connected:
        yield connected


async def test_a_whole_answer(model: ls.Model, read: Read) -> None:
    stream = model.stream(SHORT, max_tokens=120)
    events = await read(stream)
    assert stream.response.text.startswith("Hello")
    assert stream.response.stop == ls.Stop("end_turn", "completed")
    assert sum(isinstance(event, ls.TextDelta) for event in events) > 5
    assert sum(isinstance(event, ls.TextStart) for event in events) == 1
    assert stream.response.response_id.startswith("resp_")
    assert stream.response.warnings == ()
    assert stream.response.unknown_frames == 0


async def test_usage(model: ls.Model, read: Read) -> None:
    stream = model.stream(SHORT, max_tokens=5)
    await read(stream)
    usage = stream.usage
    assert usage is not None
    assert usage.final
    assert 30 < usage.input_tokens + usage.cache_read_tokens < 50
    assert usage.output_tokens == 5


async def test_without_streaming_the_same_answer_folds(model: ls.Model, read: Read) -> None:
    streamed, whole = model.stream(SHORT, max_tokens=8), model.stream(SHORT, max_tokens=8, stream=False)
    await read(streamed)
    await read(whole)
    assert streamed.response.message == whole.response.message
    assert streamed.response.stop == whole.response.stop


async def test_a_conversation_goes_back(model: ls.Model, read: Read) -> None:
    """The server takes every item that we write: roles, an assistant's text, a call and its result."""
    call = ToolCall("call_1", "get_time", "{}")
    turns = [
        ls.user("What is my name?"),
        ls.assistant("Anna."),
        ls.user("What time is it?"),
        ls.Message("assistant", (call,)),
        ls.tool_result(call, "noon"),
    ]
    stream = model.stream(turns, system="Be brief.", tools=[ls.Tool("get_time")], max_tokens=8)
    await read(stream)
    assert stream.response.complete
    assert stream.response.usage is not None
    assert stream.response.usage.output_tokens > 0


async def test_a_break_leaves_the_server_free(model: ls.Model) -> None:
    async with model.stream("Tell me a long story.", max_tokens=300) as stream:
        async for event in stream:
            if isinstance(event, ls.TextDelta):
                break
    response = await model.complete(SHORT, max_tokens=3)
    assert response.complete


async def test_too_long_a_prompt(model: ls.Model) -> None:
    with pytest.raises(ContextTooLong):
        await model.complete("word " * 2000)


async def test_a_wrong_key(llamacpp: LocalServer) -> None:
    async with connect(llamacpp, "sk-wrong-0123456789") as model:
        with pytest.raises(AuthFailed):
            await model.complete(SHORT)
