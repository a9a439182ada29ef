"""llama.cpp's server with a real model, as a peer for two dialects and as the embedded model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http.client import HTTPConnection
from pathlib import Path

import anyio
import pytest

import loomstream as ls
from loomstream.errors import AuthFailed, ContextTooLong
from loomstream.events import Event
from loomstream.local import DEMO_PROMPT, LocalServer
from loomstream.messages import Timeouts

pytestmark = pytest.mark.anyio

Read = Callable[[ls.Stream], Awaitable[list[Event]]]
Connect = Callable[..., ls.Model]

SHORT = "Say only: hello"
WORDS = ("stone", "fire", "gold", "apple")
PATIENT = Timeouts(first_event_s=50, idle_s=50)
PROVIDERS = {"openai-compatible": "/v1", "anthropic": ""}
REASONS = {"openai-compatible": ("stop", "length"), "anthropic": ("end_turn", "max_tokens")}


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def model(llamacpp: LocalServer, provider: str) -> AsyncIterator[ls.Model]:
    async with connect(llamacpp, provider) as connected:
        yield connected


def connect(server: LocalServer, provider: str, api_key: object = None) -> ls.Model:
    return ls.connect(
        f"{provider}:{server.model}",
        base_url=server.base_url.removesuffix("/v1") + PROVIDERS[provider],
        api_key=api_key or server.api_key,
        temperature=0,
        timeouts=PATIENT,
    )


async def test_a_whole_answer(model: ls.Model, provider: str, read: Read, llamacpp: LocalServer) -> None:
    stream = model.stream(SHORT, max_tokens=120)
    events = await read(stream)
    assert stream.response.text.startswith("Hello")
    assert stream.response.stop == ls.Stop("end_turn", REASONS[provider][0])
    assert sum(isinstance(event, ls.TextDelta) for event in events) > 5
    start = next(event for event in events if isinstance(event, ls.Start))
    assert (start.provider, start.model) == (provider, llamacpp.model)
    assert start.response_id
    assert start.warnings == ()


async def test_usage_counts_the_prompt_once(model: ls.Model, read: Read) -> None:
    stream = model.stream(SHORT, max_tokens=5)
    await read(stream)
    usage = stream.usage
    assert usage is not None
    assert usage.final
    # What the server had cached from an earlier test is told apart; together it is the whole prompt.
    assert usage.input_tokens > 0
    assert 30 < usage.input_tokens + usage.cache_read_tokens < 50
    assert usage.output_tokens == 5


async def test_the_limit_is_a_stop_reason(model: ls.Model, provider: str, read: Read) -> None:
    stream = model.stream(DEMO_PROMPT, max_tokens=5)
    await read(stream)
    assert stream.response.stop == ls.Stop("max_tokens", REASONS[provider][1])
    assert stream.response.complete


async def test_without_streaming_the_same_answer_folds(model: ls.Model, read: Read) -> None:
    streamed, whole = model.stream(SHORT, max_tokens=12), model.stream(SHORT, max_tokens=12, stream=False)
    await read(streamed)
    await read(whole)
    one, other = streamed.response, whole.response
    assert one.text == other.text
    assert [type(block) for block in one.message.content] == [type(block) for block in other.message.content]
    assert (one.stop, one.provider, one.model) == (other.stop, other.provider, other.model)
    assert one.usage is not None
    assert other.usage is not None
    assert one.usage.output_tokens == other.usage.output_tokens


async def test_settings_reach_the_model(model: ls.Model, read: Read) -> None:
    """A stop sequence, a system prompt and a history: the model would answer otherwise without each of them."""
    stream = model.stream(SHORT, max_tokens=40, stop_sequences=["."])
    await read(stream)
    assert stream.response.text == "Hello"
    assert stream.response.complete
    longer = model.stream(
        [ls.user(SHORT), ls.assistant("Hello"), ls.user("And now: goodbye")], system="Be brief.", max_tokens=1
    )
    await read(longer)
    assert stream.usage is not None
    assert longer.usage is not None
    prompt = stream.usage.input_tokens + stream.usage.cache_read_tokens
    assert longer.usage.input_tokens + longer.usage.cache_read_tokens > prompt


async def test_a_wrong_key(llamacpp: LocalServer, provider: str) -> None:
    async with connect(llamacpp, provider, "wrong") as model:
        with pytest.raises(AuthFailed, match="Invalid API Key") as caught:
            await model.complete(SHORT)
    assert caught.value.status == 401
    assert caught.value.retry_safety == "no"
    assert not caught.value.committed


async def test_a_prompt_that_does_not_fit(model: ls.Model) -> None:
    with pytest.raises(ContextTooLong, match="context size") as caught:
        await model.complete("word " * 700)
    assert caught.value.status == 400
    assert caught.value.partial is not None
    assert not caught.value.partial.complete


def busy_slots(server: LocalServer) -> int:
    connection = HTTPConnection(server.base_url.removeprefix("http://").removesuffix("/v1"), timeout=10)
    connection.request("GET", "/slots", headers={"authorization": f"Bearer {server.api_key.reveal()}"})
    slots = json.loads(connection.getresponse().read())
    connection.close()
    return sum(slot["is_processing"] for slot in slots)


async def test_a_break_frees_the_server(model: ls.Model, llamacpp: LocalServer) -> None:
    """More streams are broken than the server has slots, each of which would generate for many seconds."""
    for _ in range(3):
        async with model.stream("Tell me a very long story.", max_tokens=400) as stream:
            async for event in stream:
                if isinstance(event, ls.TextDelta):
                    break
        assert not stream.response.complete
        assert stream.response.text
    answer = await model.complete(SHORT, max_tokens=3)
    assert answer.text.startswith("Hello")
    with anyio.fail_after(20):
        while await anyio.to_thread.run_sync(busy_slots, llamacpp):
            await model.complete(SHORT, max_tokens=1)


async def test_many_answers_one_after_another(model: ls.Model) -> None:
    """This server closes each connection after its answer without saying so: no request may be lost to that."""
    for number in range(30):
        answer = await model.complete(SHORT, max_tokens=1, stream=bool(number % 2))
        assert answer.text.startswith("Hello")


async def test_streams_side_by_side(model: ls.Model) -> None:
    texts: dict[str, str] = {}

    async def ask(word: str) -> None:
        response = await model.complete(f"Repeat this word only: {word}", max_tokens=12)
        texts[word] = response.text

    async with anyio.create_task_group() as tasks:
        for word in WORDS:
            tasks.start_soon(ask, word)
    assert {word for word, text in texts.items() if word in text.lower()} == set(WORDS)


async def test_the_embedded_model(model_path: Path, read: Read) -> None:
    """`connect("local")` starts a server of its own and ends it."""
    async with ls.connect("local", model_path=model_path, download=False, temperature=0, timeouts=PATIENT) as model:
        stream = model.stream(SHORT, max_tokens=5)
        events = await read(stream)
        server = model._endpoint._server
        assert isinstance(server, LocalServer)
        assert busy_slots(server) == 0
    assert isinstance(events[0], ls.Start)
    assert events[0].provider == "local"
    assert stream.response.text.startswith("Hello")
    with pytest.raises(ConnectionRefusedError):
        busy_slots(server)


async def test_calls_in_a_row_are_one_attempt_each(llamacpp: LocalServer, read: Read) -> None:
    """The server ends the connection of each streamed answer, which it has promised to keep."""
    async with ls.connect("local", base_url=llamacpp.base_url, api_key=llamacpp.api_key, timeouts=PATIENT) as model:
        for _ in range(10):
            stream = model.stream(SHORT, max_tokens=1)
            assert not [event for event in await read(stream) if isinstance(event, ls.Notice)]
            assert stream.cost.attempts == 1
