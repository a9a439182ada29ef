"""Where a conversation is held and where it goes on: a provider, a model and a dialect each, and the conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import anyio
from answers import ANTHROPIC, COHERE, CONVERSE, GEMINI, INVOKE, MISTRAL, OLLAMA, OPENROUTER, RESPONSES

import loomstream as ls
from loomstream.messages import Image, Message, Text, ToolCall, ToolResult
from loomstream.testing import Recording, ReplayTransport, replay_model

_SSE, _LINES = "text/event-stream", "application/x-ndjson"
_AWS = "application/vnd.amazon.eventstream"


class Site(NamedTuple):
    """A provider's model; `answers` are its three turns."""

    dialect: str
    provider: str
    model: str
    answers: tuple[bytes, ...]
    content_type: str = _SSE


SITES: dict[str, Site] = {
    "openai_chat": Site("openai_chat", "openrouter", "anthropic/claude-sonnet-4.5", OPENROUTER),
    "openai_chat (Mistral)": Site("openai_chat", "mistral", "magistral-medium-latest", MISTRAL),
    "openai_responses": Site("openai_responses", "openai", "gpt-5.1", RESPONSES),
    "anthropic_messages": Site("anthropic_messages", "anthropic", "claude-sonnet-4-5-20250929", ANTHROPIC),
    "gemini": Site("gemini", "gemini", "gemini-3-pro-preview", GEMINI),
    "bedrock_converse": Site(
        "bedrock_converse", "bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", CONVERSE, _AWS
    ),
    "bedrock_invoke": Site("bedrock_invoke", "bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", INVOKE, _AWS),
    "ollama_chat": Site("ollama_chat", "ollama", "qwen3", OLLAMA, _LINES),
    "cohere_chat": Site("cohere_chat", "cohere", "command-a-reasoning-08-2025", COHERE),
}

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100"
    "c9fe92ef0000000049454e44ae426082"
)
RADAR = bytes.fromhex("47494638396101000100800000000000ffffff2c00000000010001000002024401003b")
TURNS = 3
QUESTION = "How warm is it in Oslo and in Bergen? The map shows both."
THANKS = "Thanks. And tomorrow?"
_CITY = {"type": "object", "properties": {"city": {"type": "string"}, "station": {"type": "string"}}}
TOOLS = (ls.Tool("get weather", "By the map.", _CITY), ls.Tool("get_weather", "By the station.", _CITY))
"""Two names that become one by the rule of every host."""


def _results(turn: int, calls: Sequence[ToolCall]) -> list[Message]:
    """Answer a turn's calls, each by a message of its own; the first turn has an image and an error."""
    if turn > 0:
        return [ls.tool_result(call, "7 °C, clouds") for call in calls]
    seen, failed = calls
    radar = (Text("4 °C, rain"), Image(RADAR, "image/gif"))
    return [
        Message("tool", (ToolResult(seen.id, radar, name=seen.name),)),
        ls.tool_result(failed, "no such station", is_error=True),
    ]


class Sent(NamedTuple):
    """What one request was made of: the conversation, the body on the wire, and what was said of it."""

    messages: tuple[Message, ...]
    body: bytes
    warnings: tuple[str, ...]

    @property
    def value(self) -> dict[str, object]:
        return json.loads(self.body)


class Held(NamedTuple):
    """A conversation, and the requests by which it was held."""

    messages: tuple[Message, ...]
    requests: tuple[Sent, ...]


async def hold(*sites: Site) -> Held:
    """Hold the conversation, each turn with another site; one site alone answers them all."""
    history = [Message("user", (Text(QUESTION), Image(PIXEL)))]
    requests: list[Sent] = []
    for turn in range(TURNS):
        site = sites[turn % len(sites)]
        asked = tuple(history)
        transport, model = _replayed(site, turn)
        async with model:
            response = await model.complete(asked, tools=TOOLS)
        requests.append(Sent(asked, transport.requests[-1].body, _of_the_request(response)))
        history += [response.message, *_results(turn, response.tool_calls)]
    return Held((*history, ls.user(THANKS)), tuple(requests))


def _of_the_request(response: ls.Response) -> tuple[str, ...]:
    """Give the warnings, but for the one that says until when the model is to be had: it depends on the day."""
    return tuple(warning for warning in response.warnings if "deprecated" not in warning)


def _replayed(site: Site, turn: int) -> tuple[ReplayTransport, ls.Model]:
    transport = ReplayTransport(Recording([site.answers[turn]], headers={"content-type": site.content_type}))
    return transport, replay_model(site.provider, model=site.model, dialect=site.dialect, transport=transport)


async def send(site: Site, messages: Sequence[Message]) -> Sent:
    """Go on with a conversation at a site."""
    transport, model = _replayed(site, -1)
    async with model:
        response = await model.complete(messages, tools=TOOLS)
    return Sent(tuple(messages), transport.requests[-1].body, _of_the_request(response))


@cache
def held(*names: str) -> Held:
    """Give the conversation as a site holds it, or as several do that take turns."""
    return anyio.run(hold, *(SITES[name] for name in names))


@cache
def sent(source: str, target: str) -> Sent:
    """Give what goes on the wire where one site's conversation goes on at another one."""
    return anyio.run(send, SITES[target], held(source).messages)
