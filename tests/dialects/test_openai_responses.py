# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import json
import sys
from typing import Any

import msgspec
import pytest
from goldens import Goldens, Outcome, frame, split, sse_frames
from msgspec.structs import replace

from loomstream.accumulate import fold
from loomstream.dialects import Target
from loomstream.dialects import openai_responses as dialect
from loomstream.dialects.blocks import MAX_BLOCKS, MAX_TOOL_ARGUMENTS_CHARS, heal
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
    ServerFault,
)
from loomstream.events import (
    Citation,
    File,
    Notice,
    Opaque,
    RefusalDelta,
    ServerToolCall,
    ServerToolResult,
    TextDelta,
    ToolCallEnd,
    Unknown,
)
from loomstream.messages import FileBlock, Message, Reasoning, Text
from loomstream.testing import check_order
from loomstream.wire import Frame

TARGET = Target(provider="openai", model="asked-model", base_url="https://api.openai.com/v1")
AFTER = Frame("", b'{"type":"response.completed"}')
GOLDENS = Goldens(dialect, TARGET, "openai_responses", sse_frames, after=AFTER)
translate = GOLDENS.translate
END: Any = {"type": "response.completed", "response": {"status": "completed", "output": []}}


def delta(text: str, index: Any = 0, **fields: Any) -> dict[str, Any]:
    return {
        "type": "response.output_text.delta",
        "output_index": index,
        "content_index": 0,
        "item_id": "msg_1",
        "delta": text,
        **fields,
    }


def done(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def run(*frames: Any) -> Outcome:
    events, error = translate([frame(value) for value in frames])
    check_order(events, complete=error is None)
    return events, error


# --- streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDENS.streams)
def test_golden(name: str) -> None:
    GOLDENS.check(name)


@pytest.mark.parametrize("name", GOLDENS.healthy)
def test_no_damaged_node_breaks_the_law(name: str) -> None:
    whole = fold(translate(GOLDENS.respelt(name))[0])
    for path, (events, error) in GOLDENS.damage(name):
        if path[-1] in ("sequence_number", "obfuscation", "logprobs", "model", "object") and error is None:
            assert plain(fold(events).message) == plain(whole.message)


def plain(message: Message) -> Message:
    """Give a message without its token probabilities."""
    blocks = (replace(block, logprobs=()) if isinstance(block, Text) else block for block in message.content)
    return replace(message, content=tuple(blocks))


def test_messages_that_grow_side_by_side() -> None:
    events, error = run(delta("a"), delta("x", 1), delta("b"), delta("y", 1), delta("z", 1), END)
    assert error is None
    assert [(event.index, event.text) for event in events if isinstance(event, TextDelta)] == [
        (0, "a"),
        (1, "x"),
        (0, "b"),
        (1, "y"),
        (1, "z"),
    ]


def test_a_text_of_the_same_place_in_another_part() -> None:
    events, _ = run(delta("a"), delta("b"), delta("c", content_index=1), delta("d", content_index=1), END)
    assert [(event.index, event.text) for event in events if isinstance(event, TextDelta)] == [
        (0, "a"),
        (0, "b"),
        (1, "c"),
        (1, "d"),
    ]


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"{", b"null", b'"x"', b'{"type":"response.output_text.delta","delta":{}}']
)
def test_garbage_is_a_bad_frame(data: bytes) -> None:
    events, error = translate([frame(delta("a")), frame(delta("b")), Frame("", data)])
    assert isinstance(error, BadFrame)
    assert fold(events).text == "ab"
    assert (error.provider, error.model) == ("openai", "asked-model")


def test_a_mistyped_frame_of_a_known_type_is_broken_and_of_an_unknown_type_is_kept() -> None:
    events, error = run({"type": "response.glow", "delta": 7}, END)
    assert error is None
    assert [event.data for event in events if isinstance(event, Unknown)] == ['{"type": "response.glow", "delta": 7}']
    _, error = run({"type": "response.refusal.delta", "delta": 7}, END)
    assert isinstance(error, BadFrame)


def test_a_lone_surrogate_behind_plain_text_is_replaced() -> None:
    lone = Frame("", b'{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"b\\ud83c"}')
    events, error = translate([frame(delta("a")), frame(delta("x")), lone, frame(delta("y")), frame(END)])
    assert error is None
    assert fold(events).text == "axb\ufffdy"


def test_a_carried_surrogate_in_a_whole_answer_is_healed() -> None:
    body = (
        b'{"status":"completed","output":[{"type":"function_call","name":"f\\ud83c","call_id":"c","arguments":"{}"}]}'
    )
    events, error = split(dialect.parse_response(body, TARGET))
    assert error is None
    assert [event.name for event in events if isinstance(event, ToolCallEnd)] == ["f\ufffd"]


def test_a_part_of_a_kind_that_is_not_known_is_kept_by_itself() -> None:
    content = [{"type": "glow", "n": 1}, {"type": "output_text", "text": "a"}, {"type": "glow", "n": 2}]
    events, error = run(done(0, type="message", id="m", content=content), END)
    assert error is None
    kept = [event for event in events if isinstance(event, Unknown)]
    assert kept == [Unknown("glow", '{"type":"glow","n":1}'), Unknown("glow", '{"type":"glow","n":2}')]


def test_many_parts_of_one_item_take_their_turn() -> None:
    """The work for an item grows with its parts, not with their square."""
    content = [{"type": "output_text"}, {"type": "refusal"}] * 200
    steps = [steps_of(done(0, type="message", content=content * times)) for times in (1, 2)]
    assert steps[1] < 3 * steps[0]


def steps_of(*frames: Any) -> int:
    """Count the calls and returns that the frames cost."""
    translator, told, steps = dialect.translator(TARGET), [frame(value) for value in frames], 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        for one in told:
            translator.feed(one)
    finally:
        sys.setprofile(None)
    return steps


def test_a_long_text_that_is_told_whole_again_and_again_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0

    def count(text: str) -> str:
        nonlocal seen
        seen += len(text)
        return heal(text)

    monkeypatch.setattr("loomstream.dialects.openai_responses.parts.heal", count)
    short = {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "y"}
    events, error = run(delta("x" * 1000), *[short] * 100, END)
    assert error is None
    assert [event.detail for event in events if isinstance(event, Notice)] == [
        "a text that was told whole differs from its deltas"
    ]
    assert seen < 3000


def test_a_call_s_arguments_are_compared_with_what_is_told_whole_once() -> None:
    call = {"type": "function_call", "id": "i", "call_id": "c", "name": "f"}
    head = {"type": "response.output_item.added", "output_index": 0, "item": call}
    piece = {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "i", "delta": "  "}
    for whole in ("", "7"):
        told = {"type": "response.function_call_arguments.done", "output_index": 0, "item_id": "i", "arguments": whole}
        events, error = run(head, piece, *[told] * 3, piece, END)
        assert error is None
        assert sum(isinstance(event, Notice) for event in events) == len(whole)


def test_too_many_items() -> None:
    frames = [frame(done(index, type="sparkle", id=f"i{index}")) for index in range(MAX_BLOCKS + 1)]
    _, error = translate(frames)
    assert isinstance(error, LimitExceeded)
    assert error.provider == "openai"


def test_too_many_blocks() -> None:
    parts = [{"type": "output_text", "text": "x"}] * (MAX_BLOCKS + 1)
    _, error = run(done(0, type="message", content=parts), END)
    assert isinstance(error, LimitExceeded)


def test_too_long_arguments() -> None:
    begun = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "function_call", "name": "f"}}
    piece = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "x" * (2**20)}
    _, error = translate([frame(begun), *[frame(piece)] * (MAX_TOOL_ARGUMENTS_CHARS // 2**20 + 1)])
    assert isinstance(error, LimitExceeded)


def test_the_goldens_hold_every_kind() -> None:
    kinds = {type(event) for name in GOLDENS.streams for event in translate(GOLDENS.frames(name))[0]}
    assert kinds >= {Citation, File, RefusalDelta, ServerToolCall, ServerToolResult, ToolCallEnd, Unknown}


def test_what_the_goldens_say_of_a_sealed_item_is_byte_exact() -> None:
    """The content of `output_item.done` counts: those of the frames before and after differ."""
    events, _ = translate(GOLDENS.frames("reasoning-summary"))
    blocks = [block for block in fold(events).message.content if isinstance(block, Reasoning)]
    assert [block.opaque for block in blocks] == [(), (Opaque("openai", "encrypted", "gAAAA+/=", "rs_1"),)]


# --- whole answers ---------------------------------------------------------------------------------


def final_response(name: str) -> dict[str, Any] | None:
    """Give the response of a golden's last frame, with the items that the frames before told whole."""
    frames = [json.loads(one.data) for one in GOLDENS.frames(name) if one.data != b"[DONE]"]
    items = {value["output_index"]: value["item"] for value in frames if value["type"] == "response.output_item.done"}
    ends = [value["response"] for value in frames if value["type"] in ("response.completed", "response.incomplete")]
    tools = next((value["response"].get("tools") for value in frames if value["type"] == "response.created"), None)
    return (
        {"tools": tools, **ends[0], "output": [item for _, item in sorted(items.items())]} if ends and items else None
    )


WHOLE = (
    "built-in-calls",
    "code-interpreter",
    "compaction",
    "computer-call",
    "custom-tool-call",
    "custom-tool-call-of-the-provider",
    "file-search",
    "image-generation",
    "incomplete-content-filter",
    "mcp-approval",
    "messages-with-phases",
    "program",
    "reasoning-done-only",
    "reasoning-encrypted-alone",
    "reasoning-summary",
    "reasoning-text",
    "refusal",
    "refusal-after-text",
    "shell-in-a-container",
    "text",
    "text-ids-change",
    "text-index-mismatch",
    "text-two-parts",
    "tool-call",
    "tool-call-after-text",
    "tool-call-cut",
    "tool-call-without-arguments",
    "tool-calls-parallel",
    "web-search",
)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_folds_like_the_stream(name: str) -> None:
    answer = final_response(name)
    assert answer is not None
    answer.pop("tools") if answer["tools"] is None else None
    events, error = split(dialect.parse_response(json.dumps(answer).encode(), TARGET))
    assert error is None
    check_order(events)
    streamed, whole = fold(translate(GOLDENS.frames(name))[0]), fold(events)
    assert whole.message == streamed.message
    assert (whole.stop, whole.model, whole.response_id) == (streamed.stop, streamed.model, streamed.response_id)
    assert streamed.usage is not None
    assert whole.usage is not None
    assert msgspec.structs.replace(whole.usage, raw=streamed.usage.raw) == streamed.usage


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", BadFrame),
        (b"[]", BadFrame),
        (b'{"hello": 1}', BadFrame),
        (b'{"error": {"code": 503, "message": "no room"}}', Overloaded),
        (b'{"detail": "no"}', ServerFault),
        (b'{"status": "failed"}', ServerFault),
        (b'{"status": "cancelled", "output": []}', ServerFault),
    ],
)
def test_what_is_no_answer_is_an_error(body: bytes, expected: type[LoomstreamError]) -> None:
    events, error = split(dialect.parse_response(body, TARGET))
    assert type(error) is expected
    check_order(events, complete=False)


# --- errors ----------------------------------------------------------------------------------------


def error_body(code: str, message: str = "m", kind: str = "invalid_request_error") -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "type": kind, "param": None}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, error_body("invalid_api_key"), AuthFailed),
        (403, error_body("unsupported_country_region_territory", kind="request_forbidden"), AuthFailed),
        (404, error_body("model_not_found"), ModelNotFound),
        (400, error_body("context_length_exceeded"), ContextTooLong),
        (400, error_body("invalid_prompt"), ContentFiltered),
        (400, error_body("content_filter"), ContentFiltered),
        (400, error_body("decimal_below_min_value"), BadRequest),
        (400, error_body("invalid_image_url"), BadRequest),
        (413, b"too large", BadRequest),
        (429, error_body("rate_limit_exceeded", kind="tokens"), RateLimited),
        (429, error_body("insufficient_quota", kind="insufficient_quota"), QuotaExhausted),
        (500, error_body("", kind="server_error"), ServerFault),
        (500, error_body("vector_store_timeout"), ServerFault),
        (502, b"<html><title>Bad gateway</title></html>", ServerFault),
        (503, b"", Overloaded),
        (400, b'{"code":"invalid-argument","error":"Incorrect API key provided."}', AuthFailed),
    ],
)
def test_error_responses(status: int, body: bytes, expected: type[LoomstreamError]) -> None:
    error = dialect.parse_error(status, {"x-request-id": "req_1"}, body, TARGET)
    assert type(error) is expected
    assert (error.status, error.provider, error.request_id) == (status, "openai", "req_1")


def test_an_error_within_a_stream_tells_the_code_and_the_words() -> None:
    _, error = run({"type": "error", "error": {"type": "server_error", "code": "server_error", "message": "It broke"}})
    assert isinstance(error, ServerFault)
    assert str(error) == "openai reported an error (server_error): It broke"
    assert (error.code, error.retry_safety) == ("server_error", "maybe")


def test_the_type_of_an_error_frame_is_no_error_code() -> None:
    _, error = run({"type": "error", "message": "It broke"})
    assert isinstance(error, ServerFault)
    assert (str(error), error.code) == ("openai reported an error: It broke", "")


def test_a_failed_response_tells_its_usage_and_when_to_come_back() -> None:
    events, error = translate(GOLDENS.frames("failed-rate-limit"))
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 1.5
    usage = fold(events).usage
    assert usage is not None
    assert usage.output_tokens == 9


# --- images ----------------------------------------------------------------------------------------


def test_an_image_is_a_file_with_its_bytes() -> None:
    events, _ = translate(GOLDENS.frames("image-generation"))
    [block] = [block for block in fold(events).message.content if isinstance(block, FileBlock)]
    assert (block.media_type, block.data, block.id) == ("image/webp", b"hallo", "ig_1")
    assert b"aGFsbG8=" not in bytes(block.raw)
