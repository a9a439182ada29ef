"""Chat Completions requests: what is asked for stands in the body, and what cannot be is said."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomstream.dialects import Quirks, Target, openai_chat
from loomstream.errors import (
    RequestError,
)
from loomstream.events import (
    Opaque,
)
from loomstream.messages import (
    ContentBlock,
    Effort,
    FileBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    Role,
    ServerToolCallBlock,
    ServerToolResultBlock,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    assistant,
    system,
    user,
)

sys.path.insert(0, str(Path(__file__).parent))

from chat_streams import TARGET, requested

BLOCKS: list[ContentBlock] = [
    Text("x"),
    Image(b"x"),
    FileBlock("image/png", b"x"),
    Reasoning("x"),
    Refusal("x"),
    ToolCall("a", "f"),
    ToolResult("a", (Text("x"),)),
    ServerToolCallBlock("a", "s"),
    ServerToolResultBlock("a", "s"),
]
TOOL = Tool("get_weather", "Gives the weather", {"type": "object", "properties": {"city": {"type": "string"}}})


# --- requests ------------------------------------------------------------------------------------


def quirky(**quirks: object) -> Target:
    return Target(provider="host", model="m", base_url="https://host/v1", quirks=Quirks(**cast("Any", quirks)))


def test_a_plain_request_holds_nothing_more() -> None:
    wire_request = openai_chat.build_request(Request(messages=(user("hi"),)), TARGET)
    assert (wire_request.method, wire_request.url) == ("POST", "https://host/v1/chat/completions")
    assert wire_request.headers["content-type"] == "application/json"
    assert "text/event-stream" in str(wire_request.headers["accept"])
    assert json.loads(wire_request.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_request_without_a_stream_has_no_stream_keys() -> None:
    assert requested(stream=False).keys() == {"model", "messages"}


def test_every_setting_has_its_key() -> None:
    body = requested(
        tools=(TOOL, Tool("f")),
        parallel_tool_calls=False,
        max_tokens=0,
        temperature=0.0,
        top_p=0.5,
        stop_sequences=("END",),
        seed=0,
        reasoning_effort="low",
    )
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                "description": "Gives the weather",
            },
        },
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}},
    ]
    del body["tools"], body["model"], body["messages"], body["stream"], body["stream_options"]
    assert body == {
        "parallel_tool_calls": False,
        "max_tokens": 0,
        "temperature": 0.0,
        "top_p": 0.5,
        "stop": ["END"],
        "seed": 0,
        "reasoning_effort": "low",
    }


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (ToolChoice("auto"), "auto"),
        (ToolChoice("any"), "required"),
        (ToolChoice("none"), "none"),
        (ToolChoice("tool", "f"), {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_a_tool_choice_is_written_in_the_wire_s_words(choice: ToolChoice, written: object) -> None:
    assert requested(tool_choice=choice)["tool_choice"] == written


def test_a_host_s_quirks_change_the_keys() -> None:
    target = quirky(
        stream_usage=False,
        max_tokens_key="max_completion_tokens",
        seed_key="random_seed",
        system_role="developer",
        top_k=True,
    )
    body = requested(user("hi"), system("late"), target=target, system="early", max_tokens=5, seed=1, top_k=40)
    assert "stream_options" not in body
    assert (body["max_completion_tokens"], body["random_seed"], body["top_k"]) == (5, 1, 40)
    assert [message["role"] for message in body["messages"]] == ["developer", "user", "developer"]
    assert not body.keys() & {"max_tokens", "seed"}


def test_a_host_that_wants_a_limit_gets_one() -> None:
    assert requested(target=quirky(needs_max_tokens=4096))["max_tokens"] == 4096
    assert requested(target=quirky(needs_max_tokens=4096), max_tokens=7)["max_tokens"] == 7


def test_top_k_is_no_part_of_the_plain_form() -> None:
    assert "top_k" not in requested(top_k=40)


def test_the_extra_body_wins_and_objects_merge() -> None:
    body = requested(extra_body={"model": "other", "user": "u", "stream_options": {"x": 1}})
    assert (body["model"], body["user"]) == ("other", "u")
    assert body["stream_options"] == {"include_usage": True, "x": 1}


def test_extra_headers_are_sent() -> None:
    request = Request(messages=(user("hi"),), extra_headers={"x-a": "b"})
    assert openai_chat.build_request(request, TARGET).headers["x-a"] == "b"


@pytest.mark.parametrize(
    "fields",
    [
        {"extra_body": {"a": object()}},
        {"tools": (Tool("f", "", {"type": {1, 2}, "x": object()}),)},
        {"messages": (user("\ud83d"),)},
    ],
    ids=["class", "tool", "surrogate"],
)
def test_what_is_no_json_is_a_request_error(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="cannot be written as JSON"):
        openai_chat.build_request(Request(**{"messages": (user("hi"),), **fields}), TARGET)


def test_a_conversation_with_tools_is_written_in_order() -> None:
    history = (
        system("be brief"),
        user("weather?"),
        Message("assistant", (Text("let me see"), ToolCall("call_1", "get_weather", '{"city":"Oslo"}'))),
        Message("tool", (ToolResult("call_1", (Text("rain"), Text(", wind"))),)),
        assistant("Rain."),
    )
    assert requested(*history)["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain, wind"},
        {"role": "assistant", "content": "Rain."},
    ]


def test_images_are_parts_by_url_or_by_their_bytes() -> None:
    message = Message("user", (Text("see"), Image(b"\x89P", "image/png"), Image(url="https://x/y.jpg")))
    assert requested(message)["messages"][0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVA="}},
        {"type": "image_url", "image_url": {"url": "https://x/y.jpg"}},
    ]


def test_results_in_a_user_s_turn_come_first_as_turns_of_their_own() -> None:
    both = Message("user", (Text("and?"), ToolResult("a", (Text("1"),)), ToolResult("b", ())))
    assert requested(both)["messages"] == [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "user", "content": "and?"},
    ]
    assert len(requested(Message("user", (ToolResult("a", ()),)))["messages"]) == 1


def test_text_beside_tool_results_is_sent_behind_them() -> None:
    turn = Message("tool", (Text("and "), ToolResult("a", (Text("1"),)), Text("more")))
    assert requested(turn)["messages"] == [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "user", "content": "and more"},
    ]


@given(st.sampled_from(["system", "user", "assistant", "tool"]), st.sampled_from(BLOCKS))
def test_every_block_is_sent_or_named(role: Role, block: ContentBlock) -> None:
    alone, beside = Message(role, (Text("t"),)), Message(role, (Text("t"), block))
    request = Request(messages=(beside,))
    assert requested(alone) != requested(beside) or openai_chat.build_request(request, TARGET).warnings


def test_an_empty_answer_and_a_refusal_go_back() -> None:
    assert requested(Message("assistant", (Refusal("no"),)))["messages"] == [
        {"role": "assistant", "content": None, "refusal": "no"}
    ]


@pytest.mark.parametrize("blocks", [(), (Reasoning("hm"),), (FileBlock("image/png", b"x"),), (Text(""),)])
def test_an_answer_of_which_nothing_is_left_is_not_sent(blocks: tuple[ContentBlock, ...]) -> None:
    """A message without content is an error at every host."""
    assert requested(user("a"), Message("assistant", blocks), user("b"))["messages"] == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]


def test_a_call_alone_goes_back_without_a_content() -> None:
    (message,) = requested(Message("assistant", (ToolCall("c", "f"),)))["messages"]
    assert message["content"] is None
    assert len(message["tool_calls"]) == 1


def test_reasoning_details_go_back_to_their_issuer_alone() -> None:
    details = '[{"type":"reasoning.text","text":"hm"}]'
    opaque = (Opaque("host", "details", details), Opaque("host", "signature", "s"), Opaque("other", "details", details))
    message = Message("assistant", (Reasoning("hm", opaque), Text("a")))
    assert requested(message)["messages"][0]["reasoning_details"] == json.loads(details)
    elsewhere = Target(provider="elsewhere", model="m")
    assert "reasoning_details" not in requested(message, target=elsewhere)["messages"][0]


@pytest.mark.parametrize("data", ["{", "", "{}", "7", "null", "\ud83d"])
def test_details_that_somebody_broke_are_left_out(data: str) -> None:
    message = Message("assistant", (Reasoning("hm", (Opaque("host", "details", data),)), Text("a")))
    assert requested(message)["messages"] == [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_goes_back_under_the_host_s_key(key: str) -> None:
    target = quirky(reasoning_back=key)
    call = ToolCall("c", "f")
    own = Message("assistant", (Reasoning("a"), Reasoning("b", (Opaque("host", "signature", "s"),)), call))
    assert requested(own, target=target)["messages"][0][key] == "ab"
    signed_elsewhere = Message("assistant", (Reasoning("a", (Opaque("other", "signature", "s"),)), call))
    assert key not in requested(signed_elsewhere, target=target)["messages"][0]
    assert openai_chat.build_request(Request(messages=(own,)), target).warnings == ()
    assert "cannot be sent back" in openai_chat.build_request(Request(messages=(signed_elsewhere,)), target).warnings[0]


def test_reasoning_alone_has_a_content_beside_it() -> None:
    message = Message("assistant", (Reasoning("a"),))
    assert requested(message, target=quirky(reasoning_back="reasoning_content"))["messages"] == [
        {"role": "assistant", "content": "", "reasoning_content": "a"}
    ]


def test_reasoning_goes_back_as_parts_in_its_place() -> None:
    signed = Reasoning("", (Opaque("host", "signature", "s"),))
    message = Message("assistant", (Reasoning("hm"), Text("a"), signed, Reasoning(""), ToolCall("c", "f")))
    assert requested(message, target=quirky(reasoning_back="parts"))["messages"] == [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "a"},
                {"type": "thinking", "thinking": [], "signature": "s"},
            ],
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }
    ]


def test_a_refusal_is_plain_text_where_its_key_is_unknown() -> None:
    message = Message("assistant", (Refusal("no"),))
    assert requested(message, target=quirky(refusal_key=False))["messages"] == [{"role": "assistant", "content": "no"}]


# --- ids of tool calls ---------------------------------------------------------------------------


def ids_sent(*ids: str, chars: int | None = 9) -> list[tuple[str, str]]:
    """Give what is sent for the calls of these ids, and for their results."""
    messages = [
        Message("assistant", tuple(ToolCall(given, "f") for given in ids)),
        Message("tool", tuple(ToolResult(given) for given in ids)),
    ]
    turn, *results = requested(*messages, target=quirky(tool_id_chars=chars))["messages"]
    return [(call["id"], result["tool_call_id"]) for call, result in zip(turn["tool_calls"], results, strict=True)]


def test_ids_of_another_form_are_replaced_for_the_call_and_its_result() -> None:
    sent = ids_sent(
        "toolu_01A", "abcDEF123", "call_b", "", "ééééééééé", "\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669"
    )
    assert all(call == result for call, result in sent)
    ids = [call for call, _ in sent]
    assert len(set(ids)) == 6
    assert ids[1] == "abcDEF123"
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", sent_id) for sent_id in ids)


def test_a_replaced_id_is_the_same_in_every_request() -> None:
    assert ids_sent("toolu_01A", "x")[0] == ids_sent("y", "toolu_01A")[1] == ids_sent("toolu_01A")[0]


@given(st.lists(st.text(max_size=12), unique=True, min_size=1, max_size=70))
def test_two_calls_never_share_an_id(ids: list[str]) -> None:
    sent = ids_sent(*ids, chars=2)
    assert len({call for call, _ in sent}) == len(ids)


def test_ids_of_any_form_are_sent_as_they_are() -> None:
    assert ids_sent("toolu_01A", "", chars=None) == [("toolu_01A", "toolu_01A"), ("", "")]


# --- models that refuse things -------------------------------------------------------------------


def test_what_a_model_refuses_is_left_out_and_said() -> None:
    target = quirky(refused=("temperature", "stop", "tools", "tool_choice"))
    request = Request(
        messages=(user("hi"),),
        temperature=0.0,
        top_p=1.0,
        stop_sequences=("a",),
        tools=(TOOL,),
        tool_choice=ToolChoice(),
    )
    body = json.loads(openai_chat.build_request(request, target).body)
    assert body.keys() == {"model", "messages", "stream", "stream_options", "top_p"}
    assert openai_chat.build_request(request, target).warnings == tuple(
        f"{key} is not sent: this model does not take it"
        for key in ("temperature", "stop_sequences", "tools", "tool_choice")
    )


def test_what_is_not_asked_for_needs_no_warning() -> None:
    assert (
        openai_chat.build_request(Request(messages=(user("hi"),)), quirky(refused=("temperature", "stop"))).warnings
        == ()
    )


@pytest.mark.parametrize(("effort", "sent"), [(None, True), ("none", True), ("low", False)])
def test_what_a_model_refuses_while_it_reasons(effort: Effort | None, *, sent: bool) -> None:
    target = quirky(refused_with_effort=("temperature",))
    request = Request(messages=(user("hi"),), temperature=0.5, reasoning_effort=effort)
    assert ("temperature" in json.loads(openai_chat.build_request(request, target).body)) == sent
    assert bool(openai_chat.build_request(request, target).warnings) != sent


NO_SYSTEM = quirky(system_role="user")


@pytest.mark.parametrize(
    ("history", "sent"),
    [
        ((user("hi"),), [("user", "be brief\n\nhi")]),
        ((system("be kind"), user("hi")), [("user", "be brief\n\nbe kind\n\nhi")]),
        (
            (user("hi"), system("be loud"), user("so?")),
            [("user", "be brief\n\nhi"), ("user", "be loud"), ("user", "so?")],
        ),
        ((assistant("hello"), user("hi")), [("user", "be brief"), ("assistant", "hello"), ("user", "hi")]),
        ((system("be kind"),), [("user", "be brief\n\nbe kind")]),
    ],
)
def test_system_turns_become_the_user_s_where_a_model_refuses_them(
    history: tuple[Message, ...], sent: list[tuple[str, str]]
) -> None:
    body = requested(*history, target=NO_SYSTEM, system="be brief")
    assert [(message["role"], message["content"]) for message in body["messages"]] == sent
    (warning,) = openai_chat.build_request(Request(messages=history, system="be brief"), NO_SYSTEM).warnings
    assert "system turns are sent as the user's" in warning


def test_instructions_stand_before_an_image() -> None:
    turn = Message("user", (Image(url="https://x/y.jpg"), Text("what?")))
    (message,) = requested(turn, target=NO_SYSTEM, system="be brief")["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "text"]


def test_without_a_system_turn_nothing_is_folded() -> None:
    assert requested(user("hi"), target=NO_SYSTEM)["messages"] == [{"role": "user", "content": "hi"}]
    assert openai_chat.build_request(Request(messages=(user("hi"),)), NO_SYSTEM).warnings == ()
    (warning,) = openai_chat.build_request(Request(messages=(system("s"), user("hi"))), NO_SYSTEM).warnings
    assert "system turns" in warning


# --- warnings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"top_k": 0}, "top_k is not sent"),
        ({"reasoning_budget_tokens": 1024}, "reasoning_budget_tokens is not sent"),
        ({"messages": (Message("assistant", (Reasoning("x"),)),)}, "cannot be sent back on this wire"),
        (
            {"messages": (Message("assistant", (FileBlock("image/png", b"x"),)),)},
            "files that a model made in assistant",
        ),
        ({"messages": (Message("assistant", (ServerToolCallBlock("a", "s"),)),)}, "calls of a provider's own tools"),
        (
            {"messages": (Message("assistant", (ServerToolResultBlock("a", "s"),)),)},
            "results of a provider's own tools",
        ),
        ({"messages": (Message("assistant", (Image(b"x"),)),)}, "images in assistant turns"),
        ({"messages": (Message("system", (Text("s"), Image(b"x"))),)}, "images in system turns"),
        ({"messages": (Message("user", (ToolCall("a", "f"),)),)}, "tool calls in user turns"),
        ({"messages": (Message("tool", (ToolResult("a", (), is_error=True),)),)}, "error flag"),
        ({"messages": (Message("tool", (ToolResult("a", (Image(url="u"),)),)),)}, "images in tool results"),
    ],
)
def test_what_is_not_sent_is_said(fields: dict[str, Any], warning: str) -> None:
    (said,) = openai_chat.build_request(Request(**{"messages": (user("hi"),), **fields}), TARGET).warnings
    assert warning in said


def test_what_is_sent_needs_no_warning() -> None:
    opaque = (Opaque("host", "details", "[]"),)
    messages = (
        user("hi"),
        Message("assistant", (Reasoning("x", opaque), Text("a"))),
        Message("tool", (ToolResult("a", (Text("1"),)),)),
    )
    assert openai_chat.build_request(Request(messages=messages, top_k=1), quirky(top_k=True)).warnings == ()
