"""AWS event streams: moto encodes, botocore decodes the same bytes, and no malformed message gets through."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from collections.abc import Iterable, Mapping
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.core.eventstream import EventStreamEncoder

from loomstream.errors import BadFrame, ChecksumMismatch, Failure, LimitExceeded, UnexpectedContent, WireError
from loomstream.wire import Frame
from loomstream.wire.aws import MAX_HEADERS_BYTES, MAX_MESSAGE_BYTES, MEDIA_TYPE, AWSDecoder, fault_kind
from loomstream.wire.sniff import sniff

untimed = settings(deadline=None)
encode = EventStreamEncoder().encode_message
EVENT = {":event-type": "contentBlockDelta", ":content-type": "application/json", ":message-type": "event"}
HELLO = encode(EVENT, b'{"delta":{"text":"Hello"}}')
BYE = encode({**EVENT, ":event-type": "messageStop"}, b"{}")

# --- a message built by hand, for what moto does not write -------------------------------------------------------


def sealed(block: bytes, payload: bytes = b"{}", *, total: int | None = None, headers: int | None = None) -> bytes:
    """Build a message around a headers block, with right checksums and any lengths."""
    total = 16 + len(block) + len(payload) if total is None else total
    prelude = struct.pack(">II", total, len(block) if headers is None else headers)
    prelude += struct.pack(">I", crc32(prelude))
    body = prelude + block + payload
    return body + struct.pack(">I", crc32(body))


def header(name: bytes, kind: int, value: bytes) -> bytes:
    return bytes([len(name)]) + name + bytes([kind]) + value


def sized(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


EVERY_TYPE: list[tuple[bytes, object]] = [
    (header(b"yes", 0, b""), True),
    (header(b"no", 1, b""), False),
    (header(b"byte", 2, b"\xfe"), -2),
    (header(b"short", 3, b"\xff\x00"), -256),
    (header(b"integer", 4, b"\x7f\xff\xff\xff"), 2**31 - 1),
    (header(b"long", 5, b"\x80" + bytes(7)), -(2**63)),
    (header(b"bytes", 6, sized(b"\x00\xff")), b"\x00\xff"),
    (header(b"string", 7, sized("naïve".encode())), "naïve"),
    (header(b"time", 8, struct.pack(">q", 1_700_000_000_123)), 1_700_000_000_123),
    (header(b"uuid", 9, bytes(range(16))), bytes(range(16))),
]
BLOCK = b"".join(encoded for encoded, _ in EVERY_TYPE)

# --- outcomes ----------------------------------------------------------------------------------------------------

Seen = tuple[str, bytes, dict[str, object]] | tuple[type, str]


def seen(item: Frame | Failure) -> Seen:
    if isinstance(item, Failure):
        return type(item.error), str(item.error)
    return item.name, item.data, dict(item.headers or {})


def decode(*chunks: bytes) -> list[Seen]:
    decoder = AWSDecoder()
    items = [item for chunk in chunks for item in decoder.feed(chunk)] + decoder.finish()
    failures = [item for item in items if isinstance(item, Failure)]
    assert failures in ([], items[-1:])
    assert decoder.feed(HELLO) == decoder.finish() == []
    return [seen(item) for item in items]


def ways_to_cut(body: bytes) -> Iterable[list[bytes]]:
    yield [body[i : i + 1] for i in range(len(body))]
    for cut in range(len(body) + 1):
        yield [body[:cut], body[cut:]]


def botocores(body: bytes) -> tuple[list[tuple[Mapping[str, object], bytes]], bool]:
    """Give what botocore reads, and whether it refused what follows."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    found: list[tuple[Mapping[str, object], bytes]] = []
    try:
        found += ((message.headers, message.payload) for message in buffer)
    except ParserError:
        return found, True
    return found, False


# --- good messages -----------------------------------------------------------------------------------------------


def test_messages_become_frames_however_they_are_cut() -> None:
    body = HELLO + BYE + encode({}, b"") + HELLO
    whole = decode(body)
    assert whole == [
        ("contentBlockDelta", b'{"delta":{"text":"Hello"}}', EVENT),
        ("messageStop", b"{}", {**EVENT, ":event-type": "messageStop"}),
        ("", b"", {}),
        ("contentBlockDelta", b'{"delta":{"text":"Hello"}}', EVENT),
    ]
    for chunks in ways_to_cut(body):
        assert decode(*chunks) == whole


@pytest.mark.parametrize(("encoded", "value"), EVERY_TYPE, ids=[str(index) for index in range(10)])
def test_every_type_of_header_is_read(encoded: bytes, value: object) -> None:
    name = encoded[1 : 1 + encoded[0]].decode()
    [found] = decode(sealed(encoded))
    assert found[2] == {name: value}
    assert type(found[2][name]) is type(value)


def test_all_headers_together() -> None:
    [found] = decode(sealed(BLOCK, b"payload"))
    assert list(found[2].values()) == [value for _, value in EVERY_TYPE]
    assert found[1] == b"payload"


@pytest.mark.parametrize(
    ("headers", "name", "kind"),
    [
        ({":event-type": "chunk"}, "chunk", ""),
        ({":message-type": "event", ":event-type": "chunk"}, "chunk", ""),
        ({":message-type": "exception", ":exception-type": "throttlingException"}, "throttlingException", "exception"),
        ({":message-type": "exception", ":event-type": "chunk"}, "", "exception"),
        ({":message-type": "error", ":error-code": "500", ":error-message": "oh"}, "500", "error"),
        ({":message-type": "error", ":error-code": 500}, "", "error"),
        ({":message-type": "novelty", ":event-type": "chunk"}, "chunk", ""),
        ({":message-type": 7, ":event-type": "chunk"}, "chunk", ""),
        ({}, "", ""),
    ],
)
def test_a_frame_is_named_by_what_kind_of_message_it_is(headers: dict[str, object], name: str, kind: str) -> None:
    [frame] = AWSDecoder().feed(encode(headers, b"{}"))
    assert isinstance(frame, Frame)
    assert (frame.name, fault_kind(frame.headers)) == (name, kind)
    assert frame.headers == headers


def test_a_frame_without_headers_is_no_fault() -> None:
    assert fault_kind(None) == ""


def test_headers_cannot_be_changed_for_the_frames_that_share_them() -> None:
    [frame] = AWSDecoder().feed(HELLO)
    with pytest.raises(TypeError):
        frame.headers["new"] = 1


def test_headers_that_never_repeat_take_no_memory() -> None:
    decoder = AWSDecoder()
    bodies = [encode({":event-type": "x" * 400, "n": number}, b"") for number in range(2000)]
    decoder.feed(bodies[0])
    tracemalloc.start()
    try:
        for body in bodies[1:]:
            assert len(decoder.feed(body)) == 1
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 200_000


def test_messages_of_very_many_lengths_are_read() -> None:
    head = header(b":event-type", 7, sized(b"chunk"))
    payloads = [b"x" * size for size in range(300)] * 2
    frames = AWSDecoder().feed(b"".join(sealed(head, payload) for payload in payloads))
    assert [frame.data for frame in frames if isinstance(frame, Frame)] == payloads
    assert {frame.name for frame in frames if isinstance(frame, Frame)} == {"chunk"}


def test_a_damaged_message_behind_one_with_the_same_head_is_found() -> None:
    head = header(b":event-type", 7, sized(b"chunk"))
    good = sealed(head, b"good")
    decoder = AWSDecoder()
    assert [frame.data for frame in decoder.feed(good * 2) if isinstance(frame, Frame)] == [b"good"] * 2
    (failure,) = decoder.feed(good.replace(b"good", b"gone"))
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, ChecksumMismatch)


def test_headers_that_are_long_are_read_each_time() -> None:
    body = encode({":event-type": "x" * 1000}, b"") * 2
    assert [item[0] for item in decode(body)] == ["x" * 1000] * 2


def test_a_large_message_in_small_pieces() -> None:
    body = encode(EVENT, bytes(3_000_000)) + HELLO
    chunks = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    assert [len(item[1]) for item in decode(*chunks)] == [3_000_000, len(b'{"delta":{"text":"Hello"}}')]


# --- botocore says the same --------------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
values = (
    st.booleans()
    | st.integers(-(2**31), 2**31 - 1)
    | st.binary(max_size=40)
    | st.text(st.characters(codec="utf-8"), max_size=40)
    | st.datetimes(timezones=st.none()).filter(lambda moment: 1971 < moment.year < 2200)
)
messages = st.builds(encode, st.dictionaries(names, values, max_size=6), st.binary(max_size=200))
fixed = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Draw headers of all ten types."""
    out = b""
    for name in draw(st.lists(names, max_size=6, unique=True)):
        kind = draw(st.integers(0, 9))
        size = fixed.get(kind)
        if size is None:
            value = sized(draw(names).encode() if kind == 7 else draw(st.binary(max_size=30)))
        else:
            value = draw(st.binary(min_size=size, max_size=size))
        out += header(name.encode(), kind, value)
    return out


@untimed
@given(st.lists(messages | st.builds(sealed, blocks(), st.binary(max_size=50)), max_size=5), st.data())
def test_botocore_reads_the_same(encoded: list[bytes], data: st.DataObject) -> None:
    body = b"".join(encoded)
    places = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=4)))
    chunks = [body[start:end] for start, end in itertools.pairwise([0, *places, len(body)])]
    expected, refused = botocores(body)
    assert not refused
    assert [(item[2], item[1]) for item in decode(*chunks)] == expected


@untimed
@given(st.lists(messages, min_size=1, max_size=4), st.integers(min_value=0), st.integers(1, 255))
def test_botocore_refuses_what_is_refused_when_a_byte_is_wrong(encoded: list[bytes], place: int, change: int) -> None:
    body = bytearray(b"".join(encoded))
    body[place % len(body)] ^= change
    expected, refused = botocores(bytes(body))
    found = decode(bytes(body))
    good = [item for item in found if item[0] is not ChecksumMismatch]
    assert [(item[2], item[1]) for item in good] == expected
    assert (len(good) < len(found)) == refused


@untimed
@given(st.binary(max_size=300))
def test_no_bytes_whatever_raise(body: bytes) -> None:
    found = decode(body)
    assert all(not isinstance(item[0], type) or issubclass(item[0], WireError) for item in found)


# --- malformed, with right checksums -----------------------------------------------------------------------------


def malformed() -> list[tuple[str, bytes, type[WireError]]]:
    """Give messages whose checksums are right and whose content is not."""
    ends = set(itertools.accumulate(len(encoded) for encoded, _ in EVERY_TYPE))
    cases = [(f"headers cut at {at}", sealed(BLOCK[:at]), BadFrame) for at in range(1, len(BLOCK)) if at not in ends]
    cases += [(f"header type {kind}", sealed(header(b"x", kind, b"\0" * 20)), BadFrame) for kind in range(10, 256, 3)]
    cases += [
        (f"name of {size} bytes in {room}", sealed(bytes([size]) + b"n" * room), BadFrame)
        for size, room in itertools.product((2, 5, 127, 128, 255), (0, 1))
    ]
    cases += [
        (
            f"value of {size} bytes in 3, type {kind}",
            sealed(header(b"x", kind, struct.pack(">H", size) + b"abc")),
            BadFrame,
        )
        for size, kind in itertools.product((4, 5, 255, 256, 65535), (6, 7))
    ]
    cases += [
        (f"no UTF-8: {text!r}", sealed(block), BadFrame)
        for text in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80")
        for block in (header(text, 7, sized(b"v")), header(b"x", 7, sized(text)))
    ]
    cases += [(f"header {name!r} twice", sealed(header(name, 0, b"") * 2), BadFrame) for name in (b"x", b":event-type")]
    cases += [("header without a name", sealed(header(b"", 0, b"")), BadFrame)]
    cases += [(f"length {total}", sealed(b"", total=total), BadFrame) for total in range(16)]
    cases += [
        (f"headers of {size} bytes in 18", sealed(b"", total=18, headers=size), BadFrame)
        for size in (3, 4, 100, 65536, 2**31, 2**32 - 1)
    ]
    cases += [
        (f"length {total}", sealed(b"", total=total), LimitExceeded)
        for total in (MAX_MESSAGE_BYTES + 1, 2**25, 2**31, 2**32 - 1)
    ]
    cases += [
        (f"headers of {size} bytes", sealed(b"", total=MAX_MESSAGE_BYTES, headers=size), LimitExceeded)
        for size in (MAX_HEADERS_BYTES + 1, MAX_MESSAGE_BYTES - 16)
    ]
    return cases


MALFORMED = malformed()


def test_there_are_enough_malformed_messages() -> None:
    assert len({body for _, body, _ in MALFORMED}) >= 200


@pytest.mark.parametrize(("body", "error"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_a_malformed_message_is_a_typed_error_behind_the_good_ones(body: bytes, error: type[WireError]) -> None:
    whole = decode(HELLO + body + HELLO)
    assert [item[0] for item in whole] == ["contentBlockDelta", error]
    assert f"at byte {len(HELLO)}" in str(whole[1][1])
    for size in (1, 7, 12):
        text = HELLO + body + HELLO
        assert decode(*(text[at : at + size] for at in range(0, len(text), size))) == whole


@pytest.mark.parametrize("place", range(len(HELLO)))
def test_a_wrong_byte_anywhere_is_a_checksum_that_does_not_match(place: int) -> None:
    wrong = bytearray(HELLO)
    wrong[place] ^= 0x01
    found = decode(BYE + bytes(wrong) + BYE)
    assert [item[0] for item in found] == ["messageStop", ChecksumMismatch]


def test_a_wrong_length_is_found_before_anything_is_waited_for() -> None:
    wrong = bytearray(HELLO)
    wrong[1] = 0x7F
    [failure] = AWSDecoder().feed(bytes(wrong[:12]))
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, ChecksumMismatch)


@pytest.mark.parametrize("place", range(1, len(HELLO)))
def test_a_message_that_the_end_cuts_is_dropped(place: int) -> None:
    assert [item[0] for item in decode(BYE + HELLO[:place])] == ["messageStop"]


def test_the_limit_can_be_set() -> None:
    assert len(AWSDecoder(max_message_bytes=len(HELLO)).feed(HELLO)) == 1
    [failure] = AWSDecoder(max_message_bytes=len(HELLO) - 1).feed(HELLO)
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, LimitExceeded)
    assert f"{len(HELLO):,} bytes" in str(failure.error)


def test_a_message_as_large_as_may_be() -> None:
    body = encode({}, bytes(MAX_MESSAGE_BYTES - 16))
    [frame] = AWSDecoder().feed(body)
    assert isinstance(frame, Frame)
    assert len(frame.data) == MAX_MESSAGE_BYTES - 16


# --- which decoder a body gets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected", "content_type", "decoder"),
    [
        (HELLO, "aws", "", "aws"),
        (HELLO, "aws", "text/plain", "aws"),
        (HELLO, "json", MEDIA_TYPE, "aws"),
        (HELLO, "sse", f"{MEDIA_TYPE.title()}; charset=x", "aws"),
        (b"\x01\x80", "aws", "", "aws"),
        (b'{"message":"no"}', "aws", MEDIA_TYPE, "json"),
        (b"data: x", "aws", MEDIA_TYPE, "sse"),
    ],
)
def test_the_first_byte_tells_an_event_stream(body: bytes, expected: str, content_type: str, decoder: str) -> None:
    assert sniff(body, expected, content_type) == decoder
    assert sniff(body[:1], expected, content_type) in {decoder, None}


@pytest.mark.parametrize(("body", "expected"), [(HELLO, "sse"), (b"\x02\x00\x00\x00", "aws"), (b"<html>", "aws")])
def test_other_binary_bytes_are_unexpected(body: bytes, expected: str) -> None:
    answer = sniff(body, expected, "")
    assert isinstance(answer, Failure)
    assert isinstance(answer.error, UnexpectedContent)
