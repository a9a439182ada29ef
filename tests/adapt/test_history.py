"""Histories: ids that mean one call, and what no provider takes, named by its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomstream.adapt.history import history
from loomstream.dialects import Target
from loomstream.errors import RequestError
from loomstream.messages import Message, Request, Text, ToolCall, ToolResult, assistant, user

TARGET = Target(provider="anthropic", model="m")


def calls(*ids: str) -> Message:
    return Message("assistant", (Text("let me see"), *(ToolCall(name, "f") for name in ids)))


def results(*ids: str) -> Message:
    return Message("tool", tuple(ToolResult(name, (Text("x"),)) for name in ids))


def sent(*messages: Message, **fields: object) -> tuple[Message, ...]:
    request = Request(messages=messages, **fields)  # type: ignore[arg-type]
    found = history(request, TARGET)
    return found.request.messages if found else messages


@pytest.mark.parametrize(
    "messages",
    [
        (user("hi"), assistant("hello")),
        (user("hi"), calls("a", "b"), results("b", "a"), user("and?")),
        (calls("a"), results("a"), calls("b"), results("b")),
        (user("hi"), calls("a")),  # the last turn may still be answered
    ],
)
def test_a_history_that_keeps_the_rules_is_sent_as_it_is(messages: tuple[Message, ...]) -> None:
    assert history(Request(messages=messages), TARGET) is None


def test_an_id_of_an_earlier_turn_is_given_a_number() -> None:
    first = (calls("call_0"), results("call_0"))
    assert sent(*first, *first, *first) == (
        *first, calls("call_0_2"), results("call_0_2"), calls("call_0_3"), results("call_0_3"),
    )  # fmt: skip


def test_calls_of_one_turn_with_one_id_have_their_results_in_their_order() -> None:
    assert sent(calls("a", "a"), results("a"), results("a")) == (calls("a", "a_2"), results("a"), results("a_2"))
    with pytest.raises(RequestError, match=r"messages\[0\]\.content\[2\] calls a tool \('a'\) and no result follows"):
        history(Request(messages=(calls("a", "a"), results("a"), user("x"))), TARGET)


def test_a_number_that_is_taken_is_not_given_again() -> None:
    messages = (calls("a", "a_2"), results("a", "a_2"), calls("a"), results("a"))
    assert sent(*messages)[2:] == (calls("a_3"), results("a_3"))


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ((user("hi"), results("a")), r"messages\[1\]\.content\[0\] answers the tool call 'a': it is a result without"),
        ((calls("a"), results("a"), results("a")), r"messages\[2\]\.content\[0\] .* a second one of that call"),
        ((calls("a"), user("and?")), r"messages\[0\]\.content\[1\] calls a tool \('a'\) and no result follows"),
        ((calls("a"), calls("b"), results("b")), r"messages\[0\]\.content\[1\] calls a tool \('a'\)"),
        ((calls("a", "b"), results("a"), user("x")), r"messages\[0\]\.content\[2\] calls a tool \('b'\)"),
        ((results("a"), calls("a")), r"messages\[0\]\.content\[0\] answers the tool call 'a'"),
    ],
)
def test_what_breaks_a_rule_is_named_by_its_place(messages: tuple[Message, ...], what: str) -> None:
    with pytest.raises(RequestError, match=what):
        history(Request(messages=messages), TARGET)


def test_a_conversation_that_the_provider_holds_may_begin_with_results() -> None:
    held = {"previous_response_id": "resp_1"}
    assert sent(results("a"), extra_body=held) == (results("a"),)


@given(st.lists(st.lists(st.sampled_from(["a", "a_2", "b"]), min_size=1, max_size=3, unique=True), max_size=6))
def test_ids_are_unique_and_pairs_stay_pairs(turns: list[list[str]]) -> None:
    messages = tuple(message for ids in turns for message in (calls(*ids), results(*reversed(ids))))
    found = sent(*messages)
    asked = [block.id for message in found for block in message.content if isinstance(block, ToolCall)]
    assert len(set(asked)) == len(asked)
    for calling, answering in zip(found[::2], found[1::2], strict=True):
        ids = [block.id for block in calling.content if isinstance(block, ToolCall)]
        assert ids == [block.tool_call_id for block in reversed(answering.content) if isinstance(block, ToolResult)]
