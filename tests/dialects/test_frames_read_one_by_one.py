"""A read that brings one frame is compared whole with the frame before it: the events are those of any other cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loomstream.dialects import Target
from loomstream.errors import Failure
from loomstream.events import Event, TextDelta
from loomstream.providers import dialect_module
from loomstream.pump import Pump
from loomstream.wire.sse import SSEDecoder


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def chat(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return compact({"id": "1", "choices": [choice], "usage": None})


def messages(text: str) -> bytes:
    return compact({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})


def cohere(text: str) -> bytes:
    return compact({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}})


OPENINGS = {
    "openai_chat": (compact({"id": "1", "choices": [{"index": 0, "delta": {"role": "assistant"}}]}),),
    "anthropic_messages": (
        compact({"type": "message_start", "message": {"id": "m", "model": "m", "usage": {"input_tokens": 1}}}),
        compact({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ),
    "cohere_chat": (
        compact({"type": "message-start", "id": "m"}),
        compact({"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}),
    ),
}
FRAMES: dict[str, Callable[[str], bytes]] = {"openai_chat": chat, "anthropic_messages": messages, "cohere_chat": cohere}

WRITTEN = (
    b"data: %b\n\n",
    b"data:%b\n\n",
    b"data: %b\r\n\r\n",
    b"data: %b\r\r",
    b"event: x\ndata: %b\n\n",
    b": ping\n\ndata: %b\n\n",
    b"id: 7\ndata: %b\nretry: 3\n\n",
    b"data: %b\n\n: ping\n\n",
    b"data: %b\n\ndata: [DONE",
    b"data: %b\n\n: pin",
    b"data: %b\n",
    b"data: \ndata: %b\n\n",
    b"data: %b\n\ndata: %b\n\n",
    b": %b\ndata: %b\n\n",
    b"data: \n\n",
    b"\n\n",
    b"g\n\n",
    b"\n",
    b"]\n\n",
)
"""How a piece of the body may be written: whole frames, cut ones, and what ends those."""

TEXTS = ("a", "b", "", "é", 'q"q', "\\", "\n", "x" * 70_000)
SPECIAL = (b"%b", b'{"choices":[]}', b"[%b]", b"%b ", b'{"a":1}', b"[DONE]", b"{")
"""What stands in the place of an ordinary payload."""


def read(dialect: str, chunks: Iterable[bytes]) -> list[Event | Failure]:
    """Give the events, a failure as what its error says; check that the pump tells whether there was content."""
    pump = Pump(
        dialect=dialect_module(dialect), target=Target(provider="host", model="m"), expected="sse", content_type=""
    )
    out: list[Event | Failure] = []
    for chunk in chunks:
        over, events = pump.over, pump.feed(chunk)
        assert over or pump.progressed == any(isinstance(event, TextDelta) for event in events)
        out += events
    return [repr(event.error) if isinstance(event, Failure) else event for event in out + pump.finish()]  # type: ignore[misc]


def line(payload: bytes) -> bytes:
    return b"data: %b\n\n" % payload


def in_two(shown: str, said: str) -> bytes:
    """Give a frame of two lines, whose payload stands in one piece only where nobody reads it."""
    return b": %b\ndata: %b\n\n" % tuple(
        chat(text).replace(b'"choices":', joint)
        for text, joint in ((shown, b'"choices":\n'), (said, b'"choices":\ndata: '))
    )


MESSAGE = b'data: {"choices":[{"index":0,"message":{"content":"a"}}]}\n\n'
A, B = line(chat("a")), line(chat("b"))
NO_FRAMES = {
    "a line end behind the string": [A, B, A.replace(b'"a"', b'"c"\n\n')],
    "a line end before the string": [A, B, A.replace(b'"a"', b'\n"c"')],
    "a return behind the string": [A, B, A.replace(b'"a"', b'"c"\r\n')],
    "a payload in a comment": [A, in_two("b", "b"), in_two("other", "b")],
    "the framing of a frame without text": [
        A,
        A,
        b'data: {"choices":[]}\ndata:\n\n',
        line(chat("c"))[:-2] + b"data:\n\n",
    ],
    "the lines of a frame without text": [
        *(A, A, b"{\n}\ndata: {\ndata: }\n\n"),
        chat("c") + b"\ndata: {\ndata: }\n\n",
    ],
}


@pytest.mark.parametrize("chunks", NO_FRAMES.values(), ids=NO_FRAMES)
def test_what_only_looks_like_the_frame_before_is_decoded(chunks: list[bytes]) -> None:
    assert read("openai_chat", chunks) == read("openai_chat", [b"".join(chunks)])


@pytest.mark.parametrize("chunks", [[MESSAGE, MESSAGE], [MESSAGE + MESSAGE]], ids=["one by one", "at once"])
def test_a_message_in_the_place_of_a_delta_counts_once(chunks: list[bytes]) -> None:
    assert texts("openai_chat", chunks) == ["a"]


def texts(dialect: str, chunks: Iterable[bytes]) -> list[str]:
    return [event.text for event in read(dialect, chunks) if isinstance(event, TextDelta)]


PIECES = st.tuples(st.sampled_from(WRITTEN), st.sampled_from(TEXTS), st.sampled_from(SPECIAL))
USUAL = (b"data: %b\n\n", "a", b"%b")


@pytest.mark.parametrize("dialect", FRAMES)
@settings(deadline=None, max_examples=600)
@given(pieces=st.lists(st.one_of(PIECES, st.just(USUAL), st.just((b"data: %b\n\n", "b", b"%b"))), max_size=12))
@example(pieces=[USUAL, USUAL, (b"data: %b\n\n", "b", b"{"), USUAL])
@example(pieces=[USUAL, USUAL, (b"data: %b\n\n: pin", "b", b"%b"), USUAL, (b"g\n\n", "", b"%b"), USUAL])
@example(pieces=[USUAL, USUAL, (b"data: %b\n\n", "a", b"[DONE]"), USUAL])
def test_frames_read_one_by_one_give_what_the_whole_body_gives(
    dialect: str, pieces: list[tuple[bytes, str, bytes]]
) -> None:
    make = FRAMES[dialect]
    chunks = [b"data: %b\n\n" % payload for payload in OPENINGS[dialect]]
    for written, text, special in pieces:
        payload = special % make(text) if b"%b" in special else special
        chunks.append(written.replace(b"%b", payload))
    assert read(dialect, chunks) == read(dialect, [b"".join(chunks)])


@pytest.mark.parametrize("dialect", FRAMES)
@pytest.mark.parametrize("written", [b"data: %b\n\ndata: %b\n\n", b": %b\ndata: %b\n\n", b"data: %b\n\n: %b\n\n"])
def test_a_chunk_that_holds_two_payloads_is_no_pattern(dialect: str, written: bytes) -> None:
    """Whichever of the two changes: none is taken for a part of the framing."""
    make = FRAMES[dialect]
    chunks = [b"data: %b\n\n" % payload for payload in (*OPENINGS[dialect], make("-"))]
    chunks += [written % (make(one), make(other)) for one, other in ("zz", "az", "bz", "zc", "zd")]
    assert read(dialect, chunks) == read(dialect, [b"".join(chunks)])


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Give the chunks that went through the decoder, as they do."""
    chunks: list[bytes] = []
    feed = SSEDecoder.feed

    def watched(self: SSEDecoder, chunk: bytes) -> object:
        chunks.append(chunk)
        return feed(self, chunk)

    monkeypatch.setattr(SSEDecoder, "feed", watched)
    return chunks


@pytest.mark.parametrize("dialect", FRAMES)
@pytest.mark.parametrize("written", [b"data: %b\n\n", b"event: x\ndata:%b\r\n\r\n", b"id: 7\ndata: %b\n\n: ping\n\n"])
def test_a_frame_that_fits_is_not_decoded_again(dialect: str, written: bytes, decoded: list[bytes]) -> None:
    chunks = [written % payload for payload in (*OPENINGS[dialect], *map(FRAMES[dialect], "abcdefgh"))]
    assert texts(dialect, chunks) == [*"abcdefgh"]
    assert decoded == chunks[: len(OPENINGS[dialect]) + 1]


@pytest.mark.parametrize("dialect", FRAMES)
def test_a_frame_that_is_large_goes_through_the_decoder_which_knows_the_limit(
    dialect: str, decoded: list[bytes]
) -> None:
    large = "x" * 70_000
    chunks = [b"data: %b\n\n" % payload for payload in (*OPENINGS[dialect], *map(FRAMES[dialect], ["a", "b", large]))]
    assert texts(dialect, chunks) == ["a", "b", large]
    assert decoded[-1] == chunks[-1]


@pytest.mark.parametrize("dialect", FRAMES)
def test_frames_that_differ_now_and_then_end_no_search_for_a_pattern(dialect: str, decoded: list[bytes]) -> None:
    """Eight patterns in a row that fitted nothing end it; a pattern that fitted reads as a whole is none of those."""
    letters = "abcdefghij" * 12
    payloads = [FRAMES[dialect](text) + b" " * (place % 10 == 9) for place, text in enumerate(letters)]
    chunks = [b"data: %b\n\n" % payload for payload in (*OPENINGS[dialect], *payloads)]
    assert texts(dialect, chunks) == [*letters]
    assert len(decoded) < len(chunks) / 3
