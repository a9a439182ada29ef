"""The events of a run go through JSON."""

from __future__ import annotations

import pytest

import loomstream as ls
from loomstream import agent, errors
from loomstream.agent import CallPending, RunEvent, RunStop, ToolResultEvent, TurnStart
from loomstream.messages import Image, Text, ToolCall, ToolResult

RESULT = ToolResult("c1", (Text("4 "), Image(b"\x00", "image/png"), Text("°C")), name="get_weather")
EVENTS: list[RunEvent] = [
    TurnStart(2),
    ToolResultEvent(2, RESULT, "timed_out", 1.5),
    CallPending(1, ToolCall("c1", "f", '{"a": 1}'), "decision"),
    RunStop("cost", "0.5 USD"),
    ls.TextDelta(0, "hé"),
    ls.Stop("end_turn"),
]


DEEP = b'{"type":"usage","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_they_survive(event: RunEvent) -> None:
    assert agent.decode(agent.encode(event)) == event
    assert agent.encode(event).startswith(b'{"type":"')


def test_a_result_says_whose_it_is() -> None:
    event = ToolResultEvent(2, RESULT, "ok")
    assert (event.id, event.name, event.text) == ("c1", "get_weather", "4 °C")


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"type": "turn_end"}', b'{"type":"turn_start","turn":"1"}', b"\xff", DEEP]
)
def test_what_is_no_event(data: bytes) -> None:
    with pytest.raises(errors.RequestError, match="this is no event of a run"):
        agent.decode(data)


@pytest.mark.parametrize("name", agent.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(agent, name) is not None
