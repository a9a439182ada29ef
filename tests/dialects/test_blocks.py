"""Blocks: indexes, ends, limits, and characters that were cut over two deltas."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw as RawJSON

from loomstream.accumulate import fold
from loomstream.dialects import blocks
from loomstream.dialects.blocks import Blocks, Sealer, SurrogateJoiner, heal
from loomstream.errors import BadFrame, Failure, LimitExceeded
from loomstream.events import (
    Citation,
    Event,
    Notice,
    Opaque,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    RefusalDelta,
    Start,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Unknown,
)
from loomstream.testing import check_order
from loomstream.wire.json import Reader, carrier

Out = list[Event | Failure]
HIGH, LOW = carrier(0xD83D), carrier(0xDE00)
FACE = "\N{GRINNING FACE}"


def test_indexes_are_given_in_order_over_all_kinds_and_choices() -> None:
    out: Out = []
    made = Blocks()
    opened = [
        made.open_text(out),
        made.open_reasoning(out, 1),
        made.open_tool_call(out, "id", "f"),
        made.open_tool_call(out, "", "g", 1),
    ]
    assert [block.index for block in opened] == [0, 1, 2, 3]
    assert made.claim(out) == 4
    assert out == [
        TextStart(0),
        ReasoningStart(1, 1),
        ToolCallStart(2, "id", "f"),
        ToolCallStart(3, "call_3", "g", 1),
    ]


def test_a_block_closes_once() -> None:
    out: Out = []
    made = Blocks()
    block = made.open_text(out)
    made.close(out, block)
    made.close(out, block)
    assert out == [TextStart(0), TextEnd(0)]


def test_reasoning_ends_with_its_signatures() -> None:
    out: Out = []
    made = Blocks()
    block = made.open_reasoning(out)
    block.opaque.append(Opaque("p", "signature", "s"))
    made.close(out, block)
    assert out[-1] == ReasoningEnd(0, (Opaque("p", "signature", "s"),))


@pytest.mark.parametrize(
    ("pieces", "arguments", "executable"),
    [
        (['{"a"', ":1}"], '{"a":1}', True),
        ([], "{}", True),
        ([""], "{}", True),
        (["  "], "{}", True),
        (['{"a"'], '{"a"', False),
        (["[1]"], "[1]", False),
        (["null"], "null", False),
        (['"text"'], '"text"', False),
    ],
)
def test_a_call_is_executable_where_its_arguments_are_an_object(
    pieces: list[str],
    arguments: str,
    executable: bool,  # noqa: FBT001 (a parameter of the table)
) -> None:
    out: Out = []
    made = Blocks()
    block = made.open_tool_call(out, "id", "f")
    for piece in pieces:
        made.arguments(out, block, piece)
    made.close(out, block)
    assert out[-1] == ToolCallEnd(0, "id", "f", arguments, executable=executable)
    assert [event.arguments for event in out if isinstance(event, ToolCallDelta)] == [p for p in pieces if p]


def test_a_call_that_a_token_limit_cut_before_its_arguments_must_not_be_run() -> None:
    out: Out = []
    made = Blocks()
    made.close(out, made.open_tool_call(out, "id", "f"), cut=True)
    assert out[-1] == ToolCallEnd(0, "id", "f", "{}", executable=False)


def test_too_many_blocks_are_refused() -> None:
    out: Out = []
    made = Blocks()
    for _ in range(blocks.MAX_BLOCKS):
        made.claim(out)
    assert out == []
    made.claim(out)
    assert isinstance(out[-1], Failure)
    assert isinstance(out[-1].error, LimitExceeded)
    assert str(blocks.MAX_BLOCKS) in str(out[-1].error)


def test_too_long_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_TOOL_ARGUMENTS_CHARS", 10)
    out: Out = []
    made = Blocks()
    block = made.open_tool_call(out, "id", "f")
    made.arguments(out, block, "0123456789")
    assert out[-1] == ToolCallDelta(0, "0123456789")
    made.arguments(out, block, "!")
    assert isinstance(out[-1], Failure)
    assert "tool call 'id' are longer than 10" in str(out[-1].error)


# --- surrogates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "healed"),
    [
        ("plain", "plain"),
        (HIGH + LOW, FACE),
        (f"a{HIGH}{LOW}b", f"a{FACE}b"),
        (HIGH, "\ufffd"),
        (LOW, "\ufffd"),
        (LOW + HIGH, "\ufffd\ufffd"),
        (HIGH + HIGH + LOW, "\ufffd" + FACE),
        (HIGH + "x" + LOW, "\ufffdx\ufffd"),
        (carrier(0xD800) + carrier(0xDC00), "\U00010000"),
        (carrier(0xDBFF) + carrier(0xDFFF), "\U0010ffff"),
        (carrier(0xD7FF), carrier(0xD7FF)),
        (carrier(0xE000), carrier(0xE000)),
        ("\U0010d83d\U0010de00", "\U0010d83d\U0010de00"),  # what stands behind the mark is no half without it
    ],
)
def test_pairs_join_and_halves_are_replaced(text: str, healed: str) -> None:
    assert heal(text) == healed


ENDS: dict[str, tuple[Event, Event, type[TextDelta | ReasoningDelta | ToolCallDelta]]] = {
    "text": (TextStart(0), TextEnd(0), TextDelta),
    "reasoning": (ReasoningStart(0), ReasoningEnd(0), ReasoningDelta),
}


@pytest.mark.parametrize("kind", ENDS)
def test_halves_in_two_deltas_join(kind: str) -> None:
    start, end, delta = ENDS[kind]
    joined = SurrogateJoiner().join([start, delta(0, "a" + HIGH), delta(0, LOW + "b"), end])
    assert joined == [start, delta(0, "a"), delta(0, FACE + "b"), end]


@pytest.mark.parametrize("kind", ENDS)
def test_a_half_that_stays_alone_is_replaced_at_the_end(kind: str) -> None:
    start, end, delta = ENDS[kind]
    assert SurrogateJoiner().join([start, delta(0, HIGH), end]) == [start, delta(0, "\ufffd"), end]


def test_halves_in_arguments_join() -> None:
    events: Out = [
        ToolCallStart(0, "i" + HIGH, "f"),
        ToolCallDelta(0, '"' + HIGH),
        ToolCallDelta(0, LOW + '"'),
        ToolCallEnd(0, "i" + HIGH, "f", f'"{HIGH}{LOW}"', (Opaque("p", "k", HIGH),), executable=False),
        ReasoningEnd(1, (Opaque("p", "details", LOW, "id" + HIGH),)),
    ]
    assert SurrogateJoiner().join(events) == [
        ToolCallStart(0, "i\ufffd", "f"),
        ToolCallDelta(0, '"'),
        ToolCallDelta(0, FACE + '"'),
        ToolCallEnd(0, "i\ufffd", "f", f'"{FACE}"', (Opaque("p", "k", "\ufffd"),), executable=False),
        ReasoningEnd(1, (Opaque("p", "details", "\ufffd", "id\ufffd"),)),
    ]


def test_a_half_is_held_from_one_frame_to_the_next_and_blocks_are_kept_apart() -> None:
    joiner = SurrogateJoiner()
    assert joiner.join([TextDelta(0, HIGH), ReasoningDelta(1, HIGH)]) == []
    assert joiner.join([TextDelta(0, "x")]) == [TextDelta(0, "\ufffdx")]
    assert joiner.join([ReasoningDelta(1, LOW)]) == [ReasoningDelta(1, FACE)]


def test_a_refusal_and_other_fields_are_healed_where_they_stand() -> None:
    failure = Failure(BadFrame("x"))
    events: Out = [
        Start("p", "m" + LOW),
        RefusalDelta(0, "no" + HIGH, 1),
        Citation(1, title=HIGH + LOW, start=3, raw=RawJSON(f'"{HIGH}"'.encode())),
        Unknown("n", LOW),
        Stop("end_turn", HIGH),
        failure,
    ]
    assert SurrogateJoiner().join(events) == [
        Start("p", "m\ufffd"),
        RefusalDelta(0, "no\ufffd", 1),
        Citation(1, title=FACE, start=3, raw=RawJSON('"\ufffd"'.encode())),
        Unknown("n", "\ufffd"),
        Stop("end_turn", "\ufffd"),
        failure,
    ]


@given(st.lists(st.sampled_from(["a", HIGH, LOW, "\U0010d83d"]), max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_a_text_is_the_same_however_it_was_cut(units: list[str], cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(units)) for cut in cuts), len(units)]
    deltas: Out = [TextDelta(0, "".join(units[a:b])) for a, b in pairwise(places) if a < b]
    joined = SurrogateJoiner().join([Start(), TextStart(0), *deltas, TextEnd(0), Stop("end_turn")])
    events = [event for event in joined if not isinstance(event, Failure)]
    check_order(events)
    assert fold(events).text == heal("".join(units))


# --- the law of the lists --------------------------------------------------------------------------


def sealer(*read: bytes) -> Sealer:
    """Give a sealer whose reader has read this."""
    reader = Reader(msgspec.json.Decoder())
    for data in read:
        reader.read(data)
    return Sealer(reader)


def test_nothing_follows_a_failure() -> None:
    failure = Failure(BadFrame("x"))
    under_test = sealer()
    assert under_test.seal([TextStart(0)]) == [TextStart(0)]
    assert under_test.seal([]) == []
    assert not under_test.over
    assert under_test.seal([TextStart(0), failure, TextEnd(0), failure]) == [TextStart(0), failure]
    assert under_test.over


def test_halves_are_joined_only_where_one_was_carried_and_never_over_epochs() -> None:
    private: Out = [TextDelta(0, HIGH)]
    assert sealer(b'"a"').seal(list(private)) == private
    under_test = sealer(rb'"\ud83d"')
    assert under_test.seal(list(private)) == []
    under_test.begin_epoch()
    assert under_test.seal([TextDelta(0, LOW)]) == [TextDelta(0, "\ufffd")]


def test_replaced_bytes_are_announced_once() -> None:
    under_test = sealer(b'"\xff"')
    first, text = under_test.seal([TextDelta(0, "\ufffd")])
    assert isinstance(first, Notice)
    assert (first.kind, text) == ("warning", TextDelta(0, "\ufffd"))
    assert "U+FFFD" in first.detail
    assert under_test.seal([TextDelta(0, "b")]) == [TextDelta(0, "b")]
