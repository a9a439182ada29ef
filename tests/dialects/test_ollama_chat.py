# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import base64
import copy
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loomstream.accumulate import Accumulator
from loomstream.dialects import Target
from loomstream.dialects import ollama_chat as dialect
from loomstream.dialects.blocks import MAX_BLOCKS
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    BadRequest,
    ContextTooLong,
    Failure,
    LimitExceeded,
    LoomstreamError,
    ModelNotFound,
    Overloaded,
    RequestError,
    ServerFault,
    StreamTruncated,
)
from loomstream.events import Event, Opaque, Stop, Usage, encode
from loomstream.messages import (
    FileBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    Response,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    system,
    tool_result,
    user,
)
from loomstream.testing import check_order
from loomstream.wire import Frame

GOLDENS = Path(__file__).parents[1] / "streams" / "ollama_chat"
CASES = sorted(path.name.removesuffix(".meta.toml") for path in GOLDENS.glob("*.meta.toml"))
HEALTHY = [name for name in CASES if "error" not in tomllib.loads((GOLDENS / f"{name}.meta.toml").read_text("utf-8"))]
TARGET = Target(provider="ollama", model="asked-model", base_url="http://localhost:11434")
Outcome = tuple[list[Event], LoomstreamError | None]


def frames_of(body: bytes) -> list[Frame]:
    return [Frame("", line.rstrip(b"\r")) for line in body.split(b"\n") if line.strip()]


def split(items: list[Event | Failure]) -> Outcome:
    events = [item for item in items if not isinstance(item, Failure)]
    failures = [item.error for item in items if isinstance(item, Failure)]
    assert len(failures) <= 1
    assert not failures or isinstance(items[-1], Failure)
    return events, failures[0] if failures else None


def translate(frames: list[Frame], target: Target = TARGET) -> Outcome:
    translator = dialect.translator(target)
    items: list[Event | Failure] = []
    for frame in frames:
        items += translator.feed(frame)
    items += translator.finish()
    assert translator.finish() == []
    assert translator.feed(Frame("", b'{"done":true}')) == []
    return split(items)


def fold(events: list[Event]) -> Response:
    accumulator = Accumulator()
    for event in events:
        accumulator.add(event)
    return accumulator.response


def frame(value: Any) -> Frame:
    return Frame("", json.dumps(value).encode())


# --- goldens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    meta = tomllib.loads((GOLDENS / f"{name}.meta.toml").read_text("utf-8"))
    frames = frames_of((GOLDENS / f"{name}.bin").read_bytes())
    events, error = translate(frames)
    assert b"".join(encode(event) + b"\n" for event in events) == (GOLDENS / f"{name}.events.jsonl").read_bytes()
    assert (type(error).__name__ if error else None) == meta.get("error")
    check_order(events, complete=error is None)
    if error is not None:
        assert (error.provider, error.model) == ("ollama", "asked-model")
    for cut in range(len(frames)):
        part, cut_error = translate(frames[:cut])
        assert [encode(event) for event in part] == [encode(event) for event in events[: len(part)]]
        assert cut_error is not None or isinstance(part[-1], Stop)


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

REPLACEMENTS: list[Any] = [None, 7, -1, 1.5, "x", True, [], {}, [{}], {"type": "x"}]
SIDE = {"model", "created_at", "total_duration", "prompt_eval_count", "eval_count", "load_duration", "logprobs"}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def damaged(value: Any, path: tuple[Any, ...]) -> Iterator[Any]:
    for replacement in (..., *REPLACEMENTS):
        changed = copy.deepcopy(value)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        if replacement is ...:
            del inner[path[-1]]
        else:
            inner[path[-1]] = replacement
        yield changed


@pytest.mark.parametrize("name", HEALTHY)
def test_no_damaged_node_breaks_the_law(name: str) -> None:
    frames = frames_of((GOLDENS / f"{name}.bin").read_bytes())
    values = [json.loads(original.data) for original in frames]
    frames = [frame(value) for value in values]
    whole = fold(translate(frames)[0])
    for position, value in enumerate(values):
        for path in places(value):
            for changed in damaged(value, path):
                events, error = translate([*frames[:position], frame(changed), *frames[position + 1 :]])
                check_order(events, complete=error is None)
                if path[0] in SIDE:
                    assert error is None
                    assert fold(events).message == whole.message


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
    assert dialect.warnings(asking(), TARGET) == ()


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
    assert dialect.warnings(request, TARGET) == ()


@pytest.mark.parametrize(
    ("model", "settings", "expected", "warned"),
    [
        ("qwen3:4b", {}, None, ()),
        ("qwen3:4b", {"reasoning_effort": "none"}, False, ()),
        ("qwen3:4b", {"reasoning_effort": "high"}, True, ("reasoning_effort is sent as on or off",)),
        ("gpt-oss:20b", {"reasoning_effort": "minimal"}, "low", ()),
        ("gpt-oss:20b", {"reasoning_effort": "xhigh"}, "high", ()),
        ("qwen3:4b", {"reasoning_budget_tokens": 0}, False, ("reasoning_budget_tokens is sent as on or off",)),
        ("qwen3:4b", {"reasoning_budget_tokens": 9}, True, ("reasoning_budget_tokens is sent as on or off",)),
    ],
)
def test_reasoning(model: str, settings: dict[str, Any], expected: object, warned: tuple[str, ...]) -> None:
    target = Target(provider="ollama", model=model)
    assert body_of(asking(**settings), target).get("think") == expected
    found = dialect.warnings(asking(**settings), target)
    assert tuple(text.partition(":")[0] for text in found) == warned


TOOL = Tool("f", "Does it.", {"type": "object", "properties": {"x": {"type": "integer"}}})


def test_tools() -> None:
    assert body_of(asking(tools=(TOOL, Tool("g"))))["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "Does it.", "parameters": TOOL.parameters}},
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
    ]


def test_no_tool_may_be_used() -> None:
    request = asking(tools=(TOOL,), tool_choice=ToolChoice("none"))
    assert "tools" not in body_of(request)
    assert dialect.warnings(request, TARGET) == ()


@pytest.mark.parametrize("choice", [ToolChoice("any"), ToolChoice("tool", "f")])
def test_a_tool_cannot_be_forced(choice: ToolChoice) -> None:
    request = asking(tools=(TOOL,), tool_choice=choice, parallel_tool_calls=False)
    assert dialect.warnings(request, TARGET) == (
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
    assert dialect.warnings(request, TARGET) == ()


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
    assert dialect.warnings(request, TARGET) == (
        "images by URL are not sent: this wire takes their bytes",
        "reasoning blocks of earlier turns that another provider signed are not sent",
        "tool results are sent without their error flag",
        "files that a model made, and calls of a provider's own tools, are not sent",
    )


def test_images_by_url_in_tool_results_are_named_too() -> None:
    request = Request(messages=(Message("tool", (ToolResult("c1", (Image(url="u"),)),)),))
    assert dialect.warnings(request, TARGET) == ("images by URL are not sent: this wire takes their bytes",)


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
