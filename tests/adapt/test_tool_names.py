"""Tool names: every name the user likes works at every provider, and comes back as it was."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomstream.adapt.tool_names import tool_names
from loomstream.dialects import Quirks, Target
from loomstream.events import ToolCallEnd, ToolCallStart
from loomstream.messages import Message, Request, Tool, ToolCall, ToolChoice, ToolResult, user
from loomstream.testing import Recording, ReplayTransport, replay_model

TARGET = Target(provider="x", model="m")
FITS = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def sent(*names: str, target: Target = TARGET) -> list[str]:
    found = tool_names(Request(messages=(user("x"),), tools=tuple(map(Tool, names))), target)
    return [tool.name for tool in found.request.tools] if found else list(names)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["get_weather", "get-time"], ["get_weather", "get-time"]),
        (["get weather"], ["get_weather"]),
        (["get weather", "get_weather"], ["get_weather_2", "get_weather"]),
        (["a.b", "a/b", "a:b"], ["a_b", "a_b_2", "a_b_3"]),
        (["2fa"], ["_2fa"]),
        (["天気"], ["__"]),
        (["x" * 70, "x" * 71], ["x" * 64, "x" * 62 + "_2"]),
        ([""], ["_"]),
    ],
)
def test_names_are_rewritten_only_where_they_must_be(names: list[str], expected: list[str]) -> None:
    assert sent(*names) == expected


def test_a_host_s_own_rule_holds() -> None:
    wide = Target(provider="x", model="m", quirks=Quirks(tool_name_chars="A-Za-z0-9_.:-", tool_name_max=128))
    assert sent("a.b:c", "x" * 128, target=wide) == ["a.b:c", "x" * 128]


@given(st.lists(st.text(max_size=80), unique=True, max_size=8))
def test_two_names_never_become_one_and_all_fit(names: list[str]) -> None:
    found = sent(*names)
    assert len(set(found)) == len(names)
    assert all(FITS.fullmatch(name) for name in found)
    assert found == sent(*names)


CALL = {"id": "c2", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}, "index": 0}
ANSWER = b"".join(
    b"data: " + json.dumps(chunk).encode() + b"\n\n"
    for chunk in (
        {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    )
)


@pytest.mark.anyio
async def test_the_whole_way_there_and_back() -> None:
    transport = ReplayTransport(Recording([ANSWER]))
    history = [
        user("weather?"),
        Message("assistant", (ToolCall("c1", "get weather"),)),
        Message("tool", (ToolResult("c1", name="get weather"),)),
    ]
    tools = [Tool("get weather")]
    async with (
        replay_model("openai", transport=transport) as model,
        model.stream(history, tools=tools, tool_choice=ToolChoice("tool", "get weather")) as stream,
    ):
        events = [event async for event in stream]
    body = json.loads(transport.requests[0].body)
    assert body["tools"][0]["function"]["name"] == "get_weather"
    assert body["tool_choice"]["function"]["name"] == "get_weather"
    assert body["messages"][1]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert [event.name for event in events if isinstance(event, ToolCallStart | ToolCallEnd)] == ["get weather"] * 2
    assert stream.response.tool_calls[0].name == "get weather"
    assert not [told for told in stream.response.warnings if "deprecated" not in told]
