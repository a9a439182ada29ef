# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from goldens import Goldens, Outcome, frame, message_of, split, sse_frames

from loomstream.accumulate import fold
from loomstream.dialects import Quirks, Target
from loomstream.dialects import cohere_chat as dialect
from loomstream.dialects.blocks import MAX_BLOCKS
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    LimitExceeded,
    LoomstreamError,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    RequestError,
    ServerFault,
)
from loomstream.events import Citation, Opaque, Stop, ToolCallEnd, Unknown
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
    assistant,
    system,
    tool_result,
    user,
)
from loomstream.testing import check_order
from loomstream.wire import Frame

TARGET = Target(provider="cohere", model="asked-model", base_url="https://api.cohere.com")
GOLDENS = Goldens(dialect, TARGET, "cohere_chat", sse_frames, after=Frame("", b'{"type":"message-end"}'))
translate = GOLDENS.translate

HEAD = {"type": "message-start", "id": "m1"}
END = {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}


def content(kind: str, index: int, **fields: Any) -> Any:
    return {"type": f"content-{kind}", "index": index, "delta": {"message": {"content": fields}}}


def call(kind: str, index: int, **fields: Any) -> Any:
    return {"type": f"tool-call-{kind}", "index": index, "delta": {"message": {"tool_calls": fields}}}


def plan(text: str) -> Any:
    return {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": text}}}


def stream(*values: Any) -> Outcome:
    return translate([frame(value) for value in (HEAD, *values, END)])


# --- goldens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDENS.streams)
def test_golden(name: str) -> None:
    GOLDENS.check(name)


@pytest.mark.parametrize("name", GOLDENS.healthy)
def test_no_damaged_node_breaks_the_law(name: str) -> None:
    whole, _ = translate(GOLDENS.respelt(name))
    for path, (events, error) in GOLDENS.damage(name):
        if path[0] in {"id", "logprobs"} or path[:2] == ("delta", "usage"):
            assert error is None
            assert message_of(events) == message_of(whole)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{}", b"x" * 1000])
def test_garbage_is_a_bad_frame(data: bytes) -> None:
    events, error = translate([Frame("message-start", data)])
    assert events == []
    assert isinstance(error, BadFrame)


@pytest.mark.parametrize("kind", ["text", "hologram"])
def test_too_many_blocks(kind: str) -> None:
    events, error = stream(*(content("start", number, type=kind) for number in range(MAX_BLOCKS + 1)))
    assert isinstance(error, LimitExceeded)
    check_order(events, complete=False)


def test_too_long_arguments() -> None:
    piece = call("delta", 0, function={"arguments": "x" * 3_000_000})
    _, error = stream(call("start", 0, id="a", function={"name": "f"}), piece, piece, piece)
    assert isinstance(error, LimitExceeded)


def test_an_error_at_the_end_tells_its_usage_first() -> None:
    end = {"finish_reason": "ERROR", "error": "no", "usage": {"tokens": {"input_tokens": 3, "output_tokens": 2}}}
    events, error = translate([frame(HEAD), frame({"type": "message-end", "delta": end})])
    assert isinstance(error, ServerFault)
    assert (error.status, error.code) == (200, "ERROR")
    usage = fold(events).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (3, 2)


def test_the_goldens_hold_every_kind() -> None:
    kinds = {type(event) for name in GOLDENS.streams for event in translate(GOLDENS.frames(name))[0]}
    assert kinds >= {Citation, ToolCallEnd, Unknown}


# --- whole answers -----------------------------------------------------------------------------------------------

SOURCE = {"type": "document", "id": "d1", "document": {"title": "T", "url": "u"}}
CITED = {"start": 0, "end": 1, "text": "a", "sources": [SOURCE], "type": "TEXT_CONTENT", "content_index": 0}
FUNCTION = {"name": "f", "arguments": '{"x":1}'}
ANSWERS: dict[str, tuple[Any, list[Any]]] = {
    "text": (
        {"content": [{"type": "text", "text": "ab"}]},
        [content("start", 0, type="text", text=""), content("delta", 0, text="a"), content("delta", 0, text="b")],
    ),
    "thinking": (
        {"content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}]},
        [
            content("start", 0, type="thinking", thinking=""),
            content("delta", 0, thinking="t"),
            {"type": "content-end", "index": 0},
            content("start", 1, type="text", text=""),
            content("delta", 1, text="a"),
        ],
    ),
    "cited": (
        {"content": [{"type": "text", "text": "ab"}], "citations": [CITED]},
        [
            content("start", 0, type="text", text=""),
            content("delta", 0, text="a"),
            {"type": "citation-start", "index": 0, "delta": {"message": {"citations": CITED}}},
            content("delta", 0, text="b"),
        ],
    ),
    "tools": (
        {"tool_plan": "I will.", "tool_calls": [{"id": "t1", "type": "function", "function": FUNCTION}]},
        [
            plan("I "),
            plan("will."),
            call("start", 0, id="t1", type="function", function={"name": "f", "arguments": ""}),
            call("delta", 0, function={"arguments": '{"x":'}),
            call("delta", 0, function={"arguments": "1}"}),
            {"type": "tool-call-end", "index": 0},
        ],
    ),
    "unknown": ({"content": [{"type": "hologram"}]}, [content("start", 0, type="hologram")]),
    "empty": ({}, []),
}
USAGE = {"tokens": {"input_tokens": 9, "output_tokens": 2}, "billed_units": {"input_tokens": 3, "output_tokens": 1}}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_folds_like_the_stream(name: str) -> None:
    message, frames = ANSWERS[name]
    answer = {"id": "m1", "message": {"role": "assistant", **message}, "finish_reason": "COMPLETE", "usage": USAGE}
    events, error = split(dialect.parse_response(json.dumps(answer).encode(), TARGET))
    assert error is None
    check_order(events)
    end = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}}
    streamed, _ = translate([frame(value) for value in (HEAD, *frames, end)])
    assert fold(events) == fold(streamed)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"id":"e1","message":"invalid api token"}', ServerFault),
        (b'{"error":{"message":"no","code":401}}', AuthFailed),
        (b'{"message":null}', BadFrame),
        (b'{"message":[]}', BadFrame),
        (b"{}", BadFrame),
        (b"<html>", BadFrame),
        (b"", BadFrame),
        (b'{"message":{"content":[{"type":"text","text":5}]},"finish_reason":"COMPLETE"}', BadFrame),
        (b'{"message":{"content":[]},"finish_reason":"TIMEOUT"}', ServerFault),
    ],
)
def test_what_is_no_answer_is_an_error(body: bytes, expected: type[LoomstreamError]) -> None:
    events, error = split(dialect.parse_response(body, TARGET))
    assert type(error) is expected
    assert not any(isinstance(event, Stop) for event in events)


@pytest.mark.parametrize("key", ["content", "tool_plan", "citations"])
def test_a_carried_surrogate_in_a_whole_answer_is_healed(key: str) -> None:
    """Wherever it stands: no event may hold a half of a character."""
    cited = json.dumps({**CITED, "text": "a\ud83d"})
    parts = {
        "content": '[{"type":"text","text":"a\\ud83d"}]',
        "tool_plan": '"a\\ud83d"',
        "citations": f"[{cited}]",
    }
    members = {"content": '[{"type":"text","text":"a"}]', key: parts[key]}
    message = ",".join(f'"{name}":{value}' for name, value in members.items())
    body = f'{{"message":{{{message}}},"finish_reason":"COMPLETE"}}'.encode()
    events, error = split(dialect.parse_response(body, TARGET))
    assert error is None
    check_order(events)
    response = fold(events)
    found = {
        "content": response.text,
        "tool_plan": response.reasoning,
        "citations": "".join(event.cited_text for event in events if isinstance(event, Citation)),
    }
    assert found[key] == "a\ufffd"


# --- errors ------------------------------------------------------------------------------------------------------

TRIAL = "You are using a Trial key, which is limited to {}. You can continue to use the Trial key for free or upgrade."


def error_body(message: str, **more: Any) -> bytes:
    return json.dumps({"id": "r1", "message": message, **more}).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error_body("invalid request: message must be at least 1 token long"), BadRequest),
        (400, error_body("too many tokens: size limit exceeded", error_type="TOO_MANY_TOKENS"), ContextTooLong),
        (400, error_body("too many tokens: total number of tokens in the prompt cannot exceed 4081"), ContextTooLong),
        (401, error_body("invalid api token"), AuthFailed),
        (402, error_body("Please add or update your payment method"), QuotaExhausted),
        (403, error_body("forbidden"), AuthFailed),
        (404, error_body("model 'x' not found, make sure the correct model ID was used"), ModelNotFound),
        (422, error_body("invalid type"), BadRequest),
        (429, error_body(TRIAL.format("20 API calls / minute")), RateLimited),
        (429, error_body(TRIAL.format("1000 API calls / month")), QuotaExhausted),
        (429, error_body("trial token rate limit exceeded, limit is 100000 tokens per minute"), RateLimited),
        (498, error_body("blocked"), ContentFiltered),
        (499, error_body("request cancelled"), ServerFault),
        (500, error_body("internal server error"), ServerFault),
        (501, error_body("not implemented"), ServerFault),
        (503, error_body("service unavailable"), Overloaded),
        (504, b"", ServerFault),
        (502, b"<html><title>Bad Gateway</title></html>", ServerFault),
        (500, b"[1", ServerFault),
    ],
)
def test_error_responses(status: int, body: bytes, expected: type[LoomstreamError]) -> None:
    error = dialect.parse_error(status, {"retry-after": "7"}, body, TARGET)
    assert type(error) is expected
    assert (error.status, error.retry_after_s) == (status, 7.0)
    assert error.request_id == ("r1" if b'"r1"' in body else "")
    assert str(error).startswith(f"cohere answered HTTP {status}")


def test_what_used_up_a_month_is_not_tried_again() -> None:
    error = dialect.parse_error(429, {}, error_body(TRIAL.format("1000 API calls / month")), TARGET)
    assert error.retry_safety == "no"


# --- requests ----------------------------------------------------------------------------------------------------


def body_of(request: Request, target: Target = TARGET) -> Any:
    return json.loads(dialect.build_request(request, target).body)


def asking(**fields: Any) -> Request:
    return Request(messages=(user("hi"),), **fields)


def messages_of(*messages: Message, target: Target = TARGET) -> Any:
    return body_of(Request(messages=messages), target)["messages"]


HI = [{"role": "user", "content": "hi"}]


def test_the_plain_request() -> None:
    wire_request = dialect.build_request(asking(extra_headers={"x-client-name": "c"}), TARGET)
    assert (wire_request.method, wire_request.url) == ("POST", "https://api.cohere.com/v2/chat")
    assert dict(wire_request.headers) == {
        "content-type": "application/json",
        "accept": "text/event-stream, application/json",
        "x-client-name": "c",
    }
    assert json.loads(wire_request.body) == {"model": "asked-model", "messages": HI, "stream": True}
    assert dialect.build_request(asking(), TARGET).warnings == ()


@pytest.mark.parametrize(
    ("base_url", "quirks", "url"),
    [
        ("https://host.example/v2", Quirks(), "https://host.example/v2/chat"),
        ("https://host.example/cohere", Quirks(), "https://host.example/cohere/v2/chat"),
        ("https://host.example", Quirks(path="/chat/{model}"), "https://host.example/chat/asked-model"),
    ],
)
def test_where_it_goes(base_url: str, quirks: Quirks, url: str) -> None:
    target = Target(provider="x", model="asked-model", base_url=base_url, quirks=quirks)
    assert dialect.build_request(asking(), target).url == url


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
        extra_body={
            "documents": [{"data": {"text": "d"}}],
            "citation_options": {"mode": "FAST"},
            "safety_mode": "STRICT",
            "strict_tools": True,
        },
    )
    assert body_of(request) == {
        "model": "asked-model",
        "messages": [{"role": "system", "content": "Be brief."}, *HI],
        "stream": False,
        "max_tokens": 0,
        "temperature": 0.0,
        "p": 0.5,
        "k": 3,
        "seed": 7,
        "stop_sequences": ["END"],
        "documents": [{"data": {"text": "d"}}],
        "citation_options": {"mode": "FAST"},
        "safety_mode": "STRICT",
        "strict_tools": True,
    }
    assert dialect.build_request(request, TARGET).warnings == ()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"reasoning_effort": "none"}, {"type": "disabled"}),
        ({"reasoning_effort": "low"}, {"type": "enabled", "token_budget": 2048}),
        ({"reasoning_effort": "max"}, {"type": "enabled"}),
        ({"reasoning_budget_tokens": 0}, {"type": "disabled"}),
        ({"reasoning_budget_tokens": 500}, {"type": "enabled", "token_budget": 500}),
    ],
)
def test_reasoning(settings: dict[str, Any], expected: Any) -> None:
    assert body_of(asking(**settings)).get("thinking") == expected
    assert dialect.build_request(asking(**settings), TARGET).warnings == ()


def test_a_budget_of_reasoning_goes_before_an_effort() -> None:
    request = asking(reasoning_budget_tokens=500, reasoning_effort="none")
    assert body_of(request)["thinking"] == {"type": "enabled", "token_budget": 500}
    assert dialect.build_request(request, TARGET).warnings == (
        "reasoning_effort is not sent: reasoning_budget_tokens is given too",
    )


TOOL = Tool("f", "Does it.", {"type": "object", "properties": {"x": {"type": "integer"}}})


def test_tools() -> None:
    assert body_of(asking(tools=(TOOL, Tool("g"))))["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "Does it.", "parameters": TOOL.parameters}},
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
    ]


@pytest.mark.parametrize(
    ("choice", "tools", "expected", "warned"),
    [
        (None, (TOOL,), None, ()),
        (ToolChoice("auto"), (TOOL,), None, ()),
        (ToolChoice("any"), (TOOL,), "REQUIRED", ()),
        (ToolChoice("none"), (TOOL,), "NONE", ()),
        (ToolChoice("tool", "f"), (TOOL,), "REQUIRED", ("tool_choice is sent as 'any'",)),
        (ToolChoice("any"), (), None, ("tool_choice is not sent",)),
        (ToolChoice("none"), (), None, ()),
    ],
)
def test_tool_choice(
    choice: ToolChoice | None, tools: tuple[Tool, ...], expected: str | None, warned: tuple[str, ...]
) -> None:
    request = asking(tools=tools, tool_choice=choice)
    assert body_of(request).get("tool_choice") == expected
    assert tuple(text.partition(":")[0] for text in dialect.build_request(request, TARGET).warnings) == warned


def test_calls_side_by_side_cannot_be_forbidden() -> None:
    assert dialect.build_request(asking(parallel_tool_calls=False), TARGET).warnings == (
        "parallel_tool_calls is not sent: this wire has no such setting",
    )


def test_a_conversation() -> None:
    tool_call = ToolCall("t1", "f", '{"x": 1.50}')
    request = Request(
        system="One.",
        messages=(
            system("Two."),
            Message("user", (Text("Look: "), Text("what?"))),
            Message("assistant", (Reasoning("Hm."), Text("I ask."), tool_call)),
            tool_result(tool_call, "42"),
            Message("assistant", (Refusal("No."),)),
            Message("tool", (ToolResult("t2"), Text("and more"))),
            Message("assistant", ()),
            Message("user", ()),
            system("Three."),
        ),
    )
    assert body_of(request)["messages"] == [
        {"role": "system", "content": "One.\n\nTwo.\n\nThree."},
        {"role": "user", "content": "Look: what?"},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "I ask."}],
            "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.50}'}}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "42"},
        {"role": "assistant", "content": "No."},
        {"role": "tool", "tool_call_id": "t2", "content": ""},
        {"role": "user", "content": "and more"},
    ]
    assert dialect.build_request(request, TARGET).warnings == (
        "system messages within the conversation are sent at its beginning",
    )


def test_images() -> None:
    message = Message("user", (Text("Look."), Text(""), Image(b"x", "image/jpeg"), Image(url="https://e.x/a.png")))
    assert messages_of(message)[0]["content"] == [
        {"type": "text", "text": "Look."},
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(b'x').decode()}"},
        },
        {"type": "image_url", "image_url": {"url": "https://e.x/a.png"}},
    ]


def test_a_result_of_several_texts_is_documents() -> None:
    result = ToolResult("t1", (Text('{"time": "06:00", "height": 1.50}'), Text("calm"), Text("")))
    body = dialect.build_request(Request(messages=(Message("tool", (result,)),)), TARGET).body
    assert b'"data":{"time": "06:00", "height": 1.50}' in body
    assert [item["document"]["data"] for item in json.loads(body)["messages"][0]["content"]] == [
        {"time": "06:00", "height": 1.5},
        {"text": "calm"},
        {"text": ""},
    ]


def test_an_answer_goes_back_as_it_came() -> None:
    """The plan too, byte for byte, and only to its issuer."""
    message = {
        "role": "assistant",
        "tool_plan": " I will\n look\u00a0it up. ",
        "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{ "x" : 1 }'}}],
    }
    body = json.dumps({"message": message, "finish_reason": "TOOL_CALL"}).encode()
    response = fold(split(dialect.parse_response(body, TARGET))[0])
    assert response.reasoning == message["tool_plan"]
    assert response.text == ""
    assert messages_of(response.message) == [message]
    assert dialect.build_request(Request(messages=(response.message,)), TARGET).warnings == ()
    other = Target(provider="other", model="m")
    assert messages_of(response.message, target=other) == [{k: v for k, v in message.items() if k != "tool_plan"}]
    assert dialect.build_request(Request(messages=(response.message,)), other).warnings == (
        "reasoning blocks of earlier turns that another provider signed are not sent",
    )


def test_thinking_goes_back_as_it_came() -> None:
    blocks = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "It rises."}]
    body = json.dumps({"message": {"content": blocks}, "finish_reason": "COMPLETE"}).encode()
    response = fold(split(dialect.parse_response(body, TARGET))[0])
    assert messages_of(response.message) == [{"role": "assistant", "content": blocks}]


def test_what_the_wire_cannot_carry_is_left_out_with_a_warning() -> None:
    request = Request(
        messages=(
            Message(
                "assistant",
                (
                    Reasoning("alien", (Opaque("other", "signature", "s"),)),
                    Reasoning("mine", (Opaque("cohere", "tool_plan", "mine"),)),
                    Text("a"),
                    Image(b"x"),
                    FileBlock("image/png", b"x"),
                ),
            ),
            Message("tool", (ToolResult("t1", (Text("a"), Image(b"x")), is_error=True),)),
        )
    )
    assert body_of(request)["messages"] == [
        {"role": "assistant", "content": "a"},
        {"role": "tool", "tool_call_id": "t1", "content": "a"},
    ]
    assert dialect.build_request(request, TARGET).warnings == (
        "images in tool results are not sent: this wire takes text there",
        "tool results are sent without their error flag",
        "reasoning blocks of earlier turns that another provider signed are not sent",
        "plans of earlier turns without their tool calls are not sent",
        "files that a model made, and calls of a provider's own tools, are not sent",
        "images in assistant turns are not sent: this wire has no place for them",
    )


def test_arguments_that_are_cut_go_back_as_they_came() -> None:
    sent = messages_of(Message("assistant", (ToolCall("t1", "f", '{"x', executable=False), ToolCall("t2", "g", " "))))
    assert [made["function"]["arguments"] for made in sent[0]["tool_calls"]] == ['{"x', "{}"]


def test_citations_stay_behind() -> None:
    cited = Text("a", (Citation(0, "document", raw=msgspec.Raw(b'{"start":0}')),))
    assert messages_of(Message("assistant", (cited,)), assistant("b")) == [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]


def test_a_body_that_is_no_json_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="extra_body"):
        dialect.build_request(asking(extra_body={"x": object()}), TARGET)
