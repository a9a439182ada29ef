"""The dialects' other sides: answers to the bytes that a provider would send.

    from loomstream.testing.wires import WIRES, answer_of

    frames = WIRES["openai_chat"].frames(answer_of("Hello there"))

Contract: values and pure functions, written from the protocols and without a dialect's help, so that a fault in one
side is not made good by the same fault in the other. `route` says which wire an address is of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from loomstream.testing.wires.answers import Answer, Block, Sent, Wire, answer_of
from loomstream.testing.wires.anthropic import MESSAGES
from loomstream.testing.wires.bedrock import CONVERSE, INVOKE
from loomstream.testing.wires.gemini import GEMINI, GEMINI_ARRAY
from loomstream.testing.wires.openai import CHAT, CHAT_WHOLE_CALLS, RESPONSES
from loomstream.testing.wires.others import COHERE, OLLAMA

__all__ = ("OWN_WAYS", "WIRES", "Answer", "Block", "Route", "Sent", "Wire", "answer_of", "route")

WIRES: dict[str, Wire] = {
    wire.name: wire for wire in (CHAT, RESPONSES, MESSAGES, GEMINI, CONVERSE, INVOKE, OLLAMA, COHERE)
}
"""Each dialect to its other side."""

OWN_WAYS: dict[tuple[str, str], Wire] = {("mistral", CHAT.name): CHAT_WHOLE_CALLS}
"""A provider and a dialect that it writes in a way of its own."""


class Route(NamedTuple):
    """What an address and a body ask for."""

    wire: Wire
    streams: bool
    model: str


class _Address(NamedTuple):
    pattern: re.Pattern[str]
    wire: Wire
    streams: bool | None
    """None: the body's `stream` says it."""
    default: bool = False
    """What a body without `stream` means."""


_ADDRESSES = (
    _Address(re.compile(r"/chat/completions$"), CHAT, None),
    _Address(re.compile(r"/responses$"), RESPONSES, None),
    _Address(re.compile(r"/messages$"), MESSAGES, None),
    _Address(re.compile(r"/models/(?P<model>[^/]+):streamRawPredict$"), MESSAGES, streams=True),
    _Address(re.compile(r"/models/(?P<model>[^/]+):rawPredict$"), MESSAGES, None),
    _Address(re.compile(r"/(?P<model>[^/]+):streamGenerateContent$"), GEMINI, streams=True),
    _Address(re.compile(r"/(?P<model>[^/]+):generateContent$"), GEMINI, streams=False),
    _Address(re.compile(r"/model/(?P<model>[^/]+)/converse-stream$"), CONVERSE, streams=True),
    _Address(re.compile(r"/model/(?P<model>[^/]+)/converse$"), CONVERSE, streams=False),
    _Address(re.compile(r"/model/(?P<model>[^/]+)/invoke-with-response-stream$"), INVOKE, streams=True),
    _Address(re.compile(r"/model/(?P<model>[^/]+)/invoke$"), INVOKE, streams=False),
    _Address(re.compile(r"/api/chat$"), OLLAMA, None, default=True),
    _Address(re.compile(r"/v2/chat$"), COHERE, None),
)


def route(target: str, body: Mapping[str, object]) -> Route | None:
    """Give what a request asks for by its path, query and JSON body; None where no wire has such an address."""
    split = urlsplit(target)
    for address in _ADDRESSES:
        found = address.pattern.search(split.path)
        if found is None:
            continue
        streams = bool(body.get("stream", address.default)) if address.streams is None else address.streams
        model = unquote(found.groupdict().get("model") or str(body.get("model", "")))
        plain_array = address.wire is GEMINI and streams and parse_qs(split.query).get("alt") != ["sse"]
        return Route(GEMINI_ARRAY if plain_array else address.wire, streams, model)
    return None
