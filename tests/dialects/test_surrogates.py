"""A lone surrogate cannot be written as JSON: every dialect says so in the same words. One that is read is replaced.

Characters of private use, one of which once stood for each of them, are read as they are.
"""

from __future__ import annotations

import pytest

import loomstream as ls
from loomstream.accumulate import fold
from loomstream.dialects import Target
from loomstream.errors import RequestError
from loomstream.messages import Message, Request, Text, ToolCall, ToolResult, user
from loomstream.providers import DIALECTS, dialect_module

LONE = '{"a":"\ud800"}'
HISTORY = (
    user("x"),
    Message("assistant", (ToolCall("a", "t", LONE),)),
    Message("tool", (ToolResult("a", (Text("r"),), name="t"),)),
)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("messages", [HISTORY, (user(LONE),)], ids=["arguments", "text"])
def test_it_is_refused(dialect: str, messages: tuple[Message, ...]) -> None:
    target = Target(provider="p", model="m", base_url="https://host.test")
    with pytest.raises(RequestError, match="the request cannot be written as JSON"):
        dialect_module(dialect).build_request(Request(messages=messages, max_tokens=5), target)


PRIVATE = "\U0010d812"
ANSWER = (
    '{"id":"r","object":"response","status":"completed","model":"m","output":[{"type":"message","id":"m1",'
    '"role":"assistant","status":"completed","content":[{"type":"output_text","text":"%s"}]}]}'
)
CHUNK = 'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
CHUNKS_END = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (PRIVATE, PRIVATE),
        (PRIVATE + r"\u00e9", PRIVATE + "é"),
        (PRIVATE + r"\ud83d", PRIVATE + "\ufffd"),
        (r"\udbf6\udc12\ud83d", PRIVATE + "\ufffd"),
    ],
)
def test_private_use_is_kept_in_a_whole_answer(text: str, meant: str) -> None:
    body = (ANSWER % text).encode()
    events = list(ls.decode("openai", [body], dialect="openai_responses", content_type="application/json", model="m"))
    assert fold(events).text == meant


def test_private_use_is_kept_beside_halves_of_characters() -> None:
    texts = (r"\ud83d", r"\ude00x", PRIVATE, r"\ud83d" + PRIVATE, r"\udbf6\udc12")
    body = "".join(CHUNK % text for text in texts) + CHUNKS_END
    events = list(ls.decode("openai", [body.encode()], dialect="openai_chat", model="m"))
    assert fold(events).text == f"\U0001f600x{PRIVATE}\ufffd{PRIVATE}{PRIVATE}"
