"""The text shortcut gives what a full reading gives, or nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.dialects import Target
from loomstream.dialects.openai_chat import translator
from loomstream.dialects.shortcut import Shortcut
from loomstream.errors import Failure
from loomstream.events import Event, TextDelta, ToolCallStart, Usage
from loomstream.testing import check_order
from loomstream.wire import Frame


def frame(content: object, **extra: object) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return json.dumps({"id": "1", "choices": [choice], **extra}, separators=(",", ":")).encode()


def feed(*frames: bytes) -> list[Event]:
    """Feed frames to one translator."""
    under_test = translator(Target(provider="openai", model="m"))
    events = [event for data in frames for event in under_test.feed(Frame("", data))]
    check_order(events, complete=False)  # type: ignore[arg-type]
    return events  # type: ignore[return-value]


def fitting(shortcut: Shortcut, data: bytes) -> list[Event | Failure] | None:
    return shortcut.events(data, shortcut.frame)


def texts(*frames: bytes) -> list[str]:
    return [event.text for event in feed(*frames) if isinstance(event, TextDelta)]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(), min_size=1, max_size=8))
def test_any_text_comes_out_as_it_went_in(pieces: list[str]) -> None:
    frames = [frame(piece) for piece in pieces]
    assert texts(*frames) == [piece.encode("utf-8", "replace").decode() for piece in pieces if piece]


NEAR_MISSES = [
    frame("b", usage={"prompt_tokens": 1, "completion_tokens": 2}),
    frame(None),
    frame("b").replace(b'"b"', b'"b","refusal":"no"'),
    frame("b").replace(b'"b"', b'"b"   ,"x":"y"'),
    frame("b").replace(b'"finish_reason":null', b'"finish_reason":"stop"'),
    frame("b").replace(b'"index":0', b'"index":1'),
    frame("b").replace(b'"b"', b'["b"]'),
]


@pytest.mark.parametrize("data", NEAR_MISSES)
def test_a_near_miss_is_read_in_full(data: bytes) -> None:
    shortcut = Shortcut(b"content")
    shortcut.learn(frame("a"), TextDelta(0, "a"))
    assert fitting(shortcut, frame("b")) == [TextDelta(0, "b")]
    assert fitting(shortcut, data) is None


def test_what_a_near_miss_says_is_not_lost() -> None:
    call = {"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f"}}]}}
    tool = json.dumps({"id": "1", "choices": [call]}).encode()
    events = feed(frame("a"), frame("b"), NEAR_MISSES[0], tool, frame("c"))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["a", "b", "b", "c"]
    assert any(isinstance(event, Usage) for event in events)
    assert any(isinstance(event, ToolCallStart) for event in events)


@pytest.mark.parametrize("literal", [b'"a" "b"', b'"a","content":"b"', b'"a\\"', b'"\xff"', b'"\\ud800"', b'"', b""])
def test_what_is_no_single_string_does_not_fit(literal: bytes) -> None:
    shortcut = Shortcut(b"content")
    shortcut.learn(frame("a"), TextDelta(0, "a"))
    assert fitting(shortcut, frame("a").replace(b'"a"', literal)) is None


def test_a_second_content_key_makes_no_pattern() -> None:
    shortcut = Shortcut(b"content")
    data = frame("a", other={"content": "a"})
    shortcut.learn(data, TextDelta(0, "a"))
    assert fitting(shortcut, data) is None


@pytest.mark.parametrize(
    "data",
    [
        rb'{"choices":[{"delta":{"content":"a","c\u006fntent":"a"}}]}',
        rb'{"x":"\u0061","choices":[{"delta":{"content":"a"}}]}',
        b'{"content":"b","choices":[{"delta":{}}]}',
        b'{"x":"content","choices":[{"delta":{}}]}',
        b'{"choices":[{"delta":{"content":["a"]}}]}',
    ],
)
def test_a_frame_whose_text_may_stand_elsewhere_makes_no_pattern(data: bytes) -> None:
    shortcut = Shortcut(b"content")
    shortcut.learn(data, TextDelta(0, "a"))
    assert fitting(shortcut, data) is None


def test_white_space_around_the_colon_is_part_of_the_pattern() -> None:
    shortcut = Shortcut(b"content")
    shortcut.learn(b'{"choices": [{"delta": {"content" :\t"a"}}]}', TextDelta(0, "a"))
    assert fitting(shortcut, b'{"choices": [{"delta": {"content" :\t"b"}}]}') == [TextDelta(0, "b")]


def test_a_surrogate_over_two_frames_is_joined_after_a_pattern() -> None:
    half, other = frame("X").replace(b"X", rb"\ud83d"), frame("X").replace(b"X", rb"\ude00!")
    assert "".join(texts(frame("a"), frame("b"), half, other, frame("c"))) == "ab😀!c"


@pytest.mark.parametrize("extra", [{}, {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}])
def test_half_a_character_stays_in_its_place(extra: dict[str, object]) -> None:
    half = frame("X", **extra).replace(b"X", rb"\ud83d")
    assert "".join(texts(frame("a"), frame("b"), half, frame("c"), frame("d"))) == "ab\ufffdcd"


def test_a_host_that_pads_differently_is_given_up_on() -> None:
    shortcut = Shortcut(b"content")
    for number in range(20):
        assert fitting(shortcut, frame("a", pad="x" * number)) is None
        shortcut.learn(frame("a", pad="x" * number), TextDelta(0, "a"))
    assert fitting(shortcut, frame("a", pad="x" * 19)) is None
