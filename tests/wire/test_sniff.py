"""Which decoder a body gets, whatever was asked for and whatever the content type says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.errors import Failure, UnexpectedContent
from loomstream.wire.sniff import sniff, squeeze

BOM = b"\xef\xbb\xbf"
JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
EVERY = ["sse", "ndjson", "json"]
untimed = settings(deadline=None)


def answer_of(body: bytes, expected: str, content_type: str) -> str | type | None:
    """Ask as a caller does: with more bytes as long as they do not decide."""
    for end in range(len(body) + 1):
        answer = sniff(body[:end], expected, content_type)
        if isinstance(answer, Failure):
            return type(answer.error)
        if answer is not None:
            return answer
    return None


@pytest.mark.parametrize(
    ("body", "expected", "content_type", "decoder"),
    [
        (b"{", "sse", SSE, "json"),
        (b"{", "sse", JSON, "json"),
        (b"{", "sse", NDJSON, "ndjson"),
        (b"{", "ndjson", NDJSON, "ndjson"),
        (b"{", "ndjson", "", "ndjson"),
        (b"{", "ndjson", "text/plain", "ndjson"),
        (b"{", "ndjson", "Application/JSON; charset=utf-8", "json"),
        (b"{", "json", JSON, "json"),
        (b"{", "json", "", "json"),
        (b"{", "json", "application/stream+json", "ndjson"),
        *[(b"[", expected, kind, "json") for expected in EVERY for kind in (SSE, JSON, NDJSON, "")],
        *[
            (start, expected, kind, "sse")
            for start in (b"data:", b"data\r", b"event:", b"id:", b"retry:", b":", b"id\n")
            for expected in EVERY
            for kind in (SSE, JSON, NDJSON, "")
        ],
    ],
)
@pytest.mark.parametrize("before", [b"", b"\n", b" \r\n\t", BOM, BOM + b"\n"])
def test_the_bytes_decide(before: bytes, body: bytes, expected: str, content_type: str, decoder: str) -> None:
    assert answer_of(before + body, expected, content_type) == decoder
    assert sniff(before + body + b" more", expected, content_type) == decoder


@pytest.mark.parametrize(
    "body", [b"", b" \r\n", BOM, BOM + b" ", b"\xef\xbb", b"d", b"data", b"re", b"id", b"\n event"]
)
def test_too_few_bytes_decide_nothing(body: bytes) -> None:
    assert [sniff(body, expected, SSE) for expected in EVERY] == [None] * 3


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html>",
        b"<?xml version='1.0'?>",
        b"upstream connect error",
        b"database is down",
        b"identity unknown",
        b"null",
        b'"text"',
        b"12",
        b"Data: 1",
        b"\x1f\x8b\x08",
        b"\x00\x00\x00\x9d",
        b"\xff\xfe{\x00",
    ],
)
@pytest.mark.parametrize("expected", EVERY)
@pytest.mark.parametrize("content_type", [SSE, JSON, ""])
def test_anything_else_is_unexpected(body: bytes, expected: str, content_type: str) -> None:
    assert answer_of(body, expected, content_type) is UnexpectedContent


@pytest.mark.parametrize(
    ("body", "content_type", "said", "hint"),
    [
        (b"<html>", "text/html", "the answer (text/html) begins with '<html>'", "HTML or XML page"),
        (b"\x1f\x8b\x08", "", r"the answer begins with '\x1f�\x08'", "compressed with gzip"),
        (b"no healthy upstream", "", "the answer begins with 'no healthy upstream'", "Check the base URL"),
    ],
)
def test_the_failure_quotes_the_body_and_says_what_to_do(body: bytes, content_type: str, said: str, hint: str) -> None:
    failure = sniff(body, "sse", content_type)
    assert isinstance(failure, Failure)
    assert str(failure.error).startswith(f"expected sse, {said}. ")
    assert hint in str(failure.error)


def test_the_quote_is_short() -> None:
    failure = sniff(b"<" + b"x" * 10_000, "sse", "")
    assert isinstance(failure, Failure)
    assert "x" * 511 + "'…" in str(failure.error)
    assert "x" * 512 not in str(failure.error)


@untimed
@given(
    body=st.text(" \n\t\ufeffd\0{", max_size=12).map(str.encode),
    more=st.sampled_from([b"", b"data:", b"{", b"\0", b"x", BOM, b"\xef"]),
    expected=st.sampled_from([*EVERY, "aws"]),
)
def test_a_beginning_squeezed_decides_as_it_did(body: bytes, more: bytes, expected: str) -> None:
    if sniff(body, expected, "") is None:
        answers = [sniff(beginning + more, expected, "") for beginning in (body, squeeze(body))]
        kinds = [type(answer.error) if isinstance(answer, Failure) else answer for answer in answers]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize("mark", [b"", BOM])
def test_white_space_is_squeezed_to_one_byte(mark: bytes) -> None:
    assert squeeze(mark + b"\n" * 1000 + b"dat") == mark + b"\ndat"


@untimed
@given(body=st.binary(max_size=20), expected=st.sampled_from(EVERY), kind=st.sampled_from([SSE, JSON, NDJSON, "", ";"]))
def test_any_bytes_get_an_answer_that_more_bytes_do_not_change(body: bytes, expected: str, kind: str) -> None:
    answer = sniff(body, expected, kind)
    if answer is not None:
        assert answer_of(body, expected, kind) == (type(answer.error) if isinstance(answer, Failure) else answer)
