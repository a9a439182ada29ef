"""Chat Completions: what is asked for stands in the body, and no chunk, however odd, gives an untyped end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw as RawJSON

import loomstream
from loomstream.accumulate import fold
from loomstream.dialects import Quirks, Target, blocks, openai_chat
from loomstream.dialects.openai_chat import calls as tool_calls
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    ContextTooLong,
    Failure,
    LimitExceeded,
    LoomstreamError,
    Overloaded,
    RateLimited,
    RequestError,
    ServerFault,
    StreamTruncated,
)
from loomstream.events import (
    Citation,
    Event,
    File,
    Notice,
    Opaque,
    Raw,
    ReasoningEnd,
    ServerToolCall,
    ServerToolResult,
    Start,
    Stop,
    StopReason,
    TextDelta,
    ToolCallEnd,
    Unknown,
    Usage,
)
from loomstream.messages import (
    ContentBlock,
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
from loomstream.providers.table import TABLE
from loomstream.testing import check_order
from loomstream.wire import Frame

sys.path.insert(0, str(Path(__file__).parent.parent / "streams"))

from cases import Case, load, run

TARGET = Target(provider="host", model="m", base_url="https://host/v1")
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


def body_of(*messages: Message, target: Target = TARGET, **fields: object) -> dict[str, Any]:
    request = Request(messages=messages or (user("hi"),), **cast("Any", fields))
    return json.loads(openai_chat.build_request(request, target).body)


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
    assert body_of(stream=False).keys() == {"model", "messages"}


def test_every_setting_has_its_key() -> None:
    body = body_of(
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
    assert body_of(tool_choice=choice)["tool_choice"] == written


def test_a_host_s_quirks_change_the_keys() -> None:
    target = quirky(
        stream_usage=False,
        max_tokens_key="max_completion_tokens",
        seed_key="random_seed",
        system_role="developer",
        top_k=True,
    )
    body = body_of(user("hi"), system("late"), target=target, system="early", max_tokens=5, seed=1, top_k=40)
    assert "stream_options" not in body
    assert (body["max_completion_tokens"], body["random_seed"], body["top_k"]) == (5, 1, 40)
    assert [message["role"] for message in body["messages"]] == ["developer", "user", "developer"]
    assert not body.keys() & {"max_tokens", "seed"}


def test_a_host_that_wants_a_limit_gets_one() -> None:
    assert body_of(target=quirky(needs_max_tokens=4096))["max_tokens"] == 4096
    assert body_of(target=quirky(needs_max_tokens=4096), max_tokens=7)["max_tokens"] == 7


def test_top_k_is_no_part_of_the_plain_form() -> None:
    assert "top_k" not in body_of(top_k=40)


def test_the_extra_body_wins_and_objects_merge() -> None:
    body = body_of(extra_body={"model": "other", "user": "u", "stream_options": {"x": 1}})
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
    assert body_of(*history)["messages"] == [
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
    assert body_of(message)["messages"][0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVA="}},
        {"type": "image_url", "image_url": {"url": "https://x/y.jpg"}},
    ]


def test_results_in_a_user_s_turn_come_first_as_turns_of_their_own() -> None:
    both = Message("user", (Text("and?"), ToolResult("a", (Text("1"),)), ToolResult("b", ())))
    assert body_of(both)["messages"] == [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "user", "content": "and?"},
    ]
    assert len(body_of(Message("user", (ToolResult("a", ()),)))["messages"]) == 1


def test_text_beside_tool_results_is_sent_behind_them() -> None:
    turn = Message("tool", (Text("and "), ToolResult("a", (Text("1"),)), Text("more")))
    assert body_of(turn)["messages"] == [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "user", "content": "and more"},
    ]


@given(st.sampled_from(["system", "user", "assistant", "tool"]), st.sampled_from(BLOCKS))
def test_every_block_is_sent_or_named(role: Role, block: ContentBlock) -> None:
    alone, beside = Message(role, (Text("t"),)), Message(role, (Text("t"), block))
    request = Request(messages=(beside,))
    assert body_of(alone) != body_of(beside) or openai_chat.warnings(request, TARGET)


def test_an_empty_answer_and_a_refusal_go_back() -> None:
    assert body_of(Message("assistant", (Refusal("no"),)))["messages"] == [
        {"role": "assistant", "content": None, "refusal": "no"}
    ]


def test_reasoning_details_go_back_to_their_issuer_alone() -> None:
    details = '[{"type":"reasoning.text","text":"hm"}]'
    opaque = (Opaque("host", "details", details), Opaque("host", "signature", "s"), Opaque("other", "details", details))
    message = Message("assistant", (Reasoning("hm", opaque), Text("a")))
    assert body_of(message)["messages"][0]["reasoning_details"] == json.loads(details)
    elsewhere = Target(provider="elsewhere", model="m")
    assert "reasoning_details" not in body_of(message, target=elsewhere)["messages"][0]


@pytest.mark.parametrize("data", ["{", "", "{}", "7", "null", "\ud83d"])
def test_details_that_somebody_broke_are_left_out(data: str) -> None:
    message = Message("assistant", (Reasoning("hm", (Opaque("host", "details", data),)), Text("a")))
    assert body_of(message)["messages"] == [{"role": "assistant", "content": "a"}]


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
    (said,) = openai_chat.warnings(Request(**{"messages": (user("hi"),), **fields}), TARGET)
    assert warning in said


def test_what_is_sent_needs_no_warning() -> None:
    opaque = (Opaque("host", "details", "[]"),)
    messages = (
        user("hi"),
        Message("assistant", (Reasoning("x", opaque), Text("a"))),
        Message("tool", (ToolResult("a", (Text("1"),)),)),
    )
    assert openai_chat.warnings(Request(messages=messages, top_k=1), quirky(top_k=True)) == ()


# --- streams: how to say what came -------------------------------------------------------------------


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


# --- streams: the odd ones -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("content_filter", "content_filter"),
        ("model_length", "context_window"),
        ("eos", "end_turn"),
        ("stop_sequence", "stop_sequence"),
        ("refusal", "refusal"),
        ("abort", "other"),
    ],
)
def test_finish_reasons_in_one_vocabulary(raw: str, reason: StopReason) -> None:
    assert decode(sse(chunk({"content": "a"}), chunk(None, raw)))[-1] == Stop(reason, raw)


def test_what_comes_after_the_finish_reason_is_kept_and_closed() -> None:
    events = decode(sse(chunk({"content": "a"}, "stop"), chunk({"content": "b"})))
    assert fold(events).text == "ab"
    late_call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}
    events = decode(sse(chunk({"content": "a"}, "stop"), chunk(late_call)))
    assert [call.name for call in fold(events).tool_calls] == ["f"]


def test_a_whole_message_in_a_chunk_counts_where_no_delta_came() -> None:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}
    assert fold(decode(sse(whole))).text == "a"


def test_a_whole_message_that_repeats_the_deltas_is_not_said_twice() -> None:
    repeated = {"choices": [{"index": 0, "message": {"content": "ab"}, "finish_reason": "stop"}]}
    assert fold(decode(sse(chunk({"content": "a"}), chunk({"content": "b"}), repeated))).text == "ab"


def test_an_empty_finish_reason_is_none() -> None:
    events, _ = decode_failing(sse(chunk({"content": "a"}, ""), done=False), StreamTruncated)
    assert fold(events).text == "a"


def test_choices_grow_side_by_side() -> None:
    events = decode(
        sse(
            chunk({"content": "a"}, index=1),
            chunk({"content": "b"}),
            chunk({"content": "c"}, index=1),
            chunk(None, "length", index=1),
            STOPPED,
        )
    )
    assert [(choice.index, choice.message.text) for choice in fold(events).choices] == [(0, "b"), (1, "ac")]
    assert Notice("warning", "choice 1 stopped: length") in events
    assert events[-1] == Stop("end_turn", "stop")


def test_done_ends_choices_that_never_finished_once_the_first_has() -> None:
    events = decode(sse(chunk({"content": "a"}, index=1), chunk({"content": "b"}, "stop")))
    assert fold(events).choices[1].message.text == "a"


def test_without_done_every_choice_must_have_finished() -> None:
    body = sse(chunk({"content": "a"}, index=1), chunk({"content": "b"}, "stop"), done=False)
    decode_failing(body, StreamTruncated)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"data: [DONE]\n\n", "before the first chunk"),
        (sse({"usage": None}, done=False), "before the first chunk"),
        (sse(chunk({"content": "a"})), "DONE.* without a finish_reason"),
        (sse(chunk({"content": "a"}), done=False), "before a finish_reason"),
    ],
)
def test_a_truncated_stream_says_what_is_missing(body: bytes, what: str) -> None:
    _, error = decode_failing(body, StreamTruncated)
    assert error.provider == "openai"
    with pytest.raises(StreamTruncated, match=what):
        raise error


def test_usage_that_came_before_a_truncation_is_kept_only_once() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    events, _ = decode_failing(sse(chunk({"content": "a"}, usage=usage), done=False), StreamTruncated)
    assert [event.input_tokens for event in of(Usage, events)] == [3]


def test_usage_after_the_end_is_kept_when_an_error_follows() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    error = {"error": {"message": "broken"}}
    events, raised = decode_failing(sse(chunk({"content": "a"}, "stop"), usage, error), ServerFault)
    assert [event.output_tokens for event in of(Usage, events)] == [1]
    assert "broken" in str(raised)


def test_usage_in_x_groq_counts() -> None:
    groq = chunk(None, "stop", x_groq={"id": "req_1", "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    assert fold(decode(sse(chunk({"content": "a"}), groq))).usage == Usage(
        input_tokens=3, output_tokens=1, final=True, raw=RawJSON(b'{"prompt_tokens":3,"completion_tokens":1}')
    )


def test_x_groq_without_usage_is_no_usage() -> None:
    assert fold(decode(sse(chunk({"content": "a"}, "stop", x_groq={"id": "req_1"})))).usage is None


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2}, (5, 2, 0, 0)),
        ({"input_tokens": 5, "output_tokens": 2}, (5, 2, 0, 0)),
        ({"prompt_tokens": 5, "total_tokens": 7}, (5, 2, 0, 0)),
        ({"completion_tokens": 2, "total_tokens": 7}, (5, 2, 0, 0)),
        ({"total_tokens": 7}, (7, 0, 0, 0)),
        ({"completion_tokens": 9, "total_tokens": 7}, (0, 9, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}, (1, 2, 4, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "cached_tokens": 9}, (0, 2, 9, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "reasoning_tokens": 1}, (5, 2, 0, 1)),
        ({"prompt_tokens": -5, "completion_tokens": 2}, (0, 2, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 9, "reasoning_tokens": 2}, (5, 4, 0, 2)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "total_tokens": 9,
                "prompt_tokens_details": {"audio_tokens": 2},
            },
            (7, 2, 0, 0),
        ),
    ],
)
def test_usage_in_one_convention(wire: dict[str, object], expected: tuple[int, ...]) -> None:
    usage = fold(decode(sse(chunk({"content": "a"}, "stop"), {"choices": [], "usage": wire}))).usage
    assert usage is not None
    counts = (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.reasoning_tokens)
    assert counts == expected
    assert usage.final
    assert json.loads(bytes(usage.raw)) == wire


@pytest.mark.parametrize("wire", [{}, {"a": 1}, [], "free", {"prompt_tokens": None}, {"prompt_tokens": "many"}])
def test_usage_without_counts_is_no_usage(wire: object) -> None:
    events = decode(sse(chunk({"content": "a"}, "stop"), {"choices": [], "usage": wire}))
    assert fold(events).usage is None


def test_usage_before_the_first_chunk_waits_for_the_start() -> None:
    early = {"choices": [], "usage": {"prompt_tokens": 1.0, "completion_tokens": 0}}
    events = decode(sse(early, chunk({"content": "a"}, "stop")))
    assert isinstance(events[0], Start)
    assert events[1] == Notice("warning", "mistyped usage field prompt_tokens")
    assert fold(events).usage is not None


def test_an_unknown_frame_is_kept_and_the_first_waits_for_the_start() -> None:
    events = decode(sse({"hello": 1}, chunk({"content": "a"}, "stop"), {"object": "obscure"}))
    assert [event.data for event in of(Unknown, events)] == ['{"hello": 1}', '{"object": "obscure"}']
    assert isinstance(events[0], Start)


def test_reasoning_details_are_joined_by_type_and_index() -> None:
    pieces = [
        [{"type": "reasoning.text", "text": "a", "index": 0, "signature": None}],
        [{"type": "reasoning.text", "text": "b", "index": 0, "signature": "s"}],
        [{"type": "reasoning.encrypted", "data": "x", "index": 1, "id": "r1"}],
        [{"type": "reasoning.encrypted", "data": "y", "index": 1, "id": "r2"}],
        [{"type": "reasoning.summary", "summary": "c", "index": 2}],
        "no list",
        [],
    ]
    events = decode(sse(*(chunk({"reasoning_details": piece}) for piece in pieces), STOPPED))
    assert fold(events).reasoning == "abc"
    (opaque,) = of(ReasoningEnd, events)[0].opaque
    assert (opaque.issuer, opaque.kind) == ("openai", "details")
    assert json.loads(opaque.data) == [
        {"type": "reasoning.text", "text": "ab", "index": 0, "signature": "s"},
        {"type": "reasoning.encrypted", "data": "x", "index": 1, "id": "r1"},
        {"type": "reasoning.encrypted", "data": "y", "index": 1, "id": "r2"},
        {"type": "reasoning.summary", "summary": "c", "index": 2},
    ]


def test_a_detail_s_fields_are_kept_in_their_order_and_odd_ones_replace() -> None:
    items = [
        {"type": "t", "text": "a", "n": None, "index": 0},
        {"type": "t", "text": "b", "n": 1, "index": 0, "data": "d"},
        {"type": "t", "text": 7, "index": 0, "data": "e", "n": None},
        {"type": "t", "text": "c", "index": 0},
    ]
    events = decode(sse(*[chunk({"reasoning_details": [item]}) for item in items], STOPPED))
    (end,) = of(ReasoningEnd, events)
    assert end.opaque[0].data == '[{"type":"t","text":"c","n":1,"index":0,"data":"de"}]'


def test_reasoning_without_text_is_kept_for_its_details() -> None:
    events = decode(sse(chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}), STOPPED))
    assert fold(events).reasoning == ""
    assert len(of(ReasoningEnd, events)[0].opaque) == 1


def test_thinking_and_text_parts() -> None:
    parts: list[object] = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "signature": "s"},
        {"type": "thinking", "thinking": "m"},
        {"type": "thinking", "thinking": []},
        {"type": "thinking"},
        {"type": "thinking", "signature": "t"},
        {"type": "text", "text": "a"},
        {"type": "text", "text": ""},
        {"text": "b"},
        {"type": "reference", "reference_ids": [1]},
        "odd",
    ]
    events = decode(sse(chunk({"content": parts}), STOPPED))
    response = fold(events)
    assert (response.reasoning, response.text) == ("hmm", "ab")
    assert [opaque.data for opaque in of(ReasoningEnd, events)[0].opaque] == ["s", "t"]
    assert [event.data for event in of(Unknown, events)] == ['{"type": "reference", "reference_ids": [1]}', '"odd"']


def test_a_thought_signature_beside_the_content_is_kept() -> None:
    google = {"google": {"thought_signature": "sig"}}
    events = decode(sse(chunk({"content": "a", "extra_content": google}), STOPPED))
    assert of(ReasoningEnd, events)[0].opaque == (Opaque("openai", "signature", "sig"),)
    assert not of(ReasoningEnd, decode(sse(chunk({"content": "a", "extra_content": {"google": {}}}), STOPPED)))


def test_a_refusal_alone_is_the_reason_and_beside_text_is_not() -> None:
    refused = decode(sse(chunk({"refusal": "I "}), chunk({"refusal": "cannot"}), STOPPED))
    assert fold(refused).refusal == "I cannot"
    assert refused[-1] == Stop("refusal", "stop")
    both = decode(sse(chunk({"content": "a", "refusal": "b"}), STOPPED))
    assert both[-1] == Stop("end_turn", "stop")


def call_piece(index: int | None, name: str | None, arguments: object, id: object = None) -> dict[str, object]:  # noqa: A002 (the wire's word)
    piece: dict[str, object] = {"function": {"name": name, "arguments": arguments}, "id": id}
    return piece if index is None else {"index": index, **piece}


def calls_of(*deltas: object, finish: str = "tool_calls") -> list[tuple[str, str, str, bool]]:
    events = decode(sse(*(chunk({"tool_calls": pieces}) for pieces in deltas), chunk(None, finish)))
    return [(event.id, event.name, event.arguments, event.executable) for event in of(ToolCallEnd, events)]


def test_a_call_without_an_id_is_given_one() -> None:
    assert calls_of([call_piece(0, "f", "{}")]) == [("call_0", "f", "{}", True)]


def test_a_number_for_an_id_is_read_as_text() -> None:
    assert calls_of([call_piece(0, "f", "{}", 7)]) == [("7", "f", "{}", True)]


def test_a_call_that_never_had_a_name_is_still_a_call() -> None:
    assert calls_of([call_piece(0, None, '{"a":')], [call_piece(0, "", "1}")]) == [("call_0", "", '{"a":1}', True)]


def test_whole_calls_without_an_index_are_kept_apart() -> None:
    pieces = [call_piece(None, "f", '{"a":1}', "x"), call_piece(None, "g", "{}", "y"), call_piece(None, "h", "{}")]
    assert [name for _, name, _, _ in calls_of(pieces)] == ["f", "g", "h"]


def test_pieces_without_an_index_join() -> None:
    assert calls_of(
        [call_piece(None, "f", '{"a"', "x")], [call_piece(None, None, ":1}")], [call_piece(None, "f", "", "x")]
    ) == [("x", "f", '{"a":1}', True)]


def test_another_call_under_the_index_of_an_open_one() -> None:
    assert calls_of([call_piece(0, "f", "{}", "x")], [call_piece(0, "g", "{}", "y")]) == [
        ("x", "f", "{}", True),
        ("y", "g", "{}", True),
    ]


def test_another_call_under_the_index_of_one_without_a_name() -> None:
    calls = calls_of([call_piece(0, None, '{"a":1}', "x")], [call_piece(0, "g", "{}", "y")])
    assert [(name, arguments) for _, name, arguments, _ in calls] == [("", '{"a":1}'), ("g", "{}")]


def test_the_same_call_again_without_an_id_is_a_new_one_once_the_first_is_whole() -> None:
    calls = calls_of([call_piece(0, "f", "{}")], [call_piece(0, "f", '{"b":2}')])
    assert [(name, arguments) for _, name, arguments, _ in calls] == [("f", "{}"), ("f", '{"b":2}')]


@pytest.mark.parametrize(
    ("pieces", "arguments"),
    [
        (['{"a":"', "}", '"}', "{}"], ['{"a":"}"}', "{}"]),
        (['{"a":"\\', '"}', '"}', " ", "{}"], ['{"a":"\\"}"}', " {}"]),
        (['{"a":{', "}", "}", "{}"], ['{"a":{}}', "{}"]),
        (['{"a":1}', "x", "{}"], ['{"a":1}', "x{}"]),
        (['{"a":1', ",}", "{}"], ['{"a":1,}{}']),
        (["}", "{}"], ["}{}"]),
    ],
)
def test_a_repeated_name_begins_another_call_once_the_arguments_are_whole(
    pieces: list[str], arguments: list[str]
) -> None:
    calls = calls_of(*[[call_piece(0, "f", piece)] for piece in pieces])
    assert [call[2] for call in calls] == arguments


def test_growing_arguments_are_read_once_however_often_the_name_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    is_object = tool_calls.is_object
    monkeypatch.setattr(tool_calls, "is_object", lambda text: read.append(len(text)) or is_object(text))
    pieces = ['{"a":"', *["x"] * 500, '"}', *[" "] * 100]
    calls_of(*[[call_piece(0, "f", piece)] for piece in pieces])
    assert read == [len('{"a":""}') + 500]


@pytest.mark.parametrize("arguments", [None, ""])
def test_no_arguments_are_an_empty_object(arguments: object) -> None:
    assert calls_of([call_piece(0, "f", arguments, "x")]) == [("x", "f", "{}", True)]


def test_arguments_that_are_an_object_are_its_text() -> None:
    assert calls_of([call_piece(0, "f", {"a": [1.0]}, "x")]) == [("x", "f", '{"a": [1.0]}', True)]


@pytest.mark.parametrize("finish", ["length", "model_length"])
def test_a_call_cut_by_a_token_limit_must_not_be_run(finish: str) -> None:
    assert calls_of([call_piece(0, "f", "", "x")], finish=finish) == [("x", "f", "{}", False)]
    assert calls_of([call_piece(0, "f", "{}", "x")], finish=finish) == [("x", "f", "{}", True)]


@pytest.mark.parametrize(
    ("custom", "expected"),
    [
        ({"name": "f", "input": "text"}, ("f", "text")),
        (None, ("", "{}")),
        (7, ("", "{}")),
        ({"name": 3}, ("", "{}")),
        ({}, ("", "{}")),
    ],
)
def test_a_custom_call_s_text_stands_for_its_arguments(custom: object, expected: tuple[str, str]) -> None:
    ((_, name, arguments, _),) = calls_of([{"index": 0, "id": "x", "custom": custom}])
    assert (name, arguments) == expected


def test_the_older_function_call() -> None:
    pieces = [{"name": "f", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ":1}"}, {"name": None}]
    events = decode(sse(*(chunk({"function_call": piece}) for piece in pieces), chunk(None, "function_call")))
    assert [(event.name, event.arguments) for event in of(ToolCallEnd, events)] == [("f", '{"a":1}')]
    assert events[-1] == Stop("tool_use", "function_call")
    assert not of(ToolCallEnd, decode(sse(chunk({"content": "a", "function_call": {}}), STOPPED)))


def test_annotations_cite_the_text_and_open_one_where_there_is_none() -> None:
    annotation = {
        "type": "url_citation",
        "url_citation": {"url": "https://a", "title": "A", "content": "c", "start_index": 1, "end_index": 2},
    }
    late = decode(sse(chunk({"content": "a"}), chunk({"annotations": [annotation, "odd"]}), STOPPED))
    first, odd = of(Citation, late)
    assert (first.url, first.title, first.cited_text, first.start, first.end) == ("https://a", "A", "c", 1, 2)
    assert (odd.url, odd.start) == ("", None)
    early = decode(sse(chunk({"reasoning": "hm"}), chunk({"annotations": [annotation]}), STOPPED))
    assert of(Citation, early)[0].index == 1


@pytest.mark.parametrize("offset", [True, 1.5, "1", None])
def test_an_offset_that_is_no_whole_number_is_left_out(offset: object) -> None:
    item = {"type": "url_citation", "url_citation": {"url": "u", "start_index": offset, "end_index": offset}}
    (citation,) = of(Citation, decode(sse(chunk({"content": "a", "annotations": [item]}), STOPPED)))
    assert (citation.start, citation.end) == (None, None)


def test_sources_are_cited_at_the_end_and_nowhere_without_a_text() -> None:
    sources = {"citations": ["https://a"], "search_results": [{"url": "https://b", "snippet": "s"}]}
    cited = of(Citation, decode(sse(chunk({"content": "a"}, **sources), STOPPED)))
    assert [(citation.url, citation.cited_text) for citation in cited] == [("https://b", "s")]
    assert not of(Citation, decode(sse(chunk({"reasoning": "a"}, **sources), STOPPED)))
    assert not of(Citation, decode(sse(chunk({"content": "a"}, citations=None, search_results=None), STOPPED)))


def test_tools_that_the_provider_ran() -> None:
    running = {"executed_tools": [{"type": "search", "index": 4, "arguments": '{"q":1}'}]}
    ran = {"executed_tools": [{"type": "search", "index": 4, "output": "found"}, {"type": "python", "output": None}]}
    events = decode(sse(chunk(running), chunk(ran), chunk({"executed_tools": "odd"}), STOPPED))
    calls, (result,) = of(ServerToolCall, events), of(ServerToolResult, events)
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("executed_0_4", "search", '{"q":1}'),
        ("executed_0_1", "python", "{}"),
    ]
    assert (result.tool_call_id, bytes(result.content)) == ("executed_0_4", b'"found"')


def test_tools_of_two_choices_are_kept_apart() -> None:
    ran = {"executed_tools": [{"type": "search", "index": 0}]}
    events = decode(sse(chunk(ran), chunk(ran, index=1), chunk(None, "stop", index=1), STOPPED))
    assert [(call.id, call.choice) for call in of(ServerToolCall, events)] == [("executed_0_0", 0), ("executed_1_0", 1)]


@pytest.mark.parametrize(
    ("delta", "file"),
    [
        ({"images": [{"image_url": {"url": "data:image/png;base64,iVA="}}]}, ("image/png", b"\x89P", "")),
        ({"images": [{"image_url": {"url": "https://x"}}]}, ("image", b"", "https://x")),
        (
            {"images": [{"image_url": {"url": "data:image/png;base64,%%"}}]},
            ("image/png", b"", "data:image/png;base64,%%"),
        ),
        ({"images": [{"image_url": {"url": "data:odd"}}]}, ("image", b"", "data:odd")),
        ({"images": ["odd"]}, ("image", b"", "")),
        ({"images": None, "audio": {"id": "a", "data": "aGk="}}, ("audio", b"hi", "")),
        ({"images": [{"image_url": {"url": "data:a/b;base64,é"}}]}, ("a/b", b"", "data:a/b;base64,é")),
    ],
)
def test_files(delta: dict[str, object], file: tuple[str, bytes, str]) -> None:
    (made,) = of(File, decode(sse(chunk(delta), STOPPED)))
    assert (made.media_type, made.data, made.url) == file


def test_null_files_are_none() -> None:
    assert not of(File, decode(sse(chunk({"content": "a", "images": None, "audio": None}), STOPPED)))


# --- streams: limits and errors --------------------------------------------------------------------


def test_too_many_blocks_end_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_BLOCKS", 4)
    turns = [chunk({"content": "a"}), chunk({"reasoning": "b"})] * 3
    events, error = decode_failing(sse(*turns, STOPPED), LimitExceeded)
    assert "more than 4 content blocks" in str(error)
    assert len(of(TextDelta, events)) == 2


def test_too_long_arguments_end_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_TOOL_ARGUMENTS_CHARS", 10)
    pieces = [chunk({"tool_calls": [call_piece(0, "f", "12345678", "x")]})] * 3
    _, error = decode_failing(sse(*pieces, STOPPED), LimitExceeded)
    assert "tool call 'x' are longer than 10" in str(error)


def test_too_many_choices_end_the_stream() -> None:
    frame = {"choices": [{"index": index, "delta": {"content": "a"}} for index in range(2000)]}
    events, error = decode_failing(sse(frame), LimitExceeded)
    assert "more than 1024 choices" in str(error)
    assert len(of(TextDelta, events)) == 1024


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, RateLimited, "slow down"),
        ({"error": {"message": "full", "code": 503}}, Overloaded, "full"),
        ({"error": {"message": "odd", "status_code": "529"}}, Overloaded, "odd"),
        ({"error": {"message": "odd", "code": 200}}, ServerFault, "odd"),
        ({"error": "text alone"}, ServerFault, "text alone"),
        ({"object": "error", "message": "flat", "type": "server_error"}, ServerFault, "flat"),
        ({"message": "bare", "code": "invalid_api_key"}, AuthFailed, "bare"),
        ({"detail": "not authenticated"}, ServerFault, "not authenticated"),
        ({"choices": [], "error": {"message": "beside"}}, ServerFault, "beside"),
        ({"error": {}}, ServerFault, "openai reported an error"),
    ],
)
def test_an_error_inside_a_stream_is_typed(frame: dict[str, object], error: type[LoomstreamError], words: str) -> None:
    events, raised = decode_failing(sse(chunk({"content": "a"}), frame), error)
    assert words in str(raised)
    assert type(raised) is error
    assert fold(events).text == "a"


@pytest.mark.parametrize("code", ["²", "٤٠٤", "4" * 5000, "999", "-404", "4.4", True, None])
def test_a_code_that_is_no_status_is_none(code: object) -> None:
    _, error = decode_failing(sse(chunk({"content": "a"}), {"error": {"message": "odd", "code": code}}), ServerFault)
    assert error.status == 200
    assert len(str(error)) < 500


def test_the_provider_s_own_error_counts_where_a_choice_ended_in_one() -> None:
    said = {"code": 429, "message": "upstream is full"}
    _, error = decode_failing(sse(chunk({"content": "a"}), {**chunk(None, "error"), "error": said}), RateLimited)
    assert (error.status, error.code) == (429, "429")
    assert "upstream is full" in str(error)
    assert json.loads(error.body)["error"] == said


def test_nothing_follows_a_choice_that_failed() -> None:
    translator = openai_chat.translator(TARGET)
    failed = {"index": 0, "delta": {"content": "a"}, "finish_reason": "error"}
    frame = {"choices": [failed, {"index": 1, "delta": {"content": "b"}}], "usage": {"prompt_tokens": 1.0}}
    out = translator.feed(Frame("", json.dumps(frame).encode()))
    assert [type(item) for item in out].index(Failure) == len(out) - 1
    assert translator.feed(Frame("", json.dumps(chunk({}, "stop")).encode())) == []
    assert translator.finish() == []


def test_an_error_as_the_first_frame_has_no_start() -> None:
    events, _ = decode_failing(sse({"error": {"message": "no"}}), ServerFault)
    assert events == []


def test_a_finish_reason_of_error_is_one() -> None:
    events, error = decode_failing(sse(chunk({"content": "a"}), chunk(None, "error")), ServerFault)
    assert "finish_reason error" in str(error)
    assert fold(events).text == "a"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error":{"message":"too long","code":"context_length_exceeded"}}', ContextTooLong),
        (b'{"choices":null}', BadFrame),
        (b"{}", BadFrame),
        (b'{"choices":[{"message":{"content":7}}]}', BadFrame),
        (b'{"choices":[]}', StreamTruncated),
        (b'{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}', StreamTruncated),
        (b"{", StreamTruncated),
    ],
)
def test_a_whole_body_that_is_no_answer_is_an_error(body: bytes, error: type[LoomstreamError]) -> None:
    decode_failing(body, error)


def test_a_whole_answer_folds_to_the_same_as_its_stream() -> None:
    message = {
        "role": "assistant",
        "content": "a",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
    }
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    whole = json.dumps({"id": "chatcmpl-1", "model": "m-1", "choices": [choice], "usage": usage}).encode()
    pieces = [
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "a"}),
        chunk({"tool_calls": [call_piece(0, "f", '{"a":', "x")]}),
        chunk({"tool_calls": [call_piece(0, None, "1}")]}),
        chunk(None, "tool_calls"),
        {"choices": [], "usage": usage},
    ]
    one, other = fold(decode(whole)), fold(decode(sse(*pieces)))
    assert one.message == other.message
    assert one.stop == other.stop
    assert one.usage is not None
    assert other.usage is not None
    assert (one.usage.input_tokens, one.usage.output_tokens) == (other.usage.input_tokens, other.usage.output_tokens)


def test_a_whole_answer_without_a_finish_reason_is_whole() -> None:
    events = decode(b'{"choices":[{"message":{"content":"a"}}]}')
    assert events[-1] == Stop("other", "")


def test_a_whole_answer_with_too_much_in_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_BLOCKS", 1)
    decode_failing(b'{"choices":[{"message":{"content":"a","reasoning":"b"},"finish_reason":"stop"}]}', LimitExceeded)


def test_a_translator_is_finished_after_its_failure_or_its_end() -> None:
    failed = openai_chat.translator(TARGET)
    assert isinstance(failed.feed(Frame("", b"{"))[-1], Failure)
    ended = openai_chat.translator(TARGET)
    ended.feed(Frame("", json.dumps(chunk({"content": "a"}, "stop")).encode()))
    assert isinstance(ended.feed(Frame("", b"[DONE]"))[-1], Stop)
    for over in (failed, ended):
        assert over.feed(Frame("", json.dumps(chunk({"content": "more"})).encode())) == []
        assert over.finish() == []


def test_halves_of_a_character_join_also_at_the_end_of_a_whole_answer() -> None:
    body = rb'{"choices":[{"message":{"content":"a\ud83d"},"finish_reason":"stop"}],"citations":["\ud83d"]}'
    events = decode(body)
    assert fold(events).text == "a\ufffd"
    assert of(Citation, events)[0].url == "\ufffd"


# --- whatever the bytes --------------------------------------------------------------------------


CASES = [case for case in load() if case.path.parent.name == "openai_chat"]
MARK = "@@MARK@@"
VALUES = (
    b"null",
    b"7",
    b"-1",
    b"1.5",
    b"true",
    b'""',
    b'"s"',
    rb'"\ud83d"',
    b'"\xff"',
    b"[]",
    b'[null,{},"s"]',
    b'{"x":["\xff"]}',
    b"1e999",
    b"9" * 40,
    b'"' + b"x" * 5000 + b'"',
)
"""What is put in the place of each JSON value."""


def paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def replaced(value: object, path: tuple[str | int, ...], new: object) -> object:
    """Give the value with another at the path; without it where `new` is Ellipsis."""
    if not path:
        return new
    copied = cast("Any", value).copy()
    key = path[0]
    if len(path) == 1 and new is ...:
        del copied[key]
    else:
        copied[key] = replaced(copied[key], path[1:], new)
    return copied


def mutations(data: bytes) -> Iterator[bytes]:
    value = json.loads(data)
    for path in paths(value):
        if path:
            yield json.dumps(replaced(value, path, ...)).encode()
        marked = json.dumps(replaced(value, path, MARK)).encode()
        for other in VALUES:
            yield marked.replace(f'"{MARK}"'.encode(), other)


def json_units(body: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Give each JSON text of a body with what stands before and after it."""
    lines = body.splitlines(keepends=True)
    for position, line in enumerate(lines):
        name, _, payload = line.partition(b":")
        text = payload if name == b"data" else line
        try:
            json.loads(text)
        except ValueError:
            continue
        before = b"".join(lines[:position]) + (b"data: " if name == b"data" else b"")
        yield before, text.strip(), b"\n" + b"".join(lines[position + 1 :])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_no_value_of_any_type_gives_anything_but_typed_events(case: Case) -> None:
    """Every JSON value of every golden is dropped, and replaced by values of every type."""
    seen: set[bytes] = set()
    for before, data, after in json_units(case.body):
        for mutated in mutations(data):
            if mutated in seen:
                continue
            seen.add(mutated)
            outcome = run(case, [before + mutated + after])
            check_order(outcome.events, complete=not outcome.error)
            fold(outcome.events)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_bytes_of_a_golden_that_were_damaged_give_typed_events(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(CASES))
    body = bytearray(case.body)
    for _ in range(data.draw(st.integers(1, 4))):
        if body:
            place = data.draw(st.integers(0, len(body) - 1))
            body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    outcome = run(case, [bytes(body)])
    check_order(outcome.events, complete=not outcome.error)


@pytest.mark.parametrize("provider", [row.name for row in TABLE if row.dialect == "openai_chat"])
def test_every_row_of_the_table_reads_a_plain_stream(provider: str) -> None:
    events = decode(sse(chunk({"content": "a"}, "stop")), provider)
    assert events[0] == Start(provider, "m-1", "chatcmpl-1")
    assert events[-1] == Stop("end_turn", "stop")
    assert not of(Raw, events)
