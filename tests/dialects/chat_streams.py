"""How tests write Chat Completions streams, and read what comes of them."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

import loomstream
from loomstream.dialects import Target, openai_chat
from loomstream.errors import (
    LoomstreamError,
)
from loomstream.events import (
    Event,
)
from loomstream.messages import Message, Request, user
from loomstream.testing import check_order

TARGET = Target(provider="host", model="m", base_url="https://host/v1")


def requested(*messages: Message, target: Target = TARGET, **fields: object) -> dict[str, Any]:
    """Give the body of a request."""
    request = Request(messages=messages or (user("hi"),), **cast("Any", fields))
    return json.loads(openai_chat.build_request(request, target).body)


def sse(*chunks: object, done: bool = True) -> bytes:
    frames = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
    return b"".join(frames) + (b"data: [DONE]\n\n" if done else b"")


def chunk(delta: object = None, finish: str | None = None, *, index: int = 0, **extra: object) -> dict[str, object]:
    choice = {"index": index, "delta": delta if delta is not None else {}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "m-1", "choices": [choice], **extra}


STOPPED = chunk(None, "stop")


def decode(body: bytes, provider: str = "openai") -> list[Event]:
    events = list(loomstream.decode(provider, body, model="m"))
    check_order(events)
    return events


def decode_failing(body: bytes, error: type[LoomstreamError], provider: str = "openai") -> tuple[list[Event], Any]:
    events: list[Event] = []
    with pytest.raises(error) as raised:
        events.extend(loomstream.decode(provider, body, model="m"))
    check_order(events, complete=False)
    return events, raised.value


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def call_piece(index: int | None, name: str | None, arguments: object, id: object = None) -> dict[str, object]:  # noqa: A002 (the wire's word)
    piece: dict[str, object] = {"function": {"name": name, "arguments": arguments}, "id": id}
    return piece if index is None else {"index": index, **piece}
