"""A lone surrogate cannot be written as JSON: every dialect says so in the same words."""

from __future__ import annotations

import pytest

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
