"""Chat Completions: limits, errors inside a stream, whole answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from loomstream.accumulate import fold
from loomstream.dialects import blocks, openai_chat
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    ContextTooLong,
    Failure,
    LimitExceeded,
    LoomstreamError,
    Overloaded,
    RateLimited,
    ServerFault,
    StreamTruncated,
)
from loomstream.events import (
    Citation,
    Stop,
    TextDelta,
)
from loomstream.wire import Frame

sys.path.insert(0, str(Path(__file__).parent))

from chat_streams import STOPPED, TARGET, call_piece, chunk, decode, decode_failing, of, sse

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
