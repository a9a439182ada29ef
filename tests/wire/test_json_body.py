"""JSON bodies: an object as a whole, an array element by element, however the bytes are cut."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.errors import BadFrame, Failure, LimitExceeded, StreamTruncated
from loomstream.wire import Frame
from loomstream.wire.json_body import JSONBodyDecoder

EVERYTHING = r'{"text": "a\"b😀\ud83d\ude00", "n": [-1.5e+3, 0, true, false, null], "o": {}}'.encode()
BOM = b"\xef\xbb\xbf"
Pair = tuple[str, bytes]
untimed = settings(deadline=None)


def decode(*chunks: bytes, max_frame_bytes: int = 1 << 20) -> list[Pair | type]:
    decoder = JSONBodyDecoder(max_frame_bytes=max_frame_bytes)
    items: list[Frame | Failure] = [item for chunk in chunks for item in decoder.feed(chunk)]
    return simplify(items + decoder.finish())


def simplify(items: list[Frame | Failure]) -> list[Pair | type]:
    return [(item.name, item.data) if isinstance(item, Frame) else type(item.error) for item in items]


def ways_to_cut(body: bytes) -> Iterable[list[bytes]]:
    yield [body]
    yield [body[i : i + 1] for i in range(len(body))]
    for cut in range(len(body) + 1):
        yield [body[:cut], body[cut:]]


def elements(*data: bytes) -> list[Pair]:
    return [("", element) for element in data]


# --- an object -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b'{"a": 1}', b'{"a": 1}'),
        (b' \r\n{"a": [1, {}]}\n\n', b'{"a": [1, {}]}'),
        (BOM + b"{\n}\n", b"{\n}"),
        (b'{"a": 1e400, "b": "\\ud800"}', b'{"a": 1e400, "b": "\\ud800"}'),
        (b'{"a": "\xff"}', b'{"a": "\xff"}'),
    ],
)
def test_an_object_is_one_frame_at_the_end(body: bytes, data: bytes) -> None:
    for chunks in ways_to_cut(body):
        decoder = JSONBodyDecoder()
        assert [item for chunk in chunks for item in decoder.feed(chunk)] == []
        assert decoder.finish() == [Frame("body", data)]


@pytest.mark.parametrize("body", [b"", b" \r\n\t", BOM, BOM + b"\n"])
def test_an_empty_body_has_no_frames(body: bytes) -> None:
    for chunks in ways_to_cut(body):
        assert decode(*chunks) == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1} {"b": 2}',
        b'{"a": 1}\n{"b": 2}\n',
        b'{"a": 1}x',
        b'{"a": NaN}',
        b"null",
        b'"text"',
        b"12",
        b"Internal Server Error",
        b"\xff",
        BOM + BOM + b"x{}",
    ],
)
def test_what_is_no_object_is_a_bad_frame(body: bytes) -> None:
    for chunks in ways_to_cut(body):
        assert decode(*chunks) == [BadFrame]


@pytest.mark.parametrize("cut", range(1, len(EVERYTHING)))
def test_an_object_that_was_cut_is_a_truncated_answer(cut: int) -> None:
    assert decode(EVERYTHING[:cut]) == [StreamTruncated]


def test_the_failure_quotes_the_body() -> None:
    decoder = JSONBodyDecoder()
    decoder.feed(b"null")
    [failure] = decoder.finish()
    assert isinstance(failure, Failure)
    assert str(failure.error) == "the body is no object: 'null'"


# --- an array ------------------------------------------------------------------------------------
GEMINI = b'[{\n  "text": "a]},{[\\"\\\\"\n}\n,\r\n{\n  "text": "b",\n  "n": [1, [2], {}]\n}\n]\r\n'
GEMINI_ELEMENTS = elements(b'{\n  "text": "a]},{[\\"\\\\"\n}', b'{\n  "text": "b",\n  "n": [1, [2], {}]\n}')


@pytest.mark.parametrize(
    ("body", "frames"),
    [
        (GEMINI, GEMINI_ELEMENTS),
        (BOM + b" \n" + GEMINI, GEMINI_ELEMENTS),
        (b"[]", []),
        (b" [ \n ] ", []),
        (b'[1, null ,"a,]",[2,3] , {}]', elements(b"1", b"null", b'"a,]"', b"[2,3]", b"{}")),
        (b"[{},]", elements(b"{}")),
        (b'["\\\\","\\""]', elements(b'"\\\\"', b'"\\""')),
    ],
)
def test_an_array_gives_its_elements(body: bytes, frames: list[Pair]) -> None:
    for chunks in ways_to_cut(body):
        assert decode(*chunks) == frames


def test_an_object_in_an_array_is_given_at_its_last_brace() -> None:
    decoder = JSONBodyDecoder()
    assert decoder.feed(b'[{"a": 1') == []
    assert decoder.feed(b"}") == [Frame("", b'{"a": 1}')]
    assert decoder.feed(b'\n,\r\n{"b": 2}') == [Frame("", b'{"b": 2}')]


@pytest.mark.parametrize("end", range(len(GEMINI)))
def test_an_array_that_is_cut_just_ends_and_gives_no_half_element(end: int) -> None:
    expected = [frame for frame in GEMINI_ELEMENTS if GEMINI.index(frame[1]) + len(frame[1]) <= end]
    assert decode(GEMINI[:end]) == expected
    assert decode(*[GEMINI[i : i + 1] for i in range(end)]) == expected


@pytest.mark.parametrize("rest", [b"1", b'"a', b'"a\\', b"12", b"tru", b"{}"[:1]])
def test_a_cut_element_is_not_given(rest: bytes) -> None:
    for chunks in ways_to_cut(b"[{}, " + rest):
        assert decode(*chunks) == elements(b"{}")


@pytest.mark.parametrize(
    ("body", "frames"),
    [
        (b"[,1]", []),
        (b"[1,,2]", elements(b"1")),
        (b"[{}{}]", elements(b"{}")),
        (b"[{} x, 1]", elements(b"{}")),
        (b"[{} \\, 1]", elements(b"{}")),
        (b"[{} 1]", elements(b"{}")),
        (b'[{} "]', elements(b"{}")),
        (b"[1] x", elements(b"1")),
        (b"[1][2]", elements(b"1")),
        (b"[1]]", elements(b"1")),
        (b"[1],", elements(b"1")),
        (b"[{]}, 1]", elements(b"{]")),
    ],
)
def test_a_broken_array_fails_behind_its_good_elements(body: bytes, frames: list[Pair]) -> None:
    for chunks in ways_to_cut(body):
        assert decode(*chunks) == [*frames, BadFrame]


# --- limits --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b' \n{"a":12}', [("body", b'{"a":12}')]),
        (b'{"a":123}', [LimitExceeded]),
        (b'{"a":123', [StreamTruncated]),
        (b"Internal Error", [LimitExceeded]),
        (b'[{"a":12}, {"a":12} ]', elements(b'{"a":12}', b'{"a":12}')),
        (b'[1, {"a":123}, 2]', [("", b"1"), LimitExceeded]),
        (b"[1, 123456789", [("", b"1"), LimitExceeded]),
        (b'["1234567"]', [LimitExceeded]),
        (b"[" + b" " * 99 + b"1," + b" " * 99 + b"{}" + b" " * 99 + b"]" + b" " * 99, elements(b"1", b"{}")),
    ],
)
def test_the_limit_counts_the_object_or_the_element(body: bytes, expected: list[Pair | type]) -> None:
    for chunks in ways_to_cut(body):
        assert decode(*chunks, max_frame_bytes=8) == expected


def test_a_failed_or_finished_decoder_gives_nothing_more() -> None:
    for body in (b"[1,,", b"x" * 9):
        decoder = JSONBodyDecoder(max_frame_bytes=8)
        assert isinstance(decoder.feed(body)[-1], Failure)
        assert decoder.feed(b"2]") == []
        assert decoder.finish() == []
    decoder = JSONBodyDecoder()
    decoder.feed(b"{}")
    assert len(decoder.finish()) == 1
    assert decoder.feed(b"{}") == []
    assert decoder.finish() == []


# --- any bytes -----------------------------------------------------------------------------------
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=6), st.sampled_from(['"', "\\", "]", "},"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


@untimed
@given(
    values=st.lists(VALUE, max_size=6),
    indent=st.sampled_from([None, 1]),
    escape=st.booleans(),
    cut=st.integers(0, 300),
)
def test_any_array_gives_its_values(values: list[object], indent: int | None, cut: int, *, escape: bool) -> None:
    body = json.dumps(values, indent=indent, ensure_ascii=escape).encode("utf-8", "surrogatepass")
    frames = decode(body[:cut], body[cut:])
    assert [json.loads(frame[1].decode("utf-8", "surrogatepass")) for frame in frames] == values


PIECE = st.one_of(
    st.sampled_from([*map(bytes, zip(b'[]{},"\\ 1', strict=True)), b"\n", BOM, b"{}"]), st.binary(max_size=3)
)


@untimed
@given(
    pieces=st.lists(PIECE, max_size=20),
    array=st.booleans(),
    limit=st.integers(0, 12),
    cut=st.integers(0, 40),
    size=st.integers(1, 5),
)
def test_any_bytes_at_any_cut_give_the_same(
    pieces: list[bytes], limit: int, cut: int, size: int, *, array: bool
) -> None:
    body = b"[" * array + b"".join(pieces)
    whole = decode(body, max_frame_bytes=limit)
    assert decode(body[:cut], body[cut:], max_frame_bytes=limit) == whole
    assert decode(*[body[i : i + size] for i in range(0, len(body), size)], max_frame_bytes=limit) == whole
