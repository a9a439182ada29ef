"""Server-sent events, however the bytes are cut. `read_by_the_book` is a naive second reading of the WHATWG text."""

import re
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.errors import Failure, LimitExceeded
from loomstream.wire import Frame
from loomstream.wire.sse import SSEDecoder

BOM = b"\xef\xbb\xbf"
Pair = tuple[str, bytes]
untimed = settings(deadline=None)


def collect(decoder: SSEDecoder, chunks: Iterable[bytes]) -> list[Frame | Failure]:
    out: list[Frame | Failure] = []
    for chunk in chunks:
        out += decoder.feed(chunk)
    return out + decoder.finish()


def simplify(items: list[Frame | Failure]) -> list[Pair | type]:
    return [(item.name, item.data) if isinstance(item, Frame) else type(item.error) for item in items]


def decode(*chunks: bytes, max_frame_bytes: int = 1 << 20, strict: bool = False) -> list[Pair | type]:
    return simplify(collect(SSEDecoder(max_frame_bytes=max_frame_bytes, strict=strict), chunks))


def ways_to_cut(body: bytes) -> Iterable[list[bytes]]:
    yield [body]
    yield [body[i : i + 1] for i in range(len(body))]
    for cut in range(len(body) + 1):
        yield [body[:cut], body[cut:]]


def cut_at(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def read_by_the_book(body: bytes) -> tuple[list[Pair], str, int | None]:
    lines = re.split(rb"\r\n|\r|\n", body.removeprefix(BOM))
    frames: list[Pair] = []
    name, data, pending_id, last_id, retry = b"", b"", b"", b"", None
    for line in lines[:-1]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            last_id = pending_id
            if data:
                frames.append(("" if name == b"message" else name.decode("utf-8", "replace"), data[:-1]))
            name, data = b"", b""
        elif field == b"data":
            data += value + b"\n"
        elif field == b"event":
            name = value
        elif field == b"id" and b"\0" not in value:
            pending_id = value
        elif field == b"retry" and re.fullmatch(rb"[0-9]{1,15}", value):
            retry = int(value)
    return frames, last_id.decode("utf-8", "replace"), retry


# --- the web platform's parser cases -------------------------------------------------------------
X = b"x" * 2048
FIELD_PARSING = (
    b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n"
)
WHATWG = {
    "bom": (BOM + b"data:1\n\n" + BOM + b"data:2\n\ndata:3\n\n", [("", b"1"), ("", b"3")]),
    "bom-2": (BOM + BOM + b"data:1\n\ndata:2\n\ndata:3\n\n", [("", b"2"), ("", b"3")]),
    "comments": (
        b"data:1\r:\0\n:\r\ndata:2\n:" + X + b"\rdata:3\n:data:fail\r:" + X + b"\ndata:4\n\n\n",
        [("", b"1\n2\n3\n4")],
    ),
    "data-before-final-empty-line": (b"retry:1000\ndata:test1\n\nid:test\ndata:test2", [("", b"test1")]),
    "field-data": (b"data:\n\ndata\ndata\n\ndata:test\n\n", [("", b""), ("", b"\n"), ("", b"test")]),
    "field-event-empty": (b"event: \ndata:data\n\n", [("", b"data")]),
    "field-event": (b"event:test\ndata:x\n\ndata:x\n\n", [("test", b"x"), ("", b"x")]),
    "field-parsing": (
        FIELD_PARSING + b"\n\n",
        [("", b"\0\n 2\n1\n3\n\n4")],
    ),
    "field-unknown": (
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        [("", b"test\n\ntest")],
    ),
    "leading-space": (b"data:\ttest\rdata: \ndata:test\n\n", [("", b"\ttest\n\ntest")]),
    "newlines": (b"data:test\r\ndata\ndata:test\r\n\r", [("", b"test\n\ntest")]),
    "null-character": (b"data:\0\n\n\n\n", [("", b"\0")]),
    "utf-8": ("data:ok…\n\n".encode(), [("", "ok…".encode())]),
    "event-data": (
        b"data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\ndata\n\ndata:end\n\n",
        [("", b"msg\nmsg"), ("", b""), ("", b"end")],
    ),
    "id-null": (
        b"".join(b"data:hello\nid:" + id_ + b"\n\n" for id_ in (b"\0\0", b"x\0", b"\0x", b"x\0x", b" \0")),
        [("", b"hello")] * 5,
    ),
    "retry-bogus": (b"retry:3000\nretry:1000x\ndata:x\n\n", [("", b"x")]),
    "retry-empty": (b"retry:3000\nretry\nretry:\ndata:x\n\n", [("", b"x")]),
}
RETRY_MS = {"data-before-final-empty-line": 1000, "retry-bogus": 3000, "retry-empty": 3000}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("case", WHATWG)
def test_whatwg_case(case: str, *, strict: bool) -> None:
    body, expected = WHATWG[case]
    for chunks in ways_to_cut(body):
        decoder = SSEDecoder(strict=strict)
        assert simplify(collect(decoder, chunks)) == expected
        assert decoder.last_event_id == ""
        assert decoder.retry_ms == RETRY_MS.get(case)


def test_all_17_cases_are_here() -> None:
    assert len(WHATWG) == 17
    assert all(read_by_the_book(body)[0] == expected for body, expected in WHATWG.values())


# --- names, ids, retry ---------------------------------------------------------------------------
def test_the_default_type_has_an_empty_name_however_it_is_written() -> None:
    body = b"data: 1\n\nevent: message\ndata: 2\n\nevent:\ndata: 3\n\nevent\ndata: 4\n\n"
    assert decode(body) == [("", b"1"), ("", b"2"), ("", b"3"), ("", b"4")]


def test_a_name_holds_for_one_frame_and_the_last_one_counts() -> None:
    body = b"event: a\nevent: b\ndata: 1\n\ndata: 2\n\nevent: lost\n\ndata: 3\n\n"
    assert decode(body) == [("b", b"1"), ("", b"2"), ("", b"3")]


def test_a_name_that_is_no_utf_8_reads_with_replacement_characters() -> None:
    assert decode(b"event: \xff\ndata: 1\n\n") == [("�", b"1")]


def test_the_last_id_counts_once_its_frame_ended() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"id: 1\ndata: a\n\nid: 2\nda")
    assert decoder.last_event_id == "1"
    decoder.feed(b"ta: b\n\ndata: c\n\n")
    assert decoder.last_event_id == "2"
    decoder.feed(b"id\n\n")
    assert decoder.last_event_id == ""


@pytest.mark.parametrize("bad", ["-5", "+5", "1.5", "٣", "²", "1 0", "9" * 16, "9" * 5000, ""])
def test_retry_takes_only_ascii_digits(bad: str) -> None:
    decoder = SSEDecoder()
    assert simplify(collect(decoder, [b"retry: 10\nretry: " + bad.encode() + b"\ndata: x\n\n"])) == [("", b"x")]
    assert decoder.retry_ms == 10


# --- the fast road and the slow one --------------------------------------------------------------
MIXED = (
    b"data: {1}\n\n"
    b"data: {2}\n\n"
    b": keepalive\n\n"
    b"data: \n\n"
    b"data: a\ndata: b\n\n"
    b"data:no space\n\n"
    b"event: ping\ndata: {3}\n\n"
    b"event: ping\ndata: {4}\n\n"
    b"event: ping\nid: 7\ndata: {5}\n\n"
    b"\n\n\n"
    b"event: two\ndata: 1\ndata: 2\n\n"
    b"event: empty\ndata: \n\n"
    b"event: none\n\n"
    b"event: ping\ndata:  {6}\n\n"
    b"data: {7}\n\n"
    b"data: [DONE]\n\n"
)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_frames_do_not_depend_on_the_cut(newline: bytes) -> None:
    body = MIXED.replace(b"\n", newline)
    expected = read_by_the_book(body)[0]
    assert len(expected) == 13
    for chunks in ways_to_cut(body):
        assert decode(*chunks) == expected
    assert decode(*body.splitlines(keepends=True)) == expected


def test_one_frame_a_chunk() -> None:
    decoder = SSEDecoder()
    for number in range(3):
        for head, name in [(b"", ""), (b"event: ping\n", "ping"), (b"event: %d\n" % number, str(number))]:
            data = b'{"number": %d}' % number
            assert simplify(decoder.feed(head + b"data: " + data + b"\n\n")) == [(name, data)]


@pytest.mark.parametrize(
    ("chunk", "frames"),
    [
        (b"data: a\rdata: b\n\n", [("", b"a\nb")]),
        (b"event: ping\rdata: b\n\n", [("ping", b"b")]),
        (b"event: ping\n\n", []),
        (b"event: ping\n\nevent: ping\ndata: \n\n", [("ping", b"")]),
        (b"event: ping\ndata: a\nevent: pong\n\n", [("pong", b"a")]),
        (b"event: ping\nevent: ping\ndata: a\n\n", [("ping", b"a")]),
        (b"data: a\n\n\n\n", [("", b"a")]),
        (b"data: a\r\r", [("", b"a")]),
        (b"\n\n", []),
        (b"", []),
    ],
)
def test_a_chunk_that_only_looks_ordinary(chunk: bytes, frames: list[Pair]) -> None:
    before = b"event: ping\ndata: 1\n\n"
    assert decode(before, chunk, before) == [("ping", b"1"), *frames, ("ping", b"1")]


def test_more_names_than_are_remembered_are_still_read() -> None:
    names = [f"event-{number}" for number in range(400)] * 2
    body = "".join(f"event: {name}\ndata: x\n\n" for name in names).encode()
    assert decode(body) == [(name, b"x") for name in names]
    assert decode(b"event: " + X + b"\ndata: x\n\n" * 2) == [(X.decode(), b"x"), ("", b"x")]


def test_a_peer_cannot_fill_the_memory_with_names() -> None:
    decoder = SSEDecoder()
    for number in range(2000):
        decoder.feed(b"event: name-%d\ndata: x\n\n" % number)
    assert len(decoder._names) <= 256


LINE = st.one_of(
    st.sampled_from(
        [
            b"data",
            b"data:",
            b"data: ",
            b"data: [DONE]",
            b"event: ping",
            b"event: message",
            b"event:",
            b"id: 1",
            b"id:\0",
            *(b": comment", b"retry: 5", b"retry: x", b"dat", b"datas: 1", b"data : 1", b"id", b"event", b"", b"", b""),
        ]
    ),
    st.builds(lambda text: b"data: " + text, st.binary(max_size=12)),
    st.builds(lambda text: b"event: " + text, st.binary(max_size=4)),
    st.binary(max_size=6),
)
NEWLINE = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r"])
FRAME = st.sampled_from([b"data: {}\n\n", b"event: ping\ndata: {}\n\n", b"data: {}\r\n\r\n", b": x\n\n"])
BODY = st.builds(
    lambda start, parts, end: start + b"".join(parts) + end,
    st.sampled_from([b"", b"", BOM, BOM + BOM, b"\xef\xbb"]),
    st.lists(st.one_of(FRAME, st.builds(lambda line, newline: line + newline, LINE, NEWLINE)), max_size=20),
    st.one_of(st.just(b""), LINE),
)


@untimed
@given(body=BODY, places=st.lists(st.integers(0, 500), max_size=8))
def test_any_body_at_any_cuts_reads_as_the_book_says(body: bytes, places: list[int]) -> None:
    decoder = SSEDecoder(strict=True)
    frames = simplify(collect(decoder, cut_at(body, places)))
    assert (frames, decoder.last_event_id, decoder.retry_ms) == read_by_the_book(body)


@untimed
@given(body=BODY, places=st.lists(st.integers(0, 500), max_size=8), limit=st.integers(0, 12))
def test_limits_and_the_end_of_the_body_do_not_depend_on_the_cut(body: bytes, places: list[int], limit: int) -> None:
    whole = decode(body, max_frame_bytes=limit)
    assert decode(*cut_at(body, places), max_frame_bytes=limit) == whole
    assert decode(*[body[i : i + 1] for i in range(len(body))], max_frame_bytes=limit) == whole


@untimed
@given(body=st.binary(max_size=200), places=st.lists(st.integers(0, 500), max_size=8))
def test_garbage_never_raises(body: bytes, places: list[int]) -> None:
    assert all(isinstance(item, tuple) for item in decode(*cut_at(body, places)))


# --- against httpx-sse, where it follows the text (no id, no mark, no frame without data, no bad retry) ------
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0\ufeff"), max_size=12)
ORACLE_FRAME = st.builds(
    lambda name, data, extra, end: ([f"event: {name}"] if name else []) + [f"data: {d}" for d in data] + extra + end,
    st.text(st.characters(categories=["L", "N"]), max_size=4),
    st.lists(TEXT, min_size=1, max_size=3),
    st.lists(st.sampled_from([": comment", "retry: 5", "unknown: 1", "unknown"]), max_size=2),
    st.sampled_from([[""], ["", ""]]),
)


@untimed
@given(
    frames=st.lists(ORACLE_FRAME, max_size=6),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    places=st.lists(st.integers(0, 500), max_size=8),
)
def test_httpx_sse_reads_the_same(frames: list[list[str]], newline: str, places: list[int]) -> None:
    body = "".join(line + newline for frame in frames for line in frame).encode()
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    expected = [(event.event, event.data) for event in EventSource(response).iter_sse()]
    ours = [item for item in collect(SSEDecoder(strict=True), cut_at(body, places)) if isinstance(item, Frame)]
    assert [(frame.name or "message", frame.data.decode()) for frame in ours] == expected


# --- the end of the body -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rest", "given"),
    [
        (b'event: stop\ndata: {"a":1}\n', [("stop", b'{"a":1}')]),
        (b'event: stop\ndata: {"a":1}\r', [("stop", b'{"a":1}')]),
        (b'event: stop\ndata: {"a":1}', [("stop", b'{"a":1}')]),
        (b'data: {\ndata: "a":1}', [("", b'{\n"a":1}')]),
        (b"data: [DONE]", [("", b"[DONE]")]),
        (b"data: [DONE] \n", [("", b"[DONE] ")]),
        (b"data: overloaded\n", []),
        (b'data: {"a":1}\n: comm', [("", b'{"a":1}')]),
        (b'data: {"a":1}\nevent: st', []),
        (b'data: {"a":1}\nev', []),
        (b'data: {"a":1', []),
        (b'data: {"a":1\n', []),
        (b"data: [DON", []),
        (b"data: [DON\n", []),
        (b"data: overloa", []),
        (b"data: overloaded\n: comm", []),
        (b"data: 12", []),
        (b"event: stop\n", []),
        (b"dat", []),
        (b"", []),
    ],
)
def test_an_event_without_its_blank_line(rest: bytes, given: list[Pair]) -> None:
    body = b"data: first\n\n" + rest
    for chunks in ways_to_cut(body):
        assert decode(*chunks) == [("", b"first"), *given]
        assert decode(*chunks, strict=True) == [("", b"first")]


def test_a_body_that_is_only_the_beginning_of_a_mark_is_empty() -> None:
    assert decode(b"\xef", b"\xbb") == []


def test_nothing_comes_after_an_end_that_nothing_preceded() -> None:
    decoder = SSEDecoder()
    assert decoder.finish() == []
    assert decoder.feed(b"data: b\n\n") == []


def test_nothing_comes_after_the_end() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"data: a\n\ndata: {}\n")
    assert simplify(decoder.finish()) == [("", b"{}")]
    assert decoder.feed(b"data: b\n\n") == []
    assert decoder.finish() == []


# --- limits --------------------------------------------------------------------------------------
AT_LIMIT = {
    "one line": b"data: 12345678\n\n",
    "named": b"event: 12345678\ndata: 12345678\n\n",
    "lines": b"data: 123\ndata: 5678\n\n",
    "empty lines": b"data\n" * 9 + b"\n",
    "id": b"id: 12345678\ndata: x\n\n",
}
OVER_LIMIT = {
    "one line": b"data: 123456789\n\n",
    "line without an end": b"data: 123456789",
    "named": b"event: 123456789\ndata: x\n\n",
    "lines": b"data: 1234\ndata: 5678\n\n",
    "lines without an end": b"data: 1234567\ndata:\ndata:",
    "empty lines": b"data\n" * 10 + b"\n",
    "id": b"id: 123456789\n\n",
    "retry": b"retry: 000000001\n\n",
    "behind an unknown field": b"unknown: 1\ndata: 123456789\n",
}


@pytest.mark.parametrize("case", AT_LIMIT)
def test_a_frame_at_the_limit_is_given(case: str) -> None:
    for chunks in ways_to_cut(b"data: a\n\n" + AT_LIMIT[case] + b"data: b\n\n"):
        first, frame, last = decode(*chunks, max_frame_bytes=8)
        assert (first, last) == (("", b"a"), ("", b"b"))
        assert frame not in (first, last)


@pytest.mark.parametrize("case", OVER_LIMIT)
def test_a_frame_over_the_limit_ends_the_stream_behind_the_good_ones(case: str) -> None:
    for chunks in ways_to_cut(b"data: a\n\n" + OVER_LIMIT[case] + b"\n\ndata: b\n\n"):
        assert decode(*chunks, max_frame_bytes=8) == [("", b"a"), LimitExceeded]


def test_the_limit_is_the_frames_not_the_chunks() -> None:
    body = b"data: 12345678\n\n" * 50 + b"event: x\ndata: 12345678\n\n" * 50 + b": " + X + b"\n\n"
    assert decode(body, max_frame_bytes=8) == [("", b"12345678")] * 50 + [("x", b"12345678")] * 50


def test_the_failure_says_the_limit_and_what_to_do() -> None:
    [failure] = SSEDecoder(max_frame_bytes=1000).feed(b"data: " + X)
    assert isinstance(failure, Failure)
    assert str(failure.error) == (
        "a frame of the stream is larger than 1,000 bytes: "
        "no provider is known to send such frames; ask for a shorter answer or check the base URL"
    )


def test_a_failed_decoder_gives_nothing_more_and_holds_nothing() -> None:
    decoder = SSEDecoder(max_frame_bytes=8)
    assert simplify(decoder.feed(b"data: 123456789")) == [LimitExceeded]
    assert decoder.feed(b"\n\ndata: {}\n\n") == []
    assert decoder.finish() == []
    assert not decoder._data


@pytest.mark.parametrize(
    "endless", [b": ", b"unknown: ", b"unknown", b":\n", b"unknown: x\n", b": x\n\n", b"event: x\n"]
)
def test_what_is_ignored_is_not_stored(endless: bytes) -> None:
    decoder = SSEDecoder()
    decoder.feed(b"data: {}\n\n" + endless)
    filler = (endless if endless.endswith(b"\n") else b"x") * (16384 // len(endless))
    tracemalloc.start()
    for _ in range(40):
        assert decoder.feed(filler) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(filler)
    assert simplify(decoder.feed(b"\n\ndata: 1\n\n")) == [("", b"1")]


def test_a_cut_line_grows_in_one_place() -> None:
    """Linear time: what is pending is appended to, never joined or searched again."""
    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    buffer = decoder._data
    for count in range(1, 2000):
        assert decoder.feed(b"x") == []
        assert decoder._data is buffer
        assert (len(buffer), decoder._head) == (count, b"")
    decoder.feed(b"\n")
    for _ in range(2000):
        decoder.feed(b"data\n")
        assert decoder._data is buffer
