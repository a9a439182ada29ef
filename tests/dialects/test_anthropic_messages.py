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
from loomstream.dialects import Quirks, Target
from loomstream.dialects import anthropic_messages as dialect
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
    QuotaExhausted,
    RateLimited,
    RequestError,
    ServerFault,
)
from loomstream.events import Citation, Event, Notice, Opaque, Start, Stop, ToolCallEnd, Unknown, Usage, encode
from loomstream.messages import (
    FileBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    Response,
    ServerToolCallBlock,
    ServerToolResultBlock,
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
from loomstream.testing import check_order
from loomstream.wire import Frame

GOLDENS = Path(__file__).parents[1] / "streams" / "anthropic_messages"
CASES = sorted(
    path.name.removesuffix(".meta.toml")
    for path in GOLDENS.glob("*.meta.toml")
    if tomllib.loads(path.read_text("utf-8"))["content_type"] != "application/json"
)
HEALTHY = [name for name in CASES if "error" not in tomllib.loads((GOLDENS / f"{name}.meta.toml").read_text("utf-8"))]
TARGET = Target(provider="anthropic", model="asked-model", base_url="https://api.anthropic.com")
Outcome = tuple[list[Event], LoomstreamError | None]


def frames_of(body: bytes) -> list[Frame]:
    """Split an event stream that has no odd line ends; an unfinished last event is dropped."""
    frames = []
    for event in body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n\n")[:-1]:
        lines = [line.partition(b": ") for line in event.split(b"\n")]
        name = b"".join(value for field, _, value in lines if field == b"event").decode()
        data = [value for field, _, value in lines if field == b"data"]
        frames += [Frame(name, b"\n".join(data))] if data else []
    return frames


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
    assert translator.feed(Frame("", b'{"type":"ping"}')) == []
    return split(items)


def fold(events: list[Event]) -> Response:
    accumulator = Accumulator()
    for event in events:
        accumulator.add(event)
    return accumulator.response


def frame(value: Any) -> Frame:
    return Frame("", json.dumps(value).encode())


HEAD = {"type": "message_start", "message": {"id": "msg_1", "model": "m", "content": [], "usage": {"input_tokens": 1}}}
END = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]


def block_start(index: int, **block: Any) -> Any:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **fields: Any) -> Any:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def stream(*values: Any) -> Outcome:
    return translate([frame(value) for value in (HEAD, *values, *END)])


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
        assert (error.provider, error.model) == ("anthropic", "asked-model")
    for cut in range(len(frames)):
        part, cut_error = translate(frames[:cut])
        assert [encode(event) for event in part] == [encode(event) for event in events[: len(part)]]
        assert cut_error is not None or isinstance(part[-1], Stop)


def test_the_error_of_a_frame_quotes_it() -> None:
    _, error = stream(delta(0, type="text_delta", text="a"), {"type": "content_block_stop", "index": 0}, HEAD)
    assert isinstance(error, BadFrame)
    assert "second message_start" in str(error)
    assert "msg_1" in str(error)


def test_an_error_inside_a_stream_is_typed_and_whole() -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    _, error = stream(body)
    assert isinstance(error, Overloaded)
    assert (error.status, error.code, error.request_id) == (200, "overloaded_error", "req_1")
    assert json.loads(error.body) == body


@pytest.mark.parametrize("step", [0, 1])
def test_too_many_blocks(step: int) -> None:
    """Also where a gateway uses one index again and again, which leaves nothing behind but the count."""
    translator = dialect.translator(TARGET)
    items = translator.feed(frame(HEAD))
    for number in range(MAX_BLOCKS + 1):
        items += translator.feed(frame(block_start(number * step, type="text", text="")))
        items += translator.feed(frame({"type": "content_block_stop", "index": number * step}))
    events, error = split(items)
    assert isinstance(error, LimitExceeded)
    check_order(events, complete=False)


@pytest.mark.parametrize("kind", ["tool_use", "server_tool_use"])
def test_too_long_arguments(kind: str) -> None:
    piece = delta(0, type="input_json_delta", partial_json="x" * 3_000_000)
    _, error = stream(block_start(0, type=kind, id="t", name="f"), piece, piece, piece)
    assert isinstance(error, LimitExceeded)


def test_a_ping_is_no_event() -> None:
    assert dialect.translator(TARGET).feed(frame({"type": "ping"})) == []


# --- damaged frames ----------------------------------------------------------------------------------------------

REPLACEMENTS: list[Any] = [None, 7, -1, 1.5, "x", True, [], {}, [{}], {"type": "x"}]


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
    whole = fold(translate(frames)[0])
    for position, original in enumerate(frames):
        value = {} if original.data == b"[DONE]" else json.loads(original.data.decode("utf-8", "replace"))
        for path in places(value):
            for changed in damaged(value, path):
                cut = [*frames[:position], frame(changed), *frames[position + 1 :]]
                events, error = translate(cut)
                check_order(events, complete=error is None)
                if path[0] == "usage" or path[:2] in {("message", "usage"), ("message", "id"), ("message", "model")}:
                    assert error is None
                    assert fold(events).message == whole.message


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"type":7}', b"x" * 1000])
def test_garbage_is_a_bad_frame(data: bytes) -> None:
    events, error = translate([Frame("message_start", data)])
    assert events == []
    assert isinstance(error, BadFrame)


# --- whole answers -----------------------------------------------------------------------------------------------

CITED = {"type": "char_location", "cited_text": "c", "document_index": 0, "start_char_index": 0, "end_char_index": 1}
ANSWERS: dict[str, tuple[list[Any], list[Any]]] = {
    "text": (
        [{"type": "text", "text": "ab"}],
        [
            block_start(0, type="text", text=""),
            delta(0, type="text_delta", text="a"),
            delta(0, type="text_delta", text="b"),
        ],
    ),
    "cited": (
        [{"type": "text", "text": "a", "citations": [CITED]}],
        [
            block_start(0, type="text", text="", citations=[]),
            delta(0, type="text_delta", text="a"),
            delta(0, type="citations_delta", citation=CITED),
        ],
    ),
    "thinking": (
        [{"type": "thinking", "thinking": "t", "signature": "s=="}, {"type": "redacted_thinking", "data": "r=="}],
        [
            block_start(0, type="thinking", thinking="", signature=""),
            delta(0, type="thinking_delta", thinking="t"),
            delta(0, type="signature_delta", signature="s=="),
            {"type": "content_block_stop", "index": 0},
            block_start(1, type="redacted_thinking", data="r=="),
        ],
    ),
    "tools": (
        [{"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}],
        [
            block_start(0, type="tool_use", id="t1", name="f", input={}),
            delta(0, type="input_json_delta", partial_json='{"x":1}'),
        ],
    ),
    "server tools": (
        [
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
        ],
        [
            block_start(0, type="server_tool_use", id="s1", name="web_search", input={}),
            delta(0, type="input_json_delta", partial_json='{"query":'),
            delta(0, type="input_json_delta", partial_json='"q"}'),
            {"type": "content_block_stop", "index": 0},
            block_start(1, type="web_search_tool_result", tool_use_id="s1", content=[]),
        ],
    ),
    "unknown": ([{"type": "hologram", "beam": 1}], [block_start(0, type="hologram", beam=1)]),
    "empty": ([], []),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_folds_like_the_stream(name: str) -> None:
    content, frames = ANSWERS[name]
    usage = {"input_tokens": 1, "output_tokens": 2}
    answer = {
        "type": "message",
        "id": "msg_1",
        "model": "m",
        "content": content,
        "usage": usage,
        "stop_reason": "end_turn",
    }
    events, error = split(dialect.parse_response(json.dumps(answer).encode(), TARGET))
    assert error is None
    check_order(events)
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
    streamed, _ = translate([frame(value) for value in (HEAD, *frames, end, {"type": "message_stop"})])
    assert fold(events) == fold(streamed)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', Overloaded),
        (b'{"error":{"message":"no","code":401}}', AuthFailed),
        (b'{"type":"message"}', BadFrame),
        (b"{}", BadFrame),
        (b"<html>", BadFrame),
        (b"", BadFrame),
        (
            b'{"type":"message","content":[{"type":"text","text":"a"},{"type":"text","text":5}],"stop_reason":"x"}',
            BadFrame,
        ),
    ],
)
def test_what_is_no_answer_is_an_error(body: bytes, expected: type[LoomstreamError]) -> None:
    events, error = split(dialect.parse_response(body, TARGET))
    assert type(error) is expected
    assert not any(isinstance(event, Stop) for event in events)


def test_a_carried_surrogate_in_a_whole_answer_is_healed() -> None:
    body = b'{"content":[{"type":"text","text":"a\\ud83d"}],"stop_reason":"end_turn"}'
    events, _ = split(dialect.parse_response(body, TARGET))
    assert fold(events).text == "a\ufffd"


# --- errors ------------------------------------------------------------------------------------------------------


def error_body(kind: str, message: str, **more: Any) -> bytes:
    return json.dumps(
        {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "r1"}
    ).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error_body("invalid_request_error", "max_tokens: required"), BadRequest),
        (400, error_body("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"), ContextTooLong),
        (400, error_body("invalid_request_error", "Your credit balance is too low"), QuotaExhausted),
        (401, error_body("authentication_error", "invalid x-api-key"), AuthFailed),
        (403, error_body("permission_error", "no"), AuthFailed),
        (404, error_body("not_found_error", "model: x"), ModelNotFound),
        (413, error_body("request_too_large", "too big"), BadRequest),
        (429, error_body("rate_limit_error", "slow down"), RateLimited),
        (
            429,
            error_body("rate_limit_error", "x", details={"error_code": "enforced_spend_limit_reached"}),
            QuotaExhausted,
        ),
        (500, error_body("api_error", "oops"), ServerFault),
        (529, error_body("overloaded_error", "Overloaded"), Overloaded),
        (502, b"<html><title>Bad Gateway</title></html>", ServerFault),
        (503, b"", Overloaded),
        (500, b"[1", ServerFault),
    ],
)
def test_error_responses(status: int, body: bytes, expected: type[LoomstreamError]) -> None:
    error = dialect.parse_error(status, {"retry-after": "7", "request-id": "r2"}, body, TARGET)
    assert type(error) is expected
    assert (error.status, error.request_id, error.retry_after_s) == (status, "r2", 7.0)
    assert str(error).startswith(f"anthropic answered HTTP {status}")


def test_the_body_names_the_request_where_no_header_does() -> None:
    assert dialect.parse_error(500, {}, error_body("api_error", "oops"), TARGET).request_id == "r1"


# --- requests ----------------------------------------------------------------------------------------------------


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
    assert dialect.warnings(request, TARGET) == ()


def test_a_limit_is_sent_where_the_wire_demands_one() -> None:
    target = Target(provider="anthropic", model="claude-sonnet-5-5", quirks=Quirks(needs_max_tokens=4096))
    assert body_of(asking(), target)["max_tokens"] == 4096
    assert body_of(asking(max_tokens=9), target)["max_tokens"] == 9
    assert body_of(asking(reasoning_budget_tokens=2000), target)["max_tokens"] == 6096


def test_a_seed_is_not_sent_and_said_so() -> None:
    assert body_of(asking(seed=1)) == body_of(asking())
    assert dialect.warnings(asking(seed=1), TARGET) == ("seed is not sent: this wire has none",)


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
        (NEW, {"reasoning_budget_tokens": 5000, "reasoning_effort": "none"}, enabled(5000), ""),
    ],
)
def test_reasoning(model: str, settings: dict[str, Any], expected: Any, warned: str) -> None:
    target = Target(provider="anthropic", model=model)
    request = asking(**settings)
    body = body_of(request, target)
    assert {key: body[key] for key in ("thinking", "output_config") if key in body} == expected
    found = dialect.warnings(request, target)
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
    assert dialect.warnings(request, TARGET) == ("tool_choice is not sent: the request has no tools",)
    assert dialect.warnings(asking(tool_choice=ToolChoice("none")), TARGET) == ()


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
    assert dialect.warnings(request, TARGET) == ("system messages within the conversation are sent at its beginning",)


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
    assert dialect.warnings(Request(messages=(message,)), TARGET) == (
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
    assert dialect.warnings(Request(messages=(response.message,)), TARGET) == ()
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


def test_events_of_one_stream_are_of_the_kinds_that_say_so() -> None:
    """A sanity check on the goldens: each of these kinds is in one of them."""
    kinds = {type(event) for name in CASES for event in translate(frames_of((GOLDENS / f"{name}.bin").read_bytes()))[0]}
    assert kinds >= {Start, Usage, Stop, Notice, Unknown, Citation, ToolCallEnd}


def test_server_results_know_their_tool() -> None:
    events, _ = stream(block_start(0, type="web_search_tool_result", tool_use_id="s1", content=[], is_error=True))
    block = fold(events).message.content[0]
    assert isinstance(block, ServerToolResultBlock)
    assert (block.name, block.is_error) == ("web_search", True)
