# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loomstream.accumulate import fold
from loomstream.dialects import Target
from loomstream.dialects import gemini as dialect
from loomstream.dialects.blocks import MAX_BLOCKS
from loomstream.dialects.gemini.translate import MAX_CHOICES
from loomstream.errors import (
    AuthFailed,
    BadRequest,
    ContextTooLong,
    Failure,
    LimitExceeded,
    LoomstreamError,
    ModelNotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerFault,
    StreamTruncated,
)
from loomstream.events import Event, Notice, Stop, TextDelta, ToolCallStart, Unknown, Usage, encode
from loomstream.testing import check_order
from loomstream.wire import Frame
from loomstream.wire.json import Reader
from loomstream.wire.json_body import JSONBodyDecoder

GOLDENS = Path(__file__).parents[1] / "streams" / "gemini"
METAS = {
    path.name.removesuffix(".meta.toml"): tomllib.loads(path.read_text("utf-8")) for path in GOLDENS.glob("*.toml")
}
CASES = sorted(
    name for name, meta in METAS.items() if meta["content_type"] == "text/event-stream" and meta["status"] == 200
)
TARGET = Target(provider="gemini", model="asked-model", base_url="https://host.example/v1beta")
Outcome = tuple[list[Event], LoomstreamError | None]


def frames_of(body: bytes) -> list[Frame]:
    return [Frame("", line.removeprefix(b"data: ").rstrip(b"\r")) for line in body.split(b"\n") if line.strip()]


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
    assert translator.feed(frame_of(chunk({"text": "late"}))) == []
    return split(items)


def frame_of(value: Any) -> Frame:
    return Frame("", json.dumps(value).encode())


def chunk(*parts: Any, finish: str | None = None, **candidate: Any) -> dict[str, Any]:
    reason = {"finishReason": finish} if finish else {}
    return {"candidates": [{"content": {"parts": list(parts)}, **reason, **candidate}]}


# --- goldens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    frames = frames_of((GOLDENS / f"{name}.bin").read_bytes())
    if name == "truncated-in-frame":  # the frame's decoder holds it back
        frames = frames[:-1]
    events, error = translate(frames)
    assert b"".join(encode(event) + b"\n" for event in events) == (GOLDENS / f"{name}.events.jsonl").read_bytes()
    assert (type(error).__name__ if error else None) == METAS[name].get("error")
    check_order(events, complete=error is None)
    if error is not None:
        assert (error.provider, error.model) == ("gemini", "asked-model")


def test_the_array_gives_the_events_of_the_event_stream() -> None:
    chunks = [chunk({"text": "a, ["}), chunk({"text": "b"}, finish="STOP")]
    decoder = JSONBodyDecoder()
    array = json.dumps(chunks, indent=2).encode()
    frames = [frame for position in range(len(array)) for frame in decoder.feed(array[position : position + 1])]
    assert decoder.finish() == []
    assert translate([frame for frame in frames if isinstance(frame, Frame)]) == translate(list(map(frame_of, chunks)))


def test_an_element_of_the_array_is_given_as_soon_as_it_is_whole() -> None:
    """Content comes while the array grows, not at its end."""
    decoder, translator = JSONBodyDecoder(), dialect.translator(TARGET)
    frames = decoder.feed(b"[" + json.dumps(chunk({"text": "now"}), indent=2).encode() + b"\r\n,\r\n")
    events = [event for frame in frames if isinstance(frame, Frame) for event in translator.feed(frame)]
    assert TextDelta(0, "now") in events


def test_text_before_the_end_of_the_stream_comes_at_once() -> None:
    translator = dialect.translator(TARGET)
    assert TextDelta(0, "a") in translator.feed(frame_of(chunk({"text": "a"}, finish="STOP")))
    assert translator.feed(frame_of(chunk({"text": "b"}))) == [TextDelta(0, "b")]
    assert translator.finish()[-1] == Stop("end_turn", "STOP")


# --- stop reasons ------------------------------------------------------------------------------------------------

REASONS = {
    "STOP": "end_turn",
    "MAX_TOKENS": "max_tokens",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "IMAGE_OTHER": "content_filter",
    "NO_IMAGE": "other",
    "LANGUAGE": "other",
    "OTHER": "other",
    "MALFORMED_FUNCTION_CALL": "other",
    "MALFORMED_RESPONSE": "other",
    "UNEXPECTED_TOOL_CALL": "other",
    "TOO_MANY_TOOL_CALLS": "other",
    "MISSING_THOUGHT_SIGNATURE": "other",
    "CONTINUATION": "pause",
    "FUNCTION_CALL": "tool_use",
    "SOMETHING_NEW": "other",
}


@pytest.mark.parametrize(("raw", "reason"), REASONS.items())
def test_stop_reasons(raw: str, reason: str) -> None:
    events, error = translate([frame_of(chunk({"text": "a"}, finish=raw))])
    assert error is None
    assert events[-1] == Stop(reason, raw)  # pyright: ignore[reportArgumentType] (the table's second column)


@pytest.mark.parametrize(("raw", "reason"), REASONS.items())
def test_stop_reasons_behind_a_call(raw: str, reason: str) -> None:
    """Only STOP is said of calls that are to be run."""
    events, _ = translate([frame_of(chunk({"functionCall": {"name": "f"}}, finish=raw))])
    assert events[-1] == Stop("tool_use" if raw == "STOP" else reason, raw)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "raw", ["SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK"]
)
def test_a_refused_prompt_is_a_whole_answer(raw: str) -> None:
    feedback = {"promptFeedback": {"blockReason": raw}, "usageMetadata": {"promptTokenCount": 3}}
    streamed, error = translate([frame_of(feedback)])
    assert error is None
    assert streamed[-1] == Stop("content_filter", raw)
    usages = [event for event in streamed if isinstance(event, Usage)]
    assert [(usage.input_tokens, usage.output_tokens, usage.final) for usage in usages] == [(3, 0, True)]
    whole, _ = split(dialect.parse_response(json.dumps(feedback).encode(), TARGET))
    assert whole == streamed


# --- ids ---------------------------------------------------------------------------------------------------------


def ids_of(events: list[Event]) -> list[str]:
    return [event.id for event in events if isinstance(event, ToolCallStart)]


def test_made_ids_are_unique_over_the_calls_of_several_answers() -> None:
    call = {"functionCall": {"name": "f"}}
    one, _ = translate([frame_of({**chunk(call, call, finish="STOP"), "responseId": "r/1"})])
    two, _ = translate([frame_of({**chunk(call, call, finish="STOP"), "responseId": "r2"})])
    bare, _ = translate([frame_of(chunk(call, finish="STOP"))])
    ids = ids_of(one) + ids_of(two) + ids_of(bare)
    assert len(set(ids)) == 5
    assert all(id_.replace("_", "").replace("-", "").isalnum() for id_ in ids)


def test_an_id_of_the_wire_is_kept() -> None:
    events, _ = translate([frame_of(chunk({"functionCall": {"name": "f", "id": "k0srpqrc"}}, finish="STOP"))])
    assert ids_of(events) == ["k0srpqrc"]


# --- limits and damage -------------------------------------------------------------------------------------------


def test_too_many_blocks() -> None:
    calls = [{"functionCall": {"name": "f"}}] * (MAX_BLOCKS + 1)
    events, error = translate([frame_of(chunk(*calls))])
    assert isinstance(error, LimitExceeded)
    check_order(events, complete=False)


@pytest.mark.parametrize("part", [{"glow": 1}, {"functionCall": {"name": "f"}}])
def test_many_parts_of_one_frame_are_read_once(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read, seen = Reader.read, 0

    def count(reader: Any, data: bytes) -> Any:
        nonlocal seen
        seen += len(data)
        return read(reader, data)

    monkeypatch.setattr(Reader, "read", count)
    frame = frame_of({"candidates": [chunk(*[part] * 20)["candidates"][0] | {"index": index} for index in range(20)]})
    assert len(dialect.translator(TARGET).feed(frame)) > 400
    assert seen < 4 * len(frame.data)


def test_each_part_that_is_not_known_is_kept_by_itself() -> None:
    parts = [{"glow": 1}, {"text": "a"}, {"glow": 2}]
    events, _ = translate([frame_of(chunk({"glow": 0})), frame_of(chunk(*parts, finish="STOP"))])
    assert [event.data for event in events if isinstance(event, Unknown)] == [f'{{"glow": {n}}}' for n in range(3)]


def test_an_error_with_a_usage_is_told_behind_the_start() -> None:
    told: dict[str, Any] = {"usageMetadata": {"promptTokenCount": 5}, "error": {"code": 500, "message": "x"}}
    for frame in (told, {**told, "promptFeedback": {"blockReason": "SAFETY"}}):
        events, error = translate([frame_of(frame)])
        assert isinstance(error, ServerFault)
        assert [event.input_tokens for event in events if isinstance(event, Usage)] == [5]
        check_order(events, complete=False)


def test_too_many_candidates() -> None:
    candidates = [{"index": index, "finishReason": "STOP"} for index in range(MAX_CHOICES + 1)]
    events, error = translate([frame_of({"candidates": candidates})])
    assert isinstance(error, LimitExceeded)
    check_order(events, complete=False)


REPLACEMENTS: list[Any] = [None, -7, "x", True, [1], {}]
SIDE = {"modelVersion", "usageMetadata", "createTime"}


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


@pytest.mark.parametrize(
    "name",
    [
        "thinking",
        "thinking-signed",
        "tool-call",
        "tool-calls-parallel",
        "candidates",
        "code-execution",
        "server-tools",
        "files",
        "citations",
        "grounding-no-segments",
        "prompt-blocked",
        "stop-safety",
        "usage-cache-and-tools",
    ],
)
def test_no_damaged_node_breaks_the_law(name: str) -> None:
    frames = frames_of((GOLDENS / f"{name}.bin").read_bytes())
    values = [json.loads(original.data) for original in frames]
    frames = [frame_of(value) for value in values]
    whole = fold(translate(frames)[0])
    for position, value in enumerate(values):
        for path in places(value):
            for changed in damaged(value, path):
                events, error = translate([*frames[:position], frame_of(changed), *frames[position + 1 :]])
                check_order(events, complete=error is None)
                if path[0] in SIDE:
                    assert error is None
                    assert fold(events).message == whole.message


# --- whole answers -----------------------------------------------------------------------------------------------


def test_a_whole_answer_folds_like_the_stream() -> None:
    call = {"functionCall": {"name": "f", "args": {"x": 1}, "id": "c1"}, "thoughtSignature": "c2ln"}
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 5, "totalTokenCount": 12}
    head = {"modelVersion": "m", "responseId": "r"}
    end = {"usageMetadata": usage, **head}
    whole = {**chunk({"text": "tt", "thought": True}, {"text": "ab"}, call, finish="STOP"), **end}
    pieces = [{"text": "t", "thought": True}, {"text": "t", "thought": True}, {"text": "a"}, {"text": "b"}]
    streamed, _ = translate(
        [*(frame_of({**chunk(piece), **head}) for piece in pieces), frame_of({**chunk(call, finish="STOP"), **end})]
    )
    events, error = split(dialect.parse_response(json.dumps(whole).encode(), TARGET))
    assert error is None
    check_order(events)
    assert fold(events) == fold(streamed)
    assert fold(events).stop == Stop("tool_use", "STOP")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}', StreamTruncated),
        (b'{"candidates":[]}', StreamTruncated),
        (b'{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"m"}}', RateLimited),
    ],
)
def test_a_whole_answer_that_is_none(body: bytes, kind: type[LoomstreamError]) -> None:
    events, error = split(dialect.parse_response(body, TARGET))
    assert type(error) is kind
    check_order(events, complete=False)


def test_an_empty_answer_is_told() -> None:
    events, _ = translate([frame_of({"candidates": [{"finishReason": "STOP"}]})])
    assert Notice("warning", "the answer is empty") in events


# --- errors ------------------------------------------------------------------------------------------------------


def error_body(code: int, status: str, message: str = "words", *details: dict[str, Any]) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "status": status, "details": details}}).encode()


def quota(name: str, value: str = "1000") -> dict[str, Any]:
    violation = {"quotaMetric": "requests", "quotaId": name, "quotaValue": value}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


def info(reason: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48s"}
ERRORS: list[tuple[int, str, str, list[dict[str, Any]], type[ProviderError], float | None]] = [
    (400, "INVALID_ARGUMENT", "API key not valid.", [info("API_KEY_INVALID")], AuthFailed, None),
    (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", [], AuthFailed, None),
    (400, "INVALID_ARGUMENT", "Invalid value at 'contents'", [], BadRequest, None),
    (
        400,
        "INVALID_ARGUMENT",
        "The input token count (2) exceeds the maximum number of tokens allowed (1).",
        [],
        ContextTooLong,
        None,
    ),
    (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", [], BadRequest, None),
    (401, "UNAUTHENTICATED", "Request had invalid credentials.", [info("ACCESS_TOKEN_EXPIRED")], AuthFailed, None),
    (403, "PERMISSION_DENIED", "Permission denied", [info("IAM_PERMISSION_DENIED")], AuthFailed, None),
    (403, "PERMISSION_DENIED", "Vertex AI API is disabled", [info("SERVICE_DISABLED")], AuthFailed, None),
    (403, "PERMISSION_DENIED", "Billing is off", [info("BILLING_DISABLED")], QuotaExhausted, None),
    (404, "NOT_FOUND", "models/x is not found", [], ModelNotFound, None),
    (429, "RESOURCE_EXHAUSTED", "Quota", [quota("InputTokensPerModelPerMinute"), RETRY], RateLimited, 48.0),
    (429, "RESOURCE_EXHAUSTED", "Quota", [quota("RequestsPerDayPerProject"), RETRY], QuotaExhausted, 48.0),
    (429, "RESOURCE_EXHAUSTED", "Quota", [quota("RequestsPerMinute", "0")], QuotaExhausted, None),
    (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", [], QuotaExhausted, None),
    (429, "RESOURCE_EXHAUSTED", "Quota exceeded, limit: 0, model: x", [], QuotaExhausted, None),
    (429, "RESOURCE_EXHAUSTED", "Please retry in 12.5s.", [], RateLimited, 12.5),
    (499, "CANCELLED", "The operation was cancelled.", [], ServerFault, None),
    (500, "INTERNAL", "An internal error has occurred.", [], ServerFault, None),
    (503, "UNAVAILABLE", "The model is overloaded.", [], Overloaded, None),
    (504, "DEADLINE_EXCEEDED", "Deadline expired", [], ServerFault, None),
]


@pytest.mark.parametrize(("status", "word", "message", "details", "kind", "retry_after_s"), ERRORS)
@pytest.mark.parametrize("place", ["body", "list", "stream"])
def test_errors(
    status: int,
    word: str,
    message: str,
    details: list[dict[str, Any]],
    kind: type[ProviderError],
    retry_after_s: float | None,
    place: str,
) -> None:
    body = error_body(status, word, message, *details)
    if place == "stream":
        _, error = translate([Frame("", body)])
    else:
        error = dialect.parse_error(status, {}, b"[" + body + b"]" if place == "list" else body, TARGET)
    assert isinstance(error, ProviderError)
    assert type(error) is kind
    assert message in str(error)
    assert error.retry_after_s == retry_after_s
    assert error.status == (200 if place == "stream" else status)


def test_an_error_names_what_to_change() -> None:
    vertex = Target(provider="vertex-ai", model="m", settings={"location": "europe-west9"})
    body = error_body(404, "NOT_FOUND", "Publisher Model `m` was not found")
    assert "europe-west9" in str(dialect.parse_error(404, {}, body, vertex))
    assert "location" not in str(dialect.parse_error(404, {}, body, TARGET))
    region = error_body(400, "FAILED_PRECONDITION", "User location is not supported for the API use.")
    assert "region" in str(dialect.parse_error(400, {}, region, TARGET))
    disabled = error_body(403, "PERMISSION_DENIED", "It is disabled.", info("SERVICE_DISABLED"))
    assert "enable the API" in str(dialect.parse_error(403, {}, disabled, TARGET))


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"[7]", b'{"error":7}', b'{"error":{"details":[1,{"violations":[2]}]}}', b"<html>", b"\xff"],
)
def test_an_error_of_any_shape_is_typed(body: bytes) -> None:
    assert type(dialect.parse_error(429, {}, body, TARGET)) is RateLimited
    assert type(dialect.parse_error(500, {}, body, TARGET)) is ServerFault
