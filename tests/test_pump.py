"""Bytes to events: what the response's head said is put in, statuses are typed, and no bytes give another error."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loomstream
from loomstream.dialects import Target
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    BadRequest,
    ConfigError,
    Failure,
    LoomstreamError,
    Overloaded,
    ProviderError,
    RateLimited,
    RedirectRefused,
    ServerFault,
    StreamTruncated,
    UnexpectedContent,
    UnknownProvider,
    UsageError,
)
from loomstream.events import Event, Limits, Raw, Start, Stop, TextDelta, Unknown
from loomstream.providers import DIALECTS, dialect_module
from loomstream.providers.table import TABLE
from loomstream.pump import MAX_ERROR_BODY_BYTES, MAX_SNIFFED_BYTES, Pump
from loomstream.testing import check_order
from loomstream.wire import Frame, Secret
from loomstream.wire.sniff import sniff

CHUNK = {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]}
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
BODY = b"".join(f"data: {json.dumps(frame)}\n\n".encode() for frame in (CHUNK, END)) + b"data: [DONE]\n\n"
WHOLE = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()
HEADERS = {
    "x-request-id": "req_1",
    "x-ratelimit-limit-requests": "100",
    "x-ratelimit-remaining-requests": "99",
    "x-ratelimit-reset-requests": "1s",
}


def decode(body: bytes | Iterable[bytes], provider: str = "openai", **head: object) -> list[Event]:
    events = list(loomstream.decode(provider, body, **head))  # type: ignore[arg-type]
    check_order(events)
    return events


def pump(**options: object) -> Pump:
    return Pump(
        target=Target(provider="host", model="m"),
        **{"dialect": dialect_module("openai_chat"), "expected": "sse", **options},  # type: ignore[arg-type]
    )


# --- the head --------------------------------------------------------------------------------------


def test_the_head_completes_the_start() -> None:
    start = decode(BODY, headers=HEADERS)[0]
    assert start == Start(
        "openai",
        "m-1",
        "c1",
        "req_1",
        Limits(limit_requests=100, remaining_requests=99, reset_requests_s=1.0),
    )


def test_header_names_may_be_in_any_case() -> None:
    start = decode(BODY, headers={name.upper(): value for name, value in HEADERS.items()})[0]
    assert isinstance(start, Start)
    assert start.request_id == "req_1"


def test_a_head_that_says_nothing_adds_nothing() -> None:
    assert decode(BODY)[0] == Start("openai", "m-1", "c1")


def test_warnings_stand_in_the_start() -> None:
    made = pump(warnings=("top_k is not sent",))
    (start, *_) = made.feed(BODY)
    assert isinstance(start, Start)
    assert start.warnings == ("top_k is not sent",)


def test_the_model_asked_for_is_named_where_the_answer_names_none() -> None:
    body = BODY.replace(b'"model": "m-1", ', b"")
    assert decode(body, model="asked")[0] == Start("openai", "asked", "c1")
    assert decode(body)[0] == Start("openai", "gpt-4o", "c1")


def test_raw_events_precede_the_events_of_their_frame() -> None:
    events = decode(BODY, raw_events=True)
    raws = [event for event in events if isinstance(event, Raw)]
    assert [json.loads(raw.data) for raw in raws[:2]] == [CHUNK, END]
    assert raws[2] == Raw("", "[DONE]")
    assert isinstance(events[0], Raw)
    assert isinstance(events[1], Start)
    assert [event for event in events if not isinstance(event, Raw)] == decode(BODY)


def test_raw_events_show_broken_text_readably() -> None:
    broken = b'data: {"choices":[],"x":"\xff"}\n\n' + BODY
    assert decode(broken, raw_events=True)[0] == Raw("", '{"choices":[],"x":"\ufffd"}')


def test_raw_events_show_a_whole_body() -> None:
    assert decode(WHOLE, raw_events=True)[0] == Raw("body", WHOLE.decode())


# --- which decoder -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [None, "", "text/event-stream", "application/json", "text/html"])
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
@pytest.mark.parametrize("body", [BODY, WHOLE, b"\xef\xbb\xbf" + BODY, b"\r\n\n" + BODY, b": ping\n\n" + BODY])
def test_a_body_is_recognised_however_it_is_cut_and_whatever_its_type_says(
    body: bytes, size: int, content_type: str | None
) -> None:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    events = decode(chunks, content_type=content_type)
    assert TextDelta(0, "hi") in events
    assert events[-1] == Stop("end_turn", "stop")


def test_empty_chunks_change_nothing() -> None:
    assert decode([b"", BODY[:40], b"", BODY[40:], b""]) == decode(BODY)


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_page_is_no_stream(size: int) -> None:
    page = b"<!DOCTYPE html><title>Sign in</title>"
    chunks = [page[start : start + size] for start in range(0, len(page), size)]
    with pytest.raises(UnexpectedContent, match="HTML") as raised:
        decode(chunks, headers={"x-request-id": "r"}, model="m")
    assert (raised.value.provider, raised.value.model, raised.value.request_id) == ("openai", "m", "r")


@pytest.mark.parametrize("body", [b"", b"\n\n", b"   ", b"\xef\xbb", b"dat"])
def test_a_body_that_never_begins_is_truncated(body: bytes) -> None:
    with pytest.raises(StreamTruncated):
        decode(body)


@pytest.mark.parametrize("size", [1000, 10_000_000])
def test_endless_white_space_is_refused_and_not_kept(size: int) -> None:
    blank = b"\n" * (MAX_SNIFFED_BYTES + 5000) + BODY
    with pytest.raises(UnexpectedContent, match="white space"):
        decode([blank[start : start + size] for start in range(0, len(blank), size)])


def test_blank_lines_that_keep_a_connection_alive_are_no_content() -> None:
    blank = b"\n" * (MAX_SNIFFED_BYTES - 10)
    assert decode([blank[:1000], blank[1000:], BODY]) == decode(BODY)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_blank_lines_that_come_one_by_one_are_looked_at_once(mark: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0

    def count(first_bytes: bytes, *asked: str) -> object:
        nonlocal seen
        seen += len(first_bytes)
        return sniff(first_bytes, *asked)

    monkeypatch.setattr("loomstream.pump.sniff", count)
    blank = [mark, *[b"\n"] * 1000]
    assert decode([*blank, BODY]) == decode(BODY)
    assert seen < 10 * len(blank) + 2 * len(BODY)


def test_an_array_of_chunks_gives_the_chunks_events() -> None:
    events = decode(json.dumps([CHUNK, END]).encode(), content_type="application/json")
    assert events == decode(BODY.removesuffix(b"data: [DONE]\n\n"))


def test_ndjson_of_another_dialect_of_the_same_provider() -> None:
    lines = [{"message": {"content": "hi"}, "done": False}, {"message": {}, "done": True, "done_reason": "stop"}]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    assert TextDelta(0, "hi") in decode(body, "openai", dialect="ollama_chat", content_type="application/x-ndjson")


# --- the end -----------------------------------------------------------------------------------------


def test_nothing_comes_after_the_end() -> None:
    made = pump()
    made.feed(BODY)
    assert made.over
    assert made.ended_well
    assert made.feed(BODY) == []
    assert made.finish() == []
    assert decode(BODY + BODY) == decode(BODY)
    assert decode([BODY, b"<html>"]) == decode(BODY)


class Lawless:
    """A translator that goes on behind its failure."""

    def feed(self, frame: Frame) -> list[Event | Failure]:
        return [Start(), Failure(BadFrame(frame.data.decode())), TextDelta(0, "more"), Stop("end_turn")]

    def finish(self) -> list[Event | Failure]:
        return [Stop("end_turn")]


def test_nothing_leaves_the_pump_behind_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect_module("openai_chat"), "translator", lambda target: Lawless())  # noqa: ARG005 (its name)
    made = pump()
    start, failure = made.feed(b"data: why\n\n")
    assert isinstance(start, Start)
    assert isinstance(failure, Failure)
    assert (made.over, made.ended_well, made.progressed, made.finish()) == (True, False, False, [])


def test_every_start_is_completed() -> None:
    message = {"id": "m", "model": "a", "content": []}
    fallback = {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}
    frames = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": fallback},
        {"type": "message_start", "message": {**message, "model": "b"}},
        {"type": "message_stop"},
    ]
    made = pump(dialect=dialect_module("anthropic_messages"), headers=HEADERS, warnings=("w",))
    events = made.feed(b"".join(f"data: {json.dumps(frame)}\n\n".encode() for frame in frames))
    starts = [event for event in events if isinstance(event, Start)]
    assert [start.model for start in starts] == ["a", "b"]
    for start in starts:
        assert (start.warnings, start.request_id) == (("w",), "req_1")
        assert start.limits is not None


@pytest.mark.parametrize(
    "body", [b"<html>" + b"x" * 440 + b" sk-abcdefghijklmnopqrstuvwxyz012345678901234567890123456"]
)
def test_a_key_that_a_quotation_cut_is_not_shown(body: bytes) -> None:
    key = "sk-abcdefghijklmnopqrstuvwxyz012345678901234567890123456"
    made = pump(secrets=(Secret(key),))
    (failure,) = made.feed(body)
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, UnexpectedContent)
    assert "sk-abc" not in str(failure.error)


def test_a_redirect_does_not_show_the_key() -> None:
    made = pump(secrets=(Secret("sk-123456789"),), headers={"x-request-id": "sk-123456789"})
    error = made.status_error(302, b"")
    assert (error.provider, error.model, error.request_id) == ("host", "m", "…")


def test_nothing_comes_after_a_failure() -> None:
    made = pump()
    (failure,) = made.feed(b"data: {\n\n" + BODY)
    assert isinstance(failure, Failure)
    assert made.over
    assert not made.ended_well
    assert made.feed(BODY) == []
    assert made.finish() == []


def test_a_failure_at_the_end_of_the_body_is_the_decoder_s_own() -> None:
    made = pump(expected="json")
    assert made.feed(b'[{"choices":[]},') == [] or not made.over
    assert isinstance(made.finish()[-1], Failure)


def test_progress_is_a_content_event() -> None:
    made = pump()
    made.feed(b": ping\n\n")
    assert not made.progressed
    made.feed(BODY[: BODY.index(b"\n\n") + 2])
    assert made.progressed
    made.feed(b": ping\n\n")
    assert not made.progressed
    made.feed(BODY[BODY.index(b"\n\n") + 2 :])
    assert not made.progressed


def test_events_before_an_error_are_given_first() -> None:
    events: list[Event] = []
    with pytest.raises(BadFrame):
        events.extend(loomstream.decode("openai", BODY[: BODY.index(b"\n\n") + 2] + b"data: {\n\n"))
    assert TextDelta(0, "hi") in events


def test_a_wire_error_names_its_provider() -> None:
    with pytest.raises(BadFrame) as raised:
        decode(b"data: {\n\n", headers=HEADERS, model="m")
    assert (raised.value.provider, raised.value.model, raised.value.request_id) == ("openai", "m", "req_1")


# --- statuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (300, RedirectRefused),
        (301, RedirectRefused),
        (304, RedirectRefused),
        (307, RedirectRefused),
        (399, RedirectRefused),
        (400, BadRequest),
        (401, AuthFailed),
        (403, AuthFailed),
        (422, BadRequest),
        (429, RateLimited),
        (500, ServerFault),
        (503, Overloaded),
        (599, ServerFault),
        (999, ProviderError),
    ],
)
@pytest.mark.parametrize("body", [b"", b'{"error":{"message":"why"}}', b"<html>", b"\xff", BODY])
def test_a_status_that_is_no_success_is_a_typed_error(status: int, error: type[LoomstreamError], body: bytes) -> None:
    with pytest.raises(error) as raised:
        decode(body, status=status, headers=HEADERS, model="m")
    assert (raised.value.provider, raised.value.model, raised.value.request_id) == ("openai", "m", "req_1")
    assert str(status) in str(raised.value)


def test_a_redirect_says_what_to_do() -> None:
    with pytest.raises(RedirectRefused, match="set base_url"):
        decode(b"", status=302, headers={"location": "https://elsewhere"})


@pytest.mark.parametrize("status", [200, 201, 202])
def test_any_success_is_read(status: int) -> None:
    assert decode(BODY, status=status) == decode(BODY)


def test_an_error_s_body_is_cut() -> None:
    with pytest.raises(ServerFault) as raised:
        decode([b"x" * 50_000] * 3, status=500)
    assert raised.value.body == "x" * MAX_ERROR_BODY_BYTES
    assert len(str(raised.value)) < 1000


def test_an_error_s_body_comes_from_all_its_chunks() -> None:
    with pytest.raises(RateLimited, match="slow down"):
        decode([b'{"error":{"mess', b'age":"slow down"}}'], status=429)


# --- decode ------------------------------------------------------------------------------------------


def test_an_unknown_provider_is_refused_at_once() -> None:
    with pytest.raises(UnknownProvider, match="did you mean 'openai'"):
        loomstream.decode("opnai", b"")


def test_an_unknown_dialect_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"unknown dialect 'gemini3': known are .*openai_chat"):
        loomstream.decode("openai", b"", dialect="gemini3")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_body_may_be_any_bytes(kind: type[bytes]) -> None:
    assert decode(kind(BODY)) == decode(BODY)
    assert decode([kind(BODY[:20]), kind(BODY[20:])]) == decode(BODY)


@pytest.mark.parametrize("chunks", ["data: {}", ["data: {}"], [100]])
def test_what_is_no_bytes_is_a_usage_error(chunks: object) -> None:
    with pytest.raises(UsageError, match="give the body's bytes"):
        decode(chunks)  # type: ignore[arg-type]


def test_chunks_may_come_from_a_generator_which_is_read_no_further_than_the_end() -> None:
    taken: list[int] = []

    def chunks() -> Iterable[bytes]:
        for position in range(3):
            taken.append(position)
            yield BODY

    decode(chunks())
    assert taken == [0]


def test_an_unknown_frame_is_kept() -> None:
    assert Unknown("x", '{"hello":1}') in decode(b'event: x\ndata: {"hello":1}\n\n' + BODY)


# --- whatever the bytes --------------------------------------------------------------------------------

FRAGMENTS = st.sampled_from(
    [
        b"data: ",
        b"event: message_start\n",
        b"\n\n",
        b"\r\n",
        b"[DONE]",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b'"',
        b"\\",
        b"null",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        BODY,
        WHOLE,
        json.dumps(CHUNK).encode(),
        b'{"error":"x"}',
        b'{"type":"message_start","message":{"id":"m","content":[],"usage":{}}}',
        b'{"type":"message_stop"}',
        b'{"message":{"content":"a"},"done":false}\n',
        b'{"done":true}\n',
    ]
)


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_no_bytes_give_anything_but_typed_events(dialect: str, data: st.DataObject) -> None:
    chunks = data.draw(st.lists(FRAGMENTS | st.binary(max_size=8), max_size=12))
    content_type = data.draw(st.sampled_from(["", "text/event-stream", "application/json", "application/x-ndjson"]))
    status = data.draw(st.sampled_from([200, 200, 200, 302, 401, 500]))
    for row in TABLE:
        check_decoded(row.name, chunks, dialect=dialect, content_type=content_type, status=status)


def check_decoded(provider: str, chunks: list[bytes], **head: object) -> None:
    events: list[Event] = []
    try:
        for event in loomstream.decode(provider, chunks, model="m", **head):  # type: ignore[arg-type]
            events.append(event)  # noqa: PERF402 (what came before an error is kept)
    except LoomstreamError as error:
        assert error.provider == provider  # noqa: PT017 (an error is one of two good outcomes)
        check_order(events, complete=False)
    else:
        check_order(events)
