# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from goldens import Goldens, frame, line_frames, message_of, split

from loomstream.accumulate import fold
from loomstream.dialects import Quirks, Target
from loomstream.dialects import ollama_chat as dialect
from loomstream.dialects.blocks import MAX_BLOCKS
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    BadRequest,
    ContextTooLong,
    LimitExceeded,
    LoomstreamError,
    ModelNotFound,
    Overloaded,
    RequestError,
    ServerFault,
    StreamTruncated,
    Unsupported,
)
from loomstream.events import Opaque, Stop, Usage
from loomstream.messages import (
    FileBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    system,
    tool_result,
    user,
)
from loomstream.providers import look_up, route
from loomstream.testing import check_order
from loomstream.wire import Frame

TARGET = Target(provider="ollama", model="asked-model", base_url="http://localhost:11434")
GOLDENS = Goldens(dialect, TARGET, "ollama_chat", line_frames, after=Frame("", b'{"done":true}'))
translate = GOLDENS.translate


# --- goldens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDENS.streams)
def test_golden(name: str) -> None:
    GOLDENS.check(name)


LINE = (
    '{"model":"m","message":{"content":"é👩 \\ud83d\\ude00","tool_calls":[{"function":{"name":"f","arguments":'
    '{"a":[1.5e3,-2,true,null]}}}]},"done":true,"done_reason":"stop","eval_count":7}'
).encode()


@pytest.mark.parametrize("cut", range(1, len(LINE)))
def test_a_last_line_cut_anywhere_is_a_truncated_stream(cut: int) -> None:
    events, error = translate([frame({"message": {"content": "a"}}), Frame("", LINE[:cut])])
    assert isinstance(error, StreamTruncated)
    assert fold(events).text == "a"


@pytest.mark.parametrize(
    "data", [b"upstream connect error", b"[]", b"null", b'"x"', b"\xff", b'{"message":7}', b"{} {}"]
)
def test_a_line_that_is_no_answer_is_quoted(data: bytes) -> None:
    events, error = translate([Frame("", data)])
    assert events == []
    assert isinstance(error, BadFrame)
    assert data.decode("utf-8", "replace") in str(error)


def test_too_many_blocks() -> None:
    calls = [{"function": {"name": "f", "arguments": {}}}] * (MAX_BLOCKS + 1)
    events, error = translate([frame({"message": {"tool_calls": calls}})])
    assert isinstance(error, LimitExceeded)
    check_order(events, complete=False)


# --- damaged lines -----------------------------------------------------------------------------------------------

SIDE = {"model", "created_at", "total_duration", "prompt_eval_count", "eval_count", "load_duration", "logprobs"}


@pytest.mark.parametrize("name", GOLDENS.healthy)
def test_no_damaged_node_breaks_the_law(name: str) -> None:
    whole, _ = translate(GOLDENS.respelt(name))
    for path, (events, error) in GOLDENS.damage(name):
        if path[0] in SIDE:
            assert error is None
            assert message_of(events) == message_of(whole)


# --- whole answers -----------------------------------------------------------------------------------------------


def test_a_whole_answer_folds_like_the_stream() -> None:
    call = {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}}
    end = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4, "total_duration": 5}
    whole = {"model": "m", "message": {"thinking": "tt", "content": "ab", "tool_calls": [call]}, **end}
    lines = [{"thinking": "t"}, {"thinking": "t"}, {"content": "a"}, {"content": "b"}, {"tool_calls": [call]}]
    events, error = split(dialect.parse_response(json.dumps(whole).encode(), TARGET))
    assert error is None
    check_order(events)
    streamed, _ = translate([*(frame({"model": "m", "message": line, "done": False}) for line in lines), frame(end)])
    assert fold(events) == fold(streamed)
    assert fold(events).stop == Stop("tool_use", "stop")


def test_usage_keeps_the_counts_and_durations_as_they_came() -> None:
    events, _ = translate(
        [Frame("", b'{"done":true,"prompt_eval_count":3,"eval_count":4,"total_duration":50880230542}')]
    )
    usage = fold(events).usage
    assert isinstance(usage, Usage)
    assert (usage.input_tokens, usage.output_tokens, usage.final) == (3, 4, True)
    assert bytes(usage.raw) == b'{"prompt_eval_count":3,"eval_count":4,"total_duration":50880230542}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":"model \'x\' not found"}', ModelNotFound),
        (b'{"message":{"content":"a"},"done":false}', StreamTruncated),
        (b"{}", StreamTruncated),
        (b"<html>", BadFrame),
    ],
)
def test_what_is_no_answer_is_an_error(body: bytes, expected: type[LoomstreamError]) -> None:
    _, error = split(dialect.parse_response(body, TARGET))
    assert type(error) is expected


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"error":"\\"m\\" does not support thinking"}', BadRequest),
        (400, b'{"error":"prompt too long; exceeded max context length by 9 tokens"}', ContextTooLong),
        (401, b'{"error":"unauthorized"}', AuthFailed),
        (404, b'{"error":"model \'m\' not found"}', ModelNotFound),
        (500, b'{"error":"model requires more system memory (5 GiB) than is available"}', ServerFault),
        (503, b'{"error":"server busy, please try again"}', Overloaded),
        (502, b"Bad Gateway", ServerFault),
    ],
)
def test_error_responses(status: int, body: bytes, expected: type[LoomstreamError]) -> None:
    error = dialect.parse_error(status, {}, body, TARGET)
    assert type(error) is expected
    assert str(error).startswith(f"ollama answered HTTP {status}: ")


@pytest.mark.parametrize(
    ("status", "said", "advice"),
    [
        (404, "model 'm' not found", "run `ollama pull asked-model` where the server runs"),
        (404, 'model "m" not found, try pulling it first', "run `ollama pull asked-model`"),
        (400, "registry.ollama.ai/library/m:1b does not support tools", "leave the tools out"),
        (400, '"m" does not support thinking', "leave reasoning_effort"),
        (400, '"m" does not support chat', "choose a model that can chat"),
        (500, "model requires more system memory (5 GiB) than is available", "choose a smaller model"),
    ],
)
def test_errors_say_what_to_do(status: int, said: str, advice: str) -> None:
    error = dialect.parse_error(status, {}, json.dumps({"error": said}).encode(), TARGET)
    assert f": {said}: {advice}" in str(error)


def test_a_path_that_there_is_not_is_no_missing_model_s_advice() -> None:
    error = dialect.parse_error(404, {}, b"404 page not found", TARGET)
    assert "the base URL must be the server's own address" in str(error)
    assert "pull" not in str(error)


# --- requests ----------------------------------------------------------------------------------------------------


def body_of(request: Request, target: Target = TARGET) -> Any:
    return json.loads(dialect.build_request(request, target).body)


def asking(**fields: Any) -> Request:
    return Request(messages=(user("hi"),), **fields)


HI = [{"role": "user", "content": "hi"}]


def test_the_plain_request() -> None:
    wire_request = dialect.build_request(asking(extra_headers={"x-a": "b"}), TARGET)
    assert (wire_request.method, wire_request.url) == ("POST", "http://localhost:11434/api/chat")
    assert dict(wire_request.headers) == {
        "content-type": "application/json",
        "accept": "application/x-ndjson, application/json",
        "x-a": "b",
    }
    assert json.loads(wire_request.body) == {"model": "asked-model", "messages": HI, "stream": True}
    assert dialect.build_request(asking(), TARGET).warnings == ()


def test_the_settings() -> None:
    request = asking(
        system="Be brief.",
        max_tokens=0,
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        seed=7,
        stop_sequences=("END",),
        stream=False,
        extra_body={"keep_alive": "5m", "options": {"num_ctx": 8192}},
    )
    assert body_of(request) == {
        "model": "asked-model",
        "messages": [{"role": "system", "content": "Be brief."}, *HI],
        "stream": False,
        "keep_alive": "5m",
        "options": {
            "num_predict": 0,
            "temperature": 0.0,
            "top_p": 0.5,
            "top_k": 3,
            "seed": 7,
            "stop": ["END"],
            "num_ctx": 8192,
        },
    }
    assert dialect.build_request(request, TARGET).warnings == ()


@pytest.mark.parametrize(
    ("model", "settings", "expected", "warned"),
    [
        ("qwen3:4b", {}, None, ()),
        ("qwen3:4b", {"reasoning_effort": "none"}, False, ()),
        ("qwen3:4b", {"reasoning_effort": "high"}, True, ("reasoning_effort is sent as on or off",)),
        ("gpt-oss:20b", {"reasoning_effort": "minimal"}, "low", ()),
        ("gpt-oss:20b", {"reasoning_effort": "xhigh"}, "high", ()),
        ("hf.co/me/gpt-oss-GGUF", {"reasoning_effort": "medium"}, "medium", ()),
        ("gpt-oss:20b", {"reasoning_effort": "none"}, False, ()),
        ("gpt-oss:20b", {"reasoning_budget_tokens": 5}, True, ("reasoning_budget_tokens is sent as on or off",)),
        ("qwen3:4b", {"reasoning_budget_tokens": 0}, False, ("reasoning_budget_tokens is sent as on or off",)),
        ("qwen3:4b", {"reasoning_budget_tokens": 9}, True, ("reasoning_budget_tokens is sent as on or off",)),
    ],
)
def test_reasoning(model: str, settings: dict[str, Any], expected: object, warned: tuple[str, ...]) -> None:
    target = Target(provider="ollama", model=model, quirks=route(look_up("ollama"), model).quirks)
    assert body_of(asking(**settings), target).get("think") == expected
    found = dialect.build_request(asking(**settings), target).warnings
    assert tuple(text.partition(":")[0] for text in found) == warned


def able(*capabilities: str) -> Target:
    """Give a target whose model's capabilities are known."""
    return msgspec.structs.replace(TARGET, quirks=Quirks(capabilities=capabilities, think_levels=("low", "max")))


@pytest.mark.parametrize(
    ("effort", "expected", "warned"),
    [
        ("low", "low", ()),
        ("max", "max", ()),
        ("high", True, ("reasoning_effort is sent as on or off: this model takes no level",)),
        ("none", False, ()),
    ],
)
def test_the_levels_are_the_model_s_own(effort: Any, expected: object, warned: tuple[str, ...]) -> None:
    request = asking(reasoning_effort=effort)
    assert body_of(request, able("completion", "thinking"))["think"] == expected
    assert dialect.build_request(request, able("completion", "thinking")).warnings == warned


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"reasoning_effort": "low"}, True),
        (
            {"reasoning_budget_tokens": 9},
            ("reasoning is not asked for: the model's capabilities do not name thinking",),
        ),
        ({"reasoning_effort": "none"}, False),
        ({}, False),
    ],
)
def test_a_model_that_cannot_think_is_not_asked_to(settings: dict[str, Any], warned: bool) -> None:  # noqa: FBT001 (a table's column)
    assert "think" not in body_of(asking(**settings), able("completion"))
    warning = "reasoning is not asked for: the model's capabilities do not name thinking"
    assert dialect.build_request(asking(**settings), able("completion")).warnings == ((warning,) if warned else ())


def test_a_model_that_cannot_call_tools_is_not_asked_to() -> None:
    with pytest.raises(Unsupported, match="asked-model cannot call tools; its capabilities are completion, vision"):
        dialect.build_request(asking(tools=(TOOL,)), able("completion", "vision"))
    assert "tools" not in body_of(asking(tools=(TOOL,), tool_choice=ToolChoice("none")), able("completion"))
    assert len(body_of(asking(tools=(TOOL,)), able("completion", "tools"))["tools"]) == 1


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"num_ctx": 8192}, {"options": {"num_ctx": 8192, "top_k": 3}}),
        ({"num_ctx": 8192, "options": {"num_ctx": 512, "min_p": 0.1}}, {"options": {"num_ctx": 512, "min_p": 0.1}}),
        ({"top_k": 9, "keep_alive": 0}, {"options": {"top_k": 9}, "keep_alive": 0}),
        ({"options": None, "num_ctx": 1}, {"options": None, "num_ctx": 1}),
        ({"format": "json", "think": "high"}, {"format": "json", "think": "high"}),
    ],
)
def test_options_go_where_the_server_reads_them(extra: dict[str, Any], expected: dict[str, Any]) -> None:
    body = body_of(asking(top_k=3, extra_body=extra))
    wanted = {"options": {"top_k": 3}} | expected
    if isinstance(wanted["options"], dict):
        wanted["options"] = {"top_k": 3} | wanted["options"]
    assert {key: body[key] for key in body if key not in {"model", "messages", "stream"}} == wanted


TOOL = Tool("f", "Does it.", {"type": "object", "properties": {"x": {"type": "integer"}}})


def test_tools() -> None:
    assert body_of(asking(tools=(TOOL, Tool("g"))))["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "Does it.", "parameters": TOOL.parameters}},
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
    ]


def test_no_tool_may_be_used() -> None:
    request = asking(tools=(TOOL,), tool_choice=ToolChoice("none"))
    assert "tools" not in body_of(request)
    assert dialect.build_request(request, TARGET).warnings == ()


@pytest.mark.parametrize("choice", [ToolChoice("any"), ToolChoice("tool", "f")])
def test_a_tool_cannot_be_forced(choice: ToolChoice) -> None:
    request = asking(tools=(TOOL,), tool_choice=choice, parallel_tool_calls=False)
    assert dialect.build_request(request, TARGET).warnings == (
        "tool_choice is not sent: this wire cannot force a tool",
        "parallel_tool_calls is not sent: this wire has no such setting",
    )


def test_a_conversation() -> None:
    call = ToolCall("c1", "f", '{"x": 1.50}')
    request = Request(
        messages=(
            system("Be brief."),
            Message("user", (Text("Look: "), Image(b"x"), Text("what?"))),
            Message("assistant", (Reasoning("Hm."), Text("I ask."), call)),
            tool_result(call, "42"),
            Message("assistant", (Refusal("No."),)),
            Message("tool", (ToolResult("c2"), Text("and more"))),
        )
    )
    body = dialect.build_request(request, TARGET).body
    assert b'"arguments":{"x": 1.50}' in body
    assert json.loads(body)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Look: what?", "images": [base64.b64encode(b"x").decode()]},
        {
            "role": "assistant",
            "content": "I ask.",
            "thinking": "Hm.",
            "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"x": 1.5}}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42", "tool_name": "f"},
        {"role": "assistant", "content": "No."},
        {"role": "tool", "tool_call_id": "c2", "content": ""},
        {"role": "user", "content": "and more"},
    ]
    assert dialect.build_request(request, TARGET).warnings == ()


def test_arguments_that_are_no_json_go_back_as_text() -> None:
    message = Message("assistant", (ToolCall("c1", "f", '{"x', executable=False),))
    sent = body_of(Request(messages=(message,)))["messages"][0]["tool_calls"][0]["function"]["arguments"]
    assert sent == {"INVALID_JSON": '{"x'}


def test_what_the_wire_cannot_carry_is_left_out_with_a_warning() -> None:
    request = Request(
        messages=(
            Message("user", (Text("hi"), Image(url="https://e.x/a.png"))),
            Message(
                "assistant", (Reasoning("alien", (Opaque("other", "signature", "s"),)), FileBlock("image/png", b"x"))
            ),
            Message("tool", (ToolResult("c1", (Text("a"),), is_error=True),)),
        )
    )
    assert body_of(request)["messages"] == [
        *HI,
        {"role": "assistant", "content": ""},
        {"role": "tool", "tool_call_id": "c1", "content": "a"},
    ]
    assert dialect.build_request(request, TARGET).warnings == (
        "images by URL are not sent: this wire takes their bytes",
        "reasoning blocks of earlier turns that another provider signed are not sent",
        "tool results are sent without their error flag",
        "files that a model made, and calls of a provider's own tools, are not sent",
    )


def test_images_by_url_in_tool_results_are_named_too() -> None:
    request = Request(messages=(Message("tool", (ToolResult("c1", (Image(url="u"),)),)),))
    assert dialect.build_request(request, TARGET).warnings == (
        "images by URL are not sent: this wire takes their bytes",
    )


def test_a_body_that_is_no_json_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="extra_body"):
        dialect.build_request(asking(extra_body={"x": object()}), TARGET)


def test_an_answer_goes_back_as_history() -> None:
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    line = {"message": {"thinking": "t", "content": "a", "tool_calls": [call]}, "done": True}
    response = fold(split(dialect.parse_response(json.dumps(line).encode(), TARGET))[0])
    assert body_of(Request(messages=(response.message,)))["messages"] == [
        {
            "role": "assistant",
            "content": "a",
            "thinking": "t",
            "tool_calls": [{"id": "call_2", "function": {"name": "f", "arguments": {"x": 1}}}],
        }
    ]


def test_the_arguments_of_a_call_are_exact() -> None:
    line = b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":{ "n" : 1.50 }}}]},"done":true}'
    response = fold(split(dialect.parse_response(line, TARGET))[0])
    assert response.tool_calls[0].arguments == '{"n":1.50}'
    assert msgspec.json.decode(response.tool_calls[0].arguments) == {"n": 1.5}
