"""The validator of the order law: it lets good streams pass and names the first event that breaks the law."""

from __future__ import annotations

from typing import cast

import pytest
from msgspec import Raw as RawJSON

from loomstream.events import (
    Citation,
    Cost,
    Event,
    File,
    Notice,
    Opaque,
    Raw,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    RefusalDelta,
    ServerToolCall,
    ServerToolResult,
    Start,
    Stop,
    StopReason,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Unknown,
    Usage,
)
from loomstream.testing import OrderViolation, check_order, text_events, tool_call_events

S, E = Start("p", "m"), Stop("end_turn")
T0, D0, X0 = TextStart(0), TextDelta(0, "a"), TextEnd(0)
R0, F0, Y0 = ReasoningStart(0), ReasoningDelta(0, "a"), ReasoningEnd(0)
C0, A0, Z0 = ToolCallStart(0, "id", "f"), ToolCallDelta(0, "{}"), ToolCallEnd(0, "id", "f", "{}")

VIOLATIONS: dict[str, tuple[list[Event], str]] = {
    "no events": ([], "without a Stop"),
    "no stop": ([S, T0, D0, X0], "after 4 events without a Stop"),
    "stop before start": ([E], "before Start"),
    "text before start": ([T0], "before Start"),
    "usage before start": ([Usage()], "before Start"),
    "cost before start": ([Cost(provider="p", model="m")], "before Start"),
    "two starts": ([S, S], "second Start"),
    "event after stop": ([S, E, Usage()], "after Stop"),
    "notice after stop": ([S, E, Notice("warning")], "after Stop"),
    "raw after stop": ([S, E, Raw("", "")], "after Stop"),
    "two stops": ([S, E, E], "after Stop"),
    "stop while text is open": ([S, T0, D0, E], "blocks are open"),
    "stop while a call is open": ([S, C0, E], "blocks are open"),
    "index skips": ([S, TextStart(1)], "next free one is 0"),
    "index is negative": ([S, TextStart(-1)], "next free one is 0"),
    "index again": ([S, T0, X0, TextStart(0)], "next free one is 1"),
    "index of another kind": ([S, T0, X0, R0], "next free one is 1"),
    "file takes a used index": ([S, T0, X0, File(0)], "next free one is 1"),
    "server call skips": ([S, ServerToolCall(2, "id", "f")], "next free one is 0"),
    "server result skips": ([S, ServerToolResult(2, "id", "f")], "next free one is 0"),
    "refusal skips": ([S, RefusalDelta(1, "no")], "next free one is 0"),
    "refusal in a text": ([S, T0, RefusalDelta(0, "no")], "next free one is 1"),
    "empty refusal": ([S, RefusalDelta(0, "n"), RefusalDelta(0, "")], "is empty"),
    "empty text": ([S, T0, TextDelta(0, "")], "is empty"),
    "empty reasoning": ([S, R0, ReasoningDelta(0, "")], "is empty"),
    "empty arguments": ([S, C0, ToolCallDelta(0, "")], "is empty"),
    "text without a block": ([S, D0], "not open"),
    "text after its end": ([S, T0, X0, D0], "not open"),
    "reasoning in a text": ([S, T0, F0], "not open"),
    "arguments in a text": ([S, T0, A0], "not open"),
    "text in a call": ([S, C0, D0], "not open"),
    "end without a block": ([S, X0], "not open"),
    "end twice": ([S, T0, X0, X0], "not open"),
    "end of another kind": ([S, T0, Y0], "not open"),
    "call ends as text": ([S, C0, X0], "not open"),
    "arguments differ from their pieces": ([S, C0, A0, ToolCallEnd(0, "id", "f", "[]")], "not the sum"),
    "arguments lose a piece": ([S, C0, A0, ToolCallDelta(0, " "), Z0], "not the sum"),
    "arguments from nowhere": ([S, C0, ToolCallEnd(0, "id", "f", '{"x":1}')], "not the sum"),
    "call ends under another id": ([S, C0, A0, ToolCallEnd(0, "other", "f", "{}")], "id or name"),
    "call ends under another name": ([S, C0, A0, ToolCallEnd(0, "id", "g", "{}")], "id or name"),
    "citation of nothing": ([S, Citation(0)], "belongs to no text"),
    "citation of reasoning": ([S, R0, Citation(0)], "belongs to no text"),
    "usage after a final one": ([S, Usage(), Usage(final=True), Usage()], "after a final Usage"),
    "two final usages": ([S, Usage(final=True), Usage(final=True)], "after a final Usage"),
    "negative input": ([S, Usage(input_tokens=-1)], "negative"),
    "negative cache write": ([S, Usage(cache_write_1h_tokens=-1)], "negative"),
    "negative reasoning": ([S, Usage(reasoning_tokens=-1)], "negative"),
    "stop before the next start": ([S, T0, D0, Notice("reset"), E], "before Start"),
    "content before the next start": ([S, Notice("reset"), T0], "before Start"),
    "index goes on after a reset": ([S, T0, X0, Notice("reset"), S, TextStart(1)], "next free one is 0"),
    "block open over a reset": ([S, T0, Notice("reset"), S, D0], "not open"),
    "second start after a resume": ([S, Notice("resume"), S], "second Start"),
    "lone surrogate": ([S, T0, TextDelta(0, "\ud83d")], "round trip"),
    "unknown reason": ([S, Stop(cast("StopReason", "bored"))], "round trip"),
    "index is a text": ([S, TextStart(cast("int", "0"))], "round trip"),
    "raw is no JSON": ([S, Usage(raw=RawJSON(b"{"))], "round trip"),
}

VALID: dict[str, list[Event]] = {
    "nothing but an end": [S, E],
    "text": text_events("a", "b"),
    "a call": tool_call_events("f", '{"x"', ":1}"),
    "a call without arguments": [S, C0, Z0, E],
    "a call of blank arguments": [S, C0, ToolCallDelta(0, " "), Z0, E],
    "notices first": [Notice("heartbeat"), Notice("retry"), S, E],
    "raw and unknown anywhere": [Raw("x", "y"), Unknown("a", "b"), S, Raw("", ""), Unknown("", ""), E],
    "blocks side by side": [S, T0, TextStart(1), TextDelta(1, "b"), D0, X0, TextEnd(1), E],
    "every kind of block": [
        S,
        R0,
        F0,
        ReasoningEnd(0, (Opaque("p", "signature", "s"),)),
        TextStart(1),
        TextDelta(1, "a"),
        Citation(1),
        TextEnd(1),
        Citation(1),
        ToolCallStart(2, "id", "f"),
        ToolCallDelta(2, "{}"),
        ToolCallEnd(2, "id", "f", "{}"),
        RefusalDelta(3, "n"),
        RefusalDelta(3, "o"),
        File(4),
        ServerToolCall(5, "id", "f"),
        ServerToolResult(6, "id", "f"),
        Usage(),
        Cost(provider="p", model="m"),
        E,
    ],
    "a reset begins again": [S, T0, D0, Notice("reset"), Notice("failover"), S, T0, D0, X0, E],
    "a reset counts anew": [S, Usage(final=True), Notice("reset"), S, Usage(), Usage(final=True), E],
    "a reset before anything": [Notice("reset"), S, E],
    "a resume goes on": [S, T0, D0, X0, Notice("resume"), TextStart(1), TextDelta(1, "b"), TextEnd(1), E],
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_named(name: str) -> None:
    events, why = VIOLATIONS[name]
    with pytest.raises(OrderViolation, match=why):
        check_order(events)


@pytest.mark.parametrize("name", VIOLATIONS)
def test_the_last_event_of_each_violation_is_the_first_that_breaks_the_law(name: str) -> None:
    events, _ = VIOLATIONS[name]
    check_order(events[:-1], complete=E in events[:-1])


def test_the_message_says_which_event() -> None:
    with pytest.raises(OrderViolation, match=r"event 2 \(TextDelta\(index=0, text=''\)\): is empty"):
        check_order([S, T0, TextDelta(0, "")])


@pytest.mark.parametrize("name", VALID)
def test_a_valid_stream_passes_and_so_does_each_part_of_it(name: str) -> None:
    events = VALID[name]
    check_order(events)
    check_order(iter(events))
    for end in range(len(events)):
        check_order(events[:end], complete=False)
        with pytest.raises(OrderViolation, match="without a Stop"):
            check_order(events[:end])


def test_a_stream_ends_in_a_stop_or_in_an_error() -> None:
    with pytest.raises(OrderViolation, match="ended in an error after 2 events with a Stop"):
        check_order([S, E], complete=False)


def test_a_violation_is_an_assertion_error() -> None:
    assert issubclass(OrderViolation, AssertionError)
