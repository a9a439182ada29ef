"""The conversations of tests/conversation, sent to servers of other projects: each is taken and answered."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import loomstream as ls
from loomstream.events import Event
from loomstream.local import LocalServer
from loomstream.messages import Image, Message, Timeouts, ToolResult

sys.path.insert(0, str(Path(__file__).parents[1] / "conversation"))  # they are no package

from sites import SITES, TOOLS, hold

pytestmark = pytest.mark.anyio

Read = Callable[[ls.Stream], Awaitable[list[Event]]]

KEY = "sk-canary-0123456789"
TARGETS: dict[str, tuple[str, str, dict[str, str]]] = {
    "openai_chat": ("openai:gpt-4o", "/v1", {"dialect": "openai_chat"}),
    "openai_responses": ("openai:gpt-5.1", "/v1", {"dialect": "openai_responses"}),
    "anthropic_messages": ("anthropic:claude-sonnet-4-5-20250929", "", {}),
    "gemini": ("gemini:gemini-3-pro-preview", "/v1beta", {}),
    "bedrock_converse": ("bedrock:us.anthropic.claude-sonnet-4-6-v1:0", "", {"dialect": "bedrock_converse"}),
    "bedrock_invoke": ("bedrock:us.anthropic.claude-sonnet-4-6-v1:0", "", {"dialect": "bedrock_invoke"}),
    "ollama_chat": ("ollama:qwen3", "", {}),
    "cohere_chat": ("cohere:command-a-03-2025", "", {}),
}
LOCAL = {
    "openai_chat": ("llamacpp", "/v1"),
    "openai_responses": ("llamacpp", "/v1"),
    "anthropic_messages": ("anthropic", ""),
}


@pytest.fixture(params=SITES)
def source(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("target", TARGETS)
async def test_aimock_answers_the_conversation(aimock: Any, source: str, target: str, read: Read) -> None:  # noqa: ANN401 (fixtures of conftest)
    spec, path, options = TARGETS[target]
    conversation = await hold(SITES[source])
    async with ls.connect(spec, base_url=aimock.url + path, api_key=KEY, **options) as model:  # type: ignore[arg-type]
        stream = model.stream(conversation.messages, tools=TOOLS, max_tokens=50)
        await read(stream)
    assert stream.response.text == "Colder, with snow."
    seen = aimock.get("/__aimock/journal")[-1]["body"]["messages"]
    # aimock's journal holds every wire's request as Chat Completions would have it.
    roles = [role for role, _ in groupby(message["role"] for message in seen)]
    assert roles == ["user", "assistant", "tool", "assistant", "tool", "assistant", "user"]
    calls = [call["function"]["name"] for message in seen for call in message.get("tool_calls") or ()]
    assert calls == ["get_weather_2", "get_weather", "get_weather"]


def without_images(messages: tuple[Message, ...]) -> list[Message]:
    """Give the conversation for a model that sees nothing."""
    return [
        Message(message.role, tuple(_blind(block) for block in message.content if not isinstance(block, Image)))
        for message in messages
    ]


def _blind(block: Any) -> Any:  # noqa: ANN401 (any block)
    if not isinstance(block, ToolResult):
        return block
    return replace(block, content=tuple(part for part in block.content if not isinstance(part, Image)))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # reading a conversation takes the model long
@pytest.mark.parametrize("target", LOCAL)
async def test_llamacpp_takes_the_conversation(llamacpp: LocalServer, source: str, target: str, read: Read) -> None:
    conversation = await hold(SITES[source])
    provider, path = LOCAL[target]
    spec, base_url = f"{provider}:{llamacpp.model}", llamacpp.base_url.removesuffix("/v1") + path
    limits = Timeouts(first_event_s=50, idle_s=50)
    async with ls.connect(spec, base_url=base_url, api_key=llamacpp.api_key, dialect=target, timeouts=limits) as model:
        stream = model.stream(without_images(conversation.messages), max_tokens=4)
        await read(stream)
    assert stream.response.complete
    assert stream.response.text
