"""Replay: recorded bytes through the real pipeline."""

from __future__ import annotations

import anyio
import pytest

from loomstream.errors import ConnectionLost, ServerFault, UnknownProvider
from loomstream.messages import Timeouts
from loomstream.providers.table import TABLE
from loomstream.testing import Recording, ReplayTransport, check_order, replay_model
from loomstream.wire import WireRequest

pytestmark = pytest.mark.anyio


def answer(text: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n' % text.encode()


async def test_plain_bytes_are_a_recording() -> None:
    async with replay_model("openai", answer("hi")) as model, model.stream("x") as stream:
        events = [event async for event in stream]
    check_order(events)
    assert stream.response.text == "hi"
    assert (model.provider, model.model) == ("openai", "gpt-4o")


async def test_recordings_are_played_in_order_and_the_last_again() -> None:
    async with replay_model("openai", answer("one"), answer("two")) as model:
        assert [(await model.complete("x")).text for _ in range(3)] == ["one", "two", "two"]


async def test_what_was_sent_can_be_inspected() -> None:
    transport = ReplayTransport(Recording([answer("hi")]))
    async with replay_model("openai", model="some-model", transport=transport, max_tokens=5) as model:
        await model.complete("what?")
    (sent,) = transport.requests
    assert sent.url == "https://api.openai.com/v1/chat/completions"
    assert b'"some-model"' in sent.body
    assert b"what?" in sent.body
    assert b'"max_completion_tokens":5' in sent.body
    assert "replayed-key" not in repr(sent)


async def test_a_provider_without_an_address_or_a_default_model_can_be_replayed() -> None:
    transport = ReplayTransport(Recording([answer("hi")]))
    async with replay_model("openai-compatible", transport=transport) as model:
        assert (await model.complete("x")).text == "hi"
    assert model.model == "replayed-model"
    assert transport.requests[0].url == "http://localhost:1/chat/completions"


async def test_an_unknown_provider_cannot_be_replayed() -> None:
    with pytest.raises(UnknownProvider):
        replay_model("opnai", b"")


async def test_a_step_may_wait() -> None:
    asked = anyio.Event()
    go_on = anyio.Event()

    async def wait() -> None:
        asked.set()
        await go_on.wait()

    transport = ReplayTransport(Recording([wait, answer("hi")]))
    unlimited = Timeouts(first_event_s=None)
    async with (
        replay_model("openai", transport=transport) as model,
        model.stream("x", timeouts=unlimited) as stream,
        anyio.create_task_group() as group,
    ):
        group.start_soon(stream.collect)
        await asked.wait()
        assert transport.open_responses == 1
        assert stream.response.text == ""
        go_on.set()
    assert stream.response.text == "hi"
    assert transport.open_responses == 0


async def test_a_step_may_fail() -> None:
    async def cut() -> None:
        msg = "cut"
        raise ConnectionLost(msg)

    transport = ReplayTransport(Recording([cut]))
    async with replay_model("openai", transport=transport) as model, model.stream("x") as stream:
        with pytest.raises(ConnectionLost, match="cut"):
            await stream.collect()
        assert transport.open_responses == 0


async def test_a_replay_of_nothing_says_so() -> None:
    async with replay_model("openai") as model:
        with pytest.raises(ConnectionLost, match="no recording"):
            await model.complete("x")


async def test_the_response_is_closed_when_it_is_left() -> None:
    transport = ReplayTransport(Recording([b"a", b"b"], status=204, headers={"x-a": "b"}))
    async with transport.open(WireRequest(url="https://x", headers={})) as response:
        assert transport.open_responses == 1
        assert (response.status, response.headers) == (204, {"x-a": "b"})
        assert await anext(response.chunks) == b"a"
    assert transport.open_responses == 0
    with pytest.raises(StopAsyncIteration):
        await anext(response.chunks)
    await transport.aclose()


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize("name", [row.name for row in TABLE])
async def test_every_provider_can_be_replayed_without_any_setting(name: str) -> None:
    async with replay_model(name, Recording([b"{}"], 500), model="m") as model:
        with pytest.raises(ServerFault):
            await model.complete("x")
