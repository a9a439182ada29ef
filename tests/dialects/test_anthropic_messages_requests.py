"""What anthropic_messages sends; what it reads stands in test_anthropic_messages.py."""

# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import base64
import copy
import json
from typing import Any

import msgspec
import pytest
from goldens import split

from loomstream.accumulate import fold
from loomstream.dialects import Quirks, Target
from loomstream.dialects import anthropic_messages as dialect
from loomstream.errors import RequestError
from loomstream.events import Citation, Opaque
from loomstream.messages import (
    FileBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    ServerToolCallBlock,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    assistant,
    system,
    tool_result,
    user,
)

TARGET = Target(provider="anthropic", model="asked-model", base_url="https://api.anthropic.com")
CITED = {"type": "char_location", "cited_text": "c", "document_index": 0, "start_char_index": 0, "end_char_index": 1}


def body_of(request: Request, target: Target = TARGET) -> Any:
    return json.loads(dialect.build_request(request, target).body)


def asking(**fields: Any) -> Request:
    return Request(messages=(user("hi"),), **fields)


HI = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


def test_the_plain_request() -> None:
    wire_request = dialect.build_request(asking(extra_headers={"anthropic-beta": "b"}), TARGET)
    assert (wire_request.method, wire_request.url) == ("POST", "https://api.anthropic.com/v1/messages")
    assert dict(wire_request.headers) == {
        "content-type": "application/json",
        "accept": "text/event-stream, application/json",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "b",
    }
    assert json.loads(wire_request.body) == {"model": "asked-model", "messages": HI, "stream": True}


def test_a_base_url_with_a_version_is_not_doubled() -> None:
    target = Target(provider="x", model="m", base_url="http://localhost:8080/v1")
    assert dialect.build_request(asking(), target).url == "http://localhost:8080/v1/messages"


def test_the_settings() -> None:
    request = asking(
        system="Be brief.",
        max_tokens=0,
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        stop_sequences=("END",),
        stream=False,
        extra_body={"metadata": {"user_id": "u"}, "temperature": 0.2},
    )
    assert body_of(request) == {
        "model": "asked-model",
        "messages": HI,
        "system": "Be brief.",
        "max_tokens": 0,
        "temperature": 0.2,
        "top_p": 0.5,
        "top_k": 3,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
    }
    assert dialect.build_request(request, TARGET).warnings == ()


def test_a_limit_is_sent_where_the_wire_demands_one() -> None:
    target = Target(provider="anthropic", model="claude-sonnet-5-5", quirks=Quirks(needs_max_tokens=4096))
    assert body_of(asking(), target)["max_tokens"] == 4096
    assert body_of(asking(max_tokens=9), target)["max_tokens"] == 9
    assert body_of(asking(reasoning_budget_tokens=2000), target)["max_tokens"] == 6096


def test_a_seed_is_not_sent_and_said_so() -> None:
    assert body_of(asking(seed=1)) == body_of(asking())
    assert dialect.build_request(asking(seed=1), TARGET).warnings == ("seed is not sent: this wire has none",)


NEW, OLD = "claude-sonnet-5-5", "claude-sonnet-4-5-20250929"
OFF = {"thinking": {"type": "disabled"}}


def adaptive(effort: str) -> Any:
    return {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}


def enabled(tokens: int) -> Any:
    return {"thinking": {"type": "enabled", "budget_tokens": tokens}}


@pytest.mark.parametrize(
    ("model", "settings", "expected", "warned"),
    [
        (NEW, {"reasoning_effort": "high"}, adaptive("high"), ""),
        (NEW, {"reasoning_effort": "minimal"}, adaptive("low"), "sent as 'low'"),
        (NEW, {"reasoning_effort": "none"}, OFF, ""),
        (OLD, {"reasoning_effort": "none"}, OFF, ""),
        (OLD, {"reasoning_effort": "medium"}, enabled(8192), ""),
        (OLD, {"reasoning_effort": "high", "max_tokens": 4000}, enabled(3999), "cut to 3999"),
        (NEW, {"reasoning_budget_tokens": 0}, OFF, ""),
        (NEW, {"reasoning_budget_tokens": 5000}, enabled(5000), ""),
        (NEW, {"reasoning_budget_tokens": 10}, enabled(1024), "raised to 1024"),
        (NEW, {"reasoning_budget_tokens": 5000, "max_tokens": 1000}, {}, "reasoning is off"),
        (
            NEW,
            {"reasoning_budget_tokens": 5000, "reasoning_effort": "low"},
            {**enabled(5000), "output_config": {"effort": "low"}},
            "",
        ),
        (NEW, {"reasoning_budget_tokens": 5000, "reasoning_effort": "none"}, enabled(5000), "reasoning_effort is not"),
        (NEW, {"reasoning_budget_tokens": 0, "reasoning_effort": "high"}, OFF, "reasoning_effort is not sent"),
    ],
)
def test_reasoning(model: str, settings: dict[str, Any], expected: Any, warned: str) -> None:
    target = Target(provider="anthropic", model=model)
    request = asking(**settings)
    body = body_of(request, target)
    assert {key: body[key] for key in ("thinking", "output_config") if key in body} == expected
    found = dialect.build_request(request, target).warnings
    assert (warned in found[0]) if warned else (found == ())


@pytest.mark.parametrize(
    ("model", "by_budget"),
    [
        ("claude-3-7-sonnet-20250219", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-sonnet-4@20250514", True),
        ("claude-sonnet-4-0", True),
        ("claude-opus-4-1-20250805", True),
        ("anthropic/claude-haiku-4.5", True),
        ("claude-opus-4-6", False),
        ("claude-sonnet-4-10", False),
        ("claude-opus-5-5", False),
        ("another-model", False),
    ],
)
def test_older_models_take_a_budget(model: str, by_budget: bool) -> None:  # noqa: FBT001 (a table's column)
    body = body_of(asking(reasoning_effort="low"), Target(provider="anthropic", model=model))
    assert body["thinking"]["type"] == ("enabled" if by_budget else "adaptive")


TOOL = Tool("f", "Does it.", {"type": "object", "properties": {"x": {"type": "integer"}}})


def test_tools() -> None:
    body = body_of(asking(tools=(TOOL, Tool("g"))))
    assert body["tools"] == [
        {"name": "f", "description": "Does it.", "input_schema": TOOL.parameters},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("any"), True, {"type": "any"}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("tool", "f"), False, {"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (None, True, None),
    ],
)
def test_tool_choice(choice: ToolChoice | None, parallel: bool | None, expected: Any) -> None:  # noqa: FBT001 (a table's column)
    request = asking(tools=(TOOL,), tool_choice=choice, parallel_tool_calls=parallel)
    assert body_of(request).get("tool_choice") == expected


def test_a_choice_without_tools_is_left_out_with_a_warning() -> None:
    request = asking(tool_choice=ToolChoice("any"))
    assert "tool_choice" not in body_of(request)
    assert dialect.build_request(request, TARGET).warnings == ("tool_choice is not sent: the request has no tools",)
    assert dialect.build_request(asking(tool_choice=ToolChoice("none")), TARGET).warnings == ()


def test_turns_alternate_and_system_turns_go_to_the_front() -> None:
    call = ToolCall("functions.f:0", "f", '{"x": 1.50}')
    request = Request(
        system="One.",
        messages=(
            system("Two."),
            user("a"),
            user("b"),
            Message("assistant", (Text("c"), call)),
            tool_result(call, "d", is_error=True),
            user("e"),
            Message("assistant", ()),
            system("Three."),
        ),
    )
    body = dialect.build_request(request, TARGET).body
    assert b'"input":{"x": 1.50}' in body
    assert json.loads(body)["system"] == "One.\n\nTwo.\n\nThree."
    assert json.loads(body)["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "c"},
                {"type": "tool_use", "id": "functions_f_0", "name": "f", "input": {"x": 1.5}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "functions_f_0",
                    "content": [{"type": "text", "text": "d"}],
                    "is_error": True,
                },
                {"type": "text", "text": "e"},
            ],
        },
    ]
    assert dialect.build_request(request, TARGET).warnings == (
        "system messages within the conversation are sent at its beginning",
    )


def blocks_of(*messages: Message) -> Any:
    return [block for message in body_of(Request(messages=messages))["messages"] for block in message["content"]]


def test_images_and_documents() -> None:
    message = Message(
        "user", (Image(b"x", "image/jpeg"), Image(url="https://e.x/a.png"), Image(b"p", "application/pdf"))
    )
    assert blocks_of(message) == [
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/jpeg", "data": base64.b64encode(b"x").decode()},
        },
        {"type": "image", "source": {"type": "url", "url": "https://e.x/a.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "cA=="}},
    ]


def test_tool_results_hold_images_and_may_be_empty() -> None:
    message = Message("tool", (ToolResult("t1", (Text("a"), Text(""), Image(url="u"))), ToolResult("t2")))
    assert blocks_of(message) == [
        {
            "type": "tool_result",
            "tool_use_id": "t1",
            "content": [{"type": "text", "text": "a"}, {"type": "image", "source": {"type": "url", "url": "u"}}],
        },
        {"type": "tool_result", "tool_use_id": "t2"},
    ]


def test_what_the_wire_cannot_carry_is_left_out_with_a_warning() -> None:
    message = Message(
        "assistant",
        (
            Text(" \n"),
            Reasoning("alien", (Opaque("other", "signature", "s"), Opaque("anthropic", "encrypted", "s"))),
            Reasoning("unsigned"),
            Image(b"x"),
            FileBlock("image/png", b"x"),
            ServerToolCallBlock("s1", "web_search", "{}", msgspec.Raw(b'{"type":"web_search_call"}')),
            Refusal("No."),
        ),
    )
    assert blocks_of(message) == [{"type": "text", "text": "No."}]
    assert dialect.build_request(Request(messages=(message,)), TARGET).warnings == (
        "reasoning blocks of earlier turns that this provider did not sign are not sent",
        "images in assistant turns are not sent",
        "files that a model made are not sent",
        "calls of another provider's own tools, and their results, are not sent",
    )


def test_arguments_that_are_no_json_go_back_as_text() -> None:
    call = ToolCall("t1", "f", '{"x', executable=False)
    assert blocks_of(Message("assistant", (call,)))[0]["input"] == {"INVALID_JSON": '{"x'}
    assert blocks_of(Message("assistant", (ToolCall("t1", "f", ""),)))[0]["input"] == {}


def test_an_answer_goes_back_as_it_came() -> None:
    """Signatures, redacted thinking, citations and server tools of this provider return byte for byte."""
    content = [
        {"type": "thinking", "thinking": "", "signature": "EqQB+/=="},
        {"type": "redacted_thinking", "data": "Er0B=="},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "web_search_result", "url": "u"}]},
        {"type": "text", "text": "a", "citations": [{**CITED, "file_id": None}]},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}},
    ]
    answer = json.dumps({"content": content, "stop_reason": "tool_use"}).encode()
    response = fold(split(dialect.parse_response(answer, TARGET))[0])
    sent = copy.deepcopy(content)
    del sent[4]["citations"][0]["file_id"]
    assert blocks_of(response.message) == sent
    assert dialect.build_request(Request(messages=(response.message,)), TARGET).warnings == ()
    foreign = Target(provider="other", model="m")
    kept = [
        block["type"] for block in body_of(Request(messages=(response.message,)), foreign)["messages"][0]["content"]
    ]
    assert kept == ["server_tool_use", "web_search_tool_result", "text", "tool_use"]


def test_citations_of_other_wires_and_of_users_stay_behind() -> None:
    cited = Text("a", (Citation(0, "url_citation", raw=msgspec.Raw(b'{"url":"u"}')), Citation(0, "char_location")))
    assert blocks_of(Message("assistant", (cited,))) == [{"type": "text", "text": "a"}]


def test_a_body_that_is_no_json_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="extra_body"):
        dialect.build_request(asking(extra_body={"x": object()}), TARGET)


def test_an_assistant_text_goes_back() -> None:
    assert blocks_of(assistant("a")) == [{"type": "text", "text": "a"}]
