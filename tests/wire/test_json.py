"""The only entry for JSON: a value or a typed failure, whatever the bytes."""

import json
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.errors import BadFrame, Failure, LimitExceeded
from loomstream.wire.json import (
    MAX_DEPTH,
    Reader,
    carrier,
    carry_surrogates,
    depth_exceeds,
    is_object,
    loads,
    quote,
)

BOM = b"\xef\xbb\xbf"
untimed = settings(deadline=None)


class Delta(msgspec.Struct):
    content: str = ""


class Chunk(msgspec.Struct):
    delta: Delta | None = None
    count: int = 0
    ratio: float = 0.0
    usage: msgspec.Raw = msgspec.Raw(b"null")


def read(data: bytes, type_: object = object) -> object:
    """Read as a dialect does; a failure is given as its class."""
    value = Reader(msgspec.json.Decoder(type_)).read(data)
    return type(value.error) if isinstance(value, Failure) else value


# --- valid ---------------------------------------------------------------------------------------
VALID = [
    (b"null", None),
    (b"true", True),
    (b" \t\r\n[ ] \n", []),
    (b"{}", {}),
    (b'""', ""),
    (b"0", 0),
    (b"-0", 0),
    (b"-1", -1),
    (b"1E5", 1e5),
    (b"1e-2", 0.01),
    (b"123.456e78", 123.456e78),
    (b"5e-324", 5e-324),
    (b"1e-400", 0.0),
    (b"9007199254740993", 2**53 + 1),
    (b"18446744073709551616", 2**64),
    (b"-" + b"9" * 300, -(10**300 - 1)),
    (b"0." + b"1" * 5000, 1 / 9),
    (b'["a",1,null,{"b":[[]]}]', ["a", 1, None, {"b": [[]]}]),
    (b'{"a":1,"a":2}', {"a": 2}),
    (b'{"":{"":0}}', {"": {"": 0}}),
    (rb'"\"\\\/\b\f\n\r\t"', '"\\/\b\f\n\r\t'),
    (rb'"\u0000\u001f\u007f"', "\0\x1f\x7f"),
    (rb'"\u20ac\u20AC"', "€€"),
    (b'"\x7f"', "\x7f"),
    ('"€ \u2028\u2029\ufeff\uffff\N{GRINNING FACE}"'.encode(), "€ \u2028\u2029\ufeff\uffff\N{GRINNING FACE}"),
    (rb'"\ud83d\ude00"', "\N{GRINNING FACE}"),
    (rb'"\uD83D\uDE00\uD83d\uDe00"', "\N{GRINNING FACE}" * 2),
    (rb'"\\ud83d"', r"\ud83d"),
    (rb'"\\\\ud83d\\ude00"', r"\\ud83d\ude00"),
    (rb'"\udbff\udfff"', "\U0010ffff"),
    (BOM + b'{"a":1}', {"a": 1}),
]


@pytest.mark.parametrize(("data", "value"), VALID)
def test_valid(data: bytes, value: object) -> None:
    assert read(data) == value
    assert loads(data) == value
    assert is_object(data.decode()) is isinstance(value, dict)


# --- invalid -------------------------------------------------------------------------------------
INVALID = [
    b"",
    b" ",
    BOM,
    BOM + BOM + b"{}",
    b"{",
    b"[",
    b'"',
    b"}",
    b"[1",
    b"[1,]",
    b"[,1]",
    b"[1 2]",
    b"[1]]",
    b"[1}",
    b'{"a"}',
    b'{"a":}',
    b'{"a":1,}',
    b'{"a" 1}',
    b'{"a":1 "b":2}',
    b"{a:1}",
    b"{'a':1}",
    b"{1:1}",
    b'{"a":1}{"b":2}',
    b'{"a":1} x',
    b"nul",
    b"True",
    b"undefined",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b'{"a":NaN}',
    b"01",
    b"-01",
    b"1.",
    b".5",
    b"+1",
    b"-",
    b"1e",
    b"1e+",
    b"0x1",
    b"1_000",
    b'"\t"',
    b'"\n"',
    b'"\0"',
    rb'"\x41"',
    rb'"\u12"',
    rb'"\u12G4"',
    rb'"\ud8"',
    b'"\\',
    b'"\\"',
    b"// comment",
    b"/**/1",
    b"[1,\xa02]",
    b"\xff\xfe{\x00}\x00",
    b"data: {}",
    b"<html>",
    b"9" * 5000,
    b'{"a":-' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("data", INVALID)
def test_invalid(data: bytes) -> None:
    assert read(data) is BadFrame
    assert loads(data) is None
    assert not is_object(data.decode("utf-8", "replace"))


def test_numbers_out_of_range_are_json_but_no_number() -> None:
    for data in (b"1e400", b"-1e400", b"1E99999999999999"):
        assert read(data) is BadFrame
        assert abs(loads(data)) == math.inf  # type: ignore[arg-type]
    assert is_object('{"n": 1e400}')


@pytest.mark.parametrize("data", [b"null", b"[]", b'"x"', b"12", b"true", b"[{}]"])
def test_a_top_level_of_the_wrong_kind(data: bytes) -> None:
    assert read(data, Chunk) is BadFrame
    assert not is_object(data.decode())


@pytest.mark.parametrize(
    "data",
    [
        b'{"delta":1}',
        b'{"delta":{"content":1}}',
        b'{"count":"1"}',
        b'{"count":1.5}',
        b'{"count":1e400}',
        b'{"ratio":1e400}',
        b'{"ratio":' + b"9" * 400 + b"}",
    ],
)
def test_a_field_of_the_wrong_type(data: bytes) -> None:
    assert read(data, Chunk) is BadFrame


def test_a_side_field_is_left_alone() -> None:
    chunk = read(b'{"delta":{"content":"a"},"usage":{"n":1e400,"s":"\xff"},"other":[1e400,"\xff"]}', Chunk)
    assert isinstance(chunk, Chunk)
    assert loads(chunk.usage) == {"n": math.inf, "s": "�"}


# --- text that is no UTF-8 -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (b"\xff", "�"),
        (b"\x80", "�"),
        (b"\xc0\xaf", "��"),
        (b"\xe0\x80\xaf", "���"),
        (b"\xed\xa0\x80", "���"),
        (b"\xed\xa0\xbd\xed\xb8\x80", "������"),
        (b"\xf4\x90\x80\x80", "����"),
        (b"\xe2\x82", "�"),
        (b"\xf0\x9f\x98", "�"),
    ],
)
def test_what_is_no_utf_8_is_replaced(bad: bytes, text: str) -> None:
    assert read(b'["a' + bad + b'b"]') == ["a" + text + "b"]
    assert loads(b'{"' + bad + b'":1}') == {text: 1}
    chunk = read(b'{"delta":{"content":"' + bad + b'"}}', Chunk)
    assert isinstance(chunk, Chunk)
    assert chunk.delta == Delta(text)


# --- lone surrogates -----------------------------------------------------------------------------
HIGH, LOW = carrier(0xD83D), carrier(0xDE00)


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"\ud83d", HIGH),
        (r"\uDE00", LOW),
        (r"\ude00\ud83d", LOW + HIGH),
        (r"\ud83d\ud83d\ude00", HIGH + "\N{GRINNING FACE}"),
        (r"\ud83d\ude00\ude00", "\N{GRINNING FACE}" + LOW),
        (r"\ud83d x", HIGH + " x"),
        (r"\ud83d\u0041", HIGH + "A"),
        (r"\ud83d\n", HIGH + "\n"),
        (r"\\\ud83d", "\\" + HIGH),
        (r"\\ud83d\ud83d", r"\ud83d" + HIGH),
        (r"\ud800\udfff\udbff\udc00", chr(0x103FF) + chr(0x10FC00)),
        (r"\ud7ff\ue000\ud800", "\ud7ff\ue000" + carrier(0xD800)),
        ("\U0010d83d" + r"\ud83d", "\U0010d83d" + HIGH),
        ("\U0010ffff\U0010d83d" + r"\ud83d", "\U0010ffff\U0010d83d\ufffd"),  # the mark stands there already
        (r"\uDBFF\uDFFF\ud83d", "\U0010ffff\ufffd"),
    ],
)
def test_a_lone_surrogate_is_carried(escaped: str, text: str) -> None:
    data = f'{{"delta":{{"content":"{escaped}"}}}}'.encode()
    reader = Reader(msgspec.json.Decoder(Chunk))
    chunk = reader.read(data)
    assert isinstance(chunk, Chunk)
    assert chunk.delta == Delta(text)
    assert reader.carried is (carry_surrogates(escaped) != escaped)
    assert loads(data) == {"delta": {"content": text}}
    assert msgspec.json.encode(text)


def test_carried_stays_true_and_is_not_set_by_pairs_or_failures() -> None:
    reader = Reader(msgspec.json.Decoder(str))
    reader.read(rb'"\ud83d\ude00"')
    reader.read(rb'"\\ud83d"')
    assert isinstance(reader.read(rb'["\ud83d"]'), Failure)
    assert not reader.carried
    reader.read(rb'"\ud83d"')
    reader.read(b'"a"')
    reader.read(b'"\xff"')
    assert reader.carried


# --- depth ---------------------------------------------------------------------------------------
def arrays(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def objects(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def mixed(depth: int) -> bytes:
    return b'{"":[ ' * (depth // 2) + b"{}" * (depth % 2) + b" ]}" * (depth // 2)


@pytest.mark.parametrize("nest", [arrays, objects, mixed])
def test_depth_up_to_the_limit(nest: object) -> None:
    assert callable(nest)
    assert read(nest(MAX_DEPTH)) == loads(nest(MAX_DEPTH)) == json.loads(nest(MAX_DEPTH))
    assert read(nest(MAX_DEPTH + 1)) is LimitExceeded
    assert loads(nest(MAX_DEPTH + 1)) is None
    assert read(b"[" + b"0," * 1000 + nest(MAX_DEPTH) + b"]") is LimitExceeded


@pytest.mark.parametrize("bomb", [b"[" * 100_000, b'{"a":' * 100_000, b'[{"a":' * 100_000, b"[" * 258])
def test_a_depth_bomb(bomb: bytes) -> None:
    assert read(bomb) is LimitExceeded
    assert read(b'{"other":' + bomb, Chunk) is LimitExceeded
    assert loads(bomb) is None


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b"[]," * 500 + b"[]]",
        b'["' + b"[{" * 500 + b'"]',
        b'["\\"' + b"[{" * 500 + b'"]',
        b'["\\\\", "\\\\\\"' + b"[{" * 500 + b'", "\\\\"]',
        b"[" * 100,
        b"]" * 1000 + b"[" * 200,
    ],
)
def test_brackets_that_do_not_nest_are_no_depth(data: bytes) -> None:
    assert not depth_exceeds(data)


def test_a_long_string_of_escapes_is_scanned_in_bounded_time_and_memory() -> None:
    text = '\\"[{' * 200_000
    assert loads(json.dumps([text]).encode()) == [text]
    assert read(json.dumps([text]).encode()) == [text]


def nesting_of(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(nesting_of, inner), default=0)


VALUE = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=5), st.sampled_from(['"[', "\\{", '\\"{', "]"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=2), inner, max_size=3)),
    max_leaves=40,
)


@untimed
@given(value=VALUE, limit=st.integers(0, 6))
def test_depth_is_exact_for_all_json(value: object, limit: int) -> None:
    data = json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()
    assert depth_exceeds(data, limit) is (nesting_of(value) > limit)


# --- any bytes -----------------------------------------------------------------------------------
@untimed
@given(value=VALUE)
def test_any_json_reads_as_the_standard_library_reads_it(value: object) -> None:
    data = json.dumps(value).encode()
    assert read(data) == loads(data) == json.loads(data)


PIECE = st.one_of(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"1", b"e9", b"null", rb"\ud83d", rb"\u0041", b"\xff"]
    ),
    st.binary(max_size=4),
)


@untimed
@given(pieces=st.lists(PIECE, max_size=12))
def test_garbage_never_raises(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    for type_ in (object, Chunk, str, int, list[float], msgspec.Raw):
        assert read(data, type_) is not LimitExceeded
    loads(data)
    quote(data)
    carry_surrogates(data.decode("utf-8", "replace"))


# --- what a failure says -------------------------------------------------------------------------
def test_a_failure_says_what_was_wrong_and_quotes_the_beginning() -> None:
    failure = Reader(msgspec.json.Decoder(Chunk)).read(b'{"count":"' + b"x" * 300 + b'"}')
    assert isinstance(failure, Failure)
    expected = 'unreadable JSON (Expected `int`, got `str` - at `$.count`): \'{"count":"' + "x" * 190 + "'…"
    assert str(failure.error) == expected


def test_quote_takes_any_bytes() -> None:
    assert quote(b"") == "''"
    assert quote(b"\xff\n\x1b") == r"'�\n\x1b'"
    assert quote(b"abc", 2) == "'ab'…"


def test_is_object_takes_any_text() -> None:
    assert is_object('{"a": "\ud800"}')
    assert is_object(' {"a": [1]}\n')
    assert not is_object('{"a": 1')
