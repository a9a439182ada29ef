# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import json
from typing import Any

import pytest
from goldens import Goldens, Outcome, frame, split, sse_frames

from loomstream.accumulate import fold
from loomstream.dialects import Target
from loomstream.dialects import anthropic_messages as dialect
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
    QuotaExhausted,
    RateLimited,
    ServerFault,
)
from loomstream.events import Citation, Notice, Start, Stop, ToolCallEnd, Unknown, Usage
from loomstream.messages import ServerToolResultBlock
from loomstream.testing import check_order
from loomstream.wire import Frame

TARGET = Target(provider="anthropic", model="asked-model", base_url="https://api.anthropic.com")
GOLDENS = Goldens(dialect, TARGET, "anthropic_messages", sse_frames, after=Frame("", b'{"type":"ping"}'))
translate = GOLDENS.translate


HEAD = {"type": "message_start", "message": {"id": "msg_1", "model": "m", "content": [], "usage": {"input_tokens": 1}}}
END = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]


def block_start(index: int, **block: Any) -> Any:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **fields: Any) -> Any:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def stream(*values: Any) -> Outcome:
    return translate([frame(value) for value in (HEAD, *values, *END)])


# --- goldens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDENS.streams)
def test_golden(name: str) -> None:
    GOLDENS.check(name)


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


@pytest.mark.parametrize("name", GOLDENS.healthy)
def test_no_damaged_node_breaks_the_law(name: str) -> None:
    whole = fold(translate(GOLDENS.respelt(name))[0])
    for path, (events, error) in GOLDENS.damage(name):
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


def test_events_of_one_stream_are_of_the_kinds_that_say_so() -> None:
    """A sanity check on the goldens: each of these kinds is in one of them."""
    kinds = {type(event) for name in GOLDENS.streams for event in translate(GOLDENS.frames(name))[0]}
    assert kinds >= {Start, Usage, Stop, Notice, Unknown, Citation, ToolCallEnd}


def test_server_results_know_their_tool() -> None:
    events, _ = stream(block_start(0, type="web_search_tool_result", tool_use_id="s1", content=[], is_error=True))
    block = fold(events).message.content[0]
    assert isinstance(block, ServerToolResultBlock)
    assert (block.name, block.is_error) == ("web_search", True)
