"""Event builders: what they build obeys the order law and folds to what was asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loomstream.accumulate import fold
from loomstream.events import Start, Stop
from loomstream.messages import ToolCall
from loomstream.testing import check_order, text_events, tool_call_events

pieces = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=5)


@given(pieces)
def test_text(parts: list[str]) -> None:
    events = text_events(*parts, provider="p", model="m")
    check_order(events)
    response = fold(events)
    assert response.text == "".join(parts)
    assert response.complete
    assert response.usage is not None
    assert response.usage.final
    assert events[0] == Start("p", "m")


@given(pieces)
def test_a_tool_call(parts: list[str]) -> None:
    events = tool_call_events("f", *parts, id="call_7")
    check_order(events)
    (call,) = fold(events).tool_calls
    assert (call.id, call.name) == ("call_7", "f")
    assert call.arguments.strip() in {"".join(parts).strip(), "{}"}
    assert events[-1] == Stop("tool_use", "tool_calls")


def test_a_tool_call_of_whole_arguments_can_be_run() -> None:
    assert fold(tool_call_events("f", '{"x":', "1}")).tool_calls == (ToolCall("call_0", "f", '{"x":1}'),)


def test_a_tool_call_of_cut_arguments_must_not_be_run() -> None:
    (call,) = fold(tool_call_events("f", '{"x":')).tool_calls
    assert not call.executable
