"""Newline-delimited JSON, however the bytes are cut."""

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.errors import Failure, LimitExceeded
from loomstream.wire import Frame
from loomstream.wire.ndjson import NDJSONDecoder

BOM = b"\xef\xbb\xbf"
untimed = settings(deadline=None)


def decode(*chunks: bytes, max_frame_bytes: int = 1 << 20) -> list[bytes | type]:
    decoder = NDJSONDecoder(max_frame_bytes=max_frame_bytes)
    items: list[Frame | Failure] = [item for chunk in chunks for item in decoder.feed(chunk)]
    return [line_of(item) for item in items + decoder.finish()]


def line_of(item: Frame | Failure) -> bytes | type:
    if isinstance(item, Failure):
        return type(item.error)
    assert item.name == ""
    return item.data


def ways_to_cut(body: bytes) -> Iterable[list[bytes]]:
    yield [body]
    yield [body[i : i + 1] for i in range(len(body))]
    for cut in range(len(body) + 1):
        yield [body[:cut], body[cut:]]


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\r\n{"b":2}\r\n', [b'{"a":1}', b'{"b":2}']),
        (b'\n\r\n \t\n{"a":1}\n\n\n{"b":2}\n\n', [b'{"a":1}', b'{"b":2}']),
        (BOM + b'{"a":1}\n', [b'{"a":1}']),
        (BOM + BOM + b"1\n" + BOM + b"2\n", [BOM + b"1", BOM + b"2"]),
        ('{"a":"\u2028\u2029\x85\x0b\x0c"}\n'.encode(), ['{"a":"\u2028\u2029\x85\x0b\x0c"}'.encode()]),
        (b'{"a":1}\nupstream error\n{"b"\n', [b'{"a":1}', b"upstream error", b'{"b"']),
        (b'{"a":1}\rx\n', [b'{"a":1}\rx']),
        ('{"a":"\N{GRINNING FACE}"}\n'.encode(), ['{"a":"\N{GRINNING FACE}"}'.encode()]),
        (b"\xff\n", [b"\xff"]),
        # The last line without a newline.
        (b'{"a":1}\n{"done":true}', [b'{"a":1}', b'{"done":true}']),
        (BOM + b'{"done":true}\r', [b'{"done":true}']),
        (b' {"done":true} ', [b' {"done":true} ']),
        (b'{"a":1}\n{"done":tr', [b'{"a":1}']),
        (b'{"a":1}\n12', [b'{"a":1}']),
        (b'{"a":1}\nerror', [b'{"a":1}']),
        (b"", []),
        (b"\xef\xbb", []),
    ],
)
def test_lines(body: bytes, lines: list[bytes]) -> None:
    for chunks in ways_to_cut(body):
        assert decode(*chunks) == lines


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_at_the_limit_is_given_and_a_longer_one_ends_the_stream(end: bytes) -> None:
    for chunks in ways_to_cut(BOM + b"12345678" + end + b"123456789" + end + b"{}" + end):
        assert decode(*chunks, max_frame_bytes=8) == [b"12345678", LimitExceeded]
    for chunks in ways_to_cut(b"1" + end + b"123456789"):
        assert decode(*chunks, max_frame_bytes=8) == [b"1", LimitExceeded]
    for chunks in ways_to_cut(b"12345678\rx" + end):
        assert decode(*chunks, max_frame_bytes=8) == [LimitExceeded]


def test_a_failed_or_finished_decoder_gives_nothing_more() -> None:
    decoder = NDJSONDecoder(max_frame_bytes=8)
    decoder.feed(b"123456789")
    assert decoder.feed(b"\n{}\n") == []
    assert decoder.finish() == []
    decoder = NDJSONDecoder()
    assert decoder.finish() == []
    assert decoder.feed(b"{}\n") == []


def test_an_endless_line_is_bounded_and_grows_in_one_place() -> None:
    decoder = NDJSONDecoder(max_frame_bytes=1 << 18)
    decoder.feed(b"x")
    line = decoder._line
    tracemalloc.start()
    while not (items := decoder.feed(b"x" * 4096)):
        assert decoder._line is line
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line_of(items[0]) is LimitExceeded
    assert peak < 4 << 18
    assert not line


PIECE = st.one_of(st.sampled_from([b"{}", b"\n", b"\r\n", b"\r", b" ", BOM, b'{"a":', b"1}"]), st.binary(max_size=5))


@untimed
@given(pieces=st.lists(PIECE, max_size=20), limit=st.integers(0, 12), cut=st.integers(0, 60), size=st.integers(1, 7))
def test_any_bytes_at_any_cut_give_the_same(pieces: list[bytes], limit: int, cut: int, size: int) -> None:
    body = b"".join(pieces)
    whole = decode(body, max_frame_bytes=limit)
    assert decode(body[:cut], body[cut:], max_frame_bytes=limit) == whole
    assert decode(*[body[i : i + size] for i in range(0, len(body), size)], max_frame_bytes=limit) == whole
    lines = [line.removesuffix(b"\r") for line in body.removeprefix(BOM).split(b"\n")]
    assert decode(body + b"\n") == [line for line in lines if line.strip()]
